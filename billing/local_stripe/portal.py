"""The Billing Portal's configurations and sessions: what customers may do there, and where they begin."""

import secrets
from typing import Any

from .params import read
from .specs import CANCELLATION_REASONS, FEATURES, NEW_PORTAL_CONFIGURATION, PORTAL, PORTAL_CONFIGURATION
from .store import Json, Problem, Store
from .webhooks import Webhooks

MOST_PRODUCTS = 10
# What a feature says of itself where nobody asked for anything else.
DEFAULTS: dict[str, Json] = {
    "customer_update": {"allowed_updates": [], "enabled": False},
    "invoice_history": {"enabled": False},
    "payment_method_update": {"enabled": False, "payment_method_configuration": None},
    "subscription_cancel": {
        "cancellation_reason": {"enabled": False, "options": list(CANCELLATION_REASONS)},
        "enabled": False,
        "mode": "at_period_end",
        "proration_behavior": "none",
    },
    "subscription_update": {
        "billing_cycle_anchor": None,
        "default_allowed_updates": [],
        "enabled": False,
        "products": [],
        "proration_behavior": "none",
        "schedule_at_period_end": {"conditions": []},
        "trial_update_behavior": "end_trial",
    },
}
# As if somebody had saved the portal's settings in the Dashboard.
SAVED_IN_THE_DASHBOARD = {
    "invoice_history": {"enabled": True},
    "payment_method_update": {"enabled": True},
    "subscription_cancel": {"enabled": True},
}
# The feature that a flow needs.
NEEDS = {
    "payment_method_update": "payment_method_update",
    "subscription_cancel": "subscription_cancel",
    "subscription_update": "subscription_update",
    "subscription_update_confirm": "subscription_update",
}


class Portal:
    """Answers the requests below /v1/billing_portal."""

    def __init__(self, store: Store, webhooks: Webhooks, base_url: str) -> None:
        self.store = store
        self.emit = webhooks.emit
        self.base_url = base_url

    # Configurations -------------------------------------------------------------------------------

    def create_configuration(self, params: Json) -> Json:
        values = read(params, NEW_PORTAL_CONFIGURATION, required=["features"])
        features = {name: {**DEFAULTS[name], **values["features"].get(name, {})} for name in FEATURES}
        self._check_features(features)
        return self._add_configuration(features, values, is_default=False)

    def _add_configuration(self, features: Json, values: Json, is_default: bool) -> Json:
        profile = {"headline": None, "privacy_policy_url": None, "terms_of_service_url": None}
        configuration = self.store.add(
            "billing_portal.configuration",
            active=True,
            application=None,
            business_profile=profile | values.get("business_profile", {}),
            default_return_url=values.get("default_return_url"),
            features=features,
            is_default=is_default,
            login_page={"enabled": False, "url": None},
            metadata=values.get("metadata"),
            name=values.get("name"),
            updated=self.store.now(),
        )
        self.emit("billing_portal.configuration.created", configuration)
        return configuration

    def update_configuration(self, params: Json, configuration_id: str) -> Json:
        values = read(params, PORTAL_CONFIGURATION)
        configuration = self.store.get("billing_portal.configuration", configuration_id, "configuration")
        if configuration["is_default"] and values.get("active") is False:
            raise Problem(400, "The default configuration cannot be deactivated.", param="active")
        changed = values.pop("features", {})
        features = {name: {**was, **changed.get(name, {})} for name, was in configuration["features"].items()}
        self._check_features(features)
        note = {**configuration["metadata"], **(values.pop("metadata", None) or {})}
        profile = configuration["business_profile"] | values.pop("business_profile", {})
        configuration.update(
            **values,
            business_profile=profile,
            features=features,
            metadata={name: word for name, word in note.items() if word},
            updated=self.store.now(),
        )
        self.emit("billing_portal.configuration.updated", configuration)
        return configuration

    def _check_features(self, features: Json) -> None:
        if features["customer_update"]["enabled"] and not features["customer_update"]["allowed_updates"]:
            raise _missing("features[customer_update][allowed_updates]")
        update = features["subscription_update"]
        for name in ("default_allowed_updates", "products"):
            if update["enabled"] and not update[name]:
                raise _missing(f"features[subscription_update][{name}]")
        if len(update["products"]) > MOST_PRODUCTS:
            raise Problem(400, f"Array products exceeded maximum {MOST_PRODUCTS} allowed elements.", param="features")
        for entry in update["products"]:
            self._check_product(entry)

    def _check_product(self, entry: Json) -> None:
        """A product may be there by the month and by the year, but not twice by the month."""
        param = "features[subscription_update][products]"
        if not entry.get("product") or not entry.get("prices"):
            raise _missing(f"{param}[product]" if not entry.get("product") else f"{param}[prices]")
        self.store.get("product", entry["product"], param)
        prices = [self.store.get("price", each, param) for each in entry["prices"]]
        for price in prices:
            if price["product"] != entry["product"] or not price["recurring"]:
                raise Problem(400, f"The price {price['id']} is no recurring price of {entry['product']}.", param=param)
        intervals = [(price["recurring"]["interval"], price["recurring"]["interval_count"]) for price in prices]
        if len(set(intervals)) < len(intervals):
            raise Problem(400, "For each product, its price must have unique billing intervals.", param=param)

    def default_configuration(self) -> Json:
        for each in self.store.all("billing_portal.configuration"):
            if each["is_default"]:
                return each
        features = {name: {**DEFAULTS[name], **SAVED_IN_THE_DASHBOARD.get(name, {})} for name in FEATURES}
        return self._add_configuration(features, {}, is_default=True)

    # Sessions -------------------------------------------------------------------------------------

    def create_session(self, params: Json) -> Json:
        values = read(params, PORTAL, required=["customer"])
        customer = self.store.get_living("customer", values["customer"], "customer")
        configuration = self._configuration(values.get("configuration"))
        flow = self._flow(values.get("flow_data"), customer, configuration)
        session_id = f"bps_{secrets.token_hex(12)}"
        return self.store.add(
            "billing_portal.session",
            id=session_id,
            configuration=configuration["id"],
            customer=customer["id"],
            customer_account=None,
            flow=flow,
            locale=values.get("locale"),
            on_behalf_of=None,
            return_url=values.get("return_url") or configuration["default_return_url"],
            url=f"{self.base_url}/p/session/{session_id}" + ("/flow" if flow else ""),
        )

    def _configuration(self, configuration_id: str | None) -> Json:
        if configuration_id is None:
            return self.default_configuration()
        configuration = self.store.get("billing_portal.configuration", configuration_id, "configuration")
        if not configuration["active"]:
            raise Problem(400, f"The configuration {configuration_id} is not active.", param="configuration")
        return configuration

    def _flow(self, asked: Json | None, customer: Json, configuration: Json) -> Json | None:
        """Where the customer begins, checked. Stripe refuses a flow that its own page could not end."""
        if asked is None:
            return None
        kind = asked.get("type")
        if kind is None:
            raise _missing("flow_data[type]")
        if not configuration["features"][NEEDS[kind]]["enabled"]:
            words = f"The `{NEEDS[kind]}` feature in the portal configuration is disabled."
            raise Problem(400, words, param="flow_data[type]")
        flow: Json = {
            "after_completion": _after_completion(asked.get("after_completion")),
            "customer_update": None,
            "subscription_cancel": None,
            "subscription_update": None,
            "subscription_update_confirm": None,
            "type": kind,
        }
        if kind != "payment_method_update":
            flow[kind] = self._flow_details(kind, asked.get(kind), customer, configuration)
        return flow

    def _flow_details(self, kind: str, asked: Json | None, customer: Json, configuration: Json) -> Json:
        param = f"flow_data[{kind}]"
        if not asked or not asked.get("subscription"):
            raise _missing(f"{param}[subscription]")
        subscription = self.store.get("subscription", asked["subscription"], f"{param}[subscription]")
        if subscription["customer"] != customer["id"]:
            words = f"The subscription {subscription['id']} does not belong to this customer."
            raise Problem(400, words, param=f"{param}[subscription]")
        if refused := why_not(kind, subscription):
            raise Problem(400, refused, param=f"{param}[subscription]")
        if kind == "subscription_cancel":
            return {"retention": None, "subscription": subscription["id"]}
        if kind == "subscription_update":
            return {"subscription": subscription["id"]}
        return {
            "discounts": None,
            "items": self._items(asked, configuration, param),
            "subscription": subscription["id"],
        }

    def _items(self, asked: Json, configuration: Json, param: str) -> list[Json]:
        items: list[Json] = asked.get("items", [])
        if len(items) != 1 or not items[0].get("price"):
            raise _missing(f"{param}[items]")
        if items[0]["price"] not in prices_of(configuration):
            words = f"The price {items[0]['price']} is not among those of the portal configuration."
            raise Problem(400, words, param=f"{param}[items]")
        return [{"id": items[0].get("id"), "price": items[0]["price"], "quantity": items[0].get("quantity", 1)}]


def why_not(kind: str, subscription: Json) -> str:
    """Why a flow is impossible for a subscription as it is now, or nothing."""
    doing = "canceled" if kind == "subscription_cancel" else "updated"
    if subscription["status"] in ("canceled", "incomplete", "incomplete_expired", "paused"):
        return f"This subscription cannot be {doing} because its status is {subscription['status']}."
    if subscription["cancel_at"] is not None:
        return f"This subscription cannot be {doing} because it is already set to be canceled."
    return ""


def prices_of(configuration: Json) -> list[str]:
    """What a customer may change to, as prices."""
    update = configuration["features"]["subscription_update"]
    if not update["enabled"] or "price" not in update["default_allowed_updates"]:
        return []
    return [price for entry in update["products"] for price in entry["prices"]]


def _after_completion(asked: Json | None) -> Json:
    values: dict[str, Any] = {"hosted_confirmation": None, "redirect": None, "type": "portal_homepage", **(asked or {})}
    if values["type"] == "redirect" and not (values["redirect"] or {}).get("return_url"):
        raise _missing("flow_data[after_completion][redirect][return_url]")
    return values


def _missing(param: str) -> Problem:
    return Problem(400, f"Missing required param: {param}.", "parameter_missing", param)
