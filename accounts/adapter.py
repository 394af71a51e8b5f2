"""How allauth does things here: its mails go through the outbox in our words, and sign-up leads to the first pub."""

import uuid
from typing import Any

from allauth.account import app_settings
from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.models import EmailAddress
from django.conf import settings
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import reverse

from mailer import messages


class AccountAdapter(DefaultAccountAdapter):
    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Post `<prefix>_subject.txt` and `<prefix>_message.txt`; the HTML is made from the text."""
        values = {**context, "email": email, "site_url": settings.SITE_URL, "good_for": _good_for(template_prefix)}
        text = messages.plain(f"{template_prefix}_message.txt", values)
        html = {"paragraphs": text.split("\n\n"), "code": context.get("code")}
        messages.post(
            # Each is an answer to something just done: there is no cause that could come twice.
            key=f"{template_prefix.rpartition('/')[2]}:{uuid.uuid4()}",
            to=email,
            subject=messages.plain(f"{template_prefix}_subject.txt", values),
            text=f"{text}\n",
            html=render_to_string("account/email/message.html", html),
            forget="code" in context,
        )

    def get_password_change_redirect_url(self, request: HttpRequest) -> str:
        return reverse("accounts:home")

    def get_email_verification_redirect_url(self, email_address: EmailAddress) -> str:
        """Where a confirmed change of address leads. Sign-up does not come here: it goes on where it stopped."""
        return reverse("accounts:home")


def greet(sender: Any, email_address: EmailAddress, **kwargs: Any) -> None:
    """Welcome a newcomer, once, when the first address is confirmed, by whichever code that happened."""
    user = email_address.user
    # A later change of address confirms one too, but only somebody who has signed in can change it.
    if user.last_login is None:
        messages.welcome(
            key=f"welcome:{user.pk}",
            to=email_address.email,
            name=user.name,
            url=f"{settings.SITE_URL}{reverse('pubs:new')}",
        )


def _good_for(template_prefix: str) -> str:
    """How long the code in this mail is good for, in words."""
    seconds = {
        "login_code": app_settings.LOGIN_BY_CODE_TIMEOUT,
        "password_reset_code": app_settings.PASSWORD_RESET_BY_CODE_TIMEOUT,
    }.get(template_prefix.rpartition("/")[2], app_settings.EMAIL_VERIFICATION_BY_CODE_TIMEOUT)
    return f"{seconds // 60} minutes"
