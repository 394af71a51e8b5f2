"""From the outbox to the provider, and webhooks to whom they are for.

A mail is sent once, with one exception that nobody can rule out: when a worker is killed after the provider said yes
and before we noted it, the mail goes out again once the claim has run out. The same holds for a provider that takes
longer than the claim. Both mails then carry the same Message-ID, by which many mail programs drop the second one.
Likewise with a webhook, whose id is the same then.
"""

import hashlib
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from email.utils import parseaddr

from celery import shared_task
from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.db.models import F
from django.utils import timezone

from mailer import hooks
from mailer.models import FORGET_AFTER, TRIES_MAX, Hook, Message, Outgoing

log = logging.getLogger(__name__)

CLAIM = timedelta(minutes=2)
WAIT_FIRST = timedelta(seconds=30)
WAIT_MAX = timedelta(hours=6)
KEPT = timedelta(days=90)
HOOKS_KEPT = timedelta(days=30)
# What one sweep queues at most, and how long a queued job is worth running: until the next sweep queues it again.
SWEPT = 500
SWEEP_SECONDS = 30


@shared_task(name="mailer.send", time_limit=CLAIM.seconds - 10)
def send(message_id: int) -> None:
    """Send one mail, if it is due and nobody else has it."""
    _try(Message, message_id, _hand_over, _note_mail_sent)


@shared_task(name="mailer.post_hook", time_limit=CLAIM.seconds - 10)
def post_hook(hook_id: int) -> None:
    """Post one webhook, if it is due and nobody else has it."""
    _try(Hook, hook_id, hooks.deliver, _note_hook_taken)


def _try[Row: Outgoing](
    rows: type[Row], pk: int, hand_over: Callable[[Row], None], note_success: Callable[[Row], None]
) -> None:
    now = timezone.now()
    # Whoever changes the row has it. The try is counted now, so that what kills its worker ends too.
    claim = rows.objects.due(now).filter(pk=pk)
    if not claim.update(claimed_until=now + CLAIM, tries=F("tries") + 1):
        return
    row = rows.objects.get(pk=pk)
    try:
        hand_over(row)
    except Exception as error:
        # Each provider fails in its own ways; whatever it was is noted, and the row tried again.
        _note_failure(row, error)
    else:
        note_success(row)


@shared_task(name="mailer.sweep")
def sweep() -> None:
    """Queue what is due, and clear away what nobody needs any more."""
    now = timezone.now()
    _forget_late_codes(now)
    for rows, task in ((Message, send), (Hook, post_hook)):
        for pk in rows.objects.due(now).order_by("created").values_list("pk", flat=True)[:SWEPT]:
            task.apply_async((pk,), expires=SWEEP_SECONDS)
    Message.objects.filter(sent_at__lt=now - KEPT).delete()
    # Whoever gave the address sees those that were given up, and can do nothing about them any more.
    Hook.objects.filter(created__lt=now - HOOKS_KEPT).delete()


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


def _note_mail_sent(message: Message) -> None:
    forgotten = {"text": "", "html": ""} if message.forget else {}
    Message.objects.filter(pk=message.pk).update(sent_at=timezone.now(), error="", **forgotten)


def _note_hook_taken(hook: Hook) -> None:
    Hook.objects.filter(pk=hook.pk).update(sent_at=timezone.now(), error="", secret="")


def _note_failure(row: Outgoing, error: Exception) -> None:
    # Ours are in words already.
    reason = str(error) if isinstance(error, hooks.HookError) else f"{type(error).__name__}: {error}"
    again = timezone.now() + wait(row.tries)
    kind = type(row)
    kind.objects.filter(pk=row.pk, sent_at=None).update(error=reason[:500], claimed_until=again)
    gave_up = row.tries >= TRIES_MAX
    # A webhook's owner reads of it on the page of the pub; a mail is ours to look after.
    level = logging.ERROR if gave_up and kind is Message else logging.WARNING
    end = "is given up" if gave_up else "waits for its next try"
    log.log(level, "%s %s %s after %s tries: %s", kind._meta.verbose_name, row.pk, end, row.tries, reason)


def _forget_late_codes(now: datetime) -> None:
    late = Message.objects.filter(sent_at=None, forget=True, created__lt=now - FORGET_AFTER).exclude(text="")
    late.update(text="", html="", tries=TRIES_MAX, error="Not sent: the code in it was no longer good.")
