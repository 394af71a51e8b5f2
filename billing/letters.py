"""What owners are mailed about the payment of their pub: one mail for each step of the ladder, in words of mailer."""

from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.urls import reverse

from billing.ladder import ALIVE, Rung, Standing, Step
from billing.words import kept_until, next_try, why, words
from mailer import messages
from pubs.models import Bot

# Stripe's dates do so between two readings.
WAVERS = timedelta(hours=1)


def write(bot: Bot, standing: Standing) -> str:
    """Mail the owner what the standing says that they must know; the answer is what they know by now.

    The bot's row remembers it, for the outbox forgets what was sent long ago. A date that moves by less than an hour is
    no news. To the owner of a lost pub no mail may promise that a payment starts it: what was not told before is told
    in other words, and in its own when the pub is restored.
    """
    if standing.step is None or standing.step_about is None:
        return bot.told_payment
    # Of a payment page that was left, owners are reminded once, however often they leave it.
    date = "" if standing.step == Step.PAY_REMINDER else f"{standing.step_about.astimezone(UTC):%Y-%m-%dT%H:%M:%S}"
    news = f"{standing.step} {date}".strip()
    waits = bool(bot.lost_at) and standing.step != Step.DELETED and not _is_told(bot, news)
    if waits:
        news = f"lost {news}"
    if _is_told(bot, news):
        return bot.told_payment
    about = {
        "key": f"{'lost ' if waits else ''}{standing.step}:{bot.pk}:{date}",
        "to": bot.owner.email,
        "name": bot.owner.name,
        "pub_name": bot.name,
        "url": settings.SITE_URL + bot.get_absolute_url(),
    }
    if waits:
        messages.waits_for_restore(**about, words=words(bot))
    else:
        _mail(bot, standing, about)
    return news


def _is_told(bot: Bot, news: str) -> bool:
    if news == bot.told_payment:
        return True
    (says, _, date), (said, _, was) = news.rpartition(" "), bot.told_payment.rpartition(" ")
    return says == said != "" and abs(datetime.fromisoformat(date) - datetime.fromisoformat(was)) < WAVERS


def _mail(bot: Bot, standing: Standing, about: dict[str, Any]) -> None:
    runs = {**about, "until": standing.runs_until}
    stopped = {**about, "kept_until": kept_until(bot)}
    stops = runs | stopped
    # What Stripe's portal puts right is led there, through a page of ours, which asks for a sign-in first.
    portal = settings.SITE_URL + reverse("billing:portal", args=[bot.pk])
    to_portal = {"url": portal, "page": about["url"]}
    # Of one that has ended no card is asked any more, though staff may have extended its grace.
    to_card = to_portal | {"url": f"{portal}?flow=card"} if bot.paid_status in ALIVE else {}
    is_paused = bot.paid_status == "paused"
    contact = {"contact": settings.CONTACT_EMAIL}
    match standing.step:
        case Step.PAY_REMINDER:
            messages.pay_reminder(**about)
        case Step.CANCELLED:
            messages.cancelled(**stops | to_portal)
        case Step.COMPED:
            messages.comped(**runs)
        case Step.COMP_ENDS:
            messages.comp_ends(**stops | (contact if is_paused else {}))
        case Step.PAYMENT_FAILED:
            messages.payment_failed(**stops | to_card, retry_at=next_try(bot))
        case Step.STOPS_SOON:
            messages.stops_soon(**stops | to_card, retry_at=next_try(bot))
        case Step.SUSPENDED if is_paused:
            messages.paused(**stopped | contact)
        case Step.SUSPENDED:
            messages.suspended(**stopped | to_card, reason=why(bot))
        case Step.ENDED:
            messages.ended(**stopped, reason=why(bot))
        case Step.GOES_SOON | Step.GOES_NOW if is_paused:
            messages.goes_soon(**stopped | contact)
        case Step.GOES_SOON | Step.GOES_NOW:
            messages.goes_soon(**stopped | (to_portal if standing.rung == Rung.SUSPENDED else {}))
        case Step.OVER:
            messages.over(**stopped)
        case Step.DELETED:
            messages.deleted(**stopped | contact | {"url": settings.SITE_URL})
