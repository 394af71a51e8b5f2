"""Money that moves: charges on cards, refunds, and disputes."""

from typing import Any

from .agenda import Agenda, Due
from .cards import DECLINED
from .periods import DAY
from .store import Json, Problem, Store, new_id
from .webhooks import Webhooks

DISPUTED_AFTER = 1  # seconds: a real bank takes days
EVIDENCE_DUE_AFTER = 9 * DAY
# What a test writes into a dispute's evidence to win or to lose it, as with Stripe.
VERDICTS = {"winning_evidence": "won", "losing_evidence": "lost"}
REFUNDED = ("charge_already_refunded", "has already been refunded.")
DISPUTED = ("charge_disputed", "has been charged back; cannot issue a refund.")


class Charges:
    """Charges the cards of invoices by one payment intent each, and takes back what was charged."""

    def __init__(self, store: Store, webhooks: Webhooks, agenda: Agenda) -> None:
        self.store = store
        self.emit = webhooks.emit
        self.agenda = agenda

    # Payment intents ------------------------------------------------------------------------------

    def pay(self, invoice: Json, payer: Json | None, present: bool, authenticated: bool) -> str:
        """Why the invoice's amount could not be charged (a decline code), or nothing when it was.

        A customer who is `present` is asked to authenticate where the bank wants it: the intent waits for that. Nobody
        can ask one who is not.
        """
        intent = self._intent(invoice, payer)
        intent["payment_method"] = payer and payer["id"]
        if payer is None:
            return self._fail(intent, "no_payment_method")
        if authenticated:
            payer["_set_up"] = True
        elif _must_authenticate(payer):
            if present:
                return self._ask(intent)
            return self._fail(intent, "authentication_required", payer)
        if payer["_fails"]:
            return self._fail(intent, payer["_fails"], payer)
        self._succeed(intent, invoice, payer)
        return ""

    def _intent(self, invoice: Json, payer: Json | None) -> Json:
        """The invoice's payment intent: one for all its tries."""
        if known := self._known_intent(invoice):
            return known
        intent = self.store.add(
            "payment_intent",
            amount=invoice["amount_due"],
            amount_capturable=0,
            amount_received=0,
            canceled_at=None,
            cancellation_reason=None,
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
            amount_paid=None,
            amount_requested=invoice["amount_due"],
            currency=invoice["currency"],
            invoice=invoice["id"],
            is_default=True,
            payment={"type": "payment_intent", "payment_intent": intent["id"]},
            status="open",
            status_transitions={"canceled_at": None, "paid_at": None},
            _customer=invoice["customer"],
        )
        self.emit("payment_intent.created", intent)
        return intent

    def payment_of(self, invoice: Json) -> Json | None:
        payments = self.store.of_customer("invoice_payment", invoice["customer"])
        return next((each for each in payments if each["invoice"] == invoice["id"]), None)

    def is_asking(self, invoice: Json) -> bool:
        """Whether the invoice waits for its customer to authenticate."""
        intent = self._known_intent(invoice)
        return bool(intent and intent["status"] == "requires_action")

    def asked_card(self, invoice: Json) -> Json | None:
        """The card whose bank asks."""
        intent = self._known_intent(invoice)
        return intent and self.store.find("payment_method", intent["payment_method"])

    def _known_intent(self, invoice: Json) -> Json | None:
        payment = self.payment_of(invoice)
        return payment and self.store.get("payment_intent", payment["payment"]["payment_intent"])

    def _ask(self, intent: Json) -> str:
        intent.update(status="requires_action", next_action={"type": "use_stripe_sdk", "use_stripe_sdk": {}})
        self.emit("payment_intent.requires_action", intent)
        return "authentication_required"

    def refuse_authentication(self, invoice: Json) -> None:
        """The customer did not authenticate: the intent wants another card."""
        intent = self._intent(invoice, None)
        refused = self.store.find("payment_method", intent["payment_method"])
        error = {
            "type": "invalid_request_error",
            "code": "payment_intent_authentication_failure",
            "message": "The provided PaymentMethod has failed authentication. You can provide payment_method_data or "
            "a new PaymentMethod to attempt to fulfill this PaymentIntent again.",
            **({"payment_method": self.store.public(refused)} if refused else {}),
        }
        intent.update(status="requires_payment_method", last_payment_error=error, next_action=None, payment_method=None)
        self.emit("payment_intent.payment_failed", intent)

    def give_up(self, invoice: Json) -> None:
        """Nobody will pay the invoice any more."""
        if payment := self.payment_of(invoice):
            payment["status"] = "canceled"
            payment["status_transitions"]["canceled_at"] = self.store.now()
            intent = self._intent(invoice, None)
            intent.update(status="canceled", canceled_at=self.store.now(), next_action=None)
            self.emit("payment_intent.canceled", intent)

    def _fail(self, intent: Json, code: str, payer: Json | None = None) -> str:
        if payer:
            charge = self._charge(intent, payer, code)
            intent["latest_charge"] = charge["id"]
            self.emit("charge.failed", charge)
        is_asked = code == "authentication_required"
        error = {
            "type": "card_error",
            "code": code if is_asked else "card_declined",
            "decline_code": code,
            "message": DECLINED[code],
            **({"payment_method": self.store.public(payer)} if payer else {}),
        }
        intent.update(status="requires_payment_method", last_payment_error=error, next_action=None)
        self.emit("payment_intent.payment_failed", intent)
        return code

    def _succeed(self, intent: Json, invoice: Json, payer: Json) -> None:
        charge = self._charge(intent, payer)
        intent.update(
            status="succeeded",
            amount_received=intent["amount"],
            last_payment_error=None,
            latest_charge=charge["id"],
            next_action=None,
        )
        if payment := self.payment_of(invoice):
            payment.update(status="paid", amount_paid=intent["amount"])
            payment["status_transitions"]["paid_at"] = self.store.now()
        charge["receipt_url"] = invoice["hosted_invoice_url"]
        self.emit("charge.succeeded", charge)
        self.emit("payment_intent.succeeded", intent)
        self.agenda.note(charge)

    def _charge(self, intent: Json, payer: Json, failure: str = "") -> Json:
        """One try to take the intent's amount from a card."""
        card, checks = payer["card"], payer["card"]["checks"]
        shown = ("brand", "country", "exp_month", "exp_year", "fingerprint", "funding", "last4", "wallet")
        return self.store.add(
            "charge",
            amount=intent["amount"],
            amount_captured=0 if failure else intent["amount"],
            amount_refunded=0,
            application=None,
            application_fee=None,
            application_fee_amount=None,
            balance_transaction=None,
            billing_details=payer["billing_details"],
            calculated_statement_descriptor="LOCAL STRIPE",
            captured=not failure,
            currency=intent["currency"],
            customer=intent["customer"],
            description=intent["description"],
            disputed=False,
            failure_balance_transaction=None,
            failure_code=(failure if failure == "authentication_required" else "card_declined") if failure else None,
            failure_message=DECLINED[failure] if failure else None,
            fraud_details={},
            on_behalf_of=None,
            outcome={
                "advice_code": None,
                "network_advice_code": None,
                "network_decline_code": None,
                "network_status": "declined_by_network" if failure else "approved_by_network",
                "reason": failure or None,
                "risk_level": "normal",
                "seller_message": "The bank did not accept the charge." if failure else "Payment complete.",
                "type": "issuer_declined" if failure else "authorized",
            },
            paid=not failure,
            payment_intent=intent["id"],
            payment_method=payer["id"],
            payment_method_details={
                "type": "card",
                "card": {
                    **{name: card[name] for name in shown},
                    "amount_authorized": None if failure else intent["amount"],
                    "checks": checks,
                    "network": card["brand"],
                    "three_d_secure": {"result": "authenticated"} if payer["_authenticates"] and not failure else None,
                },
            },
            receipt_email=None,
            receipt_number=None,
            receipt_url=None,
            refunded=False,
            review=None,
            shipping=None,
            source=None,
            source_transfer=None,
            statement_descriptor=None,
            statement_descriptor_suffix=None,
            status="failed" if failure else "succeeded",
            transfer_data=None,
            transfer_group=None,
            _to_dispute="" if failure else payer["_disputes"],
        )

    # Refunds --------------------------------------------------------------------------------------

    def refund(self, charge: Json, amount: int | None, reason: str | None, metadata: Any) -> Json:
        """Gives back what is left of a charge, or a part of it."""
        left = charge["amount"] - charge["amount_refunded"]
        if not charge["paid"]:
            raise Problem(400, f"Charge {charge['id']} failed, so there is nothing to refund.", param="charge")
        if charge["disputed"] and not self._is_won(charge):
            raise _no_refund(charge, *DISPUTED)
        if not left:
            raise _no_refund(charge, *REFUNDED)
        if (amount or left) > left:
            words = f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})"
            raise Problem(400, words, param="amount")
        refund = self.store.add(
            "refund",
            amount=amount or left,
            balance_transaction=None,
            charge=charge["id"],
            currency=charge["currency"],
            destination_details={"card": {"reference_status": "pending", "type": "refund"}, "type": "card"},
            metadata=metadata,
            payment_intent=charge["payment_intent"],
            reason=reason,
            receipt_number=None,
            source_transfer_reversal=None,
            status="succeeded",
            transfer_reversal=None,
            _customer=charge["customer"],
        )
        before = self.store.public(charge)
        charge["amount_refunded"] += refund["amount"]
        charge["refunded"] = charge["amount_refunded"] == charge["amount"]
        changed = ("amount_refunded", "refunded")
        previous = {name: before[name] for name in changed if before[name] != charge[name]}
        self.emit("refund.created", refund)
        self.emit("charge.refunded", charge, previous)
        return refund

    def charge_of(self, intent: Json) -> Json:
        """The charge that succeeded. Problem 400 if none did."""
        charge = self.store.find("charge", intent["latest_charge"])
        if charge is None or not charge["paid"]:
            words = f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund."
            raise Problem(400, words, "payment_intent_unexpected_state", "payment_intent")
        return charge

    # Disputes -------------------------------------------------------------------------------------

    def dues_of(self, found: Json) -> list[Due]:
        """What banks do by themselves: they dispute charges of some cards, and win where nobody answers."""
        if found["object"] == "charge" and found["_to_dispute"]:
            return [(found["created"] + DISPUTED_AFTER, lambda: self._dispute(found))]
        if found["object"] == "dispute" and found["status"] == "needs_response":
            return [(found["evidence_details"]["due_by"], lambda: self.close(found, "lost"))]
        return []

    def _dispute(self, charge: Json) -> None:
        reason, charge["_to_dispute"] = charge["_to_dispute"], ""
        left = charge["amount"] - charge["amount_refunded"]
        if not left:
            return
        charge["disputed"] = True
        details = {"brand": "visa", "case_type": "chargeback", "network": "visa", "network_reason_code": "10.4"}
        dispute = self.store.add(
            "dispute",
            amount=left,
            balance_transactions=[],
            charge=charge["id"],
            currency=charge["currency"],
            enhanced_eligibility_types=[],
            evidence={"uncategorized_text": None},
            evidence_details={
                "due_by": self.store.now() + EVIDENCE_DUE_AFTER,
                "enhanced_eligibility": {},
                "has_evidence": False,
                "past_due": False,
                "submission_count": 0,
            },
            is_charge_refundable=False,
            payment_intent=charge["payment_intent"],
            payment_method_details={"type": "card", "card": details},
            reason=reason,
            status="needs_response",
            _customer=charge["customer"],
        )
        self.emit("charge.dispute.created", dispute)
        self.emit("charge.dispute.funds_withdrawn", dispute)
        self.emit("charge.updated", charge, {"disputed": False})
        self.agenda.note(dispute)

    def answer(self, dispute: Json, evidence: dict[str, str | None], submit: bool) -> None:
        """Evidence for the bank, which believes two words only: `VERDICTS`."""
        before = self.store.public(dispute)
        self._check_open(dispute)
        dispute["evidence"] |= evidence
        dispute["evidence_details"]["has_evidence"] = any(dispute["evidence"].values())
        if submit and dispute["evidence_details"]["has_evidence"]:
            dispute["status"] = "under_review"
            dispute["evidence_details"]["submission_count"] += 1
        now = self.store.public(dispute)
        self.emit("charge.dispute.updated", dispute, {name: was for name, was in before.items() if now[name] != was})
        verdict = VERDICTS.get(str(dispute["evidence"]["uncategorized_text"]))
        if dispute["status"] == "under_review" and verdict:
            self.close(dispute, verdict)

    def close(self, dispute: Json, verdict: str) -> None:
        """Ends a dispute `won` (the money comes back) or `lost`."""
        self._check_open(dispute)
        before = dispute["status"]
        dispute["status"] = verdict
        self.emit("charge.dispute.closed", dispute, {"status": before})
        if verdict == "won":
            self.emit("charge.dispute.funds_reinstated", dispute)

    def _check_open(self, dispute: Json) -> None:
        if dispute["status"] not in ("needs_response", "under_review"):
            raise Problem(400, "This dispute is already closed", "dispute_already_closed")

    def _is_won(self, charge: Json) -> bool:
        disputes = self.store.of_customer("dispute", charge["customer"])
        return any(each["charge"] == charge["id"] and each["status"] == "won" for each in disputes)


def _must_authenticate(payer: Json) -> bool:
    wish = payer["_authenticates"]
    return bool(wish == "always" or (wish == "set_up" and not payer["_set_up"]))


def _no_refund(charge: Json, code: str, words: str) -> Problem:
    return Problem(400, f"Charge {charge['id']} {words}", code)
