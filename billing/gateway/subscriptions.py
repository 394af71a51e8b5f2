"""What Stripe knows of subscriptions."""

import logging
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import takewhile
from typing import Any
from uuid import UUID

import stripe
from django.utils import timezone

from billing.gateway.customers import customers_of
from billing.gateway.door import Missing, bot_id, is_anothers, moment, note, told
from pubs.models import Bot

log = logging.getLogger("billing")


@dataclass(frozen=True)
class Reading:
    """What Stripe says about a subscription that is for one of our bots.

    `until` is the end of its period, or when it ended or will. `memory_gb` is the size that its price is for, None for
    a price that is none of ours. `seen_at` is a moment before Stripe was asked: whatever happened until then is in the
    reading. What its invoices say, `with_invoices` adds: since when it owes, or owed when it ended, and when its card
    is tried again.
    """

    bot_id: UUID
    subscription_id: str
    status: str
    until: datetime | None
    ends: bool
    created: datetime
    seen_at: datetime
    price_id: str = ""
    memory_gb: int | None = None
    unpaid_since: datetime | None = None
    retry_at: datetime | None = None


# In these an invoice may be open, or may have been when it ended.
MAY_OWE = ("past_due", "unpaid", "canceled")


def reading(data: Any, seen_at: datetime) -> Reading | None:
    """What a subscription as Stripe shows it means to us, or None if it is for no bot.

    Periods stand on the items since API 2025-03-31. The portal ends a subscription by `cancel_at` alone, the API by
    `cancel_at_period_end` too. One that ends in a later period is charged again before that: it does not end yet.
    """
    about = bot_id(data)
    if about is None:
        return None
    item = data["items"]["data"][0]
    period_end = item["current_period_end"]
    cancel_at = data["cancel_at"] if data["cancel_at"] and data["cancel_at"] <= period_end else None
    until = min(filter(None, (data["ended_at"], cancel_at)), default=period_end)
    size = note(item["price"], "memory_gb")
    return Reading(
        bot_id=about,
        subscription_id=data["id"],
        status=data["status"],
        until=moment(until) if until else None,
        ends=bool(data["cancel_at_period_end"] or cancel_at),
        created=moment(data["created"]),
        seen_at=seen_at,
        price_id=item["price"]["id"],
        memory_gb=int(size) if size.isdecimal() else None,
        unpaid_since=moment(item["current_period_start"]) if data["status"] in ("past_due", "unpaid") else None,
    )


def with_invoices(read: Reading) -> Reading:
    """The same with what its invoices say, asked from Stripe only where one may be open.

    Of one that has ended, what was open at its end counts for ever: its owner was told dates by that, and to pay it
    later must not change them. An open invoice that is older than a paid one counts no more: by the later one Stripe
    takes the subscription for paid.
    """
    if read.status not in MAY_OWE:
        return read
    ended = read.until.timestamp() if read.status == "canceled" and read.until else math.inf
    with told():
        newest_first = stripe.Invoice.list(subscription=read.subscription_id).auto_paging_iter()
        newer = list(takewhile(lambda each: not _happened(each, "paid_at", ended), newest_first))
    owed = [each for each in newer if each["attempted"] and not _happened(each, "voided_at", ended)]
    if not owed:
        return read
    tries = [each["next_payment_attempt"] for each in owed if each["next_payment_attempt"]]
    return replace(
        read,
        unpaid_since=moment(min(each["created"] for each in owed)),
        retry_at=moment(min(tries)) if tries else None,
    )


def _happened(invoice: Any, what: str, before: float) -> bool:
    at = invoice["status_transitions"][what]
    return at is not None and at <= before


def read_subscription(subscription_id: str) -> Reading | None:
    """The subscription as Stripe has it now, or None if Stripe has none or it is for no bot."""
    seen_at = timezone.now()
    try:
        with told(may_miss=True):
            read = reading(stripe.Subscription.retrieve(subscription_id), seen_at)
    except Missing:
        return None
    return read and with_invoices(read)


def subscriptions_of(bot: Bot) -> list[Reading]:
    """All subscriptions that ever were made for the bot, newest first, without what their invoices say."""
    seen_at = timezone.now()
    found: list[Reading] = []
    for customer in customers_of(bot):
        # Stripe has no subscriptions of a customer that it does not know.
        with suppress(Missing), told(may_miss=True):
            listed = stripe.Subscription.list(customer=customer.id, status="all", limit=100)
            found += [each for data in listed.auto_paging_iter() if (each := reading(data, seen_at))]
    mine = [each for each in found if each.bot_id == bot.id]
    if bot.subscription_id and all(each.subscription_id != bot.subscription_id for each in mine):
        # The customer's row was lost or belongs to somebody else by now: what we hold by id is still asked for.
        held = read_subscription(bot.subscription_id)
        mine += [held] if held and held.bot_id == bot.id else []
    return mine


def live_subscriptions() -> Iterator[tuple[list[Reading], list[str]]]:
    """All subscriptions for bots that have not ended, a page at a time, without what their invoices say.

    Beside each page are the ids of those in it that can't be read. Those of another deployment are in neither.
    """
    seen_at = timezone.now()
    with told():
        page = stripe.Subscription.list(limit=100)
    while page.data:
        yield _read_page([each for each in page.data if not is_anothers(each)], seen_at)
        seen_at = timezone.now()
        with told():
            page = page.next_page()


def _read_page(page: list[Any], seen_at: datetime) -> tuple[list[Reading], list[str]]:
    readings, unread = [], []
    for data in page:
        try:
            readings.append(reading(data, seen_at))
        except Exception:
            log.exception("Subscription %s can't be read", data["id"])
            unread.append(data["id"])
    return list(filter(None, readings)), unread


def cancel(subscription_id: str) -> None:
    """End a subscription now. One that has ended already is fine."""
    with suppress(Missing), told(may_miss=True):
        stripe.Subscription.cancel(subscription_id)
