"""What a real container writes: read with its last words after a crash, followed through a flood, and rotated."""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import aclosing, suppress
from typing import Any
from uuid import uuid4

import docker
import pytest
from asgiref.sync import async_to_sync
from django.conf import settings

from orchestrator import logs
from orchestrator.logs import LogStream
from orchestrator.models import Hub, Placement
from orchestrator.swarm import LogLine, PubService, service_name
from orchestrator.swarm.engine import EngineSwarm
from orchestrator.swarm.spec import SECOND, service_spec
from tests.support.make import Maker
from tests.support.wait import until, until_async

pytestmark = pytest.mark.django_db

SECRET = "s3cr3t" * 14 + "=="
FLOOD = 12_000  # lines, of 1,000 bytes: more than the engine keeps
# It writes when it starts, and floods when it is told to.
PROGRAM = f"""
console.log('{{"t":"x","event":"listening","private":"{SECRET}"}}')
console.error('Warning: beware')
console.log('long '.repeat(8000) + 'end')
process.stdout.write('unfinished')
setTimeout(() => console.log(' and finished'), 100)
process.on('SIGUSR2', () => {{
  for (let i = 1; i <= {FLOOD}; i++) process.stdout.write(`flood ${{i}} `.padEnd(999, '~') + '\\n')
}})
process.on('SIGTERM', () => process.exit())
setInterval(() => {{}}, 1000)
"""


class Writer:
    """A pub service whose program is ours."""

    def __init__(self, swarm: EngineSwarm, engine: docker.DockerClient) -> None:
        self.swarm, self.engine = swarm, engine
        self.bot = Maker().bot(paid=True)
        self.node = swarm.look().nodes[0].id
        pub = PubService(self.bot.pk, "@x", self.node, 29390, "127.0.0.1", settings.PUB_IMAGE, 2**28, 0)
        spec = service_spec(pub)
        task = spec["TaskTemplate"]
        task["ContainerSpec"] |= {"Command": ["node", "-e", PROGRAM], "Healthcheck": {"Test": ["NONE"]}}
        task["RestartPolicy"]["Delay"] = SECOND // 2
        swarm.manager.call("POST", "/services/create", spec)
        hub = Hub.objects.create(name=f"hub-{uuid4()}", state=Hub.State.READY, node_id=self.node, places=15)
        Placement.objects.create(bot=self.bot, hub=hub, port=29390, label="logs")
        self.container = self.next_container()

    def next_container(self, after: str = "") -> docker.models.containers.Container:
        its = {"label": f"buttcloud.bot={self.bot.pk}", "status": "running"}

        def look() -> Any:
            found = self.engine.containers.list(filters=its, ignore_removed=True)
            return next((each for each in found if each.id != after and b"and finished" in each.logs(tail=9)), None)

        return until("it writes", look, 20)

    def crash(self) -> None:
        self.container.kill()
        self.container = self.next_container(after=self.container.id)

    def lines(self, tail: int) -> list[LogLine]:
        async def read() -> list[LogLine]:
            async with aclosing(self.swarm.logs(self.bot.pk, self.node, tail)) as lines:  # type: ignore[type-var]
                return [line async for line in lines]

        return async_to_sync(read)()


@pytest.fixture
def writer(db: None, real_swarm: EngineSwarm, engine: docker.DockerClient) -> Iterator[Writer]:
    real_swarm.tune()
    writer = Writer(real_swarm, engine)
    yield writer
    real_swarm.remove_service(writer.bot.pk)
    its = {"label": f"buttcloud.bot={writer.bot.pk}"}
    until("it is gone", lambda: not engine.containers.list(all=True, filters=its, ignore_removed=True), 40)
    engine.volumes.get(service_name(writer.bot.pk)).remove()


class Readers:
    """Everybody who reads: what a stream sends."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        self.messages.append(message)

    @property
    def texts(self) -> list[str]:
        return [line["text"] for message in self.messages for line in message["lines"]]


def test_a_container_is_read_with_its_last_words_followed_through_a_crash_and_rotated(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Read once: in order, both outputs, a long line and one in two pieces whole.
    written = writer.lines(100)
    assert {line.text[:8] for line in written} == {'{"t":"x"', "Warning:", "long lon", "unfinish"} and len(written) == 4
    assert [line.text for line in written if line.is_error] == ["Warning: beware"]
    assert next(line.text for line in written if line.text.startswith("long")) == "long " * 8000 + "end"
    assert [line.nanoseconds for line in written] == sorted({line.nanoseconds for line in written})
    assert abs(time.time() - written[-1].at.timestamp()) < 60

    # A mail, and the words before a crash with those after it.
    writer.crash()
    text = logs.last_lines(writer.bot.pk, 100)
    assert SECRET not in text and text.count("listening private=[hidden]") == 2 and text.count("and finished") == 2

    # Followed: through a flood and another crash, and nothing is left behind.
    readers = Readers()
    monkeypatch.setattr(logs, "layer", lambda: readers)
    async_to_sync(_follow)(writer, readers)
    assert not any(SECRET in text for text in readers.texts)

    # The engine keeps two files of 5 MB.
    assert writer.container.attrs["HostConfig"]["LogConfig"] == {
        "Type": "json-file", "Config": {"max-size": "5m", "max-file": "2"}
    }  # fmt: skip


async def _follow(writer: Writer, readers: Readers) -> None:
    stream = LogStream(writer.bot.pk)
    reading = asyncio.create_task(stream.forward(writer.node))
    await until_async(lambda: len(readers.texts) == 8)
    began, sent = time.monotonic(), len(readers.messages)
    await asyncio.to_thread(writer.container.kill, "SIGUSR2")
    await until_async(lambda: readers.texts[-1].startswith(f"flood {FLOOD} "), 30)
    seconds, flood = time.monotonic() - began, readers.messages[sent:]
    assert len(flood) <= seconds / logs.BATCH_SECONDS + 2
    numbers = [line["number"] for message in flood for line in message["lines"]]
    # What was left out is counted. What the engine threw away before we came to it nobody knows.
    assert len(numbers) < numbers[-1] - numbers[0] + 1 <= FLOOD
    kept = await asyncio.to_thread(writer.lines, FLOOD)
    size = sum(len(line.text) for line in kept)
    assert 2 * 2**20 < size < 10 * 2**20 and kept[-1].text.startswith(f"flood {FLOOD} ")
    # The stream ends with its container, and goes on with the next one.
    await asyncio.to_thread(writer.crash)
    await asyncio.wait_for(reading, 10)
    before = _descriptors()
    again = asyncio.create_task(stream.forward(writer.node))
    await until_async(lambda: readers.texts[-1].startswith("unfinished and finished"))
    floods = [text for text in readers.texts if text.startswith("flood")]
    assert len(set(floods)) == len(floods)  # none came twice
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)
    await until_async(lambda: _descriptors() <= before)


def _descriptors() -> int:
    """Sockets that this process holds open."""
    sockets = 0
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the list itself
            sockets += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    return sockets
