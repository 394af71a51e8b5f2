"""Money that goes back: refunds, wherever they were made, and disputes, in which a customer's bank asks for it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import stripe
from django.conf import settings

from billing.gateway.door import bot_of_invoice, id_of, moment, note, told

# In these nothing can change any more: https://docs.stripe.com/api/disputes/object
CLOSED = ("won", "lost", "warning_closed", "prevented")


@dataclass(frozen=True)
class GivenBack:
    """A refund. `is_ours` if it was made through this site; `failed` if the money did not arrive."""

    id: str
    bot_id: UUID
    amount: int
    currency: str
    is_ours: bool
    failed: bool
    page: str


@dataclass(frozen=True)
class Dispute:
    """A payment that its card's owner denies, and the bank takes back until it is decided.

    `page` is where staff answer it, until `answer_by`.
    """

    id: str
    bot_id: UUID
    amount: int
    currency: str
    reason: str
    status: str
    answer_by: datetime | None
    page: str

    @property
    def is_closed(self) -> bool:
        return self.status in CLOSED


def read_refund(refund_id: str) -> GivenBack | None:
    """The refund with this id; None if it is about no bot."""
    with told():
        refund: Any = stripe.Refund.retrieve(refund_id)
        about = _bot_of(id_of(refund["payment_intent"]))
    if about is None:
        return None
    return GivenBack(
        id=refund["id"],
        bot_id=about,
        amount=refund["amount"],
        currency=refund["currency"],
        is_ours=bool(note(refund, "invoice")),
        failed=refund["status"] in ("failed", "canceled"),
        page=_dashboard("payments", id_of(refund["payment_intent"])),
    )


def read_dispute(dispute_id: str) -> Dispute | None:
    """The dispute with this id; None if it is about no bot."""
    with told():
        dispute: Any = stripe.Dispute.retrieve(dispute_id)
        about = _bot_of(id_of(dispute["payment_intent"]))
    if about is None:
        return None
    due_by = dispute["evidence_details"]["due_by"]
    return Dispute(
        id=dispute["id"],
        bot_id=about,
        amount=dispute["amount"],
        currency=dispute["currency"],
        reason=dispute["reason"],
        status=dispute["status"],
        answer_by=moment(due_by) if due_by else None,
        page=_dashboard("disputes", dispute["id"]),
    )


def _bot_of(intent_id: str) -> UUID | None:
    """The bot whose invoice a payment was for."""
    if not intent_id:
        return None
    listed = stripe.InvoicePayment.list(
        payment={"type": "payment_intent", "payment_intent": intent_id}, expand=["data.invoice"]
    )
    return next((about for payment in listed.data if (about := bot_of_invoice(payment["invoice"]))), None)


def _dashboard(*path: str) -> str:
    """The page of something in Stripe's dashboard."""
    return "/".join(["https://dashboard.stripe.com", *([] if settings.STRIPE_LIVE_MODE else ["test"]), *path])
