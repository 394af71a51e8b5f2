"""Broadcasters sample all pubs: each hub by one of them, each step once, and whatever else happens."""

import asyncio
import os
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import OperationalError, connection, connections
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from orchestrator import collect, leases, stats
from orchestrator.leases import Leases
from orchestrator.management.commands.broadcast import Command
from orchestrator.models import Broadcaster as Row
from orchestrator.models import Hub, Placement
from orchestrator.stats import Broadcaster
from orchestrator.swarm import Glance, PubService
from orchestrator.swarm.memory import MemorySwarm
from pubs import live
from pubs.models import Bot, Checkup, Event, StatsSample
from tests.support.make import Maker
from tests.support.wait import until_async

pytestmark = pytest.mark.django_db(transaction=True)


def make_hub(number: int, **fields: Any) -> Hub:
    fields = {"state": Hub.State.READY, "node_id": f"node-{number}", "places": 15} | fields
    return Hub.objects.create(name=f"hub-{number}", **fields)


@pytest.fixture
def hubs(transactional_db: None) -> list[int]:
    return [make_hub(number).pk for number in range(1, 5)]


def take(*those: Leases) -> list[set[int]]:
    """A round of each: what it holds then."""
    held = []
    for one in those:
        held.append(set(one.renew(0)))
        one.release(but=held[-1])
    return held


def expire(one: Leases) -> None:
    """So long has it not been heard of."""
    Hub.objects.filter(watched_by=one.id).update(watched_until=F("watched_until") - leases.LEASE)
    Row.objects.filter(pk=one.id).update(seen_at=F("seen_at") - leases.LEASE)


# --- leases ----------------------------------------------------------------------------------------------------------
def test_one_holds_all_and_several_divide_them(hubs: list[int]) -> None:
    first, second, third = Leases(), Leases(), Leases()
    assert take(first) == [set(hubs)]
    assert take(second) == [set()], "what somebody holds is taken from nobody"
    one, other = take(first, second)
    assert (len(one), len(other)) == (2, 2) and one | other == set(hubs)
    assert take(first, second) == [one, other], "and it stays so"
    take(third)
    parts = take(first, second, third)
    assert sorted(map(len, parts)) == [0, 2, 2] and set.union(*parts) == set(hubs)


def test_what_a_dead_one_held_is_taken_over_and_never_before_its_end(hubs: list[int]) -> None:
    dead, other = Leases(), Leases()
    take(dead)
    assert take(other) == [set()]
    expire(dead)
    assert take(other) == [set(hubs)]
    assert take(dead) == [set()], "it wakes up, and holds nothing any more"


def test_a_lease_that_ran_out_and_that_nobody_took_goes_on(hubs: list[int]) -> None:
    one = Leases()
    take(one)
    expire(one)
    assert take(one) == [set(hubs)]


def test_what_is_given_back_is_free_at_once(hubs: list[int]) -> None:
    one, other = Leases(), Leases()
    take(one)
    one.end()
    assert not Row.objects.exists()
    assert take(other) == [set(hubs)]


def test_of_many_who_come_at_once_each_hub_has_one(hubs: list[int]) -> None:
    those, together = [Leases() for _ in range(4)], threading.Barrier(4, timeout=30)

    def come(one: Leases) -> set[int]:
        try:
            together.wait()
            return set(one.renew(0))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as threads:
        holders = Counter(hub for held in threads.map(come, those) for hub in held)
    assert set(holders.values()) == {1}
    # Who wished for one that another was faster with finds its own the next time, and who has too many gives them back.
    for one in those * 2:
        one.release(but=one.renew(0))
    assert sorted(hub for one in those for hub in one.renew(0)) == hubs
    written = dict(Hub.objects.values_list("pk", "watched_by"))
    assert all(written.values())


def test_who_read_that_a_hub_is_free_finds_it_taken(hubs: list[int]) -> None:
    one, other = Leases(), Leases()
    one._show_life(0)
    other._show_life(0)
    assert (one._claim(hubs), other._claim(hubs)) == (4, 0)


def test_only_hubs_that_carry_pubs_are_watched(hubs: list[int]) -> None:
    for number, state in enumerate(set(Hub.State) - {Hub.State.READY, Hub.State.DRAINING}, 10):
        make_hub(number, state=state)
    make_hub(30, node_id="")
    draining = make_hub(31, state=Hub.State.DRAINING)
    one = Leases()
    assert take(one) == [{*hubs, draining.pk}]
    Hub.objects.filter(pk=draining.pk).update(state=Hub.State.GONE)
    assert take(one) == [set(hubs)]
    draining.refresh_from_db()
    assert draining.watched_by is None


def test_rows_of_those_who_were_killed_are_removed(hubs: list[int]) -> None:
    killed, late, one = Leases(), Leases(), Leases()
    for each, minutes in ((killed, 2), (late, 0.5)):
        take(each)
        Row.objects.filter(pk=each.id).update(seen_at=F("seen_at") - timedelta(minutes=minutes))
    one.renew(7)
    assert dict(Row.objects.values_list("pk", "streams")) == {late.id: 0, one.id: 7}


def test_a_round_costs_the_same_for_many_hubs(hubs: list[int]) -> None:
    one = Leases()
    take(one)
    counts = []
    for more in (0, 40):
        for number in range(100, 100 + more):
            make_hub(number)
        with CaptureQueriesContext(
            connection,
        ) as queries:
            one.renew(0)
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 4


# --- samples ---------------------------------------------------------------------------------------------------------
SAMPLE = live.Stats(
    at="2026-12-03T14:05:07Z",
    seq=1,
    cpu=2.5,
    memory=5000,
    memory_limit=2**30,
    net_rx=1,
    net_tx=2,
    disk_read=3,
    disk_write=4,
    rx_rate=1.5,
    tx_rate=2.5,
    read_rate=3.5,
    write_rate=4.5,
    pids=7,
)


def test_a_step_is_written_once_whoever_writes_it_first() -> None:
    make = Maker()
    bots = [make.bot() for _ in range(3)]
    Checkup.objects.create(bot=bots[0], disk=77)
    for second, cpu in ((7, 2.5), (9, 9.0), (10, 1.0)):
        figures = {bot.pk: SAMPLE | {"cpu": cpu} for bot in bots} | {uuid4(): SAMPLE}  # and a container without a bot
        collect.write(figures, datetime(2026, 12, 3, 14, 5, second, 500, UTC))  # type: ignore[arg-type]
    first, second_ = StatsSample.objects.filter(bot=bots[0])
    assert (first.at, first.step, first.count) == (datetime(2026, 12, 3, 14, 5, 0, tzinfo=UTC), 10, 1)
    assert (first.cpu_min, first.cpu, first.cpu_max) == (2.5, 2.5, 2.5)
    assert (first.disk_min, first.disk, first.disk_max) == (77, 77, 77)
    assert (first.memory, first.rx_rate, first.tx_rate, first.read_rate, first.write_rate, first.pids) == (
        5000,
        1.5,
        2.5,
        3.5,
        4.5,
        7,
    )
    assert (second_.at.second, second_.cpu) == (10, 1.0)
    assert StatsSample.objects.filter(disk=None).count() == 4 and StatsSample.objects.count() == 6


def test_many_pubs_are_written_by_as_few_queries_as_one() -> None:
    make = Maker()
    bots = [make.bot().pk for _ in range(15)]
    counts = []
    for some in (bots[:1], bots):
        with CaptureQueriesContext(connection) as queries:
            collect.write(dict.fromkeys(some, SAMPLE), datetime.now(UTC) + timedelta(seconds=len(some) * 10))
        counts.append(len([query for query in queries if "SAVEPOINT" not in query["sql"]]))
    assert counts[0] == counts[1]


# --- several broadcasters, with the twin of the swarm ----------------------------------------------------------------
class Watched(MemorySwarm):
    """Looks often, and counts how many watch each node at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.watchers: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.streams = 0

    async def glances(self, node_id: str, seconds: float) -> AsyncIterator[Glance]:
        self.watchers[node_id] += 1
        self.most[node_id] = max(self.most[node_id], self.watchers[node_id])
        try:
            async with aclosing(super().glances(node_id, 0.05)) as glances:  # type: ignore[type-var]
                async for glance in glances:
                    yield glance
        finally:
            self.watchers[node_id] -= 1

    async def stats(self, bot_id: UUID, node_id: str) -> AsyncIterator[live.Stats]:
        self.streams += 1
        async for sample in super().stats(bot_id, node_id):
            yield sample


@pytest.fixture
def watched(hubs: list[int], monkeypatch: pytest.MonkeyPatch) -> Watched:
    """A pub on each of the four hubs."""
    twin, make = Watched(), Maker()
    for number, hub in enumerate(hubs, 1):
        node_id = twin.node.id if number == 1 else twin.add_node()
        twin.have_image(node_id, settings.PUB_IMAGE)
        bot, port = make.bot(paid=True, status="up"), 29000 + number
        ssb_id = twin.make_identity(bot.pk, node_id, settings.PUB_IMAGE)
        twin.put_service(PubService(bot.pk, ssb_id, node_id, port, "127.0.0.1", settings.PUB_IMAGE, 2**30, 0))
        Placement.objects.create(bot=bot, hub_id=hub, port=port, label=str(port))
    monkeypatch.setattr("orchestrator.swarm.connect", lambda: twin)
    monkeypatch.setattr(stats, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(collect, "PAUSE_SECONDS", 0.1)
    return twin


@asynccontextmanager
async def running(*broadcasters: Broadcaster) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(each.run()) for each in broadcasters]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@sync_to_async
def sampled() -> set[str]:
    """Nodes of pubs that have a sample."""
    return set(StatsSample.objects.values_list("bot__placement__hub__node_id", flat=True))


async def until_sampled(*nodes: str) -> None:
    async with asyncio.timeout(10):
        while not set(nodes) <= await sampled():
            await asyncio.sleep(0.02)


async def test_two_share_the_hubs_and_one_takes_over_at_once(watched: Watched) -> None:
    one, other = Broadcaster(), Broadcaster()
    async with running(one, other) as [task, _]:
        await until_async(lambda: sorted((len(one.hubs), len(other.hubs))) == [2, 2] and watched.watchers.total() == 4)
        await until_sampled("node-1", "node-2", "node-3", "node-4")
        task.cancel()
        await until_async(lambda: len(other.hubs) == 4 and watched.watchers.total() == 4, seconds=3)
        assert set(watched.most.values()) == {1}, "no hub was ever watched by two"
    assert watched.watchers.total() == 0
    assert not await Hub.objects.exclude(watched_by=None).aexists() and not await Row.objects.aexists()


async def test_pubs_that_nobody_looks_at_are_sampled_without_a_stream(watched: Watched) -> None:
    async with running(Broadcaster()):
        await until_sampled("node-1", "node-2", "node-3", "node-4")
        bots = await sync_to_async(list)(Bot.objects.values_list("pk", flat=True))
        assert all([await sync_to_async(live.newest_stats)(bot) for bot in bots])
        assert watched.streams == 0
        # One step, and perhaps the next.
        assert await StatsSample.objects.acount() <= 8


async def test_a_silent_hub_stops_only_its_own_samples(watched: Watched) -> None:
    watched.cut("node-2")
    async with running(Broadcaster()):
        await until_sampled("node-1", "node-3", "node-4")
        await asyncio.sleep(0.3)
        assert "node-2" not in await sampled()
        watched.heal("node-2")
        await until_sampled("node-2")


async def test_a_crash_is_noted_once(watched: Watched) -> None:
    bot = await Bot.objects.afirst()
    assert bot
    async with running(Broadcaster()):
        await until_sampled("node-1")
        watched.crash(bot.pk, exit_code=1)
        async with asyncio.timeout(5):
            while not await Event.objects.filter(kind=Event.Kind.CRASHED).aexists():
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
    assert await Event.objects.filter(kind=Event.Kind.CRASHED).acount() == 1


class CacheAway:
    def set_many(self, *args: Any) -> None:
        raise ConnectionError("the cache is away")


async def test_samples_and_crashes_are_kept_while_the_cache_is_away(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "cache", CacheAway())
    bot = await Bot.objects.afirst()
    assert bot
    figures: dict[UUID, live.Stats] = {bot.pk: SAMPLE}
    await collect._keep(Glance(figures, (watched.crash(bot.pk, exit_code=1),)), lambda bot_id: False)
    assert await StatsSample.objects.acount() == 1
    assert await Event.objects.filter(kind=Event.Kind.CRASHED).acount() == 1


async def test_who_can_not_renew_lets_go_before_others_may_begin(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (leases, stats):
        monkeypatch.setattr(module, "LEASE", timedelta(seconds=1.5))
    monkeypatch.setattr(stats, "MARGIN", timedelta(seconds=0.7))
    broadcaster, bot = Broadcaster(), await Bot.objects.afirst()
    assert bot

    def broken(streams: int) -> dict[int, str]:
        raise OperationalError("the database is away")

    async with running(broadcaster):
        await until_async(lambda: watched.watchers.total() == 4)
        broadcaster.watch(bot.pk)
        await until_async(lambda: len(broadcaster.streams) == 1)
        monkeypatch.setattr(broadcaster.leases, "renew", broken)
        await until_async(lambda: watched.watchers.total() == 0 and broadcaster.streams == {})
        assert await Hub.objects.filter(watched_until__gt=datetime.now(UTC)).acount() == 4, "they are still fenced"
        monkeypatch.undo()
        monkeypatch.setattr("orchestrator.swarm.connect", lambda: watched)
        await until_async(lambda: watched.watchers.total() == 4)


async def test_a_signal_gives_the_hubs_back_at_once(watched: Watched) -> None:
    loop, process = asyncio.get_running_loop(), asyncio.create_task(Command()._run())
    try:
        await until_async(lambda: watched.watchers.total() == 4)
        assert await Hub.objects.exclude(watched_by=None).acount() == 4
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(5):
            await process
    finally:
        process.cancel()
        with suppress(asyncio.CancelledError):
            await process
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    assert not await Hub.objects.exclude(watched_until=None).aexists() and not await Row.objects.aexists()
