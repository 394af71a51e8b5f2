"""Stripe's published test cards, and what a bank answers to each."""

import hashlib
import re
from typing import NamedTuple

from .store import Json, Problem


class TestCard(NamedTuple):
    """One of Stripe's published test cards.

    `refused` at entry or `fails` at each charge, by decline code. `authenticates` says when the bank wants to hear from
    the customer: until the card was `set_up` once, or `always`. A charge of one that `disputes` is disputed soon.
    """

    number: str
    brand: str
    what: str
    refused: str = ""
    fails: str = ""
    authenticates: str = ""
    disputes: str = ""

    @property
    def spaced(self) -> str:
        return re.sub(r"(\d{4})(?=\d)", r"\1 ", self.number)


TEST_CARDS = (
    TestCard("4242424242424242", "visa", "is paid"),
    TestCard("5555555555554444", "mastercard", "is paid"),
    TestCard("4000000000000002", "visa", "is declined", refused="generic_decline"),
    TestCard("4000000000009995", "visa", "is declined: not enough money", refused="insufficient_funds"),
    TestCard(
        "4000000000000341",
        "visa",
        "can be saved in the portal, but each charge fails, also at Checkout",
        fails="generic_decline",
    ),
    TestCard(
        "4000002500003155",
        "visa",
        "asks for authentication (3-D Secure) once; renewals are paid",
        authenticates="set_up",
    ),
    TestCard(
        "4000000000003220",
        "visa",
        "asks for authentication (3-D Secure) once; renewals are paid",
        authenticates="set_up",
    ),
    TestCard(
        "4000002760003184",
        "visa",
        "asks for authentication (3-D Secure) each time, so renewals fail",
        authenticates="always",
    ),
    TestCard("4000000000000259", "visa", "is paid, then disputed as fraudulent", disputes="fraudulent"),
)
DECLINED = {
    "authentication_required": "Your card was declined. This transaction requires authentication.",
    "generic_decline": "Your card was declined.",
    "insufficient_funds": "Your card has insufficient funds.",
    "no_payment_method": "This customer has no attached payment source or default payment method.",
    "test_mode_live_card": "Your card was declined. This is test mode: please use one of the test cards.",
}


def declined(code: str) -> Problem:
    """The answer of a bank that says no, by decline code."""
    is_asked = code == "authentication_required"
    return card_error(DECLINED[code], code if is_asked else "card_declined", code)


def card_error(message: str, code: str, decline_code: str = "") -> Problem:
    return Problem(402, message, code, kind="card_error", decline_code=decline_code)


def test_card(number: str) -> TestCard:
    """The published card, or Problem 402. A real card's number is refused, so that none is ever kept here."""
    number = re.sub(r"[\s-]", "", number)
    card = next((each for each in TEST_CARDS if each.number == number), None)
    if card is None:
        if not re.fullmatch("[0-9]{12,19}", number):
            raise card_error("Your card number is incorrect.", "incorrect_number")
        raise declined("test_mode_live_card")
    if card.refused:
        raise declined(card.refused)
    return card


def card_fields(card: TestCard, exp_month: int, exp_year: int) -> Json:
    """What a payment method tells of its card, and our notes on how it behaves."""
    return {
        "card": {
            "brand": card.brand,
            "checks": {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"},
            "country": "US",
            "display_brand": card.brand,
            "exp_month": exp_month,
            "exp_year": exp_year,
            "fingerprint": hashlib.sha256(card.number.encode()).hexdigest()[:16],
            "funding": "credit",
            "generated_from": None,
            "last4": card.number[-4:],
            "networks": {"available": [card.brand], "preferred": None},
            "three_d_secure_usage": {"supported": True},
            "wallet": None,
        },
        "_fails": card.fails,
        "_authenticates": card.authenticates,
        "_set_up": False,
        "_disputes": card.disputes,
    }


def full_year(year: int) -> int:
    """A card's year as four digits: cards show two."""
    return 2000 + year if year < 100 else year
