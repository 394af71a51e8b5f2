"""Stripe's pages on which a new subscription is paid: one open page a bot."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

import stripe
from django.conf import settings
from django.urls import reverse
from django.utils import timezone

from billing.gateway.customers import customer_for, customers_of
from billing.gateway.door import OUR_FAULT, Missing, PaymentTrouble, bot_id, id_of, key, note, told
from pubs.models import Bot

log = logging.getLogger("billing")

# How often a new payment page is asked for while Stripe brings back old ones.
PAGES_TRIED = 5


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

    While one is open for the same offer, it is the same one; one for another offer is closed.
    """
    customer = customer_for(bot.owner)
    with told():
        wish = _checkout_wish(bot, customer.id, _price_of(offer))
        sessions = [each for each in _sessions_of(customer.id) if bot_id(each) == bot.id]
        for session in sessions:
            if session.status == "open" and _is_same(session, wish):
                return str(session.url)
            if session.status == "open":
                _expire(session.id)
        return _new_checkout(wish, sessions[0].id if sessions else "none")


def _price_of(lookup_key: str) -> str:
    for price in stripe.Price.list(lookup_keys=[lookup_key], active=True, limit=1).data:
        return price.id
    log.error("Stripe has no price %s: run manage.py stripe_setup", lookup_key)
    raise PaymentTrouble(OUR_FAULT)


def _new_checkout(wish: dict[str, Any], newest: str) -> str:
    """The address of a new payment page, which follows on the newest one of the bot.

    A double click sends this twice at once, with the same key: Stripe makes one session of it. Stripe may remember a
    key longer than a page is open, and then answers with the page as it once was: the next one follows on that.
    """
    for _ in range(PAGES_TRIED):
        made = stripe.checkout.Session.create(**wish, idempotency_key=key("checkout", newest, wish))
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
    same_price = note(session, "price") == wish["metadata"]["price"]
    return same_price and all(session[name] == wish[name] for name in ("success_url", "cancel_url"))


def read_checkout(session_id: str) -> Checkout | None:
    """The payment page with this id, or None if there is none."""
    try:
        with told(may_miss=True):
            return _checkout(stripe.checkout.Session.retrieve(session_id))
    except Missing:
        return None


def checkouts(status: Literal["open", "complete"], since: timedelta) -> list[Checkout]:
    """The payment pages of all customers that were opened in the time until now, newest first."""
    with told():
        sessions = stripe.checkout.Session.list(
            status=status, created={"gte": int((timezone.now() - since).timestamp())}, limit=100
        )
        return [_checkout(session) for session in sessions.auto_paging_iter()]


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
