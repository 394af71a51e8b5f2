"""Periods of a subscription, and what a change within one is worth. Pure arithmetic, in seconds since 1970."""

from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from .amounts import rounded
from .store import Json

DAY = 86_400


@dataclass(frozen=True)
class Part:
    """What the rest of a period is worth at one price: negative when it is given back."""

    words: str
    price: Json
    quantity: int
    amount: int
    start: int
    end: int


def next_boundary(anchor: int, start: int, recurring: Json) -> int:
    """When the period that begins at `start` ends, in seconds since 1970.

    Months are calendar months counted from the anchor: one that began on the 31st ends on the last day of a
    shorter month, and on the 31st again after it.
    """
    count = recurring["interval_count"]
    if recurring["interval"] in ("day", "week"):
        return int(start + count * DAY * (7 if recurring["interval"] == "week" else 1))
    first, last = (datetime.fromtimestamp(moment, UTC) for moment in (anchor, start))
    months = (last.year - first.year) * 12 + last.month - first.month
    months += count * (12 if recurring["interval"] == "year" else 1)
    year, month = divmod(first.year * 12 + first.month - 1 + months, 12)
    day = min(first.day, monthrange(year, month + 1)[1])
    return int(first.replace(year=year, month=month + 1, day=day).timestamp())


def is_other_rhythm(old: Json, new: Json) -> bool:
    """Whether the two prices are paid in different intervals, so that a change begins a new period."""
    return any(old["recurring"][name] != new["recurring"][name] for name in ("interval", "interval_count"))


def unused(item: Json, price: Json, quantity: int, now: int) -> Part:
    """The rest of the item's period, which was to be used at this price, given back as far as it was paid."""
    amount = _rest(item, price, quantity, now, Decimal(item.get("_share", 1)))
    return Part("Unused time on", price, quantity, -amount, now, item["current_period_end"])


def remaining(item: Json, price: Json, quantity: int, now: int, share: Decimal = Decimal(1)) -> Part:
    """The rest of the item's period at this price, of which discounts leave a share."""
    amount = _rest(item, price, quantity, now, share)
    return Part("Remaining time on", price, quantity, amount, now, item["current_period_end"])


def _rest(item: Json, price: Json, quantity: int, now: int, share: Decimal) -> int:
    """By the second."""
    start, end = item["current_period_start"], item["current_period_end"]
    return rounded(price["unit_amount"] * quantity * share * Decimal(max(0, end - now)) / (end - start))
