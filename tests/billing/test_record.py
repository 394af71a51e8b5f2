"""What readings of subscriptions make of a bot's paid columns, in whatever order they come."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID, uuid4

import pytest
from django.db import transaction
from django.template import Context, Template
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from billing import paid
from billing.gateway import Reading
from mailer.models import Message
from pubs.models import Bot
from tests.support.make import Maker

START = datetime(2026, 1, 1, tzinfo=UTC)
PAID = ("paid", "paid_status", "paid_until", "paid_ends", "subscription_id", "paid_seen_at")
LIVES = st.permutations(["trialing", "active", "past_due", "unpaid", "paused", "incomplete", "canceled"])


def reading(
    bot_id: UUID, status: str = "active", minute: int = 0, subscription: str = "sub_1", invoice: str = "in_1"
) -> Reading:
    return Reading(
        bot_id=bot_id,
        subscription_id=subscription,
        status=status,
        until=START + timedelta(days=30),
        ends=False,
        created=START,
        seen_at=START + timedelta(minutes=minute),
        invoice_id=invoice,
    )


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
    bot = make.bot()
    paid.record(reading(bot.pk, status))
    bot.refresh_from_db()
    assert bot.paid is runs
    assert bot.paid_status == status
    assert paid.words(bot) not in ("", paid.NOT_PAID)


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
        ("paused", "portal"),
        ("past_due", ""),
        ("active", ""),
        ("trialing", ""),
    ],
)
def test_the_pubs_page_offers_the_page_that_gets_it_running(status: str, page: str) -> None:
    bot = Bot(paid_status=status, paid=bool(status) and paid.MEANINGS[status].runs)
    assert Template("{% load payment %}{{ bot|pays_by }}").render(Context({"bot": bot})) == page


def mails() -> list[str]:
    return list(Message.objects.order_by("pk").values_list("key", flat=True))


def test_a_failed_payment_is_mailed_once_an_invoice_and_again_when_it_stops_the_pub(make: Maker) -> None:
    bot = make.bot()
    life = [("active", "in_1"), ("past_due", "in_2"), ("past_due", "in_2"), ("unpaid", "in_2"), ("active", "in_2")]
    for minute, (status, invoice) in enumerate([*life, ("past_due", "in_3"), ("canceled", "in_3")]):
        paid.record(reading(bot.pk, status, minute, invoice=invoice))
    assert mails() == [
        "payment_failed:past_due:in_2",
        "payment_failed:unpaid:in_2",
        "payment_failed:past_due:in_3",
        "subscription_ended:sub_1",
    ]
    runs_on, stopped = Message.objects.filter(key__endswith="in_2").order_by("pk")
    assert runs_on.to == bot.owner.email
    assert "is stopped" in stopped.text and "is stopped" not in runs_on.text


def test_a_first_payment_that_fails_is_not_mailed(make: Maker) -> None:
    bot = make.bot()
    for minute, status in enumerate(["incomplete", "incomplete_expired"]):
        paid.record(reading(bot.pk, status, minute))
    assert mails() == []


def test_nothing_is_mailed_about_a_deleted_pub(make: Maker) -> None:
    bot = make.bot(deleted_at=START)
    for minute, status in enumerate(["active", "past_due", "unpaid", "canceled"]):
        paid.record(reading(bot.pk, status, minute))
    assert mails() == []


def test_an_older_reading_changes_nothing(make: Maker) -> None:
    bot = make.bot()
    paid.record(reading(bot.pk, "canceled", minute=5))
    before = columns(bot)
    paid.record(reading(bot.pk, "active", minute=4))
    assert columns(bot) == before


def test_a_status_that_nobody_knows_flies(make: Maker) -> None:
    bot = make.bot()
    with pytest.raises(KeyError):
        paid.record(reading(bot.pk, "a word of tomorrow"))
    assert columns(bot)[1] == ""


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
        make = Maker()
        bot = make.bot()
        told = [reading(bot.pk, status, minute) for minute, status in enumerate(life)]
        again = data.draw(st.lists(st.sampled_from(told), max_size=10))
        for each in data.draw(st.permutations(told + again)):
            paid.record(each)
        bot.refresh_from_db()
        assert bot.paid_status == life[-1]
        assert bot.paid is paid.MEANINGS[life[-1]].runs
        assert bot.paid_seen_at == told[-1].seen_at
        transaction.set_rollback(True)


@given(
    statuses=st.lists(st.sampled_from(sorted(paid.MEANINGS)), max_size=6),
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
    alive = [each for each in all_of_them if each.status in paid.ALIVE]
    assert {each.subscription_id for each in alive} == {
        each.subscription_id for each in [*surplus, *([chosen] if chosen and alive else [])]
    }
    assert (chosen is None) is not bool(statuses)
    running = [each for each in alive if paid.MEANINGS[each.status].runs]
    if running:
        assert chosen == running[0]
    elif all_of_them and not alive:
        assert chosen == all_of_them[-1]
    assert all(one.created <= other.created for one, other in pairwise(running))
