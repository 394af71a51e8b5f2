"""Charges on the local Stripe, and what is given back of them."""

from typing import Any

import pytest
import stripe

from tests.support.local_stripe import DAY, RunningLocalStripe

FAILS_LATER = "4000000000000341"


def paid_intent(local: RunningLocalStripe) -> str:
    """The payment intent of a new subscription's first invoice, found as the gateway finds it."""
    subscription = local.subscribe()
    invoice = str(subscription.latest_invoice)
    payments = local.client.v1.invoice_payments.list({"invoice": invoice, "status": "paid"})
    return str(payments.data[0].payment.payment_intent)


def told(local: RunningLocalStripe, *types: str) -> list[str]:
    """The events of these types, oldest first."""
    return [str(each.type) for each in local.client.v1.events.list({"types": [*types], "limit": 100})][::-1]


def test_a_paid_invoice_has_one_charge(local_stripe: RunningLocalStripe) -> None:
    intent_id = paid_intent(local_stripe)
    intent: Any = local_stripe.client.v1.payment_intents.retrieve(intent_id, {"expand": ["latest_charge"]})
    charge = intent.latest_charge
    assert (charge.amount, charge.paid, charge.status, charge.refunded) == (500, True, "succeeded", False)
    assert charge.payment_method_details.card.last4 == "4242" and charge.payment_intent == intent_id
    assert local_stripe.see(charge.receipt_url)[0] == 200
    charges = local_stripe.client.v1.charges
    assert [each.id for each in charges.list({"payment_intent": intent_id})] == [charge.id]
    assert [each.id for each in charges.list({"customer": charge.customer})] == [charge.id]


def test_each_try_is_a_charge_of_the_same_intent(local_stripe: RunningLocalStripe) -> None:
    subscription = local_stripe.subscribe()
    portal = local_stripe.open_portal(str(subscription.customer))
    local_stripe.change_card(portal, FAILS_LATER)
    local_stripe.advance(35 * DAY)
    invoice = local_stripe.client.v1.invoices.list({"status": "open"}).data[0]
    payments = local_stripe.client.v1.invoice_payments.list({"invoice": str(invoice.id)}).data
    assert len(payments) == 1 and payments[0].status == "open"
    intent_id = str(payments[0].payment.payment_intent)
    charges = local_stripe.client.v1.charges.list({"payment_intent": intent_id}).data
    assert [each.status for each in charges] == ["failed", "failed"]
    assert charges[0].failure_code == "card_declined" and charges[0].outcome.type == "issuer_declined"  # type: ignore[union-attr]
    error = local_stripe.client.v1.payment_intents.retrieve(intent_id).last_payment_error
    assert error and error.payment_method and error.payment_method.id == charges[0].payment_method
    local_stripe.change_card(portal)
    local_stripe.client.v1.invoices.pay(str(invoice.id))
    intent = local_stripe.client.v1.payment_intents.retrieve(intent_id)
    assert (intent.status, intent.last_payment_error) == ("succeeded", None)
    found = local_stripe.client.v1.invoice_payments.list(
        {"payment": {"type": "payment_intent", "payment_intent": intent_id}}
    ).data
    assert [each.invoice for each in found] == [invoice.id] and found[0].status == "paid"


def test_a_refund_gives_back_all_that_is_left(local_stripe: RunningLocalStripe) -> None:
    intent = paid_intent(local_stripe)
    refunds = local_stripe.client.v1.refunds
    part = refunds.create({"payment_intent": intent, "amount": 120, "reason": "requested_by_customer"})
    assert (part.amount, part.status, part.reason, part.currency) == (120, "succeeded", "requested_by_customer", "eur")
    charge = local_stripe.client.v1.charges.retrieve(str(part.charge))
    assert (charge.amount_refunded, charge.refunded) == (120, False)
    rest = refunds.create({"charge": charge.id, "metadata": {"why": "left"}})
    assert rest.amount == 380 and rest.metadata and rest.metadata["why"] == "left"
    charge = local_stripe.client.v1.charges.retrieve(charge.id)
    assert (charge.amount_refunded, charge.refunded) == (500, True)
    assert [each.id for each in refunds.list({"payment_intent": intent})] == [rest.id, part.id]
    assert told(local_stripe, "refund.created", "charge.refunded") == ["refund.created", "charge.refunded"] * 2


def test_more_than_was_charged_is_not_given_back(local_stripe: RunningLocalStripe) -> None:
    intent = paid_intent(local_stripe)
    create = local_stripe.client.v1.refunds.create
    create({"payment_intent": intent, "amount": 400})
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded amount") as refused:
        create({"payment_intent": intent, "amount": 101})
    assert refused.value.param == "amount"
    create({"payment_intent": intent, "amount": 100})
    with pytest.raises(stripe.InvalidRequestError, match="has already been refunded") as refused:
        create({"payment_intent": intent})
    assert refused.value.code == "charge_already_refunded"


def test_a_refund_with_a_key_happens_once(local_stripe: RunningLocalStripe) -> None:
    intent = paid_intent(local_stripe)
    create = local_stripe.client.v1.refunds.create
    first = create({"payment_intent": intent, "amount": 200}, {"idempotency_key": "back"})
    again = create({"payment_intent": intent, "amount": 200}, {"idempotency_key": "back"})
    assert first.id == again.id
    assert local_stripe.client.v1.charges.retrieve(str(first.charge)).amount_refunded == 200


def test_what_was_never_charged_is_not_given_back(local_stripe: RunningLocalStripe) -> None:
    subscription = local_stripe.subscribe()
    local_stripe.change_card(local_stripe.open_portal(str(subscription.customer)), FAILS_LATER)
    local_stripe.advance(31 * DAY)
    failed = local_stripe.client.v1.charges.list().data[0]
    assert failed.status == "failed"
    with pytest.raises(stripe.InvalidRequestError, match="does not have a successful charge"):
        local_stripe.client.v1.refunds.create({"payment_intent": str(failed.payment_intent)})
    with pytest.raises(stripe.InvalidRequestError, match="failed"):
        local_stripe.client.v1.refunds.create({"charge": failed.id})
