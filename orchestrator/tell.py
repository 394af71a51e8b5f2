"""What owners and staff are told by mail, each thing once.

Each mail is keyed by its cause, so that whatever asks for it may ask again.
"""

import logging
from datetime import datetime, timedelta
from uuid import UUID
from zlib import crc32

from django.conf import settings
from django.core.cache import cache
from django.db import transaction
from django.urls import reverse
from django.utils import timezone

from accounts.models import User
from mailer import messages
from orchestrator.models import Hub, Placement
from pubs.models import UNKNOWN, Bot, Status

log = logging.getLogger(__name__)

# A pub that comes back within this time has not been down in the sense of a mail.
DOWN_BEFORE_MAIL = timedelta(seconds=60)
# The same for a hub out of sight. One that comes and goes is told about again only after hours, unless it stays away.
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
    subject, page = _subject(about)
    log.error("%s: %s", subject, words)
    key = f"staff_alarm:{cause}:{timezone.now().timestamp() // (3600 * hours):.0f}"
    for user in User.objects.staff():
        messages.staff_alarm(
            key=f"{key}:{user.pk}", to=user.email, name=user.name, subject=subject, words=words, url=page
        )


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
    # Owners are told with staff: see `news`.
    if Hub.objects.filter(pk=hub.pk, told_at=hub.told_at).update(told_at=now):
        hub.told_at = now
        staff(hub.pk, f"It is out of sight since {hub.lost_at:%H:%M} UTC. {hub.reason}")


# --- owners ----------------------------------------------------------------------------------------------------------
def news(bot: Bot, placement: Placement | None, now: datetime) -> str:
    """What its owner should be told: up once it is up, down once it has been down for a while though it should run,
    unknown when its hub is lost from sight. Nothing when there is nothing new.

    A stop is no news to who asked for it, nor is the start after it.
    """
    if not bot.is_wanted:
        return ""
    if bot.unknown_since:
        hub = placement.hub if placement else None
        is_told = hub and hub.lost_at and hub.told_at and hub.told_at >= hub.lost_at
        return UNKNOWN if is_told and bot.told == Status.UP else ""
    if bot.status == Status.UP:
        return Status.UP if bot.told not in (Status.UP, Status.NONE) else ""
    long_enough = now - down_since(bot) >= DOWN_BEFORE_MAIL
    return Status.DOWN if bot.told in (Status.UP, UNKNOWN) and long_enough else ""


def down_since(bot: Bot) -> datetime:
    """Not before it was last started: a restart takes its time."""
    return max(bot.changed_at, bot.started_at or bot.changed_at)


def owner(bot_id: UUID) -> None:
    """Mail the owner what is new, if anything still is."""
    bot = Bot.objects.select_related("owner").get(pk=bot_id)
    placement = Placement.objects.select_related("hub").filter(bot=bot).first()
    now = timezone.now()
    told = news(bot, placement, now)
    with transaction.atomic():
        if told and Bot.objects.filter(pk=bot_id, told=bot.told).update(told=told):
            _mail(bot, told)


def _mail(bot: Bot, told: str) -> None:
    since = bot.unknown_since if told == UNKNOWN else bot.changed_at
    assert since is not None
    plain = {
        "key": f"pub_is_{told}:{bot.pk}:{since.isoformat()}",
        "to": bot.owner.email,
        "name": bot.owner.name,
        "pub_name": bot.name,
        "url": settings.SITE_URL + reverse("pubs:pub", args=[bot.pk]),
    }
    if told == Status.UP:
        messages.pub_is_up(**plain, address=bot.address)
    elif told == Status.DOWN:
        messages.pub_is_down(**plain, reason=bot.reason, since=down_since(bot))
    else:
        messages.pub_is_unknown(**plain, since=since)
