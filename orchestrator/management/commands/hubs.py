"""The machines as they are."""

import json
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from orchestrator import staff

COLUMNS = ("NAME", "STATE", "UNTIL", "TAKEN", "NODE", "ADDRESS", "SEEN", "ANSWERED", "REASON")
TIMES = ("deadline", "seen_at", "answered_at", "lost_at", "fenced_at", "emptied_at")
WORDS = ("name", "state", "reason", "places", "taken", "volumes", "node_id", "address", "public_address")
UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


class Command(BaseCommand):
    help = "Lists the hubs: state, when it has taken too long, places of 1 GB taken, and when each was last seen."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="for programs; times in ISO 8601, UTC")

    def handle(self, *args: Any, **options: Any) -> None:
        hubs = list(staff.with_load(staff.living()))
        if options["json"]:
            self.stdout.write(json.dumps([as_dict(hub) for hub in hubs], indent=2, ensure_ascii=False))
        elif not hubs:
            self.stdout.write("There is no hub yet. The first pass that needs one asks for it.")
        else:
            for line in table([COLUMNS, *(row(hub) for hub in hubs)]):
                self.stdout.write(line)


def as_dict(hub: Any) -> dict[str, Any]:
    words = {"token": str(hub.token)} | {name: getattr(hub, name) for name in WORDS}
    return words | {name: at and at.isoformat() for name in TIMES for at in [getattr(hub, name)]}


def row(hub: Any) -> tuple[str, ...]:
    state = hub.state + (", fenced" if hub.fenced_at else ", lost" if hub.lost_at else "")
    return (
        hub.name,
        state,
        apart(hub.deadline),
        f"{hub.taken} of {hub.places}",
        hub.node_id[:12] or "-",
        hub.address or "-",
        apart(hub.seen_at),
        apart(hub.answered_at),
        hub.reason,
    )


def apart(at: datetime | None) -> str:
    """How far from now: "12 s ago", "in 6 h"; "-" for never."""
    if at is None:
        return "-"
    seconds = round((at - timezone.now()).total_seconds())
    size, unit = next(((size, unit) for size, unit in UNITS if abs(seconds) >= 2 * size), (1, "s"))
    amount = f"{abs(seconds) // size} {unit}"
    return f"in {amount}" if seconds > 0 else f"{amount} ago"


def table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
