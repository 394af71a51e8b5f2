"""The planner by examples; test_plan_over_time.py lets it live through random histories."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from orchestrator.planner import (
    AT_MAXIMUM,
    LOST_SIGHT,
    LOST_WITH_HUB,
    NO_ROOM,
    NO_ROOM_TO_GROW,
    NONE_LISTED,
    NOT_LISTED,
    ROOM_COMES,
    STILL_LIVED_ON,
    TOO_BIG,
    TOO_LATE,
    TWIN,
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
    Saving,
    ServiceSeen,
    StartMove,
    UnfenceHub,
    Wait,
    Wanted,
    plan,
    savings,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=1)
LATER = NOW + timedelta(minutes=5)
HUB = HubSeen(1, "ready", 15, in_sight=True)
OTHER = replace(HUB, id=2)
DRAINING = replace(HUB, state="draining")
GONE_DARK = replace(HUB, in_sight=False, has_machine=False, lost_at=LONG_AGO)
COMING = HubSeen(2, "booting", 0, in_sight=False, deadline=LATER)
NOBODY = Actual(hubs=(HUB,), placements={}, services={})
MANY = Limits(max_hubs=9)


def bot(number: int) -> UUID:
    return UUID(int=number)


def wanted(*numbers: int, digest: str = "d") -> list[Wanted]:
    return [Wanted(bot(number), digest=digest) for number in numbers]


def living(hubs: tuple[HubSeen, ...], homes: dict[int, int], **more: object) -> Actual:
    """Each bot runs as it should on its hub."""
    return Actual(
        hubs,
        {bot(number): PlacementSeen(hub) for number, hub in homes.items()},
        {bot(number): ServiceSeen("d", hub) for number, hub in homes.items()},
        **more,  # type: ignore[arg-type]
    )


def placed(actual: Actual, number: int, **changes: object) -> Actual:
    home = replace(actual.placements[bot(number)], **changes)  # type: ignore[arg-type]
    return replace(actual, placements={**actual.placements, bot(number): home})


def only(kind: type, actions: list[Action]) -> list[Action]:
    return [action for action in actions if isinstance(action, kind)]


# --- a bot -----------------------------------------------------------------------------------------------------------
def test_nothing_wanted_is_nothing_to_do() -> None:
    assert plan([], [], NOBODY, Limits(), NOW) == []


def test_a_wanted_bot_gets_a_place() -> None:
    assert plan(wanted(1), [], NOBODY, Limits(), NOW) == [Place(bot(1), HUB.id, 1)]


def test_a_placed_bot_without_a_service_is_started() -> None:
    actual = replace(living((HUB,), {1: 1}), services={})
    assert plan(wanted(1), [], actual, Limits(), NOW) == [EnsureUp(bot(1))]


def test_a_bot_that_runs_as_it_should_is_left_alone() -> None:
    assert plan(wanted(1), [], living((HUB,), {1: 1}), Limits(), NOW) == []


def test_a_service_that_is_not_as_wished_is_changed() -> None:
    actual = replace(living((HUB,), {1: 1}), services={bot(1): ServiceSeen("old", 1)})
    assert plan(wanted(1), [], actual, Limits(), NOW) == [EnsureUp(bot(1))]


def test_a_bot_that_is_only_kept_is_stopped_and_keeps_its_place() -> None:
    actual = living((replace(HUB, places=1),), {1: 1})
    actions = plan(wanted(2), [Kept(bot(1))], actual, Limits(max_hubs=1), NOW)
    assert actions == [EnsureDown(bot(1)), Wait(bot(2), NO_ROOM), Report(None, AT_MAXIMUM)]


def test_a_service_on_another_hub_than_its_volume_is_reported_and_not_touched() -> None:
    actual = replace(living((HUB, OTHER), {1: 1}), services={bot(1): ServiceSeen("d", 2)})
    [action] = plan(wanted(1), [], actual, MANY, NOW)
    assert isinstance(action, Report)


def test_a_service_whose_place_nobody_wrote_down_is_reported_and_gets_no_second_one() -> None:
    actual = replace(living((HUB, OTHER), {1: 1}), placements={})
    [action] = plan(wanted(1), [], actual, MANY, NOW)
    assert isinstance(action, Report)


def test_a_service_without_a_bot_is_reported() -> None:
    [action] = plan([], [], replace(NOBODY, services={bot(9): ServiceSeen("d", 1)}), Limits(), NOW)
    assert isinstance(action, Report)


# --- capacity --------------------------------------------------------------------------------------------------------
def test_without_a_hub_one_is_bought_and_the_bot_is_told() -> None:
    empty = Actual(hubs=(), placements={}, services={})
    assert plan(wanted(1), [], empty, Limits(), NOW) == [BuyHub(), Wait(bot(1), ROOM_COMES)]


def test_the_fullest_hub_is_filled_first() -> None:
    assert Place(bot(2), 2, 1) in plan(wanted(1, 2), [], living((HUB, OTHER), {1: 2}), MANY, NOW)


def test_a_full_hub_takes_no_more() -> None:
    actual = living((replace(HUB, places=1), OTHER), {1: 1})
    assert plan(wanted(1, 2), [], actual, MANY, NOW) == [Place(bot(2), 2, 1)]


@pytest.mark.parametrize("state", ["requested", "booting", "draining", "destroying", "failed"])
def test_only_a_ready_hub_takes_bots(state: str) -> None:
    actions = plan(wanted(1), [], replace(NOBODY, hubs=(replace(HUB, state=state),)), Limits(), NOW)
    assert not only(Place, actions)


def test_a_hub_out_of_sight_takes_no_bots() -> None:
    assert not only(Place, plan(wanted(1), [], replace(NOBODY, hubs=(replace(HUB, in_sight=False),)), Limits(), NOW))


def test_a_machine_on_its_way_counts_as_room() -> None:
    actions = plan(wanted(1), [], Actual((COMING,), {}, {}), MANY, NOW)
    assert actions == [Wait(bot(1), ROOM_COMES), EnsureHub(2)]


def test_no_more_is_bought_than_the_machine_on_its_way_lacks() -> None:
    actual = living((replace(HUB, places=1), COMING), {1: 1})
    assert not only(BuyHub, plan(wanted(*range(1, 17)), [], actual, MANY, NOW))
    assert len(only(BuyHub, plan(wanted(*range(1, 18)), [], actual, MANY, NOW))) == 1


def test_thirty_one_bots_need_three_hubs() -> None:
    empty = Actual(hubs=(), placements={}, services={})
    assert len(only(BuyHub, plan(wanted(*range(31)), [], empty, MANY, NOW))) == 3


def test_bots_of_four_places_need_a_hub_for_each_three() -> None:
    empty = Actual(hubs=(), placements={}, services={})
    big = [Wanted(bot(number), places=4) for number in range(7)]
    assert len(only(BuyHub, plan(big, [], empty, MANY, NOW))) == 3


def test_free_places_that_lie_apart_are_no_room_for_a_big_bot() -> None:
    actual = living((replace(HUB, places=3), replace(OTHER, places=15)), dict.fromkeys(range(2, 15), 2))
    actions = plan([Wanted(bot(1), places=4), *wanted(*range(2, 15))], [], actual, MANY, NOW)
    assert actions == [BuyHub(), Wait(bot(1), ROOM_COMES)]


def test_spare_places_are_bought_before_they_are_needed() -> None:
    actual = living((replace(HUB, places=1),), {1: 1})
    assert plan(wanted(1), [], actual, replace(MANY, spare_places=1), NOW) == [BuyHub()]


def test_a_machine_on_its_way_brings_the_spare_places() -> None:
    actual = living((replace(HUB, places=1), COMING), {1: 1})
    assert plan(wanted(1), [], actual, replace(MANY, spare_places=15), NOW) == [EnsureHub(2)]


def test_a_bot_too_big_for_any_machine_makes_us_buy_none() -> None:
    actual = replace(NOBODY, hubs=(replace(HUB, places=3),))
    assert plan([Wanted(bot(1), places=4)], [], actual, MANY, NOW) == [Wait(bot(1), TOO_BIG)]


def test_the_maximum_of_hubs_is_reported_and_not_passed() -> None:
    empty = Actual(hubs=(), placements={}, services={})
    actions = plan(wanted(*range(16)), [], empty, Limits(max_hubs=1), NOW)
    assert actions.count(BuyHub()) == 1 and Report(None, AT_MAXIMUM) in actions
    assert [action.reason for action in actions if isinstance(action, Wait)] == [ROOM_COMES] * 15 + [NO_ROOM]


@pytest.mark.parametrize("state", ["failed", "destroying"])
def test_a_machine_that_is_no_good_counts_until_it_is_gone(state: str) -> None:
    actual = Actual((HubSeen(1, state, 0, in_sight=False, deadline=LATER),), {}, {})
    assert not only(BuyHub, plan(wanted(1), [], actual, Limits(max_hubs=1), NOW))


def test_a_cloud_that_failed_us_is_left_alone_for_a_while() -> None:
    empty = Actual(hubs=(), placements={}, services={}, no_buy_until=LATER)
    assert plan(wanted(1), [], empty, Limits(), NOW) == [Wait(bot(1), NO_ROOM)]
    assert BuyHub() in plan(wanted(1), [], empty, Limits(), LATER)


# --- sizes -----------------------------------------------------------------------------------------------------------
def test_a_bot_that_has_paid_for_more_gets_it_if_its_hub_has_room() -> None:
    actual = living((HUB,), {1: 1})
    assert plan([Wanted(bot(1), 4, "d")], [], actual, Limits(), NOW) == [Resize(bot(1), 4)]


def test_a_bot_without_room_to_grow_runs_on_as_it_is() -> None:
    actual = living((replace(HUB, places=2), OTHER), {1: 1, 2: 2})
    wish = [Wanted(bot(1), 4, "d"), *wanted(2)]
    assert plan(wish, [], actual, MANY, NOW) == [Wait(bot(1), NO_ROOM_TO_GROW)]
    assert plan(wish, [], replace(actual, services={}), MANY, NOW) == [EnsureUp(bot(1)), EnsureUp(bot(2))]


def test_two_that_grow_do_not_take_the_same_room() -> None:
    actual = living((replace(HUB, places=3),), {1: 1, 2: 1})
    wish = [Wanted(bot(1), 2, "d"), Wanted(bot(2), 2, "d")]
    assert plan(wish, [], actual, Limits(), NOW) == [Resize(bot(1), 2), Wait(bot(2), NO_ROOM_TO_GROW)]


def test_a_bot_that_pays_for_less_shrinks_at_once() -> None:
    actual = placed(living((HUB,), {1: 1}), 1, places=4)
    assert plan(wanted(1), [], actual, Limits(), NOW) == [Resize(bot(1), 1)]


def test_a_deleted_bot_gives_its_places_back_once_it_is_down() -> None:
    actual = living((HUB,), {1: 1})
    assert plan([], [Kept(bot(1), places=0)], actual, Limits(), NOW) == [EnsureDown(bot(1))]
    assert plan([], [Kept(bot(1), places=0)], replace(actual, services={}), Limits(), NOW) == [Resize(bot(1), 0)]


def test_what_can_not_be_seen_to_be_down_gives_no_places_back() -> None:
    actual = replace(living((replace(HUB, in_sight=False),), {1: 1}), services={})
    assert not only(Resize, plan([], [Kept(bot(1), places=0)], actual, Limits(), NOW))


# --- a hub's way -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("state", ["requested", "booting"])
def test_a_hub_on_its_way_is_brought_on_until_it_is_late_or_fails(state: str) -> None:
    hub = HubSeen(1, state, 0, in_sight=False, deadline=LATER)
    assert plan([], [], Actual((hub,), {}, {}), Limits(), NOW) == [EnsureHub(1)]
    assert plan([], [], Actual((hub,), {}, {}), Limits(), LATER) == [GiveUpHub(1, TOO_LATE)]
    faulty = replace(hub, fault="No valid host was found.")
    assert plan([], [], Actual((faulty,), {}, {}), Limits(), NOW) == [GiveUpHub(1, "No valid host was found.")]


def test_a_failed_hub_is_destroyed_when_its_time_is_over() -> None:
    failed = HubSeen(1, "failed", 0, in_sight=False, deadline=LATER)
    assert plan([], [], Actual((failed,), {}, {}), Limits(), NOW) == []
    assert plan([], [], Actual((failed,), {}, {}), Limits(), LATER) == [DestroyHub(1)]


@pytest.mark.parametrize("state", ["failed", "destroying"])
def test_a_hub_that_is_lived_on_is_not_destroyed_but_reported(state: str) -> None:
    hub = replace(HUB, state=state)
    assert plan(wanted(1), [], living((hub,), {1: 1}), Limits(), NOW) == [Report(1, STILL_LIVED_ON)]
    just_a_service = Actual((hub,), {}, {bot(1): ServiceSeen("d", 1)})
    assert not only(DestroyHub, plan([], [], just_a_service, Limits(), NOW))


def test_a_stranger_is_adopted() -> None:
    assert plan([], [], replace(NOBODY, strangers=(bot(7),)), Limits(), NOW) == [Adopt(bot(7))]


def test_an_empty_hub_goes_after_its_cool_down_and_not_before() -> None:
    def empty(since: datetime) -> Actual:
        return living((HUB, replace(OTHER, emptied_at=since)), {1: 1})

    assert plan(wanted(1), [], empty(LONG_AGO), Limits(), NOW) == [DestroyHub(2)]
    assert plan(wanted(1), [], empty(NOW - timedelta(minutes=1)), Limits(), NOW) == []


def test_one_empty_hub_goes_at_a_time() -> None:
    empty = tuple(replace(HUB, id=number, emptied_at=LONG_AGO) for number in (1, 2, 3))
    assert plan([], [], Actual(empty, {}, {}), MANY, NOW) == [DestroyHub(3)]


def test_an_empty_hub_whose_places_are_the_spare_ones_stays() -> None:
    actual = living((replace(HUB, places=5), replace(OTHER, emptied_at=LONG_AGO)), {1: 1})
    assert plan(wanted(1), [], actual, replace(MANY, spare_places=5), NOW) == []
    assert plan(wanted(1), [], actual, replace(MANY, spare_places=4), NOW) == [DestroyHub(2)]


def test_an_empty_hub_that_is_needed_in_this_pass_stays() -> None:
    actual = living((replace(HUB, places=1), replace(OTHER, emptied_at=LONG_AGO)), {1: 1})
    assert plan(wanted(1, 2), [], actual, MANY, NOW) == [Place(bot(2), 2, 1)]


def test_an_empty_hub_where_even_the_smallest_moves_in_this_pass_stays() -> None:
    small = replace(HUB, id=3, places=5, emptied_at=LONG_AGO)
    actual = Actual((DRAINING, OTHER, small), {bot(1): PlacementSeen(1, places=0)}, {})
    assert plan([], [Kept(bot(1), places=0)], actual, MANY, NOW) == [StartMove(bot(1), 3)]


def test_none_goes_while_others_are_bought() -> None:
    small = replace(OTHER, places=3, emptied_at=LONG_AGO)
    actual = living((replace(HUB, places=5), small), dict.fromkeys(range(2, 5), 1))
    actions = plan([Wanted(bot(1), places=4), *wanted(2, 3, 4)], [], actual, replace(MANY, hub_places=5), NOW)
    assert actions == [BuyHub(), Wait(bot(1), ROOM_COMES)]


def test_a_hub_where_a_deleted_bots_volume_lives_is_never_destroyed() -> None:
    old = replace(OTHER, emptied_at=LONG_AGO)
    actual = Actual((HUB, old), {bot(1): PlacementSeen(2, places=0)}, {})
    assert plan([], [Kept(bot(1), places=0)], actual, MANY, NOW) == []


def test_the_last_hub_stays() -> None:
    assert plan([], [], Actual((replace(HUB, emptied_at=LONG_AGO),), {}, {}), Limits(), NOW) == []


def test_a_hub_out_of_sight_is_not_what_is_left_when_another_is_destroyed() -> None:
    hubs = (replace(HUB, emptied_at=LONG_AGO), replace(OTHER, in_sight=False))
    assert not only(DestroyHub, plan([], [], Actual(hubs, {}, {}), MANY, NOW))


# --- loss and doubt --------------------------------------------------------------------------------------------------
def test_a_bot_on_a_hub_out_of_sight_is_neither_started_nor_moved() -> None:
    actual = replace(living((replace(HUB, in_sight=False), OTHER), {1: 1}), services={})
    assert only(Wait, plan(wanted(1), [], actual, MANY, NOW)) == [Wait(bot(1), LOST_SIGHT)]
    assert not only(Place, plan(wanted(1), [], actual, MANY, NOW))


def test_a_hub_out_of_sight_whose_machine_is_there_gets_its_mark_again_and_is_not_fenced() -> None:
    lost = replace(HUB, in_sight=False, lost_at=LONG_AGO)
    assert plan([], [], Actual((lost,), {}, {}), Limits(), NOW) == [EnsureHub(1)]


def test_a_hub_is_fenced_once_its_machine_is_gone_and_it_has_been_out_of_sight_for_a_while() -> None:
    actual = living((GONE_DARK, OTHER), {1: 1})
    assert FenceHub(1) in plan(wanted(1), [], actual, MANY, NOW)
    just_now = replace(actual, hubs=(replace(GONE_DARK, lost_at=NOW - timedelta(minutes=1)), OTHER))
    assert plan(wanted(1), [], just_now, MANY, NOW) == [Wait(bot(1), LOST_SIGHT)]


def test_of_several_hubs_whose_machines_are_gone_one_is_fenced_at_a_time() -> None:
    hubs = (GONE_DARK, replace(GONE_DARK, id=3), OTHER)
    assert only(FenceHub, plan([], [], Actual(hubs, {}, {}), MANY, NOW)) == [FenceHub(1)]


def test_no_hub_is_fenced_while_the_cloud_lists_no_machine_at_all() -> None:
    hubs = (GONE_DARK, replace(GONE_DARK, id=2, lost_at=NOW))
    assert plan([], [], Actual(hubs, {}, {}), MANY, NOW) == [Report(1, NONE_LISTED)]
    assert FenceHub(1) in plan([], [], Actual(hubs, {}, {}, strangers=(bot(7),)), MANY, NOW)


@pytest.mark.parametrize("state", ["ready", "draining", "destroying", "failed"])
def test_a_fenced_hub_whose_machine_is_listed_again_is_fenced_no_more_and_never_destroyed(state: str) -> None:
    back = replace(HUB, state=state, fenced=True, is_back=True)
    assert plan([], [], Actual((back, OTHER), {}, {}), MANY, NOW) == [UnfenceHub(1)]


def test_a_hub_that_answers_is_not_fenced_whatever_the_cloud_says() -> None:
    odd = replace(HUB, has_machine=False, lost_at=LONG_AGO)
    assert plan(wanted(1), [], living((odd,), {1: 1}), Limits(), NOW) == [Report(1, NOT_LISTED)]


def test_the_clouds_complaint_about_a_machine_that_answers_is_only_reported() -> None:
    assert plan(wanted(1), [], living((replace(HUB, fault="ERROR"),), {1: 1}), Limits(), NOW) == [Report(1, "ERROR")]


def test_a_second_machine_of_a_hub_that_answers_is_reported() -> None:
    assert plan([], [], Actual((replace(HUB, has_twin=True),), {}, {}), Limits(), NOW) == [Report(1, TWIN)]


def test_a_fenced_hub_is_destroyed_when_what_was_on_it_is_written_off() -> None:
    actual = living((replace(GONE_DARK, fenced=True), OTHER), {1: 1})
    assert FenceHub(1) in plan(wanted(1), [], actual, MANY, NOW)
    assert DestroyHub(1) in plan(wanted(1), [], placed(actual, 1, lost=True), MANY, NOW)


def test_a_bot_that_was_lost_with_its_hub_waits_for_a_restore_and_is_started_nowhere() -> None:
    actual = placed(living((OTHER,), {1: 1}), 1, lost=True)
    assert plan(wanted(1), [], actual, MANY, NOW) == [EnsureDown(bot(1))]
    assert plan(wanted(1), [], replace(actual, services={}), MANY, NOW) == [Wait(bot(1), LOST_WITH_HUB)]


# --- drain -----------------------------------------------------------------------------------------------------------
def test_bots_leave_a_draining_hub_two_at_once() -> None:
    actual = living((DRAINING, OTHER), {1: 1, 2: 1, 3: 1})
    assert plan(wanted(1, 2, 3), [], actual, MANY, NOW) == [StartMove(bot(1), 2), StartMove(bot(2), 2)]
    begun = placed(actual, 1, moving_to=2)
    assert plan(wanted(1, 2, 3), [], begun, MANY, NOW) == [EnsureMoved(bot(1)), StartMove(bot(2), 2)]


def test_stopped_and_deleted_bots_leave_too() -> None:
    actual = replace(placed(living((DRAINING, OTHER), {1: 1, 2: 1}), 2, places=0), services={})
    kept = [Kept(bot(1)), Kept(bot(2), places=0)]
    assert plan([], kept, actual, MANY, NOW) == [StartMove(bot(1), 2), StartMove(bot(2), 2)]


def test_a_bot_that_can_not_leave_yet_runs_on() -> None:
    actual = replace(living((DRAINING,), {1: 1}), services={})
    assert plan(wanted(1), [], actual, Limits(max_hubs=2), NOW) == [EnsureUp(bot(1)), BuyHub()]


def test_room_is_bought_for_those_who_must_leave() -> None:
    actual = living((DRAINING, replace(OTHER, places=5)), dict.fromkeys(range(15), 1))
    actions = plan(wanted(*range(15)), [], actual, replace(MANY, hub_places=5), NOW)
    assert len(only(StartMove, actions)) == 2 and actions.count(BuyHub()) == 2


def test_those_who_wait_for_their_first_place_come_before_those_who_move() -> None:
    actual = living((DRAINING, replace(OTHER, places=1)), {1: 1})
    assert Place(bot(2), 2, 1) in plan(wanted(1, 2), [], actual, MANY, NOW)


def test_a_move_whose_hub_takes_no_bots_any_more_is_cancelled() -> None:
    actual = placed(living((DRAINING, replace(OTHER, state="draining")), {1: 1}), 1, moving_to=2)
    assert CancelMove(bot(1)) in plan(wanted(1), [], actual, MANY, NOW)
    unseen = replace(actual, hubs=(DRAINING, replace(OTHER, in_sight=False)))
    assert CancelMove(bot(1)) in plan(wanted(1), [], unseen, MANY, NOW)


def test_a_move_from_a_hub_that_is_drained_no_more_is_cancelled() -> None:
    actual = placed(living((HUB, OTHER), {1: 1}), 1, moving_to=2)
    assert plan(wanted(1), [], actual, MANY, NOW) == [CancelMove(bot(1))]


def test_a_move_from_a_hub_out_of_sight_waits() -> None:
    actual = placed(living((replace(DRAINING, in_sight=False), OTHER), {1: 1}), 1, moving_to=2)
    assert only(Wait, plan(wanted(1), [], actual, MANY, NOW)) == [Wait(bot(1), LOST_SIGHT)]


def test_a_move_from_a_hub_that_was_lost_is_cancelled_before_its_bot_waits() -> None:
    actual = placed(living((replace(GONE_DARK, fenced=True), OTHER), {1: 1}), 1, moving_to=2, lost=True)
    assert CancelMove(bot(1)) in plan(wanted(1), [], actual, MANY, NOW)


def test_a_move_holds_its_places_on_both_hubs() -> None:
    actual = placed(living((DRAINING, replace(OTHER, places=1)), {1: 1}), 1, moving_to=2)
    actions = plan(wanted(1, 2), [], actual, Limits(max_hubs=2), NOW)
    assert actions == [EnsureMoved(bot(1)), Wait(bot(2), NO_ROOM), Report(None, AT_MAXIMUM)]


def test_a_hub_that_somebody_moves_to_is_not_destroyed() -> None:
    actual = living((DRAINING, replace(OTHER, emptied_at=LONG_AGO), replace(HUB, id=3)), {1: 1})
    moving = placed(placed(actual, 1, places=0), 1, moving_to=2)
    assert not only(DestroyHub, plan([], [Kept(bot(1), places=0)], moving, MANY, NOW))


def test_a_drained_hub_is_destroyed_after_a_rest_and_not_before() -> None:
    drained = replace(DRAINING, emptied_at=NOW - timedelta(minutes=9))
    actual = living((drained, OTHER), {1: 2})
    assert plan(wanted(1), [], actual, MANY, NOW) == []
    assert plan(wanted(1), [], actual, MANY, LATER) == [DestroyHub(1)]


def test_a_drained_hub_stays_until_whoever_may_come_from_there_is_started() -> None:
    actual = replace(living((replace(DRAINING, emptied_at=LONG_AGO), OTHER), {1: 2}), services={})
    assert plan(wanted(1), [], actual, MANY, NOW) == [EnsureUp(bot(1))]


def test_two_move_at_once_in_the_whole_fleet() -> None:
    hubs = (DRAINING, replace(DRAINING, id=2), replace(HUB, id=3))
    actual = living(hubs, {1: 1, 2: 1, 3: 2, 4: 2})
    assert len(plan(wanted(1, 2, 3, 4), [], actual, MANY, NOW)) == 2
    begun = placed(placed(actual, 1, moving_to=3), 2, moving_to=3)
    assert not only(StartMove, plan(wanted(1, 2, 3, 4), [], begun, MANY, NOW))
    dark = replace(begun, hubs=(replace(DRAINING, in_sight=False), *hubs[1:]))
    assert len(only(StartMove, plan(wanted(1, 2, 3, 4), [], dark, MANY, NOW))) == 2, "who waits keeps no other waiting"


def test_a_move_that_is_refused_again_and_again_is_given_up_and_the_bot_runs_on_for_a_while() -> None:
    moving = replace(placed(living((DRAINING, OTHER), {1: 1}), 1, moving_to=2, refusals=4), services={})
    assert plan(wanted(1), [], moving, MANY, NOW) == [EnsureMoved(bot(1))]
    assert plan(wanted(1), [], placed(moving, 1, refusals=5), MANY, NOW) == [CancelMove(bot(1), given_up=True)]
    stays = placed(moving, 1, moving_to=None, stays=True)
    assert plan(wanted(1), [], stays, MANY, NOW) == [EnsureUp(bot(1))]


# --- consolidation ---------------------------------------------------------------------------------------------------
def test_the_drain_of_a_hub_whose_bots_fit_elsewhere_saves_it() -> None:
    actual = living((HUB, OTHER), {1: 1, 2: 2, 3: 2})
    assert savings(actual, MANY) == [Saving(1, ((bot(1), 2),))]


def test_no_drain_is_proposed_that_eats_the_spare_places() -> None:
    actual = living((HUB, OTHER), {1: 1, 2: 2, 3: 2})
    assert savings(actual, replace(MANY, spare_places=13)) == []
    assert savings(actual, replace(MANY, spare_places=12)) != []


def test_nobody_is_moved_to_an_empty_hub_to_save_one() -> None:
    assert savings(living((HUB, OTHER), {1: 1}), MANY) == []


def test_savings_can_be_done_one_after_another() -> None:
    hubs = tuple(replace(HUB, id=number, places=4) for number in (1, 2, 3))
    actual = living(hubs, {1: 1, 2: 2, 3: 2, 4: 3, 5: 3})
    assert [saving.hub for saving in savings(actual, MANY)] == [1]
    assert len(savings(living(hubs, {1: 1, 2: 2, 3: 3}), MANY)) == 2


def test_a_hub_that_is_drained_already_is_no_saving() -> None:
    assert savings(living((DRAINING, OTHER), {1: 1, 2: 2}), MANY) == []
