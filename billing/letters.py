"""What owners are mailed about the payment of their pub: one mail for each step of the ladder, in words of mailer."""

from typing import Any

from django.conf import settings

from billing.ladder import Standing, Step
from billing.words import kept_until, next_try, why
from mailer import messages
from pubs.models import Bot


def write(bot: Bot, standing: Standing) -> str:
    """Mail the owner what the standing says that they must know; the answer is what they know by now.

    The bot's row remembers it, for the outbox forgets what was sent long ago. A date that moves within an hour, as
    Stripe's do between two readings, is no news.
    """
    if standing.step is None or standing.step_about is None:
        return bot.told_payment
    # Of a payment page that was left, owners are reminded once, however often they leave it.
    date = "" if standing.step == Step.PAY_REMINDER else f" {standing.step_about:%Y-%m-%dT%H}"
    news = f"{standing.step}{date}"
    if news != bot.told_payment:
        about = {
            "key": f"{standing.step}:{bot.pk}:{date.strip()}",
            "to": bot.owner.email,
            "name": bot.owner.name,
            "pub_name": bot.name,
            "url": settings.SITE_URL + bot.get_absolute_url(),
        }
        _mail(bot, standing, about)
    return news


def _mail(bot: Bot, standing: Standing, about: dict[str, Any]) -> None:
    runs = {**about, "until": standing.runs_until}
    stopped = {**about, "kept_until": kept_until(bot)}
    stops = runs | stopped
    match standing.step:
        case Step.PAY_REMINDER:
            messages.pay_reminder(**about)
        case Step.CANCELLED:
            messages.cancelled(**stops)
        case Step.COMPED:
            messages.comped(**runs)
        case Step.COMP_ENDS:
            messages.comp_ends(**stops)
        case Step.PAYMENT_FAILED:
            messages.payment_failed(**stops, retry_at=next_try(bot))
        case Step.STOPS_SOON:
            messages.stops_soon(**stops, retry_at=next_try(bot))
        case Step.SUSPENDED:
            messages.suspended(**stopped, reason=why(bot))
        case Step.ENDED:
            messages.ended(**stopped, reason=why(bot))
        case Step.GOES_SOON | Step.GOES_NOW:
            messages.goes_soon(**stopped)
        case Step.OVER:
            messages.over(**stopped)
        case Step.DELETED:
            messages.deleted(**stopped | {"url": settings.SITE_URL, "contact": settings.CONTACT_EMAIL})
