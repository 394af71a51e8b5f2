"""What happened at Stripe, as its list of events tells it: the same that webhooks tell, whether they came or not."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import stripe

from billing.gateway.customers import user_id
from billing.gateway.door import bot_id, bot_of_invoice, moment, told

# Those that can mean something for a bot; Stripe lists up to twenty types at once.
SUBSCRIPTION_EVENTS = [
    "customer.subscription.created",
    "customer.subscription.deleted",
    "customer.subscription.paused",
    "customer.subscription.resumed",
    "customer.subscription.updated",
]
INVOICE_EVENTS = ["invoice.paid", "invoice.payment_failed", "invoice.voided"]
CUSTOMER_EVENTS = ["customer.deleted", "customer.updated"]
REFUND_EVENTS = ["refund.created", "refund.failed"]
DISPUTE_EVENTS = ["charge.dispute.closed", "charge.dispute.created"]
TYPES = [
    "checkout.session.completed",
    *CUSTOMER_EVENTS,
    *SUBSCRIPTION_EVENTS,
    *INVOICE_EVENTS,
    *REFUND_EVENTS,
    *DISPUTE_EVENTS,
]


@dataclass(frozen=True)
class Renewal:
    """An invoice that was paid for a subscription that had begun before; the amount is in the smallest unit."""

    invoice_id: str
    bot_id: UUID
    amount: int
    currency: str


@dataclass(frozen=True)
class Happening:
    """An event: what is there to look at again. `subject` is the id of what it tells of."""

    id: str
    type: str
    at: datetime
    subject: str
    bot_id: UUID | None = None
    user_id: int | None = None
    renewal: Renewal | None = None


def newest_event() -> str:
    """The id of the event that came last, or nothing: Stripe keeps them for 30 days."""
    with told():
        return next((each.id for each in stripe.Event.list(types=TYPES, limit=1).data), "")


def events_after(cursor: str) -> Iterator[list[Happening]]:
    """What happened after the event with this id, oldest first, a page at a time. Raises Missing if there is none."""
    # Before in the list, which begins with the newest, is after in time.
    with told(may_miss=True):
        page = stripe.Event.list(types=TYPES, ending_before=cursor, limit=100)
    while page.data:
        yield [happening(each) for each in reversed(page.data)]
        with told():
            page = page.previous_page()


def happening(event: Any) -> Happening:
    subject = event["data"]["object"]
    return Happening(
        id=event["id"],
        type=event["type"],
        at=moment(event["created"]),
        subject=subject["id"],
        bot_id=bot_of(event["type"], subject),
        user_id=user_id(subject) if event["type"] in CUSTOMER_EVENTS else None,
        renewal=renewal_of(event["type"], subject),
    )


def bot_of(kind: str, subject: Any) -> UUID | None:
    """The bot that an event's object is for, as far as it says so itself."""
    if kind in INVOICE_EVENTS:
        return bot_of_invoice(subject)
    if kind in SUBSCRIPTION_EVENTS or kind == "checkout.session.completed":
        return bot_id(subject)
    return None


def renewal_of(kind: str, subject: Any) -> Renewal | None:
    """What an event says was paid: an invoice that is paid once stays so, however late we hear of it."""
    if kind != "invoice.paid" or not subject["amount_paid"] or subject["billing_reason"] == "subscription_create":
        return None
    about = bot_of_invoice(subject)
    return Renewal(subject["id"], about, subject["amount_paid"], subject["currency"]) if about else None
