"""Reading what a pub writes: who may, one stream for all who read, none for nobody, and what a flood leaves out."""

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from channels.testing import WebsocketCommunicator
from django.conf import settings

from accounts.models import User
from orchestrator import jobs, logs, stats
from orchestrator.consumers import NOT_FOUND, TRY_AGAIN
from orchestrator.log_consumer import WAITING, LogsConsumer
from orchestrator.logs import LogStream
from orchestrator.models import Hub, Placement
from orchestrator.stats import Broadcaster
from orchestrator.swarm import LogLine, PubService, memory
from orchestrator.swarm.memory import MemorySwarm
from pubs import live
from pubs.models import Bot
from tests.orchestrator.test_watch import Browser, closing_code, open_socket
from tests.support.make import Maker
from tests.support.wait import until_async

pytestmark = pytest.mark.django_db(transaction=True)

KEY = "q" * 86 + "=="


class Counting(MemorySwarm):
    """Counts the streams that are open."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = self.open = 0

    async def logs(self, bot_id: UUID, node_id: str, tail: int, follow: bool = False) -> AsyncIterator[LogLine]:
        self.opened += 1
        self.open += 1
        try:
            async with aclosing(super().logs(bot_id, node_id, tail, follow)) as lines:  # type: ignore[type-var]
                async for line in lines:
                    yield line
        finally:
            self.open -= 1


@pytest.fixture
def own(transactional_db: None) -> Bot:
    return Maker().bot(paid=True)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch, own: Bot) -> Counting:
    """A pub that runs, and has written something."""
    twin = Counting()
    twin.put_service(PubService(own.pk, "@x", "node-1", 29000, "127.0.0.1", settings.PUB_IMAGE, 2**30, 0))
    hub = Hub.objects.create(name="hub-1", state=Hub.State.READY, node_id="node-1", places=15)
    Placement.objects.create(bot=own, hub=hub, port=29000, label="a")
    twin.write(own.pk, "first")
    monkeypatch.setattr("orchestrator.swarm.connect", lambda: twin)
    monkeypatch.setattr(live, "WATCH_SECONDS", 0.9)
    monkeypatch.setattr(stats, "RENEW_SECONDS", 0.2)
    monkeypatch.setattr(stats, "TEND_SECONDS", 0.1)
    monkeypatch.setattr(logs, "AGAIN_SECONDS", 0.05)
    return twin


@pytest.fixture
async def broadcaster(counting: Counting) -> AsyncIterator[Broadcaster]:
    """One that holds the hub."""
    broadcaster = Broadcaster()
    running = asyncio.create_task(broadcaster.run())
    await until_async(lambda: bool(broadcaster.hubs))
    yield broadcaster
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert counting.open == 0 and broadcaster.streams == broadcaster.logs.streams == {}


class Reader:
    """A browser that takes what it is sent, unless it is told to wait."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        browser.takes.set()

    @classmethod
    async def of(cls, bot: Bot) -> "Reader":
        return cls(Browser((await open_socket(bot, bot.owner, what="logs/")).scope))

    @property
    def lines(self) -> list[live.LogLine]:
        return [line for message in self.browser.got if "lines" in message for line in message["lines"]]

    @property
    def texts(self) -> list[str]:
        return [line["text"] for line in self.lines]

    async def leave(self) -> None:
        await self.browser.leave()


async def logs_socket(bot: Bot, user: User | None) -> WebsocketCommunicator:
    return await open_socket(bot, user, what="logs/")


# --- who may ---------------------------------------------------------------------------------------------------------
async def test_another_customer_is_sent_away(own: Bot) -> None:
    bob = await sync_to_async(Maker().user)("bob")
    assert await closing_code(await logs_socket(own, bob)) == NOT_FOUND


async def test_nobody_is_sent_away(own: Bot) -> None:
    assert await closing_code(await logs_socket(own, None)) == NOT_FOUND


async def test_who_signs_out_reads_no_more(own: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "WATCH_SECONDS", 0.3)
    communicator = await logs_socket(own, own.owner)
    await communicator.connect()
    assert (await communicator.receive_json_from())["kind"] == "waiting"
    await User.objects.aupdate(is_active=False)
    assert (await communicator.receive_output(timeout=3))["code"] == NOT_FOUND


async def test_a_reader_that_can_no_longer_be_checked_is_told_to_come_again(
    own: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "WATCH_SECONDS", 0.3)
    communicator = await logs_socket(own, own.owner)
    await communicator.connect()
    await communicator.receive_json_from()

    def broken(self: LogsConsumer) -> None:
        raise OSError("the database is away")

    monkeypatch.setattr(LogsConsumer, "_look_up", broken)
    assert (await communicator.receive_output(timeout=3))["code"] == TRY_AGAIN


async def test_what_another_pub_writes_is_not_heard(own: Bot, counting: Counting, broadcaster: Broadcaster) -> None:
    other = await sync_to_async(Maker().bot)(await sync_to_async(Maker().user)("bob"), paid=True)
    counting.write(other.pk, "not for alice")
    hub = await Hub.objects.aget()
    await Placement.objects.acreate(bot=other, hub=hub, port=29001, label="b")
    mine, theirs = await Reader.of(own), await Reader.of(other)
    await until_async(lambda: mine.texts == ["first"] and theirs.texts == ["not for alice"])
    await mine.leave()
    await theirs.leave()


# --- one stream ------------------------------------------------------------------------------------------------------
async def test_all_who_read_share_one_stream_that_ends_with_the_last(
    own: Bot, counting: Counting, broadcaster: Broadcaster
) -> None:
    early = await Reader.of(own)
    await until_async(lambda: early.texts == ["first"])
    late = await Reader.of(own)
    await until_async(lambda: late.texts == ["first"])
    counting.write(own.pk, "second", is_error=True)
    await until_async(lambda: early.texts == late.texts == ["first", "second"])
    assert [line["is_error"] for line in late.lines] == [False, True]
    await asyncio.sleep(live.WATCH_SECONDS)  # both must say again that they read
    await early.leave()
    counting.write(own.pk, "third")
    await until_async(lambda: late.texts[-1] == "third")
    assert (counting.opened, counting.open) == (1, 1)
    await late.leave()
    await until_async(lambda: counting.open == 0 and not broadcaster.streams)


async def test_a_container_that_follows_a_crash_is_followed_on_and_nothing_comes_twice(
    own: Bot, counting: Counting, broadcaster: Broadcaster
) -> None:
    reader = await Reader.of(own)
    await until_async(lambda: reader.texts == ["first"])
    counting.write(own.pk, "last words")
    counting.crash(own.pk)
    counting.write(own.pk, "begins again")
    await until_async(lambda: len(reader.texts) == 3 and counting.opened == 2)
    counting.write(own.pk, "goes on")
    await until_async(lambda: len(reader.texts) == 4)
    assert reader.texts == ["first", "last words", "begins again", "goes on"]
    await reader.leave()


async def test_a_pub_out_of_sight_is_read_on_when_it_is_back(
    own: Bot, counting: Counting, broadcaster: Broadcaster
) -> None:
    reader = await Reader.of(own)
    await until_async(lambda: reader.texts == ["first"])
    counting.cut("node-1")
    await until_async(lambda: counting.open == 0)
    counting.write(own.pk, "meanwhile")
    counting.heal("node-1")
    await until_async(lambda: reader.texts == ["first", "meanwhile"])
    await reader.leave()


async def test_who_comes_back_gets_the_same_lines_by_the_same_names(
    own: Bot, counting: Counting, broadcaster: Broadcaster
) -> None:
    counting.written[own.pk] = [LogLine(5, "one"), LogLine(5, "two"), LogLine(6, "three")]
    before = await Reader.of(own)
    await until_async(lambda: len(before.lines) == 3)
    await before.leave()
    await until_async(lambda: counting.open == 0 and not broadcaster.streams)
    # It came while nobody read.
    counting.write(own.pk, "four")
    after = await Reader.of(own)
    await until_async(lambda: len(after.lines) == 4)
    keys = [line["key"] for line in after.lines]
    assert [line["key"] for line in before.lines] == keys[:3] and len(set(keys)) == 4
    await after.leave()


# --- floods ----------------------------------------------------------------------------------------------------------
def gaps(lines: list[live.LogLine]) -> int:
    """How many lines are missing between those that came."""
    return sum(after["number"] - before["number"] - 1 for before, after in pairwise(lines))


async def test_of_a_flood_the_newest_lines_come_in_few_messages_and_the_rest_is_counted(
    own: Bot, counting: Counting, broadcaster: Broadcaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine a reader would ask twice for what was sent before.
    monkeypatch.setattr(live, "WATCH_SECONDS", 5)
    reader = await Reader.of(own)
    await until_async(lambda: reader.texts == ["first"])
    began, seen = asyncio.get_running_loop().time(), len(reader.browser.got)
    now = time.time_ns()
    counting.written[own.pk] += [LogLine(now + number, f"flood {number}") for number in range(5000)]
    await until_async(lambda: bool(reader.texts) and reader.texts[-1] == "flood 4999")
    seconds, messages = asyncio.get_running_loop().time() - began, len(reader.browser.got) - seen
    assert messages <= seconds / logs.BATCH_SECONDS + 2
    assert max(len(message["lines"]) for message in reader.browser.got if "lines" in message) <= logs.BATCH
    assert 0 < gaps(reader.lines) == 5001 - len(reader.lines)
    # Who comes later is told of the same gaps.
    late = await Reader.of(own)
    await until_async(lambda: len(late.lines) == logs.KEPT)
    assert late.lines == reader.lines[-logs.KEPT :]
    await reader.leave()
    await late.leave()


async def test_lines_that_an_engine_gives_again_in_a_flood_come_once(
    own: Bot, counting: Counting, broadcaster: Broadcaster
) -> None:
    reader = await Reader.of(own)
    await until_async(lambda: reader.texts == ["first"])
    now = time.time_ns()
    # Those of stderr may be a little older than those of stdout before them.
    flood = [LogLine(now + number // 2 - number % 2 * 9, f"flood {number}", number % 2 == 1) for number in range(4000)]
    counting.written[own.pk] += [*flood, *flood[500:], LogLine(now + 10**6, "the last")]
    await until_async(lambda: bool(reader.texts) and reader.texts[-1] == "the last")
    assert len(set(reader.texts)) == len(reader.texts)
    assert reader.lines[-1]["number"] == 4001
    await reader.leave()


async def test_a_flood_is_known_again_without_being_kept(
    own: Bot, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Layer:
        async def group_send(self, group: str, message: dict[str, Any]) -> None:
            pass

    monkeypatch.setattr(logs, "layer", Layer)
    monkeypatch.setattr(logs, "TAIL", 20_000)
    monkeypatch.setattr(logs, "BATCH_SECONDS", 0.001)
    now, count = time.time_ns(), 20_000
    counting.written[own.pk] = [LogLine(now + number, "flood") for number in range(count)]
    stream = LogStream(own.pk)
    tracemalloc.start()
    try:
        reading = asyncio.create_task(stream.forward("node-1"))
        await until_async(lambda: stream.number == count, 60)
        assert tracemalloc.get_traced_memory()[0] < 2**20
    finally:
        tracemalloc.stop()
        reading.cancel()


async def test_what_a_clock_wrote_that_was_fast_hides_nothing_that_comes_after_it(
    own: Bot, counting: Counting, broadcaster: Broadcaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "FAST_CLOCK", 0)
    counting.written[own.pk].append(LogLine(time.time_ns() + 3600 * 10**9, "an hour before its time"))
    reader = await Reader.of(own)
    await until_async(lambda: len(reader.texts) == 2)
    counting.write(own.pk, "in time")
    await until_async(lambda: reader.texts[2:] == ["in time"])
    await reader.leave()


async def test_a_pub_that_does_not_run_is_looked_at_ever_more_seldom(
    own: Bot, counting: Counting, broadcaster: Broadcaster
) -> None:
    reader = await Reader.of(own)
    await until_async(lambda: reader.texts == ["first"])
    loop, engine = asyncio.get_running_loop(), counting.nodes["node-1"]
    engine.containers.clear()
    ended = loop.time()
    await until_async(lambda: counting.opened == 5)
    assert loop.time() - ended > (1 + 2 + 4 + 8) * logs.AGAIN_SECONDS
    # It runs again: what it wrote is read, and the next end is looked at as the first.
    engine.containers.add(own.pk)
    counting.write(own.pk, "second")
    await until_async(lambda: reader.texts == ["first", "second"] and counting.open == 1)
    opened = counting.opened
    engine.containers.clear()
    ended = loop.time()
    await until_async(lambda: counting.opened > opened)
    assert loop.time() - ended < 16 * logs.AGAIN_SECONDS
    await reader.leave()


async def test_a_slow_browser_misses_lines_delays_nobody_and_heaps_up_nothing(
    own: Bot, counting: Counting, broadcaster: Broadcaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in production: for what is not taken from it the layer has no limit.
    layer: Any = get_channel_layer()
    monkeypatch.setattr(layer, "capacity", 0)
    monkeypatch.setattr(logs, "BATCH_SECONDS", 0.001)
    monkeypatch.setattr(memory, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(live, "WATCH_SECONDS", 5)
    slow, quick = await Reader.of(own), await Reader.of(own)
    await until_async(lambda: slow.texts == quick.texts == ["first"])
    seen = len(slow.browser.got)
    slow.browser.takes.clear()
    for number in range(150):
        counting.write(own.pk, f"line {number}")
        await until_async(lambda number=number: quick.texts[-1] == f"line {number}", every=0)
    assert gaps(quick.lines) == 0 and slow.texts == ["first"]
    members = layer.groups[live.log_group(own.pk)]
    await until_async(lambda: not any(layer.channels[name].qsize() for name in members if name in layer.channels))
    slow.browser.takes.set()
    await until_async(lambda: slow.texts[-1] == "line 149")
    # One was on its way, and the others waited.
    assert len(slow.browser.got) - seen <= 1 + WAITING
    counting.write(own.pk, "the last")
    await until_async(lambda: slow.texts[-1] == "the last")
    assert gaps(slow.lines) == 152 - len(slow.lines) > 0
    await slow.leave()
    await quick.leave()


async def test_a_layer_that_is_away_loses_lines_and_not_the_stream(
    own: Bot, counting: Counting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[dict[str, Any]] = []

    class Layer:
        is_away = True

        async def group_send(self, group: str, message: dict[str, Any]) -> None:
            if self.is_away:
                raise OSError("away")
            heard.extend(message["lines"])

    monkeypatch.setattr(logs, "layer", Layer)
    stream = LogStream(own.pk)
    reading = asyncio.create_task(stream.forward("node-1"))
    await until_async(lambda: "were not sent" in caplog.text)
    Layer.is_away = False
    counting.write(own.pk, "second")
    await until_async(lambda: bool(heard))
    assert [(line["number"], line["text"]) for line in heard] == [(1, "second")]
    reading.cancel()


# --- once ------------------------------------------------------------------------------------------------------------
def test_a_mail_gets_the_last_lines_without_secrets(own: Bot, counting: Counting) -> None:
    counting.write(own.pk, f'"private": "{KEY}.ed25519"')
    counting.write(own.pk, "\x1b[31mgone\x1b[0m")
    text = logs.last_lines(own.pk, 2)
    assert "first" not in text and KEY not in text
    assert [line[25:] for line in text.splitlines()] == ['"private": [hidden]', "gone"]
    assert text[:11] == f"{counting.written[own.pk][1].at:%Y-%m-%d} "


def test_a_silent_engine_gives_a_mail_no_lines(own: Bot, counting: Counting) -> None:
    counting.cut("node-1")
    assert logs.last_lines(own.pk, 100) == ""


def test_a_pub_that_lives_nowhere_has_no_lines(own: Bot) -> None:
    assert logs.last_lines(own.pk, 100) == logs.last_lines(uuid4(), 100) == ""


def test_a_page_gets_the_lines_that_were_asked_for(own: Bot, counting: Counting) -> None:
    live.ask_for_logs(own.pk, 100)
    assert live.are_logs_asked_for(own.pk, 100)
    jobs.read_logs(str(own.pk), 100)
    assert not live.are_logs_asked_for(own.pk, 100)
    kept = live.newest_logs(own.pk, 100)
    assert kept and [line["text"] for line in kept["lines"]] == ["first"] and kept["at"] and not kept["trouble"]


def test_lines_that_were_known_stay_while_the_engine_is_silent(own: Bot, counting: Counting) -> None:
    jobs.read_logs(str(own.pk), 100)
    before = live.newest_logs(own.pk, 100)
    counting.cut("node-1")
    jobs.read_logs(str(own.pk), 100)
    after = live.newest_logs(own.pk, 100)
    assert before and after and after["trouble"]
    assert (after["lines"], after["at"]) == (before["lines"], before["at"])


def test_lines_of_a_pub_that_is_stopped_after_crashes_stay_to_be_read(own: Bot, counting: Counting) -> None:
    logs.keep_last(own.pk)
    Placement.objects.all().delete()
    jobs.read_logs(str(own.pk), 100)
    jobs.read_logs(str(own.pk), 100)
    after = live.newest_logs(own.pk, 100)
    assert after and [line["text"] for line in after["lines"]] == ["first"] and not after["trouble"]
    assert logs.last_lines(own.pk, 100).endswith("  first\n")


def test_an_engine_that_says_nothing_is_not_waited_for_for_ever(
    own: Bot, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*args: Any) -> AsyncIterator[LogLine]:
        await asyncio.sleep(60)
        yield LogLine(1, "never")

    monkeypatch.setattr(counting, "logs", silent)
    monkeypatch.setattr(logs, "READ_SECONDS", 0.05)
    assert logs.last_lines(own.pk, 100) == ""


def test_of_too_much_text_the_newest_is_kept(own: Bot, counting: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "READ_MAX", 20)
    for text in ("a" * 15, "b" * 15, "c" * 5):
        counting.write(own.pk, text)
    assert [line["text"][0] for line in logs.read(own.pk, 100)] == ["b", "c"]
