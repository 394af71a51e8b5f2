"""The samples that history is made of: all pubs of a hub each ten seconds, whether somebody looks or not."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from uuid import UUID

from channels.db import database_sync_to_async
from django.db import Error
from django.utils import timezone

from orchestrator import crashes, swarm
from orchestrator.swarm import Glance, SwarmError
from pubs import live
from pubs.live import Stats
from pubs.models import Bot, StatsSample
from pubs.models.monitoring import METRICS

log = logging.getLogger(__name__)

STEP = 10  # seconds
# Until a hub that was silent is looked at again.
PAUSE_SECONDS = 10


async def collect(node_id: str, is_streamed: Callable[[UUID], bool] = lambda bot_id: False) -> None:
    """Until cancelled. `is_streamed`: whether the newest figures of a bot come from a stream just now."""
    while True:
        try:
            async with aclosing(swarm.connect().glances(node_id, STEP)) as glances:  # type: ignore[type-var]
                async for glance in glances:
                    await _keep(glance, is_streamed)
        except SwarmError as error:
            log.debug("no samples of node %s: %s", node_id, error)
        except Exception:
            # Whatever it is, it ends the collecting of no other hub.
            log.exception("no samples of node %s", node_id)
        await asyncio.sleep(PAUSE_SECONDS)


@database_sync_to_async
def _keep(glance: Glance, is_streamed: Callable[[UUID], bool]) -> None:
    try:
        write(glance.stats, timezone.now())
        crashes.note(glance.ended)
    except Error:
        # The database is away. The next glance is the next try, and what is missing is a gap.
        log.exception("a glance at %d pubs was not kept", len(glance.stats))
    try:
        live.remember_stats({bot_id: stats for bot_id, stats in glance.stats.items() if not is_streamed(bot_id)})
    except Exception:
        # The cache is away, and there are no newest figures: history goes on without it.
        log.exception("the newest figures of %d pubs were not kept", len(glance.stats))


def write(stats: dict[UUID, Stats], now: datetime) -> None:
    """One sample a bot in this step, whoever writes it first, in two queries."""
    at = datetime.fromtimestamp(now.timestamp() // STEP * STEP, UTC)
    # A container may outlive the row of its bot.
    disks = Bot.objects.filter(pk__in=stats).values_list("pk", "checkup__disk")
    rows = [
        StatsSample(bot_id=bot_id, step=STEP, at=at, **dict(columns({**stats[bot_id], "disk": disk})))
        for bot_id, disk in disks
    ]
    StatsSample.objects.bulk_create(rows, ignore_conflicts=True)


def columns(values: dict[str, object]) -> Iterator[tuple[str, object]]:
    """A single sample is the lowest, the mean and the highest at once."""
    for metric in METRICS:
        for column in (f"{metric}_min", metric, f"{metric}_max"):
            yield column, values[metric]
