"""Two who write down what Stripe says of one bot at the same moment: the later reading stays, whoever is first."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from billing import paid
from billing.gateway import Reading
from pubs import live
from pubs.models import Bot, PaymentChange
from tests.orchestrator.test_at_once import PATIENCE, Begin, Held, begin, pytestmark  # noqa: F401
from tests.support.make import Maker

START = datetime(2026, 1, 1, tzinfo=UTC)


def reading(bot_id: UUID, status: str, second: int) -> Reading:
    return Reading(bot_id, "sub_1", status, START, False, START, START + timedelta(seconds=second))


@pytest.fixture
def bot(make: Maker) -> Bot:
    bot = make.bot()
    paid.record(reading(bot.pk, "incomplete", 0))
    return bot


@pytest.mark.parametrize(("first", "second"), [(("active", 1), ("canceled", 2)), (("canceled", 2), ("active", 1))])
def test_of_a_look_and_a_webhook_at_once_the_later_reading_stays(
    bot: Bot,
    begin: Begin,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    first: tuple[str, int],
    second: tuple[str, int],
) -> None:
    held = Held(paid.stand)
    monkeypatch.setattr(paid, "stand", held)
    look = begin(paid._record_chosen, bot.pk, reading(bot.pk, *first))
    held.while_held(lambda: begin(paid.record, reading(bot.pk, *second)))
    look.result(PATIENCE)
    bot.refresh_from_db()
    assert (bot.paid_status, bot.paid_seen_at) == ("canceled", START + timedelta(seconds=2))


def test_what_two_tell_of_at_once_is_written_into_the_history_once(
    bot: Bot,
    begin: Begin,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = Held(live.changed)
    monkeypatch.setattr(live, "changed", held)
    one = begin(paid.remark, bot.pk, "€9 was given back.", "re_1")
    other = held.while_held(lambda: begin(paid.remark, bot.pk, "€9 was given back.", "re_1"))
    assert sorted([one.result(PATIENCE), other]) == [False, True]
    assert PaymentChange.objects.filter(key="re_1").count() == 1
