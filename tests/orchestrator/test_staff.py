"""What staff see of the hubs and do about them, by command and in admin."""

import io
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from django.utils import timezone

from orchestrator import staff
from orchestrator.models import Enrolment, Hub, Placement
from orchestrator.reconcile import run_here, run_pass
from orchestrator.swarm import PubService
from orchestrator.swarm.memory import MemorySwarm
from pubs import live
from tests.support.make import Maker

LONG_AGO = timezone.now() - timedelta(hours=5)


@pytest.fixture(autouse=True)
def cloud(settings: Any) -> None:
    """Machines that come and go, and room for three."""
    settings.MACHINES = "orchestrator.machines.memory.MemoryMachines"
    settings.MAX_HUBS = 3


@pytest.fixture
def nudges(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    heard: list[int] = []
    monkeypatch.setattr(live, "nudge", lambda: heard.append(1))
    return heard


@pytest.fixture
def hub(make: Maker) -> Callable[..., Hub]:
    """Makes a hub with as many pubs on it."""

    def make_hub(name: str, pubs: int = 0, **fields: Any) -> Hub:
        made = Hub.objects.create(name=name, **{"state": "ready", "places": 15, **fields})
        for _ in range(pubs):
            place(make, made)
        return made

    return make_hub


def place(make: Maker, hub: Hub, places: int = 1, **bot: Any) -> Placement:
    made = make.bot(paid=True, **bot)
    port = 24000 + Placement.objects.count()
    return Placement.objects.create(bot=made, hub=hub, port=port, label=made.pk.hex, places=places)


def run(*words: str) -> str:
    out = io.StringIO()
    call_command(*words, stdout=out)
    return out.getvalue().strip()


def fresh(hub: Hub) -> Hub:
    return Hub.objects.get(pk=hub.pk)


# --- drain and uncordon ----------------------------------------------------------------------------------------------
def test_a_drain_is_written_with_deadline_and_reason_and_asks_for_a_pass(hub: Any, nudges: list[int]) -> None:
    one = hub("hub-1", pubs=2)
    hub("hub-2")
    said = run("hub", "drain", "hub-1")
    assert fresh(one).state == "draining" and fresh(one).reason and nudges == [1]
    deadline = fresh(one).deadline
    assert deadline and timedelta(hours=5) < deadline - timezone.now() <= timedelta(hours=6)
    assert "2 pubs must move to other hubs" in said and "bought" not in said and "MAX_HUBS" not in said


def test_a_drain_says_that_a_machine_must_be_bought_for_it(hub: Any) -> None:
    hub("hub-1", pubs=2)
    hub("hub-2", pubs=1, places=2)
    said = run("hub", "drain", "hub-1")
    assert "room for 1 GB of 2 GB" in said and "one more machine is bought" in said


def test_a_drain_of_the_last_hub_with_room_says_that_its_pubs_stay(hub: Any, settings: Any) -> None:
    settings.MAX_HUBS = 1
    hub("hub-1", pubs=1)
    said = run("hub", "drain", "hub-1")
    assert "MAX_HUBS=1 allows no more machines" in said and "stays here, running" in said


@pytest.mark.parametrize(
    "other", [{"state": "draining"}, {"lost_at": LONG_AGO}, {"state": "failed"}], ids=["draining", "lost", "failed"]
)
def test_room_where_nothing_can_go_is_no_room(hub: Any, other: dict[str, Any]) -> None:
    hub("hub-1", pubs=1)
    hub("hub-2", **other)
    assert "room for 0 GB of 1 GB" in run("hub", "drain", "hub-1")


def test_a_drain_of_an_empty_hub_says_that_it_goes_at_once(hub: Any) -> None:
    hub("hub-1")
    assert "destroyed at the next pass" in run("hub", "drain", "hub-1")


def test_a_drain_of_a_lost_hub_says_that_nothing_moves(hub: Any) -> None:
    hub("hub-1", pubs=1, lost_at=LONG_AGO)
    assert "nothing moves until it is back" in run("hub", "drain", "hub-1")


def test_uncordon_calls_a_drain_off(hub: Any, nudges: list[int]) -> None:
    one = hub("hub-1", pubs=1)
    run("hub", "drain", "hub-1")
    run("hub", "uncordon", "hub-1")
    assert (fresh(one).state, fresh(one).deadline, fresh(one).reason) == ("ready", None, "")
    assert nudges == [1, 1]


FITS = {
    "drain": {"ready"},
    "uncordon": {"draining"},
    "destroy": {"requested", "booting", "ready", "draining", "failed"},
    "fence": set(),  # it must be out of sight too
}


@pytest.mark.parametrize(
    ("deed", "state"), [(deed, state) for deed, fitting in FITS.items() for state in Hub.State if state not in fitting]
)
def test_a_deed_that_does_not_fit_the_state_is_refused_and_changes_nothing(
    hub: Any, nudges: list[int], deed: str, state: str
) -> None:
    hub("hub-1", state=state)
    before = Hub.objects.values().get()
    with pytest.raises(CommandError, match="hub-1"):
        run("hub", deed, "hub-1", *(["--yes-the-machine-is-off", "hub-1"] if deed == "fence" else []))
    assert Hub.objects.values().get() == before and nudges == []


# --- destroy ---------------------------------------------------------------------------------------------------------
def test_an_empty_hub_is_destroyed(hub: Any, nudges: list[int]) -> None:
    one = hub("hub-1")
    assert "is being destroyed" in run("hub", "destroy", "hub-1")
    deadline = fresh(one).deadline
    assert fresh(one).state == "destroying" and deadline and deadline > timezone.now() and nudges == [1]


def test_a_hub_with_pubs_is_not_destroyed(hub: Any, make: Maker) -> None:
    one = hub("hub-3", pubs=2)
    with pytest.raises(CommandError, match="^hub-3 has 2 pubs on it: drain it first.$"):
        run("hub", "destroy", "hub-3")
    assert fresh(one).state == "ready"


def test_a_hub_with_the_volume_of_a_deleted_pub_is_not_destroyed(hub: Any, make: Maker) -> None:
    place(make, hub("hub-1"), deleted_at=LONG_AGO)
    with pytest.raises(CommandError, match="1 volume of deleted pubs"):
        run("hub", "destroy", "hub-1")


def test_a_hub_that_a_pub_is_moving_to_is_not_destroyed(hub: Any, make: Maker) -> None:
    target = hub("hub-2")
    Placement.objects.filter(pk=place(make, hub("hub-1")).pk).update(moving_to=target)
    with pytest.raises(CommandError, match="hub-2 has 1 pub on it"):
        run("hub", "destroy", "hub-2")


def test_a_pub_that_comes_while_staff_destroy_keeps_its_hub(
    hub: Any, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = hub("hub-1")
    monkeypatch.setattr(staff, "_load", lambda hub: "" if place(make, hub) else "")
    with pytest.raises(CommandError, match="changed just now"):
        run("hub", "destroy", "hub-1")
    assert fresh(one).state == "ready"


@pytest.fixture
def haunted(hub: Any, memory_swarm: MemorySwarm) -> Hub:
    """A hub with a service on it of a pub that no row knows."""
    one = hub("hub-1", answered_at=timezone.now())
    node = memory_swarm.add_node(token=one.token)
    memory_swarm.put_service(PubService(uuid4(), "@x", node, 24000, "pubs.example", "sha256:none", 1, 0))
    run_pass(ask=run_here)
    return fresh(one)


def test_a_hub_that_runs_pubs_unknown_to_us_is_not_destroyed(haunted: Hub) -> None:
    with pytest.raises(staff.NotNow, match="no pub on it that we know of, but 1 service of ours"):
        staff.destroy(haunted)
    assert fresh(haunted).state == "ready"


def test_a_destruction_that_has_not_begun_since_pubs_run_there_is_taken_back(haunted: Hub) -> None:
    Hub.objects.update(state="destroying")
    run_pass(ask=run_here)
    staff.uncordon(fresh(haunted))
    assert fresh(haunted).state == "ready"


@pytest.mark.parametrize("late", ["drain", "destroy"])
def test_of_two_deeds_at_once_one_wins(hub: Any, nudges: list[int], late: str) -> None:
    as_read = hub("hub-1")
    staff.drain(fresh(as_read))
    with pytest.raises(staff.NotNow, match="changed just now"):
        staff.DEEDS[late](as_read)
    assert fresh(as_read).state == "draining" and nudges == [1]


# --- fence -----------------------------------------------------------------------------------------------------------
def type_in(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    monkeypatch.setattr("builtins.input", lambda prompt: words)


def test_a_lost_hub_is_fenced_once_its_name_is_typed(
    hub: Any, nudges: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = hub("hub-1", pubs=2, lost_at=LONG_AGO), hub("hub-2", pubs=1, lost_at=LONG_AGO)
    type_in(monkeypatch, "hub-1")
    said = run("hub", "fence", "hub-1")
    assert "off for good" in said and "2 pubs" in said and "restore" in said
    assert fresh(one).fenced_at and fresh(other).fenced_at is None and nudges == [1]


def test_what_was_on_a_fenced_hub_waits_for_a_restore_and_the_hub_goes(hub: Any) -> None:
    one, other = hub("hub-1", pubs=2, lost_at=LONG_AGO), hub("hub-2", pubs=1, lost_at=timezone.now())
    Placement.objects.filter(hub=one).update(moving_to=other)
    staff.fence(one)
    for _ in range(3):
        run("reconcile", "--once")
    assert fresh(one).state == "gone"
    assert [(placement.lost_at is not None, placement.moving_to) for placement in one.placements.all()] == [
        (True, None),
        (True, None),
    ]
    assert other.placements.get().lost_at is None and fresh(other).state == "ready"


@pytest.mark.parametrize("typed", ["", "hub-2", "yes"])
def test_anything_else_typed_fences_nothing(hub: Any, monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    one = hub("hub-1", pubs=1, lost_at=LONG_AGO)
    type_in(monkeypatch, typed)
    with pytest.raises(CommandError, match="nothing was done"):
        run("hub", "fence", "hub-1")
    assert fresh(one).fenced_at is None and one.placements.get().lost_at is None


def test_a_script_gives_the_name_twice(hub: Any) -> None:
    one = hub("hub-1", lost_at=LONG_AGO)
    with pytest.raises(CommandError, match="nothing was done"):
        run("hub", "fence", "hub-1", "--yes-the-machine-is-off", "hub-2")
    run("hub", "fence", "hub-1", "--yes-the-machine-is-off", "hub-1")
    assert fresh(one).fenced_at


def test_a_hub_in_sight_is_never_fenced(hub: Any) -> None:
    one = hub("hub-1", pubs=1)
    with pytest.raises(CommandError, match="in sight"):
        run("hub", "fence", "hub-1", "--yes-the-machine-is-off", "hub-1")
    assert fresh(one).fenced_at is None and one.placements.get().lost_at is None


def test_a_hub_that_came_back_meanwhile_is_not_fenced(hub: Any) -> None:
    as_read = hub("hub-1", pubs=1, lost_at=LONG_AGO)
    Hub.objects.update(lost_at=None)
    with pytest.raises(staff.NotNow, match="changed just now"):
        staff.fence(as_read)
    assert as_read.placements.get().lost_at is None


# --- all of them -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("deed", ["drain", "destroy", "fence"])
def test_the_machine_that_we_run_on_can_not_be_given_up(hub: Any, settings: Any, deed: str) -> None:
    settings.MACHINES = "orchestrator.machines.local.LocalMachines"
    hub("hub-1")
    with pytest.raises(staff.NotNow, match="hub-1 is this machine, the only hub there is"):
        staff.DEEDS[deed](Hub.objects.get())


def test_a_hub_that_does_not_exist_is_named_beside_those_that_do(hub: Any) -> None:
    with pytest.raises(CommandError, match="There is none yet"):
        run("hub", "drain", "hub-9")
    hub("hub-1")
    hub("hub-2", state="gone")
    with pytest.raises(CommandError, match=r"no hub “hub-9”. There are: hub-1\.$"):
        run("hub", "drain", "hub-9")


# --- the table -------------------------------------------------------------------------------------------------------
def test_the_table_shows_each_hub_in_a_line(hub: Any, make: Maker) -> None:
    one = hub("hub-1", pubs=2, seen_at=timezone.now() - timedelta(minutes=5), reason="The swarm does not show it.")
    place(make, one, places=4)
    hub("hub-2", state="booting", deadline=timezone.now() + timedelta(minutes=14, seconds=30), places=0)
    hub("hub-3", state="gone")
    head, first, second = run("hubs").splitlines()
    assert " ".join(first.split()) == "hub-1 ready - 6 of 15 - - 5 min ago - - The swarm does not show it."
    assert second.startswith("hub-2  booting  in 14 min") and second.endswith("-")
    assert head.index("TAKEN") == first.index("6 of 15") == second.index("0 of 0")


def test_places_are_counted_where_a_pub_goes_and_not_for_what_is_deleted_or_lost(hub: Any, make: Maker) -> None:
    one, two = hub("hub-1", pubs=1), hub("hub-2", pubs=1)
    place(make, one, deleted_at=LONG_AGO)
    Placement.objects.filter(pk=place(make, one, places=2).pk).update(moving_to=two)
    Placement.objects.filter(pk=place(make, two).pk).update(lost_at=LONG_AGO)
    taken = {hub["name"]: hub["taken"] for hub in json.loads(run("hubs", "--json"))}
    assert taken == {"hub-1": 3, "hub-2": 3}


def test_programs_get_json(hub: Any) -> None:
    one = hub("hub-1", pubs=1, lost_at=LONG_AGO, address="10.0.0.7")
    ends = "2029-02-25T12:00:00+00:00"
    Enrolment.objects.create(hub=one, until=LONG_AGO, answer={"expires": ends, "token": "SWMTKN-1-secret"})
    (read,) = json.loads(run("hubs", "--json"))
    assert (read["name"], read["state"], read["places"], read["volumes"]) == ("hub-1", "ready", 15, 1)
    assert (read["token"], read["address"], read["fenced_at"]) == (str(one.token), "10.0.0.7", None)
    assert (read["lost_at"], read["certificate_ends"]) == (LONG_AGO.isoformat(), ends)
    assert "SWMTKN" not in str(read)


def test_a_lost_hub_is_called_out_of_sight_and_a_fenced_one_fenced(hub: Any) -> None:
    hub("hub-1", lost_at=LONG_AGO)
    hub("hub-2", lost_at=LONG_AGO, fenced_at=LONG_AGO)
    _, first, second = run("hubs").splitlines()
    assert "ready, out of sight" in first and "ready, fenced" in second


def test_no_hub_is_said_in_words(make: Maker) -> None:
    assert "There is no hub yet." in run("hubs")


# --- the same in admin -----------------------------------------------------------------------------------------------
HUBS = "/admin/orchestrator/hub/"


@pytest.fixture
def admin(make: Maker) -> Client:
    client = Client()
    client.force_login(make.user("staff", is_staff=True, is_superuser=True))
    return client


def act(admin: Client, action: str, *hubs: Hub, **fields: str) -> str:
    data = {"action": action, "_selected_action": [hub.pk for hub in hubs], **fields}
    return admin.post(HUBS, data, follow=True).content.decode()


def test_staff_drain_and_uncordon_in_admin(admin: Client, hub: Any, nudges: list[int]) -> None:
    one, two = hub("hub-1", pubs=1), hub("hub-2")
    said = act(admin, "drain", one)
    assert "is being drained. Now 1 pub must move" in said and fresh(one).state == "draining"
    said = act(admin, "uncordon", one, two)
    assert "takes pubs again" in said and "ub-2 is ready: that needs a hub that is draining." in said
    assert fresh(one).state == "ready" and nudges == [1, 1]
    assert [entry.get_change_message()[:22] for entry in LogEntry.objects.all()] == [
        "hub-1 takes pubs again",
        "hub-1 is being drained",
    ]


@pytest.mark.parametrize(("deed", "fields"), [("destroy", {}), ("fence", {"lost_at": LONG_AGO})])
def test_what_can_not_be_undone_asks_for_the_name_first(
    admin: Client, hub: Any, nudges: list[int], deed: str, fields: dict[str, Any]
) -> None:
    one = hub("hub-1", **fields)
    before = Hub.objects.values().get()
    page = act(admin, deed, one)
    assert f"{deed.title()} hub-1?" in page and "for good, with its disk" in page or "give your word" in page
    assert "nothing was done" in act(admin, deed, one, typed="hub-2")
    assert Hub.objects.values().get() == before and not nudges
    page = act(admin, deed, one, typed=" hub-1 ")
    assert "ub-1 is" in page and 'name="typed"' not in page
    assert nudges == [1] and (fresh(one).state == "destroying" or fresh(one).fenced_at)


@pytest.mark.parametrize("deed", ["destroy", "fence"])
def test_what_can_not_be_undone_is_refused_before_a_name_is_asked_for(admin: Client, hub: Any, deed: str) -> None:
    one, two = hub("hub-1", pubs=1), hub("hub-2")
    refused = act(admin, deed, one, typed="hub-1")
    assert ("ub-1 has 1 pub on it" in refused or "ub-1 is in sight" in refused) and 'name="typed"' not in refused
    assert "one by one" in act(admin, deed, one, two)
    assert (fresh(one).state, fresh(two).state) == ("ready", "ready")


@pytest.mark.parametrize("deed", ["drain", "uncordon", "destroy", "fence"])
def test_staff_who_may_only_look_have_no_deeds(make: Maker, hub: Any, deed: str) -> None:
    looker = make.user("looker", is_staff=True)
    looker.user_permissions.add(Permission.objects.get(codename="view_hub"))
    client, one = Client(), hub("hub-1", lost_at=LONG_AGO)
    client.force_login(looker)
    assert "hub-1" in client.get(HUBS).content.decode()
    before = Hub.objects.values().get()
    assert f'value="{deed}"' not in client.get(HUBS).content.decode()
    act(client, deed, one, typed="hub-1")
    assert Hub.objects.values().get() == before


def test_the_list_is_filtered_by_what_is_lost_or_late(admin: Client, hub: Any) -> None:
    hub("hub-1", lost_at=LONG_AGO)
    hub("hub-2", deadline=LONG_AGO)
    hub("hub-3", state="gone", deadline=timezone.now() + timedelta(hours=5))

    def names(query: str) -> set[str]:
        return {hub.name for hub in admin.get(f"{HUBS}?{query}").context["cl"].result_list}

    assert names("lost=yes") == {"hub-1"} and names("overdue=yes") == {"hub-2"}
    assert names("state__exact=gone") == {"hub-3"} and names("") == {"hub-1", "hub-2", "hub-3"}


def test_a_hubs_page_tells_how_it_joined_and_keeps_the_ticket_to_itself(admin: Client, hub: Any) -> None:
    one = hub("hub-1", state="booting")
    assert admin.get(f"{HUBS}{one.pk}/change/").status_code == 200  # without an invitation
    Enrolment.objects.create(
        hub=one, until=timezone.now(), answer={"token": "SWMTKN-1-secret"}, report="curl: (7) Failed to connect"
    )
    page = admin.get(f"{HUBS}{one.pk}/change/").content.decode()
    assert "Failed to connect" in page and "SWMTKN" not in page
