"""What staff do about the payment of a pub by hand: a form each, which admin shows. Each deed has a reason, and the
owner reads it in the history of their pub.
"""

from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

from django import forms
from django.contrib.admin.widgets import AdminRadioSelect, AdminTextareaWidget, AdminTextInputWidget
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.formats import date_format

from accounts.models import User
from billing import gateway, paid
from billing.gateway import PaidInvoice, PaymentTrouble, Refunded, Unreachable
from billing.ladder import ALIVE, Rung, Standing, stand
from billing.money import money, units
from billing.words import kept_until
from pubs.deeds import DeedForm, NotNow
from pubs.models import Bot
from pubs.models import Rung as Shown

WORDS_MAX = 300
COMP_DAYS_MAX = 3 * 366
GRACE_DAYS_MAX = 90

AWAY = "Stripe can't be reached just now. Try again in a minute."
REFUSES = "Stripe refuses: what it said is in the log."
MAYBE = (
    "Stripe did not answer, so we don't know whether the money went back. Send this form again as it is: it gives the "
    "money back once, however often it is sent."
)
STILL_LIVES = "Its subscription did not end."

REASONS = [
    ("requested_by_customer", "The customer asked for it"),
    ("duplicate", "It was paid twice"),
    ("fraudulent", "Fraud: Stripe then refuses this card and e-mail address"),
]


def standing(bot: Bot) -> str:
    until = bot.runs_until or bot.kept_until
    return bot.get_rung_display() + (f" (until {_at(until)})" if until else "")


def look_at_stripe(bot: Bot) -> str:
    """Ask Stripe about a bot now."""
    try:
        paid.look(bot.pk)
    except PaymentTrouble as trouble:
        raise NotNow(_why(trouble)) from trouble
    bot.refresh_from_db()
    says = f"“{bot.paid_status}”" if bot.paid_status else "nothing of a subscription"
    return f"Stripe says {says}. {bot}: {standing(bot)}."


def _why(trouble: PaymentTrouble) -> str:
    return AWAY if isinstance(trouble, Unreachable) else REFUSES


def _at(moment: datetime) -> str:
    return f"{date_format(moment, 'j F Y, H:i')} UTC"


def _days(days: int) -> datetime:
    return timezone.now() + timedelta(days=days)


def _standing_with(bot: Bot, **facts: Any) -> Standing:
    """How it would stand with other facts."""
    return stand(replace(paid.facts_of(bot), **facts), timezone.now(), paid.terms())


def _keeps(bot: Bot, after: Standing) -> str:
    """Until when its data is kept after a deed: its owner may have been told a later date."""
    before, kept = kept_until(bot), kept_until(after)
    if kept is None:
        return ""
    sooner = f", and no longer until {_at(before)}, as its owner was told" if before and kept < before else ""
    return f" Its data is kept until {_at(kept)}{sooner}."


class MoneyDeed(DeedForm):
    row: Bot
    words = forms.CharField(
        label="Reason",
        max_length=WORDS_MAX,
        widget=AdminTextareaWidget({"rows": 3}),
        help_text="The owner reads these words on the page of their pub.",
    )

    def done(self, words: str) -> str:
        self.row.refresh_from_db()
        return f"{words} {self.row}: {standing(self.row)}. Reason: {self.cleaned_data['words']}"


class UntilField(forms.DateTimeField):
    """A moment to come, at most some days from now."""

    def __init__(self, days: int) -> None:
        widget = forms.DateTimeInput({"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")
        super().__init__(label="Until (UTC)", widget=widget, help_text=f"In UTC, at most {days} days from now.")
        self.days = days

    def clean(self, value: Any) -> datetime:
        until: datetime = super().clean(value)
        if until <= timezone.now():
            raise ValidationError("That is past. Say a moment to come.")
        if until > _days(self.days):
            raise ValidationError(f"That is too far away: {self.days} days from now is the most.")
        return until


class Comp(MoneyDeed):
    name = "Comp"
    until = UntilField(COMP_DAYS_MAX)
    field_order = ["until", "words"]

    def __init__(self, row: Bot, data: Any = None) -> None:
        super().__init__(row, data)
        if not _standing_with(row, comped_until=_days(COMP_DAYS_MAX)).runs:
            raise NotNow(f"{row} was deleted by its owner: nothing lets it run again.")
        self.means = f"{row}: {standing(row)}. Comped, it runs until a moment of yours without a payment."
        if row.rung == Rung.COMPED:
            self.means += " A moment before the one that it is comped until now takes back what its owner was told."
        if row.paid_status in ALIVE:
            self.means += " Its subscription goes on, and is charged as before: end it too if it should not be."

    def do(self, by: User) -> str:
        paid.comp(self.row.pk, self.cleaned_data["until"], self.cleaned_data["words"], by)
        return self.done(f"Comped until {_at(self.cleaned_data['until'])}.")


class EndComp(MoneyDeed):
    name = "End the comp of"

    def __init__(self, row: Bot, data: Any = None) -> None:
        super().__init__(row, data)
        if not row.comped_until or row.comped_until <= timezone.now():
            raise NotNow(f"{row} is not comped: {standing(row)}.")
        after = _standing_with(row, comped_until=timezone.now())
        self.means = f"{row} is comped until {_at(row.comped_until)}. Without that it is: {Shown(after.rung).label}."
        self.means += _keeps(row, after)

    def do(self, by: User) -> str:
        paid.comp(self.row.pk, None, self.cleaned_data["words"], by)
        return self.done("The comp has ended.")


class ExtendGrace(MoneyDeed):
    name = "Extend the grace of"
    until = UntilField(GRACE_DAYS_MAX)
    field_order = ["until", "words"]

    def __init__(self, row: Bot, data: Any = None) -> None:
        super().__init__(row, data)
        if _standing_with(row, grace_until=_days(GRACE_DAYS_MAX)).rung != Rung.GRACE:
            raise NotNow(f"{row} has no grace to extend: {standing(row)}. To let it run all the same, comp it.")
        self.means = f"{row}: {standing(row)}. With more grace it runs, and its payment is still asked for."

    def clean_until(self) -> datetime:
        until: datetime = self.cleaned_data["until"]
        granted = max(until, self.row.grace_until or until)
        if (runs := _standing_with(self.row, grace_until=granted)).runs_until != until:
            raise ValidationError(f"That gives nothing: it runs until {_at(runs.runs_until or until)} already.")
        return until

    def do(self, by: User) -> str:
        paid.extend_grace(self.row.pk, self.cleaned_data["until"], self.cleaned_data["words"], by)
        return self.done(f"The grace lasts until {_at(self.cleaned_data['until'])}.")


class EndSubscription(MoneyDeed):
    name = "End the subscription of"

    def __init__(self, row: Bot, data: Any = None) -> None:
        super().__init__(row, data)
        if row.paid_status not in ALIVE:
            raise NotNow(f"{row} has no subscription that could end: {standing(row)}.")
        self.means = (
            f"{row}: {standing(row)}. Its subscription ends at once: nothing is charged any more, nothing is given "
            "back, and the pub stops, unless it is comped."
        )
        self.means += _keeps(row, _standing_with(row, status="canceled", until=timezone.now()))

    def do(self, by: User) -> str:
        try:
            _end_subscription(self.row, self.cleaned_data["words"], by)
        except PaymentTrouble as trouble:
            raise ValidationError(_why(trouble)) from trouble
        return self.done("The subscription has ended.")


class Refund(MoneyDeed):
    name = "Give back a payment of"
    invoice = forms.ChoiceField(widget=AdminRadioSelect({"class": "radiolist"}))
    amount = forms.DecimalField(
        required=False,
        max_digits=12,
        widget=AdminTextInputWidget({"inputmode": "decimal", "autocomplete": "off"}),
        help_text="In the currency of the invoice, such as 4.50. All that is left of it, if you say nothing.",
    )
    reason = forms.ChoiceField(label="Kind", choices=REASONS, help_text="For Stripe.")
    end = forms.BooleanField(label="End the subscription now, too", required=False)
    # Made with the form: Stripe gives back once for it, however often it is sent.
    once = forms.CharField(widget=forms.HiddenInput, initial=lambda: uuid4().hex)
    field_order = ["invoice", "amount", "reason", "words", "end", "once"]

    def __init__(self, row: Bot, data: Any = None) -> None:
        super().__init__(row, data)
        # A form that is sent again may be about what its first sending gave back.
        sent = data is not None
        try:
            self.invoices = {each.id: each for each in gateway.paid_invoices(row) if each.left or sent}
        except PaymentTrouble as trouble:
            raise NotNow(_why(trouble)) from trouble
        if not self.invoices:
            raise NotNow(f"There is nothing to give back: nothing was paid for {row}, or all of it was given back.")
        choices = [(each.id, _choice(each)) for each in self.invoices.values()]
        self.fields["invoice"].choices = choices  # type: ignore[attr-defined]
        self.fields["invoice"].initial = choices[0][0]
        if row.paid_status not in ALIVE:
            del self.fields["end"]
        self.means = f"{row}: {standing(row)}. The money goes back to the card that was charged, within days."

    def clean(self) -> dict[str, Any]:
        cleaned = self.cleaned_data
        if "amount" in cleaned and (invoice := self.invoices.get(cleaned.get("invoice", ""))):
            try:
                cleaned["amount"] = _units(invoice, cleaned["amount"])
            except ValueError as error:
                self.add_error("amount", str(error))
        return cleaned

    def do(self, by: User) -> str:
        refunded = self._give_back()
        told = f"{paid.given_back(refunded.amount, refunded.currency)} {self.cleaned_data['words']}"
        paid.remark(self.row.pk, told, refunded.id, by)
        said = f"{money(refunded.amount, refunded.currency)} of invoice {refunded.number} goes back."
        return self.done(said + self._end(by))

    def _give_back(self) -> Refunded:
        asked = self.cleaned_data
        try:
            return gateway.refund(asked["invoice"], asked["reason"], asked["words"], asked["amount"], asked["once"])
        except Unreachable as error:
            raise ValidationError(MAYBE) from error
        except PaymentTrouble as error:
            raise NotNow(str(error)) from error

    def _end(self, by: User) -> str:
        if not self.cleaned_data.get("end"):
            return ""
        try:
            _end_subscription(self.row, self.cleaned_data["words"], by)
        except PaymentTrouble as trouble:
            return f" {STILL_LIVES} {_why(trouble)}"
        return " The subscription has ended."


def _choice(invoice: PaidInvoice) -> str:
    gone = f", {money(invoice.refunded, invoice.currency)} of it given back" if invoice.refunded else ""
    paid_at = date_format(invoice.at, "j F Y")
    return f"{invoice.number}: {money(invoice.amount, invoice.currency)}, paid on {paid_at}{gone}"


def _units(invoice: PaidInvoice, value: Decimal | None) -> int | None:
    """An amount as Stripe counts; None is all that is left. ValueError with words for staff."""
    if value is None:
        return None
    amount = units(value, invoice.currency)
    # Whether so much is left Stripe says: here it may be gone by an earlier sending of the same form.
    if not 0 < amount <= invoice.amount:
        raise ValueError(f"It must be between nothing and {money(invoice.amount, invoice.currency)}, which was paid.")
    return amount


def _end_subscription(bot: Bot, words: str, by: User) -> None:
    gateway.cancel(bot.subscription_id)
    paid.remark(bot.pk, f"The subscription was ended by staff: {words}", f"end:{bot.subscription_id}", by)
    # It has ended by now; whoever can't look hears so by an event.
    with suppress(PaymentTrouble):
        paid.look(bot.pk)
