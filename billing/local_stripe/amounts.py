"""What a bill comes to: subtotal, discounts, tax and total, in whole units of the smallest coin.

Halves are rounded away from zero, so that a credit takes back exactly what was charged. A discount counts for the whole
bill and is spread over its lines by their amounts; tax is rounded line by line.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from itertools import accumulate

from .store import Json


@dataclass(frozen=True)
class Charge:
    """A line before discounts and tax. Credits are negative, and like all prorations not discounted."""

    amount: int
    discountable: bool = True
    tax_inclusive: bool = False


@dataclass(frozen=True)
class Off:
    """A discount (by id) that takes off a share of the bill or a fixed amount."""

    discount: str
    percent: Decimal | None = None
    amount: int = 0


@dataclass(frozen=True)
class Rate:
    """A tax rate (by id), and why it is what it is in Stripe's words."""

    tax_rate: str
    percent: Decimal
    reason: str


@dataclass(frozen=True)
class Line:
    """A line of the bill, reckoned: `discounts` are the amounts by discount."""

    charge: Charge
    discounts: dict[str, int]
    tax: int
    rate: Rate | None

    @property
    def taxable(self) -> int:
        left = self.charge.amount - sum(self.discounts.values())
        return left - self.tax if self.charge.tax_inclusive else left

    @property
    def total(self) -> int:
        return self.taxable + self.tax

    @property
    def share(self) -> Decimal:
        """What its discounts leave of it, as a part of the whole."""
        amount = self.charge.amount
        return Decimal(amount - sum(self.discounts.values())) / amount if amount else Decimal(1)

    def shown(self) -> Json:
        """What an invoice's line says of it."""
        return {
            "discount_amounts": _discount_amounts(self.discounts),
            "discounts": list(self.discounts),
            "taxes": _taxes([self]),
        }


@dataclass(frozen=True)
class Bill:
    """All lines together."""

    lines: list[Line]

    @property
    def subtotal(self) -> int:
        return sum(line.charge.amount for line in self.lines)

    @property
    def discounts(self) -> dict[str, int]:
        names = dict.fromkeys(name for line in self.lines for name in line.discounts)
        return {name: sum(line.discounts.get(name, 0) for line in self.lines) for name in names}

    @property
    def discount(self) -> int:
        return sum(self.discounts.values())

    @property
    def tax(self) -> int:
        return sum(line.tax for line in self.lines)

    @property
    def total(self) -> int:
        return sum(line.total for line in self.lines)

    def shown(self) -> Json:
        """What an invoice says of it."""
        taxes_in_prices = sum(line.tax for line in self.lines if line.charge.tax_inclusive)
        return {
            "discounts": list(self.discounts),
            "subtotal": self.subtotal,
            "subtotal_excluding_tax": self.subtotal - taxes_in_prices,
            "total": self.total,
            "total_discount_amounts": _discount_amounts(self.discounts),
            "total_excluding_tax": self.total - self.tax,
            "total_taxes": _taxes(self.lines),
        }


def reckon(charges: Sequence[Charge], discounts: Sequence[Off] = (), rate: Rate | None = None) -> Bill:
    """The bill for these lines. Each discount takes its share of what those before it left, and never more."""
    taken: list[dict[str, int]] = [{} for _ in charges]
    for off in discounts:
        bases = [_base(charge, already) for charge, already in zip(charges, taken, strict=True)]
        for already, part in zip(taken, _spread(_off(off, sum(bases)), bases), strict=True):
            if part:
                already[off.discount] = part
    lines = [_line(charge, already, rate) for charge, already in zip(charges, taken, strict=True)]
    return Bill(lines)


def rounded(amount: Decimal) -> int:
    return int(amount.quantize(Decimal(1), ROUND_HALF_UP))


def _base(charge: Charge, already: dict[str, int]) -> int:
    """What of a line can still be discounted."""
    return charge.amount - sum(already.values()) if charge.discountable and charge.amount > 0 else 0


def _off(off: Off, base: int) -> int:
    return min(base, off.amount if off.percent is None else rounded(base * off.percent / 100))


def _spread(whole: int, bases: list[int]) -> list[int]:
    """Parts in proportion to the bases, none lost to rounding."""
    if whole == 0:
        return [0] * len(bases)
    ends = [rounded(Decimal(whole) * reached / sum(bases)) for reached in accumulate(bases)]
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


def _line(charge: Charge, discounts: dict[str, int], rate: Rate | None) -> Line:
    left = charge.amount - sum(discounts.values())
    percent = rate.percent if rate else Decimal(0)
    share = percent / (100 + percent) if charge.tax_inclusive else percent / 100
    return Line(charge, discounts, rounded(left * share), rate)


def _discount_amounts(amounts: dict[str, int]) -> list[Json]:
    return [{"amount": amount, "discount": name} for name, amount in amounts.items()]


def _taxes(lines: list[Line]) -> list[Json]:
    """The tax of these lines: one entry for prices without tax, one for prices with it."""
    entries = []
    for inclusive in (False, True):
        same = [line for line in lines if line.charge.tax_inclusive == inclusive and line.rate]
        if same and (rate := same[0].rate):
            entries.append(
                {
                    "amount": sum(line.tax for line in same),
                    "tax_behavior": "inclusive" if inclusive else "exclusive",
                    "tax_rate_details": {"tax_rate": rate.tax_rate},
                    "taxability_reason": rate.reason,
                    "taxable_amount": sum(line.taxable for line in same),
                    "type": "tax_rate_details",
                }
            )
    return entries
