"""What owners are mailed about the payment of their pub: one mail for each step of the ladder, in words of mailer."""

from django.conf import settings

from billing.ladder import Standing, Step
from mailer import messages
from pubs.models import Bot


def write(bot: Bot, standing: Standing) -> None:
    """Mail the owner what the standing says that they must know. Written once, however often this is asked."""
    if standing.step is None or standing.step_about is None:
        return
    about = {
        "key": f"{standing.step}:{bot.pk}:{standing.step_about:%Y-%m-%dT%H:%M:%S}",
        "to": bot.owner.email,
        "name": bot.owner.name,
        "pub_name": bot.name,
        "url": settings.SITE_URL + bot.get_absolute_url(),
    }
    match standing.step:
        case Step.PAYMENT_FAILED | Step.SUSPENDED as step:
            messages.payment_failed(**about, stopped=step == Step.SUSPENDED)
        case Step.ENDED:
            messages.subscription_ended(**about)
