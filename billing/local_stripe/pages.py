"""What customers see of the local Stripe: Checkout, Billing Portal, invoice; and an index for developers."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.template.loader import render_to_string

from .money import DAY, LIVING, TEST_CARDS, Money, full_year, item_of
from .store import Json, Problem, Store
from .webhooks import Webhooks

ZERO_DECIMAL = ("jpy", "krw", "vnd", "clp", "xaf", "xof")
SHOWN_EVENTS = 20


@dataclass(frozen=True)
class Page:
    status: int
    html: str = ""
    location: str = ""


class Pages:
    """Answers the requests outside /v1. `form` is empty for a GET."""

    def __init__(self, store: Store, webhooks: Webhooks, money: Money) -> None:
        self.store = store
        self.webhooks = webhooks
        self.money = money

    def answer(self, method: str, path: str, form: dict[str, str]) -> Page:
        posted = method == "POST"
        match path.strip("/").split("/"):
            case [""]:
                return self.index(posted, form)
            case ["c", "pay", session_id]:
                return self.checkout(session_id, posted, form)
            case ["p", "session", session_id]:
                return self.portal(session_id, posted, form)
            case ["i", invoice_id] if not posted:
                return self.invoice(invoice_id)
        return message(404, "Page not found", "The local Stripe has no page at this address.")

    # Checkout -------------------------------------------------------------------------------------

    def checkout(self, session_id: str, posted: bool, form: dict[str, str]) -> Page:
        session = self.store.get("checkout.session", session_id)
        if session["status"] == "complete" and posted:
            # A second click on "pay" goes where the first one went, and pays nothing.
            return Page(303, location=_success(session))
        if session["status"] != "open":
            return self._closed(session)
        if not posted:
            return self._checkout_page(session, form)
        try:
            email = self._email(session, form)
            month, year = _expiry(form.get("exp", ""))
            self.money.complete_checkout(session, email, form.get("number", ""), month, year)
        except Problem as problem:
            return self._checkout_page(session, form, problem.message)
        return Page(303, location=_success(session))

    def _email(self, session: Json, form: dict[str, str]) -> str:
        """Who pays. Only asked for when the product did not say."""
        customer = self.store.find("customer", session["customer"])
        email = (customer or {}).get("email") or session["customer_email"] or form.get("email", "").strip()
        if not customer and not re.fullmatch(r"[^@\s]+@[^@\s]+", email):
            raise Problem(400, "Please enter your e-mail address.", param="email")
        return str(email)

    def _closed(self, session: Json) -> Page:
        if session["status"] == "complete":
            return message(
                200,
                "Already paid",
                "This payment is complete. There is nothing left to do here.",
                _success(session),
            )
        return message(
            410,
            "This page has expired",
            "Nothing was charged. Go back and start again.",
            session["cancel_url"] or "",
        )

    def _checkout_page(self, session: Json, form: dict[str, str], error: str = "") -> Page:
        line = session["_line_items"][0]
        price = self.store.get("price", line["price"])
        customer = self.store.find("customer", session["customer"]) or {}
        context = {
            "session": session,
            "line": line,
            "total": money_text(line["amount_total"], line["currency"]),
            "every": every(price["recurring"]),
            "trial_days": session["_subscription_data"].get("trial_period_days"),
            "email": customer.get("email") or session["customer_email"],
            "ask_email": not (customer or session["customer_email"]),
            "form": self._card_form(form),
            "error": error,
        }
        return _render("checkout", context, 402 if error else 200)

    def _card_form(self, form: dict[str, str]) -> dict[str, str]:
        """What was typed, or the card that works: nobody should have to type a test card."""
        year = datetime.fromtimestamp(self.store.now(), UTC).year + 5
        ready = {"email": "", "number": TEST_CARDS[0].spaced, "exp": f"12 / {year % 100}", "cvc": "123"}
        return ready | {name: form[name] for name in ready if name in form}

    # Billing portal -------------------------------------------------------------------------------

    def portal(self, session_id: str, posted: bool, form: dict[str, str]) -> Page:
        session = self.store.get("billing_portal.session", session_id)
        customer = self.store.get("customer", session["customer"])
        if customer.get("deleted"):
            return message(410, "No such customer", "This customer was deleted.", session["return_url"] or "")
        if not posted:
            return self._portal_page(session, customer, form)
        try:
            self._portal_deed(customer, form)
        except Problem as problem:
            return self._portal_page(session, customer, form, problem.message)
        return Page(303, location=f"/p/session/{session_id}")

    def _portal_deed(self, customer: Json, form: dict[str, str]) -> None:
        match form.get("do"):
            case "cancel":
                self.money.schedule_cancel(self._own_subscription(customer, form), by_portal=True)
            case "resume":
                self.money.cancel_at(self._own_subscription(customer, form), None)
            case "card":
                self._new_card(customer, form)
            case _:
                raise Problem(400, "The portal cannot do this.")

    def _own_subscription(self, customer: Json, form: dict[str, str]) -> Json:
        for subscription in self.store.of_customer("subscription", customer["id"]):
            if subscription["id"] == form.get("sub") and subscription["status"] in LIVING:
                return subscription
        raise Problem(404, "This subscription has ended.")

    def _new_card(self, customer: Json, form: dict[str, str]) -> None:
        month, year = _expiry(form.get("exp", ""))
        card = self.money.make_card(form.get("number", ""), month, year)
        if not self.money.replace_card(card, customer):
            raise Problem(402, "The new card is saved, but it was declined when paying the open invoice.")

    def _portal_page(self, session: Json, customer: Json, form: dict[str, str], error: str = "") -> Page:
        subscriptions = [
            self._subscription_row(each)
            for each in self.store.of_customer("subscription", customer["id"])
            if each["status"] in (*LIVING, "incomplete")
        ]
        invoices = reversed(self.store.of_customer("invoice", customer["id"]))
        card = self.store.find("payment_method", customer["invoice_settings"]["default_payment_method"])
        context = {
            "customer": customer,
            "return_url": session["return_url"],
            "subscriptions": subscriptions,
            "card": card and card["card"],
            "invoices": [self._invoice_row(each) for each in invoices],
            "form": self._card_form(form if error else {}),
            "error": error,
        }
        return _render("portal", context, 402 if error else 200)

    def _subscription_row(self, subscription: Json) -> dict[str, Any]:
        item = item_of(subscription)
        price = self.store.get("price", item["price"])
        return {
            "id": subscription["id"],
            "name": self.store.get("product", price["product"])["name"],
            "status": subscription["status"],
            "price": money_text(price["unit_amount"] * item["quantity"], price["currency"]),
            "every": every(price["recurring"]),
            "ends": _day(subscription["cancel_at"]),
            "renews": _day(item["current_period_end"]),
            "living": subscription["status"] in LIVING,
        }

    # Invoice and index ----------------------------------------------------------------------------

    def _invoice_row(self, invoice: Json) -> dict[str, Any]:
        return {
            "number": invoice["number"],
            "url": invoice["hosted_invoice_url"],
            "total": money_text(invoice["total"], invoice["currency"]),
            "status": invoice["status"],
            "day": _day(invoice["created"]),
        }

    def invoice(self, invoice_id: str) -> Page:
        invoice = self.store.get("invoice", invoice_id)
        line = invoice["lines"]["data"][0]
        context = {
            "invoice": invoice,
            "row": self._invoice_row(invoice),
            "line": line["description"],
            "begins": _day(line["period"]["start"]),
            "ends": _day(line["period"]["end"]),
            "paid": _day(invoice["status_transitions"]["paid_at"]),
        }
        return _render("invoice", context)

    def index(self, posted: bool, form: dict[str, str]) -> Page:
        """What is in here, and a form that moves the clock."""
        if posted:
            days = form.get("days", "")
            if not re.fullmatch("[0-9]{1,4}", days):
                return message(400, "How many days?", "Please enter a number of days.", "/")
            self.money.advance(int(days) * DAY)
            return Page(303, location="/")
        context = {
            "now": datetime.fromtimestamp(self.store.now(), UTC),
            "ahead": self.store.clock_offset // DAY,
            "subscriptions": [self._index_row(each) for each in reversed(self.store.all("subscription"))],
            "endpoints": self.store.all("webhook_endpoint"),
            "events": [self.store.public(each) for each in self.store.all("event")[: -SHOWN_EVENTS - 1 : -1]],
            "waiting": len(self.webhooks.waiting()),
            "given_up": len(self.store.deliveries) - len(self.webhooks.waiting()),
        }
        return _render("index", context)

    def _index_row(self, subscription: Json) -> dict[str, Any]:
        customer = self.store.get("customer", subscription["customer"])
        return self._subscription_row(subscription) | {"email": customer.get("email", "deleted customer")}


def message(status: int, title: str, words: str, back: str = "") -> Page:
    return _render("message", {"title": title, "words": words, "back": back}, status)


def money_text(amount: int, currency: str) -> str:
    """An amount in the currency's smallest unit, for people: 500 and eur give `5.00 EUR`."""
    shown = str(amount) if currency in ZERO_DECIMAL else f"{amount // 100}.{amount % 100:02d}"
    return f"{shown} {currency.upper()}"


def every(recurring: Json) -> str:
    count = recurring["interval_count"]
    return f"per {recurring['interval']}" if count == 1 else f"every {count} {recurring['interval']}s"


def _day(moment: int | None) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%-d %B %Y") if moment else ""


def _success(session: Json) -> str:
    return str(session["success_url"]).replace("{CHECKOUT_SESSION_ID}", session["id"])


def _expiry(typed: str) -> tuple[int, int]:
    """Month and year as a card shows them: `12 / 31`, `12/2031`, `1231`."""
    match = re.fullmatch(r"\s*([0-9]{2})\s*/?\s*([0-9]{2}|[0-9]{4})\s*", typed)
    if match is None:
        raise Problem(402, "Please enter the card's expiry date as MM / YY.", "invalid_expiry_year")
    return int(match[1]), full_year(int(match[2]))


def _render(template: str, context: dict[str, Any], status: int = 200) -> Page:
    return Page(
        status,
        render_to_string(f"billing/local_stripe/{template}.html", context | {"test_cards": TEST_CARDS}),
    )
