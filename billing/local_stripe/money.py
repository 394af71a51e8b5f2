"""All that charges or takes time: cards, subscriptions, invoices, Checkout's end, and the clock."""

import hashlib
import re
from calendar import monthrange
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from .store import Json, Problem, Store, new_id
from .webhooks import Webhooks

DAY = 86_400
LIVING = ("active", "trialing", "past_due")
RETRY_INVOICE_AFTER = (3 * DAY, 5 * DAY, 7 * DAY)
INCOMPLETE_EXPIRES_AFTER = 23 * 3600
CHECKOUT_EXPIRES_AFTER = DAY


class TestCard(NamedTuple):
    """One of Stripe's published test cards. `refused` at entry or `fails` at each charge, by decline code."""

    number: str
    brand: str
    what: str
    refused: str = ""
    fails: str = ""

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
)
DECLINED = {
    "generic_decline": "Your card was declined.",
    "insufficient_funds": "Your card has insufficient funds.",
    "test_mode_live_card": "Your card was declined. This is test mode: please use one of the test cards.",
}


class Money:
    """What Stripe does by itself with the objects in the store, each step told as an event."""

    def __init__(self, store: Store, webhooks: Webhooks, base_url: str) -> None:
        self.store = store
        self.emit = webhooks.emit
        self.base_url = base_url

    def changed(self, subject: Json, before: Json, event: str = "") -> None:
        """Emits `<object>.updated` with what differs from `before`, if anything does."""
        now = self.store.public(subject)
        previous = {name: was for name, was in before.items() if now.get(name) != was}
        if previous:
            self.emit(event or f"{subject['object']}.updated", subject, previous)

    # Cards ----------------------------------------------------------------------------------------

    def make_card(self, number: str, exp_month: int, exp_year: int) -> Json:
        """A payment method of no customer yet. Raises Problem 402 for a card that is refused at entry."""
        card = _test_card(re.sub(r"[\s-]", "", number))
        if not 1 <= exp_month <= 12:
            raise _card_error("Your card's expiration month is invalid.", "invalid_expiry_month")
        today = datetime.fromtimestamp(self.store.now(), UTC)
        if (exp_year, exp_month) < (today.year, today.month):
            raise _card_error("Your card has expired.", "expired_card")
        return self.store.add(
            "payment_method",
            type="card",
            customer=None,
            allow_redisplay="unspecified",
            billing_details={"address": {}, "email": None, "name": None, "phone": None, "tax_id": None},
            card={
                "brand": card.brand,
                "checks": {"cvc_check": "pass"},
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
            _fails=card.fails,
        )

    def attach(self, payment_method: Json, customer: Json) -> None:
        payment_method["customer"] = customer["id"]
        self.emit("payment_method.attached", payment_method)

    def make_default(self, payment_method: Json, customer: Json) -> None:
        before = self.store.public(customer)
        customer["invoice_settings"]["default_payment_method"] = payment_method["id"]
        self.changed(customer, before)

    def replace_card(self, payment_method: Json, customer: Json) -> bool:
        """The card for everything from now on; open invoices are charged. False if one still fails."""
        self.attach(payment_method, customer)
        self.make_default(payment_method, customer)
        for subscription in self.store.of_customer("subscription", customer["id"]):
            if subscription["status"] in (*LIVING, "incomplete"):
                before = self.store.public(subscription)
                subscription["default_payment_method"] = payment_method["id"]
                self.changed(subscription, before, "customer.subscription.updated")
        unpaid = [each for each in self.store.of_customer("invoice", customer["id"]) if each["status"] == "open"]
        outcomes = [self.pay(invoice, by_hand=True) for invoice in unpaid]
        return all(outcomes)

    def _payer(self, subscription: Json) -> Json | None:
        customer = self.store.get("customer", subscription["customer"])
        card = subscription["default_payment_method"] or customer["invoice_settings"]["default_payment_method"]
        return self.store.find("payment_method", card)

    # Customers ------------------------------------------------------------------------------------

    def create_customer(self, email: str | None, **fields: object) -> Json:
        settings = {"custom_fields": None, "default_payment_method": None, "footer": None}
        defaults: Json = {
            "address": None,
            "balance": 0,
            "currency": None,
            "default_source": None,
            "delinquent": False,
            "description": None,
            "name": None,
            "phone": None,
            "preferred_locales": [],
            "shipping": None,
            "tax_exempt": "none",
            "test_clock": None,
        }
        customer = self.store.make("customer", email=email, **{**defaults, **fields})
        customer["invoice_settings"] = settings | (customer.get("invoice_settings") or {})
        customer["invoice_prefix"] = customer["id"][-8:].upper()
        self.store.objects.setdefault("customer", {})[customer["id"]] = customer
        self.emit("customer.created", customer)
        return customer

    # Subscriptions --------------------------------------------------------------------------------

    def create_subscription(
        self,
        customer: Json,
        price: Json,
        quantity: int = 1,
        payment_method: Json | None = None,
        trial_days: int = 0,
        metadata: dict[str, str] | None = None,
        description: str | None = None,
    ) -> Json:
        """A subscription with its first invoice already charged: active, trialing, or incomplete."""
        start = self.store.now()
        anchor = start + trial_days * DAY
        end = anchor if trial_days else next_boundary(start, start, price["recurring"])
        subscription = self.store.add(
            "subscription",
            application=None,
            automatic_tax={"disabled_reason": None, "enabled": False, "liability": None},
            billing_cycle_anchor=anchor,
            billing_mode={"flexible": {"proration_discounts": "included"}, "type": "flexible"},
            cancel_at=None,
            cancel_at_period_end=False,
            canceled_at=None,
            cancellation_details={"comment": None, "feedback": None, "reason": None},
            collection_method="charge_automatically",
            currency=price["currency"],
            customer=customer["id"],
            days_until_due=None,
            default_payment_method=payment_method and payment_method["id"],
            default_source=None,
            default_tax_rates=[],
            description=description,
            discounts=[],
            ended_at=None,
            latest_invoice=None,
            metadata=metadata,
            next_pending_invoice_item_invoice=None,
            on_behalf_of=None,
            pause_collection=None,
            pending_setup_intent=None,
            pending_update=None,
            schedule=None,
            start_date=start,
            status="trialing" if trial_days else "incomplete",
            test_clock=None,
            trial_end=end if trial_days else None,
            trial_start=start if trial_days else None,
        )
        item = self.store.make(
            "subscription_item",
            current_period_end=end,
            current_period_start=start,
            discounts=[],
            price=price["id"],
            quantity=quantity,
            subscription=subscription["id"],
            tax_rates=[],
        )
        subscription["items"] = _list_of([item], f"/v1/subscription_items?subscription={subscription['id']}")
        self.emit("customer.subscription.created", subscription)
        self.pay(self._bill(subscription, "subscription_create"))
        return subscription

    def schedule_cancel(self, subscription: Json, by_portal: bool = False) -> None:
        """Ends the subscription with its period.

        The portal writes only `cancel_at`, as Stripe's does for subscriptions in flexible billing mode (the
        default); through the API `cancel_at_period_end` is true as well. Who reads must look at both.
        """
        end = item_of(subscription)["current_period_end"]
        self._set_end(subscription, end, at_period_end=not by_portal)

    def cancel_at(self, subscription: Json, moment: int | None) -> None:
        """Ends the subscription at a moment, or not at all."""
        self._set_end(subscription, moment, at_period_end=False)

    def _set_end(self, subscription: Json, moment: int | None, at_period_end: bool) -> None:
        before = self.store.public(subscription)
        ends = moment is not None
        subscription.update(
            cancel_at=moment,
            cancel_at_period_end=at_period_end,
            canceled_at=self.store.now() if ends else None,
        )
        subscription["cancellation_details"]["reason"] = "cancellation_requested" if ends else None
        self.changed(subscription, before, "customer.subscription.updated")

    def cancel(self, subscription: Json, reason: str = "cancellation_requested") -> None:
        """Ends the subscription now. Its open invoices are not tried again."""
        now = self.store.now()
        subscription.update(status="canceled", canceled_at=subscription["canceled_at"] or now, ended_at=now)
        subscription["cancellation_details"]["reason"] = reason
        for invoice in self._open_invoices(subscription):
            invoice.update(auto_advance=False, next_payment_attempt=None)
        self.emit("customer.subscription.deleted", subscription)

    def change_item(self, subscription: Json, price: Json | None, quantity: int | None) -> None:
        """Another price or quantity from the next invoice on: the local Stripe never prorates."""
        item = item_of(subscription)
        if price:
            item["price"] = price["id"]
        if quantity:
            item["quantity"] = quantity

    def _end_period(self, subscription: Json) -> None:
        before = self.store.public(subscription)
        item = item_of(subscription)
        price = self.store.get("price", item["price"])
        start = item["current_period_end"]
        item["current_period_start"] = start
        item["current_period_end"] = next_boundary(subscription["billing_cycle_anchor"], start, price["recurring"])
        if subscription["status"] == "trialing":
            subscription["status"] = "active"
        self.changed(subscription, before, "customer.subscription.updated")
        self.pay(self._bill(subscription, "subscription_cycle"))

    def _expire_incomplete(self, subscription: Json) -> None:
        before = self.store.public(subscription)
        subscription.update(status="incomplete_expired", ended_at=self.store.now())
        for invoice in self._open_invoices(subscription):
            invoice.update(status="void", next_payment_attempt=None)
            invoice["status_transitions"]["voided_at"] = self.store.now()
            self.emit("invoice.voided", invoice)
        self.changed(subscription, before, "customer.subscription.updated")

    # Invoices -------------------------------------------------------------------------------------

    def _open_invoices(self, subscription: Json) -> list[Json]:
        return [
            invoice
            for invoice in self.store.of_customer("invoice", subscription["customer"])
            if invoice["status"] == "open" and subscription_of(invoice) == subscription["id"]
        ]

    def _bill(self, subscription: Json, reason: str) -> Json:
        """The finalised invoice for the current period; nothing to pay in a trial."""
        item = item_of(subscription)
        price = self.store.get("price", item["price"])
        amount = 0 if subscription["status"] == "trialing" else price["unit_amount"] * item["quantity"]
        customer = self.store.get("customer", subscription["customer"])
        number = len(self.store.of_customer("invoice", customer["id"])) + 1
        invoice_id = new_id("invoice")
        address = f"{self.base_url}/i/{invoice_id}"
        invoice = self.store.add(
            "invoice",
            id=invoice_id,
            amount_due=amount,
            amount_overpaid=0,
            amount_paid=0,
            amount_remaining=amount,
            attempt_count=0,
            attempted=False,
            auto_advance=True,
            billing_reason=reason,
            collection_method="charge_automatically",
            currency=price["currency"],
            customer=customer["id"],
            customer_email=customer["email"],
            customer_name=customer["name"],
            default_payment_method=None,
            default_tax_rates=[],
            description=None,
            discounts=[],
            due_date=None,
            ending_balance=0,
            footer=None,
            hosted_invoice_url=address,
            invoice_pdf=address,
            lines=_list_of([self._line(invoice_id, item, price, amount)], f"/v1/invoices/{invoice_id}/lines"),
            next_payment_attempt=None,
            number=f"{customer['invoice_prefix']}-{number:04d}",
            parent={
                "type": "subscription_details",
                "quote_details": None,
                "subscription_details": {
                    "metadata": dict(subscription["metadata"]),
                    "subscription": subscription["id"],
                },
            },
            period_end=item["current_period_end"],
            period_start=item["current_period_start"],
            starting_balance=0,
            status="open",
            status_transitions={
                "finalized_at": self.store.now(),
                "marked_uncollectible_at": None,
                "paid_at": None,
                "voided_at": None,
            },
            subtotal=amount,
            total=amount,
            _failures=0,
        )
        subscription["latest_invoice"] = invoice_id
        self.emit("invoice.created", invoice)
        self.emit("invoice.finalized", invoice)
        return invoice

    def _line(self, invoice_id: str, item: Json, price: Json, amount: int) -> Json:
        product = self.store.get("product", price["product"])
        return {
            "id": new_id("line_item"),
            "object": "line_item",
            "amount": amount,
            "currency": price["currency"],
            "description": f"{item['quantity']} × {product['name']}",
            "discountable": True,
            "discounts": [],
            "invoice": invoice_id,
            "livemode": False,
            "metadata": {},
            "parent": {
                "type": "subscription_item_details",
                "invoice_item_details": None,
                "subscription_item_details": {
                    "invoice_item": None,
                    "proration": False,
                    "subscription": item["subscription"],
                    "subscription_item": item["id"],
                },
            },
            "period": {"start": item["current_period_start"], "end": item["current_period_end"]},
            "pricing": {
                "type": "price_details",
                "price_details": {"price": price["id"], "product": price["product"]},
                "unit_amount_decimal": price["unit_amount_decimal"],
            },
            "quantity": item["quantity"],
            "subtotal": amount,
            "taxes": [],
        }

    def pay(self, invoice: Json, by_hand: bool = False) -> bool:
        """Charges the card of the subscription, and moves invoice and subscription to where that leads.

        A charge asked for `by_hand` (portal, API) that fails leaves the schedule of later tries as it was.
        """
        subscription = self.store.get("subscription", subscription_of(invoice))
        payer = self._payer(subscription)
        # What a trial costs is nothing, so nobody is asked.
        declined = "" if invoice["amount_due"] == 0 else self._charge(invoice, payer)
        invoice["attempted"] = True
        invoice["attempt_count"] += 1
        if declined:
            self._not_paid(invoice, subscription, by_hand)
        else:
            self._paid(invoice, subscription)
        return not declined

    def _charge(self, invoice: Json, payer: Json | None) -> str:
        """Why the card was declined, or nothing when it was charged."""
        declined = payer["_fails"] if payer else "no_payment_method"
        message = DECLINED.get(declined, "This customer has no attached payment source.")
        intent = self.store.add(
            "payment_intent",
            amount=invoice["amount_due"],
            amount_capturable=0,
            amount_received=0,
            canceled_at=None,
            capture_method="automatic",
            client_secret=f"{new_id('payment_intent')}_secret_local",
            confirmation_method="automatic",
            currency=invoice["currency"],
            customer=invoice["customer"],
            description="Subscription",
            last_payment_error=None,
            latest_charge=None,
            next_action=None,
            payment_method=payer and payer["id"],
            payment_method_types=["card"],
            setup_future_usage="off_session",
            status="requires_confirmation" if payer else "requires_payment_method",
        )
        self.store.add(
            "invoice_payment",
            amount_paid=None if declined else invoice["amount_due"],
            amount_requested=invoice["amount_due"],
            currency=invoice["currency"],
            invoice=invoice["id"],
            is_default=True,
            payment={"type": "payment_intent", "payment_intent": intent["id"]},
            status="open" if declined else "paid",
            status_transitions={"canceled_at": None, "paid_at": None if declined else self.store.now()},
        )
        self.emit("payment_intent.created", intent)
        if declined:
            error = {"type": "card_error", "code": "card_declined", "message": message}
            intent.update(status="requires_payment_method", last_payment_error=error)
            self.emit("payment_intent.payment_failed", intent)
        else:
            intent.update(status="succeeded", amount_received=intent["amount"])
            self.emit("payment_intent.succeeded", intent)
        return str(declined)

    def _paid(self, invoice: Json, subscription: Json) -> None:
        invoice.update(
            status="paid",
            amount_paid=invoice["amount_due"],
            amount_remaining=0,
            auto_advance=False,
            next_payment_attempt=None,
        )
        invoice["status_transitions"]["paid_at"] = self.store.now()
        self.emit("invoice.paid", invoice)
        self.emit("invoice.payment_succeeded", invoice)
        # As with Stripe it is the latest invoice that counts; an older one still open changes nothing.
        if subscription["latest_invoice"] == invoice["id"]:
            self._move(subscription, ("incomplete", "past_due"), "active")

    def _not_paid(self, invoice: Json, subscription: Json, by_hand: bool) -> None:
        """A first invoice is not tried again; a renewal is, and at the end the subscription is cancelled."""
        renewal = invoice["billing_reason"] == "subscription_cycle" and subscription["status"] in LIVING
        over = False
        if renewal and not by_hand:
            pauses = RETRY_INVOICE_AFTER[invoice["_failures"] :]
            invoice["_failures"] += 1
            invoice["next_payment_attempt"] = self.store.now() + pauses[0] if pauses else None
            over = not pauses
        self.emit("invoice.payment_failed", invoice)
        if over:
            self.cancel(subscription, "payment_failed")
        else:
            self._move(subscription, ("active", "trialing"), "past_due")

    def _move(self, subscription: Json, froms: tuple[str, ...], to: str) -> None:
        if subscription["status"] in froms:
            before = self.store.public(subscription)
            subscription["status"] = to
            self.changed(subscription, before, "customer.subscription.updated")

    # Checkout -------------------------------------------------------------------------------------

    def open_checkout(self, price: Json, quantity: int, asked: Json, expires_at: int) -> Json:
        """A session whose page takes one payment, until it is complete or expired."""
        product = self.store.get("product", price["product"])
        total = price["unit_amount"] * quantity
        line = {
            "id": new_id("item"),
            "object": "item",
            "adjustable_quantity": None,
            "amount_discount": 0,
            "amount_subtotal": total,
            "amount_tax": 0,
            "amount_total": total,
            "currency": price["currency"],
            "description": product["name"],
            "price": price["id"],
            "quantity": quantity,
        }
        session = self.store.add(
            "checkout.session",
            allow_promotion_codes=asked.get("allow_promotion_codes"),
            amount_subtotal=total,
            amount_total=total,
            automatic_tax={"enabled": False, "liability": None, "provider": None, "status": None},
            billing_address_collection=asked.get("billing_address_collection"),
            cancel_url=asked.get("cancel_url"),
            client_reference_id=asked.get("client_reference_id"),
            currency=price["currency"],
            custom_fields=[],
            customer=asked.get("customer"),
            customer_details=None,
            customer_email=asked.get("customer_email"),
            expires_at=expires_at,
            invoice=None,
            locale=asked.get("locale"),
            metadata=asked.get("metadata"),
            mode="subscription",
            payment_intent=None,
            payment_link=None,
            payment_method_collection=asked.get("payment_method_collection", "always"),
            payment_method_types=["card"],
            payment_status="unpaid",
            setup_intent=None,
            status="open",
            submit_type=None,
            subscription=None,
            success_url=asked["success_url"],
            total_details={"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
            ui_mode="hosted_page",
            _line_items=[line],
            _subscription_data=asked.get("subscription_data") or {},
        )
        session["url"] = f"{self.base_url}/c/pay/{session['id']}"
        return session

    def complete_checkout(self, session: Json, email: str, number: str, exp_month: int, exp_year: int) -> None:
        """Pays an open session: customer, card, subscription. Problem 402, and no change, if declined."""
        card = self.make_card(number, exp_month, exp_year)
        trial_days = session["_subscription_data"].get("trial_period_days") or 0
        if card["_fails"] and not trial_days:
            self.store.remove("payment_method", card["id"])
            raise declined(card["_fails"])
        customer = self.store.find("customer", session["customer"]) or self.create_customer(email)
        self.attach(card, customer)
        if not customer["invoice_settings"]["default_payment_method"]:
            self.make_default(card, customer)
        line = session["_line_items"][0]
        subscription = self.create_subscription(
            customer,
            self.store.get("price", line["price"]),
            line["quantity"],
            card,
            trial_days,
            session["_subscription_data"].get("metadata"),
            session["_subscription_data"].get("description"),
        )
        session.update(
            customer=customer["id"],
            customer_details={"email": customer["email"], "name": customer["name"], "tax_exempt": "none"},
            invoice=subscription["latest_invoice"],
            payment_status="no_payment_required" if trial_days else "paid",
            status="complete",
            subscription=subscription["id"],
            url=None,
        )
        self.emit("checkout.session.completed", session)

    def expire_checkout(self, session: Json) -> None:
        session.update(status="expired", url=None)
        self.emit("checkout.session.expired", session)

    # Time -----------------------------------------------------------------------------------------

    def advance(self, seconds: int) -> None:
        """Moves the clock on, and does all that falls due on the way, each at its own moment."""
        until = self.store.now() + seconds
        self.catch_up(until)
        self.store.move_clock_to(until)

    def catch_up(self, until: int | None = None) -> bool:
        """Does what is due until a moment (now by default), oldest first. True if there was something."""
        limit = self.store.now() if until is None else until
        worked = False
        while due := self._next_due(limit):
            moment, deed = due
            if moment > self.store.now():
                self.store.move_clock_to(moment)
            deed()
            worked = True
        return worked

    def _next_due(self, limit: int) -> tuple[int, Callable[[], object]] | None:
        due = [each for each in self._agenda() if each[0] <= limit]
        return min(due, key=lambda each: each[0], default=None)

    def _agenda(self) -> Iterator[tuple[int, Callable[[], object]]]:
        """Everything with a date, and what to do then. Doing it takes it off, or moves it on."""
        for session in self.store.all("checkout.session"):
            if session["status"] == "open":
                yield session["expires_at"], partial(self.expire_checkout, session)
        for subscription in self.store.all("subscription"):
            if subscription["status"] == "incomplete":
                expires = subscription["created"] + INCOMPLETE_EXPIRES_AFTER
                yield expires, partial(self._expire_incomplete, subscription)
            elif subscription["status"] in LIVING:
                # The end comes before the renewal: at the same moment the first one named is done.
                if subscription["cancel_at"] is not None:
                    yield subscription["cancel_at"], partial(self.cancel, subscription)
                yield item_of(subscription)["current_period_end"], partial(self._end_period, subscription)
        for invoice in self.store.all("invoice"):
            if invoice["status"] == "open" and invoice["next_payment_attempt"] is not None:
                yield invoice["next_payment_attempt"], partial(self.pay, invoice)


def declined(code: str) -> Problem:
    """The answer of a bank that says no, by decline code."""
    return _card_error(DECLINED[code], "card_declined", code)


def _card_error(message: str, code: str, decline_code: str = "") -> Problem:
    return Problem(402, message, code, kind="card_error", decline_code=decline_code)


def _test_card(number: str) -> TestCard:
    """The published card, or Problem 402. A real card's number is refused, so that none is ever kept here."""
    card = next((each for each in TEST_CARDS if each.number == number), None)
    if card is None:
        if not re.fullmatch("[0-9]{12,19}", number):
            raise _card_error("Your card number is incorrect.", "incorrect_number")
        raise declined("test_mode_live_card")
    if card.refused:
        raise declined(card.refused)
    return card


def full_year(year: int) -> int:
    """A card's year as four digits: cards show two."""
    return 2000 + year if year < 100 else year


def item_of(subscription: Json) -> Json:
    item: Json = subscription["items"]["data"][0]
    return item


def subscription_of(invoice: Json) -> str:
    return str(invoice["parent"]["subscription_details"]["subscription"])


def next_boundary(anchor: int, start: int, recurring: Json) -> int:
    """When the period that begins at `start` ends, in seconds since 1970.

    Months are calendar months counted from the anchor: one that began on the 31st ends on the last day of a
    shorter month, and on the 31st again after it.
    """
    count = recurring["interval_count"]
    if recurring["interval"] in ("day", "week"):
        return start + count * DAY * (7 if recurring["interval"] == "week" else 1)
    first, last = (datetime.fromtimestamp(moment, UTC) for moment in (anchor, start))
    months = (last.year - first.year) * 12 + last.month - first.month
    months += count * (12 if recurring["interval"] == "year" else 1)
    year, month = divmod(first.year * 12 + first.month - 1 + months, 12)
    day = min(first.day, monthrange(year, month + 1)[1])
    return int(first.replace(year=year, month=month + 1, day=day).timestamp())


def _list_of(items: list[Json], url: str) -> Json:
    return {"object": "list", "data": items, "has_more": False, "total_count": len(items), "url": url}
