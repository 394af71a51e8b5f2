"""All that Stripe charges for, compared with our rows: each difference is found, healed and told."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from billing import gateway, jobs, paid, sweeps
from billing.ladder import Rung
from billing.models import Sweep
from mailer.models import Message
from pubs.models import Bot
from tests.billing.conftest import Customer, forget_checkouts
from tests.support.local_stripe import PaymentRefused, RunningLocalStripe
from tests.support.make import Maker


@pytest.fixture
def paid_alice(alice: Customer) -> Customer:
    alice.come_back(alice.pay())
    assert alice.see().paid
    return alice


def last() -> Sweep:
    run = Sweep.objects.filter(kind=Sweep.Kind.ALL).first()
    assert run
    return run


def copies(stripe: RunningLocalStripe, make: Maker, customer: Customer, number: int) -> list[Bot]:
    """So many bots more that are paid just like the customer's, here and at Stripe."""
    held = customer.see()
    subscriptions = stripe.app.store.objects["subscription"]
    for _ in range(number):
        bot = make.bot(
            held.owner,
            **{
                name: getattr(held, name)
                for name in ("paid", "rung", "paid_status", "paid_until", "price_id", "paid_seen_at", "memory_gb")
            },
        )
        its = f"sub_{bot.pk.hex}"
        subscriptions[its] = {**subscriptions[held.subscription_id], "id": its, "metadata": {"bot": str(bot.pk)}}
        Bot.objects.filter(pk=bot.pk).update(subscription_id=its)
    return list(Bot.objects.exclude(pk=held.pk))


def test_where_all_is_the_same_nothing_is_found(paid_alice: Customer) -> None:
    jobs.compare_all()
    run = last()
    assert (run.looked, run.differences, run.words) == (1, 0, "")
    assert run.finished and not Message.objects.filter(key__startswith="staff_alarm").exists()


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"paid_status": "past_due"}, "status is active, not past_due"),
        ({"paid_until": datetime(2026, 1, 1, tzinfo=UTC)}, "until is "),
        ({"paid_ends": True}, "cancelled is False, not True"),
        ({"price_id": "price_old"}, "price is "),
        ({"memory_gb": 4}, "memory is 1, not 4"),
        ({"subscription_id": "", "paid_status": ""}, "we hold none"),
    ],
)
def test_each_difference_is_told_and_healed(
    paid_alice: Customer, make: Maker, columns: dict[str, Any], words: str
) -> None:
    staff = make.user("stella", is_staff=True)
    names = ("paid", "rung", "paid_status", "paid_until", "paid_ends", "price_id", "memory_gb", "subscription_id")
    before = Bot.objects.values(*names).get()
    Bot.objects.update(**columns)
    jobs.compare_all()
    run = last()
    assert run.differences == 1
    assert words in run.words and str(paid_alice.bot.pk) in run.words
    assert Bot.objects.values(*names).get() == before
    mail = Message.objects.get(to=staff.email)
    assert f"/billing/sweep/{run.pk}/" in mail.text


def test_another_subscription_than_the_one_that_we_hold_is_found_from_both_sides(paid_alice: Customer) -> None:
    held = paid_alice.bot.subscription_id
    Bot.objects.update(subscription_id="sub_other")
    jobs.compare_all()
    assert "we hold sub_other" in last().words and "lists no sub_other" in last().words
    assert paid_alice.see().subscription_id == held


def test_an_end_that_nobody_told_of_is_found(paid_alice: Customer) -> None:
    gateway.cancel(paid_alice.bot.subscription_id)
    jobs.compare_all()
    assert last().differences == 1 and "lists no" in last().words
    assert paid_alice.see().rung == Rung.KEPT


def test_a_live_subscription_of_a_deleted_pub_is_found_and_ended(
    paid_alice: Customer, stripe: RunningLocalStripe
) -> None:
    stripe.app.store.all("subscription")[0]["created"] -= 60
    Bot.objects.update(deleted_at=timezone.now() - timedelta(seconds=1), paid_seen_at=timezone.now(), due_at=None)
    jobs.compare_all()
    assert "though nothing may be charged" in last().words
    assert stripe.app.store.all("subscription")[0]["status"] == "canceled"


def test_one_that_is_charged_for_a_pub_that_we_do_not_have_is_told(
    paid_alice: Customer, stripe: RunningLocalStripe
) -> None:
    Bot.objects.all().delete()
    jobs.compare_all()
    assert last().differences == 1 and "a pub that we do not have" in last().words


def test_what_another_deployment_charges_for_is_none_of_ours(paid_alice: Customer, stripe: RunningLocalStripe) -> None:
    [subscription] = stripe.app.store.all("subscription")
    assert subscription["metadata"] == {"buttcloud": settings.DEPLOYMENT, "bot": str(paid_alice.bot.pk)}
    metadata = {"buttcloud": "staging", "bot": str(uuid4())}
    stripe.client.v1.subscriptions.create(
        {"customer": subscription["customer"], "items": [{"price": paid_alice.bot.price_id}], "metadata": metadata}
    )
    subscription["metadata"] = {"bot": str(paid_alice.bot.pk)}  # made by hand: ours, as the bot is
    Bot.objects.update(paid_status="past_due")
    jobs.compare_all()
    assert (last().looked, last().differences) == (1, 1) and paid_alice.see().paid_status == "active"


def test_a_payment_that_is_only_begun_is_no_difference_beside_what_we_hold(
    paid_alice: Customer, stripe: RunningLocalStripe
) -> None:
    gateway.cancel(paid_alice.bot.subscription_id)
    paid.look(paid_alice.bot.pk)
    forget_checkouts(stripe)
    with pytest.raises(PaymentRefused):
        stripe.pay(paid_alice.open_checkout(), "4000002500003155", authenticates=False)
    assert {each["status"] for each in stripe.app.store.all("subscription")} == {"canceled", "incomplete"}
    jobs.compare_all()
    assert (last().looked, last().differences) == (1, 0)


def test_one_that_can_not_be_read_hides_no_other_and_is_told(
    paid_alice: Customer, bob: Customer, stripe: RunningLocalStripe
) -> None:
    bob.come_back(bob.pay())
    broken = stripe.app.store.objects["subscription"][bob.see().subscription_id]
    broken["items"] = {**broken["items"], "data": []}
    Bot.objects.filter(pk=paid_alice.bot.pk).update(paid_status="past_due")
    jobs.compare_all()
    assert last().finished and (last().looked, last().differences) == (2, 2)
    assert f"{broken['id']} could not be read" in last().words and "lists no" not in last().words
    assert paid_alice.see().paid_status == "active"


def test_of_two_comparisons_at_once_one_is_made(paid_alice: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    real = gateway.live_subscriptions

    def live_subscriptions() -> Any:
        for page in real():
            jobs.compare_all()
            jobs.read_events()
            yield page

    monkeypatch.setattr(gateway, "live_subscriptions", live_subscriptions)
    jobs.read_events()
    assert sorted(each.kind for each in Sweep.objects.all()) == [Sweep.Kind.ALL, Sweep.Kind.EVENTS]
    jobs.compare_all()
    assert Sweep.objects.filter(kind=Sweep.Kind.ALL).count() == 2


def test_events_are_followed_only_once_all_was_compared(paid_alice: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another comparison is on its way, and may break off."""
    with sweeps.alone(Sweep.Kind.ALL):
        jobs.read_events()
    assert not Sweep.objects.exists()
    jobs.read_events()
    assert Sweep.objects.filter(kind=Sweep.Kind.EVENTS, cursor__gt="").exists()


def test_a_row_that_was_read_later_is_no_difference(paid_alice: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was paid again while the pages were read."""
    real = gateway.live_subscriptions

    def live_subscriptions() -> Any:
        for page in real():
            Bot.objects.update(price_id="price_new", paid_seen_at=timezone.now())
            yield page

    monkeypatch.setattr(gateway, "live_subscriptions", live_subscriptions)
    jobs.compare_all()
    assert last().differences == 0


def test_a_subscription_that_ends_while_the_pages_are_read_breaks_nothing_off(
    paid_alice: Customer, stripe: RunningLocalStripe, make: Maker
) -> None:
    copies(stripe, make, paid_alice, 120)
    pages = (page for page, _ in gateway.live_subscriptions())
    first = next(pages)
    stripe.app.store.objects["subscription"][first[-1].subscription_id]["status"] = "canceled"
    assert sum(len(page) for page in pages) == 21


def queries_of(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many queries each page of the comparison took."""
    counts: list[int] = []
    real = sweeps._compare

    def compare(*args: Any) -> None:
        with CaptureQueriesContext(connection) as queries:
            real(*args)
        counts.append(len(queries))

    monkeypatch.setattr(sweeps, "_compare", compare)
    return counts


def test_hundreds_of_subscriptions_take_one_query_a_page(
    paid_alice: Customer, stripe: RunningLocalStripe, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = queries_of(monkeypatch)
    copies(stripe, make, paid_alice, 249)
    jobs.compare_all()
    assert (last().looked, last().differences) == (250, 0)
    assert counts == [1, 1, 1]


@pytest.mark.parametrize("different", [1, 60])
def test_however_many_differ_a_page_takes_two(
    paid_alice: Customer,
    stripe: RunningLocalStripe,
    make: Maker,
    monkeypatch: pytest.MonkeyPatch,
    different: int,
) -> None:
    counts = queries_of(monkeypatch)
    bots = copies(stripe, make, paid_alice, 80)[:different]
    Bot.objects.filter(pk__in=[each.pk for each in bots]).update(paid_status="past_due", rung=Rung.GRACE)
    jobs.compare_all()
    assert last().differences == different and counts == [2]
    assert not Bot.objects.filter(paid_status="past_due").exists()
    jobs.compare_all()
    assert last().differences == 0


def test_more_than_a_run_can_look_at_is_healed_by_the_next_ones(
    paid_alice: Customer, stripe: RunningLocalStripe, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "LOOKS_A_RUN", 3)
    monkeypatch.setattr(sweeps, "WORDS_KEPT", 4)
    copies(stripe, make, paid_alice, 9)
    Bot.objects.update(paid_status="past_due")
    jobs.compare_all()
    assert last().differences == 10 and len(last().words.splitlines()) == 4
    assert Bot.objects.filter(paid_status="active").count() == 3
    for _ in range(3):
        jobs.look_at_due()
    assert Bot.objects.filter(paid_status="active").count() == 10


def test_with_stripe_away_in_the_middle_what_was_found_is_healed_and_all_is_compared_again_soon(
    paid_alice: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = gateway.live_subscriptions

    def live_subscriptions() -> Any:
        yield from real()
        raise gateway.Unreachable(gateway.UNREACHABLE)

    Bot.objects.update(paid_status="past_due")
    with monkeypatch.context() as away:
        away.setattr(gateway, "live_subscriptions", live_subscriptions)
        jobs.compare_at_night()
    broken_off = last()
    assert broken_off.finished is None and "out of reach after 1 subscriptions" in broken_off.words
    jobs.look_at_due()
    assert paid_alice.see().paid_status == "active"
    jobs.compare_at_night()
    assert last() != broken_off and last().finished


def test_all_is_compared_once_a_night(stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    for hour, minute in ((2, 50), (2, 59), (3, 0), (3, 10), (23, 50), (26, 59), (27, 0)):
        now = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(hours=hour, minutes=minute)
        monkeypatch.setattr(timezone, "now", lambda now=now: now)
        jobs.compare_at_night()
        runs.append(Sweep.objects.count())
    assert runs == [1, 1, 2, 2, 2, 2, 3]


def test_what_was_found_long_ago_is_cleared_but_not_how_far_events_were_read(stripe: RunningLocalStripe) -> None:
    long_ago = timezone.now() - timedelta(days=91)
    for finished in (long_ago, None):
        Sweep.objects.create(kind=Sweep.Kind.ALL, started=long_ago, finished=finished)
    cursor = Sweep.objects.create(kind=Sweep.Kind.EVENTS, started=long_ago, finished=timezone.now())
    jobs.compare_all()
    assert set(Sweep.objects.all()) == {cursor, last()}


def test_a_look_found_by_a_comparison_asks_stripe_first(paid_alice: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is wrong is not judged by itself: until Stripe answers, nobody is stopped."""
    Bot.objects.update(paid_status="past_due", unpaid_since=timezone.now() - timedelta(days=30))

    def away(bot_id: object) -> bool:
        raise gateway.Unreachable(gateway.UNREACHABLE)

    with monkeypatch.context() as patch:
        patch.setattr(paid, "look", away)
        jobs.compare_all()
        jobs.look_at_due()
    assert paid_alice.see().paid
    jobs.look_at_due()
    assert (paid_alice.see().paid_status, paid_alice.bot.rung) == ("active", Rung.PAID)
