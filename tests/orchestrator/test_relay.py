"""A command into a pub and its answer back: once at most, and never without an end."""

import json
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from orchestrator import relay
from orchestrator.swarm import NotRunning, Output, PubService, SwarmError, Unreachable
from orchestrator.swarm.memory import MemorySwarm
from pubs import live
from pubs.catalogue import ask
from pubs.models import Bot, Command
from tests.support.make import Maker

Asking = Callable[..., Command]


@pytest.fixture
def bot(make: Maker, memory_swarm: MemorySwarm) -> Bot:
    """A pub that is up, in the rows and in the swarm."""
    bot = make.bot(paid=True, status="up", ssb_id="@" + "B" * 43 + "=.ed25519")
    service = PubService(bot.pk, bot.ssb_id, "node-1", 29000, "127.0.0.1", "image", 1024**3, 0)
    memory_swarm.put_service(service)
    return bot


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Which commands open pages were told about."""
    commands: list[Any] = []
    monkeypatch.setattr(live, "command_changed", lambda bot_id, command_id: commands.append(command_id))
    return commands


def run(bot: Bot, name: str = "whoami", **args: Any) -> Command:
    command = ask(bot, None, name, args)
    relay.run(str(command.pk))
    command.refresh_from_db()
    return command


def refusing(code: str, message: str = "because", exit_code: int = 1) -> Callable[[list[str]], Output]:
    line = json.dumps({"id": 1, "ok": False, "error": {"code": code, "message": message}})
    return lambda argv: Output(exit_code, line + "\n", "")


def raising(error: BaseException) -> Callable[[list[str]], Output]:
    def answer(argv: list[str]) -> Output:
        raise error

    return answer


def test_the_answer_comes_back_into_the_row(bot: Bot, told: list[Any]) -> None:
    command = run(bot)
    assert (command.state, command.result, command.error) == ("done", {"id": bot.ssb_id}, "")
    assert command.started and command.finished and command.started <= command.finished
    assert told == [command.pk, command.pk]


def test_a_pub_gets_an_argument_vector_and_one_json_text(bot: Bot, memory_swarm: MemorySwarm) -> None:
    seen: list[list[str]] = []

    def answer(argv: list[str]) -> Output:
        seen.append(argv)
        return Output(0, '{"id":1,"ok":true,"result":{"invite":"x"}}\n', "")

    memory_swarm.answers["invite.create"] = answer
    assert run(bot, "create_invite", uses=3, note="--x; $(y)").result == {"invite": "x"}
    assert [argv[:2] for argv in seen] == [["pubctl", "invite.create"]]
    assert json.loads(seen[0][2]) == {"uses": 3, "note": "--x; $(y)"}


def test_a_second_delivery_does_nothing(bot: Bot, memory_swarm: MemorySwarm) -> None:
    calls: list[list[str]] = []

    def answer(argv: list[str]) -> Output:
        calls.append(argv)
        if len(calls) == 1:
            relay.run(Command.objects.get().pk)  # delivered again while it runs
        return Output(0, '{"ok":true,"result":null}', "")

    memory_swarm.answers["whoami"] = answer
    command = run(bot)
    relay.run(command.pk)
    assert len(calls) == 1


def test_an_unknown_command_id_does_nothing(db: None) -> None:
    relay.run("00000000-0000-0000-0000-000000000000")


@pytest.mark.parametrize(
    ("code", "exit_code", "state", "words"),
    [
        ("BAD_ARGS", 1, "refused", "because"),
        ("NO_HOST", 1, "refused", "address"),
        ("PRIVATE_HOST", 1, "refused", "private"),
        ("RESTORING", 1, "refused", "its own messages back"),
        ("NOT_FOUND", 1, "refused", "because"),
        ("UNKNOWN", 1, "refused", "Restart"),
        ("UNHEALTHY", 1, "failed", "not well"),
        ("FAILED", 1, "failed", "because"),
        ("EACCES", 1, "failed", "because"),
        ("DOWN", 2, "failed", "gave no answer"),
        ("TIMEOUT", 3, "timed_out", "may have happened"),
    ],
)
def test_each_refusal_has_its_state_and_its_words(
    bot: Bot, memory_swarm: MemorySwarm, code: str, exit_code: int, state: str, words: str
) -> None:
    memory_swarm.answers["whoami"] = refusing(code, exit_code=exit_code)
    command = run(bot)
    assert (command.state, command.result) == (state, None)
    assert words in command.error


@pytest.mark.parametrize(
    ("output", "state"),
    [
        (Output(0, "", ""), "failed"),
        (Output(0, "Segmentation fault\n", ""), "failed"),
        (Output(0, '{"ok":true,"resu', ""), "failed"),
        (Output(0, "[" * 100_000, ""), "failed"),
        (Output(0, '"ok"', ""), "failed"),
        (Output(1, '{"ok":false,"error":"no"}', ""), "failed"),
        (Output(1, '{"ok":"true","result":1}', ""), "failed"),
        (Output(126, "", "exec: pubctl: not found"), "failed"),
        (Output(2, "", ""), "failed"),
        (Output(3, "", ""), "timed_out"),
        (Output(124, '{"ok":tr', ""), "timed_out"),
        (Output(137, "", ""), "timed_out"),
    ],
)
def test_garbage_and_silence_end_in_words(bot: Bot, memory_swarm: MemorySwarm, output: Output, state: str) -> None:
    memory_swarm.answers["whoami"] = lambda argv: output
    command = run(bot)
    assert (command.state, command.result) == (state, None)
    assert "look before you ask again" in command.error


def test_an_answer_of_50_mb_is_not_kept(bot: Bot, memory_swarm: MemorySwarm) -> None:
    memory_swarm.answers["members"] = lambda argv: Output(0, '{"ok":true,"result":"' + "x" * 50_000_000 + '"}', "")
    command = run(bot, "members")
    assert command.state == "done"
    assert command.result and "too long" in command.result["notice"] and len(json.dumps(command.result)) < 200
    memory_swarm.answers["members"] = lambda argv: Output(1, "x" * 50_000_000, "")
    assert run(bot, "members").state == "failed"


def test_a_members_odd_name_is_made_printable(bot: Bot, memory_swarm: MemorySwarm) -> None:
    memory_swarm.answers["members"] = lambda argv: Output(0, r'{"ok":true,"result":[{"name":"a\u0000b\ud800c"}]}', "")
    result = run(bot, "members").result
    assert result and "\0" not in result[0]["name"]
    json.dumps(result, ensure_ascii=False).encode()


def test_a_pubs_long_complaint_fits_the_row(bot: Bot, memory_swarm: MemorySwarm) -> None:
    memory_swarm.answers["whoami"] = refusing("FAILED", "x" * 100_000)
    assert len(run(bot).error) < 1000


@pytest.mark.parametrize(
    ("error", "state", "words"),
    [
        (NotRunning("no task"), "failed", "not running"),
        (Unreachable("no route"), "failed", "could not reach"),
        (SwarmError("no space left"), "failed", "could not reach"),
        (RuntimeError("a slip of ours"), "failed", "on our side"),
    ],
)
def test_the_swarms_troubles_end_in_words(
    bot: Bot, memory_swarm: MemorySwarm, error: Exception, state: str, words: str
) -> None:
    memory_swarm.answers["whoami"] = raising(error)
    command = run(bot)
    assert command.state == state and words in command.error
    assert str(error) not in command.error


def test_a_pub_that_is_not_up_is_not_asked(bot: Bot, memory_swarm: MemorySwarm) -> None:
    memory_swarm.answers["whoami"] = raising(AssertionError("it was asked"))
    bot.status = "down"
    bot.save()
    command = run(bot)
    assert command.state == "refused" and "not up" in command.error


def test_a_deleted_pub_is_not_asked(bot: Bot, memory_swarm: MemorySwarm) -> None:
    memory_swarm.answers["whoami"] = raising(AssertionError("it was asked"))
    bot.delete_softly()
    command = run(bot)
    assert command.state == "refused" and "deleted" in command.error


# --- What is left behind -------------------------------------------------------------------------------------------
@pytest.fixture
def asked_again(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    commands: list[Any] = []
    monkeypatch.setattr(live, "ask", commands.append)
    return commands


def aged(bot: Bot, age: timedelta, **columns: Any) -> Command:
    command = ask(bot, None, "whoami", {})
    Command.objects.filter(pk=command.pk).update(created=timezone.now() - age, **columns)
    return command


def test_what_still_waits_is_asked_again(bot: Bot, asked_again: list[Any]) -> None:
    old = aged(bot, timedelta(seconds=20))
    aged(bot, timedelta(seconds=5))
    asked_again.clear()
    relay.sweep()
    assert asked_again == [old.pk]


def test_what_waited_five_minutes_never_runs(bot: Bot, asked_again: list[Any], told: list[Any]) -> None:
    command = aged(bot, timedelta(minutes=6))
    asked_again.clear()
    relay.sweep()
    command.refresh_from_db()
    assert (command.state, asked_again, told) == ("failed", [], [command.pk])
    assert "never ran" in command.error and command.finished
    relay.run(command.pk)
    command.refresh_from_db()
    assert command.state == "failed"


def test_a_lost_workers_command_is_closed_and_not_run_again(bot: Bot, asked_again: list[Any], told: list[Any]) -> None:
    long_ago = timezone.now() - timedelta(seconds=91)
    lost = aged(bot, timedelta(seconds=100), state="running", started=long_ago)
    busy = aged(bot, timedelta(seconds=100), state="running", started=long_ago + timedelta(seconds=10))
    asked_again.clear()
    relay.sweep()
    lost.refresh_from_db()
    busy.refresh_from_db()
    assert (lost.state, busy.state, asked_again, told) == ("lost", "running", [], [lost.pk])
    assert "look before you run it again" in lost.error


def test_an_answer_after_all_is_better_than_lost(bot: Bot, memory_swarm: MemorySwarm) -> None:
    def slow(argv: list[str]) -> Output:
        relay.sweep(timezone.now() + timedelta(minutes=2))
        assert Command.objects.get().state == "lost"
        return Output(0, '{"ok":true,"result":1}', "")

    memory_swarm.answers["whoami"] = slow
    command = run(bot)
    assert (command.state, command.result, command.error) == ("done", 1, "")


def test_a_sweep_asks_the_database_three_times_however_much_there_is(
    bot: Bot, make: Maker, asked_again: list[Any], django_assert_max_num_queries: Any
) -> None:
    for _ in range(7):
        aged(bot, timedelta(minutes=6))
        aged(bot, timedelta(seconds=30))
    for _ in range(4):
        aged(make.bot(), timedelta(minutes=6), state="running", started=timezone.now() - timedelta(minutes=5))
    with django_assert_max_num_queries(3):
        relay.sweep()


# --- From the terminal ---------------------------------------------------------------------------------------------
def terminal(*words: str) -> Any:
    out = StringIO()
    call_command("command", *words, stdout=out)
    return json.loads(out.getvalue())


def test_staff_ask_by_id_or_by_name(bot: Bot) -> None:
    assert terminal(str(bot.pk), "whoami") == terminal(bot.name, "whoami") == {"id": bot.ssb_id}


def test_arguments_are_key_and_value(bot: Bot, memory_swarm: MemorySwarm) -> None:
    memory_swarm.answers["follow"] = lambda argv: Output(0, f'{{"ok":true,"result":{argv[2]}}}', "")
    assert terminal(bot.name, "follow", f"id={bot.ssb_id}") == {"id": bot.ssb_id}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["Nobody's", "whoami"], "no pub with the id or name"),
        (["Pub 1", "reboot"], "knows no such command"),
        (["Pub 1", "follow"], "id: This field is required"),
        (["Pub 1", "follow", "alice"], "key=value"),
        (["Pub 1", "create_invite", "uses=0"], "uses: "),
        (["Pub 1", "peers"], "Refused: "),
    ],
)
def test_the_terminal_refuses_in_words(bot: Bot, words: list[str], error: str) -> None:
    with pytest.raises(CommandError, match=error):
        terminal(*words)


def test_two_pubs_of_one_name_need_an_id(make: Maker) -> None:
    first, second = make.bot(name="Twin"), make.bot(make.user("bob"), name="Twin")
    with pytest.raises(CommandError, match="Give the id") as caught:
        terminal("Twin", "whoami")
    assert str(first.pk) in str(caught.value) and str(second.pk) in str(caught.value)


# --- one at a time ---------------------------------------------------------------------------------------------------
def test_a_busy_pub_is_asked_nothing_more_until_it_has_answered(bot: Bot, memory_swarm: MemorySwarm) -> None:
    running = ask(bot, None, "whoami", {})
    Command.objects.filter(pk=running.pk).update(state="running", started=timezone.now())
    assert run(bot, "status").state == "queued"


def test_wishes_keep_their_order(bot: Bot, memory_swarm: MemorySwarm) -> None:
    first = ask(bot, None, "whoami", {})
    assert run(bot, "whoami").state == "queued", "the one before it has its turn first"
    relay.run(first.pk)
    first.refresh_from_db()
    assert first.state == "done"


def test_who_ends_a_command_asks_for_the_next(bot: Bot, memory_swarm: MemorySwarm, asked_again: list[Any]) -> None:
    first, second = ask(bot, None, "whoami", {}), ask(bot, None, "whoami", {})
    asked_again.clear()
    relay.run(first.pk)
    assert asked_again == [second.pk]


def test_a_busy_pub_keeps_no_other_pub_waiting(bot: Bot, make: Maker, memory_swarm: MemorySwarm) -> None:
    Command.objects.filter(pk=ask(bot, None, "whoami", {}).pk).update(state="running", started=timezone.now())
    other = make.bot(paid=True, status="up", ssb_id="@" + "C" * 43 + "=.ed25519")
    memory_swarm.put_service(PubService(other.pk, other.ssb_id, "node-1", 29001, "127.0.0.1", "image", 1024**3, 0))
    assert run(other).state == "done"
