"""The machines as they are."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from orchestrator import enrol
from orchestrator.staff import apart, condition, living, with_load

COLUMNS = ("NAME", "STATE", "UNTIL", "TAKEN", "NODE", "ADDRESS", "SEEN", "ANSWERED", "CERTIFICATE", "REASON")
TIMES = ("deadline", "seen_at", "answered_at", "lost_at", "fenced_at", "emptied_at")
WORDS = ("name", "state", "reason", "places", "taken", "volumes", "node_id", "address", "public_address")


class Command(BaseCommand):
    help = "Lists the hubs: state and its deadline, places of 1 GB taken, when each was last seen, certificate's end."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="for programs; times in ISO 8601, UTC")

    def handle(self, *args: Any, **options: Any) -> None:
        hubs = list(with_load(living()))
        if options["json"]:
            self.stdout.write(json.dumps([as_dict(hub) for hub in hubs], indent=2, ensure_ascii=False))
        elif not hubs:
            self.stdout.write("There is no hub yet. The first pass that needs one asks for it.")
        else:
            for line in table([COLUMNS, *(row(hub) for hub in hubs)]):
                self.stdout.write(line)


def as_dict(hub: Any) -> dict[str, Any]:
    times = {name: getattr(hub, name) for name in TIMES} | {"certificate_ends": enrol.expires(hub)}
    return (
        {"token": str(hub.token)}
        | {name: getattr(hub, name) for name in WORDS}
        | {name: at and at.isoformat() for name, at in times.items()}
    )


def row(hub: Any) -> tuple[str, ...]:
    return (
        hub.name,
        condition(hub),
        apart(hub.deadline),
        f"{hub.taken} of {hub.places}",
        hub.node_id[:12] or "-",
        hub.address or "-",
        apart(hub.seen_at),
        apart(hub.answered_at),
        apart(enrol.expires(hub)),
        hub.reason,
    )


def table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
