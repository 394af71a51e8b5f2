"""What must be in Stripe before anybody can pay: the product, its prices, and the endpoint of our webhooks."""

import logging
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import stripe
from django.conf import settings
from django.urls import reverse
from djstripe.models import Account, Price, Product, WebhookEndpoint

from billing.gateway.door import Missing, note, told
from billing.gateway.prices import Wish, wishes

log = logging.getLogger("billing")

PRODUCT_ID = "buttcloud-pub"
# Which deployment an endpoint or a product in a shared Stripe account belongs to.
MARK = "buttcloud"
# What the mirror and our handlers need. Every further type costs dj-stripe a call to Stripe.
EVENTS = [
    "checkout.session.completed",
    "checkout.session.expired",
    "customer.created",
    "customer.deleted",
    "customer.updated",
    "customer.subscription.created",
    "customer.subscription.deleted",
    "customer.subscription.paused",
    "customer.subscription.resumed",
    "customer.subscription.updated",
    "invoice.finalized",
    "invoice.paid",
    "invoice.payment_failed",
    "invoice.voided",
    "price.created",
    "price.deleted",
    "price.updated",
    "product.created",
    "product.deleted",
    "product.updated",
]


def set_up() -> list[str]:
    """Make everything that Stripe and dj-stripe need: safe at every start. What was done, a line each."""
    with told():
        account = Account.get_or_retrieve_for_api_key(settings.STRIPE_SECRET_KEY)
    return [f"Stripe account {account.id}", *set_up_catalogue(), *ensure_webhook_endpoint()]


def set_up_catalogue() -> list[str]:
    """The product and its prices. A changed amount makes a new price; who pays the old one goes on paying it."""
    with told():
        product, done = _ensure_product()
        Product.sync_from_stripe_data(product)
        listed = stripe.Price.list(lookup_keys=[wish.lookup_key for wish in wishes()], active=True, limit=100)
        there = {str(price.lookup_key): price for price in listed.auto_paging_iter()}
        for wish in wishes():
            done += _ensure_price(product, wish, there.get(wish.lookup_key))
    return done or [f"product {product.id} and its {len(wishes())} prices are there"]


def _ensure_product() -> tuple[Any, list[str]]:
    with suppress(Missing), told(may_miss=True):
        return stripe.Product.retrieve(PRODUCT_ID), []
    return stripe.Product.create(id=PRODUCT_ID, name="Pub", description="A Scuttlebutt pub"), ["made product Pub"]


def _ensure_price(product: Any, wish: Wish, there: Any | None) -> list[str]:
    if there and _fits(there, wish):
        Price.sync_from_stripe_data(there)
        return []
    made = stripe.Price.create(
        product=product.id,
        unit_amount=wish.amount,
        currency=settings.PRICE_CURRENCY,
        recurring={"interval": wish.interval},
        lookup_key=wish.lookup_key,
        transfer_lookup_key=True,
        nickname=f"{wish.memory_gb} GB, each {wish.interval}",
        metadata={"memory_gb": str(wish.memory_gb)},
    )
    if there:
        Price.sync_from_stripe_data(stripe.Price.modify(there.id, active=False))
    Price.sync_from_stripe_data(made)
    return [f"made price {made.id}: {wish.amount} {settings.PRICE_CURRENCY} for {made.nickname}"]


def _fits(price: Any, wish: Wish) -> bool:
    return bool(
        price.unit_amount == wish.amount
        and price.currency == settings.PRICE_CURRENCY
        and price.recurring
        and price.recurring.interval == wish.interval
        and price.recurring.interval_count == 1
        and note(price, "memory_gb") == str(wish.memory_gb)
    )


def ensure_webhook_endpoint() -> list[str]:
    """One endpoint of this deployment at Stripe, with our address, our events, and a secret that we hold.

    Stripe tells a secret only when it makes the endpoint. One whose secret we don't hold is deleted and made again.
    """
    with told():
        kept, done = None, []
        for endpoint in _our_endpoints():
            held = WebhookEndpoint.objects.filter(id=endpoint.id).exclude(secret="").first()
            if held is None or kept or endpoint.api_version != settings.STRIPE_API_VERSION:
                stripe.WebhookEndpoint.delete(endpoint.id)
                WebhookEndpoint.objects.filter(id=endpoint.id).delete()
                done.append(f"removed webhook endpoint {endpoint.id}")
            else:
                kept = held
                done += _update_endpoint(endpoint, held)
        if kept is None:
            kept = _make_endpoint()
            done.append(f"made webhook endpoint {kept.id} for {kept.url}")
    # Rows of a Stripe that is gone would let old secrets in.
    WebhookEndpoint.objects.filter(**{f"metadata__{MARK}": settings.DEPLOYMENT}).exclude(pk=kept.pk).delete()
    return done or [f"webhook endpoint {kept.id} is there"]


def _our_endpoints() -> list[Any]:
    listed = stripe.WebhookEndpoint.list(limit=100).auto_paging_iter()
    return [each for each in listed if note(each, MARK) == settings.DEPLOYMENT]


def _endpoint_url(uuid: UUID) -> str:
    return settings.STRIPE_WEBHOOK_BASE + reverse("djstripe:djstripe_webhook_by_uuid", kwargs={"uuid": uuid})


def _make_endpoint() -> WebhookEndpoint:
    uuid = uuid4()
    made = stripe.WebhookEndpoint.create(
        url=_endpoint_url(uuid),
        enabled_events=EVENTS,  # type: ignore[arg-type]  # stripe wants a list of literals
        api_version=settings.STRIPE_API_VERSION,  # type: ignore[arg-type]
        metadata={"djstripe_uuid": str(uuid), MARK: settings.DEPLOYMENT},
    )
    return WebhookEndpoint.sync_from_stripe_data(made)


def _update_endpoint(endpoint: Any, held: WebhookEndpoint) -> list[str]:
    url = _endpoint_url(held.djstripe_uuid)
    same = endpoint.url == url and set(endpoint.enabled_events) == set(EVENTS) and endpoint.status == "enabled"
    if same and held.url == url:
        return []
    changed = stripe.WebhookEndpoint.modify(endpoint.id, url=url, enabled_events=EVENTS, disabled=False)  # type: ignore[arg-type]
    WebhookEndpoint.sync_from_stripe_data(changed)
    return [f"webhook endpoint {endpoint.id} is now at {url}"]
