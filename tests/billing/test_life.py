"""Whole lives of a payment, from the first day to the last: the local Stripe, its signed webhooks, the real jobs, and
one clock for all of them.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db.models import F
from django.utils.formats import date_format

from billing import gateway, paid
from billing.ladder import Rung
from mailer.models import Message
from tests.billing.conftest import Calendar, Customer
from tests.support.local_stripe import PaymentRefused, RunningLocalStripe

FAILS = "4000000000000341"


def steps() -> list[str]:
    """What the owner was told of, in its order."""
    keys = Message.objects.exclude(key__startswith="welcome").order_by("pk").values_list("key", flat=True)
    return [key.split(":")[0] for key in keys]


def mail(step: str) -> Message:
    return Message.objects.get(key__startswith=f"{step}:")


def day(moment: datetime | None) -> str:
    return date_format(moment, "j F Y")


def rungs(customer: Customer) -> list[str]:
    """The rungs that its bot came to, in their order."""
    return list(customer.bot.payment_changes.exclude(old=F("new")).order_by("pk").values_list("new", flat=True))


def renewals(customer: Customer) -> list[str]:
    """What its history says was paid."""
    changes = customer.bot.payment_changes.filter(key__startswith="in_").order_by("pk")
    return list(changes.values_list("words", flat=True))


def invoices(stripe: RunningLocalStripe) -> list[tuple[str, int]]:
    return [(each["status"], each["amount_due"]) for each in stripe.app.store.all("invoice")]


def price_of(offer: str) -> str:
    return next(each.price_id for each in gateway.offers() if each.lookup_key == offer)


def subscribe(customer: Customer, **more: Any) -> str:
    """A subscription made by hand in Stripe's dashboard; its id."""
    values: Any = {
        "customer": gateway.customer_for(customer.bot.owner).id,
        "items": [{"price": price_of("pub-monthly-1gb")}],
        "metadata": {"bot": str(customer.bot.pk)},
        **more,
    }
    return customer.stripe.client.v1.subscriptions.create(values).id


@pytest.fixture
def paid_alice(calendar: Calendar, alice: Customer) -> Customer:
    alice.come_back(alice.pay())
    calendar.hours(1)
    assert alice.see().rung == Rung.PAID and alice.bot.paid
    return alice


@pytest.fixture
def failed_alice(calendar: Calendar, paid_alice: Customer, stripe: RunningLocalStripe) -> Customer:
    """Her card fails at the first renewal."""
    stripe.change_card(paid_alice.open_portal(), FAILS)
    while not paid_alice.see().unpaid_since:
        calendar.hours(6)
    return paid_alice


def test_a_paid_pub_is_renewed_each_month_and_nobody_hears_of_it(
    calendar: Calendar, paid_alice: Customer, stripe: RunningLocalStripe
) -> None:
    first_end = paid_alice.see().paid_until
    assert first_end
    calendar.days(95)
    bot = paid_alice.see()
    assert invoices(stripe) == [("paid", 900)] * 4
    assert bot.paid and bot.paid_until and bot.paid_until - first_end > timedelta(days=85)
    assert rungs(paid_alice) == [Rung.PAID] and steps() == []
    assert renewals(paid_alice) == ["€9 was paid."] * 3


def test_a_yearly_pub_is_charged_once_a_year(calendar: Calendar, alice: Customer, stripe: RunningLocalStripe) -> None:
    alice.come_back(alice.pay(offer="pub-yearly-2gb"))
    bot = alice.see()
    assert bot.paid and bot.memory_gb == 2
    for _ in range(25):
        calendar.hours(15 * 24)
    assert invoices(stripe) == [("paid", 17000)] * 2
    assert alice.see().paid and rungs(alice) == [Rung.PAID] and steps() == []


def test_a_failed_card_that_is_put_right_in_time_stops_nothing(
    calendar: Calendar, failed_alice: Customer, stripe: RunningLocalStripe
) -> None:
    bot = failed_alice.see()
    assert (bot.rung, bot.paid) == (Rung.GRACE, True)
    assert bot.unpaid_since and bot.runs_until == bot.unpaid_since + timedelta(days=14)
    assert day(bot.runs_until) in mail("payment_failed").text
    assert bot.get_absolute_url() in mail("payment_failed").text
    calendar.days(5)
    stripe.change_card(failed_alice.open_portal())
    calendar.hours(1)
    bot = failed_alice.see()
    assert (bot.rung, bot.paid, bot.runs_until, bot.unpaid_since) == (Rung.PAID, True, None, None)
    calendar.days(40)
    assert failed_alice.see().paid and steps() == ["payment_failed"]


def test_a_pub_that_stays_unpaid_runs_fourteen_days_and_is_kept_sixty_more(
    calendar: Calendar, failed_alice: Customer, stripe: RunningLocalStripe
) -> None:
    since = failed_alice.see().unpaid_since
    assert since
    stops, goes = since + timedelta(days=14), since + timedelta(days=74)
    calendar.days(12)
    assert failed_alice.see().paid and failed_alice.bot.runs_until == stops
    assert steps() == ["payment_failed", "stops_soon"] and day(stops) in mail("stops_soon").text
    calendar.days(2)
    bot = failed_alice.see()
    assert not bot.paid and bot.kept_until == goes
    assert steps()[2] in ("suspended", "ended") and day(goes) in mail(steps()[2]).text
    calendar.days(45)
    assert steps()[-1] not in ("goes_soon", "goes_now")
    calendar.days(4)
    assert steps()[-1] == "goes_soon" and day(goes) in mail("goes_soon").text
    calendar.days(8)
    assert steps()[-1] == "goes_now" and day(goes) in mail("goes_now").text
    assert failed_alice.see().rung == Rung.KEPT
    calendar.days(4)
    assert failed_alice.see().rung == Rung.OVER and steps()[-1] == "over"
    # Stripe gave up after its last try, and charges nothing any more.
    assert [each["status"] for each in stripe.app.store.all("subscription")] == ["canceled"]


def test_a_suspended_pub_is_the_same_one_again_once_it_is_paid(
    calendar: Calendar, failed_alice: Customer, stripe: RunningLocalStripe
) -> None:
    calendar.hours(14 * 24 - 5)
    while failed_alice.see().paid:
        calendar.hours(1)
    subscription = failed_alice.see().subscription_id
    assert failed_alice.bot.rung == Rung.SUSPENDED and failed_alice.bot.paid_status == "past_due"
    stripe.change_card(failed_alice.open_portal())
    calendar.hours(0.01)
    bot = failed_alice.see()
    assert bot.paid and (bot.rung, bot.kept_until) == (Rung.PAID, None)
    assert bot.subscription_id == subscription
    assert rungs(failed_alice) == [Rung.PAID, Rung.GRACE, Rung.SUSPENDED, Rung.PAID]


@pytest.mark.parametrize("status", ["unpaid", "past_due"])
def test_where_stripe_never_gives_up_the_same_dates_hold_and_two_warnings_later_it_can_be_paid(
    calendar: Calendar, failed_alice: Customer, stripe: RunningLocalStripe, status: str
) -> None:
    """What follows the last try is a setting of the Stripe account."""
    stripe.after_retries(status)
    since = failed_alice.see().unpaid_since
    assert since
    calendar.days(16)
    bot = failed_alice.see()
    assert (bot.rung, bot.paid, bot.paid_status) == (Rung.SUSPENDED, False, status)
    assert bot.kept_until == since + timedelta(days=74)
    calendar.days(56)
    assert steps() == ["payment_failed", "stops_soon", "suspended", "goes_soon", "goes_now"]
    assert failed_alice.see().kept_until == since + timedelta(days=74)
    stripe.change_card(failed_alice.open_portal())
    calendar.hours(1)
    bot = failed_alice.see()
    assert (bot.rung, bot.paid, bot.paid_status) == (Rung.PAID, True, "active")
    assert len(stripe.app.store.all("subscription")) == 1


def test_after_the_last_word_the_subscription_is_ended_and_a_new_one_can_be_bought(
    calendar: Calendar, failed_alice: Customer, stripe: RunningLocalStripe
) -> None:
    """Nobody is charged for a pub that we no longer promise to keep."""
    stripe.after_retries("past_due")
    calendar.days(76)
    assert failed_alice.see().rung == Rung.OVER
    assert [each["status"] for each in stripe.app.store.all("subscription")] == ["canceled"]
    failed_alice.come_back(failed_alice.pay())
    calendar.hours(1)
    bot = failed_alice.see()
    assert bot.paid and bot.rung == Rung.PAID
    assert [each["status"] for each in stripe.app.store.all("subscription")] == ["canceled", "active"]


def test_a_cancelled_pub_runs_to_the_periods_end_and_is_kept_sixty_days(
    calendar: Calendar, paid_alice: Customer, stripe: RunningLocalStripe
) -> None:
    end = paid_alice.see().paid_until
    assert end
    stripe.cancel(paid_alice.open_portal(), paid_alice.bot.subscription_id)
    calendar.hours(1)
    bot = paid_alice.see()
    assert (bot.rung, bot.paid, bot.runs_until) == (Rung.ENDING, True, end)
    assert steps() == ["cancelled"] and day(end) in mail("cancelled").text
    calendar.days((end - bot.paid_seen_at).days if bot.paid_seen_at else 0)
    assert paid_alice.see().paid
    calendar.days(1)
    bot = paid_alice.see()
    goes = end + timedelta(days=60)
    assert (bot.rung, bot.paid, bot.kept_until) == (Rung.KEPT, False, goes)
    assert day(goes) in mail("ended").text
    calendar.days(61)
    assert paid_alice.see().rung == Rung.OVER
    assert steps() == ["cancelled", "ended", "goes_soon", "goes_now", "over"]
    assert day(goes) in mail("goes_soon").text and day(goes) in mail("goes_now").text
    assert invoices(stripe) == [("paid", 900)]


def test_a_cancelled_pub_that_is_resumed_in_time_goes_on(
    calendar: Calendar, paid_alice: Customer, stripe: RunningLocalStripe
) -> None:
    portal = paid_alice.open_portal()
    stripe.cancel(portal, paid_alice.see().subscription_id)
    calendar.days(20)
    assert paid_alice.see().rung == Rung.ENDING
    stripe.resume(portal, paid_alice.bot.subscription_id)
    calendar.days(30)
    bot = paid_alice.see()
    assert (bot.rung, bot.paid, bot.paid_ends, bot.runs_until) == (Rung.PAID, True, False, None)
    assert steps() == ["cancelled"] and invoices(stripe) == [("paid", 900)] * 2


def test_a_kept_pub_that_is_bought_again_is_the_same_one(
    calendar: Calendar, paid_alice: Customer, stripe: RunningLocalStripe
) -> None:
    gateway.cancel(paid_alice.bot.subscription_id)
    calendar.days(50)
    first = paid_alice.see().subscription_id
    assert paid_alice.bot.rung == Rung.KEPT and steps()[-1] == "goes_soon"
    paid_alice.come_back(paid_alice.pay())
    calendar.days(20)
    bot = paid_alice.see()
    assert (bot.rung, bot.paid, bot.kept_until) == (Rung.PAID, True, None)
    assert bot.subscription_id != first
    assert steps() == ["ended", "goes_soon"]


def test_each_change_of_plan_sets_the_size_and_is_charged_for_the_days_left(
    calendar: Calendar, paid_alice: Customer, stripe: RunningLocalStripe
) -> None:
    portal, subscription = paid_alice.open_portal(), paid_alice.see().subscription_id
    for size in (2, 4, 1):
        stripe.change_plan(portal, subscription, price_of(f"pub-monthly-{size}gb"))
        calendar.hours(1)
        bot = paid_alice.see()
        assert (bot.memory_gb, bot.price_id) == (size, price_of(f"pub-monthly-{size}gb"))
        assert bot.paid and bot.subscription_id == subscription
    first, to_two, to_four, *_ = [amount for _, amount in invoices(stripe)]
    # Nearly a whole month is left: nearly the whole difference.
    assert first == 900 and 790 < to_two <= 800 and 1480 < to_four <= 1500
    balance = stripe.app.store.all("customer")[0]["balance"]
    assert -2300 <= balance < -2270, "what was paid for 4 GB is not lost"
    calendar.days(32)
    assert stripe.app.store.all("customer")[0]["balance"] == balance + 900
    assert paid_alice.see().paid and rungs(paid_alice) == [Rung.PAID] and steps() == []


def test_a_change_to_a_year_is_charged_at_once(
    calendar: Calendar, paid_alice: Customer, stripe: RunningLocalStripe
) -> None:
    stripe.change_plan(paid_alice.open_portal(), paid_alice.see().subscription_id, price_of("pub-yearly-1gb"))
    calendar.hours(1)
    bot = paid_alice.see()
    assert bot.paid_until and bot.paid_seen_at and (bot.paid_until - bot.paid_seen_at).days in (364, 365)
    assert 8100 <= invoices(stripe)[-1][1] <= 8120 and invoices(stripe)[-1][0] == "paid"


def test_a_trial_runs_and_is_then_charged(calendar: Calendar, alice: Customer, stripe: RunningLocalStripe) -> None:
    alice.come_back(alice.pay())
    gateway.cancel(alice.see().subscription_id)
    calendar.hours(1)
    subscribe(alice, trial_period_days=10)
    calendar.hours(1)
    bot = alice.see()
    assert (bot.rung, bot.paid, bot.paid_status) == (Rung.PAID, True, "trialing")
    calendar.days(11)
    assert (alice.see().paid_status, alice.bot.paid) == ("active", True)
    assert invoices(stripe)[-1] == ("paid", 900)


def test_a_trial_that_ends_without_a_card_pauses_the_pub_until_it_is_resumed(
    calendar: Calendar, alice: Customer, stripe: RunningLocalStripe
) -> None:
    paused = {"end_behavior": {"missing_payment_method": "pause"}}
    subscription = subscribe(alice, trial_period_days=10, trial_settings=paused)
    calendar.days(11)
    bot = alice.see()
    assert (bot.paid_status, bot.paid, bot.rung) == ("paused", False, Rung.SUSPENDED)
    stripe.change_card(alice.open_portal())
    stripe.client.v1.subscriptions.resume(subscription, {"billing_cycle_anchor": "now"})
    calendar.hours(1)
    bot = alice.see()
    assert (bot.paid_status, bot.paid, bot.rung) == ("active", True, Rung.PAID)


def test_a_promotion_code_makes_the_first_month_cheaper_and_no_other(
    calendar: Calendar, alice: Customer, stripe: RunningLocalStripe
) -> None:
    coupon = stripe.client.v1.coupons.create({"percent_off": 50, "duration": "once"})
    stripe.client.v1.promotion_codes.create({"promotion": {"type": "coupon", "coupon": coupon.id}, "code": "HALF"})
    alice.come_back(stripe.pay(alice.open_checkout(), code="HALF"))
    calendar.days(32)
    assert invoices(stripe) == [("paid", 450), ("paid", 900)]
    assert alice.see().paid and alice.bot.rung == Rung.PAID


def test_a_comped_pub_runs_without_a_payment_and_its_end_is_told(calendar: Calendar, alice: Customer) -> None:
    until = alice.bot.created.replace(microsecond=0) + timedelta(days=30)
    paid.comp(alice.bot.pk, until, "For the festival", None)
    bot = alice.see()
    assert (bot.rung, bot.paid, bot.runs_until) == (Rung.COMPED, True, until)
    calendar.days(29)
    assert alice.see().paid and steps() == ["comped", "comp_ends"]
    assert day(until) in mail("comped").text and day(until) in mail("comp_ends").text
    calendar.days(2)
    bot = alice.see()
    assert (bot.rung, bot.paid, bot.kept_until) == (Rung.KEPT, False, until + timedelta(days=60))
    assert alice.bot.payment_changes.filter(words="For the festival").exists()


def test_who_pays_during_a_comp_runs_on_after_it(calendar: Calendar, alice: Customer) -> None:
    paid.comp(alice.bot.pk, alice.bot.created + timedelta(days=20), "For the festival", None)
    calendar.days(5)
    alice.come_back(alice.pay())
    calendar.days(30)
    assert (alice.see().rung, alice.bot.paid) == (Rung.PAID, True)
    assert steps() == ["comped"]


def test_a_comp_carries_a_pub_over_a_failed_card(calendar: Calendar, failed_alice: Customer) -> None:
    since = failed_alice.see().unpaid_since
    assert since
    paid.comp(failed_alice.bot.pk, since + timedelta(days=40), "Ill in hospital", None)
    calendar.days(20)
    bot = failed_alice.see()
    assert (bot.rung, bot.paid, bot.paid_status) == (Rung.COMPED, True, "canceled")
    failed_alice.come_back(failed_alice.pay())
    calendar.days(25)
    assert (failed_alice.see().rung, failed_alice.bot.paid) == (Rung.PAID, True)
    assert "suspended" not in steps() and "ended" not in steps()


def test_an_extended_grace_moves_the_end_and_is_told(
    calendar: Calendar, failed_alice: Customer, stripe: RunningLocalStripe
) -> None:
    stripe.after_retries("past_due")
    since = failed_alice.see().unpaid_since
    assert since
    until = since + timedelta(days=24)
    calendar.days(10)
    paid.extend_grace(failed_alice.bot.pk, until, "The bank needs a week", None)
    calendar.days(10)
    bot = failed_alice.see()
    assert (bot.rung, bot.paid, bot.runs_until) == (Rung.GRACE, True, until)
    calendar.days(5)
    assert (failed_alice.see().rung, failed_alice.bot.kept_until) == (Rung.SUSPENDED, until + timedelta(days=60))
    assert any(day(until) in each.text for each in Message.objects.filter(key__startswith="payment_failed"))


def test_a_deleted_pub_is_charged_no_more_and_its_owner_hears_once(
    calendar: Calendar, paid_alice: Customer, stripe: RunningLocalStripe
) -> None:
    paid_alice.bot.delete_softly()
    calendar.hours(1)
    bot = paid_alice.see()
    assert not bot.paid and bot.deleted_at
    assert bot.kept_until == bot.deleted_at + timedelta(days=60)
    assert [each["status"] for each in stripe.app.store.all("subscription")] == ["canceled"]
    calendar.days(65)
    assert paid_alice.see().rung == Rung.OVER
    assert steps() == ["deleted"] and invoices(stripe) == [("paid", 900)]


def test_an_abandoned_payment_page_keeps_the_name_and_is_reminded_of_once(
    calendar: Calendar, alice: Customer, stripe: RunningLocalStripe
) -> None:
    alice.open_checkout()
    calendar.days(10)
    bot = alice.see()
    assert (bot.rung, bot.paid, bot.name) == (Rung.NEW, False, "Pub 1")
    assert steps() == ["pay_reminder"]
    alice.come_back(alice.pay())
    assert alice.see().paid


def test_a_card_that_is_declined_at_checkout_buys_nothing(calendar: Calendar, alice: Customer) -> None:
    page = alice.open_checkout()
    with pytest.raises(PaymentRefused):
        alice.stripe.pay(page, "4000000000000002")
    calendar.hours(1)
    assert (alice.see().rung, alice.bot.paid) == (Rung.NEW, False)
    alice.come_back(alice.stripe.pay(page))
    assert alice.see().paid


def test_a_subscription_that_staff_end_at_stripe_ends_the_pub(
    calendar: Calendar, paid_alice: Customer, stripe: RunningLocalStripe
) -> None:
    stripe.client.v1.subscriptions.cancel(paid_alice.bot.subscription_id)
    calendar.hours(1)
    bot = paid_alice.see()
    assert (bot.rung, bot.paid) == (Rung.KEPT, False) and steps() == ["ended"]


def test_a_customer_deleted_at_stripe_ends_the_pub_and_can_come_back(
    calendar: Calendar, paid_alice: Customer, stripe: RunningLocalStripe
) -> None:
    stripe.client.v1.customers.delete(gateway.customer_for(paid_alice.bot.owner).id)
    calendar.hours(2)
    bot = paid_alice.see()
    assert (bot.rung, bot.paid, bot.paid_status) == (Rung.KEPT, False, "canceled")
    paid_alice.come_back(paid_alice.pay())
    calendar.hours(1)
    assert paid_alice.see().paid and paid_alice.bot.rung == Rung.PAID


@pytest.mark.parametrize("start", ["2028-01-31", "2028-02-29", "2027-03-27", "2027-10-30"])
def test_months_are_calendar_months_whatever_the_day(
    calendar: Calendar, alice: Customer, stripe: RunningLocalStripe, start: str
) -> None:
    """The 31st, a leap day, and the nights in which Europe's clocks change."""
    first = datetime.fromisoformat(start).replace(hour=1, minute=30, tzinfo=UTC)
    stripe.advance(int(first.timestamp()) - stripe.app.store.now())
    alice.come_back(alice.pay())
    ends = [alice.see().paid_until]
    for _ in range(3):
        calendar.hours(31 * 24)
        ends.append(alice.see().paid_until)
    assert alice.bot.paid and steps() == []
    for number, end in enumerate(ends):
        assert end
        assert (end.hour, end.minute) == (1, 30), "UTC has no summer time"
        assert end.day == first.day or (end + timedelta(days=1)).day == 1
        assert (end.year * 12 + end.month) - (first.year * 12 + first.month) == number + 1
    assert len(invoices(stripe)) == 4


def test_nothing_is_due_for_a_pub_that_nobody_ever_paid(calendar: Calendar, alice: Customer) -> None:
    calendar.days(2)
    assert alice.see().due_at is None and steps() == []
