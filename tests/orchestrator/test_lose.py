"""Hubs out of sight: what is not known is said to be unknown, and nothing is done that could be wrong."""

from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.utils import timezone

from mailer.models import Message
from orchestrator import jobs, machines, planner, troubles
from orchestrator.machines.memory import MemoryMachines
from orchestrator.models import Hub, Placement
from orchestrator.reconcile import run_here, run_pass
from orchestrator.swarm.memory import MemorySwarm
from pubs.models import Bot, Status, Trouble
from tests.support.make import Maker


@pytest.fixture(autouse=True)
def cloud(settings: Any) -> MemoryMachines:
    settings.MACHINES = "orchestrator.machines.memory.MemoryMachines"
    settings.MAX_HUBS = 3
    connected = machines.connect()
    assert isinstance(connected, MemoryMachines)
    return connected


def passes(count: int) -> None:
    for _ in range(count):
        run_pass(ask=run_here)
        troubles.look(ask=run_here)


@pytest.fixture
def bot(make: Maker, memory_swarm: MemorySwarm) -> Bot:
    """A pub that is up, and staff who want to hear of its hub."""
    make.user("stella", is_staff=True)
    made = make.bot(paid=True)
    passes(6)
    made.refresh_from_db()
    assert made.status == Status.UP
    return made


@pytest.fixture
def beside(bot: Bot, settings: Any) -> Hub:
    """An empty hub: a cloud that lists no machine at all is not believed."""
    settings.SPARE_PLACES = 15
    passes(6)
    return Hub.objects.exclude(pk=hub_of(bot).pk).get()


def hub_of(bot: Bot) -> Hub:
    return Placement.objects.get(bot=bot).hub


def go_by(**time: float) -> None:
    """As if all that is noted had been noted earlier."""
    by = timedelta(**time)
    for hub in Hub.objects.all():
        for column in ("lost_at", "answered_at", "told_at", "emptied_at"):
            if at := getattr(hub, column):
                Hub.objects.filter(pk=hub.pk).update(**{column: at - by})
    for bot in Bot.objects.all():
        Bot.objects.filter(pk=bot.pk).update(
            changed_at=bot.changed_at - by,
            started_at=bot.started_at and bot.started_at - by,
            unknown_since=bot.unknown_since and bot.unknown_since - by,
            wanted_since=bot.wanted_since and bot.wanted_since - by,
        )
        bot.status_changes.update(at=F("at") - by)
    for column in ("began", "back_at", "calm_since", "ended"):
        Trouble.objects.update(**{column: F(column) - by})


def mails(kind: str) -> int:
    return Message.objects.filter(key__startswith=kind).count()


def cut(twin: MemorySwarm, bot: Bot) -> Hub:
    hub = hub_of(bot)
    twin.cut(hub.node_id)
    passes(2)
    return hub


def test_a_bot_on_a_hub_out_of_sight_is_unknown_keeps_its_status_and_is_started_nowhere(
    bot: Bot, memory_swarm: MemorySwarm, make: Maker
) -> None:
    seen_at = bot.seen_at
    hub = cut(memory_swarm, bot)
    go_by(hours=2)
    for _ in range(20):
        make.bot(paid=True)
    passes(6)
    bot.refresh_from_db()
    hub.refresh_from_db()
    assert (bot.status, bot.seen_at, bot.reason) == (Status.UP, seen_at, planner.LOST_SIGHT)
    assert bot.unknown_since and hub.lost_at and hub.fenced_at is None and hub.state == "ready"
    assert memory_swarm.running_on(bot.pk) == [hub.node_id]
    assert not [place for place in Placement.objects.exclude(bot=bot) if place.hub == hub], "it takes no more bots"


def test_a_node_that_is_ready_and_an_engine_that_is_silent_is_out_of_sight_too(
    bot: Bot, memory_swarm: MemorySwarm
) -> None:
    hub = hub_of(bot)
    memory_swarm.nodes[hub.node_id].answers = False
    passes(2)
    bot.refresh_from_db()
    assert bot.unknown_since is None, "for a while it may be busy"
    go_by(seconds=91)
    jobs.look_at_engines()
    passes(1)
    bot.refresh_from_db()
    hub.refresh_from_db()
    assert bot.unknown_since and "does not answer" in hub.reason


def test_where_no_worker_asks_the_engines_the_pass_does(bot: Bot, memory_swarm: MemorySwarm) -> None:
    go_by(hours=1)
    passes(1)
    hub = hub_of(bot)
    assert hub.lost_at is None and hub.answered_at and timezone.now() - hub.answered_at < timedelta(minutes=1)


def test_an_engine_that_answered_speaks_for_no_other(bot: Bot, memory_swarm: MemorySwarm) -> None:
    go_by(hours=1)
    Hub.objects.create(name="other", state="ready", answered_at=timezone.now())
    passes(1)
    assert hub_of(bot).lost_at is None, "nobody has asked it, which is no silence"


def test_the_look_at_the_engines_keeps_the_swarm_tuned(bot: Bot, memory_swarm: MemorySwarm) -> None:
    memory_swarm.tuned = False
    jobs.look_at_engines()
    assert memory_swarm.tuned


BEGAN, FLAPS, OVER = (f"trouble:unknown:{what}" for what in ("began", "flaps", "over"))


def test_owner_and_staff_are_told_once_and_only_of_a_loss_that_lasts(bot: Bot, memory_swarm: MemorySwarm) -> None:
    cut(memory_swarm, bot)
    assert not mails(BEGAN) and not mails("staff_alarm")
    go_by(minutes=3)
    passes(4)
    assert mails(BEGAN) == 1 and mails("staff_alarm") == 1
    go_by(hours=30)
    passes(2)
    assert mails("trouble") == 1


def test_of_a_hub_that_comes_and_goes_owners_are_told_that_and_no_more(bot: Bot, memory_swarm: MemorySwarm) -> None:
    hub = hub_of(bot)

    def flap() -> None:
        memory_swarm.cut(hub.node_id)
        passes(1)
        go_by(minutes=3)
        passes(2)
        memory_swarm.heal(hub.node_id)
        jobs.look_at_engines()
        passes(2)
        go_by(minutes=2)
        jobs.look_at_engines()
        passes(2)

    for _ in range(6):
        flap()
    assert (mails(BEGAN), mails(OVER), mails(FLAPS), mails("staff_alarm")) == (1, 1, 1, 1)
    go_by(hours=6)
    jobs.look_at_engines()
    passes(2)
    assert mails(OVER) == 2, "it stayed well at last"
    go_by(hours=6)
    jobs.look_at_engines()
    flap()
    assert mails(BEGAN) == 2


def test_a_second_loss_that_lasts_is_told_though_the_first_was_told_lately(bot: Bot, memory_swarm: MemorySwarm) -> None:
    hub = cut(memory_swarm, bot)
    go_by(minutes=3)
    passes(2)
    memory_swarm.heal(hub.node_id)
    jobs.look_at_engines()
    passes(2)
    go_by(minutes=2)
    jobs.look_at_engines()
    passes(2)
    assert (mails(BEGAN), mails(OVER), mails("staff_alarm")) == (1, 1, 1)
    cut(memory_swarm, bot)
    go_by(minutes=9)
    passes(2)
    assert (mails(BEGAN), mails("staff_alarm")) == (1, 1)
    go_by(minutes=9)
    passes(3)
    assert (mails(BEGAN), mails("staff_alarm")) == (2, 2)


def test_pubs_on_a_hub_that_is_back_are_taken_as_they_are(bot: Bot, memory_swarm: MemorySwarm) -> None:
    hub = cut(memory_swarm, bot)
    go_by(minutes=3)
    passes(2)
    before, changes = dict(memory_swarm.services), bot.status_changes.count()
    memory_swarm.heal(hub.node_id)
    jobs.look_at_engines()
    passes(3)
    bot.refresh_from_db()
    hub.refresh_from_db()
    assert (bot.status, bot.unknown_since, bot.reason, hub.lost_at, hub.reason) == (Status.UP, None, "", None, "")
    assert memory_swarm.services == before and not memory_swarm.restarted
    assert bot.status_changes.count() == changes
    go_by(seconds=61)
    jobs.look_at_engines()
    passes(1)
    assert (mails(OVER), mails("pub_is_up")) == (1, 1), "its owner hears that it is seen again"


def test_a_machine_that_joined_anew_has_its_pubs_back_once_staff_removed_their_old_services(
    bot: Bot, memory_swarm: MemorySwarm
) -> None:
    hub = hub_of(bot)
    memory_swarm.cut(hub.node_id)
    old = memory_swarm.nodes[hub.node_id]
    old.containers.clear()
    new = memory_swarm.add_node(token=hub.token, claims=hub.token, address=old.node.address)
    memory_swarm.nodes[new].volumes = old.volumes
    passes(2)
    assert Message.objects.filter(text__contains="pinned to another machine").count() == 1
    memory_swarm.remove_service(bot.pk)
    passes(3)
    bot.refresh_from_db()
    assert bot.status == Status.UP and memory_swarm.running_on(bot.pk) == [new]


def test_a_stopped_bot_on_a_lost_hub_is_no_news(bot: Bot, memory_swarm: MemorySwarm) -> None:
    Bot.objects.update(switched_on=False)
    passes(2)
    cut(memory_swarm, bot)
    go_by(minutes=3)
    passes(2)
    assert not mails("trouble")


# --- fenced ----------------------------------------------------------------------------------------------------------
def test_a_machine_that_is_gone_fences_its_hub_and_its_bots_wait_for_a_restore(
    bot: Bot, beside: Hub, memory_swarm: MemorySwarm, cloud: MemoryMachines
) -> None:
    hub = hub_of(bot)
    cloud.lose(hub.token)
    passes(3)
    hub.refresh_from_db()
    assert hub.lost_at and hub.fenced_at is None, "at first it may be a slip"
    go_by(minutes=3)
    passes(6)
    bot.refresh_from_db()
    hub.refresh_from_db()
    assert hub.state == "gone" and not memory_swarm.nodes[hub.node_id].in_swarm
    assert (bot.status, bot.reason, bot.unknown_since) == (Status.NONE, planner.LOST_WITH_HUB, None)
    assert bot.lost_at and bot.pk not in memory_swarm.services and not memory_swarm.running_on(bot.pk)
    go_by(minutes=2)
    passes(3)
    assert mails("trouble:down:began") == 1 and Placement.objects.get(bot=bot).lost_at


def test_a_hub_whose_machine_is_listed_is_never_fenced_by_itself(
    bot: Bot, memory_swarm: MemorySwarm, cloud: MemoryMachines
) -> None:
    hub = cut(memory_swarm, bot)
    go_by(days=3)
    passes(4)
    jobs.fence_hub(hub.pk)
    hub.refresh_from_db()
    assert hub.fenced_at is None and cloud.of(hub.token)


def test_a_machine_that_is_not_listed_and_not_gone_either_fences_nothing_and_is_told_about(
    bot: Bot, beside: Hub, memory_swarm: MemorySwarm, cloud: MemoryMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = cut(memory_swarm, bot)
    go_by(minutes=3)
    real = MemoryMachines.list
    others = lambda self: [machine for machine in real(self) if machine.token != hub.token]  # noqa: E731
    monkeypatch.setattr(MemoryMachines, "list", others)
    passes(2)
    hub.refresh_from_db()
    assert hub.fenced_at is None and cloud.of(hub.token)
    assert Message.objects.filter(text__contains="does not say it is gone").count() == 1


def test_an_empty_list_fences_nothing_and_is_told_about(
    bot: Bot, beside: Hub, memory_swarm: MemorySwarm, cloud: MemoryMachines, settings: Any
) -> None:
    """As when the access leads to another project."""
    settings.MAX_HUBS = 2
    cut(memory_swarm, bot)
    memory_swarm.cut(beside.node_id)
    cloud.made.clear()
    passes(1)
    go_by(minutes=3)
    passes(3)
    assert not Hub.objects.exclude(fenced_at=None) and bot.pk in memory_swarm.services
    assert Message.objects.filter(text__contains="lists no machine at all").count() == 2


@pytest.mark.parametrize("passed", [1, 2, 9])
def test_a_hub_that_was_fenced_by_the_cloud_s_word_and_is_back_keeps_its_machine_and_its_pubs(
    bot: Bot, beside: Hub, memory_swarm: MemorySwarm, cloud: MemoryMachines, passed: int
) -> None:
    """However far its destruction has gone: the machine itself was never there to be destroyed."""
    hub = cut(memory_swarm, bot)
    [machine] = cloud.of(hub.token)
    cloud.made.remove(machine)
    passes(1)
    go_by(minutes=3)
    passes(passed)
    assert Placement.objects.get(bot=bot).lost_at
    cloud.made.append(machine)
    memory_swarm.heal(hub.node_id)
    jobs.destroy_hub(hub.pk)
    passes(3)
    hub.refresh_from_db()
    assert (hub.state, hub.fenced_at, hub.fenced_by_cloud) == ("ready", None, False) and cloud.of(hub.token)
    assert Placement.objects.get(bot=bot).lost_at is None and bot.pk in memory_swarm.nodes[hub.node_id].volumes
    assert Message.objects.filter(text__contains="Its machine is back").count() == 1
    if memory_swarm.nodes[hub.node_id].in_swarm:
        jobs.look_at_engines()
        passes(3)
        bot.refresh_from_db()
        assert (bot.status, bot.lost_at) == (Status.UP, None) and memory_swarm.running_on(bot.pk) == [hub.node_id]


def test_a_hub_that_staff_fenced_is_destroyed_though_its_machine_is_listed(
    bot: Bot, memory_swarm: MemorySwarm, cloud: MemoryMachines
) -> None:
    hub = cut(memory_swarm, bot)
    Hub.objects.filter(pk=hub.pk).update(fenced_at=timezone.now())
    passes(6)
    hub.refresh_from_db()
    assert hub.state == "gone" and not cloud.of(hub.token) and Placement.objects.get(bot=bot).lost_at


def test_a_hub_in_sight_whose_machine_the_cloud_does_not_list_is_only_reported(
    bot: Bot, memory_swarm: MemorySwarm, cloud: MemoryMachines
) -> None:
    hub = hub_of(bot)
    cloud.made.clear()
    go_by(seconds=30)
    passes(4)
    hub.refresh_from_db()
    assert (hub.state, hub.fenced_at) == ("ready", None) and bot.pk in memory_swarm.services
    assert Message.objects.filter(text__contains="does not list its machine").count() == 1


def test_a_bot_on_its_way_from_a_fenced_hub_is_lost_and_one_on_its_way_to_it_stays(
    bot: Bot, memory_swarm: MemorySwarm, cloud: MemoryMachines, make: Maker
) -> None:
    hub = hub_of(bot)
    other = Hub.objects.create(name="other", state="draining", places=15, node_id="x")
    coming = Placement.objects.create(bot=make.bot(), hub=other, port=29100, label="coming", moving_to=hub)
    Placement.objects.filter(bot=bot).update(moving_to=other)
    cloud.lose(hub.token)
    Hub.objects.filter(pk=hub.pk).update(lost_at=timezone.now() - timedelta(minutes=3))
    jobs.fence_hub(hub.pk)
    coming.refresh_from_db()
    place = Placement.objects.get(bot=bot)
    assert place.lost_at and place.moving_to is None
    assert (coming.hub, coming.moving_to, coming.lost_at) == (other, None, None)


def test_a_lost_bot_that_its_owner_deletes_takes_no_place(
    bot: Bot, beside: Hub, memory_swarm: MemorySwarm, cloud: MemoryMachines
) -> None:
    cloud.lose(hub_of(bot).token)
    passes(2)
    go_by(minutes=3)
    passes(6)
    Bot.objects.filter(pk=bot.pk).update(deleted_at=timezone.now())
    passes(3)
    assert Hub.objects.exclude(state="gone").get() == beside
