"""Messages between a pub's pages, the workers and the broadcasters. They only say "look again": what is true stands in
the database or is the newest stats sample.
"""

from collections.abc import Callable
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
# Until one that wishes a closer look at a pub gets another.
LOOK_SECONDS = 20


class Stats(TypedDict):
    """One sample of `docker stats`: sizes in bytes, rates in bytes a second."""

    at: str  # ISO 8601
    seq: int
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


def group(bot_id: UUID) -> str:
    """The channel group of everybody who looks at this pub."""
    return f"pub.{bot_id}"


def _send(to: str, message: dict[str, Any]) -> None:
    layer = get_channel_layer()
    assert layer is not None
    async_to_sync(layer.group_send)(to, message)


def _after_commit(tell: Callable[[], Any]) -> None:
    """What is lost here is found by the next look: a broker that is away fails no request."""
    transaction.on_commit(tell, robust=True)


def changed(bot_id: UUID) -> None:
    """Tell open pages to look at the bot's row again."""
    _after_commit(lambda: _send(group(bot_id), {"type": "pub.changed"}))


def command_changed(bot_id: UUID, command_id: UUID) -> None:
    """Tell open pages to look at the command's row again."""
    _after_commit(lambda: _send(group(bot_id), {"type": "command.changed", "id": str(command_id)}))


def watch(bot_id: UUID) -> None:
    """Tell the broadcasters that somebody looks at this pub now."""
    _after_commit(lambda: _send(BROADCASTERS, {"type": "watch", "bot": str(bot_id)}))


def nudge() -> None:
    """Ask for a pass of the orchestrator, so that nobody waits for the clock."""
    _after_commit(lambda: current_app.send_task("orchestrator.reconcile"))


def ask(command_id: UUID) -> None:
    """Have a worker run the command."""
    _after_commit(lambda: current_app.send_task("orchestrator.run_command", args=[str(command_id)]))


def look_at_payment(bot_id: UUID) -> None:
    """Have a worker look at Stripe: what was paid, and what must end."""
    _after_commit(lambda: current_app.send_task("billing.look_again", args=[str(bot_id)]))


def look_closer(bot_id: UUID) -> None:
    """Have a worker look now how this pub answers; once in a while, however many wish it."""
    if cache.add(f"look_closer.{bot_id}", 1, LOOK_SECONDS):
        _after_commit(lambda: current_app.send_task("orchestrator.check_pub", args=[str(bot_id)]))


async def remember_stats(bot_id: UUID, sample: Stats) -> None:
    await cache.aset(f"stats.{bot_id}", sample, STATS_KEPT)


def newest_stats(bot_id: UUID) -> Stats | None:
    """The last sample taken, up to ten minutes old, or None."""
    return cache.get(f"stats.{bot_id}")
