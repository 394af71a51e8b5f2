"""The planner lives through random histories in a truthful world, whose invariants are the house's *Never*.

The world does what it is asked, as slowly and as badly as clouds and workers do: machines come late, small, broken or
never, jobs are lost, links are cut, machines die with all that is on them.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.planner import (
    LOST_WITH_HUB,
    NO_ROOM,
    NO_ROOM_TO_GROW,
    TOO_BIG,
    Action,
    Actual,
    Adopt,
    BuyHub,
    CancelMove,
    DestroyHub,
    EnsureDown,
    EnsureHub,
    EnsureMoved,
    EnsureUp,
    FenceHub,
    GiveUpHub,
    HubSeen,
    Kept,
    Limits,
    Place,
    PlacementSeen,
    Report,
    Resize,
    ServiceSeen,
    StartMove,
    UnfenceHub,
    Wait,
    Wanted,
    plan,
)

RESTS = "It crashed too often."
HUB_PLACES = 5  # small, so that a short history fills hubs
MINUTE = timedelta(minutes=1)


@dataclass
class Machine:
    up_at: datetime
    places: int = HUB_PLACES
    fault: str = ""
    is_cut: bool = False
    running: set[UUID] = field(default_factory=set)  # the containers, whatever the swarm believes


@dataclass
class Hub:
    id: int
    state: str
    deadline: datetime | None
    places: int = 0
    machine: Machine | None = None
    emptied_at: datetime | None = None
    lost_at: datetime | None = None
    fenced: bool = False
    is_back: bool = False
    hidden: Machine | None = None  # it runs, and the cloud says that it has none
    adopted: bool = False


class World(RuleBasedStateMachine):
    """Rows, swarm and cloud together, and the people who change their minds."""

    def __init__(self) -> None:
        super().__init__()
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.wishes: dict[UUID, Wanted | Kept] = {}
        self.placements: dict[UUID, PlacementSeen] = {}
        self.services: dict[UUID, ServiceSeen] = {}
        self.hubs: dict[int, Hub] = {}
        self.strangers: dict[UUID, Machine] = {}
        self.no_buy_until: datetime | None = None
        self.next_machine = Machine(self.now)
        # What the last purchase and the last surplus were followed by: nothing, or a change of need.
        self.bought_at = self.now - timedelta(days=1)
        self.is_surplus_gone = False

    @initialize(
        spare=st.sampled_from([0, 2, 6]), most=st.integers(1, 6), moves=st.integers(1, 2), crowd=st.integers(1, 9)
    )
    def begin(self, spare: int, most: int, moves: int, crowd: int) -> None:
        self.limits = Limits(HUB_PLACES, spare, most, moves_at_once=moves)
        self.join([1] * crowd)
        self.time_passes(5, 1, set())

    # --- customers ---
    def bots(self, kind: type) -> list[UUID]:
        return [bot for bot, wish in self.wishes.items() if isinstance(wish, kind)]

    def changed(self) -> None:
        """The need is another now, so that a purchase after a destroy is no flapping, nor the reverse."""
        self.bought_at = self.now - timedelta(days=1)
        self.is_surplus_gone = False

    @rule(places=st.lists(st.sampled_from([1, 1, 1, 2, 4]), min_size=1, max_size=7))
    def join(self, places: list[int]) -> None:
        self.changed()
        for size in places:
            bot = UUID(int=len(self.wishes))
            self.wishes[bot] = Wanted(bot, size, "d")

    @precondition(lambda self: self.bots(Wanted))
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        self.changed()
        bot = data.draw(st.sampled_from(self.bots(Wanted)))
        self.wishes[bot] = Kept(bot, self.wishes[bot].places)
        self.rest(bot, "")

    @precondition(lambda self: self.placed(Wanted))
    @rule(data=st.data(), why=st.sampled_from([RESTS, RESTS, ""]))
    def crash_again_and_again_or_be_tried_again(self, data: st.DataObject, why: str) -> None:
        self.rest(data.draw(st.sampled_from(self.placed(Wanted))), why)

    def placed(self, kind: type) -> list[UUID]:
        return [bot for bot in self.bots(kind) if bot in self.placements]

    def rest(self, bot: UUID, why: str) -> None:
        if bot in self.placements:
            self.placements[bot] = replace(self.placements[bot], rests=why)

    @precondition(lambda self: self.bots(Kept))
    @rule(data=st.data(), places=st.sampled_from([1, 2, 4]))
    def pay(self, data: st.DataObject, places: int) -> None:
        self.changed()
        bot = data.draw(st.sampled_from(self.bots(Kept)))
        if self.wishes[bot].places:
            self.wishes[bot] = Wanted(bot, places, "d")

    @precondition(lambda self: self.bots(Wanted))
    @rule(data=st.data(), places=st.sampled_from([1, 2, 4]), digest=st.sampled_from(["d", "e"]))
    def change_the_order(self, data: st.DataObject, places: int, digest: str) -> None:
        self.changed()
        bot = data.draw(st.sampled_from(self.bots(Wanted)))
        self.wishes[bot] = Wanted(bot, places, digest)

    @precondition(lambda self: self.wishes)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.changed()
        bot = data.draw(st.sampled_from(list(self.wishes)))
        self.wishes[bot] = Kept(bot, 0)

    @rule()
    def keep_time_ends(self) -> None:
        self.changed()
        for bot in self.bots(Kept):
            home = self.placements.get(bot)
            is_down = bot not in self.services and not self.machines_running(bot)
            if home and is_down and home.moving_to is None and not self.wishes[bot].places:
                del self.placements[bot]

    # --- staff ---
    def in_state(self, *states: str) -> list[Hub]:
        return [hub for hub in self.hubs.values() if hub.state in states]

    @precondition(lambda self: self.in_state("ready"))
    @rule(data=st.data())
    def drain(self, data: st.DataObject) -> None:
        self.changed()
        data.draw(st.sampled_from(self.in_state("ready"))).state = "draining"

    @precondition(lambda self: self.in_state("draining"))
    @rule(data=st.data())
    def uncordon(self, data: st.DataObject) -> None:
        self.changed()
        data.draw(st.sampled_from(self.in_state("draining"))).state = "ready"

    @precondition(lambda self: self.in_state("ready", "draining"))
    @rule(data=st.data())
    def turn_off_and_confirm(self, data: st.DataObject) -> None:
        """Staff pull the plug of a machine that the cloud still lists, and say so."""
        self.changed()
        hub = data.draw(st.sampled_from(self.in_state("ready", "draining")))
        if hub.machine and not self.in_sight(hub):
            hub.machine.running.clear()
            self.fence(hub)

    # --- mishaps ---
    @rule(
        minutes=st.sampled_from([0, 0, 3, 14, 60]),
        places=st.sampled_from([HUB_PLACES, HUB_PLACES, 3]),
        fault=st.sampled_from(["", "", "No valid host was found."]),
    )
    def next_machine_is(self, minutes: int, places: int, fault: str) -> None:
        self.next_machine = Machine(self.now + minutes * MINUTE, places, fault)

    @precondition(lambda self: self.in_state("ready", "draining"))
    @rule(data=st.data())
    def cut_or_heal(self, data: st.DataObject) -> None:
        self.changed()
        hub = data.draw(st.sampled_from(self.in_state("ready", "draining")))
        if hub.machine:
            hub.machine.is_cut = not hub.machine.is_cut
            self.forget_removed_services()

    def forget_removed_services(self) -> None:
        """An engine that is back stops what the swarm has no service for."""
        for hub in self.hubs.values():
            if hub.machine and not hub.machine.is_cut:
                hub.machine.running &= {bot for bot, service in self.services.items() if service.hub == hub.id}

    @precondition(lambda self: self.in_state("booting", "ready", "draining"))
    @rule(data=st.data())
    def lose_a_machine(self, data: st.DataObject) -> None:
        self.changed()
        data.draw(st.sampled_from(self.in_state("booting", "ready", "draining"))).machine = None

    @precondition(lambda self: self.in_state("ready", "draining"))
    @rule(data=st.data())
    def hide_a_machine(self, data: st.DataObject) -> None:
        """It is cut off, and the cloud is certain that it is gone, which is not true."""
        self.changed()
        hub = data.draw(st.sampled_from(self.in_state("ready", "draining")))
        hub.machine, hub.hidden = None, hub.machine or hub.hidden

    @rule()
    def hidden_machines_return(self) -> None:
        self.changed()
        for hub in self.hubs.values():
            if hub.hidden and hub.state != "gone":
                hub.machine, hub.hidden = hub.hidden, None
                hub.is_back = hub.fenced
        self.forget_removed_services()

    @rule()
    def a_stranger_appears(self) -> None:
        self.changed()
        self.strangers[UUID(int=2**64 + len(self.hubs))] = Machine(self.now)

    @rule()
    def the_cloud_refuses(self) -> None:
        self.changed()
        self.no_buy_until = self.now + 4 * MINUTE

    @rule(looks=st.integers(0, 5), minutes=st.sampled_from([0, 1, 6, 31]), lost=st.sets(st.integers(0, 6), max_size=3))
    def time_passes(self, looks: int, minutes: int, lost: set[int]) -> None:
        """With passes in between, whose jobs may be lost."""
        for _ in range(looks):
            self.carry_out([action for number, action in enumerate(self.plan()) if number % 7 not in lost])
            self.now += minutes * MINUTE

    # --- passes ---
    def in_sight(self, hub: Hub) -> bool:
        return hub.machine is not None and not hub.machine.is_cut and hub.state in ("ready", "draining", "destroying")

    def machines_running(self, bot: UUID) -> list[Machine]:
        return [hub.machine for hub in self.hubs.values() if hub.machine and bot in hub.machine.running]

    def lived_on(self) -> set[int]:
        homes = {home.hub for home in self.placements.values() if not home.lost}
        return homes | {home.moving_to for home in self.placements.values() if home.moving_to is not None}

    def observe(self) -> Actual:
        lived_on, hubs = self.lived_on(), []
        for hub in self.hubs.values():
            hub.emptied_at = None if hub.id in lived_on else hub.emptied_at or self.now
            hub.lost_at = None if self.in_sight(hub) else hub.lost_at or self.now
            fault = hub.machine.fault if hub.machine else ""
            hubs.append(
                HubSeen(
                    hub.id,
                    hub.state,
                    hub.places,
                    self.in_sight(hub),
                    hub.machine is not None,
                    fault,
                    hub.deadline,
                    hub.emptied_at,
                    hub.lost_at,
                    hub.fenced,
                    is_back=hub.is_back,
                )
            )
        return Actual(tuple(hubs), dict(self.placements), dict(self.services), tuple(self.strangers), self.no_buy_until)

    def plan(self) -> list[Action]:
        wanted = [wish for wish in self.wishes.values() if isinstance(wish, Wanted)]
        kept = [wish for wish in self.wishes.values() if isinstance(wish, Kept)]
        actions = plan(wanted, kept, self.observe(), self.limits, self.now)
        self.check_that_each_is_asked_once(actions)
        return actions

    def check_that_each_is_asked_once(self, actions: list[Action]) -> None:
        for kind in ("bot", "hub"):
            other_way = (Place, StartMove) if kind == "hub" else ()
            asked = [getattr(a, kind) for a in actions if hasattr(a, kind) and not isinstance(a, other_way)]
            asked += [a.about for a in actions if isinstance(a, Report) and a.about is not None]
            assert max(Counter(asked).values(), default=1) == 1, actions

    def carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Place(bot, hub, places):
                    assert bot not in self.placements
                    self.placements[bot] = PlacementSeen(hub, places)
                case Resize(bot, places):
                    self.placements[bot] = replace(self.placements[bot], places=places)
                case EnsureUp(bot):
                    self.start(bot)
                case EnsureDown(bot):
                    self.stop_service(bot)
                case StartMove(bot, hub):
                    self.placements[bot] = replace(self.placements[bot], moving_to=hub)
                case CancelMove(bot):
                    self.placements[bot] = replace(self.placements[bot], moving_to=None)
                case EnsureMoved(bot):
                    self.move(bot)
                case BuyHub():
                    self.buy()
                case EnsureHub(hub):
                    self.greet(self.hubs[hub])
                case GiveUpHub(hub, _):
                    self.changed()
                    self.hubs[hub].state, self.hubs[hub].deadline = "failed", self.now
                case DestroyHub(hub):
                    self.destroy(self.hubs[hub])
                case FenceHub(hub):
                    assert self.hubs[hub].machine is None or self.hubs[hub].fenced
                    self.fence(self.hubs[hub])
                case UnfenceHub(hub):
                    self.unfence(self.hubs[hub])
                case Adopt(stranger):
                    number = len(self.hubs) + 1
                    self.hubs[number] = Hub(number, "failed", self.now + 10 * MINUTE, adopted=True)
                    self.hubs[number].machine = self.strangers.pop(stranger)

    def start(self, bot: UUID) -> None:
        wish, home = self.wishes[bot], self.placements[bot]
        assert isinstance(wish, Wanted) and not home.lost and home.moving_to is None and not home.rests
        machine = self.hubs[home.hub].machine
        assert machine and not machine.is_cut
        self.services[bot] = ServiceSeen(wish.digest, home.hub)
        machine.running.add(bot)

    def stop_service(self, bot: UUID) -> None:
        """On an engine that is cut off its container runs on."""
        self.services.pop(bot, None)
        self.forget_removed_services()

    def move(self, bot: UUID) -> None:
        """First it is stopped, then the next pass asks again and finds it stopped."""
        home = self.placements[bot]
        if bot in self.services:
            self.stop_service(bot)
        elif not self.machines_running(bot) and home.moving_to is not None:
            self.placements[bot] = PlacementSeen(home.moving_to, home.places, rests=home.rests)

    def buy(self) -> None:
        assert not self.is_surplus_gone, "A machine went as surplus, and is bought again though nothing changed"
        assert self.no_buy_until is None or self.now >= self.no_buy_until
        living = [hub for hub in self.hubs.values() if hub.state != "gone"]
        assert len(living) < self.limits.max_hubs
        # At worst each that has no place or must leave, and each spare place, needs a machine of its own.
        leaving = {hub.id for hub in self.in_state("draining")}
        homeless = [bot for bot in self.wishes if bot not in self.placements or self.placements[bot].hub in leaving]
        coming = len(self.in_state("requested", "booting"))
        assert coming < len(homeless) + self.limits.spare_places, "Nobody needs so many machines"
        number = len(self.hubs) + 1
        self.hubs[number] = Hub(number, "requested", self.now + 10 * MINUTE)
        self.bought_at = self.now

    def greet(self, hub: Hub) -> None:
        if hub.state == "requested":
            hub.state, hub.deadline = "booting", self.now + 15 * MINUTE
        if hub.state == "booting" and hub.machine is None:
            hub.machine, self.next_machine = self.next_machine, Machine(self.now)
        elif hub.state == "booting" and hub.machine and self.now >= hub.machine.up_at and not hub.machine.fault:
            hub.state, hub.deadline, hub.places = "ready", None, hub.machine.places

    def destroy(self, hub: Hub) -> None:
        assert hub.id not in self.lived_on(), "A machine was destroyed on which somebody lives"
        assert not hub.machine or not hub.machine.running or hub.fenced
        assert not hub.is_back, "A machine that is back was destroyed"
        if hub.state == "ready" and not hub.fenced:
            # One that came too small may go as soon as the next is there.
            is_rested = self.now - self.bought_at >= self.limits.cool_down
            assert is_rested or hub.places < HUB_PLACES, "One is bought, and another one goes"
            assert hub.emptied_at and self.now - hub.emptied_at >= self.limits.cool_down, "It was lived on just now"
            self.is_surplus_gone = True
        if hub.state == "draining" and not hub.fenced:
            assert hub.emptied_at and self.now - hub.emptied_at >= self.limits.drained_rest, "Its last one just left"
        if hub.state in ("destroying", "failed"):
            hub.machine, hub.state = None, "gone"
        else:
            hub.state = "destroying"

    def fence(self, hub: Hub) -> None:
        hub.fenced = True
        for bot, home in self.placements.items():
            if home.hub == hub.id:
                self.placements[bot] = replace(home, lost=True)

    def unfence(self, hub: Hub) -> None:
        self.changed()
        hub.fenced = hub.is_back = False
        if hub.state not in ("ready", "draining"):
            hub.state, hub.deadline = "ready", None
        for bot, home in self.placements.items():
            if home.hub == hub.id:
                self.placements[bot] = replace(home, lost=False)

    # --- what must be true at any moment ---
    @invariant()
    def never(self) -> None:
        held: Counter[int] = Counter()
        for home in self.placements.values():
            if not home.lost:
                held[home.hub] += home.places
            if home.moving_to is not None:
                held[home.moving_to] += home.places
        assert all(held[hub.id] <= hub.places for hub in self.hubs.values()), "A hub is over its capacity"
        machines = [machine for hub in self.hubs.values() for machine in (hub.machine, hub.hidden) if machine]
        running = Counter(bot for machine in machines for bot in machine.running)
        assert max(running.values(), default=0) <= 1, "A bot runs twice"
        assert all(self.placements[bot].hub == service.hub for bot, service in self.services.items()), "No volume there"

    # --- and in the end ---
    def teardown(self) -> None:
        """When the mishaps are over, passes come to rest, and all that can be up is up."""
        if not hasattr(self, "limits"):
            return
        self.hidden_machines_return()
        for hub in self.hubs.values():
            if hub.machine:
                hub.machine.is_cut = False
            elif hub.state in ("ready", "draining"):
                self.fence(hub)  # staff look: the planner does not, while no machine at all is listed
        self.forget_removed_services()
        self.next_machine = Machine(self.now)
        actions, quiet = self.plan(), 0
        for _ in range(600):
            self.carry_out(actions)
            self.never()
            self.now += MINUTE
            actions = self.plan()
            quiet = quiet + 1 if all(isinstance(action, Wait | Report) for action in actions) else 0
            if quiet * MINUTE > self.limits.cool_down:
                break
        assert quiet, actions
        waits = {action.bot: action.reason for action in actions if isinstance(action, Wait)}
        assert set(waits.values()) <= {LOST_WITH_HUB, NO_ROOM, NO_ROOM_TO_GROW, TOO_BIG, RESTS}
        for bot in self.bots(Wanted):
            is_up = self.machines_running(bot) and self.services[bot].digest == self.wishes[bot].digest  # type: ignore[union-attr]
            assert is_up or waits[bot] != NO_ROOM_TO_GROW
            assert not is_up or not self.placements[bot].rests
        assert not set(self.services) - set(self.bots(Wanted))
        if self.in_state("draining"):
            assert sum(hub.state != "gone" for hub in self.hubs.values()) >= self.limits.max_hubs


TestWorld = World.TestCase
TestWorld.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
