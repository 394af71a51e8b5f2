"""What to do so that the swarm is as it should be. Pure: no Django, no Docker, no cloud; time comes in as an argument.

The capacity rule: a hub offers 15 places of 1 GB. Places are needed for all bots that are wanted, for those that are
only kept (their volume lives on a hub), and for a few spare ones so that the next customer does not wait for a machine.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID


@dataclass(frozen=True)
class Wanted:
    """A bot that should be running."""

    bot: UUID
    places: int = 1
    # The digest of the service that it should have; "" while it can't be known yet.
    digest: str = ""


@dataclass(frozen=True)
class Kept:
    """A bot that should not be running, but whose volume is kept on its hub.

    It keeps its places, so that it can come back at any time; one that was deleted for good needs none.
    """

    bot: UUID
    places: int = 1


@dataclass(frozen=True)
class HubSeen:
    id: int
    # requested, booting: on its way. ready: takes pubs. Any other: takes none.
    state: str
    places: int
    # The swarm shows its node ready. If not, nothing is known about what runs there.
    in_swarm: bool
    # The cloud lists its machine.
    has_machine: bool = True
    emptied_at: datetime | None = None


@dataclass(frozen=True)
class ServiceSeen:
    digest: str
    hub: int | None  # None: on a node that is none of our hubs


@dataclass(frozen=True)
class Actual:
    hubs: tuple[HubSeen, ...]
    placements: Mapping[UUID, int]  # bot → hub
    services: Mapping[UUID, ServiceSeen]  # bot → service


@dataclass(frozen=True)
class Limits:
    hub_places: int = 15
    spare_places: int = 0
    max_hubs: int = 1
    # An empty hub is kept that long, so that the next customer does not make us buy it again.
    cool_down: timedelta = timedelta(minutes=30)


@dataclass(frozen=True)
class Place:
    """Give the bot a place on the hub for good."""

    bot: UUID
    hub: int


@dataclass(frozen=True)
class EnsureUp:
    bot: UUID


@dataclass(frozen=True)
class EnsureDown:
    bot: UUID


@dataclass(frozen=True)
class Wait:
    """Nothing can be done for the bot now."""

    bot: UUID
    reason: str


@dataclass(frozen=True)
class BuyHub:
    """One more machine."""


@dataclass(frozen=True)
class EnsureHub:
    """The machine, or its mark in the swarm, is missing."""

    hub: int


@dataclass(frozen=True)
class DestroyHub:
    hub: int


@dataclass(frozen=True)
class Report:
    """Something that a person must look at; nothing is done about it."""

    bot: UUID
    reason: str


Action = Place | EnsureUp | EnsureDown | Wait | BuyHub | EnsureHub | DestroyHub | Report

ON_ITS_WAY = ("requested", "booting")
NO_ROOM = "There is no free place on our machines just now. Waiting for room."
ROOM_COMES = "A new machine is on its way. This takes a few minutes."
LOST_SIGHT = "The machine that it lives on does not answer. Waiting until it is back."


def plan(wanted: Iterable[Wanted], kept: Iterable[Kept], actual: Actual, limits: Limits, now: datetime) -> list[Action]:
    """The actions of one pass, at most one for each bot and hub. `wanted` is in the order of who came first."""
    wanted, kept = list(wanted), list(kept)
    room = _Room(wanted, kept, actual)
    places, waiting = _place(wanted, room)
    actions: list[Action] = [*places]
    actions += _services(wanted, kept, actual)
    actions += _orphans(wanted, kept, actual)
    actions += _hubs(waiting, room, actual, limits, now)
    reason = ROOM_COMES if room.coming(limits) or BuyHub() in actions else NO_ROOM
    return actions + [Wait(wish.bot, reason) for wish in waiting]


class _Room:
    """Free places by hub; taking one changes it."""

    def __init__(self, wanted: list[Wanted], kept: list[Kept], actual: Actual) -> None:
        self.actual = actual
        self.taken = {hub.id: 0 for hub in actual.hubs}
        self.lived_on = set(actual.placements.values())
        sizes = {wish.bot: wish.places for wish in wanted} | {bot.bot: bot.places for bot in kept}
        for bot, hub in actual.placements.items():
            self.taken[hub] = self.taken.get(hub, 0) + sizes.get(bot, 1)
        self.free = {
            hub.id: hub.places - self.taken[hub.id] for hub in actual.hubs if hub.state == "ready" and hub.in_swarm
        }

    def fullest_with(self, places: int) -> int | None:
        fitting = [(free, hub) for hub, free in self.free.items() if free >= places]
        return min(fitting)[1] if fitting else None

    def take(self, hub: int, places: int) -> None:
        self.free[hub] -= places
        self.taken[hub] += places
        self.lived_on.add(hub)

    def coming(self, limits: Limits) -> int:
        """Places on machines that are on their way."""
        return sum(limits.hub_places - self.taken[hub.id] for hub in self.actual.hubs if hub.state in ON_ITS_WAY)


def _place(wanted: list[Wanted], room: _Room) -> tuple[list[Place], list[Wanted]]:
    placed, waiting = [], []
    for wish in wanted:
        if wish.bot in room.actual.placements:
            continue
        hub = room.fullest_with(wish.places)
        if hub is None:
            waiting.append(wish)
        else:
            room.take(hub, wish.places)
            placed.append(Place(wish.bot, hub))
    return placed, waiting


def _services(wanted: list[Wanted], kept: list[Kept], actual: Actual) -> list[Action]:
    in_sight = {hub.id for hub in actual.hubs if hub.in_swarm}
    actions: list[Action] = []
    for wish in wanted:
        if (hub := actual.placements.get(wish.bot)) is None:
            continue
        service = actual.services.get(wish.bot)
        if hub not in in_sight:
            actions.append(Wait(wish.bot, LOST_SIGHT))
        elif service and service.hub != hub:
            actions.append(Report(wish.bot, "Its service is pinned to another machine than its volume."))
        elif service is None or service.digest != wish.digest:
            actions.append(EnsureUp(wish.bot))
    return actions + [EnsureDown(bot.bot) for bot in kept if bot.bot in actual.services]


def _orphans(wanted: list[Wanted], kept: list[Kept], actual: Actual) -> list[Report]:
    known = {wish.bot for wish in wanted} | {bot.bot for bot in kept}
    return [Report(bot, "A service runs for which there is no bot.") for bot in actual.services if bot not in known]


def _hubs(waiting: list[Wanted], room: _Room, actual: Actual, limits: Limits, now: datetime) -> list[Action]:
    actions: list[Action] = []
    for hub in actual.hubs:
        if hub.state == "destroying" and hub.id not in room.lived_on:
            actions.append(DestroyHub(hub.id))
        elif hub.state == "requested" or (hub.has_machine and not hub.in_swarm and hub.state in ("booting", "ready")):
            actions.append(EnsureHub(hub.id))
    needed = sum(wish.places for wish in waiting) + limits.spare_places
    free = sum(room.free.values())
    missing = needed - free - room.coming(limits)
    if missing > 0:
        living = sum(hub.state != "gone" for hub in actual.hubs)
        return actions + [BuyHub()] * min(math.ceil(missing / limits.hub_places), max(0, limits.max_hubs - living))
    return actions + _too_many(needed, free, room, actual, limits, now)


def _too_many(needed: int, free: int, room: _Room, actual: Actual, limits: Limits, now: datetime) -> list[DestroyHub]:
    """At most one empty hub a pass, and only if what is left still has the spare places."""
    for hub in sorted(actual.hubs, key=lambda hub: -hub.id):
        # The last one stays: without it the next customer waits for a machine.
        is_last = sum(other.state == "ready" for other in actual.hubs) == 1
        rested = hub.emptied_at is not None and now - hub.emptied_at >= limits.cool_down
        unused = hub.state == "ready" and hub.in_swarm and hub.id not in room.lived_on and rested
        if unused and not is_last and free - hub.places >= needed:
            return [DestroyHub(hub.id)]
    return []
