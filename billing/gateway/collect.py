"""What is owed, charged to a better card: Stripe's portal saves a new one, and charges nothing for that by itself."""

from typing import Any

import stripe

from billing.gateway.door import id_of, key, told

# The status of subscriptions that can be put right by paying their invoices.
OWES = ("past_due", "unpaid")


def collect(subscription_id: str) -> bool:
    """Charge what a subscription owes to a card that has not failed for it. Whether there was one to try.

    What is open is charged oldest first, until a card is declined. A subscription that is unpaid follows its newest
    invoice, which Stripe leaves a draft: that one is charged too. Older drafts are for time in which nothing ran.
    A card that was declined is known by its failed charges, so none is tried twice, whoever asks and however often.
    """
    with told():
        subscription = stripe.Subscription.retrieve(subscription_id, expand=["customer"])
        listed = stripe.Invoice.list(subscription=subscription_id, status="open", limit=100)
        owed = sorted(listed.auto_paging_iter(), key=lambda invoice: invoice["created"])
        card = _untried_card(subscription, owed)
        if not card:
            return False
        if all(_pay(invoice, card) for invoice in owed) and _pay_draft(subscription_id, card):
            _keep(subscription, card)
    return True


def _untried_card(subscription: Any, owed: list[Any]) -> str:
    """The card that its customer has chosen for all, or for this subscription; nothing if both were declined."""
    chosen = (
        subscription["customer"]["invoice_settings"]["default_payment_method"],
        subscription["default_payment_method"],
    )
    cards = [id_of(card) for card in chosen if card]
    declined = {card for invoice in owed for card in _declined(invoice)} if cards else set()
    return next((card for card in cards if card not in declined), "")


def _declined(invoice: Any) -> set[str]:
    """The cards that the invoice could not be charged to."""
    cards: set[str] = set()
    payments = stripe.InvoicePayment.list(invoice=invoice["id"], expand=["data.payment.payment_intent"], limit=100)
    for payment in payments.auto_paging_iter():
        if payment["payment"]["type"] == "payment_intent":
            intent: Any = payment["payment"]["payment_intent"]
            error = intent["last_payment_error"]
            # Not each refusal leaves a charge: a bank's question that stays unanswered does not.
            cards.add(id_of(error.get("payment_method")) if error else "")
            charges = stripe.Charge.list(payment_intent=intent["id"], limit=100)
            cards |= {id_of(charge["payment_method"]) for charge in charges.auto_paging_iter() if not charge["paid"]}
    return cards


def _pay(invoice: Any, card: str) -> bool:
    """Whether the invoice is paid now, by this try or by another one at the same time."""
    once = key("collect", invoice["id"], card, invoice["attempt_count"])
    try:
        stripe.Invoice.pay(invoice["id"], payment_method=card, off_session=True, idempotency_key=once)
    except stripe.CardError:
        return False
    except (stripe.InvalidRequestError, stripe.IdempotencyError):
        # Somebody else was faster. Whatever else Stripe minds is trouble.
        status = stripe.Invoice.retrieve(invoice["id"])["status"]
        if status == "open":
            raise
        return bool(status == "paid")
    return True


def _pay_draft(subscription_id: str, card: str) -> bool:
    """Finalise and pay the newest invoice of a subscription that is still unpaid, if it is a draft."""
    subscription: Any = stripe.Subscription.retrieve(subscription_id, expand=["latest_invoice"])
    latest = subscription["latest_invoice"]
    if subscription["status"] != "unpaid" or latest["status"] != "draft":
        return True
    # One that was finalised but not paid is open, and found again as such.
    once = key("finalise", latest["id"])
    return _pay(stripe.Invoice.finalize_invoice(latest["id"], auto_advance=False, idempotency_key=once), card)


def _keep(subscription: Any, card: str) -> None:
    """Renewals are charged to the card that has paid."""
    if id_of(subscription["default_payment_method"]) != card:
        stripe.Subscription.modify(subscription["id"], default_payment_method=card)
