"""From the outbox to the provider.

A mail is sent once, with one exception that nobody can rule out: when a worker is killed after the provider said yes
and before we noted it, the mail goes out again once the claim has run out. The same holds for a provider that takes
longer than the claim. Both mails then carry the same Message-ID, by which many mail programs drop the second one.
"""

import hashlib
import logging
from datetime import datetime, timedelta
from email.utils import parseaddr

from celery import shared_task
from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.db.models import F
from django.utils import timezone

from mailer.models import FORGET_AFTER, TRIES_MAX, Message

log = logging.getLogger(__name__)

CLAIM = timedelta(minutes=2)
WAIT_FIRST = timedelta(seconds=30)
WAIT_MAX = timedelta(hours=6)
KEPT = timedelta(days=90)
# What one sweep queues at most, and how long a queued job is worth running: until the next sweep queues it again.
SWEPT = 500
SWEEP_SECONDS = 30


@shared_task(name="mailer.send", time_limit=CLAIM.seconds - 10)
def send(message_id: int) -> None:
    """Send one mail, if it is due and nobody else has it."""
    now = timezone.now()
    # Whoever changes the row has the mail. The try is counted now, so that a mail that kills its worker ends too.
    claim = Message.objects.due(now).filter(pk=message_id)
    if not claim.update(claimed_until=now + CLAIM, tries=F("tries") + 1):
        return
    message = Message.objects.get(pk=message_id)
    try:
        _hand_over(message)
    except Exception as error:
        # Each provider fails in its own ways; whatever it was is noted, and the mail tried again.
        _note_failure(message, error)
    else:
        _note_success(message)


@shared_task(name="mailer.sweep")
def sweep() -> None:
    """Queue what is due, and clear away what nobody needs any more."""
    now = timezone.now()
    _forget_late_codes(now)
    for message_id in Message.objects.due(now).order_by("created").values_list("pk", flat=True)[:SWEPT]:
        send.apply_async((message_id,), expires=SWEEP_SECONDS)
    Message.objects.filter(sent_at__lt=now - KEPT).delete()


def wait(tries: int) -> timedelta:
    """How long to wait after so many tries: 1 minute, 2, 4, … up to 6 hours."""
    return min(WAIT_FIRST * 2**tries, WAIT_MAX)


def header(key: str) -> str:
    """The Message-ID of the mail with this key: always the same one, so that a double can be recognised."""
    domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2] or "localhost"
    return f"<{hashlib.sha256(key.encode()).hexdigest()[:40]}@{domain}>"


def _hand_over(message: Message) -> None:
    headers = {"Message-ID": header(message.key)}
    mail = EmailMultiAlternatives(message.subject, message.text, to=[message.to], headers=headers)
    if message.html:
        mail.attach_alternative(message.html, "text/html")
    mail.send()


def _note_success(message: Message) -> None:
    forgotten = {"text": "", "html": ""} if message.forget else {}
    Message.objects.filter(pk=message.pk).update(sent_at=timezone.now(), error="", **forgotten)


def _note_failure(message: Message, error: Exception) -> None:
    reason = f"{type(error).__name__}: {error}"[:500]
    again = timezone.now() + wait(message.tries)
    Message.objects.filter(pk=message.pk, sent_at=None).update(error=reason, claimed_until=again)
    if message.tries >= TRIES_MAX:
        log.error("gave up mail %s after %s tries: %s", message.pk, message.tries, reason)
    else:
        log.warning("mail %s waits for its next try: %s", message.pk, reason)


def _forget_late_codes(now: datetime) -> None:
    late = Message.objects.filter(sent_at=None, forget=True, created__lt=now - FORGET_AFTER).exclude(text="")
    late.update(text="", html="", tries=TRIES_MAX, error="Not sent: the code in it was no longer good.")
