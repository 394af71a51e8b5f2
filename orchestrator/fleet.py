"""How the whole fleet is, in a number of queries that does not grow with it: for staff's page and for `/metrics`."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Count, Min, OuterRef, Q, Subquery, Sum
from django.utils import timezone

from mailer.models import TRIES_MAX, Hook, Message
from orchestrator import enrol, signs
from orchestrator.models import CARRYING, Broadcaster, Hub, Placement
from orchestrator.record import GB
from orchestrator.staff import condition, living
from pubs.models import Bot, Command, Event, Rung, StatsSample, Status, Trouble

# A pub is sampled each 10 seconds, and what was sampled is written soon after.
SAMPLED_WITHIN = timedelta(seconds=60)
# A broadcaster without a sign of life for so long is gone.
BROADCASTER_WITHIN = timedelta(seconds=60)
TROUBLES_SHOWN = 50


class Look(StrEnum):
    """How a pub is, in one word: the first that fits."""

    LOST = "lost"
    UNKNOWN = "out of sight"
    STOPPED = "stopped"
    RESTS = "rests after crashes"
    MOVING = "moving"
    UP = "up"
    DOWN = "down"
    STARTING = "waits to start"


@dataclass(frozen=True)
class Home:
    """A pub on a hub, with as many places as it holds there; or, while it arrives, as are kept for it."""

    bot: UUID
    name: str
    look: Look
    places: int
    arrives: bool = False

    @property
    def words(self) -> str:
        return f"{self.name}: {self.look}{', arrives here' if self.arrives else ''}, {self.places} GB"


@dataclass(frozen=True)
class Measured:
    """What the newest samples of a hub's pubs add up to."""

    pubs: int = 0
    memory: float = 0.0  # bytes
    cpu: float = 0.0  # cores


@dataclass(frozen=True)
class HubFacts:
    hub: Hub
    homes: tuple[Home, ...]
    kept: int  # volumes of deleted pubs
    measured: Measured
    disk: int  # bytes, as far as the pubs have told
    certificate_ends: datetime | None

    @property
    def condition(self) -> str:
        return condition(self.hub)

    @property
    def in_sight(self) -> bool:
        return self.hub.lost_at is None

    @property
    def taken(self) -> int:
        return sum(home.places for home in self.homes)

    @property
    def up(self) -> int:
        return sum(home.look == Look.UP and not home.arrives for home in self.homes)

    @property
    def free(self) -> int:
        """Places that the plan can give away now."""
        return max(0, self.hub.places - self.taken) if self.hub.state == Hub.State.READY and self.in_sight else 0

    @property
    def free_places(self) -> range:
        """One for each that nobody holds, whether it can be given away or not."""
        return range(self.hub.places - self.taken)

    @property
    def size(self) -> int:
        """Bytes of memory that there are for pubs."""
        return self.hub.places * settings.PUB_MEMORY_GB * GB

    @property
    def promised(self) -> int:
        return self.taken * settings.PUB_MEMORY_GB * GB

    @property
    def is_watched(self) -> bool:
        until = self.hub.watched_until
        return self.hub.watched_by_id is not None and until is not None and until > timezone.now()


@dataclass(frozen=True)
class Watcher:
    """A broadcaster that lives, and the hubs that it watches."""

    broadcaster: Broadcaster
    hubs: tuple[Hub, ...]


@dataclass(frozen=True)
class Waiting:
    """What is not done yet, since when the oldest of it waits, and what was given up."""

    count: int
    oldest: datetime | None
    given_up: int = 0


@dataclass(frozen=True)
class Fleet:
    at: datetime
    hubs: list[HubFacts]
    looks: Mapping[Look, int]
    rungs: Mapping[Rung, int]
    without_place: int
    unreached: int
    crashes: int
    troubles: Mapping[str, int]
    newest_troubles: list[Trouble]
    watchers: list[Watcher]
    mails: Waiting
    hooks: Waiting
    commands: Waiting
    queues: Mapping[str, float | None]
    last_pass: signs.LastPass | None
    failed_pass: signs.FailedPass | None

    @property
    def pubs(self) -> int:
        return sum(self.looks.values())

    @property
    def hub_states(self) -> dict[Hub.State, int]:
        return _counted([state for state in Hub.State if state != Hub.State.GONE], (it.hub.state for it in self.hubs))

    @property
    def carrying(self) -> list[HubFacts]:
        return [each for each in self.hubs if each.hub.state in CARRYING]

    @property
    def free(self) -> int:
        return sum(each.free for each in self.hubs)

    @property
    def places(self) -> int:
        return sum(each.hub.places for each in self.carrying)

    @property
    def promised(self) -> int:
        return sum(each.promised for each in self.carrying)

    @property
    def used(self) -> float:
        return sum(each.measured.memory for each in self.carrying)

    @property
    def size(self) -> int:
        return sum(each.size for each in self.carrying)

    @property
    def streams(self) -> int:
        return sum(each.broadcaster.streams for each in self.watchers)


def look(now: datetime | None = None) -> Fleet:
    now = now or timezone.now()
    pubs = list(
        Bot.objects.alive()
        .order_by("name", "pk")
        .values(
            *("pk", "name", "paid", "switched_on", "status", "rung", "unknown_since", "lost_at", "moving"),
            *("rests_until", "placement__hub", "placement__places", "placement__moving_to", "placement__lost_at"),
            *("checkup__unreached", "checkup__disk"),
        )
    )
    looks = {pub["pk"]: _look_of(pub, now) for pub in pubs}
    troubles = Trouble.objects.filter(ended=None)
    last_pass, failed_pass = signs.last_pass()
    hubs = _hubs(pubs, looks, now)
    return Fleet(
        at=now,
        hubs=hubs,
        looks=_counted(Look, looks.values()),
        rungs=_counted(Rung, (pub["rung"] for pub in pubs)),
        without_place=sum(pub["paid"] and pub["switched_on"] and not pub["placement__hub"] for pub in pubs),
        unreached=sum(looks[pub["pk"]] == Look.UP and bool(pub["checkup__unreached"]) for pub in pubs),
        crashes=Event.objects.filter(kind=Event.Kind.CRASHED, at__gt=now - timedelta(hours=1)).count(),
        troubles=dict.fromkeys(Trouble.Kind.values, 0) | _by("kind", troubles),
        newest_troubles=list(troubles.select_related("bot").order_by("-began")[:TROUBLES_SHOWN]),
        watchers=_watchers(hubs, now),
        mails=_outbox(Message),
        hooks=_outbox(Hook),
        commands=_waiting(Command.objects.filter(state__in=[Command.State.QUEUED, Command.State.RUNNING])),
        queues=signs.queue_ages(),
        last_pass=last_pass,
        failed_pass=failed_pass,
    )


def _look_of(pub: dict[str, Any], now: datetime) -> Look:
    if pub["lost_at"]:
        return Look.LOST
    if pub["unknown_since"]:
        return Look.UNKNOWN
    if not (pub["paid"] and pub["switched_on"]):
        return Look.STOPPED
    if pub["rests_until"] and pub["rests_until"] > now:
        return Look.RESTS
    if pub["moving"]:
        return Look.MOVING
    return {Status.UP: Look.UP, Status.DOWN: Look.DOWN}.get(pub["status"], Look.STARTING)


def _hubs(pubs: list[dict[str, Any]], looks: Mapping[UUID, Look], now: datetime) -> list[HubFacts]:
    homes: defaultdict[int, list[Home]] = defaultdict(list)
    disk: Counter[int] = Counter()
    for pub in pubs:
        home = Home(pub["pk"], pub["name"], looks[pub["pk"]], pub["placement__places"] or 0)
        if (hub := pub["placement__hub"]) and not pub["placement__lost_at"]:
            homes[hub].append(home)
            disk[hub] += pub["checkup__disk"] or 0
        if hub := pub["placement__moving_to"]:
            homes[hub].append(Home(home.bot, home.name, home.look, home.places, arrives=True))
    kept = _by("hub", Placement.objects.exclude(bot__deleted_at=None))
    measured = _measured(now)
    return [
        HubFacts(
            hub=hub,
            homes=tuple(homes[hub.pk]),
            kept=kept.get(hub.pk, 0),
            measured=measured.get(hub.pk, Measured()),
            disk=disk[hub.pk],
            certificate_ends=enrol.expires(hub),
        )
        for hub in living().select_related("enrolment").order_by("pk")
    ]


def _measured(now: datetime) -> dict[int, Measured]:
    """Hub → what the newest sample of each of its pubs adds up to. The database adds: there are six samples a pub."""
    fresh = StatsSample.objects.filter(step=10, at__gt=now - SAMPLED_WITHIN)
    newest = fresh.filter(bot=OuterRef("bot")).order_by("-at").values("at")[:1]
    placed = Q(bot__deleted_at=None, bot__placement__hub__isnull=False, bot__placement__lost_at=None)
    by_hub = fresh.filter(placed, at=Subquery(newest)).order_by().values_list("bot__placement__hub")
    sums = by_hub.annotate(Count("pk"), Sum("memory"), Sum("cpu"))
    # A sample's is percent of one core.
    return {hub: Measured(pubs, memory, cpu / 100) for hub, pubs, memory, cpu in sums}


def _watchers(hubs: Iterable[HubFacts], now: datetime) -> list[Watcher]:
    watched: defaultdict[UUID | None, list[Hub]] = defaultdict(list)
    for each in hubs:
        if each.is_watched:
            watched[each.hub.watched_by_id].append(each.hub)
    alive = Broadcaster.objects.filter(seen_at__gt=now - BROADCASTER_WITHIN).order_by("started_at")
    return [Watcher(broadcaster, tuple(watched[broadcaster.pk])) for broadcaster in alive]


def _outbox(rows: type[Message] | type[Hook]) -> Waiting:
    unsent = rows.objects.filter(sent_at=None)
    waiting = _waiting(unsent.filter(tries__lt=TRIES_MAX))
    return Waiting(waiting.count, waiting.oldest, unsent.filter(tries__gte=TRIES_MAX).count())


def _waiting(rows: Any) -> Waiting:
    return Waiting(**rows.aggregate(count=Count("pk"), oldest=Min("created")))


def _by(column: str, rows: Any) -> dict[Any, int]:
    return dict(rows.order_by().values_list(column).annotate(Count("pk")))


def _counted[Word: str](words: Iterable[Word], found: Iterable[Any]) -> dict[Word, int]:
    """Each word, those too that fit nothing."""
    counts = Counter(found)
    return {word: counts[word] for word in words}
