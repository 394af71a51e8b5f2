"""Stripe's pages on which a new subscription is paid: one open page a bot."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import stripe
from django.conf import settings
from django.urls import reverse
from django.utils import timezone

from billing.gateway.customers import customer_for, customers_of
from billing.gateway.door import MARK, OUR_FAULT, Missing, PaymentTrouble, bot_id, id_of, key, note, told
from billing.gateway.prices import offers
from pubs.models import Bot

log = logging.getLogger("billing")

# How often a new payment page is asked for while Stripe brings back old ones.
PAGES_TRIED = 5
NOT_FOR_SALE = "This size is not for sale. Choose one of those that this page shows."
# What Stripe Tax needs to know of a customer; it keeps what they type for later invoices.
TAXED = {
    "automatic_tax": {"enabled": True},
    "billing_address_collection": "required",
    "customer_update": {"address": "auto", "name": "auto"},
    "tax_id_collection": {"enabled": True},
}


class NotForSale(PaymentTrouble):
    """There is no such offer. The message is for the person who asked for it."""


@dataclass(frozen=True)
class Checkout:
    """A payment page. `subscription_id` is there once it is complete; `url` only while it is open."""

    id: str
    bot_id: UUID | None
    status: str
    subscription_id: str
    url: str


def open_checkout(bot: Bot, offer: str) -> str:
    """The address of the page where the bot's owner pays the offer with this lookup key.

    While one is open for the same offer, it is the same one; one for another offer is closed. NotForSale for a key that
    is none of ours.
    """
    if offer not in [each.lookup_key for each in offers()]:
        raise NotForSale(NOT_FOR_SALE)
    customer = customer_for(bot.owner)
    with told():
        wish = _checkout_wish(bot, customer.id, _price_of(offer))
        sessions = [each for each in _sessions_of(customer.id) if bot_id(each) == bot.id]
        open_ones = [each for each in sessions if each.status == "open"]
        same = next((each for each in open_ones if _is_same(each, wish)), None)
        _close(open_ones, same)
        if same:
            return str(same.url)
        made = _new_checkout(wish, sessions[0].id if sessions else "none")
        # Two tabs may have made two at once, for two offers. Each of them keeps the same one, whichever looks first.
        open_ones = [each for each in _sessions_of(customer.id, status="open") if bot_id(each) == bot.id]
        newest = max(open_ones or [made], key=lambda each: (each.created, each.id))
        _close(open_ones, newest)
        return str(newest.url)


def _close(sessions: list[Any], but: Any | None) -> None:
    for session in sessions:
        if but is None or session.id != but.id:
            _expire(session.id)


def _price_of(lookup_key: str) -> str:
    for price in stripe.Price.list(lookup_keys=[lookup_key], active=True, limit=1).data:
        return price.id
    log.error("Stripe has no price %s: run manage.py stripe_setup", lookup_key)
    raise PaymentTrouble(OUR_FAULT)


def _new_checkout(wish: dict[str, Any], newest: str) -> Any:
    """A new payment page, which follows on the newest one of the bot.

    A double click sends this twice at once, with the same key: Stripe makes one session of it. Stripe may remember a
    key longer than a page is open, and then answers with the page as it once was: the next one follows on that.
    """
    for _ in range(PAGES_TRIED):
        made = stripe.checkout.Session.create(**wish, idempotency_key=key("checkout", newest, wish))
        session = stripe.checkout.Session.retrieve(made.id)
        if session.status == "open":
            return session
        newest = session.id
    log.error("Stripe makes no open payment page for %s, the last one was %s", wish["client_reference_id"], newest)
    raise PaymentTrouble(OUR_FAULT)


def _checkout_wish(bot: Bot, customer_id: str, price_id: str) -> dict[str, Any]:
    here = settings.SITE_URL
    ours = {MARK: settings.DEPLOYMENT, "bot": str(bot.id)}
    return {
        "mode": "subscription",
        "customer": customer_id,
        "client_reference_id": str(bot.id),
        "line_items": [{"price": price_id, "quantity": 1}],
        "metadata": ours | {"price": price_id},
        "subscription_data": {"metadata": ours, "description": f"Pub {bot.name}"},
        "success_url": f"{here}{reverse('billing:return', args=[bot.id])}?session_id={{CHECKOUT_SESSION_ID}}",
        "cancel_url": f"{here}{bot.get_absolute_url()}",
        "allow_promotion_codes": True,
        "locale": "auto",
        **(TAXED if settings.STRIPE_TAX else {}),
    }


def _sessions_of(customer_id: str, **only: Any) -> Iterator[Any]:
    """The customer's payment pages that can still matter, newest first: a page is open for a day."""
    since = int((timezone.now() - timedelta(days=2)).timestamp())
    listed = stripe.checkout.Session.list(customer=customer_id, created={"gte": since}, limit=100, **only)
    return listed.auto_paging_iter()


def _is_same(session: Any, wish: dict[str, Any]) -> bool:
    """Whether an open page still asks for what we would ask for now: a price can change, the site can move."""
    same_price = note(session, "price") == wish["metadata"]["price"]
    return same_price and all(session[name] == wish[name] for name in ("success_url", "cancel_url"))


def read_checkout(session_id: str) -> Checkout | None:
    """The payment page with this id, or None if there is none."""
    try:
        with told(may_miss=True):
            return _checkout(stripe.checkout.Session.retrieve(session_id))
    except Missing:
        return None


def close_checkouts(bot: Bot) -> None:
    """Close the bot's open payment pages, so that nobody can pay in them any more."""
    for customer in customers_of(bot):
        with suppress(Missing), told(may_miss=True):
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
        subscription_id=id_of(session.subscription),
        url=session.url or "",
    )
