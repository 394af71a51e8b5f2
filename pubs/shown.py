"""What a pub's row means, in words for its owner: one small table over the wish and what was seen."""

from dataclasses import dataclass
from datetime import timedelta

from django.utils import timezone

from pubs.models import Bot, Rung, Status

# What was seen longer ago than this is no longer taken for true.
STALE = timedelta(seconds=60)
# What does not answer so long after its start is down.
STARTS_WITHIN = timedelta(minutes=2)


@dataclass(frozen=True)
class Shown:
    """A word for the badge, its tone (a CSS class) and a sentence that explains it."""

    word: str
    tone: str
    meaning: str


UP = Shown("up", "good", "People can connect to it and join with your invites.")
STARTING = Shown("starting", "busy", "We are getting it ready. There is nothing you need to do.")
DOWN = Shown("down", "bad", "It does not answer right now. It is being started again by itself.")
MOVING = Shown("moving", "busy", "It is down for a short while. There is nothing you need to do.")
RESTING = Shown("resting", "bad", "It crashed again and again, so we stopped it for a while. Everything in it is kept.")
LOST = Shown("lost", "bad", "It does not run before we restore it. Its name, address and Scuttlebutt id are kept.")
STOPPED = Shown("stopped", "off", "You stopped it. Everything in it is kept, and you can start it at any time.")
STOPPING = Shown("stopping", "busy", "It is shutting down. Everything in it is kept.")
NOT_PAID = Shown("not paid yet", "todo", "Pay, and it starts by itself within a minute.")
UNPAID = Shown("payment failed", "bad", "It is stopped until a payment goes through. Everything in it is kept.")
PAUSED = Shown("paused", "off", "Its subscription is paused, and your pub with it. Everything in it is kept.")
ENDED = Shown(
    "ended", "off", "It is no longer paid for. Everything in it is kept for now: pay again and it comes back."
)
OVER = Shown(
    "ended", "off", "It is no longer paid for, nor kept for sure. Pay soon, and it comes back if it still can."
)
# By rung, for what does not run for want of a payment.
WITHOUT_PAYMENT = {Rung.SUSPENDED: UNPAID, Rung.KEPT: ENDED, Rung.OVER: OVER}
# What became of the payment, in the timeline and in messages.
PAYMENT_WORDS = {
    Rung.NEW: "not paid yet",
    Rung.PAID: "paid",
    Rung.ENDING: "cancelled",
    Rung.COMPED: "free of charge",
    Rung.GRACE: "payment failed",
    Rung.SUSPENDED: "stopped until it is paid",
    Rung.KEPT: "no longer paid for",
    Rung.OVER: "no longer kept for sure",
}


def shown(bot: Bot) -> Shown:
    if not bot.is_wanted and bot.status != Status.NONE:
        return STOPPING
    if bot.lost_at:
        return LOST
    if not bot.paid:
        return _without_payment(bot)
    if not bot.switched_on:
        return STOPPED
    if bot.status == Status.UP:
        return UP
    if bot.moving:
        return MOVING
    if bot.rests_until:
        return RESTING
    return STARTING if _is_starting(bot) else DOWN


def is_stale(bot: Bot) -> bool:
    """Whether the status may have changed unseen. A bot that nobody runs or wants has nothing to see."""
    may_run = bot.is_wanted or bot.status != Status.NONE
    is_old = bot.seen_at is not None and timezone.now() - bot.seen_at > STALE
    return may_run and (bot.unknown_since is not None or is_old)


def _without_payment(bot: Bot) -> Shown:
    if bot.rung == Rung.SUSPENDED and bot.paid_status == "paused":
        return PAUSED
    return WITHOUT_PAYMENT.get(Rung(bot.rung), NOT_PAID)


def _is_starting(bot: Bot) -> bool:
    """It takes the time that a start takes, however often it was up before that start."""
    since = bot.started_at
    if since is None or bot.status == Status.NONE:
        return True
    if timezone.now() - since > STARTS_WITHIN:
        return False
    return not bot.status_changes.filter(new=Status.UP, at__gt=since).exists()
