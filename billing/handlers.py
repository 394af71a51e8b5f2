"""What we do when Stripe tells of something: look again. An event is a hint; it can come late, twice or out of order.

These run inside dj-stripe's transaction, after it has synced its mirror. An error flies, dj-stripe answers 500, and
Stripe sends the event again. What takes long is left to a job. What gets lost, sweeps.py finds.
"""

from typing import Any

from celery import current_app
from django.contrib.auth.signals import user_logged_in
from django.db import transaction
from django.dispatch import receiver
from djstripe.event_handlers import djstripe_receiver
from djstripe.models import Event

from accounts.models import User
from billing import gateway, paid
from billing.gateway import CUSTOMER_EVENTS, DISPUTE_EVENTS, INVOICE_EVENTS, REFUND_EVENTS, SUBSCRIPTION_EVENTS
from pubs import live
from pubs.models import Bot


@djstripe_receiver(SUBSCRIPTION_EVENTS)
def subscription_changed(sender: type[Event], event: Event, **_: Any) -> None:
    if reading := gateway.read_subscription(event.data["object"]["id"]):
        paid.record(reading)


@djstripe_receiver(["checkout.session.completed", *INVOICE_EVENTS])
def something_was_paid_or_not(sender: type[Event], event: Event, **_: Any) -> None:
    bot_id = gateway.bot_of(event.type, event.data["object"])
    if bot_id and Bot.objects.filter(pk=bot_id).exists():
        live.look_at_payment(bot_id)
    if renewal := gateway.renewal_of(event.type, event.data["object"]):
        paid.note_renewal(renewal)


@djstripe_receiver(CUSTOMER_EVENTS)
def customer_changed(sender: type[Event], event: Event, **_: Any) -> None:
    """One that owes may have a better card. A deleted one dj-stripe lets go of: the next payment makes another."""
    for bot in Bot.objects.filter(paid.touched(event.type, [gateway.user_id(event.data["object"])])):
        live.look_at_payment(bot.pk)


@djstripe_receiver([*REFUND_EVENTS, *DISPUTE_EVENTS])
def money_went_back(sender: type[Event], event: Event, **_: Any) -> None:
    _ask("billing.hear_of_money", event.type, event.data["object"]["id"])


@receiver(user_logged_in)
def signed_in(sender: type[User], user: User, **_: Any) -> None:
    """Nobody's sign-in waits for Stripe, or fails with it."""
    _ask("billing.look_at_waiting", user.pk)


def _ask(job: str, *args: str | int) -> None:
    transaction.on_commit(lambda: current_app.send_task(job, args=list(args)), robust=True)
