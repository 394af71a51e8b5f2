"""What a Checkout session comes to: codes, the customer's country, and the sums they lead to."""

import re

from .amounts import Bill, Charge, reckon
from .discounts import Discounts
from .store import Json, Problem, Store
from .tax import COUNTRIES, Taxes, automatic_tax, country_of, tax_id_type


class Checkouts:
    """What customers can change of a session before they pay."""

    def __init__(self, store: Store, discounts: Discounts, taxes: Taxes) -> None:
        self.store = store
        self.discounts = discounts
        self.taxes = taxes

    def check(self, asked: Json) -> None:
        """Refuses what Stripe refuses of a new session's discounts and taxes."""
        if asked.get("discounts") and "allow_promotion_codes" in asked:
            raise Problem(400, "You may only specify one of these parameters: allow_promotion_codes, discounts.")
        if len(asked.get("discounts", [])) > 1:
            raise Problem(400, "You may not specify more than one discount.", param="discounts")
        customer = self.store.find("customer", asked.get("customer"))
        update = asked.get("customer_update", {})
        if update and not customer:
            raise Problem(400, "`customer_update` can only be used with `customer`.", param="customer_update")
        if customer and _is_on(asked, "automatic_tax") and not country_of(customer) and update.get("address") != "auto":
            raise Problem(
                400,
                "Automatic tax calculation in Checkout requires a valid address on the Customer. Add a valid address "
                "to the Customer or set either `customer_update[address]` to 'auto' or `customer_update[shipping]` to "
                "'auto' to save the address entered in Checkout to the Customer.",
                "customer_tax_location_invalid",
            )
        if customer and _is_on(asked, "tax_id_collection") and update.get("name") != "auto":
            raise Problem(
                400,
                "Tax ID collection requires updating business name on the customer. To enable tax ID collection for "
                "an existing customer, please set `customer_update[name]` to `auto`.",
                param="tax_id_collection",
            )

    def begin(self, session: Json, asked: Json) -> None:
        """Gives a new session what is asked of discounts and taxes, and its sums."""
        line = session["_line_items"][0]
        given = self.discounts.asked(
            asked.get("discounts", []), self.customer_of(session), line["amount_subtotal"], line["currency"]
        )
        is_collecting = _is_on(asked, "tax_id_collection")
        session.update(
            automatic_tax=automatic_tax(_is_on(asked, "automatic_tax")),
            customer_creation=None if session["customer"] else "always",
            discounts=given,
            tax_id_collection={"enabled": is_collecting, "required": "never"},
            _customer_update={"address": "never", "name": "never"} | asked.get("customer_update", {}),
            _details={},
        )
        self._reprice(session)

    def customer_of(self, session: Json) -> Json | None:
        return self.store.find("customer", session["customer"])

    # What the page asks ---------------------------------------------------------------------------

    def use_code(self, session: Json, typed: str) -> None:
        """Takes a promotion code, in the place of any before it. Problem 400 says why not."""
        if not session["allow_promotion_codes"]:
            raise Problem(400, "This page takes no promotion codes.", param="promotion_code")
        line = session["_line_items"][0]
        code = self.discounts.by_code(typed, self.customer_of(session), line["amount_subtotal"], line["currency"])
        session["discounts"] = [{"coupon": None, "promotion_code": code["id"]}]
        self._reprice(session)

    def drop_code(self, session: Json) -> None:
        if session["allow_promotion_codes"]:
            session["discounts"] = []
            self._reprice(session)

    def asks_address(self, session: Json) -> bool:
        """Whether the page has a form for where the customer is."""
        is_wanted = session["automatic_tax"]["enabled"] or session["billing_address_collection"] == "required"
        return is_wanted and (not session["customer"] or session["_customer_update"]["address"] == "auto")

    def wants_address(self, session: Json) -> bool:
        """Whether the customer must say where they are before they can pay."""
        return self.asks_address(session) and not self.country(session)

    def take_address(self, session: Json, form: dict[str, str]) -> None:
        """Keeps where the customer is, and the number of their business if they have one."""
        country = form.get("country", "")
        if country not in COUNTRIES or not self.asks_address(session):
            raise Problem(400, "Please choose your country.", param="country")
        empty = dict.fromkeys(("city", "line1", "line2", "postal_code", "state"))
        number = re.sub(r"[\s.-]", "", form.get("tax_number", "")).upper()
        kind = tax_id_type(country)
        takes_number = session["tax_id_collection"]["enabled"] and kind and number
        if takes_number and not _is_tax_number(kind, country, number):
            raise Problem(400, "Please check the number of your business.", param="tax_number")
        session["_details"] = {
            "address": {**empty, "country": country, "postal_code": form.get("postal_code", "").strip() or None},
            "name": form.get("name", "").strip() or None,
            "tax_ids": [{"type": kind, "value": number}] if takes_number else [],
        }
        self._reprice(session)

    def country(self, session: Json) -> str:
        """As typed on this page, or as known of the customer."""
        return country_of(session["_details"]) or country_of(self.customer_of(session) or {})

    # Sums -----------------------------------------------------------------------------------------

    def bill(self, session: Json, in_trial: bool = False) -> Bill:
        """What the customer pays now; or, on the first day after the trial, then."""
        line = session["_line_items"][0]
        price = self.store.get("price", line["price"])
        amount = 0 if in_trial else price["unit_amount"] * line["quantity"]
        has_tax = price["tax_behavior"] == "inclusive"
        rate = None
        country = self.country(session)
        if session["automatic_tax"]["enabled"] and country:
            customer = self.customer_of(session)
            known = self.store.of_customer("tax_id", customer["id"]) if customer else []
            rate = self.taxes.rate_in(country, any(each["type"] == "eu_vat" for each in _tax_ids(session, known)))
        return reckon([Charge(amount, True, has_tax)], self.discounts.offs_of(session["discounts"]), rate)

    def _reprice(self, session: Json) -> None:
        """Writes the sums and what leads to them into the session."""
        bill = self.bill(session, bool(session["_subscription_data"].get("trial_period_days")))
        session["_line_items"][0].update(
            amount_discount=bill.discount,
            amount_subtotal=bill.subtotal,
            amount_tax=bill.tax,
            amount_total=bill.total,
        )
        session.update(
            amount_subtotal=bill.subtotal,
            amount_total=bill.total,
            automatic_tax=automatic_tax(session["automatic_tax"]["enabled"], bill.lines[0].rate),
            total_details={"amount_discount": bill.discount, "amount_shipping": 0, "amount_tax": bill.tax},
        )
        # What the subscription is made with once it is paid.
        session["_subscription_data"] |= {
            "automatic_tax": {"enabled": session["automatic_tax"]["enabled"]},
            "discounts": session["discounts"],
        }


def _is_tax_number(kind: str, country: str, number: str) -> bool:
    return bool(re.fullmatch("[0-9A-Z]{6,16}", number)) and (kind != "eu_vat" or number.startswith(country))


def _tax_ids(session: Json, known: list[Json]) -> list[Json]:
    return [*known, *session["_details"].get("tax_ids", [])]


def _is_on(asked: Json, name: str) -> bool:
    return bool(asked.get(name, {}).get("enabled"))
