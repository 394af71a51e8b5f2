"""Tax by the customer's country. The rates are made up; Stripe's own depend on registrations and what is sold."""

from decimal import Decimal

from .amounts import Rate
from .params import read
from .specs import NEW_TAX_ID
from .store import Json, Problem, Store
from .webhooks import Webhooks

# Names and rates in percent. The rates are made up; where there is none, the made-up seller need not collect any.
COUNTRIES = {
    "AT": ("Austria", 20),
    "BE": ("Belgium", 21),
    "CA": ("Canada", 0),
    "CH": ("Switzerland", 8),
    "DE": ("Germany", 19),
    "ES": ("Spain", 21),
    "FR": ("France", 20),
    "GB": ("United Kingdom", 20),
    "IE": ("Ireland", 23),
    "IT": ("Italy", 22),
    "NL": ("Netherlands", 21),
    "NZ": ("New Zealand", 0),
    "US": ("United States", 0),
}
HOME = "FR"
# How a business proves to be one, by country: all others here are in the European Union or have no such number.
TAX_IDS = {"CA": "", "CH": "ch_vat", "GB": "gb_vat", "NZ": "", "US": ""}


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
        _, percent = COUNTRIES.get(country, ("", 0))
        reason = "standard_rated" if percent else "not_collecting"
        if has_vat_id and country != HOME and tax_id_type(country) == "eu_vat":
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

    def learn(self, customer: Json, session: Json) -> None:
        """Keeps what a customer said at Checkout: where they are, their name and the number of their business.

        Of a known customer only what `customer_update` allows.
        """
        details, before = session["_details"], self.store.public(customer)
        allowed = [
            name for name, may in session["_customer_update"].items() if may == "auto" or not session["customer"]
        ]
        customer.update({name: details[name] for name in allowed if details.get(name)})
        now = self.store.public(customer)
        previous = {name: was for name, was in before.items() if now[name] != was}
        if previous:
            self.emit("customer.updated", customer, previous)
        known = [each["value"] for each in self.store.of_customer("tax_id", customer["id"])]
        for each in details.get("tax_ids", []):
            if each["value"] not in known:
                self.add_tax_id(customer, each["type"], each["value"])

    def details_of(self, customer: Json) -> Json:
        """What a complete Checkout session says of its customer."""
        tax_ids = self.store.of_customer("tax_id", customer["id"])
        return {
            "address": customer["address"],
            "business_name": None,
            "email": customer["email"],
            "individual_name": None,
            "name": customer["name"],
            "phone": customer["phone"],
            "tax_exempt": customer["tax_exempt"],
            "tax_ids": [{"type": each["type"], "value": each["value"]} for each in tax_ids],
        }

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


def tax_id_type(country: str) -> str:
    """Stripe's name for the number of a business there, or nothing."""
    return TAX_IDS.get(country, "eu_vat") if country in COUNTRIES else ""


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
