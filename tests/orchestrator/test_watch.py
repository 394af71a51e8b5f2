"""Looking at a pub live: who may, what comes, and that streams end."""

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any
from uuid import UUID, uuid4

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.test import Client

from accounts.models import User
from buttcloud.asgi import application
from orchestrator import stats
from orchestrator.consumers import NOT_FOUND, TRY_AGAIN, PubConsumer
from orchestrator.models import Hub, Placement
from orchestrator.stats import Broadcaster
from orchestrator.swarm import PubService
from orchestrator.swarm.memory import MemorySwarm
from pubs import live
from pubs.models import Bot
from tests.support.make import Maker
from tests.support.wait import until_async

pytestmark = pytest.mark.django_db(transaction=True)


def socket(bot_id: Any, user: User | None, origin: str = "http://localhost", what: str = "") -> WebsocketCommunicator:
    client = Client()
    if user:
        client.force_login(user)
    cookies = "; ".join(f"{name}={cookie.value}" for name, cookie in client.cookies.items())
    headers = [(b"origin", origin.encode()), (b"host", b"localhost"), (b"cookie", cookies.encode())]
    return WebsocketCommunicator(application, f"/ws/pubs/{bot_id}/{what}", headers)


async def open_socket(bot: Bot, user: User | None, **more: Any) -> WebsocketCommunicator:
    return await sync_to_async(socket)(bot.pk, user, **more)


async def closing_code(communicator: WebsocketCommunicator) -> int:
    await communicator.connect()
    return (await communicator.receive_output())["code"]


@pytest.fixture
def own(transactional_db: None) -> Bot:
    return Maker().bot(paid=True)


async def test_the_owner_gets_the_state_at_once(own: Bot) -> None:
    communicator = await open_socket(own, own.owner)
    assert (await communicator.connect())[0]
    first = await communicator.receive_json_from()
    assert first["kind"] == "pub" and own.name in first["html"]
    await communicator.disconnect()


async def test_another_customer_is_sent_away(own: Bot) -> None:
    bob = await sync_to_async(Maker().user)("bob")
    assert await closing_code(await open_socket(own, bob)) == NOT_FOUND


async def test_nobody_is_sent_away(own: Bot) -> None:
    assert await closing_code(await open_socket(own, None)) == NOT_FOUND


async def test_a_pub_that_is_not_there_is_like_one_of_somebody_else(own: Bot) -> None:
    communicator = await sync_to_async(socket)(uuid4(), own.owner)
    assert await closing_code(communicator) == NOT_FOUND


async def test_a_page_of_another_site_opens_nothing(own: Bot) -> None:
    communicator = await open_socket(own, own.owner, origin="https://evil.example")
    assert (await communicator.connect())[0] is False


async def test_who_signs_out_sees_no_more(own: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "WATCH_SECONDS", 0.3)
    communicator = await open_socket(own, own.owner)
    await communicator.connect()
    await communicator.receive_json_from()
    await sync_to_async(own.owner.__class__.objects.update)(is_active=False)
    assert (await communicator.receive_output(timeout=3))["code"] == NOT_FOUND


async def test_a_changed_password_ends_other_sessions(own: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "WATCH_SECONDS", 0.3)
    communicator = await open_socket(own, own.owner)
    await communicator.connect()
    await communicator.receive_json_from()
    own.owner.set_password("another one")
    await sync_to_async(own.owner.save)()
    assert (await communicator.receive_output(timeout=3))["code"] == NOT_FOUND


async def test_a_page_that_can_no_longer_be_checked_is_told_to_come_again(
    own: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "WATCH_SECONDS", 0.3)
    communicator = await open_socket(own, own.owner)
    await communicator.connect()
    await communicator.receive_json_from()

    def broken(self: PubConsumer) -> None:
        raise OSError("the database is away")

    monkeypatch.setattr(PubConsumer, "_look_up", broken)
    assert (await communicator.receive_output(timeout=3))["code"] == TRY_AGAIN


async def test_a_changed_row_draws_the_page_again(own: Bot) -> None:
    communicator = await open_socket(own, own.owner)
    await communicator.connect()
    await communicator.receive_json_from()
    await sync_to_async(Bot.objects.update)(reason="The reason is new.")
    await sync_to_async(live.changed)(own.pk)
    assert "The reason is new." in (await communicator.receive_json_from())["html"]
    await communicator.disconnect()


async def test_a_command_of_another_pub_is_never_shown(own: Bot) -> None:
    other = await sync_to_async(Maker().bot)(await sync_to_async(Maker().user)("bob"))
    command = await sync_to_async(other.commands.create)(name="whoami")
    communicator = await open_socket(own, own.owner)
    await communicator.connect()
    await communicator.receive_json_from()
    layer = get_channel_layer()
    assert layer
    await layer.group_send(live.group(own.pk), {"type": "command.changed", "id": str(command.pk)})
    assert await communicator.receive_nothing(0.3)
    await communicator.disconnect()


# --- slow browsers and old frames ------------------------------------------------------------------------------------
def sample(seq: int) -> dict[str, Any]:
    return {"seq": seq, "at": "2026-12-03T14:05:00Z", "cpu": 1.5}


class Browser:
    """One that takes what it is sent only when it is told to."""

    def __init__(self, scope: Any, app: Any = application) -> None:
        self.said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.said.put_nowait({"type": "websocket.connect"})
        self.got: list[dict[str, Any]] = []
        self.takes = asyncio.Event()
        self.page = asyncio.create_task(app(scope, self.said.get, self._send))

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "websocket.send":
            await self.takes.wait()
            self.got.append(json.loads(message["text"]))

    def seqs(self) -> list[int]:
        return [message["seq"] for message in self.got if message["kind"] == "stats"]

    async def leave(self) -> None:
        self.takes.set()
        self.said.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await self.page


async def send_stats(bot: Bot, *seqs: int) -> None:
    layer = get_channel_layer()
    assert layer
    for seq in seqs:
        await layer.group_send(live.group(bot.pk), {"type": "stats", "sample": sample(seq)})


async def test_a_slow_browser_gets_the_newest_and_delays_nobody(own: Bot) -> None:
    slow, quick = [Browser((await open_socket(own, own.owner)).scope) for _ in range(2)]
    quick.takes.set()
    await until_async(lambda: bool(quick.got))
    for seq in range(1, 251):
        await send_stats(own, seq)
        await until_async(lambda seq=seq: seq in quick.seqs(), every=0)
    assert quick.seqs() == list(range(1, 251)) and slow.got == []
    slow.takes.set()
    await until_async(lambda: 250 in slow.seqs())
    # One may have been on its way when the browser stood still.
    assert len(slow.seqs()) <= 2
    await slow.leave()
    await quick.leave()


async def test_a_frame_is_never_older_than_one_before_it(own: Bot) -> None:
    browser = Browser((await open_socket(own, own.owner)).scope)
    browser.takes.set()
    await until_async(lambda: bool(browser.got))
    for seq in (5, 4, 5, 6):
        await send_stats(own, seq)
        await asyncio.sleep(0.02)
    await until_async(lambda: 6 in browser.seqs())
    assert browser.seqs() == [5, 6]
    await browser.leave()


async def test_who_comes_back_gets_the_newest_known_with_its_number(own: Bot) -> None:
    await sync_to_async(live.remember_stats)({own.pk: sample(41)})  # type: ignore[dict-item]
    browser = Browser((await open_socket(own, own.owner)).scope)
    browser.takes.set()
    await until_async(lambda: browser.seqs() == [41])
    # A stream that was left elsewhere has older ones on the way.
    await send_stats(own, 40)
    await send_stats(own, 42)
    await until_async(lambda: 42 in browser.seqs())
    assert browser.seqs() == [41, 42]
    await browser.leave()


# --- the broadcaster -------------------------------------------------------------------------------------------------
class Counting(MemorySwarm):
    """Counts the streams that are open; while it hangs, one brings a sample and then nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = self.open = 0
        self.hangs = False

    async def stats(self, bot_id: UUID, node_id: str) -> AsyncIterator[live.Stats]:
        self.opened += 1
        self.open += 1
        try:
            async with aclosing(super().stats(bot_id, node_id)) as samples:  # type: ignore[type-var]
                async for sample in samples:
                    yield sample
                    if self.hangs:
                        await asyncio.Event().wait()
        finally:
            self.open -= 1


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch, own: Bot) -> Counting:
    twin = Counting()
    twin.put_service(PubService(own.pk, "@x", "node-1", 29000, "127.0.0.1", settings.PUB_IMAGE, 2**30, 0))
    hub = Hub.objects.create(name="hub-1", state=Hub.State.READY, node_id="node-1", places=15)
    Placement.objects.create(bot=own, hub=hub, port=29000, label="a")
    monkeypatch.setattr("orchestrator.swarm.connect", lambda: twin)
    monkeypatch.setattr(live, "WATCH_SECONDS", 0.9)
    monkeypatch.setattr(stats, "RETRY_SECONDS", 0.1)
    monkeypatch.setattr(stats, "RENEW_SECONDS", 0.2)
    monkeypatch.setattr(stats, "TEND_SECONDS", 0.1)
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
    assert counting.open == 0 and broadcaster.streams == {}


async def next_stats(communicator: WebsocketCommunicator) -> dict[str, Any]:
    while (message := await communicator.receive_json_from(timeout=5))["kind"] != "stats":
        pass
    return message


async def test_two_who_look_share_one_stream_and_it_ends_when_nobody_does(
    own: Bot, counting: Counting, broadcaster: Broadcaster
) -> None:
    pages = [await open_socket(own, own.owner) for _ in range(2)]
    for page in pages:
        await page.connect()
    for page in pages:
        assert (await next_stats(page))["memory_limit"] == 2**30
    # Long enough for both to say again that they look.
    for page in pages * 2:
        await next_stats(page)
    assert (counting.opened, counting.open) == (1, 1)
    for page in pages:
        await page.disconnect()
    await until_async(lambda: counting.open == 0)
    assert counting.opened == 1


async def test_the_newest_sample_is_kept_for_pages_without_script(
    own: Bot, counting: Counting, broadcaster: Broadcaster
) -> None:
    await sync_to_async(live.watch)(own.pk)
    await until_async(lambda: live.newest_stats(own.pk) is not None)
    sample = live.newest_stats(own.pk)
    assert sample and sample["pids"] == 8


async def test_a_stopped_pub_is_tried_again_while_somebody_looks(
    own: Bot, counting: Counting, broadcaster: Broadcaster
) -> None:
    counting.nodes["node-1"].containers.clear()
    broadcaster.watch(own.pk)
    await until_async(lambda: counting.opened > 1)
    broadcaster.watch(own.pk)
    counting.nodes["node-1"].containers.add(own.pk)
    await until_async(lambda: counting.open == 1)
    await until_async(lambda: broadcaster.streams == {} and counting.open == 0)


async def test_a_stream_of_an_engine_that_hangs_is_opened_anew(
    own: Bot, counting: Counting, broadcaster: Broadcaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(live, "WATCH_SECONDS", 30)
    counting.hangs = True
    broadcaster.watch(own.pk)
    await until_async(lambda: counting.opened > 1)
    assert counting.open <= 1


async def test_a_thousand_joins_and_leaves_leave_nothing_behind(
    own: Bot, counting: Counting, broadcaster: Broadcaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only what they hold counts here, not who they are and what they see.
    scope = {"type": "websocket", "user": own.owner, "url_route": {"kwargs": {"bot_id": own.pk}}, "headers": []}
    monkeypatch.setattr(PubConsumer, "_look_up", lambda page: own)
    monkeypatch.setattr("orchestrator.consumers.render_to_string", lambda *args: "<p>")
    layer: Any = get_channel_layer()

    async def look(seconds: float) -> None:
        browser = Browser(dict(scope), PubConsumer.as_asgi())
        browser.takes.set()
        await until_async(lambda: bool(browser.got), seconds=60, every=0.05)
        await asyncio.sleep(seconds)
        await browser.leave()

    def held() -> dict[str, Any]:
        return {
            "streams": (counting.open, len(broadcaster.streams)),
            "tasks": len(asyncio.all_tasks()),
            "threads": set(threading.enumerate()) - threads,
            "descriptors": len(os.listdir("/proc/self/fd")),
            "members": {name: len(members) for name, members in layer.groups.items()},
        }

    await asyncio.gather(*(look(0.1) for _ in range(20)))  # what is made once and kept
    await until_async(lambda: broadcaster.streams == {})
    threads = set(threading.enumerate())  # some that another test has left may end meanwhile
    before = held()
    for _ in range(10):
        await asyncio.gather(*(look(nth / 1000) for nth in range(100)))
    await until_async(lambda: held() == before)
    assert counting.opened < 100, "most found one that was open"


async def test_a_pub_that_moves_is_streamed_where_it_lives(
    own: Bot, counting: Counting, broadcaster: Broadcaster
) -> None:
    node = counting.add_node()
    hub = await Hub.objects.acreate(name="hub-2", state=Hub.State.READY, node_id=node, places=15)
    broadcaster.watch(own.pk)
    await until_async(lambda: counting.open == 1)
    counting.nodes["node-1"].containers.clear()
    counting.nodes[node].containers.add(own.pk)
    await Placement.objects.aupdate(hub=hub)

    def there() -> bool:
        broadcaster.watch(own.pk)
        return hub.pk in broadcaster.hubs and bool(broadcaster.hubs[hub.pk].streams) and counting.open == 1

    await until_async(there)
    assert len(broadcaster.streams) == 1


async def test_a_browser_that_left_without_a_word_is_no_error(
    own: Bot, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live, "WATCH_SECONDS", 0.1)
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    told.put_nowait({"type": "websocket.connect"})

    async def send(message: dict[str, Any]) -> None:
        raise OSError("nobody is there")

    page = asyncio.create_task(application((await open_socket(own, own.owner)).scope, told.get, send))
    await sync_to_async(own.delete_softly)()
    await asyncio.sleep(0.3)
    told.put_nowait({"type": "websocket.disconnect", "code": 1006})
    await page
    assert not caplog.records
