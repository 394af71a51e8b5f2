"""The fleet at a glance: its facts, what shows that the rest lives, and staff's page."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from buttcloud import workers
from buttcloud.celery import app as celery_app
from mailer.models import TRIES_MAX, Hook, Message
from orchestrator import fleet, jobs, signs, swarm
from orchestrator.fleet import Look
from orchestrator.models import Broadcaster, Hub, Placement
from orchestrator.reconcile import make_plan, observe
from orchestrator.record import GB
from orchestrator.swarm import SwarmError
from pubs.models import Bot, Checkup, Event, StatsSample, Trouble
from tests.support.make import Maker
from tests.support.site import running_worker
from tests.support.wait import until

PAGE = "/admin/orchestrator/hub/fleet/"
LONG_AGO = timezone.now() - timedelta(hours=5)
Place = Callable[..., Bot]


@pytest.fixture
def hub(db: None) -> Hub:
    return Hub.objects.create(name="hub-1", state="ready", places=15, node_id="n1", seen_at=timezone.now())


@pytest.fixture
def place(make: Maker, hub: Hub) -> Place:
    """Makes a pub that is up on the hub; `home` says more about its placement."""

    def place_one(home: dict[str, Any] | None = None, **fields: Any) -> Bot:
        bot = make.bot(**{"paid": True, "rung": "paid", "status": "up", **fields})
        port = 24000 + Placement.objects.count()
        Placement.objects.create(**{"bot": bot, "hub": hub, "port": port, "label": bot.pk.hex, **(home or {})})
        return bot

    return place_one


def measure(bot: Bot, memory: int, cpu: float = 50.0, seconds_ago: int = 10, step: int = 10) -> None:
    metrics = ("rx_rate", "tx_rate", "read_rate", "write_rate", "pids")
    values = dict.fromkeys(metrics, 0) | {"memory": memory, "cpu": cpu}
    columns = {f"{name}{end}": value for name, value in values.items() for end in ("_min", "", "_max")}
    StatsSample.objects.create(bot=bot, step=step, at=timezone.now() - timedelta(seconds=seconds_ago), **columns)


def only() -> fleet.HubFacts:
    [found] = fleet.look().hubs
    return found


# --- facts -----------------------------------------------------------------------------------------------------------
SOON = timezone.now() + timedelta(hours=1)


@pytest.mark.parametrize(
    ("fields", "look"),
    [
        ({}, Look.UP),
        ({"status": "down"}, Look.DOWN),
        ({"status": "none"}, Look.STARTING),
        ({"paid": False}, Look.STOPPED),
        ({"switched_on": False, "status": "none"}, Look.STOPPED),
        ({"status": "none", "rests_until": SOON}, Look.RESTS),
        ({"rests_until": LONG_AGO}, Look.UP),
        ({"moving": True, "status": "down"}, Look.MOVING),
        ({"unknown_since": LONG_AGO}, Look.UNKNOWN),
        ({"unknown_since": LONG_AGO, "lost_at": LONG_AGO}, Look.LOST),
    ],
)
def test_a_pub_is_shown_by_the_first_word_that_fits(place: Place, fields: dict[str, Any], look: Look) -> None:
    place(**fields)
    assert [home.look for home in only().homes] == [look]
    assert {word for word, count in fleet.look().looks.items() if count} == {look}


def test_memory_promised_is_that_of_the_places_and_used_that_of_the_newest_samples(place: Place) -> None:
    first, second = place({"places": 4}), place()
    measure(first, 900, seconds_ago=30)
    measure(first, 700, cpu=150.0)
    measure(first, 5000, seconds_ago=1, step=60)
    measure(second, 50)
    found = only()
    assert (found.taken, found.promised, found.size) == (5, 5 * GB, 15 * GB)
    assert (found.measured.memory, found.measured.cpu, found.measured.pubs) == (750, 2.0, 2)


def test_old_samples_say_nothing_about_now(place: Place) -> None:
    measure(place(), 900, seconds_ago=90)
    assert only().measured.pubs == 0


def test_what_was_lost_or_deleted_or_has_no_place_is_not_measured(place: Place, make: Maker) -> None:
    for bot in (place({"lost_at": LONG_AGO}), place(deleted_at=LONG_AGO), make.bot(paid=True)):
        measure(bot, 900)
    assert only().measured == fleet.Measured()


def test_the_figures_of_many_pubs_are_read_as_one_row_a_hub(place: Place) -> None:
    for _ in range(4):
        bot = place()
        for seconds in (3, 13, 23):
            measure(bot, 10, seconds_ago=seconds)
    with CaptureQueriesContext(connection) as captured:
        assert only().measured.memory == 40
    [samples] = [query["sql"] for query in captured if StatsSample._meta.db_table in query["sql"]]
    with connection.cursor() as cursor:
        cursor.execute(samples)
        assert len(cursor.fetchall()) == 1


def test_a_place_is_taken_on_both_hubs_while_a_pub_moves(place: Place) -> None:
    target = Hub.objects.create(name="hub-2", state="ready", places=15)
    place({"moving_to": target, "places": 2}, moving=True)
    here, there = fleet.look().hubs
    assert (here.taken, there.taken) == (2, 2)
    assert [home.arrives for home in (*here.homes, *there.homes)] == [False, True]


def test_what_was_deleted_holds_a_volume_and_no_place(place: Place) -> None:
    place(deleted_at=timezone.now())
    assert (only().kept, only().taken, fleet.look().pubs) == (1, 0, 0)


def test_what_is_lost_with_its_hub_holds_no_place(place: Place) -> None:
    place({"lost_at": timezone.now()}, lost_at=timezone.now())
    assert only().taken == 0
    assert fleet.look().looks[Look.LOST] == 1


@pytest.mark.parametrize("fields", [{"state": "draining"}, {"lost_at": LONG_AGO}, {"state": "failed"}])
def test_only_where_the_plan_can_place_there_is_room(hub: Hub, fields: dict[str, Any]) -> None:
    assert fleet.look().free == 15
    Hub.objects.update(**fields)
    assert fleet.look().free == 0


def test_a_hub_that_is_gone_is_not_shown(hub: Hub) -> None:
    Hub.objects.update(state="gone")
    assert fleet.look().hubs == []


def test_who_should_run_and_is_nowhere_is_counted(make: Maker) -> None:
    make.bot(paid=True)
    make.bot(paid=False)
    make.bot(paid=True, switched_on=False)
    assert fleet.look().without_place == 1


def test_of_those_that_are_up_it_says_how_many_nobody_reaches(place: Place) -> None:
    Checkup.objects.create(bot=place(), unreached="refused", disk=700)
    Checkup.objects.create(bot=place(), disk=50)
    Checkup.objects.create(bot=place(status="down"), unreached="refused")
    assert fleet.look().unreached == 1
    assert only().disk == 750


def test_open_troubles_and_late_crashes_are_counted(place: Place) -> None:
    bot, now = place(), timezone.now()
    times = {"began": now, "back_at": now, "last_at": now}
    Trouble.objects.create(bot=bot, kind="memory", **times)
    Trouble.objects.create(bot=bot, kind="disk", ended=now, **times)
    Event.note(bot.pk, Event.Kind.CRASHED)
    Event.note(bot.pk, Event.Kind.CRASHED, at=LONG_AGO)
    facts = fleet.look()
    assert [trouble.kind for trouble in facts.newest_troubles] == ["memory"]
    assert facts.troubles["memory"] == 1 and facts.troubles["disk"] == 0
    assert facts.crashes == 1


def test_a_broadcaster_is_shown_with_its_hubs_as_long_as_it_lives(hub: Hub) -> None:
    now = timezone.now()
    alive = Broadcaster.objects.create(host="here", seen_at=now, streams=3)
    Broadcaster.objects.create(host="dead", seen_at=LONG_AGO, streams=9)
    Hub.objects.update(watched_by=alive, watched_until=now + timedelta(seconds=10))
    facts = fleet.look()
    assert [(each.broadcaster.host, each.hubs) for each in facts.watchers] == [("here", (hub,))]
    assert facts.streams == 3 and only().is_watched
    Hub.objects.update(watched_until=now - timedelta(seconds=1))
    assert not only().is_watched


def test_what_waits_is_counted_from_its_oldest_on_and_what_was_given_up_apart(make: Maker) -> None:
    for number, fields in enumerate([{}, {}, {"sent_at": timezone.now()}, {"tries": TRIES_MAX}]):
        Message.objects.create(key=f"mail {number}", to="alice@customer.example", **fields)
    Message.objects.filter(key="mail 1").update(created=LONG_AGO)
    Message.objects.filter(key="mail 3").update(created=LONG_AGO - timedelta(days=1))
    Hook.objects.create(key="hook", url="https://hook.example", body="{}")
    command = make.bot().ask(None, "status", {})
    facts = fleet.look()
    assert (facts.mails.count, facts.mails.oldest, facts.mails.given_up) == (2, LONG_AGO, 1)
    assert (facts.hooks.count, facts.commands.count) == (1, 1)
    command.state = "done"
    command.save()
    assert fleet.look().commands == fleet.Waiting(0, None)


def test_ten_times_the_pubs_and_hubs_cost_no_query_more(
    place: Place, hub: Hub, django_assert_num_queries: Any, django_assert_max_num_queries: Any
) -> None:
    measure(place(), 1)
    with django_assert_max_num_queries(15) as few:
        fleet.look()
    for number in range(10):
        Hub.objects.create(name=f"hub-{number + 2}", state="ready", places=15)
        measure(place(), 1)
    with django_assert_num_queries(len(few)):
        facts = fleet.look()
        assert len(facts.hubs) == 11 and facts.hubs[0].certificate_ends is None


# --- signs of life ---------------------------------------------------------------------------------------------------
def beat(queue: str) -> None:
    """What the clock sends to this queue, in the way that it does: by the task itself where it knows it."""
    [entry] = [
        entry
        for entry in celery_app.conf.beat_schedule.values()
        if entry["task"] == signs.PULSE and entry["args"] == [queue]
    ]
    celery_app.tasks[entry["task"]].apply_async(entry["args"], **entry["options"])


def test_every_queue_that_workers_take_gets_its_pulse(settings: Any) -> None:
    assert set(settings.QUEUES) == set(workers.QUEUES)


@pytest.mark.parametrize("queue", workers.QUEUES)
def test_a_pulse_goes_through_its_own_queue_and_says_how_long_it_took(transactional_db: None, queue: str) -> None:
    assert signs.queue_ages()[queue] is None
    with running_worker(queue):
        beat(queue)
        until("the pulse is there", lambda: signs.queue_ages()[queue] is not None, 10, 0.02)
    age = signs.queue_ages()[queue]
    assert age is not None and 0 <= age < 5
    assert [name for name, age in signs.queue_ages().items() if age is not None] == [queue]


def test_a_queue_that_takes_long_is_as_old_as_the_last_pulse_took() -> None:
    signs.note_pulse("swarm", time.time() - 7)
    assert signs.queue_ages()["swarm"] == pytest.approx(7, abs=5)


def test_a_queue_that_stands_is_as_old_as_the_pulse_that_never_came(settings: Any) -> None:
    cache.set("orchestrator.pulse.swarm", {"sent": time.time() - 300, "delay": 0.1}, None)
    assert signs.queue_ages()["swarm"] == pytest.approx(300 - settings.PULSE_SECONDS, abs=30)


def test_a_pulse_that_comes_late_takes_nothing_back() -> None:
    signs.note_pulse("swarm", time.time() - 1)
    signs.note_pulse("swarm", time.time() - 100)
    assert signs.queue_ages()["swarm"] == pytest.approx(1, abs=5)


def test_a_pass_says_when_it_was_how_long_it_took_and_what_it_found(make: Maker) -> None:
    make.bot(paid=True)
    assert fleet.look().last_pass is None
    wanted = len(make_plan(observe()))
    jobs.reconcile()
    done = fleet.look().last_pass
    assert done and timezone.now() - done.at < timedelta(seconds=10)
    assert 0 < done.seconds < 10 and (done.bots, done.actions) == (1, wanted) and wanted


def test_a_pass_that_fails_is_told_until_one_goes_well(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(swarm, "connect", lambda: (_ for _ in ()).throw(SwarmError("no manager")))
        jobs.reconcile()
    failed = fleet.look().failed_pass
    assert failed and failed.error == "no manager" and fleet.look().last_pass is None
    jobs.reconcile()
    assert fleet.look().failed_pass is None and fleet.look().last_pass


def test_a_pass_that_breaks_is_told_too(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "run_pass", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        jobs.reconcile()
    failed = fleet.look().failed_pass
    assert failed and failed.error == "ZeroDivisionError: division by zero"


# --- page ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def staff(make: Maker) -> Client:
    user = make.user("staff", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_hub"))
    client = Client()
    client.force_login(user)
    return client


def see(staff: Client, address: str = PAGE) -> str:
    answer = staff.get(address)
    assert answer.status_code == 200
    return " ".join(answer.content.decode().split())


def test_the_page_says_in_words_what_its_colours_say(staff: Client, place: Place) -> None:
    bot, down = place({"places": 2}, name="Harbour Garden"), place(status="down", name="<Reef>")
    page = see(staff)
    assert "Harbour Garden: up, 2 GB" in page and "&lt;Reef&gt;: down, 1 GB" in page
    assert f"/admin/pubs/bot/{bot.pk}/change/" in page and f"/admin/pubs/bot/{down.pk}/change/" in page
    assert "3 of 15 places taken" in page and page.count('class="place free"') == 12
    assert "2 · 1 up · 1 down" in page


def test_the_page_says_what_is_wrong(staff: Client, place: Place, make: Maker) -> None:
    now = timezone.now()
    Trouble.objects.create(bot=place(name="Reef"), kind="memory", began=now, back_at=now, last_at=now)
    make.bot(paid=True)
    signs.note_failed_pass("no manager")
    signs.note_pulse("mailer", time.time() - 42)
    page = see(staff)
    assert "Reef</a>: its memory is nearly full, since" in page
    assert "1 wanted pub without one" in page and "no manager" in page
    assert "swarm: <strong>no pulse yet</strong>" in page and "mailer: 42." in page
    assert "None is alive" in page and "not watched by a broadcaster" in page


def test_the_page_is_there_for_an_empty_fleet(staff: Client) -> None:
    assert "There is none yet." in see(staff)


@pytest.mark.parametrize("address", ["/admin/", "/admin/orchestrator/hub/"])
def test_the_control_room_leads_to_the_page(staff: Client, hub: Hub, address: str) -> None:
    assert f'href="{PAGE}"' in see(staff, address)


def test_staff_who_may_not_see_hubs_see_no_fleet(make: Maker) -> None:
    client = Client()
    client.force_login(make.user("staff", is_staff=True))
    assert client.get(PAGE).status_code == 403
    assert PAGE not in see(client, "/admin/")


def test_others_are_asked_who_they_are(client: Client, make: Maker) -> None:
    assert client.get(PAGE).status_code == 302
    client.force_login(make.user("alice"))
    assert client.get(PAGE).status_code in (302, 403)
