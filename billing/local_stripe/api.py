"""The /v1 routes: each a method that reads its parameters by a list of known names and answers an object."""

import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice, takewhile
from typing import Any

from .cards import card_error, declined, full_year
from .checkout import Checkouts
from .money import CHECKOUT_EXPIRES_AFTER, Money, item_of, subscription_of
from .params import between, flag, metadata, one_of, parse, read, text
from .periods import DAY
from .portal import Portal
from .specs import (
    ACCOUNT,
    CANCEL,
    CARD,
    CHECKOUT,
    COUPON,
    CUSTOMER,
    DISPUTE,
    ENDPOINT,
    EXPANDABLE,
    INCLUDABLE,
    NAMED_CARDS,
    NEVER_ANY,
    NEW_CARD,
    NEW_ENDPOINT,
    NEW_PRICE,
    NEW_PRODUCT,
    NEW_SUBSCRIPTION,
    PAGE,
    PRICE,
    PRODUCT,
    PROMOTION_CODE,
    REFUND,
    RESOURCES,
    RESUME,
    SUBSCRIPTION,
)
from .store import API_VERSION, Json, Problem, Store
from .tax import check_location
from .webhooks import MODES, NO_CAUSE, Webhooks

type Handler = Callable[..., Json]


class Api:
    """Answers the requests below /v1."""

    def __init__(self, store: Store, webhooks: Webhooks, money: Money, base_url: str) -> None:
        self.store = store
        self.webhooks = webhooks
        self.money = money
        self.base_url = base_url
        self.checkouts = Checkouts(store, money.discounts, money.taxes)
        self.discounts = money.discounts
        self.portal = Portal(store, webhooks, base_url)
        self.taxes = money.taxes
        self.routes = dict(self._routes())

    def answer(self, method: str, path: str, form: str, headers: dict[str, str]) -> Json:
        """The answer to one request; `path` has no /v1/. Raises Problem for anything but status 200."""
        _check_key(headers.get("authorization", ""))
        key = headers.get("idempotency-key", "") if method == "POST" else ""
        asked = hashlib.sha256(f"{path}\n{form}".encode()).hexdigest()
        if known := self.store.known_request(key):
            return _replay(known, asked)
        self.webhooks.cause = {"id": f"req_{secrets.token_hex(7)}", "idempotency_key": key or None}
        try:
            reply = self._call(method, path, parse(form))
        finally:
            self.webhooks.cause = NO_CAUSE
        if key:
            self.store.remember_request(key, asked, reply)
        return reply

    def _call(self, method: str, path: str, params: Json) -> Json:
        handler, ids = self._find(method, path)
        expansions = read({"expand": params.pop("expand", "")}, {"expand": [text]})["expand"]
        reply = self.store.public(handler(params, *ids))
        for expansion in expansions:
            self._expand(reply, expansion.split("."), expansion)
        return reply

    # Routes ---------------------------------------------------------------------------------------

    def _routes(self) -> Iterator[tuple[tuple[str, str], Handler]]:
        yield ("GET", "account"), lambda params: ACCOUNT
        yield ("GET", "accounts/:id"), self.account
        for path, (kind, filters) in RESOURCES.items():
            yield ("GET", path), partial(self._list, kind, path, filters)
            yield ("GET", f"{path}/:id"), partial(self._retrieve, kind)
        for path in NEVER_ANY:
            yield ("GET", path), lambda params, *ids: _page([], "/v1/", False)
        yield ("POST", "products"), self.create_product
        yield ("POST", "products/:id"), partial(self._update, "product", PRODUCT)
        yield ("DELETE", "products/:id"), self.delete_product
        yield ("POST", "prices"), self.create_price
        yield ("POST", "prices/:id"), self.update_price
        yield ("POST", "customers"), self.create_customer
        yield ("POST", "customers/:id"), self.update_customer
        yield ("DELETE", "customers/:id"), self.delete_customer
        yield ("GET", "customers/:id/payment_methods"), self.cards_of_customer
        yield ("POST", "payment_methods"), self.create_payment_method
        yield ("POST", "payment_methods/:id"), partial(self._update, "payment_method", {"metadata": metadata})
        yield ("POST", "payment_methods/:id/attach"), self.attach_payment_method
        yield ("POST", "payment_methods/:id/detach"), self.detach_payment_method
        yield ("POST", "subscriptions"), self.create_subscription
        yield ("POST", "subscriptions/:id"), self.update_subscription
        yield ("POST", "subscriptions/:id/resume"), self.resume_subscription
        yield ("DELETE", "subscriptions/:id"), self.cancel_subscription
        yield ("GET", "subscription_items"), self.subscription_items
        yield ("GET", "subscription_items/:id"), self.subscription_item
        yield ("POST", "invoices/:id"), partial(self._update, "invoice", {"metadata": metadata})
        yield ("POST", "invoices/:id/finalize"), self.finalize_invoice
        yield ("POST", "invoices/:id/pay"), self.pay_invoice
        yield ("GET", "invoices/:id/lines"), self.invoice_lines
        yield ("POST", "charges/:id"), partial(self._update, "charge", {"metadata": metadata})
        yield ("POST", "refunds"), self.create_refund
        yield ("POST", "refunds/:id"), partial(self._update, "refund", {"metadata": metadata})
        yield ("POST", "disputes/:id"), self.answer_dispute
        yield ("POST", "disputes/:id/close"), self.close_dispute
        yield ("POST", "checkout/sessions"), self.create_checkout
        yield ("POST", "checkout/sessions/:id/expire"), self.expire_checkout
        yield ("GET", "checkout/sessions/:id/line_items"), self.checkout_lines
        yield ("POST", "coupons"), self.discounts.create_coupon
        yield ("POST", "coupons/:id"), partial(self._update, "coupon", COUPON)
        yield ("DELETE", "coupons/:id"), self.discounts.delete_coupon
        yield ("POST", "promotion_codes"), self.discounts.create_promotion_code
        yield ("POST", "promotion_codes/:id"), partial(self._update, "promotion_code", PROMOTION_CODE)
        yield ("GET", "customers/:id/tax_ids"), self.tax_ids
        yield ("GET", "customers/:id/tax_ids/:id"), self.tax_id
        yield ("POST", "customers/:id/tax_ids"), self.taxes.create_tax_id
        yield ("DELETE", "customers/:id/tax_ids/:id"), self.taxes.delete_tax_id
        yield ("POST", "billing_portal/configurations"), self.portal.create_configuration
        yield ("POST", "billing_portal/configurations/:id"), self.portal.update_configuration
        yield ("POST", "billing_portal/sessions"), self.portal.create_session
        yield ("POST", "webhook_endpoints"), self.create_endpoint
        yield ("POST", "webhook_endpoints/:id"), self.update_endpoint
        yield ("DELETE", "webhook_endpoints/:id"), self.delete_endpoint
        yield ("POST", "test_helpers/_advance"), self.advance
        yield ("POST", "test_helpers/_settings"), self.choose_settings
        yield ("POST", "test_helpers/_webhooks"), self.choose_webhooks

    def _find(self, method: str, path: str) -> tuple[Handler, list[str]]:
        words = path.strip("/").split("/")
        for (wanted, pattern), handler in self.routes.items():
            parts = pattern.split("/")
            same = len(parts) == len(words) and all(
                part in (":id", word) for part, word in zip(parts, words, strict=True)
            )
            if same and wanted == method:
                return handler, [word for part, word in zip(parts, words, strict=True) if part == ":id"]
        raise Problem(
            404,
            f"Unrecognized request URL ({method}: /v1/{path}). The local Stripe covers what "
            "billing/local_stripe/__init__.py lists.",
        )

    # All kinds ------------------------------------------------------------------------------------

    def _retrieve(self, kind: str, params: Json, object_id: str) -> Json:
        read(params, {})
        return self.store.get(kind, object_id)

    def _update(self, kind: str, spec: dict[str, Any], params: Json, object_id: str) -> Json:
        values = read(params, spec)
        found = self.store.get_living(kind, object_id, "id")
        before = self.store.public(found)
        _merge(found, values)
        self.money.changed(found, before)
        return found

    def _list(self, kind: str, path: str, filters: dict[str, Any], params: Json) -> Json:
        values = read(params, {**filters, **PAGE})
        found = self._candidates(kind, values)
        return self._cut(found, f"/v1/{path}", values, lambda each: _fits(kind, each, values))

    def _candidates(self, kind: str, values: Json) -> Iterable[Json]:
        """Newest first, what may fit: a filter that names an object leaves only what its customer has."""
        named = {**values, **values.get("payment", {})}
        for name in ("customer", "subscription", "invoice", "charge", "payment_intent"):
            if isinstance(named.get(name), str):
                owner = self.store.get(name, named[name], name)
                return reversed(self.store.of_customer(kind, owner["id"] if name == "customer" else owner["customer"]))
        newest = self.store.newest(kind)
        since = values.get("created", {})
        oldest = max(since.get("gt", 0), since.get("gte", 0))
        return takewhile(lambda each: each["created"] >= oldest, newest) if oldest else newest

    def _cut(
        self, found: Iterable[Json], url: str, values: Json, fits: Callable[[Json], bool] = lambda each: True
    ) -> Json:
        """One page of what fits in a list that begins with the newest."""
        limit = values.get("limit", 10)
        if not 1 <= limit <= 100:
            raise Problem(400, "Limit must be between 1 and 100.", param="limit")
        if cursor := values.get("starting_after"):
            page = list(islice(filter(fits, _after(found, cursor)), limit + 1))
        elif cursor := values.get("ending_before"):
            before = list(filter(fits, _before(found, cursor)))
            return _page(before[-limit:], url, len(before) > limit)
        else:
            page = list(islice(filter(fits, found), limit + 1))
        return _page(page[:limit], url, len(page) > limit)

    def _expand(self, here: Any, names: list[str], whole: str) -> None:
        """Puts objects in the place of their ids, along a path such as `data.latest_invoice`."""
        if isinstance(here, list):
            for each in here:
                self._expand(each, names, whole)
        if not isinstance(here, dict) or not names or here.get("deleted"):
            return
        name, *rest = names
        if name == "line_items" and here.get("object") == "checkout.session":
            session = self.store.get("checkout.session", here["id"])
            here[name] = self.store.public(_page(session["_line_items"], "", False))
        elif name not in here and name not in INCLUDABLE:
            raise Problem(400, f"This property cannot be expanded ({whole}).", param="expand")
        elif isinstance(here.get(name), list) and name in EXPANDABLE:
            kind = EXPANDABLE[name]
            found = [self.store.get(kind, each) if isinstance(each, str) else each for each in here[name]]
            here[name] = [self.store.public(each) for each in found]
        elif isinstance(here.get(name), str):
            if name not in EXPANDABLE:
                raise Problem(400, f"This property cannot be expanded ({whole}).", param="expand")
            here[name] = self.store.public(self.store.get(EXPANDABLE[name], here[name]))
        self._expand(here.get(name), rest, whole)

    # Account and clock ----------------------------------------------------------------------------

    def account(self, params: Json, account_id: str) -> Json:
        if account_id != ACCOUNT["id"]:
            raise Problem(404, f"No such account: '{account_id}'", "resource_missing", "id")
        return ACCOUNT

    def advance(self, params: Json) -> Json:
        """Ours, not Stripe's: moves the clock on by `seconds`."""
        values = read(params, {"seconds": between(0, 3650 * DAY)}, required=["seconds"])
        self.money.advance(values["seconds"])
        return {"object": "clock", "now": self.store.now()}

    def choose_settings(self, params: Json) -> Json:
        """Ours, not Stripe's, where the owner of the account chooses in the Dashboard: what the last retry leads to."""
        values = read(params, {"after_retries": one_of("cancel", "unpaid", "past_due")}, required=["after_retries"])
        self.store.settings |= values
        return {"object": "settings", **self.store.settings}

    def choose_webhooks(self, params: Json) -> Json:
        """Ours, not Stripe's: has webhooks delivered, held back or lost from now on."""
        values = read(params, {"mode": one_of(*MODES)}, required=["mode"])
        self.webhooks.set_mode(values["mode"])
        return {"object": "webhooks", **values}

    # Products and prices --------------------------------------------------------------------------

    def create_product(self, params: Json) -> Json:
        values = read(params, NEW_PRODUCT, required=["name"])
        if self.store.find("product", values.get("id")):
            raise Problem(400, "Product already exists.", "resource_already_exists", "id")
        defaults: Json = {
            "active": True,
            "default_price": None,
            "description": None,
            "images": [],
            "marketing_features": [],
            "package_dimensions": None,
            "shippable": None,
            "statement_descriptor": None,
            "tax_code": None,
            "type": "service",
            "unit_label": None,
            "updated": self.store.now(),
            "url": None,
        }
        product = self.store.add("product", **{**defaults, **values})
        self.webhooks.emit("product.created", product)
        return product

    def delete_product(self, params: Json, product_id: str) -> Json:
        read(params, {})
        product = self.store.get("product", product_id)
        if any(price["product"] == product_id for price in self.store.all("price")):
            raise Problem(400, "This product cannot be deleted because it has one or more user-created prices.")
        self.store.remove("product", product_id)
        self.webhooks.emit("product.deleted", product)
        return _deleted(product)

    def create_price(self, params: Json) -> Json:
        values = read(params, NEW_PRICE, required=["currency", "unit_amount"])
        if bool(values.get("product")) == bool(values.get("product_data")):
            raise Problem(400, "Specify one of product and product_data.", "parameter_missing", param="product")
        if values.get("recurring") is not None and "interval" not in values["recurring"]:
            raise Problem(
                400,
                "Missing required param: recurring[interval].",
                "parameter_missing",
                "recurring[interval]",
            )
        if inline := params.get("product_data"):
            product = self.create_product(inline)
        else:
            product = self.store.get("product", values["product"], "product")
        self._take_lookup_key(values)
        recurring = values.get("recurring")
        price = self.store.add(
            "price",
            active=values.get("active", True),
            billing_scheme="per_unit",
            currency=values["currency"].lower(),
            custom_unit_amount=None,
            lookup_key=values.get("lookup_key"),
            metadata=values.get("metadata"),
            nickname=values.get("nickname"),
            product=product["id"],
            recurring=recurring and _recurring(recurring),
            tax_behavior=values.get("tax_behavior", "unspecified"),
            tiers_mode=None,
            transform_quantity=None,
            type="recurring" if recurring else "one_time",
            unit_amount=values["unit_amount"],
            unit_amount_decimal=str(values["unit_amount"]),
        )
        self.webhooks.emit("price.created", price)
        return price

    def update_price(self, params: Json, price_id: str) -> Json:
        values = read(params, PRICE)
        self.store.get("price", price_id)
        self._take_lookup_key(values, price_id)
        params.pop("transfer_lookup_key", None)
        return self._update("price", PRICE, params, price_id)

    def _take_lookup_key(self, values: Json, price_id: str = "") -> None:
        """A lookup key names one price. `transfer_lookup_key` takes it from the price that has it."""
        transfer = values.pop("transfer_lookup_key", False)
        key = values.get("lookup_key")
        for price in self.store.all("price"):
            if key is None or price["lookup_key"] != key or price["id"] == price_id:
                continue
            if not transfer:
                raise Problem(400, f"A price (`{price['id']}`) already uses that lookup key.", param="lookup_key")
            before = self.store.public(price)
            price["lookup_key"] = None
            self.money.changed(price, before)

    # Customers and their cards --------------------------------------------------------------------

    def create_customer(self, params: Json) -> Json:
        values = read(params, CUSTOMER)
        return self.money.create_customer(values.pop("email", None), **values)

    def update_customer(self, params: Json, customer_id: str) -> Json:
        values = read(params, CUSTOMER)
        settings = values.get("invoice_settings") or {}
        if card := settings.get("default_payment_method"):
            self._own_card(card, customer_id, "invoice_settings[default_payment_method]")
        return self._update("customer", CUSTOMER, params, customer_id)

    def delete_customer(self, params: Json, customer_id: str) -> Json:
        """Ends the customer's subscriptions too. What is left answers that it was deleted."""
        read(params, {})
        customer = self.store.get_living("customer", customer_id, "id")
        for subscription in self.store.of_customer("subscription", customer_id):
            if subscription["status"] not in ("canceled", "incomplete_expired"):
                self.money.cancel(subscription)
        self.webhooks.emit("customer.deleted", customer)
        self.store.objects["customer"][customer_id] = _deleted(customer)
        return _deleted(customer)

    def cards_of_customer(self, params: Json, customer_id: str) -> Json:
        self.store.get("customer", customer_id, "customer")
        kind, filters = RESOURCES["payment_methods"]
        return self._list(
            kind, f"customers/{customer_id}/payment_methods", filters, {**params, "customer": customer_id}
        )

    def create_payment_method(self, params: Json) -> Json:
        values = read(params, NEW_CARD, required=["type", "card"])
        card = read(params["card"], CARD, required=["number", "exp_month", "exp_year"], inside="card")
        made = self.money.make_card(card["number"], card["exp_month"], full_year(card["exp_year"]))
        made["metadata"] = values.get("metadata", {})
        return made

    def attach_payment_method(self, params: Json, card_id: str) -> Json:
        values = read(params, {"customer": text}, required=["customer"])
        customer = self.store.get_living("customer", values["customer"], "customer")
        if card_id in NAMED_CARDS:
            card = self.money.make_card(NAMED_CARDS[card_id], 12, 2099)
        else:
            card = self.store.get("payment_method", card_id)
        self.money.attach(card, customer)
        return card

    def detach_payment_method(self, params: Json, card_id: str) -> Json:
        read(params, {})
        card = self.store.get("payment_method", card_id)
        before = self.store.public(card)
        self.store.assign(card, None)
        self.webhooks.emit("payment_method.detached", card, {"customer": before["customer"]})
        return card

    def _own_card(self, card_id: str, customer_id: str, param: str) -> Json:
        card = self.store.get("payment_method", card_id, param)
        if card["customer"] != customer_id:
            raise Problem(
                400,
                f"The customer does not have a payment method with the ID {card_id}. "
                "The payment method must be attached to the customer.",
                "resource_missing",
                param,
            )
        return card

    # Subscriptions --------------------------------------------------------------------------------

    def create_subscription(self, params: Json) -> Json:
        values = read(params, NEW_SUBSCRIPTION, required=["customer", "items"])
        customer = self.store.get_living("customer", values["customer"], "customer")
        price, quantity = self._one_item(values["items"], "items")
        card_id = values.get("default_payment_method")
        card = self._own_card(card_id, customer["id"], "default_payment_method") if card_id else None
        subtotal = price["unit_amount"] * quantity
        discounts = self.discounts.asked(values.get("discounts") or [], customer, subtotal, price["currency"])
        if values.get("automatic_tax", {}).get("enabled"):
            check_location(customer)
        asked = {**values, "discounts": discounts}
        subscription = self.money.create_subscription(customer, price, quantity, card, asked)
        if values.get("cancel_at_period_end"):
            self.money.schedule_cancel(subscription)
        return subscription

    def update_subscription(self, params: Json, subscription_id: str) -> Json:
        values = read(params, SUBSCRIPTION)
        subscription = self.store.get("subscription", subscription_id)
        if subscription["status"] in ("canceled", "incomplete_expired") and values.keys() - {"metadata"}:
            raise Problem(400, "A canceled subscription can only update its cancellation_details and metadata.")
        price, quantity = self._changed_item(values.get("items", []))
        if card := values.get("default_payment_method"):
            self._own_card(card, subscription["customer"], "default_payment_method")
        proration = values.get("proration_behavior", "create_prorations")
        if values.get("payment_behavior") == "error_if_incomplete":
            self.money.check_payable(subscription, price, quantity, proration)
        before = self.store.public(subscription)
        kept = ("default_payment_method", "description", "metadata", "trial_settings")
        _merge(subscription, {name: values[name] for name in kept if name in values})
        self.money.change_item(subscription, price, quantity, proration, before, not values.get("off_session"))
        self._change_end(subscription, values)
        return subscription

    def _change_end(self, subscription: Json, values: Json) -> None:
        if "cancel_at" in values:
            self.money.cancel_at(subscription, values["cancel_at"])
        elif values.get("cancel_at_period_end"):
            self.money.schedule_cancel(subscription)
        elif "cancel_at_period_end" in values:
            self.money.cancel_at(subscription, None)

    def cancel_subscription(self, params: Json, subscription_id: str) -> Json:
        values = read(params, CANCEL)
        subscription = self.store.get("subscription", subscription_id)
        if subscription["status"] in ("canceled", "incomplete_expired"):
            raise Problem(404, f"No such subscription: '{subscription_id}'", "resource_missing", "id")
        subscription["cancellation_details"] |= values.get("cancellation_details") or {}
        self.money.cancel(
            subscription, prorate=values.get("prorate", False), invoice_now=values.get("invoice_now", False)
        )
        return subscription

    def resume_subscription(self, params: Json, subscription_id: str) -> Json:
        read(params, RESUME)
        subscription = self.store.get("subscription", subscription_id)
        self.money.resume(subscription)
        return subscription

    def _one_item(self, items: list[Json], param: str) -> tuple[Json, int]:
        """The price and quantity of the only item. Several items are not covered here."""
        if len(items) != 1:
            raise Problem(400, "The local Stripe takes exactly one item in a subscription.", param=param)
        name = f"{param}[0][price]"
        if not items[0].get("price"):
            raise Problem(400, f"Missing required param: {name}.", "parameter_missing", name)
        price = self.store.get("price", items[0]["price"], name)
        if not price["active"]:
            raise Problem(400, "The price specified is inactive. This field only accepts active prices.", param=name)
        if price["recurring"] is None:
            raise Problem(400, "The price specified is set to `type=one_time`; it must be recurring.", param=name)
        return price, items[0].get("quantity", 1)

    def _changed_item(self, items: list[Json]) -> tuple[Json | None, int | None]:
        if not items:
            return None, None
        if not items[0].get("price"):
            return None, items[0].get("quantity")
        price, _ = self._one_item(items, "items")
        return price, items[0].get("quantity")

    def subscription_items(self, params: Json) -> Json:
        values = read(params, {**PAGE, "subscription": text}, required=["subscription"])
        subscription = self.store.get("subscription", values["subscription"], "subscription")
        return self._cut(subscription["items"]["data"], "/v1/subscription_items", values)

    def subscription_item(self, params: Json, item_id: str) -> Json:
        subscription = self.store.find("subscription", item_id.replace("si_", "sub_", 1))
        if subscription is None:
            raise Problem(404, f"No such subscription_item: '{item_id}'", "resource_missing", "id")
        return item_of(subscription)

    # Invoices -------------------------------------------------------------------------------------

    def pay_invoice(self, params: Json, invoice_id: str) -> Json:
        values = read(params, {"off_session": flag, "payment_method": text})
        invoice = self.store.get("invoice", invoice_id, "invoice")
        chosen = values.get("payment_method")
        card = self._own_card(chosen, invoice["customer"], "payment_method") if chosen else None
        if invoice["status"] not in ("draft", "open"):
            raise Problem(400, f"Invoice is {invoice['status']}, so it cannot be paid.", "invoice_not_open")
        # Stripe takes nobody to be there unless it is told so.
        refusal = self.money.pay(invoice, by_hand=True, present=values.get("off_session") is False, card=card)
        if self.money.charges.is_asking(invoice):
            words = "This payment requires additional user action before it can be completed successfully."
            raise card_error(words, "invoice_payment_intent_requires_action")
        if refusal:
            raise declined(refusal)
        return invoice

    def finalize_invoice(self, params: Json, invoice_id: str) -> Json:
        values = read(params, {"auto_advance": flag})
        invoice = self.store.get("invoice", invoice_id, "invoice")
        if invoice["status"] != "draft":
            raise Problem(400, "This invoice is already finalized, you can't re-finalize a non-draft invoice.")
        invoice["auto_advance"] = values.get("auto_advance", invoice["auto_advance"])
        self.money.finalize(invoice)
        return invoice

    def invoice_lines(self, params: Json, invoice_id: str) -> Json:
        values = read(params, PAGE)
        invoice = self.store.get("invoice", invoice_id, "invoice")
        return self._cut(invoice["lines"]["data"], invoice["lines"]["url"], values)

    # Tax ids --------------------------------------------------------------------------------------

    def tax_ids(self, params: Json, customer_id: str) -> Json:
        values = read(params, PAGE)
        self.store.get("customer", customer_id, "customer")
        found = list(reversed(self.store.of_customer("tax_id", customer_id)))
        return self._cut(found, f"/v1/customers/{customer_id}/tax_ids", values)

    def tax_id(self, params: Json, customer_id: str, tax_id: str) -> Json:
        read(params, {})
        return self.taxes.of_customer(customer_id, tax_id)

    # Refunds and disputes -------------------------------------------------------------------------

    def create_refund(self, params: Json) -> Json:
        values = read(params, REFUND)
        if bool(values.get("charge")) == bool(values.get("payment_intent")):
            raise Problem(400, "Specify one of charge and payment_intent.", "parameter_missing", "charge")
        if values.get("charge"):
            charge = self.store.get("charge", values["charge"], "charge")
        else:
            intent = self.store.get("payment_intent", values["payment_intent"], "payment_intent")
            charge = self.money.charges.charge_of(intent)
        return self.money.charges.refund(charge, values.get("amount"), values.get("reason"), values.get("metadata", {}))

    def answer_dispute(self, params: Json, dispute_id: str) -> Json:
        values = read(params, DISPUTE)
        dispute = self.store.get("dispute", dispute_id)
        _merge(dispute, {name: value for name, value in values.items() if name == "metadata"})
        self.money.charges.answer(dispute, values.get("evidence", {}), values.get("submit", True))
        return dispute

    def close_dispute(self, params: Json, dispute_id: str) -> Json:
        """The seller gives in."""
        read(params, {})
        dispute = self.store.get("dispute", dispute_id)
        self.money.charges.close(dispute, "lost")
        return dispute

    # Checkout -------------------------------------------------------------------------------------

    def create_checkout(self, params: Json) -> Json:
        values = read(params, CHECKOUT, required=["mode", "success_url", "line_items"])
        if values["mode"] != "subscription":
            raise Problem(400, "The local Stripe knows only mode=subscription.", param="mode")
        if values.get("customer") and values.get("customer_email"):
            raise Problem(400, "You may only specify one of these parameters: customer, customer_email.")
        if values.get("customer"):
            self.store.get_living("customer", values["customer"], "customer")
        self.checkouts.check(values)
        price, quantity = self._one_item(values["line_items"], "line_items")
        session = self.money.open_checkout(price, quantity, values, self._expiry(values))
        self.checkouts.begin(session, values)
        return session

    def _expiry(self, values: Json) -> int:
        now = self.store.now()
        expires = int(values.get("expires_at", now + CHECKOUT_EXPIRES_AFTER))
        # A minute's grace at each end: the caller's clock and ours are read at different moments.
        if not now + 29 * 60 <= expires <= now + CHECKOUT_EXPIRES_AFTER + 60:
            raise Problem(
                400,
                "The `expires_at` timestamp must be between 30 minutes and 24 hours from Checkout Session creation.",
                param="expires_at",
            )
        return expires

    def expire_checkout(self, params: Json, session_id: str) -> Json:
        read(params, {})
        session = self.store.get("checkout.session", session_id)
        if session["status"] != "open":
            raise Problem(
                400,
                'Only Checkout Sessions with a status in ["open"] can be expired. '
                f"This Checkout Session has a status of {session['status']}.",
            )
        self.money.expire_checkout(session)
        return session

    def checkout_lines(self, params: Json, session_id: str) -> Json:
        values = read(params, PAGE)
        session = self.store.get("checkout.session", session_id)
        return self._cut(session["_line_items"], f"/v1/checkout/sessions/{session_id}/line_items", values)

    # Webhook endpoints ----------------------------------------------------------------------------

    def create_endpoint(self, params: Json) -> Json:
        """The only answer that shows the secret."""
        values = read(params, NEW_ENDPOINT, required=["url", "enabled_events"])
        secret = f"whsec_{secrets.token_hex(16)}"
        endpoint = self.store.add(
            "webhook_endpoint",
            api_version=values.get("api_version") or API_VERSION,
            application=None,
            description=values.get("description"),
            enabled_events=values["enabled_events"],
            metadata=values.get("metadata"),
            status="enabled",
            url=values["url"],
            _secret=secret,
        )
        return {**endpoint, "secret": secret}

    def update_endpoint(self, params: Json, endpoint_id: str) -> Json:
        values = read(params, {**ENDPOINT, "disabled": flag})
        endpoint = self.store.get("webhook_endpoint", endpoint_id)
        if (disabled := values.pop("disabled", None)) is not None:
            endpoint["status"] = "disabled" if disabled else "enabled"
        _merge(endpoint, values)
        if endpoint["status"] == "disabled":
            self.webhooks.forget(endpoint_id)
        return endpoint

    def delete_endpoint(self, params: Json, endpoint_id: str) -> Json:
        read(params, {})
        endpoint = self.store.get("webhook_endpoint", endpoint_id)
        self.store.remove("webhook_endpoint", endpoint_id)
        self.webhooks.forget(endpoint_id)
        return _deleted(endpoint)


def _check_key(authorization: str) -> None:
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() not in ("bearer", "basic") or not key:
        raise Problem(
            401,
            "You did not provide an API key. You need to provide your API key in the Authorization header, "
            "using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
        )
    if key.startswith(("sk_live_", "rk_live_")):
        raise Problem(
            401,
            "This is the local Stripe, and you sent it a live key. Live keys belong to the real Stripe only: "
            "check STRIPE_API_HOST and the keys in your settings.",
        )
    # Basic auth carries the key encoded, which only people with curl use: it is taken as it is.
    if scheme.lower() == "bearer" and not key.startswith(("sk_test_", "rk_test_")):
        raise Problem(401, f"Invalid API Key provided: {key[:8]}… The local Stripe takes any sk_test_ key.")


def _replay(known: Json, asked: str) -> Json:
    if known["asked"] != asked:
        raise Problem(
            400,
            "Keys for idempotent requests can only be used with the same parameters they were first used with.",
            kind="idempotency_error",
        )
    reply: Json = known["reply"]
    return reply


def _merge(stored: Json, values: Json) -> None:
    """Stripe's way to update: metadata and hashes name by name (empty removes), the rest replaced."""
    for name, value in values.items():
        if name == "metadata":
            kept = {**stored[name], **value} if value else {}
            stored[name] = {each: word for each, word in kept.items() if word != ""}
        elif isinstance(value, dict) and isinstance(stored.get(name), dict):
            stored[name] = {**stored[name], **value}
        else:
            stored[name] = value


def _fits(kind: str, each: Json, values: Json) -> bool:
    return all(
        _matches(kind, each, name, value) for name, value in values.items() if name not in PAGE or name == "created"
    ) and (kind != "subscription" or "status" in values or each["status"] != "canceled")


def _matches(kind: str, each: Json, name: str, value: Any) -> bool:
    match kind, name:
        case _, "created":
            return _within(each["created"], value)
        case "price", "lookup_keys":
            return each["lookup_key"] in value
        case "promotion_code", "code":
            return bool(each["code"].lower() == value.lower())
        case "promotion_code", "coupon":
            return bool(each["promotion"]["coupon"] == value)
        case "product", "ids":
            return each["id"] in value
        case "event", "types":
            return any(_is_type(each["type"], wanted) for wanted in value)
        case "event", "type":
            return _is_type(each["type"], value)
        case "event", "delivery_success":
            return True
        case "invoice", "subscription":
            return subscription_of(each) == value
        case "invoice_payment", "payment":
            return bool(each["payment"] == {"type": "payment_intent"} | value)
        case "invoiceitem", "pending":
            return (each["invoice"] is None) == value
        case "subscription", "price":
            return bool(item_of(each)["price"] == value)
        case "subscription", "status" if value == "all":
            return True
        case "subscription", "status" if value == "ended":
            return each["status"] in ("canceled", "incomplete_expired")
    return bool(each.get(name) == value)


def _is_type(kind: str, wanted: str) -> bool:
    return kind == wanted or (wanted.endswith("*") and kind.startswith(wanted[:-1]))


def _within(created: int, limits: dict[str, int]) -> bool:
    return (
        created > limits.get("gt", -1)
        and created >= limits.get("gte", 0)
        and created < limits.get("lt", created + 1)
        and created <= limits.get("lte", created)
    )


def _after(found: Iterable[Json], cursor: str) -> Iterator[Json]:
    rest = iter(found)
    for each in rest:
        if each["id"] == cursor:
            return rest
    raise Problem(400, f"No such object: '{cursor}'", "resource_missing", "starting_after")


def _before(found: Iterable[Json], cursor: str) -> list[Json]:
    before: list[Json] = []
    for each in found:
        if each["id"] == cursor:
            return before
        before.append(each)
    raise Problem(400, f"No such object: '{cursor}'", "resource_missing", "ending_before")


def _page(data: list[Json], url: str, has_more: bool) -> Json:
    return {"object": "list", "data": data, "has_more": has_more, "url": url}


def _deleted(gone: Json) -> Json:
    return {"id": gone["id"], "object": gone["object"], "deleted": True}


def _recurring(values: Json) -> Json:
    return {
        "interval": values["interval"],
        "interval_count": values.get("interval_count", 1),
        "meter": None,
        "trial_period_days": None,
        "usage_type": "licensed",
    }
