"""What an owner reads about the payment of their pub, on its page, in its history, in mails and in the API."""

from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.utils import timezone

from billing.ladder import FOR_EVER, MEANINGS, Rung, Standing
from pubs.models import Bot

NOT_PAID = "Not paid yet."
LOST = "Your pub does not run before we have restored it: a payment alone does not start it."
# The label of the last date, by rung, for what runs no more.
_KEPT = {Rung.SUSPENDED: "Kept until", Rung.KEPT: "Kept until", Rung.OVER: "Was kept until"}


def day(at: datetime) -> str:
    return f"{at.astimezone(UTC):%-d %B %Y}"


def moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%-d %B %Y, %H:%M} UTC"


def words(bot: Bot) -> str:
    """How it stands, in a sentence or two with the dates that matter."""
    return f"{why(bot)} {_and_so(bot)}".strip()


def why(bot: Bot) -> str:
    """The cause of it all: Stripe's word for the subscription, or what is truer than that, in a sentence."""
    meaning = MEANINGS.get(bot.paid_status)
    if bot.rung == Rung.ENDING:
        return "The subscription is cancelled: nothing more is charged."
    if meaning and meaning.runs and bot.rung in (Rung.KEPT, Rung.OVER):
        return MEANINGS["canceled"].words
    if bot.comped_until and (meaning is None or not meaning.started):
        return "" if bot.rung == Rung.COMPED else "The time that we let your pub run without a payment is over."
    if bot.paid_status == "canceled" and bot.unpaid_since:
        return f"The payment of {day(bot.unpaid_since)} failed, and the subscription has ended."
    return meaning.words if meaning else NOT_PAID


def _and_so(bot: Bot) -> str:
    """What follows from it, and when."""
    runs, kept = bot.runs_until, bot.kept_until
    if bot.rung == Rung.PAID and (pays := next_payment(bot)):
        return f"The {'first' if bot.paid_status == 'trialing' else 'next'} payment is on {day(pays)}."
    if bot.lost_at and bot.rung != Rung.PAID:
        return LOST
    if bot.rung == Rung.ENDING and runs:
        return f"Your pub runs until {moment(runs)}."
    if bot.rung == Rung.COMPED and runs:
        return f"We let your pub run without a payment until {moment(runs)}."
    if bot.rung == Rung.GRACE and runs:
        tries = f" We try the card again on {moment(at)}." if (at := next_try(bot)) else ""
        return f"Your pub runs on until {moment(runs)} at the latest.{tries}"
    if bot.rung in (Rung.SUSPENDED, Rung.KEPT) and kept:
        return f"Your pub is stopped, and everything in it is kept until {moment(kept)} at least."
    if bot.rung == Rung.OVER and kept:
        return f"We kept everything in your pub until {moment(kept)}, and no longer promise to keep it."
    return ""


def dates(bot: Bot) -> list[tuple[str, datetime]]:
    """Every date that matters, with its label, in the order in which they come."""
    comped = bot.comped_until if bot.comped_until and bot.comped_until > timezone.now() else None
    found = [
        ("Payment failed", bot.unpaid_since),
        ("First payment" if bot.paid_status == "trialing" else "Next payment", next_payment(bot)),
        ("We try the card again", next_try(bot) if bot.unpaid_since else None),
        ("Runs, paid or not, until", comped),
        ("Runs until", bot.runs_until if bot.runs_until != comped else None),
        (_KEPT.get(Rung(bot.rung), "Then kept until"), kept_until(bot)),
    ]
    return sorted(((label, at) for label, at in found if at), key=lambda each: each[1])


def kept_until(bot: Bot | Standing) -> datetime | None:
    """Until when its data is kept at least: once it has stopped as things stand, if it runs."""
    kept = timedelta(days=settings.KEPT_DAYS)
    if bot.runs_until and FOR_EVER - bot.runs_until > kept:
        return bot.runs_until + kept
    return bot.kept_until


def next_payment(bot: Bot) -> datetime | None:
    """When the next period is paid; None if none is or its time has passed and Stripe's word is on its way."""
    return bot.paid_until if bot.rung == Rung.PAID and _is_to_come(bot.paid_until) else None


def next_try(bot: Bot) -> datetime | None:
    """When Stripe tries the card again by itself."""
    return bot.retry_at if _is_to_come(bot.retry_at) else None


def _is_to_come(at: datetime | None) -> bool:
    return at is not None and at > timezone.now()
