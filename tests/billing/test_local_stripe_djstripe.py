"""dj-stripe takes in every event of the local Stripe, and its mirror shows what happened."""

import json
import time
from uuid import uuid4

import pytest
import stripe
from django.test import Client
from django.urls import reverse
from djstripe import models
from djstripe.settings import djstripe_settings

from billing.local_stripe.webhooks import signature
from tests.support.local_stripe import DAY, RunningLocalStripe

pytestmark = pytest.mark.django_db


def register(local: RunningLocalStripe) -> models.WebhookEndpoint:
    """An endpoint as dj-stripe makes its own, that is sent nothing: the test carries the mail."""
    made = models.WebhookEndpoint._api_create(
        url="http://127.0.0.1:9/",
        enabled_events=["account.updated"],
        api_version=djstripe_settings.STRIPE_API_VERSION,
        metadata={"djstripe_uuid": str(uuid4())},
    )
    return models.WebhookEndpoint.sync_from_stripe_data(made)


def deliver(local: RunningLocalStripe, endpoint: models.WebhookEndpoint, client: Client) -> int:
    """Hands every event to dj-stripe's view, oldest first; how many there were."""
    address = reverse("djstripe:djstripe_webhook_by_uuid", kwargs={"uuid": endpoint.djstripe_uuid})
    events = [local.app.store.public(each) for each in local.app.store.all("event")]
    for event in events:
        body = json.dumps(event).encode()
        header = signature(endpoint.secret, body, int(time.time()))
        answer = client.post(address, body, "application/json", headers={"stripe-signature": header})
        assert answer.status_code == 200, event["type"]
    return len(events)


def test_dj_stripe_mirrors_a_whole_life(
    local_stripe: RunningLocalStripe, client: Client, settings: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stripe, "api_base", local_stripe.url)
    endpoint = register(local_stripe)
    subscription = local_stripe.subscribe(metadata={"bot": "1"}, subscription_data={"metadata": {"bot": "1"}})
    portal = local_stripe.open_portal(str(subscription.customer))
    local_stripe.cancel(portal, subscription.id)
    local_stripe.resume(portal, subscription.id)
    local_stripe.advance(31 * DAY)
    local_stripe.change_card(portal, "4000000000000341")
    local_stripe.advance(31 * DAY)
    session = local_stripe.open_checkout(subscription["items"]["data"][0]["price"]["id"])
    local_stripe.client.v1.checkout.sessions.expire(session.id)
    count = deliver(local_stripe, endpoint, client)

    mirror = models.Subscription.objects.get()
    assert (mirror.id, mirror.status, mirror.stripe_data["metadata"]["bot"]) == (
        subscription.id,
        "past_due",
        "1",
    )
    statuses = models.Invoice.objects.order_by("created", "djstripe_id").values_list("stripe_data__status", flat=True)
    assert sorted(statuses) == ["open", "paid", "paid"]

    local_stripe.change_card(portal)
    local_stripe.client.v1.subscriptions.cancel(subscription.id)
    local_stripe.client.v1.customers.delete(str(subscription.customer))
    total = deliver(local_stripe, endpoint, client)
    assert models.Subscription.objects.get().status == "canceled"
    assert models.Event.objects.count() == total > count, "an event that comes twice is kept once"
    assert not models.WebhookEventTrigger.objects.exclude(processed=True).exists()
    assert models.Price.objects.get().stripe_data["unit_amount"] == 500
