"""The loop, by its single-pass door, against the memory twin."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.cache import cache
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from mailer.models import Message
from orchestrator import jobs, planner, swarm, troubles
from orchestrator.models import Hub, Placement, Turn, turn
from orchestrator.reconcile import run_here, run_pass
from orchestrator.record import in_plain_words
from orchestrator.swarm import SwarmError
from orchestrator.swarm.memory import GB, MemorySwarm, NeverHealthy, NodeDown, Refusing, Silent
from pubs.models import Bot, Status
from tests.support.make import Maker


def use(monkeypatch: pytest.MonkeyPatch, twin: MemorySwarm) -> MemorySwarm:
    monkeypatch.setattr("orchestrator.swarm.connect", lambda: twin)
    return twin


def passes(count: int) -> None:
    """Passes that do their jobs themselves; nudges are not heard, so each test counts its passes."""
    for _ in range(count):
        run_pass(ask=run_here)
        troubles.look(ask=run_here)


def ago(minutes: int) -> None:
    """As if what happened to all bots had happened earlier."""
    then = timezone.now() - timedelta(minutes=minutes)
    Bot.objects.update(changed_at=then, started_at=then)
    Bot.objects.exclude(wanted_since=None).update(wanted_since=then)


def fresh(bot: Bot) -> Bot:
    return Bot.objects.get(pk=bot.pk)


def test_a_paid_bot_is_up_after_a_few_passes(make: Maker, memory_swarm: MemorySwarm) -> None:
    bot = make.bot(paid=True)
    passes(4)
    assert fresh(bot).status == Status.UP
    assert fresh(bot).ssb_id == memory_swarm.identities[bot.pk]
    assert fresh(bot).address.startswith("127.0.0.1:29")


def test_an_unpaid_bot_is_left_alone(make: Maker, memory_swarm: MemorySwarm) -> None:
    make.bot(paid=False)
    passes(4)
    assert not memory_swarm.services and not Placement.objects.exists()


def test_a_pass_that_has_nothing_to_do_changes_nothing(make: Maker, memory_swarm: MemorySwarm) -> None:
    bot = make.bot(paid=True)
    passes(4)
    ago(minutes=1)
    before, changes = dict(memory_swarm.services), bot.status_changes.count()
    done = run_pass(ask=run_here)
    assert (done.actions, done.hurry) == ([], False)
    assert memory_swarm.services == before and bot.status_changes.count() == changes


def test_stopping_takes_the_service_and_keeps_place_port_and_identity(make: Maker, memory_swarm: MemorySwarm) -> None:
    bot = make.bot(paid=True)
    passes(4)
    before = fresh(bot)
    Bot.objects.update(switched_on=False)
    passes(2)
    assert not memory_swarm.services and fresh(bot).status == Status.NONE
    Bot.objects.update(switched_on=True)
    passes(2)
    after = fresh(bot)
    assert (after.status, after.address, after.ssb_id) == (Status.UP, before.address, before.ssb_id)


def test_one_more_restart_changes_the_service_once(make: Maker, memory_swarm: MemorySwarm) -> None:
    bot = make.bot(paid=True)
    passes(4)
    Bot.objects.update(restarts=1)
    passes(3)
    assert memory_swarm.restarted == [bot.pk]


def test_a_new_name_restarts_nothing(make: Maker, memory_swarm: MemorySwarm) -> None:
    make.bot(paid=True)
    passes(4)
    Bot.objects.update(name="Another name")
    passes(2)
    assert memory_swarm.restarted == []


def test_a_service_that_somebody_removed_comes_back(make: Maker, memory_swarm: MemorySwarm) -> None:
    bot = make.bot(paid=True)
    passes(4)
    memory_swarm.services.clear()
    passes(2)
    assert fresh(bot).status == Status.UP


def test_each_status_change_is_a_row_of_history(make: Maker, memory_swarm: MemorySwarm) -> None:
    bot = make.bot(paid=True)
    passes(4)
    assert [(change.old, change.new) for change in bot.status_changes.all()] == [("none", "up")]


def test_the_owner_is_mailed_once_that_the_pub_is_up(make: Maker, memory_swarm: MemorySwarm) -> None:
    make.bot(paid=True)
    passes(6)
    assert [message.key.split(":")[0] for message in Message.objects.all()] == ["pub_is_up"]


def test_a_short_drop_is_no_mail_and_a_long_one_is_one(
    make: Maker, memory_swarm: MemorySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = make.bot(paid=True)
    passes(4)
    crashing = NeverHealthy()
    crashing.node, crashing.services = memory_swarm.node, memory_swarm.services
    use(monkeypatch, crashing)
    passes(2)
    assert fresh(bot).status == Status.DOWN and fresh(bot).reason == "It crashed. It starts again by itself."
    assert not Message.objects.filter(key__startswith="trouble:down").exists()
    ago(minutes=5)
    passes(3)
    assert Message.objects.filter(key__startswith="trouble:down").count() == 1


def test_a_stop_by_the_owner_is_no_mail(make: Maker, memory_swarm: MemorySwarm) -> None:
    make.bot(paid=True)
    passes(4)
    Bot.objects.update(switched_on=False)
    passes(2)
    Bot.objects.update(changed_at=timezone.now() - timedelta(minutes=5))
    passes(2)
    assert not Message.objects.filter(key__startswith="trouble:down").exists()


def test_the_sixteenth_bot_waits_for_room_and_says_so(make: Maker, memory_swarm: MemorySwarm) -> None:
    bots = [make.bot(paid=True) for _ in range(16)]
    passes(4)
    assert len(memory_swarm.services) == 15
    assert fresh(bots[-1]).reason == planner.NO_ROOM


def test_ports_are_unique_over_the_fleet(make: Maker, memory_swarm: MemorySwarm) -> None:
    for _ in range(5):
        make.bot(paid=True)
    passes(4)
    assert len({placement.port for placement in Placement.objects.all()}) == 5


def test_without_a_free_port_the_reason_says_so(make: Maker, memory_swarm: MemorySwarm, settings) -> None:  # noqa: ANN001
    settings.PUB_PORTS = "29000-29000"
    make.bot(paid=True)
    late = make.bot(paid=True)
    passes(4)
    assert "ports are taken" in fresh(late).reason


def test_an_engine_that_is_silent_changes_no_status(
    make: Maker, memory_swarm: MemorySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = make.bot(paid=True)
    passes(4)
    use(monkeypatch, Silent())
    jobs.reconcile()
    assert fresh(bot).status == Status.UP


def test_a_node_out_of_sight_makes_its_bots_old_and_not_down(
    make: Maker, memory_swarm: MemorySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = make.bot(paid=True)
    passes(4)
    before = fresh(bot)
    lost = NodeDown()
    lost.node = memory_swarm.node
    use(monkeypatch, lost)
    passes(2)
    after = fresh(bot)
    assert (after.status, after.seen_at) == (before.status, before.seen_at)
    assert after.reason == planner.LOST_SIGHT


def test_a_refusal_by_docker_reaches_the_owner_and_is_tried_again(
    make: Maker, memory_swarm: MemorySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = make.bot(paid=True)
    refusing = use(monkeypatch, Refusing())
    passes(4)
    assert fresh(bot).reason.startswith("Our machine could not do it"), "its owner reads no engine's words"
    assert fresh(bot).placement.trouble == "no space left on device", "staff do"
    healed = MemorySwarm()
    healed.node = refusing.node
    use(monkeypatch, healed)
    passes(2)
    assert fresh(bot).status == Status.NONE, "it rests for a while"
    Placement.objects.update(rests_until=timezone.now() - timedelta(seconds=1))
    passes(2)
    assert fresh(bot).status == Status.UP and fresh(bot).reason == ""


def test_a_refused_stop_rests_too(make: Maker, memory_swarm: MemorySwarm, monkeypatch: pytest.MonkeyPatch) -> None:
    bot = make.bot(paid=True)
    passes(4)
    Bot.objects.update(switched_on=False)
    tries = []

    def refuse(self: MemorySwarm, bot_id: UUID) -> None:
        tries.append(bot_id)
        raise SwarmError("rpc error: code = DeadlineExceeded")

    with monkeypatch.context() as context:
        context.setattr(MemorySwarm, "remove_service", refuse)
        passes(3)
        assert tries == [bot.pk]
    cache.delete(f"orchestrator.stop_rests.{bot.pk}")
    passes(2)
    assert not memory_swarm.services and fresh(bot).placement.refusals == 0


def test_a_job_that_finds_nothing_to_do_forgets_no_refusal(make: Maker, memory_swarm: MemorySwarm) -> None:
    bot = make.bot(paid=True)
    passes(4)
    Placement.objects.update(refusals=3, trouble="no space left on device")
    jobs.ensure_pub_down(str(bot.pk))
    jobs.move_pub(str(bot.pk))
    assert (fresh(bot).placement.refusals, fresh(bot).placement.trouble) == (3, "no space left on device")


def test_a_new_swarm_on_the_same_machine_gets_its_pubs_again(
    make: Maker, memory_swarm: MemorySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = make.bot(paid=True)
    passes(4)
    again = MemorySwarm()
    again.node = swarm.Node("node-2", "laptop", "127.0.0.1", True, again.node.memory, None, None, True)
    use(monkeypatch, again)
    passes(4)
    assert fresh(bot).status == Status.UP and again.services[bot.pk].node_id == "node-2"


def test_a_step_that_breaks_stops_no_other(make: Maker, memory_swarm: MemorySwarm) -> None:
    bots = {str(make.bot(paid=True).pk) for _ in range(3)}
    passes(4)
    memory_swarm.services.clear()
    asked: list[Any] = []

    def ask(task: str, *arguments: Any) -> None:
        asked.extend(arguments)
        if len(asked) == 1:
            raise RuntimeError("the queue is full")

    run_pass(ask=ask)
    assert set(asked) == bots


def test_a_deleted_bot_is_stopped_and_its_place_is_kept(make: Maker, memory_swarm: MemorySwarm) -> None:
    bot = make.bot(paid=True)
    passes(4)
    Bot.objects.update(deleted_at=timezone.now())
    passes(2)
    assert not memory_swarm.services and Placement.objects.filter(bot=bot).exists()


def test_deleted_bots_take_no_place_of_others(make: Maker, memory_swarm: MemorySwarm) -> None:
    for _ in range(15):
        make.bot(paid=True)
    passes(4)
    Bot.objects.update(deleted_at=timezone.now())
    passes(2)
    late = make.bot(paid=True)
    passes(4)
    assert fresh(late).status == Status.UP


def test_a_start_after_a_long_stop_is_no_mail(
    make: Maker, memory_swarm: MemorySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = make.bot(paid=True)
    passes(4)
    Bot.objects.update(switched_on=False)
    passes(2)
    ago(minutes=2880)
    Bot.objects.update(switched_on=True)
    slow = NeverHealthy()
    slow.node = memory_swarm.node
    use(monkeypatch, slow)
    passes(3)
    assert fresh(bot).status == Status.DOWN
    assert not Message.objects.filter(key__startswith="trouble:down").exists()


def test_a_new_bot_is_followed_closely_and_one_that_keeps_crashing_is_not(
    make: Maker, memory_swarm: MemorySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = make.bot(paid=True)
    use(monkeypatch, NeverHealthy())
    passes(4)
    assert run_pass(ask=run_here).hurry
    ago(minutes=5)
    Bot.objects.update(changed_at=timezone.now())
    assert not run_pass(ask=run_here).hurry
    assert fresh(bot).status == Status.DOWN


def test_a_restart_is_followed_closely_though_the_old_task_is_still_seen(
    make: Maker, memory_swarm: MemorySwarm
) -> None:
    make.bot(paid=True)
    passes(4)
    ago(minutes=5)
    Bot.objects.update(restarts=1)
    passes(1)
    assert run_pass(ask=run_here).hurry
    ago(minutes=1)
    assert not run_pass(ask=run_here).hurry


def test_two_passes_never_run_at_once(make: Maker, memory_swarm: MemorySwarm) -> None:
    make.bot(paid=True)
    with turn("pass", 60):
        jobs.reconcile()
        assert not Hub.objects.exists()
    jobs.reconcile()
    assert Hub.objects.exists()


def test_a_turn_of_a_killed_process_ends(make: Maker) -> None:
    Turn.objects.create(name="pass", until=timezone.now() - timedelta(seconds=1))
    with turn("pass", 60) as ours:
        assert ours


def test_a_pass_by_hand_does_its_jobs_and_says_them(
    make: Maker, memory_swarm: MemorySwarm, capsys: pytest.CaptureFixture[str]
) -> None:
    bot = make.bot(paid=True)
    for _ in range(4):
        call_command("reconcile", "--once")
    assert fresh(bot).status == Status.UP
    said = capsys.readouterr().out
    assert "One more machine is bought" in said and " gets 1 GB on hub-1." in said and "Nothing to do" in said


def test_a_new_host_name_reaches_the_page_and_the_service(make: Maker, memory_swarm: MemorySwarm, settings) -> None:  # noqa: ANN001
    bot = make.bot(paid=True)
    passes(4)
    settings.PUB_HOST = "pubs.example"
    passes(2)
    assert fresh(bot).address.startswith("pubs.example:")
    assert memory_swarm.services[bot.pk].host == "pubs.example"


def test_an_orphan_is_reported_and_not_touched(
    make: Maker, memory_swarm: MemorySwarm, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = swarm.PubService(uuid4(), "@x", "node-1", 29399, "127.0.0.1", "i", 2**30, 0)
    memory_swarm.put_service(stranger)
    passes(3)
    assert stranger.bot_id in memory_swarm.services
    assert "no bot" in caplog.text


def test_jobs_may_run_twice_and_late(make: Maker, memory_swarm: MemorySwarm) -> None:
    bot = make.bot(paid=True)
    passes(4)
    before = memory_swarm.services[bot.pk]
    jobs.ensure_pub_up(str(bot.pk))
    jobs.ensure_pub_down(str(bot.pk))  # too late: the bot is wanted
    assert memory_swarm.services == {bot.pk: before}
    Bot.objects.update(switched_on=False)
    jobs.ensure_pub_down(str(bot.pk))
    jobs.ensure_pub_up(str(bot.pk))  # too late again
    assert memory_swarm.services == {}


def test_two_workers_never_work_on_one_bot_at_once(make: Maker, memory_swarm: MemorySwarm) -> None:
    bot = make.bot(paid=True)
    passes(4)
    Placement.objects.update(claimed_until=timezone.now() + timedelta(seconds=30))
    memory_swarm.services.clear()
    jobs.ensure_pub_up(str(bot.pk))
    assert not memory_swarm.services
    Placement.objects.update(claimed_until=timezone.now() - timedelta(seconds=1))
    jobs.ensure_pub_up(str(bot.pk))
    assert bot.pk in memory_swarm.services


def test_the_hub_is_this_machine_and_its_places_come_from_its_memory(make: Maker, memory_swarm: MemorySwarm) -> None:
    make.bot(paid=True)
    passes(3)
    hub = Hub.objects.get()
    assert (hub.state, hub.places, memory_swarm.node.hub) == ("ready", 15, hub.token)


def queries_of(pass_: Callable[[], object]) -> int:
    with CaptureQueriesContext(connection) as seen:
        pass_()
    return len(seen)


def test_a_pass_takes_the_same_number_of_queries_for_20_bots_and_for_200_whatever_happens_to_all_at_once(
    make: Maker, memory_swarm: MemorySwarm, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.HUB_PLACES, memory_swarm.node = 1000, replace(memory_swarm.node, memory=1001 * GB)

    def count_queries(bots: int) -> dict[str, int]:
        counts = {}

        def note(what: str) -> None:
            # Jobs come to one for each bot, and are not the pass's.
            counts[what] = queries_of(lambda: run_pass(ask=lambda *job: None))

        use(monkeypatch, memory_swarm)
        for _ in range(bots):
            make.bot(paid=True)
        note("placed")
        passes(1)
        note("up")
        passes(1)
        note("idle")
        Bot.objects.update(memory_gb=2)
        note("resized")
        memory_swarm.cut(memory_swarm.node.id)
        note("out of sight")
        memory_swarm.heal(memory_swarm.node.id)
        note("back")
        crashing = NeverHealthy()
        crashing.__dict__.update(memory_swarm.__dict__)
        use(monkeypatch, crashing)
        note("crashing")
        ago(minutes=5)
        note("to be told of")
        Bot.objects.update(switched_on=False)
        note("stopped")
        passes(1)
        note("gone")
        Bot.objects.update(deleted_at=timezone.now())
        note("deleted")
        Placement.objects.all().delete()
        Bot.objects.all().delete()
        return counts

    count_queries(1)  # for its hub
    assert count_queries(20) == count_queries(200)


@pytest.mark.parametrize(
    ("complaint", "words"),
    [
        ("task: non-zero exit (137)", "ran out of memory"),
        ("task: non-zero exit (78): unhealthy container", "does not hold its identity"),
        ("no suitable node (host-mode port already in use on 1 node)", "port is still in use"),
        ("preparing", ""),
    ],
)
def test_dockers_words_become_plain_ones(complaint: str, words: str) -> None:
    assert words in in_plain_words(complaint) if words else in_plain_words(complaint) == ""
