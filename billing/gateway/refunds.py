"""Money given back: what was charged for a bot, and refunds of it."""

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import stripe

from billing.gateway.door import PaymentTrouble, key, moment, told
from billing.gateway.subscriptions import subscriptions_of
from pubs.models import Bot

log = logging.getLogger("billing")

type Reason = Literal["duplicate", "fraudulent", "requested_by_customer"]

# How many invoices of a bot are looked at, the newest ones: each costs a question to Stripe.
NEWEST = 24


class Refused(PaymentTrouble):
    """Stripe does not give this back. The message is for staff, in Stripe's words."""


@dataclass(frozen=True)
class PaidInvoice:
    """An invoice that a card was charged for; amounts are in the smallest unit of its currency."""

    id: str
    number: str
    at: datetime
    amount: int
    refunded: int
    currency: str
    payment_id: str

    @property
    def left(self) -> int:
        return self.amount - self.refunded


@dataclass(frozen=True)
class Refunded:
    """Money on its way back to the card that was charged; `number` is that of the invoice."""

    id: str
    number: str
    amount: int
    currency: str


def paid_invoices(bot: Bot, since: datetime | None = None) -> list[PaidInvoice]:
    """What was charged for all subscriptions of a bot, newest invoice first; what was paid since then, if told."""
    # Stripe tells moments in whole seconds.
    after = int(since.timestamp()) if since else 0
    found: list[Any] = []
    for each in subscriptions_of(bot):
        with told():
            listed = stripe.Invoice.list(subscription=each.subscription_id, status="paid", limit=NEWEST).data
        found += [invoice for invoice in listed if invoice["status_transitions"]["paid_at"] >= after]
    found.sort(key=lambda invoice: invoice["created"], reverse=True)
    with told():
        return [paid for invoice in found[:NEWEST] if (paid := _paid_invoice(invoice))]


def refund(invoice_id: str, reason: Reason, words: str, amount: int | None = None, once: str = "") -> Refunded:
    """Give back an amount of what was charged for an invoice, or all that is left of it.

    With the same `once` it is given back once, however often this is asked. Without it, once for as long as nothing
    else was given back; and where all of it was, that refund is the answer.
    """
    with told():
        paid = _paid_invoice(stripe.Invoice.retrieve(invoice_id))
        if paid is None:
            raise Refused("No card was charged for this invoice.")
        if not once and amount is None and paid.left == 0:
            return _refunded(paid, _newest_refund(paid))
        made = _ask(paid, reason, words, amount, once)
    log.warning("Stripe gives back %s %s of invoice %s: %s", made.amount, made.currency, invoice_id, made.id)
    return made


def refund_newest(subscription_id: str, reason: Reason) -> Refunded | None:
    """Give back all that the newest payment of a subscription was; None if it never charged anything."""
    with told():
        listed = stripe.Invoice.list(subscription=subscription_id, status="paid", limit=NEWEST)
        newest = next((invoice for invoice in listed.auto_paging_iter() if invoice["amount_paid"]), None)
    return refund(str(newest["id"]), reason, "") if newest else None


def _paid_invoice(invoice: Any) -> PaidInvoice | None:
    """None for one that cost nothing, or that was settled in another way than by a card."""
    if not invoice["amount_paid"]:
        return None
    payments = stripe.InvoicePayment.list(
        invoice=invoice["id"], status="paid", expand=["data.payment.payment_intent.latest_charge"]
    )
    for payment in payments.data:
        if payment["payment"]["type"] == "payment_intent":
            intent: Any = payment["payment"]["payment_intent"]
            return PaidInvoice(
                id=invoice["id"],
                number=invoice["number"] or "",
                at=moment(payment["status_transitions"]["paid_at"]),
                amount=payment["amount_paid"],
                refunded=intent["latest_charge"]["amount_refunded"],
                currency=invoice["currency"],
                payment_id=intent["id"],
            )
    return None


def _ask(paid: PaidInvoice, reason: Reason, words: str, amount: int | None, once: str) -> Refunded:
    # Asked again it must be the same to the letter: so Stripe counts what is left.
    so_much: Any = {} if amount is None else {"amount": amount}
    try:
        made = stripe.Refund.create(
            **so_much,
            payment_intent=paid.payment_id,
            reason=reason,
            metadata={"invoice": paid.id, "words": words},
            idempotency_key=key("refund", paid.payment_id, once or paid.refunded),
        )
    except stripe.IdempotencyError as error:
        raise Refused("Something else was given back just now. Look at it again, then begin anew.") from error
    except stripe.InvalidRequestError as error:
        raise Refused(f"Stripe refuses: {error.user_message or error.code}") from error
    if made.status in ("failed", "canceled"):
        raise Refused(f"The refund failed: {made.failure_reason or 'Stripe does not say why'}.")
    return _refunded(paid, made)


def _newest_refund(paid: PaidInvoice) -> Any:
    refunds = stripe.Refund.list(payment_intent=paid.payment_id, limit=100)
    return next(each for each in refunds.auto_paging_iter() if each.status not in ("failed", "canceled"))


def _refunded(paid: PaidInvoice, made: Any) -> Refunded:
    return Refunded(id=made["id"], number=paid.number, amount=made["amount"], currency=made["currency"])
