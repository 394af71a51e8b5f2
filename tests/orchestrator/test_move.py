"""Bots that leave a hub which is drained: with all that they know, and never at two places at once."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone

from mailer.models import Message
from orchestrator import jobs
from orchestrator.models import Hub, Placement
from orchestrator.reconcile import run_here, run_pass
from orchestrator.record import MOVING, TROUBLE
from orchestrator.swarm import Output
from orchestrator.swarm.memory import MemorySwarm, SlowToStop, SpoilsCopies
from pubs.models import Bot, Status
from tests.support.make import Maker

FEED = 4711


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch, settings: Any) -> MemorySwarm:
    """Two hubs may be bought, and each pub says how long its feed is."""
    settings.MACHINES = "orchestrator.machines.memory.MemoryMachines"
    settings.MAX_HUBS, settings.SPARE_PLACES = 2, 15
    return use(monkeypatch, MemorySwarm())


def use(monkeypatch: pytest.MonkeyPatch, swarm: MemorySwarm, like: MemorySwarm | None = None) -> MemorySwarm:
    """`like`: it goes on where that one was."""
    if like:
        swarm.__dict__.update(like.__dict__)
    said = json.dumps({"ok": True, "result": {"sequence": FEED}})
    swarm.answers["feed.head"] = lambda argv: Output(0, said, "")
    monkeypatch.setattr("orchestrator.swarm.connect", lambda: swarm)
    return swarm


def passes(count: int) -> None:
    for _ in range(count):
        run_pass(ask=run_here)


def never_twice(twin: MemorySwarm) -> None:
    for bot in Bot.objects.all():
        assert len(twin.running_on(bot.pk)) <= 1


@pytest.fixture
def home(make: Maker, twin: MemorySwarm) -> Hub:
    """Three bots run on it; a second hub is ready and empty."""
    for _ in range(3):
        make.bot(paid=True)
    passes(7)
    assert Bot.objects.filter(status="up").count() == 3 and Hub.objects.filter(state="ready").count() == 2
    hub = Placement.objects.first().hub
    for bot in Bot.objects.all():
        volumes = twin.nodes[hub.node_id].volumes
        volumes[bot.pk] = replace(volumes[bot.pk], sequence=FEED)
    return hub


def drain(hub: Hub) -> None:
    Hub.objects.filter(pk=hub.pk, state="ready").become(Hub.State.DRAINING, "Staff drain it.")


def test_a_drained_hub_s_bots_move_with_volume_identity_port_and_address_and_then_it_goes(
    home: Hub, twin: MemorySwarm
) -> None:
    before = {bot.pk: (bot.ssb_id, bot.address, bot.placement.port) for bot in Bot.objects.all()}
    drain(home)
    for _ in range(14):
        passes(1)
        never_twice(twin)
    for bot in Bot.objects.all():
        assert (bot.ssb_id, bot.address, bot.placement.port) == before[bot.pk]
        assert bot.status == Status.UP and not bot.moving and bot.placement.hub != home
        assert twin.nodes[bot.placement.hub.node_id].volumes[bot.pk].sequence == FEED
        assert twin.services[bot.pk].min_seq == FEED
    home.refresh_from_db()
    assert home.state == "gone"


def test_two_at_once_and_the_others_run_on(home: Hub, twin: MemorySwarm, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, SlowToStop(), like=twin)
    drain(home)
    passes(4)
    assert Placement.objects.exclude(moving_to=None).count() == 2
    assert Bot.objects.filter(status="up", moving=False).count() == 1


def test_what_still_runs_is_not_copied(home: Hub, twin: MemorySwarm, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = use(monkeypatch, SlowToStop(), like=twin)
    drain(home)
    passes(5)
    assert Placement.objects.filter(hub=home).count() == 3
    bot = Placement.objects.exclude(moving_to=None).first().bot
    assert (bot.moving, bot.status, bot.reason) == (True, Status.NONE, MOVING)
    slow.nodes[home.node_id].containers.clear()
    use(monkeypatch, MemorySwarm(), like=slow)
    passes(12)
    assert not Placement.objects.filter(hub=home).exists() and Bot.objects.filter(status="up").count() == 3


def test_a_pass_follows_soon_while_a_bot_moves(home: Hub, twin: MemorySwarm, monkeypatch: pytest.MonkeyPatch) -> None:
    Bot.objects.update(started_at=timezone.now() - timedelta(hours=1))
    assert not run_pass(ask=run_here).hurry
    use(monkeypatch, SlowToStop(), like=twin)
    drain(home)
    passes(2)
    assert run_pass(ask=run_here).hurry


def test_a_copy_that_went_wrong_is_made_again_and_the_bot_waits_longer_each_time(
    home: Hub, twin: MemorySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, SpoilsCopies(), like=twin)
    drain(home)
    rests = []
    for _ in range(4):
        passes(2)
        place = Placement.objects.exclude(moving_to=None).first()
        assert place.hub == home and "differs" in place.trouble
        rests.append((place.rests_until - timezone.now()).total_seconds())
        Placement.objects.update(rests_until=timezone.now() - timedelta(seconds=1))
    assert [round(rest / 15) for rest in rests] == [1, 2, 4, 8]
    use(monkeypatch, MemorySwarm(), like=twin)
    passes(12)
    assert Bot.objects.filter(status="up").count() == 3 and not Placement.objects.exclude(refusals=0).exists()


def test_a_move_that_does_not_succeed_is_given_up_and_the_pub_is_up_where_it_was(
    home: Hub, twin: MemorySwarm, monkeypatch: pytest.MonkeyPatch, make: Maker
) -> None:
    make.user("stella", is_staff=True)
    use(monkeypatch, SpoilsCopies(), like=twin)
    drain(home)
    passes(3)
    place = Placement.objects.exclude(moving_to=None).first()
    assert Bot.objects.get(pk=place.bot_id).reason == TROUBLE
    for _ in range(20):
        Placement.objects.update(rests_until=None)
        passes(1)
    assert not Placement.objects.exclude(moving_to=None).exists() and not Placement.objects.exclude(hub=home).exists()
    assert Bot.objects.filter(status="up", reason="").count() == 3
    assert "differs" in Message.objects.filter(text__contains="was given up for an hour").first().text
    use(monkeypatch, MemorySwarm(), like=twin)
    Placement.objects.update(stays_until=timezone.now())
    passes(14)
    assert not Placement.objects.filter(hub=home).exists() and Bot.objects.filter(status="up").count() == 3


def test_one_that_does_not_stop_for_minutes_is_trouble(
    home: Hub, twin: MemorySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, SlowToStop(), like=twin)
    drain(home)
    passes(4)
    assert not Placement.objects.exclude(refusals=0).exists(), "it takes its time"
    Bot.objects.filter(status=Status.NONE).update(changed_at=timezone.now() - timedelta(minutes=3))
    passes(1)
    place = Placement.objects.exclude(moving_to=None).first()
    assert (place.refusals, place.trouble) == (1, jobs.RUNS_ON)


def test_a_drained_hub_is_kept_for_a_while_with_its_volumes(home: Hub, twin: MemorySwarm, settings: Any) -> None:
    settings.DRAINED_REST_MINUTES = 10
    drain(home)
    passes(14)
    assert not Placement.objects.filter(hub=home).exists()
    assert Hub.objects.get(pk=home.pk).state == "draining" and len(twin.nodes[home.node_id].volumes) == 3
    Hub.objects.filter(pk=home.pk).update(emptied_at=timezone.now() - timedelta(minutes=11))
    passes(3)
    assert Hub.objects.get(pk=home.pk).state == "gone"


def test_a_move_that_is_called_off_in_the_middle_of_the_copy_does_not_happen(
    home: Hub, twin: MemorySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain(home)
    copy = MemorySwarm.copy_volume

    def called_off(self: MemorySwarm, *arguments: Any) -> None:
        copy(self, *arguments)
        Hub.objects.filter(pk=home.pk).become(Hub.State.READY)
        Placement.objects.update(moving_to=None)

    monkeypatch.setattr(MemorySwarm, "copy_volume", called_off)
    passes(5)
    assert Placement.objects.filter(hub=home).count() == 3
    assert Bot.objects.filter(status="up", moving=False).count() == 3
    never_twice(twin)


def test_an_uncordoned_hub_keeps_what_has_not_moved(
    home: Hub, twin: MemorySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = use(monkeypatch, SlowToStop(), like=twin)
    drain(home)
    passes(3)
    Hub.objects.filter(pk=home.pk).become(Hub.State.READY)
    slow.nodes[home.node_id].containers.clear()
    use(monkeypatch, MemorySwarm(), like=slow)
    passes(4)
    assert Placement.objects.filter(hub=home, moving_to=None).count() == 3
    assert Bot.objects.filter(status="up").count() == 3


def test_stopped_and_deleted_bots_move_too_and_are_not_started(home: Hub, twin: MemorySwarm) -> None:
    stopped, deleted, _ = Bot.objects.all()
    Bot.objects.filter(pk=stopped.pk).update(switched_on=False)
    Bot.objects.filter(pk=deleted.pk).update(deleted_at=timezone.now())
    passes(3)
    drain(home)
    passes(12)
    for bot in (stopped, deleted):
        now_at = Placement.objects.get(bot=bot).hub
        assert now_at != home and bot.pk not in twin.services
        assert bot.pk in twin.nodes[now_at.node_id].volumes


def test_a_bot_without_an_identity_yet_needs_no_copy(home: Hub, twin: MemorySwarm, make: Maker) -> None:
    new = make.bot(paid=True)
    Placement.objects.create(bot=new, hub=home, port=29399, label="new")
    drain(home)
    passes(14)
    assert Bot.objects.get(pk=new.pk).status == Status.UP


# --- killed anywhere -------------------------------------------------------------------------------------------------
class Killed(BaseException):
    """The worker is gone: nothing of what it would have done next is done."""


STEPS = ["has_image", "run", "remove_service", "is_stopped", "copy_volume"]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_worker_that_is_killed_at_any_step_is_made_up_for(
    home: Hub, twin: MemorySwarm, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    drain(home)
    run_pass(ask=lambda *job: None)
    bot = Placement.objects.exclude(moving_to=None).first().bot_id
    real: Callable[..., Any] = getattr(MemorySwarm, step)

    def kill(self: MemorySwarm, *arguments: Any) -> None:
        if after:
            real(self, *arguments)
        raise Killed

    with monkeypatch.context() as context:
        context.setattr(MemorySwarm, step, kill)
        # A killed process does not tidy up.
        context.setattr("orchestrator.models.Claim.end", lambda self, **columns: None)
        with pytest.raises(Killed):
            jobs.move_pub(str(bot))
    assert Placement.objects.get(bot=bot).claimed_until
    passes(1)
    assert Placement.objects.get(bot=bot).hub == home, "its claim has not run out"
    Placement.objects.update(claimed_until=timezone.now() - timedelta(seconds=1))
    for _ in range(14):
        passes(1)
        never_twice(twin)
    moved = Bot.objects.get(pk=bot)
    assert moved.status == Status.UP and moved.placement.hub != home
    assert twin.services[bot].min_seq == FEED


def test_two_workers_never_move_one_bot_at_once(home: Hub, twin: MemorySwarm, monkeypatch: pytest.MonkeyPatch) -> None:
    drain(home)
    run_pass(ask=lambda *job: None)
    bot = Placement.objects.exclude(moving_to=None).first().bot_id
    copies: list[UUID] = []
    copy = MemorySwarm.copy_volume

    def meanwhile(self: MemorySwarm, bot_id: UUID, *arguments: Any) -> None:
        copies.append(bot_id)
        jobs.move_pub(str(bot_id))
        jobs.ensure_pub_up(str(bot_id))
        copy(self, bot_id, *arguments)

    monkeypatch.setattr(MemorySwarm, "copy_volume", meanwhile)
    jobs.move_pub(str(bot))
    assert copies == [bot] and bot not in twin.services


def test_where_the_claim_was_lost_nothing_is_written(
    home: Hub, twin: MemorySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain(home)
    run_pass(ask=lambda *job: None)
    bot = Placement.objects.exclude(moving_to=None).first().bot_id
    copy = MemorySwarm.copy_volume
    later = timezone.now() + timedelta(minutes=5)

    def slept(self: MemorySwarm, *arguments: Any) -> None:
        copy(self, *arguments)
        Placement.objects.filter(bot=bot).update(claimed_until=later)

    monkeypatch.setattr(MemorySwarm, "copy_volume", slept)
    jobs.move_pub(str(bot))
    place = Placement.objects.get(bot=bot)
    assert (place.hub, place.claimed_until) == (home, later)


def test_a_worker_that_stood_still_starts_nothing_where_another_moves_it_away(
    home: Hub, twin: MemorySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = Bot.objects.first()
    twin.remove_service(bot.pk)
    later = timezone.now() + timedelta(minutes=5)

    def stands_still(*arguments: Any) -> bool:
        return bool(Placement.objects.filter(bot=bot).update(claimed_until=later))

    monkeypatch.setattr(MemorySwarm, "has_image", stands_still)
    jobs.ensure_pub_up(str(bot.pk))
    assert bot.pk not in twin.services and Placement.objects.get(bot=bot).claimed_until == later


def test_a_copy_that_fails_after_the_claim_was_lost_throws_nothing_away(
    home: Hub, twin: MemorySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, SpoilsCopies(), like=twin)
    drain(home)
    run_pass(ask=lambda *job: None)
    place = Placement.objects.exclude(moving_to=None).first()
    copy = MemorySwarm.copy_volume
    later = timezone.now() + timedelta(minutes=5)

    def overtaken(self: MemorySwarm, *arguments: Any) -> None:
        copy(self, *arguments)
        Placement.objects.filter(pk=place.pk).update(claimed_until=later)

    monkeypatch.setattr(MemorySwarm, "copy_volume", overtaken)
    jobs.move_pub(str(place.bot_id))
    assert place.bot_id in twin.nodes[place.moving_to.node_id].volumes


def test_one_worker_brings_a_new_image_to_a_hub_and_the_others_do_not_wait(
    home: Hub, twin: MemorySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = Bot.objects.all()
    twin.nodes[home.node_id].images.clear()
    for bot in (first, *others):
        twin.remove_service(bot.pk)
    bring, brought = MemorySwarm.have_image, []

    def meanwhile(self: MemorySwarm, *arguments: Any) -> None:
        brought.append(arguments)
        for bot in others:
            jobs.ensure_pub_up(str(bot.pk))
        bring(self, *arguments)

    monkeypatch.setattr(MemorySwarm, "have_image", meanwhile)
    jobs.ensure_pub_up(str(first.pk))
    assert len(brought) == 1 and list(twin.services) == [first.pk]
    passes(2)
    assert len(brought) == 1 and len(twin.services) == 3
    assert jobs.ensure_pub_up.time_limit == jobs.ensure_hub.time_limit, "it may be the one that brings it"


def test_a_pub_that_was_started_during_the_copy_stays_where_it_is(
    home: Hub, twin: MemorySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain(home)
    run_pass(ask=lambda *job: None)
    bot = Placement.objects.exclude(moving_to=None).first().bot_id
    copy, service = MemorySwarm.copy_volume, twin.services[bot]

    def started_meanwhile(self: MemorySwarm, *arguments: Any) -> None:
        copy(self, *arguments)
        self.put_service(service)

    monkeypatch.setattr(MemorySwarm, "copy_volume", started_meanwhile)
    jobs.move_pub(str(bot))
    assert Placement.objects.get(bot=bot).hub == home and twin.running_on(bot) == [home.node_id]


def test_the_target_may_be_lost_and_the_bot_stays_at_home(home: Hub, twin: MemorySwarm) -> None:
    drain(home)
    run_pass(ask=lambda *job: None)
    other = Hub.objects.exclude(pk=home.pk).get()
    twin.cut(other.node_id)
    Hub.objects.filter(pk=other.pk).update(answered_at=timezone.now() - timedelta(hours=1))
    passes(4)
    assert Placement.objects.filter(hub=home, moving_to=None).count() == 3
    assert Bot.objects.filter(status="up").count() == 3
