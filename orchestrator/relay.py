"""A command from its row into a pub, and the answer back into the row.

At most once: whoever sets queued to running may run it, and nobody else ever does. What is left behind by a
worker that died is found by `sweep`, and never run a second time: most commands are not safe to repeat.
"""

import json
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from orchestrator import swarm
from pubs import live
from pubs.catalogue import CATALOGUE, PATIENCE, argument_vector
from pubs.models import Bot, Command, Status

log = logging.getLogger(__name__)

State = Command.State
RESULT_MAX = 256 * 1024  # characters
WORDS_MAX = 300  # characters of a pub's own words that an error quotes
ASK_AGAIN = timedelta(seconds=15)
GIVE_UP = timedelta(minutes=5)
# After its own limit a running command has this long to be written down before its worker counts as lost.
GRACE = timedelta(seconds=60)

LOOK_FIRST = "It may have happened all the same: look before you ask again."
OURS = f"Something went wrong on our side, and we were told. {LOOK_FIRST}"
NEVER_RAN = "This never ran: no worker had time for it within five minutes. Ask again."
LOST = "The worker that ran this was lost. It may have happened: look before you run it again."

# A pub's error codes (pub_image/src): what became of the command, and what to tell the owner in its own words {}.
ANSWERS: dict[str, tuple[State, str]] = {
    "BAD_ARGS": (State.REFUSED, "Your pub refused this: {}."),
    "BAD_JSON": (State.REFUSED, "Your pub refused this: {}."),
    "UNKNOWN": (State.REFUSED, "Your pub does not know this command yet. Restart it to bring it up to date."),
    "NOT_FOUND": (State.REFUSED, "Your pub found nothing: {}."),
    "NO_HOST": (
        State.REFUSED,
        "Your pub has no public address yet, and an invite needs one. Restart it and try again.",
    ),
    "PRIVATE_HOST": (
        State.REFUSED,
        "Your pub's address is a private one. Nobody outside could reach it, so it makes no invites.",
    ),
    "RESTORING": (
        State.REFUSED,
        "Your pub is getting its own messages back from other people, and says nothing new before. "
        "Try again in a few minutes.",
    ),
    "UNHEALTHY": (State.FAILED, "Your pub is not well just now. Try again in a minute."),
    "FAILED": (State.FAILED, "Your pub tried, and failed: {}."),
    "DOWN": (State.FAILED, f"Your pub is starting or down, and gave no answer. {LOOK_FIRST}"),
    "TIMEOUT": (State.TIMED_OUT, f"Your pub was too busy to answer in time. {LOOK_FIRST}"),
}
# Exit codes of pubctl, and of the swarm that ended it at its limit, for when there is no line to read.
EXITS = {2: "DOWN", 3: "TIMEOUT", 124: "TIMEOUT", 137: "TIMEOUT"}


@dataclass(frozen=True)
class Outcome:
    state: State
    result: Any = None
    error: str = ""


def run(command_id: UUID | str) -> None:
    """Run a queued command and write its outcome down. A second call for the same command does nothing."""
    command = _claim(command_id)
    if command is None:
        return
    live.command_changed(command.bot_id, command.pk)
    try:
        _finish(command, _outcome(command))
    except Exception:
        log.exception("Command %s (%s) of pub %s went wrong", command.pk, command.name, command.bot_id)
        _finish(command, Outcome(State.FAILED, error=OURS))
    if waiting := _queued(command.bot_id).first():
        live.ask(waiting.pk)


def _claim(command_id: UUID | str) -> Command | None:
    """The command, now running and ours alone. None if somebody had it, or while the pub is busy with another one.

    A pub is asked one thing at a time, in the order of asking: so its owner's wishes keep their order, and one pub
    that hangs takes one thread and no more. Whoever ends a command asks for the next.
    """
    with transaction.atomic():
        command = Command.objects.select_related("bot").filter(pk=command_id, state=State.QUEUED).first()
        if command is None:
            return None
        Bot.objects.select_for_update().get(pk=command.bot_id)
        if command.bot.commands.filter(state=State.RUNNING).exists():
            return None
        if _queued(command.bot_id).first() != command:
            return None
        command.state, command.started = State.RUNNING, timezone.now()
        command.save(update_fields=["state", "started"])
    return command


def _queued(bot_id: UUID) -> QuerySet[Command]:
    return Command.objects.filter(bot_id=bot_id, state=State.QUEUED).order_by("created", "id")


def _outcome(command: Command) -> Outcome:
    entry = CATALOGUE.get(command.name)
    if entry is None:
        return Outcome(State.REFUSED, error="This command is no longer offered.")
    if command.bot.deleted_at is not None:
        return Outcome(State.REFUSED, error="This pub was deleted.")
    if command.bot.status != Status.UP:
        return Outcome(State.REFUSED, error="Your pub is not up, so this was not done. Ask again when it is.")
    service, argv = swarm.service_name(command.bot_id), argument_vector(entry, command.args)
    try:
        return _read(swarm.connect().run(service, argv, timeout=entry.limit_seconds))
    except swarm.NotRunning:
        return Outcome(State.FAILED, error=f"Your pub is not running just now. {LOOK_FIRST}")
    except swarm.SwarmError as error:
        log.warning("Command %s did not reach pub %s: %s", command.pk, command.bot_id, error)
        return Outcome(State.FAILED, error=f"We could not reach your pub's machine. {LOOK_FIRST}")


def _read(output: swarm.Output) -> Outcome:
    """pubctl's one line, judged. The line comes from a machine that strangers talk to: it may be anything."""
    if len(output.stdout) > RESULT_MAX:
        return _too_long(output)
    try:
        answer = _printable(json.loads(output.stdout))
    except (ValueError, RecursionError):
        return _unreadable(output)
    match answer:
        case {"ok": True}:
            return Outcome(State.DONE, result=answer.get("result"))
        case {"ok": False, "error": {"code": str(code), "message": str(message)}}:
            return _answer(code, message)
    return _unreadable(output)


def _too_long(output: swarm.Output) -> Outcome:
    size = f"{len(output.stdout) // 1024} kB, where {RESULT_MAX // 1024} kB fit"
    notice = f"The answer was too long to keep: {size}."
    if output.exit_code == 0:
        return Outcome(State.DONE, result={"notice": notice})
    return Outcome(State.FAILED, error=f"{notice} {LOOK_FIRST}")


def _unreadable(output: swarm.Output) -> Outcome:
    log.warning("Unreadable answer, exit code %s: %.200r %.200r", output.exit_code, output.stdout, output.stderr)
    if output.exit_code in EXITS:
        return _answer(EXITS[output.exit_code])
    return Outcome(State.FAILED, error=f"Your pub gave an answer that we cannot read. {LOOK_FIRST}")


def _answer(code: str, message: str = "no reason given") -> Outcome:
    state, words = ANSWERS.get(code, ANSWERS["FAILED"])
    return Outcome(state, error=words.format(message[:WORDS_MAX].rstrip(".")))


def _printable(value: Any) -> Any:
    """The same without what Postgres or a page can't take: zero bytes and halves of surrogate pairs."""
    match value:
        case str():
            return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
        case list():
            return [_printable(item) for item in value]
        case dict():
            return {_printable(key): _printable(item) for key, item in value.items()}
    return value


def _finish(command: Command, outcome: Outcome) -> None:
    # A true answer that comes late is better than "lost".
    Command.objects.filter(pk=command.pk, state__in=(State.RUNNING, State.LOST)).update(
        state=outcome.state, result=outcome.result, error=outcome.error, finished=timezone.now()
    )
    live.command_changed(command.bot_id, command.pk)


def sweep(now: datetime | None = None) -> None:
    """Ask again for what still waits, and close what waited or ran too long. Three queries at most."""
    now = now or timezone.now()
    unfinished = Command.objects.filter(state__in=(State.QUEUED, State.RUNNING), created__lt=now - ASK_AGAIN)
    commands = list(unfinished.order_by("created").only("bot_id", "name", "state", "created", "started"))
    queued = [command for command in commands if command.state == State.QUEUED]
    _close([c for c in queued if c.created < now - GIVE_UP], Outcome(State.FAILED, error=NEVER_RAN), now)
    _close([c for c in commands if _is_lost(c, now)], Outcome(State.LOST, error=LOST), now)
    for command in queued:
        if command.created >= now - GIVE_UP:
            live.ask(command.pk)


def _is_lost(command: Command, now: datetime) -> bool:
    entry = CATALOGUE.get(command.name)
    limit = timedelta(seconds=entry.limit_seconds if entry else PATIENCE)
    return command.started is not None and command.started < now - limit - GRACE


def _close(commands: list[Command], outcome: Outcome, now: datetime) -> None:
    """Only those that are still as they were seen: one that a worker has just taken is the worker's."""
    if not commands:
        return
    as_seen = Command.objects.filter(pk__in=[command.pk for command in commands], state=commands[0].state)
    as_seen.update(state=outcome.state, error=outcome.error, finished=now)
    for command in commands:
        log.warning("Command %s (%s) of pub %s: %s", command.pk, command.name, command.bot_id, outcome.error)
        live.command_changed(command.bot_id, command.pk)
