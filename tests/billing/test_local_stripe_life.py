"""A subscription on the local Stripe, from Checkout to its end, over HTTP with Stripe's own client."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import stripe

from billing.local_stripe.periods import next_boundary
from tests.support.local_stripe import DAY, PaymentRefused, RunningLocalStripe

FAILS_LATER = "4000000000000341"


def status(local: RunningLocalStripe, subscription: stripe.Subscription) -> str:
    return local.client.v1.subscriptions.retrieve(subscription.id).status


def invoices(local: RunningLocalStripe) -> list[str | None]:
    """Their statuses, oldest first."""
    return [each.status for each in local.client.v1.invoices.list()][::-1]


def newest(local: RunningLocalStripe) -> str:
    return str(local.client.v1.invoices.list().data[0].id)


def test_a_whole_life(local_stripe: RunningLocalStripe) -> None:
    subscription = local_stripe.subscribe(subscription_data={"metadata": {"bot": "7"}})
    assert subscription.status == "active" and subscription.metadata["bot"] == "7"
    portal = local_stripe.open_portal(str(subscription.customer))

    local_stripe.cancel(portal, subscription.id)
    leaving = local_stripe.client.v1.subscriptions.retrieve(subscription.id)
    assert leaving.status == "active"
    assert leaving.cancel_at == leaving["items"]["data"][0]["current_period_end"]
    assert leaving.cancel_at_period_end is False, "the portal writes only cancel_at, in flexible billing mode"

    local_stripe.resume(portal, subscription.id)
    assert local_stripe.client.v1.subscriptions.retrieve(subscription.id).cancel_at is None

    local_stripe.advance(31 * DAY)
    assert (status(local_stripe, subscription), invoices(local_stripe)) == ("active", ["paid", "paid"])

    local_stripe.change_card(portal, FAILS_LATER)
    local_stripe.advance(31 * DAY)
    assert (status(local_stripe, subscription), invoices(local_stripe)) == (
        "past_due",
        ["paid", "paid", "open"],
    )

    local_stripe.change_card(portal)
    assert (status(local_stripe, subscription), invoices(local_stripe)) == (
        "past_due",
        ["paid", "paid", "open"],
    ), "a card that is saved is charged nothing"
    local_stripe.client.v1.invoices.pay(newest(local_stripe))
    assert (status(local_stripe, subscription), invoices(local_stripe)) == ("active", ["paid"] * 3)

    local_stripe.cancel(portal, subscription.id)
    local_stripe.advance(31 * DAY)
    assert (status(local_stripe, subscription), invoices(local_stripe)) == ("canceled", ["paid"] * 3)


def test_each_step_is_told_as_an_event(local_stripe: RunningLocalStripe) -> None:
    subscription = local_stripe.subscribe()
    local_stripe.change_card(local_stripe.open_portal(str(subscription.customer)), FAILS_LATER)
    local_stripe.advance(31 * DAY)
    local_stripe.client.v1.subscriptions.cancel(subscription.id)
    told = [each.type for each in local_stripe.client.v1.events.list({"limit": 100})][::-1]
    assert told == [
        "product.created",
        "price.created",
        "customer.created",
        "payment_method.attached",
        "customer.updated",
        "customer.subscription.created",
        "invoice.created",
        "invoice.finalized",
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.succeeded",
        "invoice.paid",
        "invoice.payment_succeeded",
        "customer.subscription.updated",
        "checkout.session.completed",
        "billing_portal.configuration.created",
        "payment_method.attached",
        "customer.updated",
        "customer.subscription.updated",
        "customer.subscription.updated",
        "invoice.created",
        "invoice.finalized",
        "payment_intent.created",
        "charge.failed",
        "payment_intent.payment_failed",
        "invoice.payment_failed",
        "customer.subscription.updated",
        "customer.subscription.deleted",
    ]


def test_a_renewal_that_fails_is_retried_and_then_ends_the_subscription(
    local_stripe: RunningLocalStripe,
) -> None:
    subscription = local_stripe.subscribe()
    portal = local_stripe.open_portal(str(subscription.customer))
    local_stripe.change_card(portal, FAILS_LATER)
    local_stripe.advance(subscription["items"]["data"][0]["current_period_end"] - subscription.created + 60)
    for _ in range(3):  # What the customer tries does not use up Stripe's own tries.
        with pytest.raises(PaymentRefused, match="declined"):
            local_stripe.pay_invoice(newest(local_stripe), FAILS_LATER)
    local_stripe.advance(8 * DAY)
    assert status(local_stripe, subscription) == "past_due"
    local_stripe.advance(7 * DAY)
    ended = local_stripe.client.v1.subscriptions.retrieve(subscription.id)
    assert ended.status == "canceled"
    assert ended.cancellation_details and ended.cancellation_details.reason == "payment_failed"


def test_a_retry_with_a_card_that_works_again_heals(local_stripe: RunningLocalStripe) -> None:
    subscription = local_stripe.subscribe()
    portal = local_stripe.open_portal(str(subscription.customer))
    good = subscription.default_payment_method
    local_stripe.change_card(portal, FAILS_LATER)
    local_stripe.advance(31 * DAY)
    local_stripe.client.v1.subscriptions.update(subscription.id, {"default_payment_method": str(good)})
    assert status(local_stripe, subscription) == "past_due"
    local_stripe.advance(4 * DAY)
    assert status(local_stripe, subscription) == "active"


def test_a_jump_over_months_renews_each_of_them(local_stripe: RunningLocalStripe) -> None:
    local_stripe.subscribe()
    local_stripe.advance(100 * DAY)
    periods = [(each.period_start, each.period_end) for each in local_stripe.client.v1.invoices.list()][::-1]
    assert len(periods) == 4
    assert all(before[1] == after[0] for before, after in zip(periods, periods[1:], strict=False))
    created = [each.created for each in local_stripe.client.v1.invoices.list()][::-1]
    assert created[1:] == [begin for begin, _ in periods[1:]]


def test_months_are_calendar_months() -> None:
    start = moment = int(datetime(2027, 1, 31, 12, tzinfo=UTC).timestamp())
    days = []
    for _ in range(4):
        moment = next_boundary(start, moment, {"interval": "month", "interval_count": 1})
        days.append(datetime.fromtimestamp(moment, UTC).strftime("%d %b"))
    assert days == ["28 Feb", "31 Mar", "30 Apr", "31 May"]


def test_a_trial_costs_nothing_until_it_ends(local_stripe: RunningLocalStripe) -> None:
    subscription = local_stripe.subscribe(subscription_data={"trial_period_days": 14})
    assert subscription.status == "trialing"
    local_stripe.advance(15 * DAY)
    assert status(local_stripe, subscription) == "active"
    assert [each.amount_paid for each in local_stripe.client.v1.invoices.list()] == [500, 0]


def test_a_subscription_that_is_never_paid_expires(local_stripe: RunningLocalStripe) -> None:
    price = local_stripe.make_price()
    customer = local_stripe.client.v1.customers.create({"email": "ada@example.com"})
    subscription = local_stripe.client.v1.subscriptions.create(
        {"customer": customer.id, "items": [{"price": price.id}]}
    )
    assert subscription.status == "incomplete"
    local_stripe.advance(DAY)
    assert status(local_stripe, subscription) == "incomplete_expired"


def test_a_cancelled_subscription_cannot_come_back(local_stripe: RunningLocalStripe) -> None:
    subscription = local_stripe.subscribe()
    assert local_stripe.client.v1.subscriptions.cancel(subscription.id).status == "canceled"
    with pytest.raises(stripe.InvalidRequestError, match="canceled subscription can only update"):
        local_stripe.client.v1.subscriptions.update(subscription.id, {"cancel_at_period_end": False})
    with pytest.raises(stripe.InvalidRequestError, match="No such subscription"):
        local_stripe.client.v1.subscriptions.cancel(subscription.id)
    with pytest.raises(PaymentRefused, match="has ended"):
        local_stripe.resume(local_stripe.open_portal(str(subscription.customer)), subscription.id)


def test_a_deleted_customer_leaves_no_running_subscription(local_stripe: RunningLocalStripe) -> None:
    subscription = local_stripe.subscribe()
    local_stripe.client.v1.customers.delete(str(subscription.customer))
    assert status(local_stripe, subscription) == "canceled"
    assert local_stripe.client.v1.customers.retrieve(str(subscription.customer)).deleted
    assert local_stripe.client.v1.customers.list().data == []


def settle_for(local: RunningLocalStripe, outcome: str) -> None:
    """Chooses, as the owner of the account, what the last retry leads to."""
    local.client.raw_request("post", "/v1/test_helpers/_settings", after_retries=outcome)


def never_paid(local: RunningLocalStripe, outcome: str, days: int = 50) -> stripe.Subscription:
    """A subscription whose renewal was tried in vain for the last time, and some days more."""
    settle_for(local, outcome)
    subscription = local.subscribe()
    local.change_card(local.open_portal(str(subscription.customer)), FAILS_LATER)
    local.advance(days * DAY)
    return subscription


def test_the_account_says_what_the_last_retry_leads_to(local_stripe: RunningLocalStripe) -> None:
    subscription = never_paid(local_stripe, "past_due")
    assert status(local_stripe, subscription) == "past_due"
    assert local_stripe.client.v1.invoices.list({"status": "open"}).data[0].next_payment_attempt is None
    local_stripe.advance(15 * DAY)
    assert invoices(local_stripe) == ["paid", "open", "open"], "it goes on to bill"


def test_an_unpaid_subscription_only_drafts_invoices(local_stripe: RunningLocalStripe) -> None:
    subscription = never_paid(local_stripe, "unpaid", days=65)
    assert status(local_stripe, subscription) == "unpaid"
    assert invoices(local_stripe) == ["paid", "open", "draft"]
    draft = local_stripe.client.v1.invoices.list({"status": "draft"}).data[0]
    assert (draft.auto_advance, draft.number, draft.attempt_count) == (False, None, 0)
    local_stripe.change_card(local_stripe.open_portal(str(subscription.customer)))
    older = local_stripe.client.v1.invoices.list({"status": "open"}).data[0]
    local_stripe.client.v1.invoices.pay(str(older.id))
    assert invoices(local_stripe) == ["paid", "paid", "draft"]
    assert status(local_stripe, subscription) == "unpaid", "its status follows the newest invoice, be it a draft"
    finalized = local_stripe.client.v1.invoices.finalize_invoice(str(draft.id), {"auto_advance": False})
    assert (finalized.status, finalized.auto_advance) == ("open", False)
    assert local_stripe.client.v1.invoices.pay(str(draft.id)).status == "paid"
    assert status(local_stripe, subscription) == "active"
    local_stripe.advance(31 * DAY)
    assert invoices(local_stripe) == ["paid"] * 4


def test_the_setting_outlives_a_restart(tmp_path: Path) -> None:
    with RunningLocalStripe(tmp_path / "state.json") as first:
        settle_for(first, "unpaid")
    with RunningLocalStripe(tmp_path / "state.json") as second:
        assert second.app.store.settings["after_retries"] == "unpaid"


def trial_without_card(local: RunningLocalStripe, outcome: str) -> stripe.Subscription:
    customer = local.client.v1.customers.create({"email": "ada@example.com"})
    values: Any = {
        "customer": customer.id,
        "items": [{"price": local.make_price().id}],
        "trial_period_days": 7,
        "trial_settings": {"end_behavior": {"missing_payment_method": outcome}},
    }
    return local.client.v1.subscriptions.create(values)


@pytest.mark.parametrize(
    ("outcome", "then"), [("pause", "paused"), ("cancel", "canceled"), ("create_invoice", "past_due")]
)
def test_a_trial_without_a_card_ends_as_was_asked(local_stripe: RunningLocalStripe, outcome: str, then: str) -> None:
    subscription = trial_without_card(local_stripe, outcome)
    local_stripe.advance(8 * DAY)
    assert status(local_stripe, subscription) == then


def test_a_paused_subscription_bills_nothing_until_it_is_resumed(local_stripe: RunningLocalStripe) -> None:
    subscription = trial_without_card(local_stripe, "pause")
    local_stripe.advance(100 * DAY)
    assert (status(local_stripe, subscription), invoices(local_stripe)) == ("paused", ["paid"])
    local_stripe.change_card(local_stripe.open_portal(str(subscription.customer)))
    assert status(local_stripe, subscription) == "paused", "a card alone does not resume it"
    resumed = local_stripe.client.v1.subscriptions.resume(subscription.id, {"billing_cycle_anchor": "now"})
    assert (resumed.status, invoices(local_stripe)) == ("active", ["paid", "paid"])
    assert resumed["items"]["data"][0]["current_period_start"] == resumed.billing_cycle_anchor
    types = [each.type for each in local_stripe.client.v1.events.list({"type": "customer.subscription.*"})]
    assert types[0] == "customer.subscription.resumed" and "customer.subscription.paused" in types
    with pytest.raises(stripe.InvalidRequestError, match="not paused"):
        local_stripe.client.v1.subscriptions.resume(subscription.id)


def test_the_clock_can_begin_in_the_past(tmp_path: Path) -> None:
    past = -60 * DAY
    with RunningLocalStripe(tmp_path / "state.json", clock_offset=past) as local:
        subscription = local.subscribe()
        assert abs(subscription.created - (time.time() + past)) < 60
        local.advance(31 * DAY)
        assert invoices(local) == ["paid", "paid"]
    with RunningLocalStripe(tmp_path / "state.json", clock_offset=past) as local:
        assert abs(local.app.store.now() - (time.time() + past + 31 * DAY)) < 60, "a kept clock goes on"
