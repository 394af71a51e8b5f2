"""Real pubs that run out of memory, crash again and again, or hang: what Docker does, and what we make of it."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import docker
import pytest
from docker.models.containers import Container

from orchestrator import crashes
from orchestrator.models import Placement
from orchestrator.reconcile import run_here, run_pass
from orchestrator.swarm import Ended, service_name
from orchestrator.swarm.engine import EngineSwarm
from pubs.models import Bot, Event, Status
from tests.live.test_run import ask, containers, fresh
from tests.support.make import Maker
from tests.support.wait import until

pytestmark = pytest.mark.django_db

HOG = ["node", "-e", "const held = []; for (;;) held.push(Buffer.alloc(1e8, 1))"]


class Look:
    """What the broadcaster sees in a glance, and then a pass."""

    def __init__(self, real_swarm: EngineSwarm) -> None:
        self.swarm = real_swarm

    def __call__(self) -> None:
        if home := Placement.objects.select_related("hub").first():
            crashes.note(asyncio.run(self.glance(home.hub.node_id)))
        run_pass(ask=run_here)

    async def glance(self, node_id: str) -> tuple[Ended, ...]:
        async with aclosing(self.swarm.glances(node_id, 1)) as glances:  # type: ignore[type-var]
            return (await anext(glances)).ended

    def until(self, what: str, is_so: Callable[[], object], seconds: float = 60) -> None:
        def look() -> object:
            self()
            return is_so()

        until(what, look, seconds)

    def until_status(self, bot: Bot, status: str) -> None:
        self.until(f"{bot} to be {status}", lambda: fresh(bot).status == status)


@pytest.fixture
def look(real_swarm: EngineSwarm, settings: Any) -> Look:
    settings.PUB_SILENCE_SECONDS = 14
    settings.CRASHES_MAX = 3
    return Look(real_swarm)


@pytest.fixture
def pubs(make: Maker, look: Look, engine: docker.DockerClient) -> Iterator[list[Bot]]:
    """Two that are up, gone again after the test."""
    bots = [make.bot(paid=True), make.bot(paid=True)]
    for bot in bots:
        look.until_status(bot, Status.UP)
    yield [fresh(bot) for bot in bots]
    for bot in bots:
        look.swarm.remove_service(bot.pk)
    until("their containers are gone", lambda: not any(containers(engine, bot) for bot in bots))


def server(container: Container) -> int:
    """The pub server's process, as this machine counts it."""
    table = container.top()
    pid, command = table["Titles"].index("PID"), table["Titles"].index("CMD")
    [found] = [row[pid] for row in table["Processes"] if row[command].startswith("node ")]
    return int(found)


def health(engine: docker.DockerClient, bot: Bot, seconds: int) -> Iterator[tuple[str, float]]:
    """What Docker says of the bot's containers from now on, for so long, and when."""
    now = datetime.now(UTC)
    filters = {"type": "container", "event": "health_status", "label": f"buttcloud.bot={bot.pk}"}
    said = engine.api.events(since=now, until=now + timedelta(seconds=seconds), filters=filters, decode=True)
    return ((each["status"].removeprefix("health_status: "), each["timeNano"] / 1e9) for each in said)


def test_a_pub_that_hangs_is_back_within_a_minute_while_one_that_loops_is_stopped_for_a_rest(
    pubs: list[Bot], look: Look, engine: docker.DockerClient
) -> None:
    hung, loops = pubs
    said, began = health(engine, hung, 150), time.time()
    os.kill(server(containers(engine, hung)[0]), signal.SIGSTOP)

    # Out of memory: Swarm's manager says only 137, the engine says why.
    [container] = containers(engine, loops)
    container.exec_run(HOG)
    os.kill(server(container), signal.SIGKILL)
    look.until_status(loops, Status.DOWN)
    crashed = Event.objects.filter(kind=Event.Kind.CRASHED)
    look.until("the crash to be told", crashed.filter(bot=loops).exists, 20)
    look.until_status(loops, Status.UP)
    crash = crashed.get(bot=loops)
    assert crash.details == {"exit_code": 137, "out_of_memory": True, "unhealthy": False}

    # The volume is not that of this identity: it ends at once, again and again.
    Bot.objects.filter(pk=loops.pk).update(ssb_id=f"@{'A' * 43}=.ed25519")
    look.until_status(loops, Status.NONE)
    rested = fresh(loops)
    assert rested.rests_until and "does not hold its identity" in rested.reason
    assert not engine.services.list(filters={"name": service_name(loops.pk)})
    assert engine.volumes.get(service_name(loops.pk)) and Placement.objects.filter(bot=loops).exists()

    # Meanwhile Docker has called the other one unhealthy, and Swarm has ended it and starts it again.
    silent = next(at for word, at in said if word == "unhealthy")
    back = next(at for word, at in said if word == "healthy")
    look.until_status(hung, Status.UP)
    print(f"silent for {silent - began:.1f} s, then back after {back - silent:.1f} s")
    assert back - silent < 60
    crash = crashed.get(bot=hung)
    assert crash.details["unhealthy"] and crash.words == crashes.UNHEALTHY
    assert ask(hung, "whoami").result == {"id": hung.ssb_id}

    # It is tried again when its owner says so, and no crash is made of what somebody asks for.
    Bot.objects.filter(pk=loops.pk).update(ssb_id=loops.ssb_id)
    fresh(loops).restart()
    look.until_status(loops, Status.UP)
    before, [container] = crashed.count(), containers(engine, loops)
    fresh(loops).restart()
    look.until("it to be another container", lambda: containers(engine, loops) not in ([], [container]))
    look.until_status(loops, Status.UP)
    assert crashed.count() == before
