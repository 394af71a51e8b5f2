"""The only door to Stripe. Behind it is Stripe itself or the local Stripe: settings say which, nothing here asks.

Whoever calls gets our own small types and one error, PaymentTrouble, whose words are for people. Nothing here decides
whether a pub may run (billing.paid does) and nothing here writes to a bot.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID, uuid4

import stripe
from django.conf import settings
from django.urls import reverse
from django.utils import timezone
from djstripe.models import Account, Customer, Price, Product, WebhookEndpoint
from djstripe.settings import djstripe_settings

from accounts.models import User
from pubs.models import Bot

log = logging.getLogger("billing")

# Seconds until a connection and until each answer: a customer waits at the other end.
TIMEOUT = (5.0, 10.0)
RETRIES = 2
# How often a new payment page is asked for while Stripe brings back old ones.
PAGES_TRIED = 5
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

UNREACHABLE = "We can't reach our payment provider just now. Nothing was charged; try again in a minute."
OUR_FAULT = "Something is wrong with payments on our side. Nothing was charged; we have been told and look into it."


class PaymentTrouble(Exception):
    """Stripe said no or nothing. The message is for the person who waits."""


class Unreachable(PaymentTrouble):
    """Stripe did not answer, or too late, or with trouble of its own."""


class Missing(PaymentTrouble):
    """Stripe has nothing with this id."""


@dataclass(frozen=True)
class Reading:
    """What Stripe says about a subscription that is for one of our bots.

    `invoice_id` is the newest invoice. `seen_at` is a moment before Stripe was asked: whatever happened until then is
    in the reading.
    """

    bot_id: UUID
    subscription_id: str
    status: str
    until: datetime | None
    ends: bool
    created: datetime
    seen_at: datetime
    invoice_id: str = ""


@dataclass(frozen=True)
class Checkout:
    """A payment page. `subscription_id` is there once it is complete; `url` only while it is open."""

    id: str
    bot_id: UUID | None
    status: str
    subscription_id: str
    url: str


def connect() -> None:
    """Point the stripe module, ours and dj-stripe's, to the Stripe of the settings."""
    stripe.api_key = settings.STRIPE_SECRET_KEY
    stripe.api_base = settings.STRIPE_API_HOST
    stripe.api_version = settings.STRIPE_API_VERSION
    stripe.max_network_retries = RETRIES
    stripe.default_http_client = stripe.RequestsClient(timeout=TIMEOUT)
    # stripe brings its own list of authorities; behind a company's proxy the machine's list is the right one.
    stripe.ca_bundle_path = os.environ.get("REQUESTS_CA_BUNDLE") or stripe.ca_bundle_path


@contextmanager
def _told(may_miss: bool = False) -> Iterator[None]:
    """Turn Stripe's errors into PaymentTrouble; with `may_miss` an unknown id into Missing."""
    try:
        yield
    except stripe.CardError as error:
        raise PaymentTrouble(error.user_message or "Your card was declined. Nothing was charged.") from error
    except (stripe.APIConnectionError, stripe.RateLimitError, stripe.APIError) as error:
        log.warning("Stripe can't be reached: %s", error)
        raise Unreachable(UNREACHABLE) from error
    except stripe.StripeError as error:
        if may_miss and error.code == "resource_missing":
            raise Missing(OUR_FAULT) from error
        log.exception("Stripe refused what we asked")
        raise PaymentTrouble(OUR_FAULT) from error


# --- Customers -----------------------------------------------------------------------------------------------------
def customer_for(user: User) -> Customer:
    """The user's customer, made in Stripe the first time. Asking twice at once makes one.

    One that Stripe no longer has (a wiped local Stripe, deleted by hand) is let go of, and another one made.
    """
    customer = Customer.objects.filter(subscriber=user, livemode=settings.STRIPE_LIVE_MODE).first()
    if customer and _has_customer(customer.id):
        return customer
    if customer:
        log.error("Stripe has no customer %s of user %s: another one is made", customer.id, user.pk)
        Customer.objects.filter(pk=customer.pk).update(subscriber=None)
    with _told():
        # dj-stripe keeps a random key for each cause: one account may serve many deployments, each with a first user.
        cause = f"after:{customer.id}" if customer else "first"
        key = djstripe_settings.get_idempotency_key("customer", f"{user.pk}:{cause}", settings.STRIPE_LIVE_MODE)
        customer = Customer.create(user, idempotency_key=key)
    if customer.subscriber_id is None:
        # Stripe's webhook about the new customer can be here first, and its row knows no user yet.
        customer.subscriber = user
        customer.save(update_fields=["subscriber"])
    return customer


def _has_customer(customer_id: str) -> bool:
    try:
        with _told(may_miss=True):
            return not getattr(stripe.Customer.retrieve(customer_id), "deleted", False)
    except Missing:
        return False


# --- Checkout and portal -------------------------------------------------------------------------------------------
def open_checkout(bot: Bot) -> str:
    """The address of the page where the bot's owner pays for it. While one is open, it is the same one."""
    customer = customer_for(bot.owner)
    with _told():
        wish = _checkout_wish(bot, customer.id, _current_price().id)
        sessions = [each for each in _sessions_of(customer.id) if bot_id(each) == bot.id]
        for session in sessions:
            if session.status == "open" and _is_same(session, wish):
                return str(session.url)
            if session.status == "open":
                _expire(session.id)
        return _new_checkout(wish, sessions[0].id if sessions else "none")


def _new_checkout(wish: dict[str, Any], newest: str) -> str:
    """The address of a new payment page, which follows on the newest one of the bot.

    A double click sends this twice at once, with the same key: Stripe makes one session of it. Stripe may remember a
    key longer than a page is open, and then answers with the page as it once was: the next one follows on that.
    """
    for _ in range(PAGES_TRIED):
        made = stripe.checkout.Session.create(**wish, idempotency_key=_key("checkout", newest, wish))
        session = stripe.checkout.Session.retrieve(made.id)
        if session.status == "open":
            return str(session.url)
        newest = session.id
    log.error("Stripe makes no open payment page for %s, the last one was %s", wish["client_reference_id"], newest)
    raise PaymentTrouble(OUR_FAULT)


def _checkout_wish(bot: Bot, customer_id: str, price_id: str) -> dict[str, Any]:
    here = settings.SITE_URL
    return {
        "mode": "subscription",
        "customer": customer_id,
        "client_reference_id": str(bot.id),
        "line_items": [{"price": price_id, "quantity": 1}],
        "metadata": {"bot": str(bot.id), "price": price_id},
        "subscription_data": {"metadata": {"bot": str(bot.id)}, "description": f"Pub {bot.name}"},
        "success_url": f"{here}{reverse('billing:return', args=[bot.id])}?session_id={{CHECKOUT_SESSION_ID}}",
        "cancel_url": f"{here}{bot.get_absolute_url()}",
    }


def _sessions_of(customer_id: str) -> Iterator[Any]:
    """The customer's payment pages that can still matter, newest first: a page is open for a day."""
    since = int((timezone.now() - timedelta(days=2)).timestamp())
    listed = stripe.checkout.Session.list(customer=customer_id, created={"gte": since}, limit=100)
    return listed.auto_paging_iter()


def _is_same(session: Any, wish: dict[str, Any]) -> bool:
    """Whether an open page still asks for what we would ask for now: a price can change, the site can move."""
    same_price = _note(session, "price") == wish["metadata"]["price"]
    return same_price and all(session[name] == wish[name] for name in ("success_url", "cancel_url"))


def _key(about: str, *parts: Any) -> str:
    return f"{about}:{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()}"


def read_checkout(session_id: str) -> Checkout | None:
    """The payment page with this id, or None if there is none."""
    try:
        with _told(may_miss=True):
            return _checkout(stripe.checkout.Session.retrieve(session_id))
    except Missing:
        return None


def checkouts(status: Literal["open", "complete"], since: timedelta) -> list[Checkout]:
    """The payment pages of all customers that were opened in the time until now, newest first."""
    with _told():
        sessions = stripe.checkout.Session.list(
            status=status, created={"gte": int((timezone.now() - since).timestamp())}, limit=100
        )
        return [_checkout(session) for session in sessions.auto_paging_iter()]


def close_checkouts(bot: Bot) -> None:
    """Close the bot's open payment pages, so that nobody can pay in them any more."""
    for customer in _customers_of(bot):
        with suppress(Missing), _told(may_miss=True):
            listed = stripe.checkout.Session.list(customer=customer.id, status="open", limit=100)
            for session in [each for each in listed.auto_paging_iter() if bot_id(each) == bot.id]:
                _expire(session.id)


def _expire(session_id: str) -> None:
    """Close a payment page, unless it was paid or has run out since it was listed."""
    try:
        stripe.checkout.Session.expire(session_id)
    except stripe.InvalidRequestError:
        if stripe.checkout.Session.retrieve(session_id).status == "open":
            raise


def _checkout(session: Any) -> Checkout:
    return Checkout(
        id=session.id,
        bot_id=bot_id(session),
        status=session.status or "",
        subscription_id=_id(session.subscription),
        url=session.url or "",
    )


def open_portal(user: User, bot: Bot) -> str:
    """The address of the page where the user changes card, reads invoices and cancels; it leads back to the bot."""
    customer = customer_for(user)
    with _told():
        back = f"{settings.SITE_URL}{bot.get_absolute_url()}"
        return stripe.billing_portal.Session.create(customer=customer.id, return_url=back).url


# --- Subscriptions -------------------------------------------------------------------------------------------------
def reading(data: Any, seen_at: datetime) -> Reading | None:
    """What a subscription as Stripe shows it means to us, or None if it is for no bot.

    Periods stand on the items since API 2025-03-31. The portal ends a subscription by `cancel_at` alone, the API by
    `cancel_at_period_end` too.
    """
    about = bot_id(data)
    if about is None:
        return None
    until = data["ended_at"] or data["cancel_at"] or data["items"]["data"][0]["current_period_end"]
    return Reading(
        bot_id=about,
        subscription_id=data["id"],
        status=data["status"],
        until=_moment(until) if until else None,
        ends=bool(data["cancel_at_period_end"] or data["cancel_at"]),
        created=_moment(data["created"]),
        seen_at=seen_at,
        invoice_id=_id(data["latest_invoice"]),
    )


def read_subscription(subscription_id: str) -> Reading | None:
    """The subscription as Stripe has it now, or None if Stripe has none or it is for no bot."""
    seen_at = timezone.now()
    try:
        with _told(may_miss=True):
            return reading(stripe.Subscription.retrieve(subscription_id), seen_at)
    except Missing:
        return None


def subscriptions_of(bot: Bot) -> list[Reading]:
    """All subscriptions that ever were made for the bot, newest first."""
    seen_at = timezone.now()
    found: list[Reading] = []
    for customer in _customers_of(bot):
        # Stripe has no subscriptions of a customer that it does not know.
        with suppress(Missing), _told(may_miss=True):
            listed = stripe.Subscription.list(customer=customer.id, status="all", limit=100)
            found += [each for data in listed.auto_paging_iter() if (each := reading(data, seen_at))]
    mine = [each for each in found if each.bot_id == bot.id]
    if bot.subscription_id and all(each.subscription_id != bot.subscription_id for each in mine):
        # The customer's row was lost or belongs to somebody else by now: what we hold by id is still asked for.
        held = read_subscription(bot.subscription_id)
        mine += [held] if held and held.bot_id == bot.id else []
    return mine


def _customers_of(bot: Bot) -> list[Customer]:
    return list(bot.owner.djstripe_customers.all())  # type: ignore[attr-defined]  # dj-stripe adds it


def cancel(subscription_id: str) -> None:
    """End a subscription now. One that has ended already is fine."""
    with suppress(Missing), _told(may_miss=True):
        stripe.Subscription.cancel(subscription_id)


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _id(value: Any) -> str:
    """The id of something that Stripe shows as an id, whole or not at all."""
    return "" if value is None else str(value if isinstance(value, str) else value["id"])


def _note(data: Any, name: str) -> str:
    """A word that we left on an object in Stripe."""
    metadata = data["metadata"] or {}
    return str(metadata[name]) if name in metadata else ""


def bot_id(data: Any) -> UUID | None:
    """The bot that something in Stripe is for, by the metadata that we gave it."""
    try:
        return UUID(_note(data, "bot"))
    except ValueError:
        return None


# --- Set-up --------------------------------------------------------------------------------------------------------
def set_up() -> list[str]:
    """Make everything that Stripe and dj-stripe need: safe at every start. What was done, a line each."""
    with _told():
        account = Account.get_or_retrieve_for_api_key(settings.STRIPE_SECRET_KEY)
    return [f"Stripe account {account.id}", *set_up_catalogue(), *ensure_webhook_endpoint()]


def set_up_catalogue() -> list[str]:
    """The product and its monthly price. A changed PRICE_CENTS makes a new price; who pays the old one goes on."""
    with _told():
        product, done = _ensure_product()
        price = _find_price()
        if price is None or not _is_wanted_price(price):
            price, old = _make_price(product), price
            done.append(f"made price {price.id}: {settings.PRICE_CENTS} cents {settings.PRICE_CURRENCY} a month")
            if old is not None:
                Price.sync_from_stripe_data(stripe.Price.modify(old.id, active=False))
        Product.sync_from_stripe_data(product)
        Price.sync_from_stripe_data(price)
    return done or [f"price {price.id} is there"]


def _ensure_product() -> tuple[Any, list[str]]:
    with suppress(Missing), _told(may_miss=True):
        return stripe.Product.retrieve(PRODUCT_ID), []
    return stripe.Product.create(id=PRODUCT_ID, name="Pub", description="A Scuttlebutt pub"), ["made product Pub"]


def _find_price() -> Any | None:
    return next(iter(stripe.Price.list(lookup_keys=[settings.PRICE_LOOKUP_KEY], active=True, limit=1).data), None)


def _current_price() -> Any:
    price = _find_price()
    if price is None:
        log.error("Stripe has no price %s: run manage.py stripe_setup", settings.PRICE_LOOKUP_KEY)
        raise PaymentTrouble(OUR_FAULT)
    return price


def _is_wanted_price(price: Any) -> bool:
    return bool(
        price.unit_amount == settings.PRICE_CENTS
        and price.currency == settings.PRICE_CURRENCY.lower()
        and price.recurring
        and price.recurring.interval == "month"
        and price.recurring.interval_count == 1
    )


def _make_price(product: Any) -> Any:
    return stripe.Price.create(
        product=product.id,
        unit_amount=settings.PRICE_CENTS,
        currency=settings.PRICE_CURRENCY.lower(),
        recurring={"interval": "month"},
        lookup_key=settings.PRICE_LOOKUP_KEY,
        transfer_lookup_key=True,
    )


def ensure_webhook_endpoint() -> list[str]:
    """One endpoint of this deployment at Stripe, with our address, our events, and a secret that we hold.

    Stripe tells a secret only when it makes the endpoint. One whose secret we don't hold is deleted and made again.
    """
    with _told():
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
    return [each for each in listed if _note(each, MARK) == settings.DEPLOYMENT]


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
