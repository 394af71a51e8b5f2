"""Cards whose bank wants to hear from the customer (3-D Secure), on the local Stripe."""

from typing import Any

import pytest
import stripe

from tests.support.local_stripe import DAY, PaymentRefused, RunningLocalStripe

ONCE = "4000002500003155"
ALWAYS = "4000002760003184"


def enter(local: RunningLocalStripe, card: str, **more: Any) -> stripe.checkout.Session:
    """A Checkout session on whose page the card was entered, and no more."""
    session = local.open_checkout(local.make_price().id, **more)
    local._submit(str(session.url), {"email": "ada@example.com", "number": card, "exp": "12 / 60", "cvc": "123"})
    return session


def reply(local: RunningLocalStripe, session: stripe.checkout.Session, word: str) -> str:
    """Tells the bank's page `authenticate` or `refuse`; the address it leads to."""
    return local._submit(str(session.url), {"do": word})


def statuses(local: RunningLocalStripe, session: stripe.checkout.Session) -> tuple[str | None, list[str]]:
    """Of the session and of all subscriptions."""
    listed = local.client.v1.subscriptions.list({"status": "all"})
    return local.client.v1.checkout.sessions.retrieve(session.id).status, [each.status for each in listed]


def told(local: RunningLocalStripe) -> list[str]:
    return [str(each.type) for each in local.client.v1.events.list({"limit": 100})][::-1]


def test_checkout_waits_for_the_customer_to_authenticate(local_stripe: RunningLocalStripe) -> None:
    session = enter(local_stripe, ONCE)
    assert statuses(local_stripe, session) == ("open", ["incomplete"])
    assert "payment_intent.requires_action" in told(local_stripe)
    assert "invoice.payment_failed" not in told(local_stripe)
    assert local_stripe.client.v1.charges.list().data == []
    assert reply(local_stripe, session, "authenticate").startswith("https://site.example/return")
    assert statuses(local_stripe, session) == ("complete", ["active"])
    charge: Any = local_stripe.client.v1.charges.list().data[0]
    assert charge.payment_method_details.card.three_d_secure.result == "authenticated"


def test_who_fails_to_authenticate_can_pay_with_another_card(local_stripe: RunningLocalStripe) -> None:
    session = enter(local_stripe, ONCE)
    with pytest.raises(PaymentRefused, match="unable to authenticate"):
        reply(local_stripe, session, "refuse")
    assert statuses(local_stripe, session) == ("open", ["incomplete"])
    local_stripe.pay(str(session.url))
    assert statuses(local_stripe, session) == ("complete", ["active"]), "the same subscription, not a second one"
    assert len(local_stripe.client.v1.customers.list().data) == 1


def test_who_never_authenticates_leaves_nothing_paid(local_stripe: RunningLocalStripe) -> None:
    session = enter(local_stripe, ONCE)
    local_stripe.advance(23 * 3600 + 60)
    assert statuses(local_stripe, session) == ("open", ["incomplete_expired"])
    assert [each.status for each in local_stripe.client.v1.invoices.list()] == ["void"]
    assert [each.status for each in local_stripe.client.v1.payment_intents.list()] == ["canceled"]
    local_stripe.pay(str(session.url))
    assert statuses(local_stripe, session) == ("complete", ["active", "incomplete_expired"])


@pytest.mark.parametrize(("card", "then"), [(ONCE, "active"), (ALWAYS, "past_due")])
def test_a_renewal_is_paid_only_if_the_card_was_set_up_for_it(
    local_stripe: RunningLocalStripe, card: str, then: str
) -> None:
    session = enter(local_stripe, card)
    reply(local_stripe, session, "authenticate")
    local_stripe.advance(32 * DAY)
    assert statuses(local_stripe, session) == ("complete", [then])
    newest = local_stripe.client.v1.charges.list().data[0]
    failed = ("failed", "authentication_required") if then == "past_due" else ("succeeded", None)
    assert (newest.status, newest.failure_code) == failed
    assert ("invoice.payment_action_required" in told(local_stripe)[-5:]) == (then == "past_due")


def test_a_card_that_is_left_for_after_a_trial_is_set_up_without_asking(local_stripe: RunningLocalStripe) -> None:
    session = enter(local_stripe, ONCE, subscription_data={"trial_period_days": 7})
    assert statuses(local_stripe, session) == ("complete", ["trialing"])
    local_stripe.advance(8 * DAY)
    assert statuses(local_stripe, session) == ("complete", ["active"])


def test_the_api_says_when_a_payment_needs_the_customer(local_stripe: RunningLocalStripe) -> None:
    v1 = local_stripe.client.v1
    customer = v1.customers.create({"email": "ada@example.com"})
    card: Any = {"type": "card", "card": {"number": ONCE, "exp_month": 12, "exp_year": 2099}}
    method = v1.payment_methods.create(card)
    v1.payment_methods.attach(method.id, {"customer": customer.id})
    subscription: Any = v1.subscriptions.create(
        {
            "customer": customer.id,
            "items": [{"price": local_stripe.make_price().id}],
            "default_payment_method": method.id,
            "expand": ["latest_invoice"],
        }
    )
    assert subscription.status == "incomplete"
    with pytest.raises(stripe.CardError) as asked:
        v1.invoices.pay(subscription.latest_invoice.id, {"off_session": False})
    assert asked.value.code == "invoice_payment_intent_requires_action"
    with pytest.raises(stripe.CardError) as refused:
        v1.invoices.pay(subscription.latest_invoice.id)
    assert refused.value.code == "authentication_required"
    assert len(v1.charges.list().data) == 1, "only the bank that could not ask has refused a charge"
    local_stripe.change_card(local_stripe.open_portal(customer.id), ONCE)
    assert v1.invoices.pay(subscription.latest_invoice.id).status == "paid", "in the portal the customer was there"
