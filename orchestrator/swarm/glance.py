"""A look at all pubs of one engine, again and again, without holding a stream open for each of them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any
from uuid import UUID
from zlib import crc32

import orjson
from django.conf import settings

from orchestrator.swarm import Ended, Glance, NotRunning
from orchestrator.swarm.client import Client, Talk
from orchestrator.swarm.sample import Reading, reading, sample, time_of
from orchestrator.swarm.spec import BOT, DEPLOYMENT, uuid_or_none
from pubs.live import Stats

Dict = dict[str, Any]  # one of Docker's

# Engines before 21 answer at the next tick of their own collector, up to a second later.
AT_ONCE = 16
# Below this, the time between two samples says more about the engine's ticks than about the pub.
SHORTEST = 1.0
DOCKERS_RETRIES = 3  # of a health check that does not say it
TASK = "com.docker.swarm.task.id"  # Swarm's mark on containers of services: not on those that help a pub


async def glances(
    engine: Client, node_id: str, seconds: float, streamed: Mapping[str, Reading] = MappingProxyType({})
) -> AsyncIterator[Glance]:
    """`streamed`: container → the last of it, of those that a stream is open for: they need not be asked."""
    async with engine.talk(AT_ONCE) as talk:
        looks = Looks(talk, streamed)
        while True:
            yield await looks.next()
            await asyncio.sleep(until_next(time.time(), seconds, node_id))


def until_next(now: float, seconds: float, node_id: str) -> float:
    """Seconds until the next look: one in each step of the clock, early in it, and not on all nodes at once."""
    phase = seconds * (0.1 + 0.4 * crc32(node_id.encode()) / 2**32)
    wait = (phase - now) % seconds
    return wait if wait >= min(SHORTEST, seconds / 2) else wait + seconds


class Looks:
    """Looks at one engine. What the last one saw is kept, for the rates and so that nothing is asked twice."""

    def __init__(self, talk: Talk, streamed: Mapping[str, Reading] = MappingProxyType({})) -> None:
        self.talk, self.streamed = talk, streamed
        self.before: dict[str, Reading] = {}  # running container → the last of it
        self.ended: dict[str, Ended] = {}

    async def next(self) -> Glance:
        marks = {"label": [f"{DEPLOYMENT}={settings.DEPLOYMENT}", TASK, BOT]}
        found = await self.talk.get("/containers/json", all="true", filters=orjson.dumps(marks).decode())
        bots = {each["Id"]: bot_id for each in found if (bot_id := uuid_or_none(each["Labels"][BOT]))}
        running = [each["Id"] for each in found if each["Id"] in bots and each["State"] == "running"]
        ended = [each["Id"] for each in found if each["Id"] in bots and each["State"] in ("exited", "dead")]
        readings = await self._ask(running, self._read)
        # Those that are gone are forgotten.
        known = {container: self.ended[container] for container in ended if container in self.ended}
        new = await self._ask([container for container in ended if container not in known], self._inspect)
        self.ended = known | {container: _ended(bots[container], container, said) for container, said in new.items()}
        stats = {bots[container]: stats for container, stats in self._stats(readings).items()}
        self.before = readings
        return Glance(stats, tuple(self.ended.values()))

    async def _ask[T](self, containers: list[str], question: Callable[[str], Awaitable[T | None]]) -> dict[str, T]:
        """Container → the answer. One that vanishes meanwhile has none."""
        answers = await asyncio.gather(*map(question, containers))
        return {container: answer for container, answer in zip(containers, answers, strict=True) if answer}

    async def _read(self, container: str) -> Reading | None:
        if container in self.streamed:
            return self.streamed[container]
        try:
            said = await self.talk.get(f"/containers/{container}/stats", **{"stream": "false", "one-shot": "true"})
        except NotRunning:
            return None
        return reading(said)

    async def _inspect(self, container: str) -> Dict | None:
        try:
            return dict(await self.talk.get(f"/containers/{container}/json"))
        except NotRunning:
            return None

    def _stats(self, readings: dict[str, Reading]) -> dict[str, Stats]:
        """Of a container that is seen for the first time nothing is known over time: it comes with the next look."""
        return {
            container: sample(now, self.before[container])
            for container, now in readings.items()
            if container in self.before
        }


def _ended(bot_id: UUID, container: str, said: Dict) -> Ended:
    state = said["State"]
    return Ended(
        bot_id=bot_id,
        container=container,
        began=time_of(state["StartedAt"]),
        at=time_of(state["FinishedAt"]),
        exit_code=state["ExitCode"],
        out_of_memory=state["OOMKilled"],
        unhealthy=_failed_its_checks(said),
    )


def _failed_its_checks(said: Dict) -> bool:
    """Docker calls any container with a check unhealthy once it has ended; only the failures in a row tell."""
    failures = (said["State"].get("Health") or {}).get("FailingStreak", 0)
    return failures >= ((said["Config"].get("Healthcheck") or {}).get("Retries") or DOCKERS_RETRIES)
