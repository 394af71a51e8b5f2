"""Samples become coarser as they grow old: 10 s → 1 min → 15 min → 1 day, and what is old enough goes.

It looks at the rows alone: what was missed is caught up while the finer rows are there, and they go only after that.
A bucket is made for all bots at once.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from django.core.cache import cache
from django.db.models import F, FloatField, Max, Min, Q, QuerySet, Sum
from django.db.models.functions import Cast
from django.utils import timezone

from pubs.history import COLUMNS
from pubs.models import METRICS, StatsSample

MINUTE, QUARTER, DAY = 60, 900, 86400


class Step(NamedTuple):
    """Rows of `length` seconds, made of those of `source` seconds; coarse ones that hardly change are made seldom."""

    length: int
    source: int
    every: timedelta


STEPS = (
    Step(MINUTE, 10, timedelta(0)),
    Step(QUARTER, MINUTE, timedelta(minutes=5)),
    Step(DAY, QUARTER, timedelta(minutes=15)),
)
# Longer than the pages show, so that the next step has them whole.
KEPT = {
    10: timedelta(hours=1, minutes=15),
    MINUTE: timedelta(hours=25),
    QUARTER: timedelta(days=32),
    DAY: timedelta(days=2 * 365 + 1),
}
# Rows that are written or deleted at once, and how many deletions of a step a run has time for.
CHUNK = 2000
CHUNKS = 50


def run() -> None:
    """Once more from the last but one bucket of each step on: so the newest is fresh, and nothing late is missed."""
    now = timezone.now()
    for step in STEPS:
        _roll(step, now)
    for length, age in KEPT.items():
        _prune(length, now - age)


def _roll(step: Step, now: datetime) -> None:
    key = f"orchestrator.rolled.{step.length}"
    if cache.get(key):
        return
    for begin in _buckets(step, now):
        _fill(step, begin)
    if step.every:
        cache.set(key, 1, step.every.total_seconds())


def _buckets(step: Step, now: datetime) -> Iterator[datetime]:
    """Those that have finer rows. A clock that went ahead once must not keep us from what comes now."""
    rows = StatsSample.objects.filter(at__lte=now)
    newest = rows.filter(step=step.length).aggregate(at=Max("at"))["at"]
    since = newest - timedelta(seconds=step.length) if newest else datetime.fromtimestamp(0, UTC)
    while first := rows.filter(step=step.source, at__gte=since).aggregate(at=Min("at"))["at"]:
        begin = datetime.fromtimestamp(first.timestamp() // step.length * step.length, UTC)
        yield begin
        since = begin + timedelta(seconds=step.length)


def _fill(step: Step, begin: datetime) -> None:
    """What has no more samples than before is as it was, or some of its finer rows went already."""
    end = begin + timedelta(seconds=step.length)
    here = StatsSample.objects.filter(step=step.length, at=begin)
    counts = dict(here.values_list("bot_id", "count"))
    finer = StatsSample.objects.filter(step=step.source, at__gte=begin, at__lt=end)
    grown = [values for values in _together(finer) if values["new_count"] > counts.get(values["bot_id"], 0)]
    StatsSample.objects.bulk_create(
        [
            StatsSample(step=step.length, at=begin, **{key.removeprefix("new_"): values[key] for key in values})
            for values in grown
        ],
        batch_size=CHUNK,
        update_conflicts=True,
        unique_fields=["bot", "step", "at"],
        update_fields=["count", *COLUMNS],
    )


def _together(finer: QuerySet[StatsSample]) -> QuerySet[StatsSample, Any]:
    """A row a bot, always in the same order: two that write at once must not wait for each other in a circle."""
    new: dict[str, Any] = {"new_count": Sum("count")}
    for metric in METRICS:
        # The size of the disk may be unknown: then its row has no weight.
        weight = Cast(Sum("count", filter=Q(**{f"{metric}__isnull": False})), FloatField())
        new[f"new_{metric}_min"] = Min(f"{metric}_min")
        new[f"new_{metric}"] = Sum(F(metric) * F("count"), output_field=FloatField()) / weight
        new[f"new_{metric}_max"] = Max(f"{metric}_max")
    return finer.values("bot_id").annotate(**new).order_by("bot_id")


def _prune(length: int, before: datetime) -> None:
    """In chunks, so that no lock is held for long. What is left over goes with the next runs."""
    old = StatsSample.objects.filter(step=length, at__lt=before).order_by("at").values("pk")
    for _ in range(CHUNKS):
        deleted, _ = StatsSample.objects.filter(pk__in=old[:CHUNK]).delete()
        if deleted < CHUNK:
            return
