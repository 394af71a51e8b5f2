"""What a bill of the local Stripe comes to."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as some

from billing.local_stripe.amounts import Charge, Off, Rate, reckon

FRANCE = Rate("txr_fr", Decimal(20), "standard_rated")


def half(percent: int = 50) -> Off:
    return Off("di_half", Decimal(percent))


@pytest.mark.parametrize(("amount", "discount"), [(999, 500), (1, 1), (1000, 500)])
def test_half_a_cent_off_is_rounded_up(amount: int, discount: int) -> None:
    bill = reckon([Charge(amount)], [half()])
    assert (bill.subtotal, bill.discount, bill.total) == (amount, discount, amount - discount)


def test_a_fixed_discount_never_makes_a_bill_negative() -> None:
    bill = reckon([Charge(500)], [Off("di_fixed", amount=700)])
    assert (bill.discount, bill.total) == (500, 0)


def test_a_second_discount_takes_its_share_of_the_rest() -> None:
    bill = reckon([Charge(1000)], [half(), Off("di_tenth", Decimal(10))])
    assert bill.discounts == {"di_half": 500, "di_tenth": 50}


def test_prorations_are_not_discounted() -> None:
    bill = reckon([Charge(-300, discountable=False), Charge(1000)], [half()])
    assert (bill.subtotal, bill.discount, bill.total) == (700, 500, 200)
    assert bill.lines[0].shown()["discount_amounts"] == []


def test_tax_is_on_what_the_discount_leaves() -> None:
    shown = reckon([Charge(1000)], [half()], FRANCE).shown()
    assert (shown["subtotal"], shown["total_excluding_tax"], shown["total"]) == (1000, 500, 600)
    assert shown["total_discount_amounts"] == [{"amount": 500, "discount": "di_half"}]
    (tax,) = shown["total_taxes"]
    assert (tax["amount"], tax["taxable_amount"], tax["tax_behavior"]) == (100, 500, "exclusive")
    assert tax["tax_rate_details"] == {"tax_rate": "txr_fr"}


def test_a_price_with_tax_in_it_costs_no_more() -> None:
    shown = reckon([Charge(1200, tax_inclusive=True)], rate=FRANCE).shown()
    assert (shown["subtotal"], shown["subtotal_excluding_tax"], shown["total"]) == (1200, 1000, 1200)
    (tax,) = shown["total_taxes"]
    assert (tax["amount"], tax["taxable_amount"], tax["tax_behavior"]) == (200, 1000, "inclusive")


def test_a_bill_without_tax_names_none() -> None:
    assert reckon([Charge(1000)]).shown()["total_taxes"] == []


charges = some.builds(
    Charge, some.integers(-(10**7), 10**7), discountable=some.booleans(), tax_inclusive=some.booleans()
)
offs = some.one_of(
    some.builds(Off, some.sampled_from(["a", "b"]), some.decimals(0, 100, places=2)),
    some.builds(Off, some.sampled_from(["c", "d"]), amount=some.integers(1, 10**7)),
)
rates = some.none() | some.builds(Rate, some.just("txr"), some.decimals(0, 30, places=2), some.just("standard_rated"))


@given(some.lists(charges, max_size=5), some.lists(offs, max_size=3, unique_by=lambda off: off.discount), rates)
def test_lines_and_bill_agree_to_the_cent(lines: list[Charge], discounts: list[Off], rate: Rate | None) -> None:
    bill = reckon(lines, discounts, rate)
    shown, shown_lines = bill.shown(), [line.shown() for line in bill.lines]
    exclusive = sum(tax["amount"] for tax in shown["total_taxes"] if tax["tax_behavior"] == "exclusive")
    assert shown["total"] == shown["subtotal"] - bill.discount + exclusive
    assert shown["total"] == shown["total_excluding_tax"] + bill.tax
    for name, key in (("discount_amounts", "total_discount_amounts"), ("taxes", "total_taxes")):
        assert sum(each["amount"] for line in shown_lines for each in line[name]) == sum(
            each["amount"] for each in shown[key]
        )
    for line in bill.lines:
        assert 0 <= sum(line.discounts.values()) <= max(0, line.charge.amount)


@given(some.lists(charges, max_size=5), rates)
def test_a_credit_takes_back_exactly_what_was_charged(lines: list[Charge], rate: Rate | None) -> None:
    back = [Charge(-each.amount, each.discountable, each.tax_inclusive) for each in lines]
    assert reckon(lines, rate=rate).total == -reckon(back, rate=rate).total
