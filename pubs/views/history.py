"""What a pub used over time: a page of charts and figures, and a table to take away."""

import csv
from collections.abc import Callable
from io import StringIO
from typing import NamedTuple
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.core.exceptions import BadRequest
from django.http import HttpResponse
from django.shortcuts import render
from django.utils.text import slugify
from django.views.decorators.cache import never_cache
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import require_safe

from pubs import disk, history, units
from pubs.views.own import AuthenticatedRequest, own

DEFAULT = "24h"


class Drawn(NamedTuple):
    """A chart: its title, what its values are (a key of `units` in format.js), and its lines by metric."""

    title: str
    unit: str
    lines: dict[str, str]
    note: str = ""


CHARTS = {
    "cpu": Drawn("Processor", "percent", {"cpu": "Used"}, "of one core"),
    "memory": Drawn("Memory", "size", {"memory": "Used"}),
    "network": Drawn("Network", "rate", {"rx_rate": "In", "tx_rate": "Out"}),
    "io": Drawn("Disk reads and writes", "rate", {"read_rate": "Read", "write_rate": "Written"}),
    "disk": Drawn("Size of its disk", "size", {"disk": "Size"}),
    "pids": Drawn("Processes", "count", {"pids": "Running"}, "and threads"),
}
WORDS: dict[str, Callable[[float], str]] = {
    "percent": lambda value: f"{value:.1f} %",
    "size": units.size,
    "rate": lambda value: f"{units.size(value)}/s",
    "count": lambda value: f"{value:.1f}".removesuffix(".0"),
}


class Chart(NamedTuple):
    """With the words of its table: a row a line, and lowest, mean, highest in each."""

    name: str
    drawn: Drawn
    rows: list[tuple[str, str, str, str]]
    limit: int | None

    @property
    def metrics(self) -> str:
        return " ".join(self.drawn.lines)


@login_required
@require_safe
@never_cache
def history_page(request: AuthenticatedRequest, pk: UUID) -> HttpResponse:
    bot = own(request, pk)
    found = history.read(bot, _range(request))
    charts = _charts(found, {"memory": bot.memory_gb * disk.GB, "disk": disk.quota(bot)})
    context = {"bot": bot, "history": found, "ranges": history.RANGES.values(), "charts": charts}
    return render(request, "pubs/history.html", context)


@login_required
@require_safe
@never_cache
@gzip_page
def history_csv(request: AuthenticatedRequest, pk: UUID) -> HttpResponse:
    """Some 3,000 lines at most, so that they need no stream."""
    bot = own(request, pk)
    found = history.read(bot, _range(request))
    answer = HttpResponse(_table(found), content_type="text/csv; charset=utf-8")
    name = f"{slugify(bot.name) or 'pub'}-{found.range.name}.csv"
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer


def _range(request: AuthenticatedRequest) -> str:
    wanted = request.GET.get("range", DEFAULT)
    if wanted not in history.RANGES:
        raise BadRequest(f"The range is one of {', '.join(history.RANGES)}.")
    return wanted


def _charts(found: history.History, limits: dict[str, int]) -> list[Chart]:
    return [Chart(name, drawn, _rows(found, drawn), limits.get(name)) for name, drawn in CHARTS.items()]


def _rows(found: history.History, drawn: Drawn) -> list[tuple[str, str, str, str]]:
    words = WORDS[drawn.unit]
    rows = []
    for metric, title in drawn.lines.items():
        extent = found.extents[metric]
        low, mean, high = map(words, extent) if extent else ("–", "–", "–")
        rows.append((title, low, mean, high))
    return rows


def _table(found: history.History) -> str:
    """Empty cells where nothing was measured."""
    out = StringIO()
    table = csv.writer(out)
    heads = [f"{metric}_{part}_{unit}" for metric, unit in history.UNITS.items() for part in history.Metric._fields]
    table.writerow(["time_utc", "seconds", "samples", *heads])
    table.writerows([at.isoformat(), found.range.step, count, *row] for at, count, row in found.rows())
    return out.getvalue()
