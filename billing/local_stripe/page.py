"""What all pages of the local Stripe share: how they are rendered, and how money, days and cards are written."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.template.loader import render_to_string

from .amounts import Bill
from .cards import TEST_CARDS, full_year
from .store import Json, Problem

ZERO_DECIMAL = ("jpy", "krw", "vnd", "clp", "xaf", "xof")


@dataclass(frozen=True)
class Page:
    status: int
    html: str = ""
    location: str = ""


def render(template: str, context: dict[str, Any], status: int = 200) -> Page:
    known = {"test_cards": TEST_CARDS}
    return Page(status, render_to_string(f"billing/local_stripe/{template}.html", known | context))


def message(status: int, title: str, words: str, back: str = "") -> Page:
    return render("message", {"title": title, "words": words, "back": back}, status)


def money_text(amount: int, currency: str) -> str:
    """An amount in the currency's smallest unit, for people: 500 and eur give `5.00 EUR`."""
    sign = "−" if amount < 0 else ""
    shown = str(abs(amount)) if currency in ZERO_DECIMAL else f"{abs(amount) // 100}.{abs(amount) % 100:02d}"
    return f"{sign}{shown} {currency.upper()}"


def every(recurring: Json) -> str:
    count = recurring["interval_count"]
    return f"per {recurring['interval']}" if count == 1 else f"every {count} {recurring['interval']}s"


def day(moment: int | None) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%-d %B %Y") if moment else ""


def price_row(price: Json, product: Json, quantity: int = 1) -> dict[str, Any]:
    """What is sold, in words: the product, what sets this price apart, and what it costs."""
    return {
        "id": price["id"],
        "name": product["name"],
        "nickname": price["nickname"],
        "amount": money_text(price["unit_amount"] * quantity, price["currency"]),
        "every": every(price["recurring"]),
    }


def sum_rows(bill: Bill, currency: str, discount_name: str, tax_percent: str) -> list[tuple[str, str]]:
    """What leads from the subtotal to the total, if anything does."""
    rows = [("Subtotal", money_text(bill.subtotal, currency))]
    if bill.discount:
        rows.append((f"Discount {discount_name}", money_text(-bill.discount, currency)))
    if tax_percent:
        is_inside = any(line.charge.tax_inclusive for line in bill.lines)
        rows.append((f"Tax ({tax_percent} %{', in the price' if is_inside else ''})", money_text(bill.tax, currency)))
    return rows if len(rows) > 1 else []


def card_form(form: dict[str, str], now: int) -> dict[str, str]:
    """What was typed, or the card that works: nobody should have to type a test card."""
    year = datetime.fromtimestamp(now, UTC).year + 5
    ready = {"email": "", "number": TEST_CARDS[0].spaced, "exp": f"12 / {year % 100}", "cvc": "123"}
    return ready | {name: form[name] for name in ready if name in form}


def email_of(typed: str) -> str:
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", typed.strip()):
        raise Problem(400, "Please enter your e-mail address.", param="email")
    return typed.strip()


def expiry(typed: str) -> tuple[int, int]:
    """Month and year as a card shows them: `12 / 31`, `12/2031`, `1231`."""
    match = re.fullmatch(r"\s*([0-9]{2})\s*/?\s*([0-9]{2}|[0-9]{4})\s*", typed)
    if match is None:
        raise Problem(402, "Please enter the card's expiry date as MM / YY.", "invalid_expiry_year")
    return int(match[1]), full_year(int(match[2]))
