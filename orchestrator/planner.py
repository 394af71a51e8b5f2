"""What to do so that the swarm is as it should be. Pure: no Django, no Docker, no cloud; time comes in as an argument.

The capacity rule: a hub offers 15 places of 1 GB. Places are needed for all bots that are wanted, for those that are
only kept (their volume lives on a hub), for those that must leave a hub, and for a few spare ones so that the next
customer does not wait for a machine. Machines on their way count as room. The fullest hub that fits is filled first.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heappop, heappush
from uuid import UUID


# --- the wish --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Wanted:
    """A bot that should be running."""

    bot: UUID
    places: int = 1  # of 1 GB, as paid for
    # The digest of the service that it should have; "" while it can't be known yet.
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """A bot that should not be running, but whose volume is kept on its hub.

    It keeps its places, so that it can come back at any time; one that was deleted for good needs none.
    """

    bot: UUID
    places: int = 1


# --- the actual ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class HubSeen:
    id: int
    state: str  # as in orchestrator.models.Hub.State
    places: int
    # The swarm shows its node ready and its engine answered lately. If not, nothing is known about what runs there.
    in_sight: bool
    has_machine: bool = True  # the cloud lists it
    fault: str = ""  # the cloud's words when its machine failed
    deadline: datetime | None = None  # when its state has taken too long
    emptied_at: datetime | None = None
    lost_at: datetime | None = None  # since when it is out of sight
    fenced: bool = False  # its machine is known to be off for good
    has_twin: bool = False  # the cloud lists two machines for it
    is_back: bool = False  # it is fenced because the cloud had no machine for it, and now the cloud lists it


@dataclass(frozen=True, slots=True)
class PlacementSeen:
    hub: int
    places: int = 1  # what it holds now, which alone counts for capacity
    moving_to: int | None = None  # where it holds as many
    lost: bool = False  # its volume went with a fenced hub: it holds nothing
    refusals: int = 0  # of its move, in a row
    stays: bool = False  # its move was given up a while ago
    rests: str = ""  # why it is not to run for a while, though it is wanted: it crashed too often


@dataclass(frozen=True, slots=True)
class ServiceSeen:
    digest: str
    hub: int | None  # None: on a node that is none of our hubs


@dataclass(frozen=True)
class Actual:
    hubs: tuple[HubSeen, ...]
    placements: Mapping[UUID, PlacementSeen]  # by bot
    services: Mapping[UUID, ServiceSeen]  # by bot
    strangers: tuple[UUID, ...] = ()  # tokens of machines with our mark, but no row
    no_buy_until: datetime | None = None  # the cloud failed us: it is left alone for a while


@dataclass(frozen=True)
class Limits:
    hub_places: int = 15
    spare_places: int = 0
    max_hubs: int = 1
    # An empty hub is kept that long, so that the next customer does not make us buy it again.
    cool_down: timedelta = timedelta(minutes=30)
    # A hub without a machine is given up for good that long after it was lost from sight.
    fence_after: timedelta = timedelta(minutes=2)
    # A drained one that long, with the volumes as they were, in case a pub does not start where it is now.
    drained_rest: timedelta = timedelta(minutes=10)
    moves_at_once: int = 2  # in the whole fleet
    # A pub is down while its move is tried, so that after so many refusals it goes on where it is.
    move_tries: int = 5


# --- actions ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Place:
    """Give the bot a place on the hub."""

    bot: UUID
    hub: int
    places: int


@dataclass(frozen=True, slots=True)
class Resize:
    """Let the bot hold that many places where it is."""

    bot: UUID
    places: int


@dataclass(frozen=True, slots=True)
class EnsureUp:
    bot: UUID


@dataclass(frozen=True, slots=True)
class EnsureDown:
    bot: UUID


@dataclass(frozen=True, slots=True)
class StartMove:
    bot: UUID
    hub: int


@dataclass(frozen=True, slots=True)
class EnsureMoved:
    bot: UUID


@dataclass(frozen=True, slots=True)
class CancelMove:
    """The bot stays where its volume is."""

    bot: UUID
    given_up: bool = False  # it was tried often enough: not again for a while


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done for the bot now."""

    bot: UUID
    reason: str


@dataclass(frozen=True, slots=True)
class BuyHub:
    """One more machine."""


@dataclass(frozen=True, slots=True)
class EnsureHub:
    """Bring the hub a step nearer to ready. For one that was ready before, its driver looks whether it can help: the
    machine that we run on is marked again in a swarm that was made anew.
    """

    hub: int


@dataclass(frozen=True, slots=True)
class GiveUpHub:
    """It failed, or it took too long."""

    hub: int
    reason: str


@dataclass(frozen=True, slots=True)
class DestroyHub:
    hub: int


@dataclass(frozen=True, slots=True)
class FenceHub:
    """Its machine is off for good, and what was on it is lost."""

    hub: int


@dataclass(frozen=True, slots=True)
class UnfenceHub:
    """Its machine is not gone after all, nor is what is on it."""

    hub: int


@dataclass(frozen=True, slots=True)
class Adopt:
    """Write a row for a machine that bears our mark and that nobody knows, so that it is paid for no longer."""

    stranger: UUID


@dataclass(frozen=True, slots=True)
class Report:
    """Something that a person must look at, about a bot, a hub or the whole; nothing is done about it."""

    about: UUID | int | None
    reason: str


type BotAction = Place | Resize | EnsureUp | EnsureDown | StartMove | EnsureMoved | CancelMove | Wait | Report
type HubAction = BuyHub | EnsureHub | GiveUpHub | DestroyHub | FenceHub | UnfenceHub | Adopt | Report
type Action = BotAction | HubAction

ON_ITS_WAY = ("requested", "booting")
CARRYING = ("ready", "draining")
NO_ROOM = "There is no free place on our machines just now. Waiting for room."
NO_ROOM_TO_GROW = "It has paid for more memory than its machine has left. It runs on as it is until there is room."
TOO_BIG = "It needs more memory than any of our machines has. Our staff must give us bigger ones."
ROOM_COMES = "A new machine is on its way. This takes a few minutes."
LOST_SIGHT = "The machine that it lives on does not answer. Waiting until it is back."
LOST_WITH_HUB = "The machine that it lived on is lost. Waiting until it is restored from a backup."
AT_MAXIMUM = "More machines are needed than MAX_HUBS allows."
TOO_LATE = "It took too long."
STILL_LIVED_ON = "It is to be destroyed, but bots live on it."
NOT_LISTED = "It answers, but the cloud does not list its machine."
TWIN = "It answers, and the cloud has a second machine for it, which is paid for: destroy that one in its console."
NONE_LISTED = "It does not answer, and the cloud lists no machine at all: is it asked about the right project?"


def plan(wanted: Iterable[Wanted], kept: Iterable[Kept], actual: Actual, limits: Limits, now: datetime) -> list[Action]:
    """The actions of one pass, at most one for each bot and hub. `wanted` is in the order of who came first."""
    return _Pass(actual, limits, now).plan(list(wanted), list(kept))


class _Room:
    """Free places by hub; taking some is quick however many hubs there are."""

    def __init__(self, free: Mapping[int, int]) -> None:
        self.free: dict[int, int] = {}
        # Free places → hubs that have, or had, that many: what is out of date is dropped when it is met.
        self._hubs: defaultdict[int, list[int]] = defaultdict(list)
        for hub, places in free.items():
            self.set(hub, places)

    def set(self, hub: int, free: int) -> None:
        self.free[hub] = free
        heappush(self._hubs[free], hub)

    def fullest_with(self, places: int) -> int | None:
        for free in sorted(free for free in self._hubs if free >= places):
            hubs = self._hubs[free]
            while hubs and self.free.get(hubs[0]) != free:
                heappop(hubs)
            if hubs:
                return hubs[0]
            del self._hubs[free]
        return None

    def take(self, hub: int, places: int) -> None:
        self.set(hub, self.free[hub] - places)

    def take_fullest(self, places: int) -> int | None:
        hub = self.fullest_with(places)
        if hub is not None:
            self.take(hub, places)
        return hub

    def total(self) -> int:
        return sum(self.free.values())


class _Pass:
    """What one pass knows, and what it has given away so far."""

    def __init__(self, actual: Actual, limits: Limits, now: datetime) -> None:
        self.actual, self.limits, self.now = actual, limits, now
        self.hubs = {hub.id: hub for hub in actual.hubs}
        self.held = _held(actual)  # hub → places; a hub with a 0 in it is lived on too
        # One from a hub out of sight waits, maybe for days, and keeps no other waiting.
        moves = (home for home in actual.placements.values() if home.moving_to is not None)
        self.moves = sum(self._in_sight(home.hub) for home in moves)
        self.room = _Room({hub.id: hub.places - self.held[hub.id] for hub in actual.hubs if _takes_bots(hub)})
        self.serving = {service.hub for service in actual.services.values()}
        # Who found no room, and how much. None: it must leave its hub, and runs on there meanwhile.
        self.homeless: list[tuple[UUID | None, int]] = []
        self.lacks = False  # machines are missing
        self.starts = False  # a bot is not started yet where it is

    def plan(self, wanted: list[Wanted], kept: list[Kept]) -> list[Action]:
        placements = self.actual.placements
        # Those who have nothing yet come first.
        steps = [self._place(wish) for wish in wanted if wish.bot not in placements]
        steps += [self._keep_up(wish, placements[wish.bot]) for wish in wanted if wish.bot in placements]
        steps += [self._keep_down(bot) for bot in kept]
        steps += self._orphans(wanted, kept)
        actions: list[Action] = [step for step in steps if step]
        actions += self._buy()
        surplus, vanished = self._surplus(), self._vanished()
        actions += [step for hub in self.actual.hubs if (step := self._live(hub, surplus, vanished))]
        return actions + [Adopt(token) for token in self.actual.strangers]

    # --- bots ---
    def _place(self, wish: Wanted) -> BotAction | None:
        if wish.bot in self.actual.services:
            return Report(wish.bot, "It has a service, but no place is written down for it.")
        hub = self._take(wish.places)
        if hub is None:
            self.homeless.append((wish.bot, wish.places))
            return None
        return Place(wish.bot, hub, wish.places)

    def _keep_up(self, wish: Wanted, home: PlacementSeen) -> BotAction | None:
        bot, service = wish.bot, self.actual.services.get(wish.bot)
        if home.moving_to is not None:
            return self._move_on(bot, home) or Wait(bot, LOST_SIGHT)
        if home.lost:
            return EnsureDown(bot) if service else Wait(bot, LOST_WITH_HUB)
        if not self._in_sight(home.hub):
            return Wait(bot, LOST_SIGHT)
        if service and service.hub != home.hub:
            return Report(bot, "Its service is pinned to another machine than its volume.")
        if home.rests and service:
            return EnsureDown(bot)
        if step := self._resize(bot, home, wish.places) or self._leave(bot, home):
            return step
        if home.rests:
            return Wait(bot, home.rests)
        if service is None or service.digest != wish.digest:
            self.starts |= service is None
            return EnsureUp(bot)
        return Wait(bot, NO_ROOM_TO_GROW) if wish.places > home.places else None

    def _keep_down(self, bot: Kept) -> BotAction | None:
        home = self.actual.placements.get(bot.bot)
        if home and home.moving_to is not None:
            return self._move_on(bot.bot, home)
        if bot.bot in self.actual.services:
            return EnsureDown(bot.bot)
        # What can't be seen may still run, so that it goes on holding its places.
        if home is None or home.lost or not self._in_sight(home.hub):
            return None
        return self._resize(bot.bot, home, bot.places) or self._leave(bot.bot, home)

    def _resize(self, bot: UUID, home: PlacementSeen, places: int) -> Resize | None:
        more = places - home.places
        if more > 0:
            if self.room.free.get(home.hub, 0) < more:
                return None
            self.room.take(home.hub, more)
        return Resize(bot, places) if more else None

    def _move_on(self, bot: UUID, home: PlacementSeen) -> EnsureMoved | CancelMove | None:
        source = self.hubs.get(home.hub)
        if home.lost or source is None or source.state != "draining" or home.moving_to not in self.room.free:
            return CancelMove(bot)
        if home.refusals >= self.limits.move_tries:
            return CancelMove(bot, given_up=True)
        return EnsureMoved(bot) if source.in_sight else None

    def _leave(self, bot: UUID, home: PlacementSeen) -> StartMove | None:
        """From a draining hub, a few at once. The others' room is taken too, so that they find it later."""
        if self.hubs[home.hub].state != "draining" or home.stays:
            return None
        target = self._take(home.places)
        if target is None:
            self.homeless.append((None, home.places))
            return None
        if self.moves >= self.limits.moves_at_once:
            return None
        self.moves += 1
        return StartMove(bot, target)

    def _orphans(self, wanted: list[Wanted], kept: list[Kept]) -> list[Report]:
        orphans = self.actual.services.keys() - {wish.bot for wish in wanted} - {bot.bot for bot in kept}
        return [Report(bot, "A service runs for which there is no bot.") for bot in sorted(orphans)]

    def _take(self, places: int) -> int | None:
        hub = self.room.take_fullest(places)
        if hub is not None:
            self.held[hub] += places
        return hub

    def _in_sight(self, hub: int) -> bool:
        return hub in self.hubs and self.hubs[hub].in_sight

    # --- hubs ---
    def _buy(self) -> list[Action]:
        """As many machines as are missing, and what those are told who found no room."""
        size, biggest = self.limits.hub_places, self._biggest()
        coming = _Room({hub.id: size for hub in self.actual.hubs if hub.state in ON_ITS_WAY})
        left = max(0, self.limits.max_hubs - sum(hub.state != "gone" for hub in self.actual.hubs))
        may_buy = left if self.actual.no_buy_until is None or self.now >= self.actual.no_buy_until else 0
        missing = 0
        waits: list[Action] = []
        for bot, places in self.homeless:
            hub = coming.take_fullest(places)
            if hub is None and places <= biggest:
                missing += 1
                hub = -missing
                coming.set(hub, size - places)
            if bot:
                reason = TOO_BIG if hub is None else NO_ROOM if hub < -may_buy else ROOM_COMES
                waits.append(Wait(bot, reason))
        spare = self.limits.spare_places - self.room.total() - coming.total()
        missing += math.ceil(max(0, spare) / size) if size else 0
        self.lacks = missing > 0
        reports = [Report(None, AT_MAXIMUM)] if missing > left else []
        return [*[BuyHub()] * min(missing, may_buy), *waits, *reports]

    def _biggest(self) -> int:
        """Places that a machine really has. One may have less than is bought; then another like it is no help."""
        known = [hub.places for hub in self.actual.hubs if hub.state == "ready"]
        return min(self.limits.hub_places, max(known, default=self.limits.hub_places))

    def _surplus(self) -> int | None:
        """At most one empty hub a pass, and only if what is left still has the spare places.

        The last one stays: without it the next customer waits for a machine.
        """
        if self.lacks or len(self.room.free) == 1:
            return None
        spare = self.room.total() - self.limits.spare_places
        idle = (hub.id for hub in self.actual.hubs if hub.places <= spare and self._is_idle(hub))
        return max(idle, default=None)

    def _vanished(self) -> int | None:
        """At most one hub a pass whose machine is gone. While the cloud is in doubt about that one, no other is."""
        gone = (hub.id for hub in self.actual.hubs if hub.state in CARRYING and not hub.fenced and self._is_dead(hub))
        return min(gone, default=None)

    def _lists_any(self) -> bool:
        """A cloud that lists nothing is more likely the wrong one than an empty one."""
        return bool(self.actual.strangers) or any(hub.has_machine for hub in self.actual.hubs)

    def _is_dead(self, hub: HubSeen) -> bool:
        return not hub.has_machine and not hub.in_sight and self._is_past(hub.lost_at, self.limits.fence_after)

    def _is_idle(self, hub: HubSeen) -> bool:
        is_rested = self._is_past(hub.emptied_at, self.limits.cool_down)
        return is_rested and hub.id in self.room.free and self._is_empty(hub)

    def _is_drained(self, hub: HubSeen) -> bool:
        """What is not started yet may have come from here, where the volume is that is known to be good."""
        is_rested = self._is_past(hub.emptied_at, self.limits.drained_rest)
        return is_rested and self._is_empty(hub) and not self.starts

    def _is_past(self, moment: datetime | None, by: timedelta = timedelta()) -> bool:
        return moment is not None and self.now - moment >= by

    def _is_empty(self, hub: HubSeen) -> bool:
        return hub.id not in self.held and hub.id not in self.serving

    def _live(self, hub: HubSeen, surplus: int | None, vanished: int | None) -> HubAction | None:
        """The next step of the hub's life."""
        if hub.is_back:
            return UnfenceHub(hub.id)
        if hub.fenced and hub.state != "gone":
            return FenceHub(hub.id) if hub.id in self.held else DestroyHub(hub.id)
        match hub.state:
            case "requested" | "booting":
                is_late = self._is_past(hub.deadline)
                return GiveUpHub(hub.id, hub.fault or TOO_LATE) if hub.fault or is_late else EnsureHub(hub.id)
            case "ready" | "draining":
                return self._look_after(hub, surplus, vanished)
            case "failed" if hub.deadline and not self._is_past(hub.deadline):
                return None
            case "failed" | "destroying":
                return DestroyHub(hub.id) if self._is_empty(hub) else Report(hub.id, STILL_LIVED_ON)
        return None

    def _look_after(self, hub: HubSeen, surplus: int | None, vanished: int | None) -> HubAction | None:
        if not hub.has_machine and not hub.in_sight:
            if self._is_dead(hub) and not self._lists_any():
                return Report(hub.id, NONE_LISTED)
            return FenceHub(hub.id) if hub.id == vanished else None
        if hub.id == surplus or (hub.state == "draining" and self._is_drained(hub)):
            return DestroyHub(hub.id)
        if not hub.in_sight:
            return EnsureHub(hub.id)
        trouble = (TWIN if hub.has_twin else hub.fault) if hub.has_machine else NOT_LISTED
        return Report(hub.id, trouble) if trouble else None


def _takes_bots(hub: HubSeen) -> bool:
    return hub.state == "ready" and hub.in_sight and not hub.fenced


def _held(actual: Actual) -> Counter[int]:
    """Places held by hub; a move holds them on both hubs. A hub with 0 in it is lived on too."""
    held: Counter[int] = Counter()
    for home in actual.placements.values():
        if not home.lost:
            held[home.hub] += home.places
        if home.moving_to is not None:
            held[home.moving_to] += home.places
    return held


# --- consolidation ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Saving:
    """A hub that could be drained, and where its bots would go."""

    hub: int
    moves: tuple[tuple[UUID, int], ...]


def savings(actual: Actual, limits: Limits) -> list[Saving]:
    """Which drains would save which machines. They fit together when they are done in this order.

    Never done by itself: each move takes a pub down for a while. Empty hubs are not in it, since they go anyway.
    """
    held = _held(actual)
    free = {hub.id: hub.places - held[hub.id] for hub in actual.hubs if _takes_bots(hub)}
    homes: defaultdict[int, list[tuple[UUID, int]]] = defaultdict(list)
    for bot, home in actual.placements.items():
        if not home.lost:
            homes[home.hub].append((bot, home.places))
    arrivals = {home.moving_to for home in actual.placements.values() if home.moving_to is not None}
    found: list[Saving] = []
    for hub in sorted(free.keys() & homes.keys() - arrivals, key=lambda hub: (held[hub], len(homes[hub]))):
        if hub in arrivals:
            continue
        room = _Room({other: places for other, places in free.items() if other != hub and other in held})
        # The big ones first, since they are hardest to fit.
        bots = sorted(homes[hub], key=lambda home: -home[1])
        moves = tuple((bot, to) for bot, places in bots if (to := room.take_fullest(places)) is not None)
        empty = sum(places for other, places in free.items() if other not in held)
        if len(moves) == len(bots) and room.total() + empty >= limits.spare_places:
            found.append(Saving(hub, moves))
            arrivals |= {to for _, to in moves}
            free |= room.free
            del free[hub]
    return found
