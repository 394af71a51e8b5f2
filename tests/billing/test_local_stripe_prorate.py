"""Another price in the middle of a period, on the local Stripe."""

from typing import Any

import pytest
import stripe

from billing.local_stripe.periods import next_boundary, remaining, unused
from tests.support.local_stripe import DAY, RunningLocalStripe

FAILS_LATER = "4000000000000341"


def price(local: RunningLocalStripe, amount: int, interval: str = "month") -> str:
    values: Any = {
        "currency": "eur",
        "unit_amount": amount,
        "recurring": {"interval": interval},
        "product_data": {"name": f"Pub {amount}"},
    }
    return local.client.v1.prices.create(values).id


def change(local: RunningLocalStripe, subscription: stripe.Subscription, to: str, **more: Any) -> stripe.Subscription:
    values: Any = {"items": [{"id": subscription["items"]["data"][0]["id"], "price": to}], **more}
    return local.client.v1.subscriptions.update(subscription.id, values)


def half_way(local: RunningLocalStripe) -> stripe.Subscription:
    """A subscription of 5.00 EUR a month, with half of its month gone."""
    subscription = local.subscribe()
    item = subscription["items"]["data"][0]
    local.advance((item["current_period_end"] - item["current_period_start"]) // 2)
    return subscription


def newest(local: RunningLocalStripe) -> Any:
    return local.client.v1.invoices.list({"limit": 1}).data[0]


def amounts(invoice: Any) -> list[int]:
    return [line.amount for line in invoice.lines.data]


def test_the_rest_of_a_period_is_counted_by_the_second() -> None:
    item = {"current_period_start": 0, "current_period_end": 1000}
    dear = {"unit_amount": 1000}
    assert [remaining(item, dear, 1, now).amount for now in (0, 1, 500, 999, 1000, 2000)] == [1000, 999, 500, 1, 0, 0]
    assert unused(item, dear, 2, 250).amount == -1500


@pytest.mark.parametrize(("to", "owed"), [(1000, 250), (2000, 750)])
def test_a_dearer_price_is_billed_at_once_when_asked(local_stripe: RunningLocalStripe, to: int, owed: int) -> None:
    subscription = half_way(local_stripe)
    changed = change(local_stripe, subscription, price(local_stripe, to), proration_behavior="always_invoice")
    invoice = newest(local_stripe)
    assert amounts(invoice) == [-250, to // 2]
    assert (invoice.total, invoice.status, invoice.billing_reason) == (owed, "paid", "subscription_update")
    about = [line.parent.subscription_item_details for line in invoice.lines.data]
    assert all(each.proration and each.invoice_item for each in about)
    assert invoice.lines.data[0].description.startswith("Unused time on Pub after")
    before, after = subscription["items"]["data"][0], changed["items"]["data"][0]
    assert after["current_period_end"] == before["current_period_end"] and changed.latest_invoice == invoice.id


def test_a_change_waits_for_the_next_invoice(local_stripe: RunningLocalStripe) -> None:
    subscription = half_way(local_stripe)
    change(local_stripe, subscription, price(local_stripe, 1000))
    assert len(local_stripe.client.v1.invoices.list().data) == 1
    pending = local_stripe.client.v1.invoice_items.list({"customer": str(subscription.customer), "pending": True})
    assert [each.amount for each in pending] == [500, -250]
    local_stripe.advance(16 * DAY)
    invoice = newest(local_stripe)
    assert (amounts(invoice), invoice.total, invoice.status) == ([-250, 500, 1000], 1250, "paid")
    local_stripe.advance(31 * DAY)
    assert amounts(newest(local_stripe)) == [1000]


def test_without_proration_only_later_periods_cost_more(local_stripe: RunningLocalStripe) -> None:
    subscription = half_way(local_stripe)
    change(local_stripe, subscription, price(local_stripe, 1000), proration_behavior="none")
    local_stripe.advance(16 * DAY)
    assert amounts(newest(local_stripe)) == [1000]


def test_a_cheaper_price_leaves_credit_for_what_comes(local_stripe: RunningLocalStripe) -> None:
    subscription = half_way(local_stripe)
    change(local_stripe, subscription, price(local_stripe, 2000), proration_behavior="always_invoice")
    change(local_stripe, subscription, price(local_stripe, 400), proration_behavior="always_invoice")
    invoice = newest(local_stripe)
    assert (amounts(invoice), invoice.total, invoice.amount_due, invoice.status) == ([-1000, 200], -800, 0, "paid")
    retrieve = local_stripe.client.v1.customers.retrieve
    assert retrieve(str(subscription.customer)).balance == -800
    local_stripe.advance(16 * DAY)
    renewal = newest(local_stripe)
    assert (renewal.total, renewal.amount_due, renewal.starting_balance, renewal.ending_balance) == (400, 0, -800, -400)
    local_stripe.advance(62 * DAY)
    bills = [(each.amount_due, each.ending_balance) for each in local_stripe.client.v1.invoices.list({"limit": 2})]
    assert bills == [(400, 0), (0, 0)]
    assert retrieve(str(subscription.customer)).balance == 0


def test_another_interval_begins_a_new_period_that_is_paid_at_once(local_stripe: RunningLocalStripe) -> None:
    subscription = half_way(local_stripe)
    changed = change(local_stripe, subscription, price(local_stripe, 5000, "year"))
    invoice = newest(local_stripe)
    assert (amounts(invoice), invoice.total, invoice.status) == ([-250, 5000], 4750, "paid")
    item = changed["items"]["data"][0]
    start, now = item["current_period_start"], local_stripe.app.store.now()
    assert now - 60 <= start <= now and changed.billing_cycle_anchor == start
    assert item["current_period_end"] == next_boundary(start, start, {"interval": "year", "interval_count": 1})
    local_stripe.advance(300 * DAY)
    assert newest(local_stripe).id == invoice.id, "the old month is over for good"
    local_stripe.advance(66 * DAY)
    assert amounts(newest(local_stripe)) == [5000]


def test_a_change_that_is_not_paid_is_past_due_and_tried_again(local_stripe: RunningLocalStripe) -> None:
    subscription = half_way(local_stripe)
    portal = local_stripe.open_portal(str(subscription.customer))
    local_stripe.change_card(portal, FAILS_LATER)
    dearer = price(local_stripe, 1000)
    with pytest.raises(stripe.CardError):
        change(
            local_stripe,
            subscription,
            dearer,
            proration_behavior="always_invoice",
            payment_behavior="error_if_incomplete",
        )
    assert local_stripe.client.v1.subscriptions.retrieve(subscription.id).status == "active"
    changed = change(local_stripe, subscription, dearer, proration_behavior="always_invoice")
    assert (changed.status, changed["items"]["data"][0]["price"]["id"]) == ("past_due", dearer)
    assert newest(local_stripe).next_payment_attempt
    local_stripe.change_card(portal)
    local_stripe.client.v1.invoices.pay(str(newest(local_stripe).id))
    assert local_stripe.client.v1.subscriptions.retrieve(subscription.id).status == "active"


def test_a_cancelled_rest_is_credited_when_asked(local_stripe: RunningLocalStripe) -> None:
    subscription = half_way(local_stripe)
    cancel = local_stripe.client.v1.subscriptions.cancel
    assert cancel(subscription.id, {"prorate": True, "invoice_now": True}).status == "canceled"
    assert (amounts(newest(local_stripe)), newest(local_stripe).status) == ([-250], "paid")
    assert local_stripe.client.v1.customers.retrieve(str(subscription.customer)).balance == -250


def test_a_trial_changes_for_nothing(local_stripe: RunningLocalStripe) -> None:
    subscription = local_stripe.subscribe(subscription_data={"trial_period_days": 14})
    local_stripe.advance(7 * DAY)
    changed = change(local_stripe, subscription, price(local_stripe, 5000, "year"))
    assert (changed.status, changed.trial_end) == ("trialing", subscription.trial_end)
    local_stripe.advance(8 * DAY)
    assert amounts(newest(local_stripe)) == [5000]
