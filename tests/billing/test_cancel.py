"""A customer leaves, or a card stops working: at Stripe's portal, at the end of a period, by deleting the pub."""

import pytest
from django.utils import timezone

from billing import gateway, jobs
from billing.ladder import Rung
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
    assert (bot.rung, bot.runs_until) == (Rung.ENDING, bot.paid_until)

    stripe.resume(portal, bot.subscription_id)
    stripe.settle()
    assert not alice.see().paid_ends

    stripe.cancel(portal, bot.subscription_id)
    stripe.advance(32 * DAY)
    stripe.settle()
    bot = alice.see()
    assert not bot.paid and bot.paid_status == "canceled"
    mail = Message.objects.get(key__startswith="ended:")
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


def test_a_cancelled_pub_can_be_paid_again(alice: Customer) -> None:
    alice.come_back(alice.pay())
    first = alice.see().subscription_id
    gateway.cancel(first)
    alice.come_back(alice.pay())
    bot = alice.see()
    assert bot.paid and bot.subscription_id != first


@pytest.mark.usefixtures("one_clock")
def test_the_subscription_of_a_deleted_pub_is_cancelled_and_what_it_charged_before_is_kept(
    alice: Customer, stripe: RunningLocalStripe
) -> None:
    alice.come_back(alice.pay())
    stripe.advance(60)
    Bot.objects.update(deleted_at=timezone.now())
    jobs.look_at_due()
    bot = alice.see()
    assert stripe.app.store.get("subscription", bot.subscription_id)["status"] == "canceled"
    assert not bot.paid
    assert stripe.app.store.all("refund") == []
    assert not Message.objects.filter(key__startswith="ended").exists()


def test_with_stripe_away_a_deleted_pubs_subscription_is_cancelled_by_a_later_run(
    alice: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.come_back(alice.pay())
    Bot.objects.update(deleted_at=timezone.now())
    with monkeypatch.context() as away:
        away.setattr("stripe.api_base", "http://127.0.0.1:1")
        away.setattr("stripe.max_network_retries", 0)
        jobs.look_at_due()
    assert alice.see().paid
    jobs.look_at_due()
    assert not alice.see().paid


@pytest.mark.usefixtures("site")
def test_deleting_a_pub_closes_its_payment_page_at_once(alice: Customer, stripe: RunningLocalStripe) -> None:
    page = alice.open_checkout()
    alice.bot.delete_softly()
    wait_until(lambda: stripe.app.store.all("checkout.session")[0]["status"] == "expired", "the page to be closed")
    with pytest.raises(PaymentRefused):
        stripe.pay(page)
    assert stripe.app.store.all("subscription") == []


def test_with_its_job_lost_the_clock_closes_the_payment_page_of_a_deleted_pub_and_no_other(
    alice: Customer, stripe: RunningLocalStripe
) -> None:
    page = alice.open_checkout()
    other = Bot.objects.create_named(alice.bot.owner, "Other")
    others_page = gateway.open_checkout(other, "pub-monthly-1gb")
    Bot.objects.filter(pk=alice.bot.pk).update(deleted_at=timezone.now())
    jobs.look_at_due()
    with pytest.raises(PaymentRefused):
        stripe.pay(page)
    stripe.pay(others_page)
    jobs.read_events()
    other.refresh_from_db()
    assert other.paid


def test_closing_a_page_that_was_paid_since_it_was_listed_is_no_error(
    alice: Customer, stripe: RunningLocalStripe
) -> None:
    page = alice.open_checkout()
    stripe.pay(page)
    gateway.checkout._expire(page.rsplit("/", 1)[1])
    assert stripe.app.store.all("checkout.session")[0]["status"] == "complete"


def test_cancelling_what_has_ended_is_no_error(alice: Customer) -> None:
    alice.come_back(alice.pay())
    gateway.cancel(alice.see().subscription_id)
    gateway.cancel(alice.bot.subscription_id)
    gateway.cancel("sub_never_was")


def test_the_portal_refuses_a_bad_card(alice: Customer, stripe: RunningLocalStripe) -> None:
    alice.come_back(alice.pay())
    with pytest.raises(PaymentRefused):
        stripe.change_card(alice.open_portal(), "4000000000000002")
