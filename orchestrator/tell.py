"""What owners and staff are told by mail, each thing once.

Each mail is keyed by its cause, so that whatever asks for it may ask again.
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zlib import crc32

from django.conf import settings
from django.core.cache import cache
from django.db import transaction
from django.db.models import F
from django.urls import reverse
from django.utils import timezone

from accounts.models import User
from mailer import messages
from mailer.models import Hook
from orchestrator import logs
from orchestrator.models import Hub
from orchestrator.troubles import Kind, News, State, news, state_of
from pubs import disk
from pubs.models import Bot, Notices, PaymentChange, Rung, Status, Trouble
from pubs.shown import PAYMENT_WORDS

log = logging.getLogger(__name__)

# A hub that is back within this time was not lost in the sense of a mail. One that comes and goes is told about again
# only after hours, unless it stays away.
LOST_BEFORE_MAIL = timedelta(minutes=2)
LOST_AGAIN = timedelta(hours=6)
LOST_LASTS = timedelta(minutes=15)
# Staff read of one thing once an hour in the log, and once in so many hours in a mail, if nothing else is said.
REPORT_SECONDS = 3600
MAIL_HOURS = 6


# --- staff -----------------------------------------------------------------------------------------------------------
def staff(about: UUID | int | None, words: str, hours: int = MAIL_HOURS) -> None:
    """Something that a person must look at, about a bot, a hub, or the whole; mailed once in so many hours."""
    cause = f"{about}:{crc32(words.encode()):x}"
    if not cache.add(f"orchestrator.told.{cause}", 1, REPORT_SECONDS):
        return
    _mail_staff(f"{cause}:{timezone.now().timestamp() // (3600 * hours):.0f}", about, words)


def _mail_staff(key: str, about: UUID | int | None, words: str, lines: str = "") -> None:
    subject, page = _subject(about)
    log.error("%s: %s", subject, words)
    alarm = {"subject": subject, "words": words, "url": page, "lines": lines}
    for user in User.objects.staff():
        messages.staff_alarm(key=f"staff_alarm:{key}:{user.pk}", to=user.email, name=user.name, **alarm)


def _subject(about: UUID | int | None) -> tuple[str, str]:
    """What it is about, and where staff see it."""
    match about:
        case UUID():
            name, page = f"pub {about}", reverse("admin:pubs_bot_change", args=[about])
        case int():
            name = str(Hub.objects.filter(pk=about).first() or f"hub {about}")
            page = reverse("admin:orchestrator_hub_change", args=[about])
        case None:
            name, page = "the hubs", reverse("admin:orchestrator_hub_changelist")
    return name, settings.SITE_URL + page


def staff_of_loss(hub: Hub, now: datetime) -> None:
    """Once for each loss that lasts, and not again soon for a hub that comes and goes."""
    if hub.lost_at is None or (hub.told_at and hub.told_at >= hub.lost_at):
        return
    comes_and_goes = hub.told_at is not None and now - hub.told_at < LOST_AGAIN
    if now - hub.lost_at < (LOST_LASTS if comes_and_goes else LOST_BEFORE_MAIL):
        return
    if Hub.objects.filter(pk=hub.pk, told_at=hub.told_at).update(told_at=now):
        hub.told_at = now
        staff(hub.pk, f"It is out of sight since {hub.lost_at:%H:%M} UTC. {hub.reason}")


# --- words -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Said:
    """News of a trouble, for the pub's owner. `title` and `what` go on after the name of the pub."""

    title: str
    what: str
    words: str = ""
    todo: str = ""


TITLES = {
    Kind.DOWN: "is down",
    Kind.UNKNOWN: "is out of our sight",
    Kind.CRASH_LOOP: "crashes again and again",
    Kind.MEMORY: "is short of memory",
    Kind.DISK: "has filled {level} % of its disk",
}
BEGAN = {
    Kind.DOWN: "has not answered since {since}.",
    Kind.UNKNOWN: "lives on a machine that has been out of our sight since {since}, so we don't know how it is.",
    Kind.CRASH_LOOP: "crashes again and again, so we let it rest for a while.",
    Kind.MEMORY: "has had little memory left since {since}.",
    Kind.DISK: "has filled {level} % of its disk.",
}
FLAPS = {
    Kind.DOWN: "is down and up again, {times} times since {began}.",
    Kind.UNKNOWN: "lives on a machine that was out of our sight {times} times since {began}.",
    Kind.CRASH_LOOP: "crashes again and again, and had to rest {times} times since {began}.",
    Kind.MEMORY: "was short of memory {times} times since {began}.",
    Kind.DISK: "had its disk nearly full {times} times since {began}.",
}
OVER_TITLES = {
    Kind.DOWN: "is up again",
    Kind.UNKNOWN: "is in our sight again",
    Kind.CRASH_LOOP: "runs well again",
    Kind.MEMORY: "has memory enough again",
    Kind.DISK: "has room on its disk again",
}
OVER = {
    Kind.DOWN: "is up again and answers. It was down from {since} on.",
    Kind.UNKNOWN: "is in our sight again{so}. We had not seen its machine since {since}.",
    Kind.CRASH_LOOP: "has run for an hour without a crash.",
    Kind.MEMORY: "has memory enough again, after it was short of it from {since} on.",
    Kind.DISK: "has room on its disk again.",
}
TODO = {
    Kind.DOWN: "We try to bring it back by ourselves, and write to you when it is up again. What it knows is kept.",
    Kind.UNKNOWN: "We look for it all the time, and write to you when we see it again. Nothing is changed until then.",
    Kind.CRASH_LOOP: "Our staff know of it too, and look at it. Everything in it is kept.",
    Kind.MEMORY: "When a pub needs more memory than it has, it is ended and starts again. Choose a larger size on its "
    "page, or let fewer people join.",
}
FLAPS_TODO = "You hear of it again when it has been well for half an hour. Until then we look after it."


def say(bot: Bot, state: State, what: News) -> Said:
    about = {
        "since": _moment(state.back_at),
        "began": _moment(state.began),
        "times": state.times,
        "level": state.level,
        "so": ", and is up" if bot.status == Status.UP else ", but it does not answer yet: we bring it back",
    }
    kind = Kind(state.kind)
    if what is News.OVER:
        return Said(OVER_TITLES[kind], OVER[kind].format(**about))
    if what is News.FLAPS:
        return Said("has the same trouble again and again", FLAPS[kind].format(**about), state.words, FLAPS_TODO)
    words, todo = state.words, TODO.get(kind, "")
    if kind == Kind.DISK:
        ahead = disk.outlook(bot)
        words, todo = ahead.words, ahead.todo
    return Said(TITLES[kind].format(**about), BEGAN[kind].format(**about), words, todo)


def _moment(at: datetime) -> str:
    return f"{at:%-d %B %Y, %H:%M} UTC"


# --- owners ----------------------------------------------------------------------------------------------------------
LOG_LINES = 100


def is_first_up(bot: Bot) -> bool:
    return bot.is_wanted and bot.status == Status.UP and not bot.told_up


def first_up(bot_id: UUID) -> None:
    """Tell its owner once in its life that it is up."""
    bot = Bot.objects.select_related("owner", "notices").get(pk=bot_id)
    key = f"pub_is_up:{bot.pk}"
    with transaction.atomic():
        if is_first_up(bot) and Bot.objects.filter(pk=bot_id, told_up=False).update(told_up=True):
            messages.pub_is_up(**_about(bot, key), address=bot.address)
            _post(bot, key, "pub.up", "", bot.changed_at, f"Your pub “{bot.name}” is up.")


def _about(bot: Bot, key: str) -> dict[str, Any]:
    """What every mail about a pub needs."""
    plain = {"to": bot.owner.email, "name": bot.owner.name, "pub_name": bot.name}
    return {"key": key, "url": settings.SITE_URL + bot.get_absolute_url(), **plain}


def trouble(trouble_id: int) -> None:
    """Tell the owner of a trouble, and staff of a crash loop, what is new, if anything still is.

    What is told and that it is told are written together; so of two workers one tells, and one that is killed leaves
    it to the next look.
    """
    row = Trouble.objects.select_related("bot__owner", "bot__notices").get(pk=trouble_id)
    state = state_of(row)
    what = news(state, timezone.now())
    if what is None:
        return
    is_loop = row.kind == Kind.CRASH_LOOP and what in (News.BEGAN, News.FLAPS)
    lines = logs.last_lines(row.bot_id, LOG_LINES) if is_loop else ""
    unchanged = Trouble.objects.filter(
        pk=row.pk, ended=row.ended, told=row.told, told_level=row.told_level, told_flaps=row.told_flaps
    )
    with transaction.atomic():
        if not unchanged.update(
            told=what is not News.OVER, told_level=row.level, told_flaps=row.told_flaps or what is News.FLAPS
        ):
            return
        _tell_owner(row.bot, state, what, lines)
        if is_loop:
            _mail_staff(
                f"trouble:{state.pk}:{state.times}", row.bot_id, f"It crashes again and again. {row.words}", lines
            )


def _tell_owner(bot: Bot, state: State, what: News, lines: str) -> None:
    key = f"trouble:{state.kind}:{what.value}:{state.pk}:{state.times}:{state.level}"
    said = say(bot, state, what)
    notices = getattr(bot, "notices", None)
    if notices is None or state.kind in notices.mailed:
        page = settings.SITE_URL + reverse("pubs:settings", args=[bot.pk])
        mail = {**_about(bot, key), "settings_url": page, "title": said.title, "what": said.what, "words": said.words}
        if what is News.OVER:
            messages.trouble_is_over(**mail)
        else:
            messages.trouble_began(**mail, todo=said.todo, lines=lines)
    event = "trouble.ended" if what is News.OVER else "trouble.began"
    _post(bot, key, event, state.kind, state.began, f"Your pub “{bot.name}” {said.what} {said.words}".strip())


# --- webhooks --------------------------------------------------------------------------------------------------------
PAYMENT = "payment.changed"
# Payments that changed longer ago are no news. What was posted is known for longer (mailer.jobs.HOOKS_KEPT).
PAYMENTS_LOOK = timedelta(days=14)


def payments() -> None:
    """Changes of payments, to those who wish them posted. Their mails are billing's, and go out by themselves."""
    wished = Notices.objects.exclude(hook_url="").values("bot")
    changes = PaymentChange.objects.filter(
        bot__in=wished, at__gt=timezone.now() - PAYMENTS_LOOK, at__gte=F("bot__notices__hook_since")
    )
    new = {f"payment:{each.pk}": each for each in changes.select_related("bot__notices").order_by("pk")}
    for key in Hook.objects.filter(key__in=new).values_list("key", flat=True):
        del new[key]
    for key, change in new.items():
        words = change.words or f"Your pub “{change.bot.name}”: {PAYMENT_WORDS[Rung(change.new)]}."
        _post(change.bot, key, PAYMENT, change.new, change.at, words)


def _post(bot: Bot, key: str, event: str, kind: str, since: datetime, words: str) -> None:
    """To the address that the owner gave, if there is one and such news are wished."""
    notices = getattr(bot, "notices", None)
    topic = Notices.PAYMENT if event == PAYMENT else kind
    if notices and notices.hook_url and topic not in notices.no_hook:
        notices.post(key, event, kind=kind, since=since, words=words)
