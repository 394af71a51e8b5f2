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
def test_each_failed_try_is_mailed_once_and_the_last_one_stops_the_pub(
    alice: Customer, stripe: RunningLocalStripe
) -> None:
    alice.pay()
    stripe.settle()
    stripe.change_card(alice.open_portal(), "4000000000000341")
    for _ in range(5):
        stripe.advance(10 * DAY)
    stripe.settle()
    tries = list(Message.objects.filter(key__startswith="payment_failed:").values_list("key", flat=True))
    assert len(tries) == len(set(tries)) == 4
    bot = alice.see()
    assert not bot.paid and bot.paid_status == "canceled"


def test_a_cancelled_pub_can_be_paid_again(alice: Customer) -> None:
    alice.come_back(alice.pay())
    first = alice.see().subscription_id
    gateway.cancel(first)
    alice.come_back(alice.pay())
    bot = alice.see()
    assert bot.paid and bot.subscription_id != first


def test_the_subscription_of_a_deleted_pub_is_cancelled(alice: Customer, stripe: RunningLocalStripe) -> None:
    alice.come_back(alice.pay())
    Bot.objects.update(deleted_at=timezone.now())
    jobs.sweep()
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
def test_a_payment_for_a_pub_deleted_meanwhile_is_cancelled(alice: Customer, stripe: RunningLocalStripe) -> None:
    page = alice.open_checkout()
    Bot.objects.update(deleted_at=timezone.now())
    stripe.pay(page)
    wait_until(lambda: stripe.app.store.all("subscription")[0]["status"] == "canceled", "the end of the subscription")
    wait_until(lambda: not alice.see().paid, "the pub to be unpaid")


def test_cancelling_what_has_ended_is_no_error(alice: Customer) -> None:
    alice.come_back(alice.pay())
    gateway.cancel(alice.see().subscription_id)
    gateway.cancel(alice.bot.subscription_id)
    gateway.cancel("sub_never_was")


def test_the_portal_refuses_a_bad_card(alice: Customer, stripe: RunningLocalStripe) -> None:
    alice.come_back(alice.pay())
    with pytest.raises(PaymentRefused):
        stripe.change_card(alice.open_portal(), "4000000000000002")
