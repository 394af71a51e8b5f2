"""The broadcaster: one Docker stats stream a pub, however many look, and none when nobody does.

Besides, it glances at each running pub now and then, so that a page has figures the moment it opens.
"""

import asyncio
import logging
import time
from uuid import UUID

from channels.layers import get_channel_layer
from django.db import DatabaseError

from orchestrator import swarm
from orchestrator.models import Placement
from orchestrator.swarm import SwarmError
from pubs import live
from pubs.models import Bot, Status

log = logging.getLogger(__name__)

# Groups of the memory layer forget their members after a day.
REJOIN_SECONDS = 600
# Until a stopped pub that somebody looks at is tried again.
RETRY_SECONDS = 2
# A glance is long enough for rates, which need two samples. After all pubs had one comes a pause.
GLANCE_SECONDS = 2.5
PAUSE_SECONDS = 60


class Broadcaster:
    """Hears who looks at which pub and sends its stats to all of them."""

    def __init__(self) -> None:
        self.until: dict[UUID, float] = {}
        self.streams: dict[UUID, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        layer = get_channel_layer()
        assert layer is not None
        channel = await layer.new_channel()
        glancing = asyncio.create_task(self._glance())
        try:
            while True:
                await layer.group_add(live.BROADCASTERS, channel)
                try:
                    async with asyncio.timeout(REJOIN_SECONDS):
                        while True:
                            self.watch(UUID((await layer.receive(channel))["bot"]))
                except TimeoutError:
                    continue
        finally:
            glancing.cancel()
            for task in self.streams.values():
                task.cancel()
            await layer.group_discard(live.BROADCASTERS, channel)

    async def _glance(self) -> None:
        while True:
            try:
                async for bot_id in Bot.objects.filter(status=Status.UP).values_list("pk", flat=True):
                    self.watch(bot_id, GLANCE_SECONDS)
                    await asyncio.sleep(GLANCE_SECONDS)
            except DatabaseError:
                log.exception("no glance at the pubs")
            await asyncio.sleep(PAUSE_SECONDS)

    def watch(self, bot_id: UUID, seconds: float | None = None) -> None:
        """Somebody looks at this pub now: its stream goes on for `seconds`, live.WATCH_SECONDS if not said."""
        until = time.monotonic() + (live.WATCH_SECONDS if seconds is None else seconds)
        self.until[bot_id] = max(until, self.until.get(bot_id, 0))
        if bot_id not in self.streams:
            self.streams[bot_id] = asyncio.create_task(self._stream(bot_id))

    def _is_watched(self, bot_id: UUID) -> bool:
        return time.monotonic() < self.until[bot_id]

    async def _stream(self, bot_id: UUID) -> None:
        try:
            while self._is_watched(bot_id):
                try:
                    await self._forward(bot_id)
                except SwarmError as error:
                    log.debug("no stats of %s: %s", bot_id, error)
                except Exception:
                    # Whatever it is, it ends no other stream, and the viewers see the age of the last figures.
                    log.exception("no stats of %s", bot_id)
                await asyncio.sleep(RETRY_SECONDS)
        finally:
            del self.streams[bot_id], self.until[bot_id]

    async def _forward(self, bot_id: UUID) -> None:
        """Pass samples on until the container ends or nobody looks any more."""
        layer = get_channel_layer()
        assert layer is not None
        placement = await Placement.objects.select_related("hub").aget(bot=bot_id)
        samples = swarm.connect().stats(bot_id, placement.hub.node_id)
        try:
            while self._is_watched(bot_id):
                # An engine that says nothing any more must not hold the stream for ever.
                sample = await asyncio.wait_for(anext(samples), live.WATCH_SECONDS)
                await live.remember_stats(bot_id, sample)
                await layer.group_send(live.group(bot_id), {"type": "stats", "sample": sample})
        except (StopAsyncIteration, TimeoutError):
            return
        finally:
            await samples.aclose()  # type: ignore[attr-defined]
