"""What staff are mailed about money: each thing once."""

import logging

from django.conf import settings
from django.urls import reverse

from accounts.models import User
from mailer import messages
from pubs.models import Bot

log = logging.getLogger("billing")


def about_bot(bot: Bot, cause: str, words: str) -> None:
    """Something about the payment of one bot that a person must look at; `cause` names it for ever."""
    tell(cause, f"pub {bot.name}", words, reverse("admin:pubs_bot_change", args=[bot.pk]))


def tell(cause: str, subject: str, words: str, page: str) -> None:
    """The same for whatever `page` of the admin shows it."""
    log.error("%s: %s", subject, words)
    for user in User.objects.staff():
        messages.staff_alarm(
            key=f"staff_alarm:{cause}:{user.pk}",
            to=user.email,
            name=user.name,
            subject=subject,
            words=words,
            url=settings.SITE_URL + page,
        )
