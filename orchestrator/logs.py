"""What pubs write: read once for a page or a mail, and followed while somebody reads it, once for all who do.

All of it goes through pubs.redact here: no secret reaches a message, a cache or a page.
"""

import asyncio
import logging
import time
from collections import deque
from contextlib import aclosing, suppress
from typing import Any
from uuid import UUID, uuid4

from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull
from django.core.cache import cache
from django.utils import timezone

from orchestrator import swarm
from orchestrator.models import Placement
from orchestrator.swarm import LogLine, NotRunning, SwarmError
from pubs import live, redact
from pubs.live import layer

log = logging.getLogger(__name__)

READ_SECONDS = 20
READ_MAX = 5_000_000  # characters of one reading: the newest
LAST = 1000  # lines that are kept of a pub that is stopped after too many crashes,
LAST_SECONDS = 6 * 3600  # as long as the longest rest

TAIL = 200  # lines of each container with which a stream begins
KEPT = 500  # lines that somebody gets who comes later
BATCH = 200  # lines of a message,
BATCH_SECONDS = 0.1  # and the time until the next one
BACKLOG = 500  # lines that wait to be sent; in a flood the oldest are left out
# Lines that are read until the next message: a flood must not take the loop from all others.
READ_AT_ONCE = 500
AGAIN_SECONDS = 1  # until a container that ended is looked for again;
AGAIN_MAX_SECONDS = 10  # twice as long each time that there was nothing new, up to this
FAST_CLOCK = 5  # seconds that a hub's clock may be before ours

# A line's name, the same in each reading: when it was written, and which it is among those of that moment.
Key = tuple[int, int]


class Keys:
    def __init__(self) -> None:
        self._moment = self._count = 0

    def of(self, line: LogLine) -> Key:
        self._count = self._count + 1 if line.nanoseconds == self._moment else 0
        self._moment = line.nanoseconds
        return self._moment, self._count


def _fit(key: Key, number: int, line: LogLine) -> live.LogLine:
    text, at = redact.line(line.text), line.at.isoformat(timespec="milliseconds")
    is_error = line.is_error or redact.tells_of_failure(text)
    return live.LogLine(key=f"{key[0]}.{key[1]}", number=number, at=at, text=text, is_error=is_error)


# --- once ------------------------------------------------------------------------------------------------------------
def read(bot_id: UUID, count: int) -> list[live.LogLine]:
    """Its last lines. SwarmError if they can't be read."""
    placement = Placement.objects.select_related("hub").filter(bot=bot_id).first()
    if placement is None:
        raise NotRunning("The pub lives nowhere yet.")
    written = async_to_sync(_read)(bot_id, placement.hub.node_id, count)
    room, lines = READ_MAX, list[live.LogLine]()
    for number, (key, line) in reversed(list(enumerate(written))):
        fit = _fit(key, number, line)
        room -= len(fit["text"])
        if room < 0:
            break
        lines.append(fit)
    return lines[::-1]


async def _read(bot_id: UUID, node_id: str, count: int) -> list[tuple[Key, LogLine]]:
    keys, newest = Keys(), deque[tuple[Key, LogLine]](maxlen=count)
    try:
        async with (
            asyncio.timeout(READ_SECONDS),
            aclosing(swarm.connect().logs(bot_id, node_id, count)) as lines,  # type: ignore[type-var]
        ):
            async for line in lines:
                newest.append((keys.of(line), line))
    except TimeoutError as error:
        raise SwarmError(f"The pub's lines did not come within {READ_SECONDS} seconds.") from error
    return list(newest)


def keep_last(bot_id: UUID) -> None:
    """Before a pub that crashed too often is stopped: its lines go with its service, and are to be read after it."""
    if lines := _last(bot_id, LAST):
        cache.set(_kept(bot_id), lines, LAST_SECONDS)


def last_lines(bot_id: UUID, count: int) -> str:
    """For a mail. Empty if its engine is silent, and nothing was kept."""
    return redact.as_text((_last(bot_id, count) or cache.get(_kept(bot_id), []))[-count:])


def _last(bot_id: UUID, count: int) -> list[live.LogLine]:
    try:
        return read(bot_id, count)
    except SwarmError as error:
        log.warning("no last lines of %s: %s", bot_id, error)
        return []


def _kept(bot_id: UUID) -> str:
    return f"logs.last.{bot_id}"


def remember(bot_id: UUID, count: int) -> None:
    """Put its last lines where the pages look for them. Those that were there stay if there are no newer ones."""
    before = live.newest_logs(bot_id, count) or live.Logs(at=None, lines=[], trouble="")
    known = before["lines"] or cache.get(_kept(bot_id), [])[-count:]
    try:
        logs = live.Logs(at=timezone.now(), lines=read(bot_id, count) or known, trouble="")
    except NotRunning:
        logs = live.Logs(at=timezone.now(), lines=known, trouble="")
    except SwarmError as error:
        log.warning("no lines of %s: %s", bot_id, error)
        logs = {**before, "trouble": "We can't reach the machine that your pub lives on just now."}
    live.remember_logs(bot_id, count, logs)


# --- followed --------------------------------------------------------------------------------------------------------
class LogStreams:
    """Those of one broadcaster."""

    def __init__(self) -> None:
        self.streams: dict[UUID, LogStream] = {}

    async def forward(self, bot_id: UUID, node_id: str) -> None:
        """Until cancelled: a container that follows one that ended is followed on."""
        self.streams[bot_id] = stream = LogStream(bot_id)
        try:
            await layer().group_send(live.log_group(bot_id), stream.begun())
            pause = AGAIN_SECONDS
            while True:
                before = stream.number
                try:
                    await stream.forward(node_id)
                except SwarmError as error:
                    log.debug("no lines of %s: %s", bot_id, error)
                pause = AGAIN_SECONDS if stream.number > before else min(2 * pause, AGAIN_MAX_SECONDS)
                await asyncio.sleep(pause)
        finally:
            # Not that of another hub, to which it moved.
            if self.streams.get(bot_id) is stream:
                del self.streams[bot_id]

    async def show(self, bot_id: UUID, reader: str) -> None:
        """A reader has come later: it gets what was sent before. Readers of other broadcasters' pubs are theirs."""
        if stream := self.streams.get(bot_id):
            with suppress(ChannelFull):  # it does not listen
                await layer().send(reader, stream.begun())


class LogStream:
    """One pub's lines, for all who read them. By their numbers a reader finds out that some did not reach it."""

    def __init__(self, bot_id: UUID) -> None:
        self.bot_id, self.id = bot_id, uuid4().hex
        self._kept = deque[live.LogLine](maxlen=KEPT)
        self._waiting = deque[tuple[Key, LogLine]]()
        self.number = 0  # of the first that waits
        # Of the last line of stdout and of stderr: in each they grow. Lines are read again by the next reading, and
        # when an engine that turns to its next file in a flood gives the last one once more.
        self._last: dict[bool, Key] = {}
        self._taken = 0  # since the last message
        self._some, self._room = asyncio.Event(), asyncio.Event()

    def begun(self) -> dict[str, Any]:
        """What was sent before: the first that a reader hears. What follows is for those who know that."""
        return {"type": "log.begin", "stream": self.id, "lines": list(self._kept)}

    async def forward(self, node_id: str) -> None:
        """Pass on what its containers on the node wrote, and what the newest one writes until it ends.

        Called again, only what is new.
        """
        keys, sending = Keys(), asyncio.create_task(self._keep_sending())
        try:
            lines = swarm.connect().logs(self.bot_id, node_id, TAIL, follow=True)
            async with aclosing(lines):  # type: ignore[type-var]
                async for line in lines:
                    await self._take(keys.of(line), line)
            while self._waiting:
                await self._send()
        finally:
            sending.cancel()

    async def _take(self, key: Key, line: LogLine) -> None:
        if key <= self._last.get(line.is_error, (0, -1)):
            return
        # What a clock wrote that was wrong, and was set back, hides nothing that is written after it.
        self._last[line.is_error] = min(key, (time.time_ns() + FAST_CLOCK * 10**9, 0))
        self._waiting.append((key, line))
        if len(self._waiting) > BACKLOG:
            self._waiting.popleft()
            self.number += 1
        self._some.set()
        self._taken += 1
        if self._taken >= READ_AT_ONCE:
            self._room.clear()
            await self._room.wait()

    async def _keep_sending(self) -> None:
        while True:
            await self._some.wait()
            try:
                await self._send()
            except Exception:
                # The layer is away for a moment; the numbers of what follows say what was lost.
                log.exception("lines of %s were not sent", self.bot_id)
            self._taken = 0
            self._room.set()
            await asyncio.sleep(BATCH_SECONDS)

    async def _send(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        if not self._waiting:
            self._some.clear()
        lines = [_fit(key, number, line) for number, (key, line) in enumerate(batch, self.number)]
        self.number += len(lines)
        self._kept.extend(lines)
        message = {"type": "log.lines", "stream": self.id, "lines": lines}
        await layer().group_send(live.log_group(self.bot_id), message)
