"""Messages between a pub's pages, the workers and the broadcasters. They only say "look again": what is true stands in
the database or is the newest stats sample.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypedDict
from uuid import UUID

from asgiref.sync import async_to_sync
from celery import current_app
from channels.layers import get_channel_layer
from django.core.cache import cache
from django.db import transaction

# Broadcasters listen here for pubs that somebody looks at.
BROADCASTERS = "broadcasters"
# A look is worth this long; whoever goes on looking says so again before (seconds).
WATCH_SECONDS = 12
STATS_KEPT = 600
LOGS_KEPT = 600
# As many lines are read as anybody but the file shows, so that all share one reading.
LINES = 1000
# Until lines that were asked for and did not come may be asked for again: longer than their reading and the page's
# waiting for it together take, so that no request runs out before its answer.
LOGS_ASKED = 40
# Until one that wishes a closer look at a pub gets another.
LOOK_SECONDS = 20


class Stats(TypedDict):
    """One sample of `docker stats`: sizes in bytes, rates in bytes a second."""

    at: str  # ISO 8601
    seq: int  # grows with each sample of a pub, whoever took it
    cpu: float  # percent of one core
    memory: int
    memory_limit: int
    net_rx: int
    net_tx: int
    disk_read: int
    disk_write: int
    rx_rate: float
    tx_rate: float
    read_rate: float
    write_rate: float
    pids: int


class LogLine(TypedDict):
    """A line that a pub wrote, without secrets."""

    key: str  # the same whoever read it, and when
    number: int  # grows by one from line to line; of another stream or reading it begins anew
    at: str  # ISO 8601
    text: str
    is_error: bool  # from stderr, or the pub says so


class Logs(TypedDict):
    """The last lines of a pub, as they were read once."""

    at: datetime | None  # when they were read; None if they never were
    lines: list[LogLine]
    trouble: str  # why there are no newer ones, for the owner


def group(bot_id: UUID) -> str:
    """The channel group of everybody who looks at this pub."""
    return f"pub.{bot_id}"


def log_group(bot_id: UUID) -> str:
    """The channel group of everybody who reads what this pub writes."""
    return f"logs.{bot_id}"


def layer() -> Any:
    """What messages go through."""
    chosen = get_channel_layer()
    assert chosen is not None
    return chosen


def _send(message: dict[str, Any], *groups: str) -> None:
    """To all in one go: each go has a loop, and so a connection, of its own."""

    async def send() -> None:
        for each in groups:
            await layer().group_send(each, message)

    async_to_sync(send)()


def _after_commit(tell: Callable[[], Any]) -> None:
    """What is lost here is found by the next look: a broker that is away fails no request."""
    transaction.on_commit(tell, robust=True)


def changed(*bots: UUID) -> None:
    """Tell open pages to look at the bots' rows again."""
    if bots:
        _after_commit(lambda: _send({"type": "pub.changed"}, *map(group, bots)))


def command_changed(bot_id: UUID, command_id: UUID) -> None:
    """Tell open pages to look at the command's row again."""
    _after_commit(lambda: _send({"type": "command.changed", "id": str(command_id)}, group(bot_id)))


def watch_message(bot_id: UUID, what: str = "stats") -> dict[str, str]:
    """Tells the broadcasters that somebody looks at this pub now, and at what of it."""
    return {"type": "watch", "bot": str(bot_id), "what": what}


def watch(bot_id: UUID) -> None:
    """Somebody looks at this pub's stats now."""
    _after_commit(lambda: _send(watch_message(bot_id), BROADCASTERS))


def nudge() -> None:
    """Ask for a pass of the orchestrator, so that nobody waits for the clock."""
    _after_commit(lambda: current_app.send_task("orchestrator.reconcile"))


def ask(command_id: UUID) -> None:
    """Have a worker run the command."""
    _after_commit(lambda: current_app.send_task("orchestrator.run_command", args=[str(command_id)]))


def look_closer(bot_id: UUID) -> None:
    """Have a worker look now how this pub answers; once in a while, however many wish it."""
    if cache.add(f"look_closer.{bot_id}", 1, LOOK_SECONDS):
        _after_commit(lambda: current_app.send_task("orchestrator.check_pub", args=[str(bot_id)]))


def look_at_payment(bot_id: UUID) -> None:
    """Have a worker look at Stripe: what was paid, and what must end."""
    _after_commit(lambda: current_app.send_task("billing.look_again", args=[str(bot_id)]))


def remember_stats(samples: dict[UUID, Stats]) -> None:
    cache.set_many({f"stats.{bot_id}": sample for bot_id, sample in samples.items()}, STATS_KEPT)


def newest_stats(bot_id: UUID) -> Stats | None:
    """The last sample taken, up to ten minutes old, or None."""
    return cache.get(f"stats.{bot_id}")


def ask_for_logs(bot_id: UUID, count: int) -> None:
    """Have a worker read the pub's last lines; once, however many wish it."""
    if cache.add(_logs_asked(bot_id, count), 1, LOGS_ASKED):
        args, task = [str(bot_id), count], "orchestrator.read_logs"
        _after_commit(lambda: current_app.send_task(task, args=args, expires=LOGS_ASKED))


def are_logs_asked_for(bot_id: UUID, count: int) -> bool:
    """Whether they are on their way."""
    return cache.get(_logs_asked(bot_id, count)) is not None


def _logs_asked(bot_id: UUID, count: int) -> str:
    return f"logs.asked.{bot_id}.{count}"


def remember_logs(bot_id: UUID, count: int, logs: Logs) -> None:
    cache.set(f"logs.{bot_id}.{count}", logs, LOGS_KEPT)
    cache.delete(_logs_asked(bot_id, count))


def newest_logs(bot_id: UUID, count: int) -> Logs | None:
    """What was read last, up to ten minutes ago, when so many lines were asked for; or None."""
    return cache.get(f"logs.{bot_id}.{count}")
