"""What must be in Stripe before anybody can pay: products with their prices, a portal, the endpoint of our webhooks.

All of it may run twice, and twice at once: what is there is found again, what somebody changed by hand is put right.
"""

import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import stripe
from django.conf import settings
from django.urls import reverse
from djstripe.models import Account, Price, Product, WebhookEndpoint

from billing.gateway.door import MARK, Missing, is_ours, key, note, told
from billing.gateway.events import TYPES
from billing.gateway.portal import ensure_portal
from billing.gateway.prices import Wish, wishes

log = logging.getLogger("billing")

# What we hear, and what only the mirror needs. Every further type costs dj-stripe a call to Stripe.
EVENTS = [
    *TYPES,
    "checkout.session.expired",
    "customer.created",
    "invoice.finalized",
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
    """Products, prices, and the portal where customers change between them.

    A changed amount makes a new price; who pays the old one goes on paying it.
    """
    with told():
        done = [*_products(), *_prices(), *_archive_others()]
    done += ensure_portal()
    return done or ["products, prices and the portal are there"]


def _products() -> Iterator[str]:
    for product_id, size in {wish.product_id: wish.memory_gb for wish in wishes()}.items():
        wanted: Any = {
            "name": f"Pub {size} GB",
            "description": f"A Scuttlebutt pub with {size} GB of memory for it alone",
        }
        try:
            with told(may_miss=True):
                product: Any = stripe.Product.retrieve(product_id)
        except Missing:
            product = _make_product(product_id, wanted)
            yield f"made product {wanted['name']}"
        if not product.active or any(product[name] != value for name, value in wanted.items()):
            product = stripe.Product.modify(product_id, active=True, **wanted)
            yield f"put product {product_id} right"
        Product.sync_from_stripe_data(product)


def _make_product(product_id: str, wanted: Any) -> stripe.Product:
    try:
        return stripe.Product.create(id=product_id, **wanted)
    except stripe.InvalidRequestError as error:
        if error.code != "resource_already_exists":
            raise
        return stripe.Product.retrieve(product_id)


def _prices() -> Iterator[str]:
    wanted = wishes()
    listed = stripe.Price.list(lookup_keys=[wish.lookup_key for wish in wanted], limit=100)
    there = {price.lookup_key: price for price in listed.auto_paging_iter()}
    for wish in wanted:
        price = there.get(wish.lookup_key)
        if price is None or not _costs(price, wish):
            price = _make_price(wish, price)
            yield f"made price {price.id}: {wish.amount} {settings.PRICE_CURRENCY} for {wish.lookup_key}"
        if not _is_told(price, wish):
            price = stripe.Price.modify(price.id, active=True, transfer_lookup_key=True, **_words(wish))
            yield f"put price {price.id} right"
        Price.sync_from_stripe_data(price)


def _make_price(wish: Wish, instead: Any | None) -> Any:
    """A new price in the place of another one, or of none.

    Two who make it at once send the same key, and Stripe makes one. Stripe answers with the price as it was when it was
    made: what happened to it since is asked for.
    """
    values: Any = {
        "product": wish.product_id,
        "unit_amount": wish.amount,
        "currency": settings.PRICE_CURRENCY,
        "recurring": {"interval": wish.interval},
        # What is shown is all there is to pay.
        "tax_behavior": "inclusive",
        "transfer_lookup_key": True,
        **_words(wish),
    }
    made = stripe.Price.create(**values, idempotency_key=key("price", instead and instead.id, values))
    return stripe.Price.retrieve(made.id)


def _words(wish: Wish) -> dict[str, Any]:
    """What can be changed of a price."""
    return {
        "lookup_key": wish.lookup_key,
        "nickname": f"{wish.memory_gb} GB, each {wish.interval}",
        "metadata": {"memory_gb": str(wish.memory_gb)},
    }


def _is_told(price: Any, wish: Wish) -> bool:
    same_size = note(price, "memory_gb") == str(wish.memory_gb)
    return bool(price.active and price.lookup_key == wish.lookup_key and same_size)


def _costs(price: Any, wish: Wish) -> bool:
    return bool(
        price.product == wish.product_id
        and price.unit_amount == wish.amount
        and price.currency == settings.PRICE_CURRENCY
        and price.recurring
        and price.recurring.interval == wish.interval
        and price.recurring.interval_count == 1
    )


def _archive_others() -> Iterator[str]:
    """Nothing else of our products can be bought, here or at Stripe."""
    wanted = wishes()
    keys, kept = [wish.lookup_key for wish in wanted], []
    for product_id in dict.fromkeys(wish.product_id for wish in wanted):
        for price in stripe.Price.list(product=product_id, active=True, limit=100).auto_paging_iter():
            if price.lookup_key in keys:
                kept.append(price.id)
            else:
                Price.sync_from_stripe_data(stripe.Price.modify(price.id, active=False))
                yield f"archived price {price.id}"
    # The mirror may remember some of a Stripe that is gone.
    ours = Price.objects.filter(lookup_key__in=keys, livemode=settings.STRIPE_LIVE_MODE)
    ours.exclude(id__in=kept).update(active=False)


def ensure_webhook_endpoint() -> list[str]:
    """One endpoint of this deployment at Stripe, with our address, our events, and a secret that we hold.

    Stripe tells a secret only when it makes the endpoint. One whose secret we don't hold is deleted and made again.
    """
    with told():
        kept, done, ours = None, [], [each for each in _endpoints() if is_ours(each)]
        after = "".join(sorted(endpoint.id for endpoint in ours))
        for endpoint in ours:
            held = WebhookEndpoint.objects.filter(id=endpoint.id).exclude(secret="").first()
            if held is None or kept or endpoint.api_version != settings.STRIPE_API_VERSION:
                stripe.WebhookEndpoint.delete(endpoint.id)
                WebhookEndpoint.objects.filter(id=endpoint.id).delete()
                done.append(f"removed webhook endpoint {endpoint.id}")
            else:
                kept = held
                done += _update_endpoint(endpoint, held)
        if kept is None:
            kept = _make_endpoint(after)
            done.append(f"made webhook endpoint {kept.id} for {kept.url}")
    # Rows of a Stripe that is gone would let old secrets in.
    WebhookEndpoint.objects.filter(**{f"metadata__{MARK}": settings.DEPLOYMENT}).exclude(pk=kept.pk).delete()
    return done or [f"webhook endpoint {kept.id} is there"]


def _endpoints() -> list[Any]:
    return list(stripe.WebhookEndpoint.list(limit=100).auto_paging_iter())


def _endpoint_url(uuid: UUID) -> str:
    return settings.STRIPE_WEBHOOK_BASE + reverse("djstripe:djstripe_webhook_by_uuid", kwargs={"uuid": uuid})


def _make_endpoint(after: str) -> WebhookEndpoint:
    """A new endpoint, after others that are gone. Two who make it at once make one, for both send the same key."""
    uuid = uuid5(NAMESPACE_URL, f"{MARK}:{settings.DEPLOYMENT}:{after}")
    values: Any = {
        "url": _endpoint_url(uuid),
        "enabled_events": EVENTS,
        "api_version": settings.STRIPE_API_VERSION,
        "metadata": {"djstripe_uuid": str(uuid), MARK: settings.DEPLOYMENT},
    }
    made = stripe.WebhookEndpoint.create(**values, idempotency_key=key("endpoint", values))
    with suppress(Missing), told(may_miss=True):
        stripe.WebhookEndpoint.retrieve(made.id)
        return WebhookEndpoint.sync_from_stripe_data(made)
    # Stripe remembers a key for a day, and what was made with it may be gone by then.
    return _make_endpoint(made.id)


def _update_endpoint(endpoint: Any, held: WebhookEndpoint) -> list[str]:
    url = _endpoint_url(held.djstripe_uuid)
    same = endpoint.url == url and set(endpoint.enabled_events) == set(EVENTS) and endpoint.status == "enabled"
    if same and held.url == url:
        return []
    changed = stripe.WebhookEndpoint.modify(endpoint.id, url=url, enabled_events=EVENTS, disabled=False)  # type: ignore[arg-type]
    WebhookEndpoint.sync_from_stripe_data(changed)
    return [f"webhook endpoint {endpoint.id} is now at {url}"]
