"""A crash is written down once, what somebody asked for is none, and a pub that crashes again and again rests."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from orchestrator import crashes, jobs
from orchestrator.models import Hub, Placement
from orchestrator.planner import (
    Actual,
    EnsureDown,
    EnsureUp,
    HubSeen,
    Limits,
    PlacementSeen,
    ServiceSeen,
    Wait,
    Wanted,
    plan,
)
from orchestrator.reconcile import run_here, run_pass
from orchestrator.record import in_plain_words
from orchestrator.swarm import Ended
from orchestrator.swarm.memory import MemorySwarm
from orchestrator.world import observe
from pubs.models import Bot, Event, Status
from pubs.shown import shown
from tests.support.make import Maker

Queries = Any


@pytest.fixture
def bot(make: Maker, memory_swarm: MemorySwarm) -> Bot:
    """One that is up, and was started long ago."""
    made = make.bot(paid=True)
    passes(4)
    Bot.objects.update(started_at=ago(60), changed_at=ago(60))
    return fresh(made)


@pytest.fixture(autouse=True)
def few_crashes(settings: Any) -> None:
    settings.CRASHES_MAX, settings.CRASH_MINUTES = 3, 10


def passes(count: int) -> None:
    for _ in range(count):
        run_pass(ask=run_here)


def ago(minutes: float) -> datetime:
    return timezone.now() - timedelta(minutes=minutes)


def fresh(bot: Bot) -> Bot:
    return Bot.objects.get(pk=bot.pk)


def home_of(bot: Bot) -> Placement:
    return Placement.objects.get(bot=bot)


def ended(bot: Bot, at: datetime | None = None, exit_code: int = 1, ran: float = 10, **more: bool) -> Ended:
    """Its container has run for so many minutes."""
    at = at or timezone.now()
    began = at - timedelta(minutes=ran)
    return Ended(
        bot_id=bot.pk,
        container=uuid4().hex,
        began=began,
        at=at,
        exit_code=exit_code,
        out_of_memory=more.get("out_of_memory", False),
        unhealthy=more.get("unhealthy", False),
    )


def kinds(bot: Bot) -> list[str]:
    return list(bot.events.order_by("at", "pk").values_list("kind", flat=True))


def count(bot: Bot, kind: str = Event.Kind.CRASHED) -> int:
    return bot.events.filter(kind=kind).count()


def loop(bot: Bot) -> None:
    """It was started long ago, and now it crashes as often as it may not."""
    Bot.objects.filter(pk=bot.pk).update(started_at=ago(60))
    crashes.note([ended(bot, ago(0.01 * number), ran=0.1) for number in range(3)])


# --- one crash -------------------------------------------------------------------------------------------------------
def test_a_crash_is_written_down_once_however_often_it_is_told(bot: Bot) -> None:
    crash = ended(bot, exit_code=1)
    for _ in range(3):
        crashes.note([crash])
    [event] = bot.events.filter(kind=Event.Kind.CRASHED)
    assert (event.at, event.details["exit_code"]) == (crash.at, 1)


def test_what_the_engines_say_is_heard_by_the_twin_too(bot: Bot, memory_swarm: MemorySwarm) -> None:
    crashes.note([memory_swarm.crash(bot.pk, 137, out_of_memory=True)])
    assert count(bot) == 1


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ({"exit_code": 137, "out_of_memory": True}, "larger size"),
        ({"exit_code": 137, "unhealthy": True}, "no longer answered its health check, so it was restarted"),
        ({"exit_code": 0, "unhealthy": True}, "no longer answered its health check, so it was restarted"),
        ({"exit_code": 137}, "ended from outside"),
        ({"exit_code": 75}, "volume was still in use"),
        ({"exit_code": 78}, "does not hold its identity"),
        ({"exit_code": 255}, "machine stopped"),
        ({"exit_code": 1}, "software failed"),
    ],
)
def test_a_crash_says_why_in_words_for_its_owner(bot: Bot, end: dict[str, Any], words: str) -> None:
    crashes.note([ended(bot, **end)])
    event = bot.events.get(kind=Event.Kind.CRASHED)
    assert words in event.words
    assert event.details == {"out_of_memory": False, "unhealthy": False} | end


@pytest.mark.parametrize("exit_code", [0, 143])
def test_a_pub_that_was_asked_to_end_and_did_is_no_crash(bot: Bot, exit_code: int) -> None:
    crashes.note([ended(bot, exit_code=exit_code)])
    assert count(bot) == 0


def test_one_that_had_to_be_killed_at_its_owners_restart_is_no_crash(bot: Bot) -> None:
    bot.restart()
    passes(1)
    crashes.note([ended(bot, timezone.now() + timedelta(seconds=31), exit_code=137)])
    assert count(bot) == 0
    bot.restart()
    passes(1)
    Bot.objects.update(started_at=timezone.now() + timedelta(minutes=5))
    crashes.note([ended(bot, timezone.now() + timedelta(seconds=31), exit_code=137)])
    assert count(bot) == 0, "also when it was restarted again since"


def test_what_crashes_right_after_a_restart_is_a_crash(bot: Bot) -> None:
    bot.restart()
    passes(1)
    crashes.note([ended(bot, timezone.now() + timedelta(seconds=20), ran=0.2)])
    assert count(bot) == 1


@pytest.mark.parametrize(
    "wish",
    [{"switched_on": False}, {"paid": False}, {"deleted_at": datetime(2026, 12, 3, tzinfo=UTC)}],
)
def test_a_bot_that_should_not_run_does_not_crash(bot: Bot, wish: dict[str, Any]) -> None:
    Bot.objects.update(**wish)
    crashes.note([ended(bot, exit_code=137)])
    assert count(bot) == 0


def test_a_bot_that_moves_does_not_crash(bot: Bot) -> None:
    Placement.objects.update(moving_to=Hub.objects.create(name="hub-2", state="ready"))
    crashes.note([ended(bot, exit_code=137)])
    assert count(bot) == 0


def test_the_same_crash_told_by_two_broadcasters_at_once_is_one(bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    crash = ended(bot)

    def slow(bots: Any) -> Any:
        monkeypatch.undo()
        crashes.note([crash])
        return crashes._orders(bots)

    monkeypatch.setattr(crashes, "_orders", slow)
    crashes.note([crash])
    assert count(bot) == 1


def test_many_crashes_take_as_many_queries_as_one(bot: Bot, make: Maker, django_assert_num_queries: Queries) -> None:
    bots = [bot, *(make.bot(paid=True) for _ in range(9))]
    passes(4)
    Bot.objects.update(started_at=ago(60))
    many = [ended(each) for each in bots]
    with django_assert_num_queries(6):  # what is known, who should run, what was ordered, and the writing
        crashes.note(many[:1])
    with django_assert_num_queries(6):
        crashes.note(many)
    with django_assert_num_queries(1):
        crashes.note(many)
    with django_assert_num_queries(0):
        crashes.note([ended(each, exit_code=0) for each in bots])
    assert Event.objects.filter(kind=Event.Kind.CRASHED).count() == 10


def test_the_status_says_what_the_engine_knows_of_a_kill(bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    complaint = "task: non-zero exit (137)"
    monkeypatch.setattr(MemorySwarm, "_complaint", lambda self, pub: complaint)
    passes(1)
    assert "ended from outside" in fresh(bot).reason
    crashes.note([ended(bot, exit_code=137, out_of_memory=True)])
    passes(1)
    assert fresh(bot).reason == crashes.OUT_OF_MEMORY


@pytest.mark.parametrize(("code", "words"), crashes.WORDS.items())
def test_the_status_and_the_timeline_say_the_same_of_an_exit_code(code: int, words: str) -> None:
    assert in_plain_words(f"task: non-zero exit ({code})").startswith(words)


# --- one after the other ---------------------------------------------------------------------------------------------
def test_a_pub_that_crashes_again_and_again_is_stopped_and_says_until_when(bot: Bot, memory_swarm: MemorySwarm) -> None:
    loop(bot)
    passes(2)
    until = home_of(bot).crash_rest_until
    assert until and timedelta(minutes=9) < until - timezone.now() < timedelta(minutes=10)
    assert bot.pk not in memory_swarm.services and not memory_swarm.running_on(bot.pk)
    rested = fresh(bot)
    assert (rested.status, rested.rests_until, shown(rested).word) == (Status.NONE, until, "resting")
    assert "It crashed 3 times within 10 minutes" in rested.reason and f"{until:%H:%M} UTC" in rested.reason
    assert "software failed" in rested.reason and crashes.loop_words(rested) == rested.reason
    assert kinds(bot)[-1] == Event.Kind.RESTS and count(bot, Event.Kind.RESTS) == 1


def test_its_place_its_port_and_its_volume_are_kept(bot: Bot, memory_swarm: MemorySwarm) -> None:
    before, volumes = home_of(bot), dict(memory_swarm.nodes[memory_swarm.node.id].volumes)
    loop(bot)
    passes(3)
    after = home_of(bot)
    assert (after.hub_id, after.port, after.places) == (before.hub_id, before.port, before.places)
    assert memory_swarm.nodes[memory_swarm.node.id].volumes == volumes


def test_too_few_crashes_and_old_ones_stop_nothing(bot: Bot, memory_swarm: MemorySwarm) -> None:
    crashes.note([ended(bot) for _ in range(2)])
    crashes.note([ended(bot, ago(11)) for _ in range(5)])
    passes(2)
    assert bot.pk in memory_swarm.services and home_of(bot).crash_rest_until is None


def test_a_machine_that_loses_its_power_again_and_again_sends_no_pub_into_a_rest(
    bot: Bot, memory_swarm: MemorySwarm
) -> None:
    crashes.note([ended(bot, ago(0.01 * number), exit_code=255, ran=0.1) for number in range(9)])
    passes(2)
    assert count(bot) == 9 and home_of(bot).crash_rest_until is None
    crashes.note([ended(bot) for _ in range(3)])
    passes(2)
    rests = bot.events.get(kind=Event.Kind.RESTS)
    assert "It crashed 3 times" in rests.words and "software failed" in rests.words


def test_a_rest_whose_event_was_deleted_goes_on_and_says_why(bot: Bot, memory_swarm: MemorySwarm) -> None:
    loop(bot)
    passes(2)
    bot.events.all().delete()
    passes(2)
    until = home_of(bot).crash_rest_until
    assert until and bot.pk not in memory_swarm.services
    words = f"It crashed too often, so it was stopped. It is tried again at {until:%-d %B %Y, %H:%M} UTC"
    assert fresh(bot).reason.startswith(words)


def test_a_job_asked_for_before_the_rest_does_not_start_it(bot: Bot, memory_swarm: MemorySwarm) -> None:
    loop(bot)
    passes(2)
    jobs.ensure_pub_up(str(bot.pk))
    assert bot.pk not in memory_swarm.services


def test_a_job_asked_for_in_the_rest_does_not_stop_it_after(bot: Bot, memory_swarm: MemorySwarm) -> None:
    loop(bot)
    passes(2)
    bot.restart()
    passes(2)
    jobs.ensure_pub_down(str(bot.pk))
    assert bot.pk in memory_swarm.services


def rest_is_over() -> None:
    """As if its time had come, and what happened before were as much older."""
    Placement.objects.update(crash_rest_until=timezone.now())
    Event.objects.filter(kind=Event.Kind.CRASHED).update(at=ago(30))


def test_after_its_rest_it_is_tried_again(bot: Bot, memory_swarm: MemorySwarm) -> None:
    loop(bot)
    passes(2)
    rest_is_over()
    passes(3)
    tried = fresh(bot)
    assert (tried.status, tried.reason, tried.rests_until) == (Status.UP, "", None)
    assert kinds(bot)[-1] == Event.Kind.RESUMED and count(bot, Event.Kind.RESUMED) == 1


def test_each_further_rest_is_twice_as_long_up_to_six_hours(bot: Bot) -> None:
    lengths = []
    for _ in range(8):
        loop(bot)
        passes(2)
        until = home_of(bot).crash_rest_until
        assert until
        lengths.append(round((until - timezone.now()).total_seconds() / 60))
        rest_is_over()
        passes(2)
        Placement.objects.update(crash_rested_at=ago(15))
    assert lengths == [10, 20, 40, 80, 160, 320, 360, 360]


def test_an_hour_up_makes_the_next_rest_a_short_one_again(bot: Bot) -> None:
    loop(bot)
    passes(2)
    rest_is_over()
    passes(3)
    assert home_of(bot).crash_rests == 1
    Bot.objects.update(changed_at=ago(59))
    passes(1)
    assert home_of(bot).crash_rests == 1
    Bot.objects.update(changed_at=ago(61))
    passes(1)
    assert home_of(bot).crash_rests == 0


def test_its_owners_restart_ends_the_rest_at_once(bot: Bot, memory_swarm: MemorySwarm) -> None:
    loop(bot)
    passes(2)
    fresh(bot).restart()
    passes(3)
    assert fresh(bot).status == Status.UP and home_of(bot).crash_rest_until is None
    resumed = bot.events.get(kind=Event.Kind.RESUMED)
    assert resumed.words == "You restarted it before its rest was over."
    assert count(bot, Event.Kind.RESTARTED) == 0, "what did not run did not restart"


def test_stop_and_start_end_the_rest_too(bot: Bot) -> None:
    loop(bot)
    passes(2)
    fresh(bot).stop()
    passes(2)
    assert fresh(bot).reason == "" and home_of(bot).crash_rest_until is None
    fresh(bot).start()
    passes(3)
    assert fresh(bot).status == Status.UP and count(bot, Event.Kind.RESTS) == 1


def test_a_pub_that_loops_on_after_its_owners_restart_rests_longer(bot: Bot, memory_swarm: MemorySwarm) -> None:
    loop(bot)
    passes(2)
    fresh(bot).restart()
    passes(3)
    passes(1)
    assert bot.pk in memory_swarm.services, "what crashed before does not count"
    Placement.objects.update(crash_rested_at=ago(1))
    loop(bot)
    passes(2)
    assert bot.pk not in memory_swarm.services and home_of(bot).crash_rests == 2


def test_what_is_out_of_sight_is_left_alone(bot: Bot, memory_swarm: MemorySwarm) -> None:
    loop(bot)
    memory_swarm.cut(memory_swarm.node.id)
    passes(2)
    assert home_of(bot).crash_rest_until is None


def test_a_pass_takes_one_query_more_when_nothing_crashed_and_no_more_for_many_that_loop(
    bot: Bot, make: Maker, django_assert_num_queries: Queries
) -> None:
    world = observe()
    with django_assert_num_queries(1):
        crashes.judge(world)
    counts = []
    for bots in ([bot], [make.bot(paid=True) for _ in range(9)]):
        passes(4)
        for each in bots:
            loop(each)
        world = observe()
        with CaptureQueriesContext(connection) as captured:
            crashes.judge(world)
        counts.append(len(captured))
    assert counts[0] == counts[1] <= 10
    assert Placement.objects.exclude(crash_rest_until=None).count() == 10


# --- the plan --------------------------------------------------------------------------------------------------------
RESTS = "It crashed too often."


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    resting=st.sets(st.integers(1, 8)),
    serving=st.sets(st.integers(1, 8)),
    places=st.dictionaries(st.integers(1, 8), st.sampled_from([1, 2, 4])),
    in_sight=st.booleans(),
    draining=st.booleans(),
)
def test_what_rests_is_never_started_keeps_its_place_and_says_why(
    resting: set[int], serving: set[int], places: dict[int, int], in_sight: bool, draining: bool
) -> None:
    ids = {number: UUID(int=number) for number in range(1, 9)}
    hub = HubSeen(1, "draining" if draining else "ready", 15, in_sight=in_sight)
    homes = {ids[number]: PlacementSeen(1, rests=RESTS if number in resting else "") for number in ids}
    services = {ids[number]: ServiceSeen("d", 1) for number in serving}
    wanted = [Wanted(ids[number], places.get(number, 1), "d") for number in ids]
    steps = plan(wanted, [], Actual((hub,), homes, services), Limits(), datetime(2026, 12, 3, tzinfo=UTC))
    for number in resting:
        about = [step for step in steps if getattr(step, "bot", None) == ids[number]]
        assert len(about) <= 1 and EnsureUp(ids[number]) not in about
        if in_sight:
            assert (EnsureDown(ids[number]) in about) == (number in serving)
            assert about or draining
        if in_sight and not draining and number not in serving and places.get(number, 1) == 1:
            assert about == [Wait(ids[number], RESTS)]
    assert not any(isinstance(step, EnsureDown) and step.bot not in {ids[n] for n in resting} for step in steps)
