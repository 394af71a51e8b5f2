"""What Stripe does by itself: subscriptions, invoices, Checkout's end, and the clock."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Literal

from . import amounts, periods
from .agenda import Agenda, Due
from .cards import card_error, card_fields, declined, test_card
from .charges import Charges
from .discounts import Discounts
from .periods import DAY, next_boundary
from .store import Json, Problem, Store, new_id
from .tax import Taxes, automatic_tax
from .webhooks import Webhooks

LIVING = ("active", "trialing", "past_due", "unpaid", "paused")
# After the last of these the account's setting `after_retries` decides.
RETRY_INVOICE_AFTER = (3 * DAY, 5 * DAY, 7 * DAY)
INCOMPLETE_EXPIRES_AFTER = 23 * 3600
CHECKOUT_EXPIRES_AFTER = DAY

BILL_AFTER_TRIAL = {"missing_payment_method": "create_invoice"}
# In these the rest of a period is worth something: it was to be paid.
CREDITED = ("active", "past_due", "unpaid")

type Proration = Literal["none", "create_prorations", "always_invoice"]


@dataclass(frozen=True)
class Change:
    """What another price or quantity means: prorations, a new period, and whether it is billed at once."""

    price: Json
    quantity: int
    parts: list[periods.Part] = field(default_factory=list)
    restarts: bool = False
    is_billed: bool = False


class Money:
    """What Stripe does by itself with the objects in the store, each step told as an event."""

    def __init__(self, store: Store, webhooks: Webhooks, base_url: str) -> None:
        self.store = store
        self.emit = webhooks.emit
        self.base_url = base_url
        self.discounts = Discounts(store, webhooks)
        self.taxes = Taxes(store, webhooks)
        self.agenda = Agenda(store, self._dues_of)
        self.charges = Charges(store, webhooks, self.agenda)
        self.agenda.fill()

    def changed(self, subject: Json, before: Json, event: str = "") -> None:
        """Emits `<object>.updated` with what differs from `before`, if anything does."""
        now = self.store.public(subject)
        previous = {name: was for name, was in before.items() if now.get(name) != was}
        if previous:
            self.emit(event or f"{subject['object']}.updated", subject, previous)

    # Cards ----------------------------------------------------------------------------------------

    def make_card(self, number: str, exp_month: int, exp_year: int) -> Json:
        """A payment method of no customer yet. Raises Problem 402 for a card that is refused at entry."""
        card = test_card(number)
        if not 1 <= exp_month <= 12:
            raise card_error("Your card's expiration month is invalid.", "invalid_expiry_month")
        today = datetime.fromtimestamp(self.store.now(), UTC)
        if (exp_year, exp_month) < (today.year, today.month):
            raise card_error("Your card has expired.", "expired_card")
        return self.store.add(
            "payment_method",
            type="card",
            customer=None,
            allow_redisplay="unspecified",
            billing_details={"address": {}, "email": None, "name": None, "phone": None, "tax_id": None},
            **card_fields(card, exp_month, exp_year),
        )

    def attach(self, payment_method: Json, customer: Json) -> None:
        self.store.assign(payment_method, customer["id"])
        self.emit("payment_method.attached", payment_method)

    def make_default(self, payment_method: Json, customer: Json) -> None:
        before = self.store.public(customer)
        customer["invoice_settings"]["default_payment_method"] = payment_method["id"]
        self.changed(customer, before)

    def replace_card(self, payment_method: Json, customer: Json) -> None:
        """The card for everything from now on. Nothing is charged to it now, whatever is open.

        The customer is there, and is taken to authenticate where the bank wants it.
        """
        payment_method["_set_up"] = True
        self.attach(payment_method, customer)
        self.make_default(payment_method, customer)
        for subscription in self.store.of_customer("subscription", customer["id"]):
            if subscription["status"] in (*LIVING, "incomplete"):
                before = self.store.public(subscription)
                subscription["default_payment_method"] = payment_method["id"]
                self.changed(subscription, before, "customer.subscription.updated")

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
        self.store.put(customer)
        self.emit("customer.created", customer)
        return customer

    # Subscriptions --------------------------------------------------------------------------------

    def create_subscription(
        self,
        customer: Json,
        price: Json,
        quantity: int,
        payment_method: Json | None,
        asked: Json,
        session_id: str | None = None,
    ) -> Json:
        """A subscription whose customer was asked to pay at once: active, trialing, or incomplete.

        `asked` is what Checkout calls `subscription_data`, and the API's form has under the same names.
        """
        start = self.store.now()
        trial_days = asked.get("trial_period_days") or 0
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
            description=asked.get("description"),
            discounts=[],
            ended_at=None,
            latest_invoice=None,
            metadata=asked.get("metadata"),
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
            trial_settings=asked.get("trial_settings") or {"end_behavior": BILL_AFTER_TRIAL},
            trial_start=start if trial_days else None,
        )
        item = self.store.make(
            "subscription_item",
            # As its subscription's, so that one is found from the other.
            id=subscription["id"].replace("sub_", "si_", 1),
            current_period_end=end,
            current_period_start=start,
            discounts=[],
            price=price["id"],
            quantity=quantity,
            subscription=subscription["id"],
            tax_rates=[],
        )
        subscription["items"] = _list_of([item], f"/v1/subscription_items?subscription={subscription['id']}")
        subscription["automatic_tax"]["enabled"] = bool((asked.get("automatic_tax") or {}).get("enabled"))
        self.discounts.give(subscription, asked.get("discounts") or [], session_id)
        self.emit("customer.subscription.created", subscription)
        self.pay(self._bill(subscription, "subscription_create"), present=not asked.get("off_session"))
        self.agenda.note(subscription)
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
        self.agenda.note(subscription)

    def cancel(
        self,
        subscription: Json,
        reason: str = "cancellation_requested",
        prorate: bool = False,
        invoice_now: bool = False,
    ) -> None:
        """Ends the subscription now. Its open invoices are not tried again.

        `prorate` gives back the rest of the period, on an invoice of its own if `invoice_now`.
        """
        now = self.store.now()
        if prorate and subscription["status"] in CREDITED:
            item = item_of(subscription)
            price = self.store.get("price", item["price"])
            self._add_pending(subscription, periods.unused(item, price, item["quantity"], now))
        subscription.update(status="canceled", canceled_at=subscription["canceled_at"] or now, ended_at=now)
        subscription["cancellation_details"]["reason"] = reason
        for invoice in self._open_invoices(subscription):
            invoice.update(auto_advance=False, next_payment_attempt=None)
        self.emit("customer.subscription.deleted", subscription)
        if invoice_now and self._pending(subscription):
            self.pay(self._bill(subscription, "subscription_update", with_period=False))

    def change_item(
        self,
        subscription: Json,
        price: Json | None,
        quantity: int | None,
        proration: Proration = "create_prorations",
        before: Json | None = None,
        present: bool = True,
    ) -> str:
        """Another price or quantity from now on; why its payment was declined, if it was, or nothing.

        What is left of the period is prorated by the second, to be paid with the next invoice or, if `always_invoice`,
        at once. A price with another interval begins a period that is paid at once. `before` is the subscription as
        shown before the request changed other things in it.
        """
        before = before or self.store.public(subscription)
        item = item_of(subscription)
        change = self.change_of(subscription, price, quantity, proration)
        item.update(price=change.price["id"], quantity=change.quantity)
        if change.parts:
            item["_share"] = str(self.discounts.share(subscription))
        if change.restarts:
            self._restart_period(subscription)
        for part in change.parts:
            self._add_pending(subscription, part)
        self.changed(subscription, before, "customer.subscription.updated")
        if not change.is_billed:
            return ""
        invoice = self._bill(subscription, "subscription_update", with_period=change.restarts)
        return self.pay(invoice, present=present)

    def change_of(self, subscription: Json, price: Json | None, quantity: int | None, proration: Proration) -> Change:
        """What another price or quantity would mean now. Nothing is changed by asking."""
        item = item_of(subscription)
        old = self.store.get("price", item["price"])
        new, many = price or old, quantity or item["quantity"]
        is_same = (new["id"], many) == (old["id"], item["quantity"])
        if is_same or subscription["status"] not in CREDITED:
            return Change(new, many)
        restarts = periods.is_other_rhythm(old, new)
        parts = []
        if proration != "none":
            now = self.store.now()
            parts.append(periods.unused(item, old, item["quantity"], now))
            if not restarts:
                parts.append(periods.remaining(item, new, many, now, self.discounts.share(subscription)))
        return Change(new, many, parts, restarts, restarts or proration == "always_invoice" and bool(parts))

    def due_for(self, subscription: Json, change: Change) -> amounts.Bill:
        """The bill that a change would make now, with what is pending already."""
        pending = [amounts.Charge(each["amount"], discountable=False) for each in self._pending(subscription)]
        parts = [amounts.Charge(part.amount, False, _has_tax(part.price)) for part in change.parts]
        whole = amounts.Charge(change.price["unit_amount"] * change.quantity, True, _has_tax(change.price))
        return self._reckon(subscription, [*pending, *parts, *([whole] if change.restarts else [])])

    def check_payable(self, subscription: Json, price: Json | None, quantity: int | None, proration: Proration) -> None:
        """Problem 402 if a change would make a bill now that the card does not pay."""
        change = self.change_of(subscription, price, quantity, proration)
        balance = self.store.get("customer", subscription["customer"])["balance"]
        if change.is_billed and self.due_for(subscription, change).total + balance > 0:
            payer = self._payer(subscription)
            if refusal := payer["_fails"] if payer else "no_payment_method":
                raise declined(refusal)

    def _restart_period(self, subscription: Json) -> None:
        item = item_of(subscription)
        now = self.store.now()
        recurring = self.store.get("price", item["price"])["recurring"]
        subscription["billing_cycle_anchor"] = now
        item.update(current_period_start=now, current_period_end=next_boundary(now, now, recurring))
        self.agenda.note(subscription)

    def _end_period(self, subscription: Json) -> None:
        if subscription["status"] == "trialing" and not self._payer(subscription):
            match subscription["trial_settings"]["end_behavior"]["missing_payment_method"]:
                case "pause":
                    return self._pause(subscription)
                case "cancel":
                    return self.cancel(subscription)
        before = self.store.public(subscription)
        item = item_of(subscription)
        price = self.store.get("price", item["price"])
        start = item["current_period_end"]
        item["current_period_start"] = start
        item["current_period_end"] = next_boundary(subscription["billing_cycle_anchor"], start, price["recurring"])
        if subscription["status"] == "trialing":
            subscription["status"] = "active"
        self.changed(subscription, before, "customer.subscription.updated")
        invoice = self._bill(subscription, "subscription_cycle")
        if subscription["status"] == "unpaid":
            invoice["auto_advance"] = False
        else:
            self.pay(invoice)
        return None

    def _pause(self, subscription: Json) -> None:
        before = subscription["status"]
        subscription["status"] = "paused"
        self.emit("customer.subscription.paused", subscription, {"status": before})

    def resume(self, subscription: Json) -> None:
        """Begins a new period of a paused subscription, and charges it: active, or past due."""
        if subscription["status"] != "paused":
            raise Problem(400, "This subscription is not paused, so it cannot be resumed.")
        self._restart_period(subscription)
        self.pay(self._bill(subscription, "subscription_update"))
        self.emit("customer.subscription.resumed", subscription, {"status": "paused"})
        self.agenda.note(subscription)

    def _expire_incomplete(self, subscription: Json) -> None:
        before = self.store.public(subscription)
        subscription.update(status="incomplete_expired", ended_at=self.store.now())
        for invoice in self._open_invoices(subscription):
            invoice.update(status="void", next_payment_attempt=None)
            invoice["status_transitions"]["voided_at"] = self.store.now()
            self.charges.give_up(invoice)
            self.emit("invoice.voided", invoice)
        self.changed(subscription, before, "customer.subscription.updated")

    # Invoices -------------------------------------------------------------------------------------

    def _open_invoices(self, subscription: Json) -> list[Json]:
        return [
            invoice
            for invoice in self.store.of_customer("invoice", subscription["customer"])
            if invoice["status"] == "open" and subscription_of(invoice) == subscription["id"]
        ]

    def _bill(self, subscription: Json, reason: str, with_period: bool = True) -> Json:
        """A draft for what is pending and, mostly, the current period; a period of a trial is free."""
        item = item_of(subscription)
        customer = self.store.get("customer", subscription["customer"])
        invoice_id = new_id("invoice")
        pending = self._pending(subscription)
        lines = [self._pending_line(each, invoice_id) for each in pending]
        if with_period:
            lines.append(self._period_line(subscription, invoice_id))
        is_taxed = subscription["automatic_tax"]["enabled"]
        bill = self._reckon(subscription, [_charge(self.store, line) for line in lines])
        for line, reckoned in zip(lines, bill.lines, strict=True):
            line.update(reckoned.shown())
        if with_period:
            # What was paid of the price: no more of it is given back when the period is left early.
            item["_share"] = str(bill.lines[-1].share)
        invoice = self.store.add(
            "invoice",
            id=invoice_id,
            amount_due=max(0, bill.total),
            amount_overpaid=0,
            amount_paid=0,
            amount_remaining=max(0, bill.total),
            attempt_count=0,
            attempted=False,
            auto_advance=True,
            automatic_tax=automatic_tax(is_taxed, self.taxes.rate(customer) if is_taxed else None),
            billing_reason=reason,
            collection_method="charge_automatically",
            currency=subscription["currency"],
            customer=customer["id"],
            customer_email=customer["email"],
            customer_name=customer["name"],
            default_payment_method=None,
            default_tax_rates=[],
            description=None,
            due_date=None,
            ending_balance=None,
            footer=None,
            hosted_invoice_url=None,
            invoice_pdf=None,
            lines=_list_of(lines, f"/v1/invoices/{invoice_id}/lines"),
            next_payment_attempt=None,
            number=None,
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
            starting_balance=customer["balance"],
            status="draft",
            status_transitions={
                "finalized_at": None,
                "marked_uncollectible_at": None,
                "paid_at": None,
                "voided_at": None,
            },
            **bill.shown(),
            _failures=0,
        )
        for each in pending:
            each["invoice"] = invoice_id
        subscription["latest_invoice"] = invoice_id
        self.discounts.use(subscription, bill.discounts)
        self.emit("invoice.created", invoice)
        return invoice

    def _reckon(self, subscription: Json, charges: list[amounts.Charge]) -> amounts.Bill:
        customer = self.store.get("customer", subscription["customer"])
        rate = self.taxes.rate(customer) if subscription["automatic_tax"]["enabled"] else None
        return amounts.reckon(charges, self.discounts.offs(subscription), rate)

    def finalize(self, invoice: Json) -> None:
        """From now on the invoice can be paid. What the customer has to their credit is used first."""
        customer = self.store.get("customer", invoice["customer"])
        before = self.store.public(customer)
        owed = invoice["total"] + customer["balance"]
        customer["balance"] = min(0, owed)
        numbered = [each for each in self.store.of_customer("invoice", customer["id"]) if each["number"]]
        address = f"{self.base_url}/i/{invoice['id']}"
        invoice.update(
            amount_due=max(0, owed),
            amount_remaining=max(0, owed),
            ending_balance=customer["balance"],
            hosted_invoice_url=address,
            invoice_pdf=address,
            number=f"{customer['invoice_prefix']}-{len(numbered) + 1:04d}",
            starting_balance=before["balance"],
            status="open",
        )
        invoice["status_transitions"]["finalized_at"] = self.store.now()
        self.emit("invoice.finalized", invoice)
        self.changed(customer, before)

    # What is pending: changes within a period, until the next invoice ---------------------------------

    def _pending(self, subscription: Json) -> list[Json]:
        found = self.store.of_customer("invoiceitem", subscription["customer"])
        return [each for each in found if each["invoice"] is None and _is_of(each, subscription)]

    def _add_pending(self, subscription: Json, part: periods.Part) -> None:
        product = self.store.get("product", part.price["product"])
        day = datetime.fromtimestamp(part.start, UTC).strftime("%-d %b %Y")
        made = self.store.add(
            "invoiceitem",
            amount=part.amount,
            currency=part.price["currency"],
            customer=subscription["customer"],
            date=self.store.now(),
            description=f"{part.words} {product['name']} after {day}",
            discountable=False,
            discounts=[],
            invoice=None,
            net_amount=part.amount,
            parent={
                "type": "subscription_details",
                "subscription_details": {
                    "subscription": subscription["id"],
                    "subscription_item": item_of(subscription)["id"],
                },
            },
            period={"start": part.start, "end": part.end},
            pricing=_pricing(part.price),
            proration=True,
            proration_details={"discount_amounts": []},
            quantity=part.quantity,
            tax_rates=[],
            test_clock=None,
        )
        self.emit("invoiceitem.created", made)

    def _pending_line(self, pending: Json, invoice_id: str) -> Json:
        same = ("amount", "currency", "description", "discountable", "period", "pricing", "quantity")
        return _line(
            invoice_id,
            pending["parent"]["subscription_details"],
            pending["id"],
            **{name: pending[name] for name in same},
        )

    def _period_line(self, subscription: Json, invoice_id: str) -> Json:
        item = item_of(subscription)
        price = self.store.get("price", item["price"])
        product = self.store.get("product", price["product"])
        return _line(
            invoice_id,
            {"subscription": subscription["id"], "subscription_item": item["id"]},
            None,
            amount=0 if subscription["status"] == "trialing" else price["unit_amount"] * item["quantity"],
            currency=price["currency"],
            description=f"{item['quantity']} × {product['name']}",
            discountable=True,
            period={"start": item["current_period_start"], "end": item["current_period_end"]},
            pricing=_pricing(price),
            quantity=item["quantity"],
        )

    # Paying ---------------------------------------------------------------------------------------

    def pay(
        self,
        invoice: Json,
        by_hand: bool = False,
        present: bool = False,
        authenticated: bool = False,
        card: Json | None = None,
    ) -> str:
        """Charges a card, or that of the subscription, and moves invoice and subscription to where that leads.

        Why it was declined, by decline code, or nothing when it was paid. A charge asked for `by_hand` (portal, API)
        that fails leaves the schedule of later tries as it was. A customer who is `present` can be asked to
        authenticate; one who has done so is `authenticated`.
        """
        if invoice["status"] == "draft":
            self.finalize(invoice)
        subscription = self.store.get("subscription", subscription_of(invoice))
        refusal = ""
        # What costs nothing asks nobody.
        if invoice["amount_due"]:
            refusal = self.charges.pay(invoice, card or self._payer(subscription), present, authenticated)
        invoice["attempted"] = True
        invoice["attempt_count"] += 1
        if refusal:
            self._not_paid(invoice, subscription, by_hand, refusal)
        else:
            self._paid(invoice, subscription)
        return refusal

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
        # As with Stripe it is the latest invoice that counts, be it a draft; an older one changes nothing.
        if subscription["latest_invoice"] == invoice["id"]:
            self._move(subscription, ("incomplete", "past_due", "unpaid", "paused"), "active")

    def _not_paid(self, invoice: Json, subscription: Json, by_hand: bool, refusal: str) -> None:
        """A first invoice is not tried again; others are, and at the end the account's setting decides."""
        is_first = invoice["billing_reason"] == "subscription_create"
        over = False
        if not is_first and not by_hand and subscription["status"] in LIVING:
            pauses = RETRY_INVOICE_AFTER[invoice["_failures"] :]
            invoice["_failures"] += 1
            invoice["next_payment_attempt"] = self.store.now() + pauses[0] if pauses else None
            over = not pauses
            self.agenda.note(invoice)
        if not self.charges.is_asking(invoice):
            self.emit("invoice.payment_failed", invoice)
        if refusal == "authentication_required":
            self.emit("invoice.payment_action_required", invoice)
        self._move(subscription, ("active", "trialing", "paused"), "past_due")
        if over:
            self._end_retries(subscription)

    def _end_retries(self, subscription: Json) -> None:
        match self.store.settings["after_retries"]:
            case "cancel":
                self.cancel(subscription, "payment_failed")
            case "unpaid":
                self._move(subscription, ("past_due",), "unpaid")

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
            _subscription=None,
            _subscription_data=asked.get("subscription_data") or {},
        )
        session["url"] = f"{self.base_url}/c/pay/{session['id']}"
        self.agenda.note(session)
        return session

    def complete_checkout(self, session: Json, email: str, number: str, exp_month: int, exp_year: int) -> bool:
        """Pays an open session: customer, card, subscription. Problem 402, and no change, if declined.

        False while the bank wants the customer to `authenticate` first: the subscription is incomplete until then. With
        another card the same subscription is paid. A trial for which no card must be left has none without a `number`.
        """
        asked = session["_subscription_data"]
        is_free = bool(asked.get("trial_period_days"))
        needs_card = not is_free or session["payment_method_collection"] == "always"
        card = self.make_card(number, exp_month, exp_year) if number or needs_card else None
        if card and card["_fails"] and not is_free:
            self.store.remove("payment_method", card["id"])
            raise declined(card["_fails"])
        begun = self._begun(session)
        customer_id = begun["customer"] if begun else session["customer"]
        customer = self.store.find("customer", customer_id) or self.create_customer(email)
        self.taxes.learn(customer, session)
        if card:
            # A card that is only left for later is set up without asking.
            card["_set_up"] = is_free
            self.attach(card, customer)
        if card and not customer["invoice_settings"]["default_payment_method"]:
            self.make_default(card, customer)
        if begun and card:
            begun["default_payment_method"] = card["id"]
            self.pay(self.store.get("invoice", begun["latest_invoice"]), by_hand=True, present=True)
        else:
            line = session["_line_items"][0]
            price = self.store.get("price", line["price"])
            begun = self.create_subscription(customer, price, line["quantity"], card, asked, session["id"])
            session["_subscription"] = begun["id"]
        return self._finish_checkout(session, begun)

    def _begun(self, session: Json) -> Json | None:
        """The subscription that the session tried to pay before, if it can still be paid."""
        begun = self.store.find("subscription", session["_subscription"])
        return begun if begun and begun["status"] == "incomplete" else None

    def is_authenticating(self, session: Json) -> bool:
        """Whether the session waits for its customer to authenticate."""
        begun = self._begun(session)
        return bool(begun and self.charges.is_asking(self.store.get("invoice", begun["latest_invoice"])))

    def authenticate(self, session: Json, ok: bool) -> None:
        """The customer authenticated, and the session is paid; or did not: Problem 402, another card may be tried."""
        begun = self.store.get("subscription", session["_subscription"])
        self.answer_bank(self.store.get("invoice", begun["latest_invoice"]), ok)
        self._finish_checkout(session, begun)

    def answer_bank(self, invoice: Json, ok: bool) -> None:
        """The customer authenticated, and the invoice is paid; or did not: Problem 402."""
        if not ok:
            self.charges.refuse_authentication(invoice)
            self.emit("invoice.payment_failed", invoice)
            raise card_error(
                "We are unable to authenticate your payment method. Please choose a different payment method "
                "and try again.",
                "payment_intent_authentication_failure",
            )
        self.pay(invoice, by_hand=True, authenticated=True, card=self.charges.asked_card(invoice))

    def _finish_checkout(self, session: Json, subscription: Json) -> bool:
        """Completes the session unless its subscription is still not paid."""
        if subscription["status"] == "incomplete":
            return False
        customer = self.store.get("customer", subscription["customer"])
        self.store.assign(session, customer["id"])
        session.update(
            customer_details=self.taxes.details_of(customer),
            invoice=subscription["latest_invoice"],
            payment_status="no_payment_required" if subscription["status"] == "trialing" else "paid",
            status="complete",
            subscription=subscription["id"],
            url=None,
        )
        self.emit("checkout.session.completed", session)
        return True

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
        while self.agenda.do_next(limit, self._reach):
            worked = True
        return worked

    def _reach(self, moment: int) -> None:
        if moment > self.store.now():
            self.store.move_clock_to(moment)

    def _dues_of(self, found: Json) -> Iterator[Due]:
        """Every date of an object, and what to do then. Doing it takes it off, or moves it on."""
        match found["object"], found.get("status"):
            case "checkout.session", "open":
                yield found["expires_at"], partial(self.expire_checkout, found)
            case "subscription", "incomplete":
                yield found["created"] + INCOMPLETE_EXPIRES_AFTER, partial(self._expire_incomplete, found)
            case "subscription", status if status in LIVING:
                # The end comes before the renewal: at the same moment the first one named is done.
                if found["cancel_at"] is not None:
                    yield found["cancel_at"], partial(self.cancel, found)
                if status != "paused":
                    yield item_of(found)["current_period_end"], partial(self._end_period, found)
            case "invoice", "open" if found["next_payment_attempt"] is not None:
                yield found["next_payment_attempt"], partial(self.pay, found)
            case "charge" | "dispute", _:
                yield from self.charges.dues_of(found)


def item_of(subscription: Json) -> Json:
    item: Json = subscription["items"]["data"][0]
    return item


def subscription_of(invoice: Json) -> str:
    return str(invoice["parent"]["subscription_details"]["subscription"])


def _is_of(pending: Json, subscription: Json) -> bool:
    return bool(pending["parent"]["subscription_details"]["subscription"] == subscription["id"])


def _has_tax(price: Json) -> bool:
    return bool(price["tax_behavior"] == "inclusive")


def _charge(store: Store, line: Json) -> amounts.Charge:
    price = store.get("price", line["pricing"]["price_details"]["price"])
    return amounts.Charge(line["amount"], line["discountable"], _has_tax(price))


def _pricing(price: Json) -> Json:
    return {
        "type": "price_details",
        "price_details": {"price": price["id"], "product": price["product"]},
        "unit_amount_decimal": price["unit_amount_decimal"],
    }


def _line(invoice_id: str, about: Json, pending_id: str | None, **fields: object) -> Json:
    """A line of an invoice, for a subscription item's period or for what was pending."""
    return {
        "id": new_id("line_item"),
        "object": "line_item",
        "invoice": invoice_id,
        "livemode": False,
        "metadata": {},
        "parent": {
            "type": "subscription_item_details",
            "invoice_item_details": None,
            "subscription_item_details": {
                **about,
                "invoice_item": pending_id,
                "proration": pending_id is not None,
                "proration_details": {"credited_items": None},
            },
        },
        "subtotal": fields["amount"],
        **fields,
    }


def _list_of(items: list[Json], url: str) -> Json:
    return {"object": "list", "data": items, "has_more": False, "total_count": len(items), "url": url}
