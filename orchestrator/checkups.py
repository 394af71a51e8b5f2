"""Looks at how pubs answer: from outside by a handshake each minute, from inside by their own word each five.

What is found stands in their Checkup rows, which nobody else writes; pubs/working.py says it in words. A pub that can't
be looked at keeps what was found before, with its age: unknown is not down.
"""

import asyncio
import json
import logging
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import F, Q, QuerySet
from django.utils import timezone

from orchestrator import swarm
from orchestrator.handshake import Refused, shake_hands
from orchestrator.models import turn
from orchestrator.relay import EXITS
from orchestrator.swarm import NotRunning, Output, SwarmError, Unreachable
from pubs import live
from pubs.models import Bot, Checkup, Status

log = logging.getLogger(__name__)

# A pass comes each minute, and a little less is long enough to be due.
TRY_EACH = timedelta(seconds=45)
ASK_EACH = timedelta(minutes=4, seconds=30)
ASK_PASSES = 5  # in which each pub is asked once
TRIES_AT_ONCE = 50
# The next pass tries those that this one had no time for.
PASS_SECONDS = 50
ASK_SECONDS = 10
CLAIM_SECONDS = 60

BUSY = "It was too busy to answer."
NOT_RUNNING = "It was starting or stopped when we asked it."
OUT_OF_SIGHT = "We can't reach its machine just now."
UNCLEAR = "It gave an answer that we can't read."
VERSION = re.compile(r"[0-9A-Za-z.+-]{1,40}")
BIG = 2**53
REFUSALS = {"TIMEOUT": BUSY, "DOWN": NOT_RUNNING}


def running() -> QuerySet[Bot]:
    """Bots that should answer; those of a hub out of sight too, for they run on."""
    return Bot.objects.wanted().filter(lost_at=None).exclude(Q(status=Status.NONE) | Q(address="") | Q(ssb_id=""))


def askable() -> QuerySet[Bot]:
    """Bots of which we reach the inside, the one that was asked longest ago first."""
    seen = running().filter(status=Status.UP, unknown_since=None)
    return seen.order_by(F("checkup__asked_at").asc(nulls_first=True), "pk")


def look_at(bot_id: UUID) -> None:
    """From outside and from inside, at once."""
    try_all(running().filter(pk=bot_id))
    ask_all(askable().filter(pk=bot_id).values_list("pk", flat=True))


# --- from outside ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Tried:
    """What became of a handshake."""

    bot_id: UUID
    at: datetime
    took_ms: float | None = None
    refused: str = ""


def try_due() -> None:
    """Shake hands with all that were not tried lately, many at once."""
    late = timezone.now() - TRY_EACH
    due = running().filter(Q(checkup__tried_at=None) | Q(checkup__tried_at__lt=late))
    with turn("try pubs", CLAIM_SECONDS) as ours:
        if ours:
            try_all(due.order_by(F("checkup__tried_at").asc(nulls_first=True)))


def try_all(bots: QuerySet[Bot]) -> None:
    met = asyncio.run(_meet(list(bots.values_list("pk", "address", "ssb_id"))))
    _write(
        [Checkup(bot_id=each.bot_id, tried_at=each.at, unreached=each.refused) for each in met if each.refused],
        ["tried_at", "unreached"],
    )
    _write(
        [
            Checkup(bot_id=each.bot_id, tried_at=each.at, reached_at=each.at, handshake_ms=each.took_ms)
            for each in met
            if not each.refused
        ],
        ["tried_at", "reached_at", "handshake_ms", "unreached"],
    )


async def _meet(pubs: list[tuple[UUID, str, str]]) -> list[Tried]:
    at_once = asyncio.Semaphore(TRIES_AT_ONCE)

    async def meet(bot_id: UUID, address: str, ssb_id: str) -> Tried:
        async with at_once:
            at = timezone.now()
            try:
                return Tried(bot_id, at, await shake_hands(address, ssb_id))
            except Refused as refused:
                return Tried(bot_id, at, refused=str(refused))

    meetings = [asyncio.create_task(meet(*pub)) for pub in pubs]
    if not meetings:
        return []
    done, late = await asyncio.wait(meetings, timeout=PASS_SECONDS)
    for meeting in late:
        meeting.cancel()
    for meeting in done:
        if error := meeting.exception():
            # Whatever it is, it keeps no other pub from being looked at.
            log.error("no handshake: %r", error)
    return [meeting.result() for meeting in done if not meeting.exception()]


# --- from inside -----------------------------------------------------------------------------------------------------
def hubs_to_ask() -> list[int]:
    """The hubs with a pub that was not asked lately."""
    due = askable().filter(_unasked()).order_by("placement__hub")
    return list(due.filter(placement__isnull=False).values_list("placement__hub", flat=True).distinct())


def ask_due(hub_id: int) -> None:
    """Ask a part of a hub's pubs about themselves, so that all had their turn after some passes."""
    here = askable().filter(placement__hub=hub_id)
    share = math.ceil(here.count() / ASK_PASSES)
    with turn(f"ask pubs of hub {hub_id}", CLAIM_SECONDS) as ours:
        if ours:
            ask_all(here.filter(_unasked()).values_list("pk", flat=True)[:share])


def _unasked() -> Q:
    return Q(checkup__asked_at=None) | Q(checkup__asked_at__lt=timezone.now() - ASK_EACH)


def ask_all(bots: Iterable[UUID]) -> None:
    """One after the other. When the engine is silent, it is asked nothing more."""
    waiting = list(bots)
    while waiting:
        try:
            said = _ask(waiting[0])
        except Unreachable:
            now = timezone.now()
            silent = [Checkup(bot_id=bot_id, asked_at=now, unanswered=OUT_OF_SIGHT) for bot_id in waiting]
            return _write(silent, ["asked_at", "unanswered"])
        bot_id = waiting.pop(0)
        _write([Checkup(bot_id=bot_id, asked_at=timezone.now(), **said)], ["asked_at", *said])


def _ask(bot_id: UUID) -> dict[str, Any]:
    """What a pub says of itself as columns of its checkup, or why it said nothing. Unreachable is the caller's."""
    try:
        output = swarm.connect().run(swarm.service_name(bot_id), ["pubctl", "status"], ASK_SECONDS)
    except NotRunning:
        return {"unanswered": NOT_RUNNING}
    except Unreachable:
        raise
    except SwarmError as error:
        log.warning("pub %s could not be asked about itself: %s", bot_id, error)
        return {"unanswered": OUT_OF_SIGHT}
    try:
        return _read(output)
    except (ValueError, RecursionError):
        log.warning("pub %s: unreadable answer, exit code %s: %.200r", bot_id, output.exit_code, output.stdout)
        return {"unanswered": UNCLEAR}


def _read(output: Output) -> dict[str, Any]:
    """ValueError where it can't be read: it comes from a machine that strangers talk to, and may be anything."""
    if code := EXITS.get(output.exit_code):
        return {"unanswered": REFUSALS[code]}
    match json.loads(output.stdout):
        case {"ok": True, "result": dict(said)}:
            return _columns(said)
        case {"ok": False, "error": {"code": str(code)}}:
            return {"unanswered": REFUSALS.get(code, UNCLEAR)}
    raise ValueError("neither an answer nor a refusal")


def _columns(said: dict[str, Any]) -> dict[str, Any]:
    now = timezone.now()
    disk = said.get("disk")
    usage = disk if isinstance(disk, dict) else {}
    columns = {
        "answered_at": now,
        "unanswered": "",
        "sequence": _whole(said.get("sequence"), BIG),
        "messages": _whole(said.get("messages"), BIG),
        "peers": _whole(said.get("peers")),
        "followers": _whole(said.get("followers")),
        "members": _whole(said.get("following")),
        "version": version if VERSION.fullmatch(version := str(said.get("version", ""))) else "",
        "restoring": bool(said.get("restoring")),
        "disk": _whole(usage.get("total"), BIG),
        "blobs": _whole(usage.get("blobs"), BIG),
    }
    # It forgets this when it restarts, and then the older time is the truer one.
    if synced := _whole(said.get("synced"), BIG):
        columns["synced_at"] = datetime.fromtimestamp(min(synced / 1000, now.timestamp()), UTC)
    return columns


def _whole(value: object, most: int = 2**31 - 1) -> int | None:
    """A count, as far as it is one that its column takes."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most else None


def _write(checkups: list[Checkup], columns: list[str]) -> None:
    """Only these columns, in rows that may be there or not; whoever has their pages open sees it."""
    Checkup.objects.bulk_create(checkups, update_conflicts=True, unique_fields=["bot"], update_fields=columns)
    # Each time, for how long ago it was is said too.
    live.changed(*(checkup.bot_id for checkup in checkups))
