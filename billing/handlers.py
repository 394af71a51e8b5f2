"""What we do when Stripe tells of something: look again. An event is a hint; it can come late, twice or out of order.

These run inside dj-stripe's transaction, after it has synced its mirror. An error flies, dj-stripe answers 500, and
Stripe sends the event again. What takes long is left to a job.
"""

from typing import Any

from django.conf import settings
from djstripe.event_handlers import djstripe_receiver
from djstripe.models import Event, Subscription

from billing import gateway, paid
from mailer import messages
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
    # dj-stripe fetched the subscription anew for this event, so the mirror is not older than the event's row.
    mirrored = Subscription.objects.filter(id=event.data["object"]["id"]).first()
    reading = gateway.reading(mirrored.stripe_data, event.djstripe_created) if mirrored else None
    if reading:
        paid.record(reading)


@djstripe_receiver("checkout.session.completed")
def checkout_completed(sender: type[Event], event: Event, **_: Any) -> None:
    if bot := _bot_of(event.data["object"]):
        paid.ask_to_look_again(bot.pk)


@djstripe_receiver("invoice.paid")
def invoice_paid(sender: type[Event], event: Event, **_: Any) -> None:
    if bot := _bot_of_invoice(event.data["object"]):
        paid.ask_to_look_again(bot.pk)


@djstripe_receiver("invoice.payment_failed")
def payment_failed(sender: type[Event], event: Event, **_: Any) -> None:
    invoice = event.data["object"]
    bot = _bot_of_invoice(invoice)
    if bot is None:
        return
    paid.ask_to_look_again(bot.pk)
    # Who pays for the first time stands at the payment page and reads it there.
    if bot.deleted_at is None and invoice["billing_reason"] != "subscription_create":
        messages.payment_failed(
            key=f"payment_failed:{invoice['id']}:{invoice['attempt_count']}",
            to=bot.owner.email,
            name=bot.owner.name,
            pub_name=bot.name,
            url=settings.SITE_URL + bot.get_absolute_url(),
        )


def _bot_of_invoice(invoice: dict[str, Any]) -> Bot | None:
    """Stripe copies a subscription's metadata onto its invoices."""
    details = (invoice.get("parent") or {}).get("subscription_details")
    return _bot_of(details) if details else None


def _bot_of(data: dict[str, Any]) -> Bot | None:
    bot_id = gateway.bot_id(data)
    return Bot.objects.select_related("owner").filter(pk=bot_id).first() if bot_id else None
