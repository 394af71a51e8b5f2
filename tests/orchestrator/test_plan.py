"""The planner, by properties over random worlds and by examples."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from orchestrator.planner import (
    AT_MAXIMUM,
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
    PlacementSeen,
    Report,
    ServiceSeen,
    Wait,
    Wanted,
    plan,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=1)
HUB = HubSeen(1, "ready", 15, in_sight=True)
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
    assert plan(wanted(1), [], NOBODY, Limits(), NOW) == [Place(bot(1), HUB.id, 1)]


def test_a_placed_bot_without_a_service_is_started() -> None:
    actual = replace(NOBODY, placements={bot(1): PlacementSeen(1)})
    assert plan(wanted(1), [], actual, Limits(), NOW) == [EnsureUp(bot(1))]


def test_a_bot_that_runs_as_it_should_is_left_alone() -> None:
    actual = replace(NOBODY, placements={bot(1): PlacementSeen(1)}, services={bot(1): ServiceSeen("d", 1)})
    assert plan(wanted(1), [], actual, Limits(), NOW) == []


def test_a_service_that_is_not_as_wished_is_changed() -> None:
    actual = replace(NOBODY, placements={bot(1): PlacementSeen(1)}, services={bot(1): ServiceSeen("old", 1)})
    assert plan(wanted(1), [], actual, Limits(), NOW) == [EnsureUp(bot(1))]


def test_a_bot_that_is_only_kept_is_stopped_and_keeps_its_place() -> None:
    full = replace(HUB, places=1)
    actual = Actual((full,), {bot(1): PlacementSeen(1)}, {bot(1): ServiceSeen("d", 1)})
    actions = plan(wanted(2), [Kept(bot(1))], actual, Limits(max_hubs=1), NOW)
    assert actions == [EnsureDown(bot(1)), Wait(bot(2), NO_ROOM), Report(None, AT_MAXIMUM)]


def test_a_service_on_another_hub_than_its_volume_is_reported_and_not_touched() -> None:
    other = replace(HUB, id=2)
    actual = Actual((HUB, other), {bot(1): PlacementSeen(1)}, {bot(1): ServiceSeen("d", 2)})
    [action] = plan(wanted(1), [], actual, Limits(max_hubs=2), NOW)
    assert isinstance(action, Report)


def test_a_bot_on_a_hub_out_of_sight_is_neither_started_nor_moved() -> None:
    lost = replace(HUB, in_sight=False, has_machine=False)
    actual = Actual((lost, replace(HUB, id=2)), {bot(1): PlacementSeen(1)}, {})
    actions = plan(wanted(1), [], actual, Limits(max_hubs=5), NOW)
    assert len(only(Wait, actions)) == 1 and not only(EnsureUp, actions) and not only(Place, actions)


def test_a_service_without_a_bot_is_reported() -> None:
    [action] = plan([], [], replace(NOBODY, services={bot(9): ServiceSeen("d", 1)}), Limits(), NOW)
    assert isinstance(action, Report)


def test_the_fullest_hub_is_filled_first() -> None:
    actual = Actual((HUB, replace(HUB, id=2)), {bot(1): PlacementSeen(2)}, {bot(1): ServiceSeen("d", 2)})
    assert Place(bot(2), 2, 1) in plan(wanted(1, 2), [], actual, Limits(max_hubs=2), NOW)


def test_a_machine_on_its_way_counts_as_room() -> None:
    coming = HubSeen(1, "booting", 0, in_sight=False)
    actions = plan(wanted(1), [], Actual((coming,), {}, {}), Limits(max_hubs=9), NOW)
    assert actions == [Wait(bot(1), ROOM_COMES), EnsureHub(1)]


def test_thirty_one_bots_need_three_hubs() -> None:
    empty = Actual(hubs=(), placements={}, services={})
    assert len(only(BuyHub, plan(wanted(*range(31)), [], empty, Limits(max_hubs=9), NOW))) == 3


def test_spare_places_are_bought_before_they_are_needed() -> None:
    actual = Actual((replace(HUB, places=1),), {bot(1): PlacementSeen(1)}, {bot(1): ServiceSeen("d", 1)})
    assert plan(wanted(1), [], actual, Limits(max_hubs=9, spare_places=1), NOW) == [BuyHub()]


def test_an_empty_hub_goes_after_its_cool_down_and_not_before() -> None:
    def empty(since: datetime) -> Actual:
        return Actual(
            (HUB, replace(HUB, id=2, emptied_at=since)), {bot(1): PlacementSeen(1)}, {bot(1): ServiceSeen("d", 1)}
        )

    assert plan(wanted(1), [], empty(LONG_AGO), Limits(), NOW) == [DestroyHub(2)]
    assert plan(wanted(1), [], empty(NOW - timedelta(minutes=1)), Limits(), NOW) == []


def test_a_hub_where_a_deleted_bots_volume_lives_is_never_destroyed() -> None:
    old = replace(HUB, id=2, emptied_at=LONG_AGO)
    actual = Actual((HUB, old), {bot(1): PlacementSeen(2, places=0)}, {})
    assert plan([], [Kept(bot(1), places=0)], actual, Limits(max_hubs=2), NOW) == []


def test_the_last_hub_stays() -> None:
    assert plan([], [], Actual((replace(HUB, emptied_at=LONG_AGO),), {}, {}), Limits(), NOW) == []


def test_a_hub_whose_mark_is_missing_in_the_swarm_gets_it_again() -> None:
    lost = replace(HUB, in_sight=False, has_machine=True)
    assert plan([], [], Actual((lost,), {}, {}), Limits(), NOW) == [EnsureHub(1)]
