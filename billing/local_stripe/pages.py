"""What people see of the local Stripe: Checkout, Billing Portal, invoices; and an index for developers."""

import re
from datetime import UTC, datetime
from typing import Any

from .cards import declined
from .checkout_page import CheckoutPage
from .money import Money
from .page import Page, card_form, day, expiry, message, money_text, render
from .periods import DAY
from .portal_page import PortalPage, invoice_row, subscription_row
from .store import Json, Problem, Store
from .webhooks import MODES, Webhooks

__all__ = ["Page", "Pages", "message"]

SHOWN_EVENTS = 20
# What can follow the last try of a payment, in words.
AFTER_RETRIES = {
    "cancel": "the subscription is cancelled",
    "unpaid": "the subscription is left unpaid",
    "past_due": "the subscription stays past due",
}
MODE_WORDS = {"deliver": "delivered", "hold": "held back until they are delivered again", "drop": "lost for ever"}


class Pages:
    """Answers the requests outside /v1. `form` is empty for a GET."""

    def __init__(self, store: Store, webhooks: Webhooks, money: Money) -> None:
        self.store = store
        self.webhooks = webhooks
        self.money = money
        self.checkout = CheckoutPage(store, money)
        self.portal = PortalPage(store, money)

    def answer(self, method: str, path: str, form: dict[str, str]) -> Page:
        posted = method == "POST"
        match path.strip("/").split("/"):
            case [""]:
                return self.index(posted, form)
            case ["c", "pay", session_id]:
                return self.checkout.answer(session_id, posted, form)
            case ["p", "session", session_id, *rest]:
                return self.portal.answer(session_id, rest, posted, form)
            case ["i", invoice_id]:
                return self.invoice(invoice_id, posted, form)
        return message(404, "Page not found", "The local Stripe has no page at this address.")

    # Invoice --------------------------------------------------------------------------------------

    def invoice(self, invoice_id: str, posted: bool, form: dict[str, str]) -> Page:
        invoice = self.store.get("invoice", invoice_id)
        if not posted:
            return self._show_invoice(invoice, form)
        try:
            if invoice["status"] == "open":  # else pressed twice
                self._pay_invoice(invoice, form)
        except Problem as problem:
            return self._show_invoice(invoice, form, problem.message)
        return Page(303, location=f"/i/{invoice_id}")

    def _pay_invoice(self, invoice: Json, form: dict[str, str]) -> None:
        """The customer pays with a card that is used this once, and is there if the bank asks."""
        if self.money.charges.is_asking(invoice):
            return self.money.answer_bank(invoice, form.get("do") == "authenticate")
        month, year = expiry(form.get("exp", ""))
        card = self.money.make_card(form.get("number", ""), month, year)
        refusal = self.money.pay(invoice, by_hand=True, present=True, card=card)
        if refusal and not self.money.charges.is_asking(invoice):
            raise declined(refusal)
        return None

    def _show_invoice(self, invoice: Json, form: dict[str, str], error: str = "") -> Page:
        currency, refunded = invoice["currency"], self._refunded(invoice)
        if self.money.charges.is_asking(invoice) and not error:
            total = money_text(invoice["amount_due"], currency)
            return render("authenticate", {"price": {"name": f"Invoice {invoice['number']}"}, "total": total})
        context = {
            "error": error,
            "form": card_form(form, self.store.now()),
            "invoice": invoice,
            "row": invoice_row(invoice),
            "lines": [self._line(line) for line in invoice["lines"]["data"]],
            "sums": [(words, money_text(amount, currency)) for words, amount in self._sums(invoice) if amount],
            "last": "Paid" if invoice["status"] == "paid" else "Due",
            "total": money_text(invoice["amount_due"], currency),
            "refunded": money_text(refunded, currency) if refunded else "",
            "paid": day(invoice["status_transitions"]["paid_at"]),
        }
        return render("invoice", context, 402 if error else 200)

    def _line(self, line: Json) -> dict[str, str]:
        return {
            "what": line["description"],
            "begins": day(line["period"]["start"]),
            "ends": day(line["period"]["end"]),
            "amount": money_text(line["amount"], line["currency"]),
        }

    def _sums(self, invoice: Json) -> list[tuple[str, int]]:
        """What leads from the lines to what is due."""
        subtotal = invoice["subtotal"] if invoice["subtotal"] != invoice["total"] else 0
        credit = invoice["amount_due"] - invoice["total"]
        return [
            ("Subtotal", subtotal),
            *(
                (f"Discount {self.money.discounts.name(each['discount'])}", -each["amount"])
                for each in invoice["total_discount_amounts"]
            ),
            *((_tax_words(self.store, each), each["amount"]) for each in invoice["total_taxes"]),
            ("Credit used" if credit < 0 else "Kept as credit", credit),
        ]

    def _refunded(self, invoice: Json) -> int:
        payment = self.money.charges.payment_of(invoice)
        if payment is None:
            return 0
        intent = self.store.get("payment_intent", payment["payment"]["payment_intent"])
        charge = self.store.find("charge", intent["latest_charge"])
        return charge["amount_refunded"] if charge else 0

    # Index ----------------------------------------------------------------------------------------

    def index(self, posted: bool, form: dict[str, str]) -> Page:
        """What is in here, and what only the local Stripe can do with it."""
        if not posted:
            return render("index", self._overview())
        try:
            self._help(form)
        except Problem as problem:
            return message(400, "That did not work", problem.message, "/")
        return Page(303, location="/")

    def _help(self, form: dict[str, str]) -> None:
        match form:
            case {"after_retries": wanted} if wanted in AFTER_RETRIES:
                self.store.settings["after_retries"] = wanted
            case {"webhooks": mode} if mode in MODES:
                self.webhooks.set_mode(mode)
            case {"dispute": dispute_id, "verdict": "won" | "lost" as verdict}:
                self.money.charges.close(self.store.get("dispute", dispute_id), verdict)
            case {"days": days} if re.fullmatch("[0-9]{1,4}", days):
                self.money.advance(int(days) * DAY)
            case _:
                raise Problem(400, "Please enter a number of days.")

    def _overview(self) -> dict[str, Any]:
        is_held = self.webhooks.mode == "hold"
        waiting = len(self.store.deliveries if is_held else self.webhooks.waiting())
        return {
            "now": datetime.fromtimestamp(self.store.now(), UTC),
            "ahead": self.store.clock_offset // DAY,
            "subscriptions": [self._index_row(each) for each in self._newest("subscription")],
            "disputes": [self._dispute_row(each) for each in self._newest("dispute")],
            "codes": [self._code_row(each) for each in self._newest("promotion_code")],
            "after_retries": self.store.settings["after_retries"],
            "after_retries_choices": AFTER_RETRIES,
            "endpoints": self.store.all("webhook_endpoint"),
            "events": [self.store.public(each) for each in self._newest("event")],
            "mode": self.webhooks.mode,
            "modes": MODE_WORDS,
            "waiting": waiting,
            "given_up": len(self.store.deliveries) - waiting,
        }

    def _newest(self, kind: str) -> list[Json]:
        return [each for each, _ in zip(self.store.newest(kind), range(SHOWN_EVENTS), strict=False)]

    def _index_row(self, subscription: Json) -> dict[str, Any]:
        customer = self.store.get("customer", subscription["customer"])
        return subscription_row(self.store, subscription) | {"email": customer.get("email", "deleted customer")}

    def _dispute_row(self, dispute: Json) -> dict[str, Any]:
        amount = money_text(dispute["amount"], dispute["currency"])
        return {
            "id": dispute["id"],
            "amount": amount,
            "status": dispute["status"],
            "reason": dispute["reason"],
            "is_open": dispute["status"] not in ("won", "lost"),
        }

    def _code_row(self, code: Json) -> dict[str, Any]:
        return {"code": code["code"], "active": code["active"], "times": code["times_redeemed"]}


def _tax_words(store: Store, tax: Json) -> str:
    rate = store.get("tax_rate", tax["tax_rate_details"]["tax_rate"])
    inside = ", in the price" if tax["tax_behavior"] == "inclusive" else ""
    return f"Tax ({rate['percentage']:g} %{inside})"
