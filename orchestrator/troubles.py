"""What is wrong with pubs: looked for by the clock, written down as rows, and told from them, once when a trouble
begins and once when it is over.

`decide` is pure. A look reads all bots in a number of queries that does not grow with them, and writes down what
`decide` makes of it; each telling is a job of its own, asked for again by each look until it is done (tell.py).

A trouble is one when it has lasted its time, and over when it has stayed away for a while. Where nobody can say how it
stands, as while a hub is out of sight, all stays as it is. Nothing is wrong with what is not to run: a trouble ends
then, and nobody hears of it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Avg, Count, Max, Q, QuerySet
from django.utils import timezone

from orchestrator import crashes
from orchestrator.models import Placement
from pubs import disk
from pubs.models import Bot, Checkup, StatsSample, Status, StatusChange, Trouble
from pubs.units import size

Kind = Trouble.Kind
GB = 1024**3

# A pub that comes back within this time has not been down in the sense of a mail.
DOWN_LASTS = timedelta(seconds=60)
# One that was not up since it should run has its first start to make, and perhaps waits for a machine.
START_LASTS = timedelta(minutes=15)
UNKNOWN_LASTS = timedelta(minutes=2)
AT_ONCE = timedelta(0)
# What stays away for so long is over.
CALM = timedelta(minutes=1)
# What comes back so soon after it was over is the same trouble again, and told again only if it lasts, …
DAMPING = timedelta(hours=1)
LASTS_AGAIN = timedelta(minutes=15)
# … or if it came so often: then once that it comes and goes, and the next time when it has stayed away for longer.
FLAPS = 3
FLAPS_CALM = timedelta(minutes=30)
# Rows that were seen longer ago say nothing about now.
STALE = timedelta(minutes=2)
# Memory is nearly full at so many percent of the limit in the mean of some minutes, and no longer below so many.
MEMORY_FULL, MEMORY_FREE = 90, 80
MEMORY_MEAN = timedelta(minutes=5)
SAMPLE_SECONDS = 10
SAMPLES_NEEDED = 20  # of the 30 that there can be
# A disk is no longer nearly full so many percent below the warning.
DISK_FREE = disk.WARN - 5


# --- deciding --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Fact:
    """How it stands now with one kind of trouble of one bot. `seen`: it is so, it is not, or nobody can say."""

    seen: bool | None
    since: datetime
    lasts: timedelta = AT_ONCE
    level: int = 0
    words: str = ""


@dataclass(frozen=True)
class State:
    """A row of Trouble. Without `pk` it is new."""

    bot_id: UUID
    kind: str
    began: datetime
    back_at: datetime
    last_at: datetime
    words: str = ""
    level: int = 0
    times: int = 1
    calm_since: datetime | None = None
    ended: datetime | None = None
    told: bool = False
    told_level: int = 0
    told_flaps: bool = False
    pk: int | None = None


COLUMNS = ["words", "level", "back_at", "times", "last_at", "calm_since", "ended", "told"]
Facts = Mapping[tuple[UUID, str], Fact]


def decide(facts: Facts, troubles: Iterable[State], now: datetime) -> list[State]:
    """Troubles as they are to be, of those that change. `troubles`: all that are open, and that ended lately.

    What has no fact is no trouble: its bot is not to run, or there is a better word for what is wrong.
    """
    known: dict[tuple[UUID, str], State] = {}
    for each in sorted(troubles, key=lambda each: (each.ended is None, each.ended or now)):
        known[each.bot_id, each.kind] = each
    changed = []
    for key, fact in facts.items():
        old = known.get(key)
        new = _begin(key, fact, old, now) if old is None or old.ended else _go_on(old, fact, now)
        if new and new != old:
            changed.append(new)
    silenced = [old for key, old in known.items() if key not in facts and old.ended is None]
    return changed + [replace(old, ended=now, calm_since=None, told=False) for old in silenced]


def _begin(key: tuple[UUID, str], fact: Fact, old: State | None, now: datetime) -> State | None:
    if not fact.seen or now - fact.since < fact.lasts:
        return old
    # What ended in silence, as by a stop, has nothing to do with what comes after the next start.
    if old is None or old.ended is None or old.calm_since is None or now - old.ended >= DAMPING:
        bot_id, kind = key
        return State(bot_id, kind, fact.since, back_at=fact.since, last_at=now, words=fact.words, level=fact.level)
    back = replace(old, back_at=fact.since, times=old.times + 1, calm_since=None, ended=None)
    return replace(back, words=fact.words, level=fact.level, last_at=now)


def _go_on(old: State, fact: Fact, now: datetime) -> State:
    if fact.seen is None:
        return old
    if fact.seen:
        return replace(old, words=fact.words, level=fact.level, last_at=now, calm_since=None)
    if old.calm_since is None:
        return replace(old, calm_since=now)
    calm = FLAPS_CALM if old.told_flaps else CALM
    return replace(old, ended=now) if now - old.calm_since >= calm else old


class News(Enum):
    """What the owner should be told of a trouble."""

    BEGAN = "began"
    ROSE = "rose"
    FLAPS = "flaps"
    OVER = "over"


def news(trouble: State, now: datetime) -> News | None:
    """What its owner should know and does not, if there is anything."""
    if trouble.ended:
        return News.OVER if trouble.told else None
    if trouble.calm_since:
        return None
    if trouble.times >= FLAPS and not trouble.told_flaps:
        return News.FLAPS
    if not trouble.told:
        return News.BEGAN if trouble.times == 1 or now - trouble.back_at >= LASTS_AGAIN else None
    return News.ROSE if trouble.level > trouble.told_level else None


# --- looking ---------------------------------------------------------------------------------------------------------
def look(ask: Callable[..., None]) -> None:
    """Find out what is wrong, write it down, and ask for all that is to be told."""
    now = timezone.now()
    facts = read_facts(now)
    with transaction.atomic():
        _write(decide(facts, _read(Trouble.objects.select_for_update(), now), now))
    for trouble in _read(Trouble.objects.all(), now):
        if news(trouble, now):
            ask("orchestrator.tell_trouble", trouble.pk)


def state_of(trouble: Trouble) -> State:
    return State(**{name: getattr(trouble, name) for name in State.__dataclass_fields__})


def _read(rows: QuerySet[Trouble], now: datetime) -> list[State]:
    lately = rows.filter(Q(ended=None) | Q(ended__gt=now - DAMPING) | Q(told=True))
    return [state_of(row) for row in lately.order_by("pk")]


def _write(states: Collection[State]) -> None:
    """Two looks at once wait for each other, but for what is new: of those that find the same, one writes it."""
    rows = [Trouble(**asdict(state)) for state in states]
    Trouble.objects.bulk_create([row for row in rows if row.pk is None], ignore_conflicts=True)
    Trouble.objects.bulk_update([row for row in rows if row.pk is not None], COLUMNS)


# --- facts -----------------------------------------------------------------------------------------------------------
BOT_COLUMNS = (
    *("status", "reason", "changed_at", "started_at", "wanted_since", "seen_at", "unknown_since", "moving"),
    "memory_gb",
)


def read_facts(now: datetime) -> dict[tuple[UUID, str], Fact]:
    """Of all bots that are to run, as passes, samples and checkups have found them."""
    bots = list(Bot.objects.wanted().exclude(wanted_since=None).only(*BOT_COLUMNS).order_by("pk"))
    homes = {home.bot_id: home for home in Placement.objects.all()}
    rests = crashes.words_of_rests(homes.values())
    loops = set(Trouble.objects.filter(kind=Kind.CRASH_LOOP, ended=None).values_list("bot", flat=True))
    last_up = _last_up(bot.pk for bot in bots if bot.status != Status.UP)
    memory = _memory(now)
    disks = dict(Checkup.objects.exclude(disk=None).values_list("bot", "disk"))
    facts: dict[tuple[UUID, str], Fact] = {}
    for bot in bots:
        home = homes.get(bot.pk)
        facts[bot.pk, Kind.UNKNOWN] = _unknown(bot, now)
        facts[bot.pk, Kind.CRASH_LOOP] = _crash_loop(bot, home, rests.get(bot.pk, ""), now)
        # The loop is the better word for what is down, as long as its owner hears of it.
        if not (home and home.crash_rests and (bot.pk in rests or bot.pk in loops)):
            facts[bot.pk, Kind.DOWN] = _down(bot, last_up.get(bot.pk), now)
        facts[bot.pk, Kind.MEMORY] = _memory_full(home, memory.get(bot.pk), now)
        facts[bot.pk, Kind.DISK] = _disk_full(bot, disks.get(bot.pk), now)
    return facts


def is_fresh(bot: Bot, now: datetime) -> bool:
    """Whether its row says how it is: it was seen lately, and is where it should be."""
    return bot.unknown_since is None and not bot.moving and bot.seen_at is not None and now - bot.seen_at < STALE


def _unknown(bot: Bot, now: datetime) -> Fact:
    if bot.unknown_since:
        words = "The machine that it lives on is out of our sight. It may well go on running."
        return Fact(True, bot.unknown_since, UNKNOWN_LASTS, words=words)
    return Fact(False if bot.seen_at and now - bot.seen_at < STALE else None, now)


def _crash_loop(bot: Bot, home: Placement | None, words: str, now: datetime) -> Fact:
    """`words`: why it rests. While it is tried again nobody can say; once up for long its rests are forgotten."""
    if home and home.crash_rests:
        return Fact(True if words and bot.unknown_since is None else None, now, words=words)
    return Fact(False if is_fresh(bot, now) else None, now)


def _down(bot: Bot, last_up: datetime | None, now: datetime) -> Fact:
    assert bot.wanted_since
    if not is_fresh(bot, now):
        return Fact(None, now)
    if bot.status == Status.UP:
        return Fact(False, now)
    # Not before it was last started: a restart takes its time.
    since = max(bot.changed_at, bot.started_at or bot.changed_at, bot.wanted_since)
    was_up = last_up is not None and last_up >= bot.wanted_since
    return Fact(True, since, DOWN_LASTS if was_up else START_LASTS, words=bot.reason)


def _last_up(bots: Iterable[UUID]) -> dict[UUID, datetime]:
    changes = StatusChange.objects.filter(bot__in=list(bots), new=Status.UP)
    return dict(changes.order_by().values_list("bot").annotate(Max("at")))


def _memory(now: datetime) -> dict[UUID, float]:
    """Bot → mean of some minutes, where enough of them were seen."""
    samples = StatsSample.objects.filter(step=SAMPLE_SECONDS, at__gt=now - MEMORY_MEAN)
    means = samples.order_by().values("bot").annotate(mean=Avg("memory"), samples=Count("pk"))
    return dict(means.filter(samples__gte=SAMPLES_NEEDED).values_list("bot", "mean"))


def _memory_full(home: Placement | None, mean: float | None, now: datetime) -> Fact:
    if home is None or mean is None:
        return Fact(None, now)
    limit = settings.PUB_MEMORY_GB * home.places * GB
    percent = 100 * mean / limit
    words = f"It used {size(mean)} of its {size(limit)} of memory in the mean of five minutes, {percent:.0f} %."
    return Fact(_between(percent, MEMORY_FREE, MEMORY_FULL), now, words=words)


def _disk_full(bot: Bot, taken: int | None, now: datetime) -> Fact:
    if taken is None:
        return Fact(None, now)
    limit = disk.quota(bot)
    percent = 100 * taken / limit
    words = f"It takes {size(taken)} of its {size(limit)} of disk, {percent:.0f} %."
    return Fact(_between(percent, DISK_FREE, disk.WARN), now, level=disk.level_of(percent), words=words)


def _between(percent: float, free: float, full: float) -> bool | None:
    """What is neither full nor free again stays what it was."""
    return True if percent >= full else False if percent < free else None
