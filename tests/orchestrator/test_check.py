"""Looking how pubs answer: from outside by a handshake, from inside by their own word."""

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import current_app
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from orchestrator import checkups, handshake, jobs
from orchestrator.models import Hub, Placement, turn
from orchestrator.reconcile import run_here, run_pass
from orchestrator.swarm import NotRunning, Output, Unreachable
from orchestrator.swarm.memory import MemorySwarm
from pubs import live
from pubs.models import Bot, Checkup, Status
from tests.support.make import Maker
from tests.support.pub_port import PubPort, listening, silent

pytestmark = pytest.mark.django_db

SAYS = {
    "version": "0.2.0",
    "sequence": 12,
    "messages": 3400,
    "synced": 1_790_000_000_000,
    "peers": 3,
    "followers": 7,
    "following": 5,
    "restoring": None,
    "disk": {"total": 9_000_000, "db": 8_000_000, "blobs": 500_000},
}


@pytest.fixture
def port() -> Iterator[PubPort]:
    with listening() as port:
        yield port


@pytest.fixture
def bot(make: Maker, memory_swarm: MemorySwarm, port: PubPort) -> Bot:
    """A pub that is up, and answers at the port."""
    memory_swarm.answers["status"] = lambda argv: said(SAYS)
    return up(make.bot(paid=True), port)


def up(bot: Bot, port: PubPort) -> Bot:
    for _ in range(4):
        run_pass(ask=run_here)
    Bot.objects.filter(pk=bot.pk).update(address=port.address, ssb_id=port.ssb_id)
    bot.refresh_from_db()
    assert bot.status == Status.UP
    return bot


def said(result: object, exit_code: int = 0) -> Output:
    return Output(exit_code, json.dumps({"id": 1, "ok": True, "result": result}), "")


def refused(code: str, exit_code: int = 1) -> Output:
    return Output(exit_code, json.dumps({"id": 1, "ok": False, "error": {"code": code, "message": "so it is"}}), "")


def look(bot: Bot) -> Checkup:
    jobs.check_pub(str(bot.pk))
    return Checkup.objects.get(bot=bot)


def ago(minutes: float) -> Any:
    return timezone.now() - timedelta(minutes=minutes)


# --- one pub ---------------------------------------------------------------------------------------------------------
def test_a_look_writes_down_what_a_pub_proves_and_says(bot: Bot, port: PubPort) -> None:
    found = look(bot)
    assert found.reached_at == found.tried_at and found.unreached == "" and (found.handshake_ms or 0) > 0
    assert (found.version, found.sequence, found.messages) == ("0.2.0", 12, 3400)
    assert (found.peers, found.followers, found.members) == (3, 7, 5)
    assert (found.disk, found.blobs, found.restoring) == (9_000_000, 500_000, False)
    assert found.synced_at is not None and found.synced_at.timestamp() == 1_790_000_000
    assert found.unanswered == "" and found.answered_at is not None
    assert port.parted == [True]


def test_a_look_may_come_twice(bot: Bot) -> None:
    look(bot)
    assert look(bot).unreached == ""
    assert Checkup.objects.count() == 1


def test_a_pub_that_hangs_is_not_reached_and_keeps_when_it_was(bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    before = look(bot)
    monkeypatch.setattr(handshake, "ANSWER_SECONDS", 0.1)
    with listening(silent) as hung:
        Bot.objects.filter(pk=bot.pk).update(address=hung.address)
        found = look(bot)
    assert "no answer in time" in found.unreached
    assert found.reached_at == before.reached_at and found.tried_at > found.reached_at
    assert found.handshake_ms == before.handshake_ms


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (refused("TIMEOUT", 3), "too busy"),
        (refused("TIMEOUT"), "too busy"),
        (Output(124, "", ""), "too busy"),
        (Output(137, "", "killed"), "too busy"),
        (refused("DOWN", 2), "starting or stopped"),
        (refused("FAILED"), "can't read"),
        (Output(0, "<html>", ""), "can't read"),
        (Output(0, "[" * 100_000, ""), "can't read"),
        (Output(0, '{"ok":true,"result":[]}', ""), "can't read"),
    ],
)
def test_what_keeps_a_pub_from_answering_is_said_and_its_old_answer_kept(
    bot: Bot, memory_swarm: MemorySwarm, answer: Output, words: str
) -> None:
    before = look(bot)
    memory_swarm.answers["status"] = lambda argv: answer
    found = look(bot)
    assert words in found.unanswered
    assert found.answered_at == before.answered_at and found.followers == 7
    assert found.asked_at > before.asked_at


def test_a_pub_without_a_container_says_nothing(bot: Bot, memory_swarm: MemorySwarm) -> None:
    def stopped(argv: list[str]) -> Output:
        raise NotRunning("The pub is not running just now.")

    memory_swarm.answers["status"] = stopped
    assert "starting or stopped" in look(bot).unanswered


def test_an_engine_out_of_reach_is_no_word_about_the_pub(bot: Bot, memory_swarm: MemorySwarm) -> None:
    before = look(bot)
    memory_swarm.nodes[bot.placement.hub.node_id].answers = False
    found = look(bot)
    assert found.unanswered == checkups.OUT_OF_SIGHT and found.answered_at == before.answered_at
    assert found.unreached == "" and found.reached_at > before.reached_at


def test_a_pub_on_a_hub_out_of_sight_is_still_tried_from_outside(bot: Bot, memory_swarm: MemorySwarm) -> None:
    asked: list[object] = []
    memory_swarm.answers["status"] = lambda argv: asked.append(argv) or said(SAYS)  # type: ignore[func-returns-value]
    Bot.objects.filter(pk=bot.pk).update(unknown_since=timezone.now())
    found = look(bot)
    assert found.reached_at is not None and found.asked_at is None and asked == []


@pytest.mark.parametrize(
    "lies",
    [
        {"version": "x\ud800\0" * 30, "sequence": -1, "peers": 2**40, "followers": True, "disk": [1], "messages": "9"},
        {"synced": 2**52, "disk": {"total": 1e300}, "restoring": {"floor": 3}},
        {},
    ],
)
def test_whatever_a_pub_says_can_be_kept(bot: Bot, memory_swarm: MemorySwarm, lies: dict[str, object]) -> None:
    memory_swarm.answers["status"] = lambda argv: said(lies)
    found = look(bot)
    assert found.unanswered == ""
    assert (found.version, found.sequence, found.peers, found.followers, found.disk) == ("", None, None, None, None)
    assert found.restoring is bool(lies.get("restoring"))
    assert found.synced_at is None or found.synced_at <= timezone.now()


def test_a_restarted_pub_does_not_forget_when_the_last_message_came(bot: Bot, memory_swarm: MemorySwarm) -> None:
    before = look(bot)
    memory_swarm.answers["status"] = lambda argv: said(SAYS | {"synced": None})
    assert look(bot).synced_at == before.synced_at


@pytest.mark.parametrize("columns", [{"switched_on": False}, {"paid": False}, {"status": Status.NONE}, {"address": ""}])
def test_a_pub_that_is_not_meant_to_run_is_left_alone(bot: Bot, port: PubPort, columns: dict[str, Any]) -> None:
    Bot.objects.filter(pk=bot.pk).update(**columns)
    jobs.check_pub(str(bot.pk))
    assert not Checkup.objects.exists() and port.met == []


# --- all of them -----------------------------------------------------------------------------------------------------
def test_each_pub_is_tried_each_minute_and_not_more_often(bot: Bot, port: PubPort) -> None:
    checkups.try_due()
    checkups.try_due()
    assert len(port.met) == 1
    Checkup.objects.update(tried_at=ago(1))
    checkups.try_due()
    assert len(port.met) == 2


def many(make: Maker, port: PubPort, count: int) -> Hub:
    """Pubs that are up on one hub, all at the same port: only the database is asked which they are."""
    hub = Hub.objects.create(name="hub", state=Hub.State.READY, node_id="node-9", places=count)
    for number in range(count):
        key = port.ssb_id if number == 0 else f"@{number:043}=.ed25519"
        bot = make.bot(paid=True, status=Status.UP, address=port.address, ssb_id=key)
        Placement.objects.create(bot=bot, hub=hub, port=30000 + number, label=f"pub-{number}")
    return hub


def test_many_are_tried_at_once_within_bounds_and_written_down_together(
    make: Maker, port: PubPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkups, "TRIES_AT_ONCE", 8)
    many(make, port, 30)
    with CaptureQueriesContext(connection) as thirty:
        checkups.try_due()
    assert Checkup.objects.exclude(tried_at=None).count() == 30
    assert Checkup.objects.filter(unreached="").count() == 1
    assert 2 <= port.most <= 8
    assert len(thirty) <= 16


def test_one_that_can_not_be_tried_keeps_no_other_from_it(make: Maker, port: PubPort) -> None:
    many(make, port, 2)
    make.bot(paid=True, status=Status.UP, address="no port", ssb_id="@x.ed25519")
    checkups.try_due()
    assert Checkup.objects.filter(unreached="").count() == 1


def test_those_that_the_pass_had_no_time_for_are_the_first_of_the_next(
    make: Maker, port: PubPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkups, "PASS_SECONDS", 0.3)
    with listening(silent) as hung:
        late = make.bot(paid=True, status=Status.UP, address=hung.address, ssb_id=hung.ssb_id)
        quick = make.bot(paid=True, status=Status.UP, address=port.address, ssb_id=port.ssb_id)
        checkups.try_due()
    assert set(Checkup.objects.values_list("bot", flat=True)) == {quick.pk}
    monkeypatch.setattr(checkups, "TRIES_AT_ONCE", 1)
    Checkup.objects.update(tried_at=ago(2))
    checkups.try_due()
    assert Checkup.objects.get(bot=late).unreached


def test_a_hub_is_asked_a_share_at_a_time_until_all_had_their_turn(
    make: Maker, port: PubPort, memory_swarm: MemorySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = many(make, port, 10)
    asked: list[str] = []

    def run(service: str, argv: list[str], timeout: float) -> Output:
        asked.append(service)
        return said(SAYS)

    monkeypatch.setattr(memory_swarm, "run", run)
    for nth in range(1, 6):
        assert checkups.hubs_to_ask() == [hub.pk]
        jobs.ask_pubs(hub.pk)
        assert len(asked) == 2 * nth
    assert len(set(asked)) == 10
    assert checkups.hubs_to_ask() == []
    jobs.ask_pubs(hub.pk)
    assert len(asked) == 10


def test_a_silent_engine_is_asked_once_for_all_its_pubs(
    make: Maker, port: PubPort, memory_swarm: MemorySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = many(make, port, 10)
    asked: list[str] = []

    def run(service: str, argv: list[str], timeout: float) -> Output:
        asked.append(service)
        raise Unreachable("The Docker engine does not answer.")

    monkeypatch.setattr(memory_swarm, "run", run)
    jobs.ask_pubs(hub.pk)
    assert len(asked) == 1
    assert Checkup.objects.filter(unanswered=checkups.OUT_OF_SIGHT).count() == 2


def test_the_clock_has_each_hub_asked_by_a_job_of_its_own(
    bot: Bot, port: PubPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(jobs.ask_pubs, "apply_async", lambda args, expires: asked.append((args, expires)))
    jobs.check_pubs()
    assert asked == [((bot.placement.hub_id,), 60)]
    assert len(port.met) == 1


def test_two_workers_do_not_look_at_the_same_pubs_at_once(bot: Bot, port: PubPort) -> None:
    with turn("try pubs", 60), turn(f"ask pubs of hub {bot.placement.hub_id}", 60):
        checkups.try_due()
        jobs.ask_pubs(bot.placement.hub_id)
    assert port.met == [] and not Checkup.objects.exists()


# --- on demand -------------------------------------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
def test_opening_the_page_has_a_worker_look_once(bot: Bot, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(current_app, "send_task", lambda name, args=(): sent.append((name, args)))
    client.force_login(bot.owner)
    for _ in range(3):
        client.get(bot.get_absolute_url())
    assert sent.count(("orchestrator.check_pub", [str(bot.pk)])) == 1


@pytest.mark.django_db(transaction=True)
def test_a_pub_that_was_just_looked_at_is_left_in_peace(bot: Bot, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    Checkup.objects.create(bot=bot, tried_at=ago(0.5))
    monkeypatch.setattr(current_app, "send_task", lambda name, args=(): sent.append(name))
    client.force_login(bot.owner)
    client.get(bot.get_absolute_url())
    assert "orchestrator.check_pub" not in sent


def test_open_pages_are_told_to_look_again(bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr("pubs.live.changed", lambda *bots: told.extend(bots))
    look(bot)
    assert set(told) == {bot.pk}


class Layer:
    """Hears what is sent to whom, and on which loop: each has a connection of its own."""

    def __init__(self) -> None:
        self.groups: list[str] = []
        self.loops: set[asyncio.AbstractEventLoop] = set()

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        self.groups.append(group)
        self.loops.add(asyncio.get_running_loop())


def test_the_pages_of_many_pubs_are_told_in_one_go(
    make: Maker, port: PubPort, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    many(make, port, 5)
    layer = Layer()
    monkeypatch.setattr(live, "layer", lambda: layer)
    with django_capture_on_commit_callbacks(execute=True):
        checkups.try_due()
    assert sorted(layer.groups) == sorted(live.group(bot.pk) for bot in Bot.objects.all())
    # One for those that were reached, one for the others.
    assert len(layer.loops) == 2
