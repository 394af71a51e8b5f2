"""Whether a pub may run, said by its subscription: one table, and the only place that writes a bot's paid columns."""

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.formats import date_format

from billing import gateway
from billing.gateway import Reading
from mailer import messages
from pubs import live
from pubs.models import Bot

log = logging.getLogger("billing")

ALREADY_PAID = "This pub has a subscription already. Card, invoices and cancellation are behind “Payment and invoices”."


class NotNeeded(Exception):
    """The pub has its subscription: another one would charge its owner twice. The message is for people."""


@dataclass(frozen=True)
class Meaning:
    """What a status of a subscription means for the pub and says to its owner."""

    runs: bool
    ended: bool  # nothing can come after it; all other subscriptions are alive, and one bot has one
    words: str


MEANINGS = {
    "trialing": Meaning(True, False, "Paid: in its trial."),
    "active": Meaning(True, False, "Paid."),
    "past_due": Meaning(
        True, False, "The last payment failed. Your pub runs on while it is tried again: please look at your card."
    ),
    "unpaid": Meaning(
        False, False, "The payments failed, so your pub is stopped. All of it is kept: give a card that works."
    ),
    "paused": Meaning(False, False, "The subscription is paused, and your pub with it."),
    "incomplete": Meaning(False, False, "The first payment is not finished."),
    "incomplete_expired": Meaning(False, True, "The first payment was never finished. You can start again."),
    "canceled": Meaning(False, True, "The subscription has ended, so your pub is stopped. You can start again."),
}
NOT_PAID = "Not paid yet."
ALIVE = [status for status, meaning in MEANINGS.items() if not meaning.ended]


def words(bot: Bot) -> str:
    """What the owner reads about the payment."""
    if not bot.paid_status:
        return NOT_PAID
    said = MEANINGS[bot.paid_status].words
    if bot.paid and bot.paid_until and bot.paid_ends:
        return f"Cancelled: your pub runs until {date_format(bot.paid_until, 'j F Y')}."
    if bot.paid_status in ("active", "trialing") and bot.paid_until:
        return f"{said} The next payment is on {date_format(bot.paid_until, 'j F Y')}."
    return said


def may_check_out(bot: Bot) -> bool:
    """Whether a new subscription is the way to pay. For one that lives the portal is: there the card can be changed."""
    return bot.paid_status not in ALIVE or bot.paid_status == "incomplete"


def pays_by(bot: Bot) -> Literal["checkout", "portal", ""]:
    """Which of Stripe's pages gets a pub running that is not paid for; none when it is."""
    if bot.paid:
        return ""
    return "checkout" if may_check_out(bot) else "portal"


def start_checkout(bot: Bot) -> str:
    """The address of the payment page. Raises NotNeeded or PaymentTrouble, whose words are for people."""
    # A payment in another tab may be seconds old, and its event on the way: Stripe knows, our row may not.
    look(bot.pk)
    bot.refresh_from_db()
    if not may_check_out(bot):
        raise NotNeeded(ALREADY_PAID)
    return gateway.open_checkout(bot)


# --- Writing -------------------------------------------------------------------------------------------------------
def record(reading: Reading) -> None:
    """Write down what an event showed of one subscription.

    A subscription that is not the one we hold decides nothing by itself, nor does one of a deleted bot: then a job
    looks at all of them.
    """
    with transaction.atomic():
        bot = Bot.objects.select_for_update().filter(pk=reading.bot_id).first()
        if bot is None:
            return
        if bot.subscription_id not in ("", reading.subscription_id):
            live.look_at_payment(bot.pk)
            return
        _write(bot, reading)
        if bot.deleted_at and bot.paid_status in ALIVE:
            live.look_at_payment(bot.pk)


def look(bot_id: UUID) -> None:
    """Read all of a bot's subscriptions from Stripe, end those that must not be, and write down the one that counts."""
    bot = Bot.objects.select_related("owner").filter(pk=bot_id).first()
    if bot is None:
        return
    if bot.deleted_at:
        gateway.close_checkouts(bot)
    asked_at = timezone.now()
    readings = gateway.subscriptions_of(bot)
    chosen, surplus = choose(readings)
    for extra in surplus:
        kept = chosen.subscription_id if chosen else ""
        log.error("Bot %s has two subscriptions: %s is cancelled, kept is %s", bot_id, extra.subscription_id, kept)
        gateway.cancel(extra.subscription_id)
    if chosen and bot.deleted_at and chosen.status in ALIVE:
        # Stripe tells moments in whole seconds.
        if chosen.created >= bot.deleted_at.replace(microsecond=0):
            log.error("Bot %s was paid after it was deleted: %s is cancelled", bot_id, chosen.subscription_id)
        gateway.cancel(chosen.subscription_id)
        chosen = gateway.read_subscription(chosen.subscription_id) or chosen
    if chosen is None and bot.subscription_id:
        # Another Stripe account, or one that was wiped. To stop everybody's pub for that would be the worse mistake.
        log.error("Stripe knows no subscription %s of bot %s", bot.subscription_id, bot_id)
        Bot.objects.filter(pk=bot_id).update(paid_seen_at=asked_at)
    if chosen:
        with transaction.atomic():
            _write(Bot.objects.select_for_update().get(pk=bot_id), chosen)


def choose(readings: list[Reading]) -> tuple[Reading | None, list[Reading]]:
    """The subscription that counts, and the live ones beside it.

    It is the oldest one that lets the pub run, or the oldest live one, or else the newest one that ended.
    """
    ordered = sorted(readings, key=lambda each: (each.created, each.subscription_id))
    alive = [each for each in ordered if each.status in ALIVE]
    alive.sort(key=lambda each: not MEANINGS[each.status].runs)
    if alive:
        return alive[0], alive[1:]
    return (ordered[-1] if ordered else None), []


def _write(bot: Bot, reading: Reading) -> None:
    """Set the paid columns of a locked row, unless they were read later than this."""
    if bot.paid_seen_at and reading.seen_at < bot.paid_seen_at:
        return
    meaning = MEANINGS[reading.status]
    before = _paid_columns(bot)
    bot.paid = meaning.runs
    bot.paid_status = reading.status
    bot.paid_until = reading.until
    bot.paid_ends = reading.ends
    bot.subscription_id = reading.subscription_id
    bot.paid_seen_at = reading.seen_at
    bot.save(update_fields=["paid", "paid_status", "paid_until", "paid_ends", "subscription_id", "paid_seen_at"])
    if _paid_columns(bot) == before:
        return
    live.changed(bot.pk)
    live.nudge()
    if not bot.deleted_at:
        _tell(bot, reading)


def _tell(bot: Bot, reading: Reading) -> None:
    """Mail what the owner must know of the change. The key makes it once, whoever sees the change and how often."""
    about = {
        "to": bot.owner.email,
        "name": bot.owner.name,
        "pub_name": bot.name,
        "url": settings.SITE_URL + bot.get_absolute_url(),
    }
    # Who pays for the first time stands at the payment page and reads it there: nothing is said of "incomplete".
    match reading.status:
        case "past_due" | "unpaid" as status:
            key = f"payment_failed:{status}:{reading.invoice_id or reading.subscription_id}"
            messages.payment_failed(key=key, stopped=status == "unpaid", **about)
        case "canceled":
            messages.subscription_ended(key=f"subscription_ended:{reading.subscription_id}", **about)


def _paid_columns(bot: Bot) -> tuple[bool, str, datetime | None, bool, str]:
    return bot.paid, bot.paid_status, bot.paid_until, bot.paid_ends, bot.subscription_id
