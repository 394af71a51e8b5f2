"""The Billing Portal as customers see it, with what its configuration allows: card, plan, cancellation, invoices."""

from typing import Any

from .money import LIVING, Money, item_of
from .page import Page, card_form, day, email_of, every, expiry, message, money_text, price_row, render
from .portal import prices_of, why_not
from .store import Json, Problem, Store
from .tax import COUNTRIES, tax_id_type

REASONS = {
    "customer_service": "Customer service was less than expected",
    "low_quality": "Quality was less than expected",
    "missing_features": "I need more features",
    "other": "Other reason",
    "switched_service": "I found an alternative",
    "too_complex": "Ease of use was less than expected",
    "too_expensive": "It's too expensive",
    "unused": "I no longer need it",
}
# Where a flow begins.
FLOW_PAGES = {
    "payment_method_update": "card",
    "subscription_cancel": "cancel",
    "subscription_update": "plan",
    "subscription_update_confirm": "confirm",
}


class PortalPage:
    """Answers /p/session/<session>: its first page, or a page for one deed; or the deed itself."""

    def __init__(self, store: Store, money: Money) -> None:
        self.store = store
        self.money = money

    def answer(self, session_id: str, path: list[str], posted: bool, form: dict[str, str]) -> Page:
        session = self.store.get("billing_portal.session", session_id)
        customer = self.store.get("customer", session["customer"])
        if customer.get("deleted"):
            return message(410, "No such customer", "This customer was deleted.", session["return_url"] or "")
        visit = Visit(self.store, self.money, session, customer, in_flow=path == ["flow"])
        if not posted:
            return visit.show(path)
        try:
            return visit.do(path, form)
        except Problem as problem:
            return visit.show(path, form, problem.message)


class Visit:
    """One request of a customer to the portal."""

    def __init__(self, store: Store, money: Money, session: Json, customer: Json, in_flow: bool) -> None:
        self.store = store
        self.money = money
        self.session = session
        self.customer = customer
        self.flow: Json | None = session["flow"] if in_flow else None
        self.home = f"/p/session/{session['id']}"
        self.features = store.get("billing_portal.configuration", session["configuration"])["features"]

    # Deeds ----------------------------------------------------------------------------------------

    def do(self, path: list[str], form: dict[str, str]) -> Page:
        match form.get("do"):
            case "cancel":
                self._cancel(form)
            case "resume":
                self._check("subscription_cancel")
                self.money.cancel_at(self._own_subscription(form), None)
            case "card":
                self._check("payment_method_update")
                self._new_card(form)
            case "preview":
                subscription, price = self._choice(form)
                return self._confirm_page(path, subscription, price)
            case "change":
                self._change_plan(*self._choice(form))
            case "details":
                self._update_details(form)
            case _:
                raise Problem(400, "The portal cannot do this.")
        return self._done()

    def _done(self) -> Page:
        after = self.flow and self.flow["after_completion"]
        if after and after["type"] == "redirect":
            return Page(303, location=after["redirect"]["return_url"])
        if after and after["type"] == "hosted_confirmation":
            words = (after["hosted_confirmation"] or {}).get("custom_message") or "Your change is saved."
            return message(200, "Done", words, self.session["return_url"] or "")
        return Page(303, location=self.home)

    def _check(self, feature: str) -> None:
        if not self.features[feature]["enabled"]:
            raise Problem(400, "The portal cannot do this.")

    def _own_subscription(self, form: dict[str, str]) -> Json:
        for subscription in self.store.of_customer("subscription", self.customer["id"]):
            if subscription["id"] == form.get("sub") and subscription["status"] in LIVING:
                return subscription
        raise Problem(404, "This subscription has ended.")

    def _cancel(self, form: dict[str, str]) -> None:
        self._check("subscription_cancel")
        subscription = self._own_subscription(form)
        if subscription["cancel_at"] is not None:
            return  # pressed twice
        if form.get("reason") in REASONS:
            subscription["cancellation_details"]["feedback"] = form["reason"]
        settings = self.features["subscription_cancel"]
        if settings["mode"] == "at_period_end":
            self.money.schedule_cancel(subscription, by_portal=True)
        else:
            proration = settings["proration_behavior"]
            self.money.cancel(subscription, prorate=proration != "none", invoice_now=proration == "always_invoice")

    def _new_card(self, form: dict[str, str]) -> None:
        month, year = expiry(form.get("exp", ""))
        card = self.money.make_card(form.get("number", ""), month, year)
        self.money.replace_card(card, self.customer)

    def _choice(self, form: dict[str, str]) -> tuple[Json, Json]:
        """The subscription and the price that its customer chose for it."""
        subscription = self._own_subscription(form)
        price = self.store.find("price", form.get("price"))
        if price is None or price["id"] not in self._choices(subscription):
            raise Problem(400, "Please choose one of the plans.")
        if price["id"] == item_of(subscription)["price"]:
            raise Problem(400, "This is your plan already. Please choose another one.")
        return subscription, price

    def _choices(self, subscription: Json) -> list[str]:
        """The prices that a subscription can change to, the present one among them."""
        if why_not("subscription_update", subscription):
            return []
        configuration = self.store.get("billing_portal.configuration", self.session["configuration"])
        prices = [self.store.get("price", each) for each in prices_of(configuration)]
        return [each["id"] for each in prices if each["active"] and each["currency"] == subscription["currency"]]

    def _change_plan(self, subscription: Json, price: Json) -> None:
        proration = self.features["subscription_update"]["proration_behavior"]
        if self.money.change_item(subscription, price, None, proration):
            raise Problem(402, "Your plan is changed, but its payment was declined. Please use another card.")

    def _update_details(self, form: dict[str, str]) -> None:
        self._check("customer_update")
        allowed = self.features["customer_update"]["allowed_updates"]
        before = self.store.public(self.customer)
        if "email" in allowed:
            self.customer["email"] = email_of(form.get("email", ""))
        if "name" in allowed and form.get("name", "").strip():
            self.customer["name"] = form["name"].strip()
        if "address" in allowed and form.get("country") in COUNTRIES:
            empty = dict.fromkeys(("city", "line1", "line2", "postal_code", "state"))
            known = self.customer["address"] or empty
            self.customer["address"] = {**known, "country": form["country"]}
        self.money.changed(self.customer, before)
        number, kind = form.get("tax_number", "").strip().upper(), tax_id_type(form.get("country", ""))
        known_numbers = [each["value"] for each in self.store.of_customer("tax_id", self.customer["id"])]
        if "tax_id" in allowed and number and kind and number not in known_numbers:
            self.money.taxes.add_tax_id(self.customer, kind, number)

    # Pages ----------------------------------------------------------------------------------------

    def show(self, path: list[str], form: dict[str, str] | None = None, error: str = "") -> Page:
        """The page at a path below the session; with an error, as it was sent."""
        kind, subscription_id = self._place(path)
        typed = form if form and error else {}
        subscription = self.store.find("subscription", subscription_id or typed.get("sub"))
        if kind in ("plan", "cancel") and (subscription is None or subscription["customer"] != self.customer["id"]):
            raise Problem(404, "This subscription is not yours.")
        if kind == "confirm" and subscription and not error and self.flow:
            wanted = self.flow["subscription_update_confirm"]["items"][0]["price"]
            return self._confirm_page(path, subscription, self.store.get("price", wanted))
        status = 402 if error else 200
        match kind:
            case "card":
                return render("portal_card", self._frame(error) | self._card(typed), status)
            case "details":
                return render("portal_details", self._frame(error) | self._details(), status)
            case "plan" | "confirm" if subscription:
                return render("portal_plan", self._frame(error) | self._plan(subscription, typed), status)
            case "cancel" if subscription:
                return render("portal_cancel", self._frame(error) | self._cancelling(subscription), status)
        return render("portal", self._frame(error) | self._overview(typed), status)

    def _place(self, path: list[str]) -> tuple[str, str]:
        """What kind of page a path leads to, and the subscription that it is about."""
        if path == ["flow"] and self.flow:
            about = self.flow[self.flow["type"]] if self.flow["type"] != "payment_method_update" else None
            return FLOW_PAGES[self.flow["type"]], about["subscription"] if about else ""
        match path:
            case []:
                return "", ""
            case ["card"] | ["details"]:
                return path[0], ""
            case ["plan" | "cancel", subscription_id]:
                return path[0], subscription_id
        raise Problem(404, "The portal has no page at this address.")

    def _frame(self, error: str) -> dict[str, Any]:
        """What every page has. A flow leads back to the product, any other page to the portal's first one."""
        return {
            "customer": self.customer,
            "error": error,
            "features": self.features,
            "in_flow": bool(self.flow),
            "home": self.home,
            "back": self.session["return_url"] if self.flow else self.home,
        }

    def _overview(self, typed: dict[str, str]) -> dict[str, Any]:
        subscriptions = [
            self._subscription_row(each)
            for each in self.store.of_customer("subscription", self.customer["id"])
            if each["status"] in (*LIVING, "incomplete")
        ]
        invoices = reversed(self.store.of_customer("invoice", self.customer["id"]))
        shown = [each for each in invoices if each["status"] != "draft"]
        return {
            "return_url": self.session["return_url"],
            "subscriptions": subscriptions,
            "invoices": [invoice_row(each) for each in shown] if self.features["invoice_history"]["enabled"] else None,
            **self._details(),
            **self._card(typed),
        }

    def _subscription_row(self, subscription: Json) -> dict[str, Any]:
        return subscription_row(self.store, subscription) | {
            "can_change": len(self._choices(subscription)) > 1,
            "can_cancel": self.features["subscription_cancel"]["enabled"] and subscription["status"] in LIVING,
        }

    def _card(self, typed: dict[str, str]) -> dict[str, Any]:
        card = self.store.find("payment_method", self.customer["invoice_settings"]["default_payment_method"])
        return {"card": card and card["card"], "form": card_form(typed, self.store.now())}

    def _details(self) -> dict[str, Any]:
        settings = self.features["customer_update"]
        country = (self.customer["address"] or {}).get("country") or ""
        numbers = [each["value"] for each in self.store.of_customer("tax_id", self.customer["id"])]
        return {
            "allowed": settings["allowed_updates"] if settings["enabled"] else [],
            "countries": COUNTRIES,
            "country": country,
            "country_name": COUNTRIES.get(country, (country, 0))[0],
            "tax_numbers": numbers,
        }

    def _plan(self, subscription: Json, typed: dict[str, str]) -> dict[str, Any]:
        present = item_of(subscription)["price"]
        prices = [self.store.get("price", each) for each in self._choices(subscription)]
        return {
            "subscription": self._subscription_row(subscription),
            "present": present,
            "chosen": typed.get("price", present),
            "plans": [price_row(each, self.store.get("product", each["product"])) for each in prices],
        }

    def _cancelling(self, subscription: Json) -> dict[str, Any]:
        settings = self.features["subscription_cancel"]
        asked = settings["cancellation_reason"]
        return {
            "subscription": self._subscription_row(subscription),
            "is_at_once": settings["mode"] == "immediately",
            "reasons": [(each, REASONS[each]) for each in asked["options"]] if asked["enabled"] else [],
        }

    def _confirm_page(self, path: list[str], subscription: Json, price: Json) -> Page:
        """What a change of plan costs now and later, before it is made."""
        proration = self.features["subscription_update"]["proration_behavior"]
        change = self.money.change_of(subscription, price, None, proration)
        bill, currency = self.money.due_for(subscription, change), price["currency"]
        owed = bill.total + self.customer["balance"]
        parts = [(f"{part.words} {self._name(part.price)}", money_text(part.amount, currency)) for part in change.parts]
        if change.restarts:
            parts.append((self._name(price), money_text(price["unit_amount"] * change.quantity, currency)))
        context = self._frame("") | {
            "subscription": self._subscription_row(subscription),
            "price": price_row(price, self.store.get("product", price["product"]), change.quantity),
            "parts": parts,
            "discount": money_text(-bill.discount, currency) if bill.discount else "",
            "tax": money_text(bill.tax, currency) if bill.tax else "",
            "balance": money_text(self.customer["balance"], currency) if self.customer["balance"] else "",
            "is_billed": change.is_billed,
            "due": money_text(max(0, owed), currency),
            "credit": money_text(-owed, currency) if owed < 0 else "",
            "back": self.home + (f"/plan/{subscription['id']}" if path != ["flow"] else "/flow"),
        }
        return render("portal_confirm", context)

    def _name(self, price: Json) -> str:
        product = self.store.get("product", price["product"])
        return f"{product['name']}, {every(price['recurring'])}"


def subscription_row(store: Store, subscription: Json) -> dict[str, Any]:
    item = item_of(subscription)
    price = store.get("price", item["price"])
    return price_row(price, store.get("product", price["product"]), item["quantity"]) | {
        "id": subscription["id"],
        "price": money_text(price["unit_amount"] * item["quantity"], price["currency"]),
        "about": subscription["description"],
        "status": subscription["status"],
        "ends": day(subscription["cancel_at"]),
        "renews": day(item["current_period_end"]),
    }


def invoice_row(invoice: Json) -> dict[str, Any]:
    return {
        "number": invoice["number"],
        "url": invoice["hosted_invoice_url"],
        "total": money_text(invoice["total"], invoice["currency"]),
        "status": invoice["status"],
        "day": day(invoice["created"]),
    }
