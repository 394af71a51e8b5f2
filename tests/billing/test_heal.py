"""Lost webhooks and lost jobs: Stripe is looked at all the same. Here no webhook is ever sent."""

from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from billing import gateway, jobs, paid
from mailer.models import Message
from pubs.models import Bot
from tests.billing.conftest import Customer, forget_checkouts
from tests.support.local_stripe import DAY, RunningLocalStripe
from tests.support.make import Maker


def test_the_return_page_sees_the_payment(alice: Customer) -> None:
    alice.come_back(alice.pay())
    assert alice.see().paid


def test_the_sweep_sees_the_payment_of_one_who_never_came_back(alice: Customer) -> None:
    alice.pay()
    jobs.sweep()
    assert alice.see().paid


def test_the_sweep_sees_the_end_of_a_subscription(alice: Customer, stripe: RunningLocalStripe) -> None:
    alice.come_back(alice.pay())
    gateway.cancel(alice.see().subscription_id)
    jobs.sweep()
    assert alice.see().paid, "what was seen a moment ago is left alone"
    Bot.objects.update(paid_seen_at=timezone.now() - timedelta(minutes=61))
    jobs.sweep()
    assert not alice.see().paid


def test_the_sweep_sees_that_an_unpaid_pub_was_paid(alice: Customer, stripe: RunningLocalStripe) -> None:
    alice.come_back(alice.pay())
    stripe.change_card(portal := alice.open_portal(), "4000000000000341")
    stripe.advance(32 * DAY)
    paid.look(alice.bot.pk)
    assert alice.see().paid_status == "past_due"
    assert Message.objects.filter(key__startswith="payment_failed:past_due:in_").count() == 1, "no webhook told"
    stripe.change_card(portal)
    Bot.objects.update(paid_seen_at=timezone.now() - timedelta(minutes=61))
    jobs.sweep()
    assert alice.see().paid_status == "active"


def test_the_sweep_ends_one_of_two_subscriptions(alice: Customer, stripe: RunningLocalStripe) -> None:
    alice.pay()
    forget_checkouts(stripe)
    stripe.advance(2)  # Stripe tells ages in whole seconds
    stripe.pay(gateway.open_checkout(alice.bot))
    jobs.sweep()
    oldest, newest = stripe.app.store.all("subscription")
    assert (oldest["status"], newest["status"]) == ("active", "canceled")
    assert alice.see().subscription_id == oldest["id"]


def test_a_subscription_that_stripe_does_not_know_stops_nobody(
    alice: Customer, stripe: RunningLocalStripe, caplog: pytest.LogCaptureFixture
) -> None:
    alice.come_back(alice.pay())
    stripe.app.store.objects["subscription"].clear()
    Bot.objects.update(paid_seen_at=timezone.now() - timedelta(days=1))
    jobs.sweep()
    assert alice.see().paid
    assert "knows no subscription" in caplog.text
    assert alice.bot.paid_seen_at and alice.bot.paid_seen_at > timezone.now() - timedelta(minutes=1)


def test_one_unreadable_subscription_hides_no_other(alice: Customer, bob: Customer, stripe: RunningLocalStripe) -> None:
    alice.come_back(alice.pay())
    bob.come_back(bob.pay())
    stripe.app.store.objects["subscription"][alice.see().subscription_id]["status"] = "a word of tomorrow"
    gateway.cancel(bob.see().subscription_id)
    Bot.objects.update(paid_seen_at=timezone.now() - timedelta(days=1))
    jobs.sweep()
    assert alice.see().paid
    assert not bob.see().paid


def test_a_job_for_a_pub_that_is_gone_is_no_error(db: None) -> None:
    jobs.look_again("00000000-0000-0000-0000-000000000000")


@pytest.mark.parametrize("bots", [1, 30])
def test_a_sweep_with_nothing_to_do_asks_the_database_once(
    make: Maker, stripe: RunningLocalStripe, django_assert_num_queries: DjangoAssertNumQueries, bots: int
) -> None:
    for number in range(bots):
        make.bot(paid=True, paid_status="active", subscription_id=f"sub_{number}", paid_seen_at=timezone.now())
    with django_assert_num_queries(1):
        jobs.sweep()
