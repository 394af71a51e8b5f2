"""Webhooks as they come in over HTTP: only signed ones count, and each says no more than "look again"."""

import hashlib
import hmac
import json
import time
from typing import Any

import pytest
import requests
import stripe as sdk
from django.conf import settings
from django.db import connection
from djstripe.models import Customer as Mirrored
from djstripe.models import Event, WebhookEndpoint, WebhookEventTrigger

from billing import gateway, paid
from billing.ladder import Rung
from pubs.models import Bot
from tests.billing.conftest import Customer
from tests.support.local_stripe import RunningLocalStripe, wait_until
from tests.support.site import RunningSite


def send(event: dict[str, Any], signed_with: str | None = None) -> int:
    """Delivers an event as Stripe does; the status of the answer."""
    endpoint = WebhookEndpoint.objects.get()
    body, now = json.dumps(event), int(time.time())
    secret = endpoint.secret if signed_with is None else signed_with
    signature = hmac.new(secret.encode(), f"{now}.{body}".encode(), hashlib.sha256).hexdigest()
    headers = {"Stripe-Signature": f"t={now},v1={signature}", "Content-Type": "application/json"}
    return requests.post(endpoint.url, body.encode(), headers=headers, timeout=20).status_code


def event_about(stripe: RunningLocalStripe, kind: str, subject: dict[str, Any], event_id: str) -> dict[str, Any]:
    return {
        "id": event_id,
        "object": "event",
        "type": kind,
        "api_version": "2026-05-27.dahlia",
        "created": int(time.time()),
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "data": {"object": subject},
    }


@pytest.fixture
def paid_alice(
    site: RunningSite, alice: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> Customer:
    # A job that still looks when the test begins would be seen in the columns: here only events count.
    monkeypatch.setattr("pubs.live.look_at_payment", lambda bot_id: None)
    alice.pay()
    stripe.settle()
    assert alice.see().paid
    return alice


def test_a_forged_event_is_answered_400_and_changes_nothing(paid_alice: Customer, stripe: RunningLocalStripe) -> None:
    subject = {**stripe.app.store.all("subscription")[0], "status": "canceled"}
    event = event_about(stripe, "customer.subscription.deleted", subject, "evt_forged")
    assert send(event, signed_with="whsec_guessed") == 400
    assert not Event.objects.filter(id="evt_forged").exists()
    assert paid_alice.see().paid


def test_an_unsigned_event_is_answered_400(paid_alice: Customer) -> None:
    assert requests.post(WebhookEndpoint.objects.get().url, b"{}", timeout=20).status_code == 400


def test_an_unknown_event_is_answered_200(paid_alice: Customer, stripe: RunningLocalStripe) -> None:
    assert (
        send(event_about(stripe, "climate.order.delivered", {"id": "x_1", "object": "climate.order"}, "evt_x")) == 200
    )


def test_an_event_that_comes_late_says_what_is_true_now(paid_alice: Customer, stripe: RunningLocalStripe) -> None:
    """Its body is of the past; what counts is what Stripe answers when asked."""
    stale = {**stripe.app.store.public(stripe.app.store.all("subscription")[0]), "status": "canceled"}
    assert send(event_about(stripe, "customer.subscription.updated", stale, "evt_late")) == 200
    assert paid_alice.see().paid_status == "active"
    # Of the moment at which Stripe was asked for it.
    assert (
        paid_alice.bot.paid_seen_at and paid_alice.bot.paid_seen_at >= Event.objects.get(id="evt_late").djstripe_created
    )


def test_the_same_event_again_changes_nothing(paid_alice: Customer, stripe: RunningLocalStripe) -> None:
    subject = stripe.app.store.public(stripe.app.store.all("subscription")[0])
    event = event_about(stripe, "customer.subscription.updated", subject, "evt_again")
    assert send(event) == 200
    seen_at = paid_alice.see().paid_seen_at
    assert send(event) == 200
    assert Event.objects.filter(id="evt_again").count() == 1
    assert paid_alice.see().paid_seen_at == seen_at


def test_trouble_of_ours_is_answered_500_so_that_stripe_sends_it_again(
    paid_alice: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(reading: object) -> None:
        raise RuntimeError("out of order")

    subject = stripe.app.store.public(stripe.app.store.all("subscription")[0])
    event = event_about(stripe, "customer.subscription.updated", subject, "evt_trouble")
    with monkeypatch.context() as patch:
        patch.setattr(paid, "record", broken)
        assert send(event) == 500
    assert not Event.objects.filter(id="evt_trouble").exists()
    assert WebhookEventTrigger.objects.filter(exception="out of order").exists()
    assert send(event) == 200
    assert Event.objects.filter(id="evt_trouble").exists()


def test_with_stripe_away_it_is_asked_to_send_the_event_again(
    paid_alice: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(subscription_id: str) -> None:
        raise gateway.Unreachable(gateway.UNREACHABLE)

    subject = stripe.app.store.public(stripe.app.store.all("subscription")[0])
    event = event_about(stripe, "customer.subscription.updated", subject, "evt_away")
    with monkeypatch.context() as patch:
        patch.setattr(gateway, "read_subscription", away)
        assert send(event) == 500
    assert send(event) == 200


@pytest.mark.parametrize(
    ("kind", "job"),
    [
        ("checkout.session.completed", "billing.look_again"),
        ("invoice.paid", "billing.look_again"),
        ("invoice.payment_failed", "billing.look_again"),
        ("invoice.voided", "billing.look_again"),
        ("refund.created", "billing.hear_of_money"),
    ],
)
def test_what_takes_long_is_left_to_a_job_after_the_commit(
    paid_alice: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch, kind: str, job: str
) -> None:
    asked: list[tuple[str, bool]] = []

    def send_task(name: str, args: object) -> None:
        asked.append((name, connection.in_atomic_block))

    monkeypatch.undo()
    monkeypatch.setattr("celery.current_app.send_task", send_task)
    sdk.Refund.create(payment_intent=stripe.app.store.all("payment_intent")[0]["id"], amount=100)
    about = {"checkout": "checkout.session", "invoice": "invoice", "refund": "refund"}[kind.split(".")[0]]
    subject = stripe.app.store.public(stripe.app.store.all(about)[0])
    stripe.settle()
    asked.clear()
    assert send(event_about(stripe, kind, subject, "evt_long")) == 200
    assert asked == [(job, False)]


def test_a_customer_deleted_at_stripe_is_let_go_and_their_pubs_end(
    site: RunningSite, alice: Customer, stripe: RunningLocalStripe
) -> None:
    alice.pay()
    stripe.settle()
    wait_until(lambda: alice.see().paid, "the payment to be seen")
    gone = gateway.customer_for(alice.bot.owner)
    stripe.client.v1.customers.delete(gone.id)
    stripe.settle()
    wait_until(lambda: alice.see().rung == Rung.KEPT, "the pub to be kept")
    assert not Mirrored.objects.filter(subscriber=alice.bot.owner).exists()
    assert not WebhookEventTrigger.objects.filter(processed=False).exists()
    alice.pay()
    assert gateway.customer_for(alice.bot.owner).id != gone.id


def test_when_a_customer_is_deleted_at_stripe_all_pubs_of_their_user_are_looked_at(
    paid_alice: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[object] = []
    monkeypatch.setattr("pubs.live.look_at_payment", looked.append)
    other = Bot.objects.create_named(paid_alice.bot.owner, "Other")
    subject = stripe.app.store.public(stripe.app.store.all("customer")[0])
    assert send(event_about(stripe, "customer.deleted", subject, "evt_gone")) == 200
    assert set(looked) == {paid_alice.bot.pk, other.pk}


def test_a_customer_of_another_deployment_is_nobody_of_ours(
    paid_alice: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shares our account, and counts its users as we do."""
    looked: list[object] = []
    owner = paid_alice.bot.owner
    ours = gateway.customer_for(owner).id
    assert stripe.app.store.get("customer", ours)["metadata"] == {
        settings.DJSTRIPE_SUBSCRIBER_CUSTOMER_KEY: str(owner.pk)
    }
    theirs = sdk.Customer.create(
        email="stranger@example.com",
        metadata={key: str(owner.pk) for key in ("staging_user", "djstripe_subscriber")},
    )
    stripe.settle()
    assert [each.id for each in Mirrored.objects.filter(subscriber=owner)] == [ours]
    assert Mirrored.objects.filter(id=theirs.id, subscriber=None).exists()
    monkeypatch.setattr("pubs.live.look_at_payment", looked.append)
    sdk.Customer.delete(theirs.id)
    stripe.settle()
    assert looked == []


def test_a_subscription_for_none_of_our_pubs_is_ignored(paid_alice: Customer, stripe: RunningLocalStripe) -> None:
    customer = gateway.customer_for(paid_alice.bot.owner)
    price = stripe.app.store.all("price")[0]["id"]
    for metadata in ({}, {"bot": "no id"}, {"bot": "00000000-0000-0000-0000-000000000000"}):
        sdk.Subscription.create(customer=customer.id, items=[{"price": price}], metadata=metadata)
    stripe.settle()
    assert not WebhookEventTrigger.objects.filter(processed=False).exists()
    assert {each["status"] for each in stripe.app.store.all("subscription")} == {"active"}
