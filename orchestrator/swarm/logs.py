"""What a pub wrote, as its engine keeps it: its container that was started last, and the one before, whose last words
tell of a crash.
"""

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from uuid import UUID

import aiohttp

from orchestrator.swarm import LogLine, NotRunning
from orchestrator.swarm.client import SILENCE_SECONDS, Client, Talk
from orchestrator.swarm.glance import TASK
from orchestrator.swarm.spec import BOT, SECOND

CONTAINERS = 2
# Bytes of a line that are kept. Docker cuts longer ones into pieces of 16 kB.
LINE_MAX = 2**16
STDERR = 2


async def logs(engine: Client, bot_id: UUID, tail: int, follow: bool) -> AsyncIterator[LogLine]:
    # A pub may say nothing for days; that a machine is cut off is noticed below, by TCP.
    async with engine.talk(silence=None if follow else SILENCE_SECONDS) as talk:
        containers = await _containers(talk, bot_id)
        for container in containers:
            with suppress(NotRunning):  # gone meanwhile
                async for line in _lines(talk, container, tail, follow and container == containers[-1]):
                    yield line


async def _containers(talk: Talk, bot_id: UUID) -> list[str]:
    """Those that have run, the newest last. Such as only help a pub, to be made or to be copied, are none of them."""
    marks = json.dumps({"label": [f"{BOT}={bot_id}", TASK]})
    found = await talk.get("/containers/json", all="true", filters=marks)
    found = [container for container in found if container["State"] not in ("created", "removing", "dead")]
    return [container["Id"] for container in sorted(found, key=lambda each: each["Created"])[-CONTAINERS:]]


async def _lines(talk: Talk, container: str, tail: int, follow: bool) -> AsyncIterator[LogLine]:
    wish = {"stdout": "true", "stderr": "true", "timestamps": "true", "tail": str(tail), "follow": str(follow).lower()}
    begun: dict[int, tuple[int, bytes]] = {}  # stdout and stderr may both be within a line
    async with talk.stream(f"/containers/{container}/logs", **wish) as answer:
        async for channel, piece in _pieces(answer):
            stamp, _, text = piece.partition(b" ")
            at, before = begun.pop(channel, (_nanoseconds(stamp.decode()), b""))
            whole = before + text[: LINE_MAX - len(before)]
            if text.endswith(b"\n"):
                yield _line(channel, at, whole)
            else:
                begun[channel] = at, whole
    for channel, (at, whole) in begun.items():
        yield _line(channel, at, whole)


async def _pieces(answer: aiohttp.StreamReader) -> AsyncIterator[tuple[int, bytes]]:
    """Docker sends frames: a byte for stdout or stderr, three of nothing, four of size, and the piece."""
    with suppress(asyncio.IncompleteReadError):
        while True:
            channel, size = struct.unpack(">BxxxL", await answer.readexactly(8))
            yield channel, await answer.readexactly(size)


def _line(channel: int, at: int, text: bytes) -> LogLine:
    return LogLine(at, text.rstrip(b"\r\n").decode(errors="replace"), channel == STDERR)


def _nanoseconds(stamp: str) -> int:
    """Docker writes UTC, to the nanosecond."""
    seconds = datetime.fromisoformat(f"{stamp[:19]}+00:00").timestamp()
    return int(seconds) * SECOND + int(stamp[20:].rstrip("Z").ljust(9, "0"))
