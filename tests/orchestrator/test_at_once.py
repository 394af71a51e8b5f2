"""Two who work on the same rows at the same moment, as workers on several machines do.

One is held where it has read and not yet written; the other must wait for it, or see what it did.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier, Event
from typing import Any

import pytest
from django.db import connection, connections, transaction

from orchestrator import dns, hubs, places
from orchestrator.models import Hub, Placement, Turn, turn
from orchestrator.planner import Place
from pubs.models import Bot
from tests.support.make import Maker
from tests.support.wait import until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        connection.vendor != "postgresql",
        reason="SQLite lets one write at a time, so that nothing is proved there: set DB_HOST to a Postgres",
    ),
]
PATIENCE = 60  # seconds, of a test that would hang for ever

Begin = Callable[..., Future[Any]]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Do it in another thread, over a connection of its own."""

    def work(deed: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return deed(*arguments)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as threads:
        yield lambda deed, *arguments: threads.submit(work, deed, *arguments)


class Held:
    """A function whose caller is held after it, until it may go on."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.reached, self.may_go = function, Event(), Event()

    def __call__(self, *arguments: Any) -> Any:
        result = self.function(*arguments)
        self.reached.set()
        assert self.may_go.wait(PATIENCE)
        return result

    def while_held(self, other: Callable[[], Future[Any]]) -> Any:
        """What the other comes to, which begins before the first goes on."""
        assert self.reached.wait(PATIENCE)
        try:
            its = other()
            until("it waits, or has not waited", lambda: its.done() or waiting() == 1)
        finally:
            self.may_go.set()
        return its.result(PATIENCE)


def waiting() -> int:
    """How many wait for somebody's lock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")  # or it would be the same all through a transaction
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return int(cursor.fetchone()[0])


@pytest.fixture
def bot(make: Maker) -> Bot:
    return make.bot(paid=True)


@pytest.fixture
def hub(transactional_db: None) -> Hub:
    return Hub.objects.create(name="hub-1", state=Hub.State.READY, places=15)


def test_a_hub_on_which_a_bot_is_just_placed_is_not_retired(
    bot: Bot, hub: Hub, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(dns.label_of)
    monkeypatch.setattr(dns, "label_of", held)
    placing = begin(places.place, [Place(bot.pk, hub.pk, 1)], {bot.pk: bot.name})
    assert held.while_held(lambda: begin(hubs.retire, hub.pk, hub.state)) is False
    assert placing.result(PATIENCE) == [bot.pk]
    hub.refresh_from_db()
    assert hub.state == Hub.State.READY and Placement.objects.get().hub == hub


def test_on_a_hub_that_is_just_retired_no_bot_is_placed(
    bot: Bot, hub: Hub, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(hubs.is_lived_on)
    monkeypatch.setattr(hubs, "is_lived_on", held)
    retiring = begin(hubs.retire, hub.pk, hub.state)
    assert held.while_held(lambda: begin(places.place, [Place(bot.pk, hub.pk, 1)], {bot.pk: bot.name})) == []
    assert retiring.result(PATIENCE) is True
    hub.refresh_from_db()
    assert hub.state == Hub.State.DESTROYING and not Placement.objects.exists()


def test_of_two_who_ask_for_the_passs_turn_at_once_one_gets_it(transactional_db: None, begin: Begin) -> None:
    both_know = Barrier(2, timeout=PATIENCE)

    def ask() -> bool:
        with turn("pass", PATIENCE) as ours:
            both_know.wait()
            return ours

    Turn.objects.create(name="pass")
    with transaction.atomic():
        # Nobody can take it until both have seen that it is free.
        Turn.objects.select_for_update().get(name="pass")
        asked = [begin(ask), begin(ask)]
        until("both wait for it", lambda: waiting() == 2)
    assert sorted(each.result(PATIENCE) for each in asked) == [False, True]
    assert Turn.objects.get().until is None
