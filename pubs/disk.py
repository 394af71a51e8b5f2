"""How large a pub's volume is, how it grows, and when it will be full."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import combinations, pairwise
from statistics import median

from django.conf import settings
from django.utils import timezone

from pubs.models import Bot
from pubs.units import size as in_words

GB = 1024**3
DAY = 86400
# What a forecast looks back on, and the least that it needs.
WEEKS = timedelta(weeks=4)
DAYS_NEEDED = 3
# A volume that loses more than this part of its size in a day was tidied up: that is no growth backwards.
TIDIED = 0.05
# Slower than this it is not worth a word, and further ahead nobody knows.
FAR = timedelta(days=2 * 365)
# Percent of the quota from which on the owner is warned.
WARN = 80
ALARM = 95
# Or when it will be full so soon.
SOON = timedelta(days=7)
# Of those in Bot.memory_gb.
LARGEST_GB = 4


@dataclass(frozen=True)
class Outlook:
    """Sizes in bytes. What is not known yet is None."""

    size: int | None
    quota: int
    percent: float | None
    growth_per_day: float | None
    full_in: timedelta | None
    words: str
    todo: str = ""
    measured_at: datetime | None = None

    @property
    def level(self) -> int:
        """The warning that it is at: 0, 80 or 95."""
        return level_of(self.percent or 0)


def level_of(percent: float) -> int:
    return ALARM if percent >= ALARM else WARN if percent >= WARN else 0


def quota(bot: Bot) -> int:
    """What its size entitles it to, in bytes."""
    return settings.PUB_DISK_GB * bot.memory_gb * GB


def outlook(bot: Bot) -> Outlook:
    """From its newest checkup and the days that are complete."""
    checkup = getattr(bot, "checkup", None)
    now = timezone.now()
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    rows = bot.samples.filter(step=DAY, at__gte=now - WEEKS, at__lt=today).values_list("at", "disk")
    days = [(at, disk) for at, disk in rows if disk is not None]
    ahead = look_ahead(checkup and checkup.disk, quota(bot), days, bot.memory_gb >= LARGEST_GB)
    return replace(ahead, measured_at=checkup and checkup.answered_at)


def look_ahead(size: int | None, limit: int, days: Sequence[tuple[datetime, float]], is_largest: bool) -> Outlook:
    """`days` are the mean sizes of the last weeks, the oldest first."""
    if size is None:
        return Outlook(None, limit, None, None, None, "Its size is not known yet: it is measured while your pub runs.")
    percent = 100 * size / limit
    growth = growth_per_day(days)
    full_in = _full_in(limit - size, growth)
    words = " ".join(part for part in (_size_words(size, limit), _growth_words(size, limit, growth, full_in)) if part)
    return Outlook(size, limit, percent, growth, full_in, words, _todo(level_of(percent), full_in, is_largest))


def growth_per_day(days: Sequence[tuple[datetime, float]]) -> float | None:
    """The slope of Theil and Sen: the median of those between all pairs of days. One day that leaps, as when a pub
    first fetches what its people wrote, does not bend it. None if it is too early to say.
    """
    if len(days) < DAYS_NEEDED:
        return None
    points = _without_tidying(days)
    return median(
        (late - early) / ((until - since).total_seconds() / DAY)
        for (since, early), (until, late) in combinations(points, 2)
    )


def _without_tidying(days: Sequence[tuple[datetime, float]]) -> list[tuple[datetime, float]]:
    """As if what was ever tidied away were still there."""
    freed = 0.0
    points = [days[0]]
    for (_, before), (at, after) in pairwise(days):
        if before - after > TIDIED * before:
            freed += before - after
        points.append((at, after + freed))
    return points


def _full_in(room: int, growth: float | None) -> timedelta | None:
    if growth is None or growth <= 0 or room <= 0:
        return None
    days = room / growth
    return timedelta(days=days) if days < FAR.days else None


def _size_words(size: int, limit: int) -> str:
    return f"It takes {in_words(size)} of {in_words(limit)}."


def _growth_words(size: int, limit: int, growth: float | None, full_in: timedelta | None) -> str:
    if size >= limit:
        return "That is all that its size entitles it to."
    if growth is None:
        return "It is too early to say how it grows: that takes a few days."
    if full_in is None:
        return (
            "It is not growing." if growth * FAR.days < limit / 100 else "It grows so slowly that it lasts for years."
        )
    return f"It grows by {in_words(growth)} a day, and is full {time_words(full_in)}."


def time_words(ahead: timedelta) -> str:
    """No more exact than a forecast can be."""
    days = ahead / timedelta(days=1)
    if days < 1.5:
        return "within a day or two"
    if days < 15:
        return f"in about {round(days)} days"
    if days < 90:
        return f"in about {5 * round(days / 5)} days"
    return f"in about {round(days / 30.4)} months"


def _todo(level: int, full_in: timedelta | None, is_largest: bool) -> str:
    if not level and (full_in is None or full_in > SOON):
        return ""
    if is_largest:
        return "It has the largest size that we offer: write to us, and we find a way together."
    soon = "now" if level == ALARM else "before it is full"
    return (
        f"Choose a larger size {soon}: each GB of memory brings {settings.PUB_DISK_GB} GB of disk. Or let fewer people "
        "in: what they write is what fills it."
    )
