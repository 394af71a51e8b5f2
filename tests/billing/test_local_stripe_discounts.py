"""Coupons and promotion codes of the local Stripe, from the code that is typed to the last discounted invoice."""

from typing import Any

import pytest
import stripe

from tests.support.local_stripe import DAY, PaymentRefused, RunningLocalStripe


def make_code(local: RunningLocalStripe, code: str = "HALF", coupon: Any = None, **more: Any) -> stripe.PromotionCode:
    values: Any = coupon or {"percent_off": 50, "duration": "once"}
    made = local.client.v1.coupons.create(values)
    values = {"promotion": {"type": "coupon", "coupon": made.id}, "code": code, **more}
    return local.client.v1.promotion_codes.create(values)


def buy(local: RunningLocalStripe, code: str = "HALF", **more: Any) -> stripe.Subscription:
    """A subscription of 5.00 EUR a month, paid with a code."""
    prices = local.client.v1.prices.list({"lookup_keys": ["pub"]}).data
    price = prices[0] if prices else local.make_price()
    session = local.open_checkout(price.id, allow_promotion_codes=True, **more)
    local.pay(str(session.url), code=code)
    paid = local.client.v1.checkout.sessions.retrieve(session.id, {"expand": ["subscription.discounts"]})
    assert isinstance(paid.subscription, stripe.Subscription)
    return paid.subscription


def invoices(local: RunningLocalStripe, subscription: stripe.Subscription) -> list[int]:
    """What was due, oldest first."""
    listed = local.client.v1.invoices.list({"subscription": subscription.id})
    return [each.amount_due for each in reversed(listed.data)]


@pytest.mark.parametrize(
    ("coupon", "expected"),
    [
        ({"percent_off": 50, "duration": "once"}, [250, 500, 500, 500]),
        ({"percent_off": 50, "duration": "repeating", "duration_in_months": 2}, [250, 250, 500, 500]),
        ({"percent_off": 12.5, "duration": "forever"}, [437, 437, 437, 437]),
        ({"amount_off": 150, "currency": "eur", "duration": "once"}, [350, 500, 500, 500]),
        ({"amount_off": 900, "currency": "eur", "duration": "forever"}, [0, 0, 0, 0]),
    ],
)
def test_a_coupon_counts_for_as_long_as_it_says(
    local_stripe: RunningLocalStripe, coupon: Any, expected: list[int]
) -> None:
    make_code(local_stripe, coupon=coupon)
    subscription = buy(local_stripe)
    for _ in range(3):
        local_stripe.advance(31 * DAY)
    assert invoices(local_stripe, subscription) == expected


def test_checkout_shows_what_a_code_takes_off(local_stripe: RunningLocalStripe) -> None:
    code = make_code(local_stripe)
    session = local_stripe.open_checkout(local_stripe.make_price().id, allow_promotion_codes=True)
    assert "Promotion code" in local_stripe.see(str(session.url))[1]
    local_stripe._submit(str(session.url), {"do": "code", "code": "half"})
    html = local_stripe.see(str(session.url))[1]
    for words in ("HALF", "50 % off the first payment", "−2.50 EUR", "2.50 EUR", "Due today"):
        assert words in html
    seen = local_stripe.client.v1.checkout.sessions.retrieve(session.id, {"expand": ["line_items"]})
    assert (seen.amount_subtotal, seen.amount_total) == (500, 250)
    assert seen.total_details and seen.total_details.amount_discount == 250
    assert seen.discounts and (seen.discounts[0].promotion_code, seen.discounts[0].coupon) == (code.id, None)
    assert seen.line_items and seen.line_items.data[0].amount_discount == 250


def test_a_code_that_was_taken_back_costs_nothing_and_gives_nothing(local_stripe: RunningLocalStripe) -> None:
    code = make_code(local_stripe)
    session = local_stripe.open_checkout(local_stripe.make_price().id, allow_promotion_codes=True)
    local_stripe._submit(str(session.url), {"do": "code", "code": "HALF"})
    local_stripe._submit(str(session.url), {"do": "uncode"})
    local_stripe.pay(str(session.url))
    assert local_stripe.client.v1.invoices.list().data[0].amount_due == 500
    assert local_stripe.client.v1.promotion_codes.retrieve(code.id).times_redeemed == 0


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"active": False}, "This code is invalid"),
        ({"expires_at": 1_000_000_000}, "has expired"),
        ({"restrictions": {"minimum_amount": 600, "minimum_amount_currency": "eur"}}, "amount is too low"),
    ],
)
def test_a_code_that_cannot_be_had_says_why(local_stripe: RunningLocalStripe, limits: Any, words: str) -> None:
    make_code(local_stripe, **limits)
    session = local_stripe.open_checkout(local_stripe.make_price().id, allow_promotion_codes=True)
    with pytest.raises(PaymentRefused, match=words):
        local_stripe.pay(str(session.url), code="HALF")
    assert local_stripe.client.v1.checkout.sessions.retrieve(session.id).amount_total == 500


def test_a_wrong_code_says_so_and_a_page_without_codes_takes_none(local_stripe: RunningLocalStripe) -> None:
    make_code(local_stripe)
    price = local_stripe.make_price().id
    with pytest.raises(PaymentRefused, match="This code is invalid"):
        local_stripe.pay(str(local_stripe.open_checkout(price, allow_promotion_codes=True).url), code="QUARTER")
    plain = str(local_stripe.open_checkout(price).url)
    assert "Promotion code" not in local_stripe.see(plain)[1]
    with pytest.raises(PaymentRefused, match="takes no promotion codes"):
        local_stripe.pay(plain, code="HALF")


def test_a_code_for_one_is_used_up_by_one(local_stripe: RunningLocalStripe) -> None:
    code = make_code(local_stripe, max_redemptions=1)
    buy(local_stripe)
    used = local_stripe.client.v1.promotion_codes.retrieve(code.id)
    assert (used.times_redeemed, used.active) == (1, False)
    with pytest.raises(PaymentRefused, match="This code is invalid"):
        buy(local_stripe)


def test_a_code_for_newcomers_is_refused_to_who_has_paid(local_stripe: RunningLocalStripe) -> None:
    first = local_stripe.subscribe()
    make_code(local_stripe, restrictions={"first_time_transaction": True})
    with pytest.raises(PaymentRefused, match="prior transactions"):
        buy(local_stripe, customer=first.customer)
    assert invoices(local_stripe, buy(local_stripe)) == [250]


def test_subscription_and_invoice_name_their_discount(local_stripe: RunningLocalStripe) -> None:
    code = make_code(local_stripe, coupon={"percent_off": 50, "duration": "forever", "name": "Half price"})
    subscription = buy(local_stripe)
    (discount,) = subscription.discounts
    assert isinstance(discount, stripe.Discount)
    assert (discount.promotion_code, discount.subscription) == (code.id, subscription.id)
    assert discount.source.coupon == code.promotion.coupon
    invoice = local_stripe.client.v1.invoices.retrieve(
        str(subscription.latest_invoice), {"expand": ["discounts", "lines.data.discounts"]}
    )
    assert (invoice.subtotal, invoice.total, invoice.amount_paid) == (500, 250, 250)
    assert invoice.total_discount_amounts and invoice.total_discount_amounts[0].amount == 250
    line = invoice.lines.data[0]
    assert line.discount_amounts and line.discount_amounts[0].discount == discount.id
    assert isinstance(invoice.discounts[0], stripe.Discount) and invoice.discounts[0].id == discount.id
    html = local_stripe.see(str(invoice.hosted_invoice_url))[1]
    assert "Discount HALF" in html and "−2.50 EUR" in html


def test_a_deleted_coupon_goes_on_counting_for_who_has_it(local_stripe: RunningLocalStripe) -> None:
    code = make_code(local_stripe, coupon={"percent_off": 50, "duration": "forever"})
    subscription = buy(local_stripe)
    local_stripe.client.v1.coupons.delete(str(code.promotion.coupon))
    local_stripe.advance(31 * DAY)
    assert invoices(local_stripe, subscription) == [250, 250]


def test_a_coupon_of_a_trial_waits_for_the_first_payment(local_stripe: RunningLocalStripe) -> None:
    make_code(local_stripe)
    subscription = buy(local_stripe, subscription_data={"trial_period_days": 10})
    local_stripe.advance(11 * DAY)
    assert invoices(local_stripe, subscription) == [0, 250]


@pytest.mark.parametrize(
    ("duration", "due", "credit"),
    [("forever", 250, -500), ("once", 750, -1000)],
)
def test_a_change_gives_back_no_more_than_was_paid(
    local_stripe: RunningLocalStripe, duration: str, due: int, credit: int
) -> None:
    """Paid 2.50 of 5.00, then changed to 10.00 (half or all of it), then given back."""
    make_code(local_stripe, coupon={"percent_off": 50, "duration": duration})
    subscription = buy(local_stripe)
    bigger = local_stripe.client.v1.prices.create(
        {
            "currency": "eur",
            "unit_amount": 1000,
            "recurring": {"interval": "month"},
            "product_data": {"name": "Bigger"},
        }
    )
    change: Any = {
        "items": [{"id": subscription["items"]["data"][0]["id"], "price": bigger.id}],
        "proration_behavior": "always_invoice",
    }
    local_stripe.client.v1.subscriptions.update(subscription.id, change)
    assert abs(local_stripe.client.v1.invoices.list().data[0].amount_paid - due) <= 1
    local_stripe.client.v1.subscriptions.cancel(subscription.id, {"prorate": True, "invoice_now": True})
    assert abs(local_stripe.client.v1.invoices.list().data[0].total - credit) <= 1


def test_the_api_gives_a_coupon_too(local_stripe: RunningLocalStripe) -> None:
    coupon = local_stripe.client.v1.coupons.create({"percent_off": 20, "duration": "once", "id": "TWENTY"})
    session = local_stripe.open_checkout(local_stripe.make_price().id, discounts=[{"coupon": coupon.id}])
    assert session.amount_total == 400
    local_stripe.pay(str(session.url))
    assert local_stripe.client.v1.invoices.list().data[0].amount_paid == 400
    assert local_stripe.client.v1.coupons.retrieve("TWENTY").times_redeemed == 1


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"duration": "once"}, "percent_off"),
        ({"percent_off": 10, "amount_off": 5, "currency": "eur"}, "percent_off"),
        ({"amount_off": 5}, "currency"),
        ({"percent_off": 101}, "percent_off"),
        ({"percent_off": 10, "duration": "repeating"}, "duration_in_months"),
    ],
)
def test_a_coupon_that_makes_no_sense_is_refused(local_stripe: RunningLocalStripe, values: Any, param: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        local_stripe.client.v1.coupons.create(values)
    assert refused.value.param == param


def test_a_session_has_codes_or_a_discount_and_not_both(local_stripe: RunningLocalStripe) -> None:
    coupon = local_stripe.client.v1.coupons.create({"percent_off": 20, "duration": "once"})
    with pytest.raises(stripe.InvalidRequestError, match="only specify one of"):
        local_stripe.open_checkout(
            local_stripe.make_price().id, discounts=[{"coupon": coupon.id}], allow_promotion_codes=True
        )


def test_one_code_is_active_once(local_stripe: RunningLocalStripe) -> None:
    first = make_code(local_stripe)
    with pytest.raises(stripe.InvalidRequestError, match="already exists"):
        make_code(local_stripe, "half")
    local_stripe.client.v1.promotion_codes.update(first.id, {"active": False})
    second = make_code(local_stripe, "half")
    found = local_stripe.client.v1.promotion_codes.list({"code": "HALF", "active": True})
    assert [each.id for each in found] == [second.id]
