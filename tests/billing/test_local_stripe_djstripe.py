"""dj-stripe takes in every event of the local Stripe, and its mirror shows what happened."""

import json
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import stripe
from django.test import Client
from django.urls import reverse
from djstripe import models
from djstripe.settings import djstripe_settings

from billing.local_stripe.webhooks import signature
from tests.support.local_stripe import DAY, PaymentRefused, RunningLocalStripe

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


def given_back(local: RunningLocalStripe) -> None:
    """A payment given back in two parts, and one that a bank disputes until evidence wins it."""
    local.subscribe()
    charge = local.client.v1.charges.list().data[0].id
    local.client.v1.refunds.create({"charge": charge, "amount": 100, "reason": "duplicate"})
    local.client.v1.refunds.create({"charge": charge})
    session = local.open_checkout(local.make_price().id)
    local.pay(str(session.url), "4000000000000259")
    local.advance(2)
    dispute = local.client.v1.disputes.list().data[0].id
    local.client.v1.disputes.update(dispute, {"evidence": {"uncategorized_text": "winning_evidence"}})


def changed(local: RunningLocalStripe) -> None:
    """A dearer price, a cheaper one that leaves credit, and one by the year."""
    subscription = local.subscribe()
    for amount, interval, proration in ((1000, "month", None), (100, "month", "always_invoice"), (900, "year", None)):
        values: Any = {
            "currency": "eur",
            "unit_amount": amount,
            "recurring": {"interval": interval},
            "product_data": {"name": f"Pub {amount}"},
        }
        price = local.client.v1.prices.create(values)
        change: Any = {"items": [{"id": subscription["items"]["data"][0]["id"], "price": price.id}]}
        local.advance(5 * DAY)
        more = {"proration_behavior": proration} if proration else {}
        local.client.v1.subscriptions.update(subscription.id, change | more)
    local.advance(366 * DAY)


def never_paid(local: RunningLocalStripe) -> None:
    """A bank that is never answered, then a card that fails until nobody tries any more, and a draft after it."""
    local.client.raw_request("post", "/v1/test_helpers/_settings", after_retries="unpaid")
    session = local.open_checkout(local.make_price().id)
    with pytest.raises(PaymentRefused):
        local.pay(str(session.url), "4000002500003155", authenticates=False)
    local.advance(DAY)
    subscription = local.subscribe()
    local.change_card(local.open_portal(str(subscription.customer)), "4000002760003184")
    local.advance(70 * DAY)


def paused(local: RunningLocalStripe) -> None:
    """A trial that ends without a card, and goes on with one."""
    customer = local.client.v1.customers.create({"email": "ada@example.com"})
    values: Any = {
        "customer": customer.id,
        "items": [{"price": local.make_price().id}],
        "trial_period_days": 7,
        "trial_settings": {"end_behavior": {"missing_payment_method": "pause"}},
    }
    subscription = local.client.v1.subscriptions.create(values)
    local.advance(8 * DAY)
    local.change_card(local.open_portal(customer.id))
    local.client.v1.subscriptions.resume(subscription.id)


def discounted(local: RunningLocalStripe) -> None:
    """Codes that count once and for some months, tax with the number of a business, and a portal of our own."""
    price = local.make_price().id
    for coupon in (
        {"percent_off": 50, "duration": "once"},
        {"amount_off": 100, "currency": "eur", "duration": "repeating", "duration_in_months": 2},
    ):
        values: Any = coupon
        made = local.client.v1.coupons.create(values)
        local.client.v1.promotion_codes.create({"promotion": {"type": "coupon", "coupon": made.id}, "code": made.id})
        session = local.open_checkout(
            price,
            allow_promotion_codes=True,
            automatic_tax={"enabled": True},
            tax_id_collection={"enabled": True},
        )
        address = {"do": "address", "country": "DE", "name": "Hafen GmbH", "tax_number": "DE123456789"}
        local._submit(str(session.url), address)
        local.pay(str(session.url), code=made.id)
    local.client.v1.billing_portal.configurations.create({"features": {"invoice_history": {"enabled": True}}})
    local.advance(93 * DAY)


@pytest.mark.parametrize(
    ("live", "statuses", "events"),
    [
        (given_back, ["active", "active"], ["charge.refunded", "charge.dispute.funds_reinstated"]),
        (changed, ["active"], ["invoiceitem.created"]),
        (never_paid, ["incomplete_expired", "unpaid"], ["payment_intent.requires_action", "invoice.voided"]),
        (paused, ["active"], ["customer.subscription.paused", "customer.subscription.resumed"]),
        (discounted, ["active", "active"], ["customer.discount.deleted", "customer.tax_id.created"]),
    ],
)
def test_dj_stripe_mirrors_each_step_of_a_life(
    local_stripe: RunningLocalStripe,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    live: Callable[[RunningLocalStripe], None],
    statuses: list[str],
    events: list[str],
) -> None:
    monkeypatch.setattr(stripe, "api_base", local_stripe.url)
    endpoint = register(local_stripe)
    live(local_stripe)
    deliver(local_stripe, endpoint, client)
    assert not models.WebhookEventTrigger.objects.exclude(processed=True).exists()
    assert sorted(each.status for each in models.Subscription.objects.all()) == statuses
    assert set(events) <= set(models.Event.objects.values_list("type", flat=True))
    for model, kind in (
        (models.Charge, "charge"),
        (models.Dispute, "dispute"),
        (models.InvoiceItem, "invoiceitem"),
        (models.PaymentIntent, "payment_intent"),
    ):
        mirrored = {each.id: each.stripe_data for each in model.objects.all()}
        assert mirrored.keys() == {each["id"] for each in local_stripe.app.store.all(kind)}
        assert all(
            mirrored[each["id"]].get("status") == each.get("status") for each in local_stripe.app.store.all(kind)
        )
