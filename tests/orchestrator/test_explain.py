"""What the plan says to staff: the pub's and the hub's names, and why."""

import io
from typing import Any
from uuid import UUID

import pytest
from django.core.management import call_command
from django.utils import timezone

from orchestrator import planner, swarm
from orchestrator.models import Hub, Placement
from orchestrator.sentences import NOTHING, Sentences
from orchestrator.swarm import Service, Sight
from orchestrator.swarm.memory import MemorySwarm
from orchestrator.world import World
from pubs.models import Bot
from tests.support.make import Maker

NOW = timezone.now()
HERE, THERE = Hub(pk=1, name="hub-1", state="draining"), Hub(pk=2, name="hub-2", state="ready")
HUBS = [HERE, THERE, *(Hub(pk=10 + i, name=f"hub-{10 + i}", state=state) for i, state in enumerate(Hub.State))]
OF_STATE = {hub.state: hub.pk for hub in HUBS[2:]}


def bot(name: str = "Garden", **fields: Any) -> Bot:
    return Bot(pk=UUID("3f2a91c0-0000-4000-8000-000000000000"), name=name, paid=True, ssb_id="@x", **fields)


def say(action: planner.Action, about: Bot | None = None, serving: bool = False, moving: bool = False) -> str:
    """What is said when this is all that there is to do."""
    about = about or bot()
    home = Placement(bot=about, hub=HERE, places=1, moving_to=THERE if moving else None)
    services = (Service(about.pk, "node-1", "", healthy=True),) if serving else ()
    world = World(Sight(NOW, (), services), [about], {about.pk: home}, HUBS, {})
    (line,) = Sentences(world).of([action])
    return line


IT = bot().pk
NAMED = "“Garden” (3f2a91c0)"
STRANGER = UUID(int=1)


@pytest.mark.parametrize(
    ("action", "line"),
    [
        (planner.Place(IT, 2, 1), f"{NAMED} gets 1 GB on hub-2."),
        (planner.Resize(IT, 4), f"{NAMED} gets 4 GB on hub-1 in place of 1 GB."),
        (planner.StartMove(IT, 2), f"{NAMED} moves from hub-1, which is drained, to hub-2."),
        (planner.Wait(IT, planner.ROOM_COMES), f"{NAMED} waits. {planner.ROOM_COMES}"),
        (planner.Report(IT, "Look at it."), f"Staff must look at {NAMED}. Look at it."),
        (planner.Report(2, "Look at it."), "Staff must look at hub-2. Look at it."),
        (planner.Report(None, planner.AT_MAXIMUM), f"Staff must look at the hubs. {planner.AT_MAXIMUM}"),
        (planner.Report(STRANGER, "No bot."), f"Staff must look at the unknown bot {STRANGER}. No bot."),
        (planner.GiveUpHub(2, "No valid host."), "hub-2 is given up and then destroyed. No valid host."),
        (planner.FenceHub(2), "hub-2 is fenced: its machine is off for good, and what was on it is lost."),
        (planner.UnfenceHub(2), "hub-2 is fenced no more: the cloud lists its machine again."),
        (planner.EnsureHub(OF_STATE["requested"]), "hub-10: the cloud is asked for its machine."),
        (planner.EnsureHub(99), "a hub that is gone: it is out of sight: we look whether it needs its mark again."),
    ],
)
def test_an_action_is_a_sentence_with_names(action: planner.Action, line: str) -> None:
    assert say(action) == line


def test_a_move_is_told_with_both_ends() -> None:
    assert say(planner.EnsureMoved(IT), moving=True) == f"{NAMED} is on its way from hub-1 to hub-2."
    assert "stays on hub-1: its move to hub-2 is called off." in say(planner.CancelMove(IT), moving=True)


def test_a_start_says_what_is_missing() -> None:
    fresh = bot()
    fresh.ssb_id = ""
    assert "no identity yet" in say(planner.EnsureUp(IT), fresh)
    assert "it has no service" in say(planner.EnsureUp(IT))
    assert "its service must change" in say(planner.EnsureUp(IT), serving=True)


def test_a_stop_says_who_wanted_it() -> None:
    unpaid = bot()
    unpaid.paid, unpaid.rung = False, "suspended"
    for about, why in (
        (unpaid, "its payment failed or is paused"),
        (bot(switched_on=False), "its owner switched it off"),
        (bot(deleted_at=NOW), "it was deleted"),
        (bot(), "its hub is lost"),
    ):
        assert say(planner.EnsureDown(IT), about) == f"{NAMED} is stopped on hub-1: {why}."


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("ready", "empty for a while"),
        ("draining", "drained and empty"),
        ("failed", "failed"),
        ("destroying", "not gone"),
    ],
)
def test_a_destruction_says_why(state: str, why: str) -> None:
    assert why in say(planner.DestroyHub(OF_STATE[state]))


def test_the_same_thing_several_times_is_one_line() -> None:
    world = World(Sight(NOW, (), ()), [], {}, [], {})
    (line,) = Sentences(world).of([planner.BuyHub(), planner.BuyHub()])
    assert line.startswith("One more machine is bought") and line.endswith("(2 times)")
    assert Sentences(world).of([]) == [NOTHING]


# --- the commands ----------------------------------------------------------------------------------------------------
@pytest.fixture
def cloud(settings: Any, db: None) -> MemorySwarm:
    """Machines that come and go, and no hub yet."""
    settings.MACHINES = "orchestrator.machines.memory.MemoryMachines"
    settings.MAX_HUBS = 4
    twin = swarm.connect()
    assert isinstance(twin, MemorySwarm)
    return twin


def run(*words: str) -> str:
    out = io.StringIO()
    call_command(*words, stdout=out)
    return out.getvalue()


def ready_hub(twin: MemorySwarm, name: str) -> Hub:
    hub = Hub.objects.create(name=name, state="ready", places=15, answered_at=timezone.now())
    node = twin.add_node(claims=hub.token, address="10.0.0.1", name=name)
    twin.mark_node(node, hub.token)
    Hub.objects.filter(pk=hub.pk).update(node_id=node)
    return hub


def placed(make: Maker, hub: Hub, name: str) -> Bot:
    made = make.bot(name=name, paid=True, ssb_id=f"@{name}")
    Placement.objects.create(bot=made, hub=hub, port=29000 + Placement.objects.count(), label=made.pk.hex)
    return made


def test_the_plan_is_printed_and_nothing_is_changed(make: Maker, cloud: MemorySwarm) -> None:
    make.bot(name="Harbour", paid=True)
    said = run("plan")
    assert said.startswith("1 wanted of 1 bots, 0 services, 0 of 0 places taken on 0 hubs.\n")
    assert "One more machine is bought" in said and "“Harbour”" in said and planner.ROOM_COMES in said
    assert not Hub.objects.exists() and not Placement.objects.exists()


def test_the_plan_is_what_the_next_pass_would_do_and_leaves_all_rows_as_they_are(
    make: Maker, cloud: MemorySwarm
) -> None:
    ready_hub(cloud, "hub-1")
    placed(make, lost := ready_hub(cloud, "hub-2"), "Meadow")
    lost.refresh_from_db()
    cloud.cut(lost.node_id)
    make.bot(name="Harbour", paid=True)
    Hub.objects.update(places=0, answered_at=None)
    before = list(Hub.objects.values())
    said = run("plan")
    assert "gets 1 GB on hub-1" in said and planner.LOST_SIGHT in said
    assert list(Hub.objects.values()) == before


def test_nothing_to_do_is_said_too(cloud: MemorySwarm) -> None:
    assert run("plan").endswith(f"{NOTHING}\n")


def test_a_pass_by_hand_says_what_it_did_in_the_same_words(make: Maker, cloud: MemorySwarm) -> None:
    make.bot(name="Harbour", paid=True)
    planned = [line.strip() for line in run("plan").splitlines()[1:]]
    assert run("reconcile", "--once").splitlines() == planned
    assert Hub.objects.exists()


def test_consolidate_says_which_drain_saves_a_machine_and_starts_none(make: Maker, cloud: MemorySwarm) -> None:
    one, two = ready_hub(cloud, "hub-1"), ready_hub(cloud, "hub-2")
    placed(make, one, "Harbour"), placed(make, one, "Hill"), placed(make, two, "Meadow")
    said = run("plan", "--consolidate").splitlines()
    assert said[0] == "Draining hub-2 would save its machine: manage.py hub drain hub-2"
    assert len(said) == 2 and "“Meadow”" in said[1] and "would move to hub-1." in said[1]
    assert set(Hub.objects.values_list("state", flat=True)) == {"ready"}


def test_consolidate_of_one_hub_saves_none(make: Maker, cloud: MemorySwarm) -> None:
    placed(make, ready_hub(cloud, "hub-1"), "Harbour")
    assert run("plan", "--consolidate") == "No drain would save a machine.\n"
