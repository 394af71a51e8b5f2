"""Checkout as customers see it: what they pay, where they are, a code, a card, and the bank's question."""

from .checkout import Checkouts
from .money import Money
from .page import Page, card_form, day, email_of, expiry, message, money_text, price_row, render, sum_rows
from .store import Json, Problem, Store
from .tax import COUNTRIES


class CheckoutPage:
    """Answers /c/pay/<session>."""

    def __init__(self, store: Store, money: Money) -> None:
        self.store = store
        self.money = money
        self.checkouts = Checkouts(store, money.discounts, money.taxes)

    def answer(self, session_id: str, posted: bool, form: dict[str, str]) -> Page:
        session = self.store.get("checkout.session", session_id)
        if session["status"] == "complete" and posted:
            # A second click on "pay" goes where the first one went, and pays nothing.
            return Page(303, location=_success(session))
        if session["status"] != "open":
            return _closed(session)
        if not posted:
            return self._show(session, form)
        try:
            self._do(session, form)
        except Problem as problem:
            return self._show(session, form, problem.message)
        is_over = session["status"] == "complete"
        return Page(303, location=_success(session) if is_over else f"/c/pay/{session_id}")

    def _do(self, session: Json, form: dict[str, str]) -> None:
        match form.get("do"):
            case "code":
                self.checkouts.use_code(session, form.get("code", ""))
            case "uncode":
                self.checkouts.drop_code(session)
            case "address":
                self.checkouts.take_address(session, form)
            case "authenticate" | "refuse" if self.money.is_authenticating(session):
                self.money.authenticate(session, form["do"] == "authenticate")
            case _:
                self._pay(session, form)

    def _pay(self, session: Json, form: dict[str, str]) -> None:
        if self.checkouts.wants_address(session):
            raise Problem(400, "Please say where you are first.", param="country")
        email = self._email(session, form)
        month, year = expiry(form.get("exp", ""))
        self.money.complete_checkout(session, email, form.get("number", ""), month, year)

    def _email(self, session: Json, form: dict[str, str]) -> str:
        """Who pays. Only asked for when the product did not say."""
        customer = self.checkouts.customer_of(session)
        known = (customer or {}).get("email") or session["customer_email"] or ""
        return str(known) if customer or known else email_of(form.get("email", ""))

    # Showing --------------------------------------------------------------------------------------

    def _show(self, session: Json, form: dict[str, str], error: str = "") -> Page:
        line = session["_line_items"][0]
        price = self.store.get("price", line["price"])
        bill, currency = self.checkouts.bill(session), line["currency"]
        rate = bill.lines[0].rate
        code = self._code(session)
        context = {
            "session": session,
            "price": price_row(price, self.store.get("product", price["product"]), line["quantity"]),
            "quantity": line["quantity"],
            "sums": sum_rows(bill, currency, code["name"] if code else "", str(rate.percent) if rate else ""),
            "total": money_text(bill.total, currency),
            "error": error,
        }
        if self.money.is_authenticating(session):
            return render("authenticate", context, 402 if error else 200)
        customer = self.checkouts.customer_of(session) or {}
        trial_days = session["_subscription_data"].get("trial_period_days")
        context |= {
            "trial_days": trial_days,
            "trial_end": day(self.store.now() + trial_days * 86_400) if trial_days else "",
            "code": code,
            "asks_address": self.checkouts.asks_address(session),
            "wants_address": self.checkouts.wants_address(session),
            "countries": COUNTRIES,
            "address": self._address(session, form),
            "email": customer.get("email") or session["customer_email"],
            "ask_email": not (customer or session["customer_email"]),
            "form": card_form(form, self.store.now()) | {"code": form.get("code", "")},
        }
        return render("checkout", context, 402 if error else 200)

    def _code(self, session: Json) -> dict[str, str] | None:
        """The discount of a session: its code or name, and what it does."""
        if not session["discounts"]:
            return None
        entry = session["discounts"][0]
        coupon = self.money.discounts.coupon_of(entry)
        code = self.store.find("promotion_code", entry["promotion_code"])
        return {"name": code["code"] if code else coupon["name"] or coupon["id"], "words": _coupon_words(coupon)}

    def _address(self, session: Json, form: dict[str, str]) -> dict[str, str]:
        details = session["_details"]
        known = {
            "country": self.checkouts.country(session),
            "postal_code": (details.get("address") or {}).get("postal_code") or "",
            "name": details.get("name") or "",
            "tax_number": "".join(each["value"] for each in details.get("tax_ids", [])),
        }
        return known | {name: form[name] for name in known if name in form}


def _coupon_words(coupon: Json) -> str:
    off = (
        f"{coupon['percent_off']:g} %"
        if coupon["percent_off"]
        else money_text(coupon["amount_off"], coupon["currency"])
    )
    match coupon["duration"]:
        case "forever":
            return f"{off} off"
        case "repeating":
            return f"{off} off for {coupon['duration_in_months']} months"
    return f"{off} off the first payment"


def _closed(session: Json) -> Page:
    if session["status"] == "complete":
        words = "This payment is complete. There is nothing left to do here."
        return message(200, "Already paid", words, _success(session))
    words = "Nothing was charged. Go back and start again."
    return message(410, "This page has expired", words, session["cancel_url"] or "")


def _success(session: Json) -> str:
    return str(session["success_url"]).replace("{CHECKOUT_SESSION_ID}", session["id"])
