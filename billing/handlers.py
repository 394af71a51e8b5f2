"""What we do when Stripe tells of something: look again. An event is a hint; it can come late, twice or out of order.

These run inside dj-stripe's transaction, after it has synced its mirror. An error flies, dj-stripe answers 500, and
Stripe sends the event again. What takes long is left to a job.
"""

from typing import Any

from djstripe.event_handlers import djstripe_receiver
from djstripe.models import Event

from billing import gateway, paid
from pubs import live
from pubs.models import Bot


@djstripe_receiver(
    [
        "customer.subscription.created",
        "customer.subscription.updated",
        "customer.subscription.deleted",
        "customer.subscription.paused",
        "customer.subscription.resumed",
    ]
)
def subscription_changed(sender: type[Event], event: Event, **_: Any) -> None:
    if reading := gateway.read_subscription(event.data["object"]["id"]):
        paid.record(reading)


@djstripe_receiver("checkout.session.completed")
def checkout_completed(sender: type[Event], event: Event, **_: Any) -> None:
    _look_at_bot_of(event.data["object"])


@djstripe_receiver(["invoice.paid", "invoice.payment_failed"])
def invoice_tried(sender: type[Event], event: Event, **_: Any) -> None:
    # Stripe copies a subscription's metadata onto its invoices.
    if details := (event.data["object"].get("parent") or {}).get("subscription_details"):
        _look_at_bot_of(details)


def _look_at_bot_of(data: dict[str, Any]) -> None:
    bot_id = gateway.bot_id(data)
    if bot_id and Bot.objects.filter(pk=bot_id).exists():
        live.look_at_payment(bot_id)
