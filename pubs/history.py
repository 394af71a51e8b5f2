"""What a pub used over time: one query for any range, a slot for each step, and None where nothing was seen."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

from django.utils import timezone

from pubs.models import METRICS, Bot

# What the charts of the figures of right now are filled with when a page is opened.
LATELY = timedelta(seconds=180)
PARTS = ("_min", "", "_max")
# As in the rows, and in this order everywhere.
COLUMNS = tuple(f"{metric}{part}" for metric in METRICS for part in PARTS)
# Of each metric, for the heads of tables. Percent are of one core.
UNITS = {
    "cpu": "percent",
    "memory": "bytes",
    "rx_rate": "bytes_per_second",
    "tx_rate": "bytes_per_second",
    "read_rate": "bytes_per_second",
    "write_rate": "bytes_per_second",
    "pids": "processes",
    "disk": "bytes",
}


@dataclass(frozen=True)
class Range:
    name: str
    title: str
    length: timedelta
    step: int  # seconds
    each: str  # the same in words


RANGES = {
    each.name: each
    for each in (
        Range("1h", "hour", timedelta(hours=1), 10, "10 seconds"),
        Range("24h", "24 hours", timedelta(hours=24), 60, "minute"),
        Range("7d", "7 days", timedelta(days=7), 900, "15 minutes"),
        Range("30d", "30 days", timedelta(days=30), 900, "15 minutes"),
        Range("1y", "year", timedelta(days=365), 86400, "day"),
    )
}


class Extent(NamedTuple):
    """Lowest, mean and highest value over a whole range."""

    low: float
    mean: float
    high: float


class Metric(NamedTuple):
    """A value for each step, None where there was no sample."""

    min: list[float | None]
    mean: list[float | None]
    max: list[float | None]


@dataclass(frozen=True)
class History:
    """Columns of equal length, from `begin` on; None where there was no sample."""

    range: Range
    begin: datetime
    counts: list[int | None]
    columns: dict[str, list[float | None]]

    @property
    def times(self) -> list[int]:
        """When each slot begins, in seconds since 1970."""
        first = int(self.begin.timestamp())
        return list(range(first, first + len(self.counts) * self.range.step, self.range.step))

    @property
    def is_empty(self) -> bool:
        return not any(self.counts)

    @cached_property
    def extents(self) -> dict[str, Extent | None]:
        return {metric: self._extent(metric) for metric in METRICS}

    def metric(self, name: str) -> Metric:
        return Metric(*(self.columns[f"{name}{part}"] for part in PARTS))

    def _extent(self, metric: str) -> Extent | None:
        lows, means, highs = self.metric(metric)
        seen = [(mean, count) for mean, count in zip(means, self.counts, strict=True) if mean is not None and count]
        if not seen:
            return None
        mean = sum(mean * count for mean, count in seen) / sum(count for _, count in seen)
        return Extent(
            min(low for low in lows if low is not None), mean, max(high for high in highs if high is not None)
        )

    def rows(self) -> Iterator[tuple[datetime, int | None, list[float | None]]]:
        """Slot by slot: when it begins, how many samples are in it, and its columns."""
        values = zip(*self.columns.values(), strict=True)
        for at, count, row in zip(self.times, self.counts, values, strict=True):
            yield datetime.fromtimestamp(at, UTC), count, list(row)


def read(bot: Bot, name: str) -> History:
    """The range of this name, up to now."""
    wanted = RANGES[name]
    slots = int(wanted.length.total_seconds()) // wanted.step
    last = int(timezone.now().timestamp()) // wanted.step
    begin = datetime.fromtimestamp((last - slots + 1) * wanted.step, UTC)
    end = datetime.fromtimestamp(last * wanted.step, UTC)
    found = bot.samples.filter(step=wanted.step, at__range=(begin, end)).values_list("at", "count", *COLUMNS)
    nothing = (None,) * (1 + len(COLUMNS))
    by_slot = {int((at - begin).total_seconds()) // wanted.step: values for at, *values in found}
    counts, *columns = zip(*(by_slot.get(slot, nothing) for slot in range(slots)), strict=True)
    return History(wanted, begin, list(counts), dict(zip(COLUMNS, map(list, columns), strict=True)))


def lately(bot: Bot) -> list[dict[str, Any]]:
    """The finest steps of the last minutes, keyed like live.Stats."""
    rows = bot.samples.filter(step=RANGES["1h"].step, at__gt=timezone.now() - LATELY).values("at", *METRICS)
    return [{**row, "at": row["at"].isoformat()} for row in rows]
