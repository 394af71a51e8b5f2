"""Charges that a bank disputes, on the local Stripe."""

from typing import Any

import pytest
import stripe

from tests.support.local_stripe import DAY, RunningLocalStripe

DISPUTED = "4000000000000259"


@pytest.fixture
def dispute(local_stripe: RunningLocalStripe) -> stripe.Dispute:
    """A dispute that wants an answer."""
    session = local_stripe.open_checkout(local_stripe.make_price().id)
    local_stripe.pay(str(session.url), DISPUTED)
    assert local_stripe.client.v1.disputes.list().data == [], "banks take their time"
    local_stripe.advance(2)
    return local_stripe.client.v1.disputes.list().data[0]


def told(local: RunningLocalStripe) -> list[str]:
    events = local.client.v1.events.list({"type": "charge.dispute.*", "limit": 100})
    return [each.type.removeprefix("charge.dispute.") for each in events][::-1]


def test_a_bank_disputes_a_charge_soon_after(local_stripe: RunningLocalStripe, dispute: stripe.Dispute) -> None:
    assert (dispute.status, dispute.reason, dispute.amount) == ("needs_response", "fraudulent", 500)
    assert dispute.evidence_details.due_by and dispute.evidence_details.due_by > local_stripe.app.store.now()
    assert local_stripe.client.v1.charges.retrieve(str(dispute.charge)).disputed
    assert told(local_stripe) == ["created", "funds_withdrawn"]
    assert local_stripe.client.v1.subscriptions.list().data[0].status == "active", "Stripe leaves it to us"
    with pytest.raises(stripe.InvalidRequestError, match="charged back") as refused:
        local_stripe.client.v1.refunds.create({"charge": str(dispute.charge)})
    assert refused.value.code == "charge_disputed"


def test_evidence_that_convinces_wins(local_stripe: RunningLocalStripe, dispute: stripe.Dispute) -> None:
    update = local_stripe.client.v1.disputes.update
    waiting = update(dispute.id, {"evidence": {"uncategorized_text": "They used it for a year."}})
    assert (waiting.status, waiting.evidence_details.submission_count) == ("under_review", 1)
    won = update(dispute.id, {"evidence": {"uncategorized_text": "winning_evidence"}})
    assert won.status == "won"
    assert told(local_stripe)[-2:] == ["closed", "funds_reinstated"]
    assert local_stripe.client.v1.refunds.create({"charge": str(dispute.charge)}).amount == 500
    with pytest.raises(stripe.InvalidRequestError, match="already closed"):
        local_stripe.client.v1.disputes.close(dispute.id)


def test_evidence_that_does_not_convince_loses(local_stripe: RunningLocalStripe, dispute: stripe.Dispute) -> None:
    unsent: Any = {"evidence": {"uncategorized_text": "losing_evidence"}, "submit": False}
    kept = local_stripe.client.v1.disputes.update(dispute.id, unsent)
    assert (kept.status, kept.evidence_details.has_evidence) == ("needs_response", True)
    sent = local_stripe.client.v1.disputes.update(dispute.id, {"submit": True})
    assert (sent.status, told(local_stripe)[-1]) == ("lost", "closed")


def test_who_gives_in_or_does_not_answer_loses(local_stripe: RunningLocalStripe, dispute: stripe.Dispute) -> None:
    assert local_stripe.client.v1.disputes.close(dispute.id).status == "lost"
    session = local_stripe.open_checkout(local_stripe.make_price("other").id)
    local_stripe.pay(str(session.url), DISPUTED)
    local_stripe.advance(10 * DAY)
    assert [each.status for each in local_stripe.client.v1.disputes.list()] == ["lost", "lost"]


def test_a_charge_given_back_in_time_is_not_disputed(local_stripe: RunningLocalStripe) -> None:
    session = local_stripe.open_checkout(local_stripe.make_price().id)
    local_stripe.pay(str(session.url), DISPUTED)
    local_stripe.client.v1.refunds.create({"charge": local_stripe.client.v1.charges.list().data[0].id})
    local_stripe.advance(DAY)
    assert local_stripe.client.v1.disputes.list().data == []
