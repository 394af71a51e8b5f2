"""Tax by the customer's country. The rates are made up; Stripe's own depend on registrations and what is sold."""

from decimal import Decimal

from .amounts import Rate
from .params import read
from .specs import NEW_TAX_ID
from .store import Json, Problem, Store
from .webhooks import Webhooks

# Made up, in percent. A country that is not here pays none: the made-up seller is not registered there.
PERCENTS = {"AT": 20, "BE": 21, "CH": 8, "DE": 19, "ES": 21, "FR": 20, "GB": 20, "IE": 23, "IT": 22, "NL": 21}
HOME = "FR"
OUTSIDE_THE_EU = ("CH", "GB")


class Taxes:
    """What tax is added where `automatic_tax` is on, and the tax ids of customers."""

    def __init__(self, store: Store, webhooks: Webhooks) -> None:
        self.store = store
        self.emit = webhooks.emit

    def rate(self, customer: Json) -> Rate | None:
        """The rate for a customer, for `amounts.reckon`. None without an address to go by."""
        country = country_of(customer)
        has_vat_id = any(each["type"] == "eu_vat" for each in self.store.of_customer("tax_id", customer["id"]))
        return self.rate_in(country, has_vat_id) if country else None

    def rate_in(self, country: str, has_vat_id: bool = False) -> Rate:
        percent = PERCENTS.get(country, 0)
        reason = "standard_rated" if percent else "not_collecting"
        if has_vat_id and percent and country != HOME and country not in OUTSIDE_THE_EU:
            percent, reason = 0, "reverse_charge"
        return Rate(self._tax_rate(country, percent)["id"], Decimal(percent), reason)

    def _tax_rate(self, country: str, percent: int) -> Json:
        """Stripe's object for a rate, made the first time."""
        for each in self.store.all("tax_rate"):
            if (each["country"], each["percentage"]) == (country, percent):
                return each
        return self.store.add(
            "tax_rate",
            active=True,
            country=country,
            description=None,
            display_name="VAT",
            effective_percentage=percent,
            flat_amount=None,
            inclusive=False,
            jurisdiction=country,
            jurisdiction_level="country",
            percentage=percent,
            rate_type="percentage",
            state=None,
            tax_type="vat",
        )

    def create_tax_id(self, params: Json, customer_id: str) -> Json:
        values = read(params, NEW_TAX_ID, required=["type", "value"])
        return self.add_tax_id(
            self.store.get_living("customer", customer_id, "customer"), values["type"], values["value"]
        )

    def add_tax_id(self, customer: Json, kind: str, value: str) -> Json:
        tax_id = self.store.add(
            "tax_id",
            country=(value if kind == "eu_vat" else kind)[:2].upper(),
            customer=customer["id"],
            owner={"customer": customer["id"], "type": "customer"},
            type=kind,
            value=value,
            verification={"status": "unavailable", "verified_address": None, "verified_name": None},
        )
        self.emit("customer.tax_id.created", tax_id)
        return tax_id

    def delete_tax_id(self, params: Json, customer_id: str, tax_id: str) -> Json:
        read(params, {})
        found = self.of_customer(customer_id, tax_id)
        self.store.remove("tax_id", tax_id)
        self.emit("customer.tax_id.deleted", found)
        return {"id": tax_id, "object": "tax_id", "deleted": True}

    def of_customer(self, customer_id: str, tax_id: str) -> Json:
        found = self.store.get("tax_id", tax_id)
        if found["customer"] != customer_id:
            raise Problem(404, f"No such tax id: '{tax_id}'", "resource_missing", "id")
        return found


def country_of(customer: Json) -> str:
    """Where a customer is taxed, as a code of two letters, or nothing."""
    return str((customer.get("address") or {}).get("country") or "").upper()


def check_location(customer: Json) -> None:
    """Refuses automatic tax for a customer without an address, as Stripe does."""
    if not country_of(customer):
        raise Problem(
            400,
            "The customer's location isn't recognized. Set a valid customer address in order to automatically "
            "calculate tax.",
            "customer_tax_location_invalid",
        )


def automatic_tax(enabled: bool, rate: Rate | None = None) -> Json:
    """What an invoice or a Checkout session says about automatic tax."""
    return {
        "enabled": enabled,
        "liability": {"type": "self"} if enabled else None,
        "provider": "stripe" if enabled else None,
        "status": None if not enabled else "complete" if rate else "requires_location_inputs",
    }
