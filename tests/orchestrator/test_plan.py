"""The planner, by properties over random worlds and by examples."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.planner import (
    NO_ROOM,
    ROOM_COMES,
    Action,
    Actual,
    BuyHub,
    DestroyHub,
    EnsureDown,
    EnsureHub,
    EnsureUp,
    HubSeen,
    Kept,
    Limits,
    Place,
    Report,
    ServiceSeen,
    Wait,
    Wanted,
    plan,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=1)
HUB = HubSeen(1, "ready", 15, in_swarm=True)
NOBODY = Actual(hubs=(HUB,), placements={}, services={})


def bot(number: int) -> UUID:
    return UUID(int=number)


def wanted(*numbers: int, digest: str = "d") -> list[Wanted]:
    return [Wanted(bot(number), digest=digest) for number in numbers]


def only(kind: type, actions: list[Action]) -> list[Action]:
    return [action for action in actions if isinstance(action, kind)]


# --- examples --------------------------------------------------------------------------------------------------------
def test_without_a_hub_one_is_bought_and_the_bot_is_told() -> None:
    empty = Actual(hubs=(), placements={}, services={})
    assert plan(wanted(1), [], empty, Limits(), NOW) == [BuyHub(), Wait(bot(1), ROOM_COMES)]


def test_nothing_wanted_is_nothing_to_do() -> None:
    assert plan([], [], NOBODY, Limits(), NOW) == []


def test_a_wanted_bot_gets_a_place() -> None:
    assert plan(wanted(1), [], NOBODY, Limits(), NOW) == [Place(bot(1), HUB.id)]


def test_a_placed_bot_without_a_service_is_started() -> None:
    actual = replace(NOBODY, placements={bot(1): 1})
    assert plan(wanted(1), [], actual, Limits(), NOW) == [EnsureUp(bot(1))]


def test_a_bot_that_runs_as_it_should_is_left_alone() -> None:
    actual = replace(NOBODY, placements={bot(1): 1}, services={bot(1): ServiceSeen("d", 1)})
    assert plan(wanted(1), [], actual, Limits(), NOW) == []


def test_a_service_that_is_not_as_wished_is_changed() -> None:
    actual = replace(NOBODY, placements={bot(1): 1}, services={bot(1): ServiceSeen("old", 1)})
    assert plan(wanted(1), [], actual, Limits(), NOW) == [EnsureUp(bot(1))]


def test_a_bot_that_is_only_kept_is_stopped_and_keeps_its_place() -> None:
    full = replace(HUB, places=1)
    actual = Actual((full,), {bot(1): 1}, {bot(1): ServiceSeen("d", 1)})
    actions = plan(wanted(2), [Kept(bot(1))], actual, Limits(max_hubs=1), NOW)
    assert actions == [EnsureDown(bot(1)), Wait(bot(2), NO_ROOM)]


def test_a_service_on_another_hub_than_its_volume_is_reported_and_not_touched() -> None:
    other = replace(HUB, id=2)
    actual = Actual((HUB, other), {bot(1): 1}, {bot(1): ServiceSeen("d", 2)})
    [action] = plan(wanted(1), [], actual, Limits(max_hubs=2), NOW)
    assert isinstance(action, Report)


def test_a_bot_on_a_hub_out_of_sight_is_neither_started_nor_moved() -> None:
    lost = replace(HUB, in_swarm=False, has_machine=False)
    actual = Actual((lost, replace(HUB, id=2)), {bot(1): 1}, {})
    actions = plan(wanted(1), [], actual, Limits(max_hubs=5), NOW)
    assert len(only(Wait, actions)) == 1 and not only(EnsureUp, actions) and not only(Place, actions)


def test_a_service_without_a_bot_is_reported() -> None:
    [action] = plan([], [], replace(NOBODY, services={bot(9): ServiceSeen("d", 1)}), Limits(), NOW)
    assert isinstance(action, Report)


def test_the_fullest_hub_is_filled_first() -> None:
    actual = Actual((HUB, replace(HUB, id=2)), {bot(1): 2}, {bot(1): ServiceSeen("d", 2)})
    assert Place(bot(2), 2) in plan(wanted(1, 2), [], actual, Limits(max_hubs=2), NOW)


def test_a_machine_on_its_way_counts_as_room() -> None:
    coming = HubSeen(1, "booting", 0, in_swarm=False)
    actions = plan(wanted(1), [], Actual((coming,), {}, {}), Limits(max_hubs=9), NOW)
    assert actions == [EnsureHub(1), Wait(bot(1), ROOM_COMES)]


def test_thirty_one_bots_need_three_hubs() -> None:
    empty = Actual(hubs=(), placements={}, services={})
    assert len(only(BuyHub, plan(wanted(*range(31)), [], empty, Limits(max_hubs=9), NOW))) == 3


def test_spare_places_are_bought_before_they_are_needed() -> None:
    actual = Actual((replace(HUB, places=1),), {bot(1): 1}, {bot(1): ServiceSeen("d", 1)})
    assert plan(wanted(1), [], actual, Limits(max_hubs=9, spare_places=1), NOW) == [BuyHub()]


def test_an_empty_hub_goes_after_its_cool_down_and_not_before() -> None:
    def empty(since: datetime) -> Actual:
        return Actual((HUB, replace(HUB, id=2, emptied_at=since)), {bot(1): 1}, {bot(1): ServiceSeen("d", 1)})

    assert plan(wanted(1), [], empty(LONG_AGO), Limits(), NOW) == [DestroyHub(2)]
    assert plan(wanted(1), [], empty(NOW - timedelta(minutes=1)), Limits(), NOW) == []


def test_a_hub_where_a_deleted_bots_volume_lives_is_never_destroyed() -> None:
    old = replace(HUB, id=2, emptied_at=LONG_AGO)
    actual = Actual((HUB, old), {bot(1): 2}, {})
    assert plan([], [Kept(bot(1), places=0)], actual, Limits(max_hubs=2), NOW) == []


def test_the_last_hub_stays() -> None:
    assert plan([], [], Actual((replace(HUB, emptied_at=LONG_AGO),), {}, {}), Limits(), NOW) == []


def test_a_hub_whose_mark_is_missing_in_the_swarm_gets_it_again() -> None:
    lost = replace(HUB, in_swarm=False, has_machine=True)
    assert plan([], [], Actual((lost,), {}, {}), Limits(), NOW) == [EnsureHub(1)]


# --- properties ------------------------------------------------------------------------------------------------------
STATES = ["requested", "booting", "ready", "draining", "destroying", "failed"]
hubs = st.lists(
    st.builds(
        HubSeen,
        id=st.integers(1, 5),
        state=st.sampled_from(STATES),
        places=st.integers(0, 15),
        in_swarm=st.booleans(),
        has_machine=st.booleans(),
        emptied_at=st.sampled_from([None, NOW, LONG_AGO]),
    ),
    max_size=5,
    unique_by=lambda hub: hub.id,
)
limits = st.builds(Limits, hub_places=st.just(15), spare_places=st.integers(0, 20), max_hubs=st.integers(0, 6))


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Wanted], list[Kept], Actual]:
    seen = draw(hubs)
    numbers = draw(st.sets(st.integers(1, 60), max_size=40))
    is_wanted = {number: draw(st.booleans()) for number in numbers}
    placements, services = {}, {}
    left = {hub.id: hub.places for hub in seen}
    for number in sorted(numbers):
        fitting = [hub.id for hub in seen if left[hub.id] > 0 and hub.state != "destroying"]
        if fitting and draw(st.booleans()):
            hub = draw(st.sampled_from(fitting))
            left[hub] -= 1
            placements[bot(number)] = hub
            if draw(st.booleans()):
                services[bot(number)] = ServiceSeen(draw(st.sampled_from(["d", "old"])), hub)
    wish = [Wanted(bot(number), digest="d") for number in sorted(numbers) if is_wanted[number]]
    kept = [Kept(bot(number)) for number in sorted(numbers) if not is_wanted[number]]
    return wish, kept, Actual(tuple(seen), placements, services)


@given(worlds(), limits)
def test_no_hub_is_ever_over_its_capacity(world: tuple[list[Wanted], list[Kept], Actual], limit: Limits) -> None:
    wish, kept, actual = world
    taken = list(actual.placements.values()) + [
        a.hub for a in plan(wish, kept, actual, limit, NOW) if isinstance(a, Place)
    ]
    assert all(taken.count(hub.id) <= hub.places for hub in actual.hubs)


@given(worlds(), limits)
def test_a_bot_has_one_action_a_pass_and_a_placed_one_never_moves(
    world: tuple[list[Wanted], list[Kept], Actual], limit: Limits
) -> None:
    wish, kept, actual = world
    actions = plan(wish, kept, actual, limit, NOW)
    about = [action.bot for action in actions if hasattr(action, "bot")]
    assert len(about) == len(set(about))
    assert not {action.bot for action in actions if isinstance(action, Place)} & set(actual.placements)


@given(worlds(), limits)
def test_a_hub_with_a_placement_is_never_destroyed(
    world: tuple[list[Wanted], list[Kept], Actual], limit: Limits
) -> None:
    wish, kept, actual = world
    actions = plan(wish, kept, actual, limit, NOW)
    placed_on = set(actual.placements.values()) | {a.hub for a in actions if isinstance(a, Place)}
    assert not placed_on & {action.hub for action in actions if isinstance(action, DestroyHub)}


@given(worlds(), limits)
def test_the_maximum_of_hubs_is_never_passed(world: tuple[list[Wanted], list[Kept], Actual], limit: Limits) -> None:
    wish, kept, actual = world
    bought = len(only(BuyHub, plan(wish, kept, actual, limit, NOW)))
    assert not bought or len(actual.hubs) + bought <= limit.max_hubs


@given(worlds(), limits)
def test_it_never_buys_and_destroys_in_one_pass(world: tuple[list[Wanted], list[Kept], Actual], limit: Limits) -> None:
    wish, kept, actual = world
    actions = plan(wish, kept, actual, limit, NOW)
    fresh = [a for a in only(DestroyHub, actions) if next(h for h in actual.hubs if h.id == a.hub).state == "ready"]  # type: ignore[attr-defined]
    assert not (only(BuyHub, actions) and fresh)


def obey(wish: list[Wanted], actual: Actual, actions: list[Action]) -> Actual:
    """A truthful world: everything that was asked for has happened."""
    hubs = {hub.id: hub for hub in actual.hubs}
    placements, services = dict(actual.placements), dict(actual.services)
    digests = {w.bot: w.digest for w in wish}
    for action in actions:
        match action:
            case BuyHub():
                number = max(hubs, default=0) + 1
                hubs[number] = HubSeen(number, "ready", 15, in_swarm=True)
            case EnsureHub(hub):
                hubs[hub] = replace(hubs[hub], state="ready", in_swarm=True, places=hubs[hub].places or 15)
            case DestroyHub(hub):
                del hubs[hub]
            case Place(b, hub):
                placements[b] = hub
            case EnsureUp(b):
                services[b] = ServiceSeen(digests[b], placements[b])
            case EnsureDown(b):
                services.pop(b)
    return Actual(tuple(hubs.values()), placements, services)


@settings(max_examples=60)
@given(worlds(), limits)
def test_passes_against_a_truthful_world_come_to_rest(
    world: tuple[list[Wanted], list[Kept], Actual], limit: Limits
) -> None:
    wish, kept, actual = world
    for _ in range(12):
        actions = plan(wish, kept, actual, limit, NOW)
        actual = obey(wish, actual, actions)
    assert all(isinstance(action, Wait | Report) for action in plan(wish, kept, actual, limit, NOW))
