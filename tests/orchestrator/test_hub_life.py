"""Hubs from the first wish to the last bill: bought, greeted, filled, emptied, destroyed; and all that goes wrong."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, NoReturn
from uuid import UUID, uuid4

import pytest
from django.core.cache import cache
from django.db.models import F
from django.utils import timezone

from mailer.models import Message
from orchestrator import hubs, jobs, machines
from orchestrator.machines import MachineError, Refused, Unavailable
from orchestrator.machines.local import LocalMachines
from orchestrator.machines.memory import (
    AnswersTwice,
    BootsLate,
    FailsToBuild,
    Forgets,
    MemoryMachines,
    NeverBoots,
    Refuses,
)
from orchestrator.models import Enrolment, Hub, Placement, Turn
from orchestrator.planner import BuyHub
from orchestrator.reconcile import make_plan, observe, run_here, run_pass
from orchestrator.swarm.memory import MemorySwarm, WithoutImages
from pubs.models import Bot, Status
from tests.support.make import Maker

State = Hub.State
Use = Callable[[type[MemoryMachines]], MemoryMachines]


@pytest.fixture
def use(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Use:
    """Machines of this kind are what the code under test buys; there may be three."""
    settings.MAX_HUBS = 3

    def use_cloud(kind: type[MemoryMachines]) -> MemoryMachines:
        cloud = kind()
        monkeypatch.setattr("orchestrator.machines.connect", lambda: cloud)
        return cloud

    return use_cloud


@pytest.fixture
def cloud(use: Use) -> MemoryMachines:
    return use(MemoryMachines)


def passes(count: int) -> None:
    for _ in range(count):
        run_pass(ask=run_here)


def the_hub() -> Hub:
    return Hub.objects.get()


def too_late() -> None:
    """As if all hubs' deadlines had passed."""
    Hub.objects.update(deadline=timezone.now() - timedelta(seconds=1))


def states() -> list[str]:
    return [hub.state for hub in Hub.objects.all()]


# --- coming ----------------------------------------------------------------------------------------------------------
def test_a_wanted_bot_without_a_hub_gets_a_machine_and_is_up(
    make: Maker, memory_swarm: MemorySwarm, cloud: MemoryMachines
) -> None:
    bot = make.bot(paid=True)
    passes(6)
    hub = the_hub()
    assert (hub.state, hub.reason, hub.places) == ("ready", "", 15)
    assert (hub.address, hub.public_address) == ("10.77.0.1", "203.0.113.1")
    node = memory_swarm.nodes[hub.node_id]
    assert node.node.hub == hub.token and memory_swarm.tuned
    assert Bot.objects.get().status == Status.UP and memory_swarm.running_on(bot.pk) == [hub.node_id]


def test_the_row_is_there_before_the_machine(
    make: Maker, memory_swarm: MemorySwarm, cloud: MemoryMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.bot(paid=True)
    known: list[int] = []
    monkeypatch.setattr(
        MemoryMachines, "create", lambda self, token, *rest: known.append(Hub.objects.filter(token=token).count())
    )
    passes(1)
    assert known == [1]


def test_sixteen_bots_fill_a_hub_and_begin_a_second(
    make: Maker, memory_swarm: MemorySwarm, cloud: MemoryMachines
) -> None:
    for _ in range(16):
        make.bot(paid=True)
    passes(6)
    assert Bot.objects.filter(status="up").count() == 16
    assert sorted(hub.placements.count() for hub in Hub.objects.all()) == [1, 15]


def test_a_bot_of_four_gigabytes_takes_four_places(
    make: Maker, memory_swarm: MemorySwarm, cloud: MemoryMachines
) -> None:
    bots = [make.bot(paid=True, memory_gb=4) for _ in range(4)]
    passes(6)
    assert sorted(hub.placements.count() for hub in Hub.objects.all()) == [1, 3]
    assert memory_swarm.services[bots[0].pk].memory == 4 * 1024**3


def test_a_larger_size_is_granted_where_there_is_room_and_waited_for_where_not(
    make: Maker, memory_swarm: MemorySwarm, cloud: MemoryMachines, settings: Any
) -> None:
    settings.HUB_PLACES, settings.MAX_HUBS = 4, 1
    grows, _, last = (make.bot(paid=True) for _ in range(3))
    passes(6)
    Bot.objects.filter(pk=grows.pk).update(memory_gb=2)
    passes(3)
    assert memory_swarm.services[grows.pk].memory == 2 * 1024**3
    Bot.objects.filter(pk=last.pk).update(memory_gb=2)
    passes(3)
    assert memory_swarm.services[last.pk].memory == 1024**3
    assert "more memory than its machine has left" in Bot.objects.get(pk=last.pk).reason
    Bot.objects.filter(pk=grows.pk).update(memory_gb=1)
    passes(4)
    assert memory_swarm.services[last.pk].memory == 2 * 1024**3 and Bot.objects.get(pk=last.pk).reason == ""


def test_a_machine_that_boots_late_is_waited_for(make: Maker, memory_swarm: MemorySwarm, use: Use) -> None:
    cloud = use(BootsLate)
    make.bot(paid=True)
    passes(2)
    assert (the_hub().state, Bot.objects.get().status) == ("booting", "none")
    passes(8)
    assert Bot.objects.get().status == Status.UP and len(cloud.made) == 1


def test_an_answer_that_was_lost_leaves_one_machine(make: Maker, memory_swarm: MemorySwarm, use: Use) -> None:
    cloud = use(AnswersTwice)
    make.bot(paid=True)
    passes(1)
    assert (the_hub().state, the_hub().reason) == ("requested", "The cloud did not answer in time.")
    passes(6)
    assert (states(), len(cloud.made)) == (["ready"], 1)


def test_a_twin_that_comes_when_the_hub_is_ready_is_told_about_and_costs_no_pub(
    make: Maker, memory_swarm: MemorySwarm, cloud: MemoryMachines
) -> None:
    make.user("stella", is_staff=True)
    make.bot(paid=True)
    passes(6)
    cloud.strange(the_hub().token)
    passes(3)
    assert Message.objects.filter(text__contains="a second machine").count() == 1
    assert Bot.objects.get().status == Status.UP and len(cloud.made) == 2


def test_a_cloud_that_forgot_is_asked_again(make: Maker, memory_swarm: MemorySwarm, use: Use) -> None:
    use(Forgets)
    make.bot(paid=True)
    passes(8)
    assert Bot.objects.get().status == Status.UP


def test_an_engine_out_of_our_reach_is_no_hub_yet(
    make: Maker, memory_swarm: MemorySwarm, cloud: MemoryMachines
) -> None:
    make.bot(paid=True)
    passes(2)
    node = next(engine for engine in memory_swarm.nodes.values() if not engine.node.is_manager_here)
    node.answers = False
    passes(3)
    assert the_hub().state == "booting" and "does not answer" in the_hub().reason
    node.answers = True
    passes(1)
    assert (the_hub().state, the_hub().reason) == ("ready", "")


def test_a_machine_that_can_not_take_the_image_is_no_hub(
    make: Maker, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = WithoutImages()
    monkeypatch.setattr("orchestrator.swarm.connect", lambda: twin)
    use(MemoryMachines)
    make.bot(paid=True)
    passes(5)
    assert (the_hub().state, the_hub().reason) == ("booting", "no space left on device")


def test_who_claims_to_be_a_hub_from_elsewhere_is_not_believed(
    make: Maker, memory_swarm: MemorySwarm, use: Use
) -> None:
    use(NeverBoots)
    make.bot(paid=True)
    passes(2)
    memory_swarm.add_node(claims=the_hub().token, address="10.66.6.6")
    passes(3)
    assert the_hub().state == "booting" and not memory_swarm.services


def test_nobody_is_believed_while_the_cloud_has_given_no_address(
    make: Maker, memory_swarm: MemorySwarm, use: Use
) -> None:
    cloud = use(NeverBoots)
    make.bot(paid=True)
    passes(2)
    [made] = cloud.made
    made.machine = replace(made.machine, address="")
    memory_swarm.add_node(claims=the_hub().token, address="10.77.0.1")
    passes(3)
    assert (the_hub().state, the_hub().node_id) == ("booting", "")
    made.machine = replace(made.machine, address="10.77.0.1")
    passes(2)
    assert the_hub().state == "ready"


@pytest.mark.parametrize("change", [{"ready": False}, {"address": "10.66.6.6"}, {"claims": None}])
def test_a_node_that_is_not_as_the_pass_saw_it_is_not_taken_in(
    make: Maker, memory_swarm: MemorySwarm, use: Use, change: dict[str, Any]
) -> None:
    use(NeverBoots)
    make.bot(paid=True)
    passes(2)
    node_id = memory_swarm.add_node(claims=the_hub().token, address="10.77.0.1")
    Hub.objects.update(node_id=node_id)
    engine = memory_swarm.nodes[node_id]
    engine.node = replace(engine.node, **change)
    jobs.ensure_hub(the_hub().pk)
    assert the_hub().state == "booting" and engine.node.hub is None


def test_the_invitation_is_void_once_the_hub_is_ready(
    make: Maker, memory_swarm: MemorySwarm, cloud: MemoryMachines
) -> None:
    make.bot(paid=True)
    passes(5)
    assert Enrolment.objects.get().joined_at


# --- not coming ------------------------------------------------------------------------------------------------------
def test_a_refused_purchase_is_given_up_told_and_not_tried_again_at_once(
    make: Maker, memory_swarm: MemorySwarm, use: Use
) -> None:
    use(Refuses)
    staff = make.user("stella", is_staff=True)
    make.bot(paid=True)
    passes(5)
    assert states() == ["gone"] and "Quota exceeded" in the_hub().reason
    [mail] = Message.objects.filter(to=staff.email)
    assert "hub-1" in mail.subject and "Quota exceeded" in mail.text


def test_each_failure_in_a_row_makes_the_wait_for_the_next_purchase_longer(
    make: Maker, memory_swarm: MemorySwarm, use: Use
) -> None:
    use(Refuses)
    make.bot(paid=True)
    waited = []
    for _ in range(3):
        passes(2)
        minutes = 0
        while BuyHub() not in make_plan(observe()):
            minutes += 1
            Hub.objects.update(failed_at=F("failed_at") - timedelta(minutes=1))
        waited.append(minutes)
    assert waited == [2, 4, 8]


def test_an_hour_is_the_longest_wait_and_a_machine_that_comes_ends_it(make: Maker, memory_swarm: MemorySwarm) -> None:
    now = timezone.now()
    for number in range(9):
        Hub.objects.create(name=f"hub-{number}", state="gone", failed_at=now)
    assert observe().no_buy_until == now + timedelta(hours=1)
    Hub.objects.create(name="came", state="ready")
    assert observe().no_buy_until is None


def test_a_machine_that_the_cloud_could_not_build_is_given_up_and_destroyed(
    make: Maker, memory_swarm: MemorySwarm, use: Use
) -> None:
    cloud = use(FailsToBuild)
    make.bot(paid=True)
    passes(8)
    assert states() == ["gone"] and the_hub().reason == "No valid host was found." and not cloud.made


def test_a_machine_that_never_boots_is_given_up_when_its_time_is_over(
    make: Maker, memory_swarm: MemorySwarm, use: Use
) -> None:
    cloud = use(NeverBoots)
    make.bot(paid=True)
    passes(4)
    assert states() == ["booting"]
    too_late()
    passes(4)
    assert states() == ["gone"] and not cloud.made


def test_the_maximum_is_never_passed_and_staff_are_told(
    make: Maker, memory_swarm: MemorySwarm, cloud: MemoryMachines, settings: Any
) -> None:
    settings.MAX_HUBS = 1
    make.user("stella", is_staff=True)
    for _ in range(16):
        make.bot(paid=True)
    passes(6)
    assert len(cloud.made) == 1
    assert Message.objects.filter(to__startswith="stella", text__contains="MAX_HUBS").count() == 1


# --- a cloud that says nothing ---------------------------------------------------------------------------------------
class Mute(MemoryMachines):
    def list(self) -> Any:
        raise Unavailable("The cloud does not answer.")

    def create(self, *arguments: Any) -> None:
        raise Unavailable("The cloud does not answer.")

    def destroy(self, token: UUID) -> bool:
        raise AssertionError("nothing may be asked of it")


def test_a_cloud_that_does_not_answer_keeps_no_pub_down_and_nothing_is_bought_fenced_or_destroyed(
    make: Maker, memory_swarm: MemorySwarm, cloud: MemoryMachines, use: Use
) -> None:
    bot = make.bot(paid=True)
    passes(6)
    use(Mute)
    memory_swarm.services.clear()
    long_ago = timezone.now() - timedelta(days=1)
    Hub.objects.create(name="empty", state="ready", places=15, emptied_at=long_ago)
    Hub.objects.create(name="lost", state="ready", places=15, lost_at=long_ago, told_at=timezone.now())
    Hub.objects.create(name="late", state="booting", deadline=long_ago)
    for _ in range(40):
        make.bot(paid=True)
    passes(3)
    assert bot.pk in memory_swarm.services
    assert states() == ["ready", "ready", "ready", "booting"] and not Hub.objects.exclude(fenced_at=None).exists()


# --- going -----------------------------------------------------------------------------------------------------------
def test_an_empty_hub_goes_with_machine_and_node_after_its_cool_down(
    make: Maker, memory_swarm: MemorySwarm, cloud: MemoryMachines
) -> None:
    for _ in range(16):
        make.bot(paid=True)
    passes(6)
    lone = Placement.objects.get(hub=Hub.objects.get(name="hub-2")).bot
    Bot.objects.filter(pk=lone.pk).update(deleted_at=timezone.now())
    passes(3)
    Placement.objects.filter(bot=lone).delete()
    passes(3)
    assert states() == ["ready", "ready"], "it may be needed again soon"
    Hub.objects.exclude(emptied_at=None).update(emptied_at=timezone.now() - timedelta(hours=1))
    before = dict(memory_swarm.services)
    passes(4)
    gone = Hub.objects.get(name="hub-2")
    assert gone.state == "gone" and len(cloud.made) == 1 and memory_swarm.services == before
    assert not memory_swarm.nodes[gone.node_id].in_swarm
    assert not Turn.objects.filter(name=hubs.turn_name(gone.pk)).exists()


def test_a_node_is_forgotten_only_once_its_machine_is_gone(
    make: Maker, memory_swarm: MemorySwarm, cloud: MemoryMachines
) -> None:
    make.bot(paid=True)
    passes(5)
    hub = the_hub()
    Placement.objects.all().delete()
    Bot.objects.update(paid=False)
    Hub.objects.update(state="destroying")
    jobs.destroy_hub(hub.pk)
    assert the_hub().state == "destroying" and memory_swarm.nodes[hub.node_id].in_swarm
    jobs.destroy_hub(hub.pk)
    assert the_hub().state == "gone" and not memory_swarm.nodes[hub.node_id].in_swarm


def test_a_hub_that_a_bot_was_placed_on_meanwhile_is_not_destroyed(
    make: Maker, memory_swarm: MemorySwarm, cloud: MemoryMachines
) -> None:
    make.bot(paid=True)
    passes(5)
    assert not hubs.retire(the_hub().pk, "ready")
    Hub.objects.update(state="destroying")
    jobs.destroy_hub(the_hub().pk)
    assert cloud.made and the_hub().state == "destroying"


def test_a_machine_that_does_not_go_is_told_about(
    make: Maker, memory_swarm: MemorySwarm, cloud: MemoryMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.user("stella", is_staff=True)
    monkeypatch.setattr(MemoryMachines, "destroy", lambda self, token: False)
    hub = Hub.objects.create(name="stays", state="destroying", deadline=timezone.now() + timedelta(minutes=1))
    jobs.destroy_hub(hub.pk)
    assert not Message.objects.exists()
    too_late()
    jobs.destroy_hub(hub.pk)
    assert "stays" in Message.objects.get().subject and the_hub().deadline > timezone.now()


def test_a_drain_that_takes_too_long_is_told_about_and_goes_on(
    make: Maker, memory_swarm: MemorySwarm, cloud: MemoryMachines, settings: Any
) -> None:
    settings.MAX_HUBS = 1
    make.user("stella", is_staff=True)
    make.bot(paid=True)
    passes(6)
    Hub.objects.filter(state="ready").become(State.DRAINING)
    passes(1)
    assert not Message.objects.filter(text__contains="not drained").exists()
    too_late()
    passes(2)
    assert Message.objects.filter(text__contains="not drained").count() == 1
    assert the_hub().state == "draining" and the_hub().deadline > timezone.now() + timedelta(hours=5)


def test_a_machine_that_the_cloud_refuses_to_destroy_is_no_hub_again_and_is_told_about(
    make: Maker, memory_swarm: MemorySwarm, cloud: MemoryMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.user("stella", is_staff=True)
    make.bot(paid=True)
    passes(5)
    Bot.objects.update(paid=False)
    passes(2)
    Placement.objects.all().delete()
    Hub.objects.filter(answered_at__isnull=False).update(state="destroying")
    with monkeypatch.context() as broken:
        broken.setattr(MemoryMachines, "destroy", refuse)
        passes(2)
    assert (the_hub().state, the_hub().reason) == ("destroying", "The server is locked.")
    assert Message.objects.filter(text__contains="The server is locked.").count() == 1
    passes(3)
    assert (the_hub().state, cloud.made) == ("gone", [])


def refuse(*_: Any) -> NoReturn:
    raise Refused("The server is locked.")


def test_no_node_of_a_machine_that_is_gone_stays_in_the_swarm_and_no_other_hub_s_goes(
    make: Maker, memory_swarm: MemorySwarm, cloud: MemoryMachines
) -> None:
    """One that joined after it was given up, one that was taken in, one that says that it is it, and is not."""
    gone, other = (Hub.objects.create(name=name, state=state) for name, state in [("a", "destroying"), ("b", "ready")])
    late = memory_swarm.add_node(claims=gone.token)
    marked = memory_swarm.add_node(token=gone.token)
    liar = memory_swarm.add_node(token=other.token, claims=gone.token)
    jobs.destroy_hub(gone.pk)
    assert {node.id for node in memory_swarm.look().nodes} & {late, marked, liar} == {liar}
    assert Hub.objects.get(pk=gone.pk).state == "gone"


def test_this_machine_stays_a_hub_whatever_is_asked(make: Maker, memory_swarm: MemorySwarm) -> None:
    assert isinstance(machines.connect(), LocalMachines)
    make.bot(paid=True)
    passes(4)
    Bot.objects.update(paid=False)
    passes(2)
    Placement.objects.all().delete()
    Hub.objects.update(state="destroying")
    passes(1)
    assert the_hub().state == "ready" and "can't be destroyed" in the_hub().reason


# --- strangers -------------------------------------------------------------------------------------------------------
def test_a_stranger_is_told_about_kept_for_ten_minutes_and_then_destroyed(
    make: Maker, memory_swarm: MemorySwarm, cloud: MemoryMachines
) -> None:
    make.user("stella", is_staff=True)
    token = uuid4()
    cloud.strange(token)
    passes(3)
    stranger = Hub.objects.get(token=token)
    assert stranger.state == "failed" and cloud.of(token)
    assert Message.objects.filter(subject__contains=stranger.name).count() == 1
    too_late()
    passes(4)
    assert not cloud.of(token) and Hub.objects.get(token=token).state == "gone"


def test_a_machine_that_is_there_though_it_was_destroyed_is_a_stranger(
    make: Maker, memory_swarm: MemorySwarm, cloud: MemoryMachines
) -> None:
    gone = Hub.objects.create(name="hub-7", state="gone")
    cloud.strange(gone.token)
    passes(2)
    gone.refresh_from_db()
    assert (gone.state, gone.failed_at) == ("failed", None)


# --- by hand ---------------------------------------------------------------------------------------------------------
def test_one_job_that_breaks_stops_no_other(
    make: Maker, memory_swarm: MemorySwarm, cloud: MemoryMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    bots = [make.bot(paid=True) for _ in range(3)]
    passes(4)
    make_identity = MemorySwarm.make_identity

    def sometimes(self: MemorySwarm, bot_id: UUID, *rest: Any) -> str:
        if bot_id == bots[0].pk:
            raise ZeroDivisionError("a mistake of ours")
        return make_identity(self, bot_id, *rest)

    Bot.objects.update(ssb_id="")
    Placement.objects.update(claimed_until=None)
    memory_swarm.services.clear()
    memory_swarm.identities.clear()
    for engine in memory_swarm.nodes.values():
        engine.volumes.clear()
    monkeypatch.setattr(MemorySwarm, "make_identity", sometimes)
    passes(3)
    assert [Bot.objects.get(pk=bot.pk).status for bot in bots] == ["none", "up", "up"]
    assert bots[0].placement.trouble == "a mistake of ours"


def test_a_cloud_that_breaks_in_its_own_way_is_no_end_of_the_pass(
    make: Maker, memory_swarm: MemorySwarm, cloud: MemoryMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: MemoryMachines, *rest: Any) -> None:
        raise MachineError("Something in words for staff.")

    monkeypatch.setattr(MemoryMachines, "create", broken)
    make.bot(paid=True)
    passes(2)
    assert (the_hub().state, the_hub().reason) == ("requested", "Something in words for staff.")


def test_a_cloud_that_goes_on_refusing_is_left_in_peace_for_a_while(
    cloud: MemoryMachines, db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub.objects.create(name="hub-1", state=State.DESTROYING)
    asked = []

    def refuse(token: UUID) -> bool:
        asked.append(token)
        raise Unavailable("The cloud is away.")

    monkeypatch.setattr(cloud, "destroy", refuse)
    for _ in range(6):
        jobs.destroy_hub(hub.pk)
    assert len(asked) == 3
    cache.delete(hubs._rest_key(hub))
    jobs.destroy_hub(hub.pk)
    jobs.destroy_hub(hub.pk)
    assert len(asked) == 4
    hub.refresh_from_db()
    assert (hub.state, hub.reason) == (State.DESTROYING, "The cloud is away.")
