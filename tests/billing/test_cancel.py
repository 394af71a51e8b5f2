"""A customer leaves, or a card stops working: at Stripe's portal, at the end of a period, by deleting the pub."""

import pytest
from django.utils import timezone

from billing import gateway, jobs, paid
from mailer.models import Message
from pubs.models import Bot
from tests.billing.conftest import Customer
from tests.support.local_stripe import DAY, PaymentRefused, RunningLocalStripe, wait_until


@pytest.mark.usefixtures("site")
def test_a_cancelled_pub_runs_to_the_end_of_its_period_and_then_stops(
    alice: Customer, stripe: RunningLocalStripe
) -> None:
    alice.pay()
    stripe.settle()
    portal = alice.open_portal()
    stripe.cancel(portal, alice.see().subscription_id)
    stripe.settle()
    bot = alice.see()
    assert bot.paid and bot.paid_ends
    assert paid.words(bot).startswith("Cancelled: your pub runs until")

    stripe.resume(portal, bot.subscription_id)
    stripe.settle()
    assert not alice.see().paid_ends

    stripe.cancel(portal, bot.subscription_id)
    stripe.advance(32 * DAY)
    stripe.settle()
    bot = alice.see()
    assert not bot.paid and bot.paid_status == "canceled"
    mail = Message.objects.get(key=f"subscription_ended:{bot.subscription_id}")
    assert mail.to == bot.owner.email


@pytest.mark.usefixtures("site")
def test_a_pub_runs_on_while_a_failed_payment_is_tried_again(alice: Customer, stripe: RunningLocalStripe) -> None:
    alice.pay()
    stripe.settle()
    portal = alice.open_portal()
    stripe.change_card(portal, "4000000000000341")
    stripe.advance(32 * DAY)
    stripe.settle()
    bot = alice.see()
    assert bot.paid and bot.paid_status == "past_due"
    assert Message.objects.filter(key__startswith="payment_failed:").count() == 1

    stripe.change_card(portal)
    stripe.settle()
    assert alice.see().paid_status == "active"


@pytest.mark.usefixtures("site")
def test_a_payment_that_goes_on_failing_is_mailed_once_and_its_last_try_stops_the_pub(
    alice: Customer, stripe: RunningLocalStripe
) -> None:
    alice.pay()
    stripe.settle()
    stripe.change_card(alice.open_portal(), "4000000000000341")
    for _ in range(25):
        stripe.advance(2 * DAY)
        stripe.settle()
        jobs.look_again(str(alice.bot.pk))
    bot = alice.see()
    assert not bot.paid and bot.paid_status == "canceled"
    [failed, ended] = Message.objects.exclude(key__startswith="welcome").order_by("pk")
    assert failed.key.startswith("payment_failed:past_due:in_")
    assert ended.key == f"subscription_ended:{bot.subscription_id}"


def test_a_cancelled_pub_can_be_paid_again(alice: Customer) -> None:
    alice.come_back(alice.pay())
    first = alice.see().subscription_id
    gateway.cancel(first)
    alice.come_back(alice.pay())
    bot = alice.see()
    assert bot.paid and bot.subscription_id != first


def test_the_subscription_of_a_deleted_pub_is_cancelled(
    alice: Customer, stripe: RunningLocalStripe, caplog: pytest.LogCaptureFixture
) -> None:
    alice.come_back(alice.pay())
    stripe.app.store.all("subscription")[0]["created"] -= 60
    Bot.objects.update(deleted_at=timezone.now())
    jobs.sweep()
    assert "after it was deleted" not in caplog.text
    bot = alice.see()
    assert stripe.app.store.get("subscription", bot.subscription_id)["status"] == "canceled"
    assert not bot.paid
    assert not Message.objects.filter(key__startswith="subscription_ended").exists()


def test_with_stripe_away_a_deleted_pubs_subscription_is_cancelled_by_a_later_sweep(
    alice: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.come_back(alice.pay())
    Bot.objects.update(deleted_at=timezone.now())
    with monkeypatch.context() as away:
        away.setattr("stripe.api_base", "http://127.0.0.1:1")
        away.setattr("stripe.max_network_retries", 0)
        jobs.sweep()
    assert alice.see().paid
    jobs.sweep()
    assert not alice.see().paid


@pytest.mark.usefixtures("site")
def test_deleting_a_pub_closes_its_payment_page_at_once(alice: Customer, stripe: RunningLocalStripe) -> None:
    page = alice.open_checkout()
    alice.bot.delete_softly()
    wait_until(lambda: stripe.app.store.all("checkout.session")[0]["status"] == "expired", "the page to be closed")
    with pytest.raises(PaymentRefused):
        stripe.pay(page)
    assert stripe.app.store.all("subscription") == []


def test_the_sweep_closes_the_payment_page_of_a_deleted_pub_and_no_other(
    alice: Customer, stripe: RunningLocalStripe
) -> None:
    page = alice.open_checkout()
    other = Bot.objects.create_named(alice.bot.owner, "Other")
    others_page = gateway.open_checkout(other)
    Bot.objects.filter(pk=alice.bot.pk).update(deleted_at=timezone.now())
    jobs.sweep()
    with pytest.raises(PaymentRefused):
        stripe.pay(page)
    stripe.pay(others_page)
    jobs.sweep()
    other.refresh_from_db()
    assert other.paid


def test_closing_a_page_that_was_paid_since_it_was_listed_is_no_error(
    alice: Customer, stripe: RunningLocalStripe
) -> None:
    page = alice.open_checkout()
    stripe.pay(page)
    gateway.checkout._expire(page.rsplit("/", 1)[1])
    assert stripe.app.store.all("checkout.session")[0]["status"] == "complete"


@pytest.mark.usefixtures("site")
def test_a_payment_for_a_pub_deleted_meanwhile_is_cancelled_and_staff_are_told(
    alice: Customer, stripe: RunningLocalStripe, caplog: pytest.LogCaptureFixture
) -> None:
    page = alice.open_checkout()
    Bot.objects.update(deleted_at=timezone.now())
    stripe.pay(page)
    wait_until(lambda: stripe.app.store.all("subscription")[0]["status"] == "canceled", "the end of the subscription")
    wait_until(lambda: not alice.see().paid, "the pub to be unpaid")
    [told] = [each for each in caplog.records if "paid after it was deleted" in each.message]
    assert told.levelname == "ERROR"
    assert str(alice.bot.pk) in told.message and stripe.app.store.all("subscription")[0]["id"] in told.message


def test_cancelling_what_has_ended_is_no_error(alice: Customer) -> None:
    alice.come_back(alice.pay())
    gateway.cancel(alice.see().subscription_id)
    gateway.cancel(alice.bot.subscription_id)
    gateway.cancel("sub_never_was")


def test_the_portal_refuses_a_bad_card(alice: Customer, stripe: RunningLocalStripe) -> None:
    alice.come_back(alice.pay())
    with pytest.raises(PaymentRefused):
        stripe.change_card(alice.open_portal(), "4000000000000002")
