"""Numbers as people read them. buttcloud/static/js/format.js says the same in the browser."""

from datetime import datetime

from django.utils import timezone
from django.utils.dateparse import parse_datetime


def age(at: datetime | str | None) -> str:
    """How long ago, in one unit: 4 s ago."""
    moment = parse_datetime(at) if isinstance(at, str) else at
    if moment is None:
        return "never"
    seconds = max(0, int((timezone.now() - moment).total_seconds()))
    for length, unit in ((86400, "day"), (3600, "h"), (60, "min")):
        if number := seconds // length:
            return f"{number} {unit}{'s' if unit == 'day' and number > 1 else ''} ago"
    return f"{seconds} s ago"


def size(count: float | None) -> str:
    """Bytes with a unit, 1024 to the next."""
    value = float(count or 0)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1024 or unit == "GB":
            break
        value /= 1024
    return f"{value:.{0 if value >= 100 or unit == 'B' else 1}f}".removesuffix(".0") + f" {unit}"
