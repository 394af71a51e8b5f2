"""What readings of subscriptions make of a bot's paid columns, in whatever order they come."""

from datetime import UTC, datetime, timedelta
from datetime import timezone as tz
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import transaction
from django.template import Context, Template
from django.utils import timezone
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from billing import paid
from billing.gateway import Reading
from billing.ladder import ALIVE, MEANINGS, Rung
from billing.words import words
from mailer.models import Message
from pubs.models import Bot
from tests.support.make import Maker

START = datetime(2026, 1, 1, tzinfo=UTC)
PAID = (
    *("paid", "rung", "runs_until", "kept_until", "paid_status", "paid_until", "paid_ends", "paid_seen_at"),
    *("subscription_id", "price_id", "memory_gb", "unpaid_since", "retry_at", "due_at"),
)
RUNGS = {
    "trialing": Rung.PAID,
    "active": Rung.PAID,
    "past_due": Rung.GRACE,
    "unpaid": Rung.SUSPENDED,
    "paused": Rung.SUSPENDED,
    "incomplete": Rung.NEW,
    "canceled": Rung.KEPT,
}
LIVES = st.permutations(sorted(RUNGS))


@pytest.fixture(autouse=True)
def it_is_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timezone, "now", lambda: START + timedelta(days=1))


def reading(bot_id: UUID, status: str = "active", minute: int = 0, subscription: str = "sub_1", **more: Any) -> Reading:
    owes = status in ("past_due", "unpaid")
    values: dict[str, Any] = {
        "until": START if status in ("canceled", "paused") else START + timedelta(days=30),
        "ends": False,
        "created": START,
        "seen_at": START + timedelta(minutes=minute),
        "unpaid_since": START if owes else None,
    }
    return Reading(bot_id=bot_id, subscription_id=subscription, status=status, **(values | more))


def held(make: Maker) -> Bot:
    """A bot whose subscription we know."""
    bot = make.bot()
    paid.record(reading(bot.pk, "incomplete", minute=-1))
    return bot


def columns(bot: Bot) -> tuple[object, ...]:
    return Bot.objects.values_list(*PAID).get(pk=bot.pk)


@pytest.mark.parametrize(
    ("status", "runs"),
    [
        ("trialing", True),
        ("active", True),
        ("past_due", True),
        ("unpaid", False),
        ("paused", False),
        ("incomplete", False),
        ("incomplete_expired", False),
        ("canceled", False),
    ],
)
def test_each_status_says_whether_the_pub_runs_and_what_its_owner_reads(make: Maker, status: str, runs: bool) -> None:
    bot = held(make)
    paid.record(reading(bot.pk, status))
    bot.refresh_from_db()
    assert bot.paid is runs
    assert bot.paid_status == status
    assert words(bot)


@pytest.mark.parametrize("status", ["trialing", "active", "past_due", "unpaid", "paused"])
def test_one_with_a_live_subscription_is_not_sent_to_pay_for_another(status: str) -> None:
    assert not paid.may_check_out(Bot(paid_status=status))


@pytest.mark.parametrize("status", ["", "incomplete", "incomplete_expired", "canceled"])
def test_one_without_a_live_subscription_can_pay(status: str) -> None:
    assert paid.may_check_out(Bot(paid_status=status))


@pytest.mark.parametrize(
    ("status", "page"),
    [
        ("", "checkout"),
        ("incomplete", "checkout"),
        ("incomplete_expired", "checkout"),
        ("canceled", "checkout"),
        ("unpaid", "portal"),
        ("paused", ""),
        ("past_due", "portal"),
        ("active", ""),
        ("trialing", ""),
    ],
)
def test_the_pubs_page_offers_the_page_that_puts_its_payment_right(make: Maker, status: str, page: str) -> None:
    bot = make.bot()
    if status:
        paid.record(reading(bot.pk, status))
    bot.refresh_from_db()
    assert Template("{% load payment %}{{ bot|pays_by }}").render(Context({"bot": bot})) == page


def history(bot: Bot) -> list[tuple[str, str]]:
    return list(bot.payment_changes.order_by("pk").values_list("old", "new"))


def test_each_rung_that_it_comes_to_is_written_down_in_the_words_that_its_owner_reads(make: Maker) -> None:
    bot = held(make)
    for minute, status in enumerate(["incomplete", "active", "active", "past_due", "unpaid", "active"]):
        paid.record(reading(bot.pk, status, minute))
    assert history(bot) == [
        (Rung.NEW, Rung.PAID),
        (Rung.PAID, Rung.GRACE),
        (Rung.GRACE, Rung.SUSPENDED),
        (Rung.SUSPENDED, Rung.PAID),
    ]
    bot.refresh_from_db()
    assert bot.payment_changes.first().words == words(bot)


def test_nothing_is_mailed_about_the_payment_of_a_pub_that_never_was_paid(make: Maker) -> None:
    bot = make.bot()
    for minute, status in enumerate(["incomplete", "incomplete_expired"]):
        paid.record(reading(bot.pk, status, minute))
    assert not Message.objects.exists()


def test_a_price_of_another_size_changes_the_memory_and_one_of_none_keeps_it(make: Maker) -> None:
    bot = make.bot()
    paid.record(reading(bot.pk, minute=1, memory_gb=4, price_id="price_4"))
    bot.refresh_from_db()
    assert (bot.memory_gb, bot.price_id) == (4, "price_4")
    paid.record(reading(bot.pk, minute=2, memory_gb=None, price_id="price_by_hand"))
    bot.refresh_from_db()
    assert (bot.memory_gb, bot.price_id) == (4, "price_by_hand")


@pytest.mark.parametrize("hours", [-14, -5, 0, 3, 14])
def test_dates_are_the_same_moment_in_every_time_zone(make: Maker, hours: int) -> None:
    """A period that ends around midnight of New Year: what counts is the moment, told in any zone."""
    ends = datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC) + timedelta(days=1)
    bot = make.bot()
    paid.record(reading(bot.pk, ends=True, until=ends.astimezone(tz(timedelta(hours=hours)))))
    bot.refresh_from_db()
    assert (bot.runs_until, bot.paid, bot.rung) == (ends, True, Rung.ENDING)
    paid.record(
        reading(bot.pk, minute=1, ends=True, until=(ends - timedelta(seconds=1)).astimezone(tz(timedelta(hours=hours))))
    )
    bot.refresh_from_db()
    assert (bot.paid, bot.rung) == (False, Rung.KEPT)


def test_an_ended_subscription_alone_ends_nothing_before_all_were_looked_at(
    make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[UUID] = []
    monkeypatch.setattr("pubs.live.look_at_payment", asked.append)
    bot = make.bot()
    before = columns(bot)
    paid.record(reading(bot.pk, "canceled"))
    assert columns(bot) == before and asked == [bot.pk]


def test_an_older_reading_changes_nothing(make: Maker) -> None:
    bot = held(make)
    paid.record(reading(bot.pk, "canceled", minute=5))
    before = columns(bot)
    paid.record(reading(bot.pk, "active", minute=4))
    assert columns(bot) == before


def test_an_older_reading_of_another_subscription_has_all_looked_at(
    make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look found a second payment, and an event about the old one was read later but written first."""
    asked: list[UUID] = []
    monkeypatch.setattr("pubs.live.look_at_payment", asked.append)
    bot = held(make)
    paid.record(reading(bot.pk, "canceled", minute=5))
    assert not paid._record_chosen(bot.pk, reading(bot.pk, "active", minute=4, subscription="sub_2"))
    assert asked == [bot.pk]


def test_what_is_read_again_as_it_was_is_no_news(make: Maker) -> None:
    bot = make.bot()
    assert paid._record_chosen(bot.pk, reading(bot.pk, minute=1))
    before = columns(bot)
    assert not paid._record_chosen(bot.pk, reading(bot.pk, minute=2))
    seen_at = PAID.index("paid_seen_at")
    assert [each for number, each in enumerate(zip(before, columns(bot), strict=True)) if each[0] != each[1]] == [
        (START + timedelta(minutes=1), START + timedelta(minutes=2))
    ] and before[seen_at] == START + timedelta(minutes=1)


def test_a_status_that_nobody_knows_flies_and_changes_nothing(make: Maker) -> None:
    bot = held(make)
    before = columns(bot)
    with pytest.raises(KeyError):
        paid.record(reading(bot.pk, "a word of tomorrow"))
    assert columns(bot) == before


def test_a_reading_for_no_bot_is_ignored(db: None) -> None:
    paid.record(reading(uuid4()))


def test_only_the_paid_columns_are_written(make: Maker) -> None:
    bot = make.bot()
    owners = Bot.objects.filter(pk=bot.pk)
    # The owner's change falls between the read and the write.
    write = Bot.save

    def save(self: Bot, **kwargs: object) -> None:
        owners.update(switched_on=False, name="New name")
        write(self, **kwargs)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bot, "save", save)
        paid.record(reading(bot.pk))
    bot.refresh_from_db()
    assert (bot.switched_on, bot.name, bot.paid) == (False, "New name", True)


@pytest.mark.django_db(transaction=True)
def test_open_pages_and_the_orchestrator_are_told_of_a_change_only(
    make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("pubs.live.changed", lambda bot_id: told.append("page"))
    monkeypatch.setattr("pubs.live.nudge", lambda: told.append("orchestrator"))
    bot = make.bot()
    paid.record(reading(bot.pk, minute=1))
    assert told == ["page", "orchestrator"]
    paid.record(reading(bot.pk, minute=2))
    assert told == ["page", "orchestrator"]


def test_another_subscription_than_the_held_one_decides_nothing_by_itself(
    make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[UUID] = []
    monkeypatch.setattr("pubs.live.look_at_payment", asked.append)
    bot = make.bot()
    paid.record(reading(bot.pk, "active", minute=1))
    before = columns(bot)
    for status in ("active", "canceled"):
        paid.record(reading(bot.pk, status, minute=2, subscription="sub_2"))
    assert columns(bot) == before
    assert asked == [bot.pk, bot.pk]


@pytest.mark.django_db
@hypothesis_settings(max_examples=25, deadline=None)
@given(life=LIVES, data=st.data())
def test_readings_in_any_order_and_any_number_leave_the_newest(life: list[str], data: st.DataObject) -> None:
    with transaction.atomic():
        bot = held(Maker())
        told = [reading(bot.pk, status, minute) for minute, status in enumerate(life)]
        again = data.draw(st.lists(st.sampled_from(told), max_size=10))
        for each in data.draw(st.permutations(told + again)):
            paid.record(each)
        bot.refresh_from_db()
        assert bot.paid_status == life[-1]
        assert bot.rung == RUNGS[life[-1]]
        assert bot.paid_seen_at == told[-1].seen_at
        transaction.set_rollback(True)


@given(
    statuses=st.lists(st.sampled_from(sorted(MEANINGS)), max_size=6),
    data=st.data(),
)
def test_of_many_subscriptions_one_counts_whatever_their_order(statuses: list[str], data: st.DataObject) -> None:
    bot_id = uuid4()
    all_of_them = [
        Reading(bot_id, f"sub_{n}", status, None, False, START + timedelta(days=n), START)
        for n, status in enumerate(statuses)
    ]
    chosen, surplus = paid.choose(all_of_them)
    assert (chosen, surplus) == paid.choose(data.draw(st.permutations(all_of_them)))
    assert (chosen is None) is not bool(statuses)
    charges = [each for each in all_of_them if each.status in ALIVE and MEANINGS[each.status].started]
    running = [each for each in charges if MEANINGS[each.status].runs]
    if charges:
        assert chosen == (running or [chosen])[0] and chosen in charges
        alive = [each for each in all_of_them if each.status in ALIVE]
        assert {each.subscription_id for each in alive} == {each.subscription_id for each in [chosen, *surplus]}
    else:
        assert not surplus, "who is about to pay must be let"
