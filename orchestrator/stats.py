"""The broadcaster: it samples all pubs of the hubs that it holds, and streams of each pub what somebody looks at.

One stream a pub and kind, however many look: viewers say every few seconds that they do, and a stream that nobody asks
for any more ends. Several broadcasters divide the hubs among them by leases; a hub's pubs are streamed by its holder.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import aclosing, suppress
from uuid import UUID

from asgiref.sync import sync_to_async
from channels.db import database_sync_to_async
from django.db import Error

from orchestrator import swarm
from orchestrator.collect import collect
from orchestrator.leases import LEASE, MARGIN, RENEW_SECONDS, Leases
from orchestrator.logs import LogStreams
from orchestrator.models import Placement
from orchestrator.swarm import SwarmError
from pubs import live
from pubs.live import Stats

log = logging.getLogger(__name__)

# Groups of the memory layer forget their members after a day.
REJOIN_SECONDS = 600
# Until a stopped pub that somebody looks at is tried again.
RETRY_SECONDS = 2
TEND_SECONDS = 2
# Docker sends a sample each second. A stream without one is of an engine that hangs, and is opened anew.
SILENCE_SECONDS = 8

Watch = tuple[str, UUID]  # what somebody looks at, and of which pub
# Passes on what there is of a pub on a node, until its container ends.
Feed = Callable[[UUID, str], Awaitable[None]]


class Broadcaster:
    def __init__(self) -> None:
        self.leases = Leases()
        self.until: dict[Watch, float] = {}  # somebody looks at it until then, by the loop's clock
        self.homes: dict[UUID, int | None] = {}  # bots that somebody looks at → hub
        self.hubs: dict[int, HubWatch] = {}  # those that we hold
        self.newest: dict[UUID, Stats] = {}  # not yet in the cache
        self.heard: dict[UUID, float] = {}  # when each stream of stats last brought something
        self.unknown = asyncio.Event()  # somebody looks at a bot whose hub we have not asked for
        self.logs = LogStreams()
        self.feeds: dict[str, Feed] = {"stats": self._stats, "logs": self.logs.forward}

    async def run(self) -> None:
        """Until cancelled. What it holds is free for others at once then."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for part in (self._hear, self._hold, self._find, self._tend):
                    tasks.create_task(part())
        finally:
            await self._end_hubs(list(self.hubs))
            try:
                await database_sync_to_async(self.leases.end)()
            except Error:
                log.exception("the leases on hubs run out by themselves, for they were not given back")

    @property
    def streams(self) -> dict[Watch, asyncio.Task[None]]:
        return {watch: task for hub in self.hubs.values() for watch, task in hub.streams.items()}

    # --- who looks at what -------------------------------------------------------------------------------------------
    async def _hear(self) -> None:
        while True:
            try:
                await self._listen()
            except Exception:
                # What was not heard meanwhile is said again.
                log.exception("the broadcaster does not hear who looks")
            await asyncio.sleep(RETRY_SECONDS)

    async def _listen(self) -> None:
        layer = live.layer()
        channel = await layer.new_channel()
        try:
            while True:
                await layer.group_add(live.BROADCASTERS, channel)
                with suppress(TimeoutError):
                    async with asyncio.timeout(REJOIN_SECONDS):
                        while True:
                            message = await layer.receive(channel)
                            self.watch(UUID(message["bot"]), message["what"])
                            if reader := message.get("reader"):
                                await self.logs.show(UUID(message["bot"]), reader)
        finally:
            await layer.group_discard(live.BROADCASTERS, channel)

    def watch(self, bot_id: UUID, what: str = "stats") -> None:
        """Somebody looks at it for live.WATCH_SECONDS. If its hub is another broadcaster's, that one streams it."""
        if what not in self.feeds:
            return  # a page of a newer version than ours
        self.until[what, bot_id] = asyncio.get_running_loop().time() + live.WATCH_SECONDS
        if bot_id not in self.homes:
            self.unknown.set()
        elif hub := self.hubs.get(self.homes[bot_id] or 0):
            hub.stream((what, bot_id), self.feeds[what])

    async def _find(self) -> None:
        """Know the hubs of all bots that somebody looks at, by one query now and then, for a bot may move."""
        while True:
            self.unknown.clear()
            if bots := {bot_id for _, bot_id in self.until}:
                try:
                    self.homes = dict.fromkeys(bots) | await _homes(bots)
                except Error:
                    log.exception("the hubs of pubs that somebody looks at were not found")
            self._match()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.unknown.wait(), RENEW_SECONDS)

    # --- which hubs are ours -----------------------------------------------------------------------------------------
    async def _hold(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                held = await database_sync_to_async(self.leases.renew)(len(self.streams))
                await self._watch_hubs(held, began + (LEASE - MARGIN).total_seconds())
            except Error:
                # What we hold ends by its fence, unless the database is back before.
                log.exception("the leases on hubs were not renewed")
            await asyncio.sleep(RENEW_SECONDS)

    async def _watch_hubs(self, held: dict[int, str], until: float) -> None:
        gone = [pk for pk, hub in self.hubs.items() if hub.node_id != held.get(pk) or hub.is_over]
        if gone:
            await self._end_hubs(gone)
            await database_sync_to_async(self.leases.release)(but=held)
        for pk, node_id in held.items():
            if pk not in self.hubs:
                self.hubs[pk] = HubWatch(node_id)
            self.hubs[pk].fence(until)
        self._match()

    async def _end_hubs(self, pks: Collection[int]) -> None:
        await asyncio.gather(*(self.hubs.pop(pk).end() for pk in pks))

    # --- what is streamed --------------------------------------------------------------------------------------------
    async def _tend(self) -> None:
        """Now and then: end what nobody looks at any more, and let pages without a socket see the newest figures."""
        while True:
            now = asyncio.get_running_loop().time()
            self.until = {watch: until for watch, until in self.until.items() if until > now}
            silent = {("stats", bot_id) for bot_id, heard in self.heard.items() if now - heard > SILENCE_SECONDS}
            for hub in self.hubs.values():
                hub.only(set(hub.streams) - silent)
            self._match()
            samples, self.newest = self.newest, {}
            if samples:
                try:
                    await sync_to_async(live.remember_stats)(samples)
                except Exception:
                    log.exception("the newest figures of %d pubs were not kept", len(samples))
            await asyncio.sleep(TEND_SECONDS)

    def _match(self) -> None:
        """Each hub that we hold has the streams that somebody looks at, and no other."""
        watched = {bot_id for _, bot_id in self.until}
        self.homes = {bot_id: hub for bot_id, hub in self.homes.items() if bot_id in watched}
        wanted: dict[int | None, set[Watch]] = {}
        for watch in self.until:
            wanted.setdefault(self.homes.get(watch[1]), set()).add(watch)
        for pk, hub in self.hubs.items():
            hub.only(wanted.get(pk, set()))
            for watch in wanted.get(pk, ()):
                hub.stream(watch, self.feeds[watch[0]])

    async def _stats(self, bot_id: UUID, node_id: str) -> None:
        layer, group, now = live.layer(), live.group(bot_id), asyncio.get_running_loop().time
        self.heard[bot_id] = now()
        try:
            async with aclosing(swarm.connect().stats(bot_id, node_id)) as samples:  # type: ignore[type-var]
                async for sample in samples:
                    self.newest[bot_id], self.heard[bot_id] = sample, now()
                    await layer.group_send(group, {"type": "stats", "sample": sample})
        finally:
            self.heard.pop(bot_id, None)


class HubWatch:
    """A hub that is ours until its fence: its pubs are sampled, and streamed while somebody looks."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.streams: dict[Watch, asyncio.Task[None]] = {}
        self.task = asyncio.create_task(collect(node_id, self.is_streamed))
        self._fence: asyncio.TimerHandle | None = None

    def fence(self, until: float) -> None:
        """Before somebody else may begin, all ends by itself, whatever keeps us from hearing of it."""
        if self._fence:
            self._fence.cancel()
        self._fence = asyncio.get_running_loop().call_at(until, self._cancel)

    @property
    def is_over(self) -> bool:
        return self.task.done() or bool(self.task.cancelling())

    def _cancel(self) -> None:
        self.task.cancel()
        self.only(set())

    async def end(self) -> None:
        if self._fence:
            self._fence.cancel()
        tasks = [self.task, *self.streams.values()]
        if not self.is_over:
            self._cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def is_streamed(self, bot_id: UUID) -> bool:
        return ("stats", bot_id) in self.streams

    def stream(self, watch: Watch, feed: Feed) -> None:
        if watch not in self.streams and not self.is_over:
            self.streams[watch] = task = asyncio.create_task(self._stream(watch, feed))
            # Not before its connection is closed, so that there are never two.
            task.add_done_callback(lambda _: self.streams.pop(watch))

    def only(self, wanted: set[Watch]) -> None:
        for watch, task in self.streams.items():
            if watch not in wanted and not task.cancelling():
                task.cancel()

    async def _stream(self, watch: Watch, feed: Feed) -> None:
        what, bot_id = watch
        while True:
            try:
                await feed(bot_id, self.node_id)
            except SwarmError as error:
                log.debug("no %s of %s: %s", what, bot_id, error)
            except Exception:
                # Whatever it is, it ends no other stream, and the viewers see the age of the last figures.
                log.exception("no %s of %s", what, bot_id)
            await asyncio.sleep(RETRY_SECONDS)


@database_sync_to_async
def _homes(bots: Collection[UUID]) -> dict[UUID, int | None]:
    return dict(Placement.objects.filter(bot__in=bots).values_list("bot_id", "hub_id"))
