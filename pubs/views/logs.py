"""What a pub wrote: a page that needs no JavaScript, and a file. Read by a worker when somebody asks."""

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode
from uuid import UUID

from asgiref.sync import sync_to_async
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.text import slugify
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from pubs import live, redact
from pubs.models import Bot, Status
from pubs.views.own import AuthenticatedRequest, own

# How many lines a page shows.
CHOICES = (200, live.LINES)
DOWNLOADED = 10_000
# A worker is asked for fresh lines and waited for; then what is known is shown, with its age.
WAIT_SECONDS = 3.0
DOWNLOAD_WAIT_SECONDS = 15.0
LOOK_SECONDS = 0.1
SOUGHT_MAX = 200

NEVER_RAN = "Your pub has never started. What it writes stands here from its first start on."
ON_THEIR_WAY = "We asked your pub's machine for the newest lines, and they are not here yet. Reload in a moment."
NOTHING = "There is nothing that your pub wrote, or its machine no longer has it."
STOPPED = "Your pub does not run now. These are the last lines that we have read of it."


@dataclass(frozen=True)
class Row:
    line: live.LogLine
    at: datetime
    is_found: bool


@login_required
@require_safe
@never_cache
async def logs_page(request: AuthenticatedRequest, pk: UUID) -> HttpResponseBase:
    bot = await sync_to_async(own)(request, pk)
    shown = min((choice for choice in CHOICES if str(choice) == request.GET.get("lines")), default=CHOICES[0])
    sought = request.GET.get("q", "").strip()[:SOUGHT_MAX]
    logs, is_here = await _newest(bot, live.LINES, WAIT_SECONDS)
    # What is sought may stand in any line that was read.
    rows = [_row(line, sought) for line in logs["lines"][0 if sought else -shown :]] if logs else []
    context = {
        "bot": bot,
        "rows": rows,
        "found": sum(row.is_found for row in rows),
        "logs": logs,
        "words": _words(bot, logs, is_here),
        "shown": shown,
        "choices": CHOICES,
        "sought": sought,
        "reload": urlencode({"lines": shown, "q": sought}),
    }
    return await sync_to_async(render)(request, "pubs/logs.html", context)


@login_required
@require_safe
@never_cache
async def logs_download(request: AuthenticatedRequest, pk: UUID) -> HttpResponseBase:
    bot = await sync_to_async(own)(request, pk)
    logs, is_here = await _newest(bot, DOWNLOADED, DOWNLOAD_WAIT_SECONDS)
    if logs is None or logs["at"] is None:
        await sync_to_async(messages.warning)(request, _words(bot, logs, is_here))
        return redirect("pubs:logs", bot.pk)
    head = f"# What {bot.name} wrote, read on {logs['at']:%-d %B %Y, %H:%M:%S} UTC. All times are UTC.\n"
    name = f"{slugify(bot.name) or 'pub'}-{logs['at']:%Y%m%d-%H%M}.log"
    answer = HttpResponse(head + redact.as_text(logs["lines"]), content_type="text/plain; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer


def _row(line: live.LogLine, sought: str) -> Row:
    # What is not found is there, and hidden: a script that seeks on begins with all lines.
    is_found = sought.casefold() in line["text"].casefold()
    return Row(line, datetime.fromisoformat(line["at"]), is_found)


async def _newest(bot: Bot, count: int, seconds: float) -> tuple[live.Logs | None, bool]:
    """What is known, and whether it came in time after it was asked for. No thread waits meanwhile."""
    before = await sync_to_async(live.newest_logs)(bot.pk, count)
    if _never_ran(bot):
        return before, True
    await sync_to_async(live.ask_for_logs)(bot.pk, count)
    deadline = time.monotonic() + seconds
    while await sync_to_async(live.are_logs_asked_for)(bot.pk, count):
        if time.monotonic() > deadline:
            return before, False
        await asyncio.sleep(LOOK_SECONDS)
    logs = await sync_to_async(live.newest_logs)(bot.pk, count)
    # One that nobody answered runs out too. What says why it has nothing newer is an answer.
    return logs, logs is not None and (logs != before or bool(logs["trouble"]))


def _never_ran(bot: Bot) -> bool:
    return bot.started_at is None and bot.status == Status.NONE


def _words(bot: Bot, logs: live.Logs | None, is_here: bool) -> str:
    """Why there are no lines, or no newer ones. Empty if these are the newest."""
    if _never_ran(bot):
        return NEVER_RAN
    if not is_here:
        return ON_THEIR_WAY
    if logs and logs["trouble"]:
        return f"{logs['trouble']} We look for it all the time: reload in a moment."
    if not (logs and logs["lines"]):
        return NOTHING
    return STOPPED if bot.status == Status.NONE else ""
