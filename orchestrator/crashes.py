"""Crashes: told from endings that somebody asked for, written down once, and what follows when they do not stop.

A pub that crashes CRASHES_MAX times within CRASH_MINUTES rests: its service goes, its place and its volume stay. After
the rest it is tried again, and at once when its owner restarts it or stops and starts it. The next rest is longer.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from django.conf import settings
from django.db import transaction

from orchestrator.models import Placement
from orchestrator.swarm import Ended
from pubs import live
from pubs.models import Bot, Event, Status

if TYPE_CHECKING:
    from orchestrator.world import World

# How a pub ends that was asked to, or that its engine took along when it was stopped.
ASKED_TO_END = (0, 143)
# What is stopped has ended so long after the order; and clocks of two machines differ so much.
STOPS_WITHIN = timedelta(seconds=90)
CLOCKS_DIFFER = timedelta(seconds=5)

OUT_OF_MEMORY = (
    "It needed more memory than it has, and was ended for that. If that happens again, choose a larger size, or let "
    "fewer people join."
)
UNHEALTHY = "It no longer answered its health check, so it was restarted."
# So Docker calls what it finds dead when it starts: its machine lost its power.
POWER_LOST = 255
# By exit code.
WORDS = {
    75: "Its volume was still in use by its last run.",
    78: "Its volume does not hold its identity. It was not started, so nothing is lost; we look at it.",
    137: "It was ended from outside.",
    POWER_LOST: "Its machine stopped while it ran.",
}
OTHERWISE = "Its software failed, and ended itself (exit code {})."

REST = timedelta(minutes=10)
REST_MAX = timedelta(hours=6)
# After so long up it is well again.
CALM = timedelta(hours=1)
LOOPS = "It crashed {} times within {} minutes, so it was stopped."
LOOPED = "It crashed too often, so it was stopped."
UNTIL = "It is tried again at {:%-d %B %Y, %H:%M} UTC, or when you restart it."
RESTED = "Its rest is over."
RESTARTED = "You restarted it before its rest was over."


# --- one crash -------------------------------------------------------------------------------------------------------
def note(ended: Iterable[Ended]) -> None:
    """Write down those that are crashes, each once, however often they are told of."""
    new = {_key(each): each for each in ended if _may_be_a_crash(each)}
    if new:
        for key in Event.objects.filter(key__in=new).values_list("key", flat=True):
            del new[str(key)]
    if not new:
        return
    orders = _orders({each.bot_id for each in new.values()})
    crashes = {key: each for key, each in new.items() if each.bot_id in orders and not _is_wished(each, orders)}
    with transaction.atomic():
        # A conflict: another broadcaster was faster.
        Event.objects.bulk_create([_event(key, each) for key, each in crashes.items()], ignore_conflicts=True)
        live.changed(*{each.bot_id for each in crashes.values()})
    if crashes:
        live.nudge()


def _key(ended: Ended) -> str:
    return f"ended:{ended.container}"


def _may_be_a_crash(ended: Ended) -> bool:
    return ended.exit_code not in ASKED_TO_END or ended.unhealthy or ended.out_of_memory


def _orders(bots: set[UUID]) -> dict[UUID, list[datetime]]:
    """Those of the bots that should be running, and when something was ordered that ends what runs."""
    running = Bot.objects.wanted().filter(
        pk__in=bots, placement__moving_to=None, placement__lost_at=None, placement__crash_rest_until=None
    )
    orders = {pk: [at] if at else [] for pk, at in running.values_list("pk", "started_at")}
    restarts = Event.objects.filter(bot__in=orders, kind=Event.Kind.RESTARTED)
    for pk, at in restarts.values_list("bot", "at"):
        orders[pk].append(at)
    return orders


def _is_wished(ended: Ended, orders: Mapping[UUID, list[datetime]]) -> bool:
    """It ended when a restart was ordered, and had been started before that."""
    return any(
        ended.began < order and order - CLOCKS_DIFFER <= ended.at <= order + STOPS_WITHIN
        for order in orders[ended.bot_id]
    )


def _event(key: str, ended: Ended) -> Event:
    details = {
        "exit_code": ended.exit_code,
        "out_of_memory": ended.out_of_memory,
        "unhealthy": ended.unhealthy,
    }
    return Event(
        bot_id=ended.bot_id, kind=Event.Kind.CRASHED, words=_words(ended), details=details, key=key, at=ended.at
    )


def _words(ended: Ended) -> str:
    if ended.out_of_memory:
        return OUT_OF_MEMORY
    if ended.unhealthy:
        return UNHEALTHY
    return WORDS.get(ended.exit_code) or OTHERWISE.format(ended.exit_code)


def causes(bots: Iterable[UUID], now: datetime) -> dict[UUID, str]:
    """What their own engines say of their newest crash: Swarm's manager sees little of it."""
    recent = Event.objects.filter(bot__in=bots, kind=Event.Kind.CRASHED, at__gt=now - _window())
    return dict(recent.order_by("at").values_list("bot", "words"))


# --- one after the other ---------------------------------------------------------------------------------------------
def is_resting(bot: Bot, home: Placement) -> bool:
    """Plan and jobs ask here, so that they agree. A rest ends by the next pass, or by its owner at once."""
    return home.crash_rest_until is not None and bot.restarts == home.crash_restarts


def words_of_rests(homes: Iterable[Placement]) -> dict[UUID, str]:
    """Bot → why it rests, and until when; of those that do."""
    rests = {home.bot_id: home.crash_rest_until for home in homes if home.crash_rest_until}
    if not rests:
        return {}
    keys = {bot_id: _rest_key(bot_id, until) for bot_id, until in rests.items()}
    words = dict(Event.objects.filter(key__in=keys.values()).values_list("key", "words"))
    # Staff may have deleted the event; the rest goes on.
    return {bot_id: words.get(keys[bot_id]) or f"{LOOPED} {UNTIL.format(until)}" for bot_id, until in rests.items()}


def loop_words(bot: Bot) -> str:
    """Why it rests, and until when; "" if it does not."""
    return words_of_rests(Placement.objects.filter(bot=bot)).get(bot.pk, "")


def _rest_key(bot_id: UUID, until: datetime) -> str:
    return f"rests:{bot_id}:{until.isoformat()}"


def _window() -> timedelta:
    return timedelta(minutes=settings.CRASH_MINUTES)


def judge(world: "World") -> None:
    """Begin and end rests, in the rows and in what the pass has read."""
    now = world.sight.at
    bots = {bot.pk: bot for bot in world.bots}
    homes = [home for home in world.placements.values() if home.bot_id in bots]
    over = [home for home in homes if home.crash_rest_until and _is_over(home, bots[home.bot_id], now)]
    calm = [home for home in homes if home.crash_rests and _is_calm(home, bots[home.bot_id], now)]
    events = [_end(home, bots[home.bot_id], now) for home in over]
    for home in calm:
        home.crash_rests, home.crash_rested_at = 0, None
    begun = []
    for bot_id, crashes in _loops(world, bots).items():
        home = world.placements[bot_id]
        events.append(_begin(home, bots[bot_id], crashes, now))
        begun.append(home)
    if changed := [*over, *calm, *begun]:
        _write(changed, [event for event in events if event])
        world.rests = words_of_rests(homes)


def _is_over(home: Placement, bot: Bot, now: datetime) -> bool:
    until = home.crash_rest_until
    return until is not None and (now >= until or not bot.is_wanted or not is_resting(bot, home))


def _is_calm(home: Placement, bot: Bot, now: datetime) -> bool:
    return home.crash_rest_until is None and bot.status == Status.UP and now - bot.changed_at >= CALM


def _end(home: Placement, bot: Bot, now: datetime) -> Event | None:
    """One that is not wanted any more is not tried again, and so there is nothing to tell."""
    until = home.crash_rest_until
    home.crash_rest_until, home.crash_rested_at = None, now
    if not bot.is_wanted or until is None:
        return None
    words = RESTED if bot.restarts == home.crash_restarts else RESTARTED
    return Event(bot=bot, kind=Event.Kind.RESUMED, words=words, key=f"resumed:{bot.pk}:{until.isoformat()}", at=now)


def _begin(home: Placement, bot: Bot, crashes: list[str], now: datetime) -> Event:
    until = now + min(REST_MAX, REST * 2 ** min(home.crash_rests, 10))
    home.crash_rest_until, home.crash_restarts = until, bot.restarts
    home.crash_rests += 1
    words = f"{LOOPS.format(len(crashes), settings.CRASH_MINUTES)} {UNTIL.format(until)} {crashes[-1]}"
    details = {"crashes": len(crashes), "rests": home.crash_rests, "until": until.isoformat()}
    return Event(
        bot=bot, kind=Event.Kind.RESTS, words=words[:500], details=details, key=_rest_key(bot.pk, until), at=now
    )


def _loops(world: "World", bots: Mapping[UUID, Bot]) -> dict[UUID, list[str]]:
    """Bot that crashed too often → what was said of each crash."""
    recent = Event.objects.filter(kind=Event.Kind.CRASHED, at__gt=world.sight.at - _window()).order_by("at")
    crashes: defaultdict[UUID, list[str]] = defaultdict(list)
    for bot_id, at, words, details in recent.values_list("bot", "at", "words", "details"):
        home = world.placements.get(bot_id)
        # A machine that loses its power again and again is no fault of the pubs on it.
        if details.get("exit_code") == POWER_LOST or home is None or bot_id not in bots:
            continue
        if home.crash_rested_at is None or at > home.crash_rested_at:
            crashes[bot_id].append(words)
    return {
        bot_id: said
        for bot_id, said in crashes.items()
        if len(said) >= settings.CRASHES_MAX and _can_rest(bots[bot_id], world)
    }


def _can_rest(bot: Bot, world: "World") -> bool:
    """Nothing is decided about what is moved, lost, or out of sight."""
    home = world.placements[bot.pk]
    is_elsewhere = home.moving_to_id is not None or home.lost_at is not None or world.is_dark(home)
    return bot.is_wanted and home.crash_rest_until is None and not is_elsewhere


def _write(homes: list[Placement], events: list[Event]) -> None:
    columns = ["crash_rest_until", "crash_rests", "crash_restarts", "crash_rested_at"]
    with transaction.atomic():
        Placement.objects.bulk_update(homes, columns)
        # A conflict: another pass wrote the same.
        Event.objects.bulk_create(events, ignore_conflicts=True)
        # Until it runs again the old reason would stand there.
        ended = {event.bot for event in events if event.kind == Event.Kind.RESUMED}
        Bot.objects.filter(pk__in=[bot.pk for bot in ended]).update(reason="")
        for bot in ended:
            bot.reason = ""
        live.changed(*(home.bot_id for home in homes))
