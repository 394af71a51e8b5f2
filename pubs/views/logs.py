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

# How many lines a page shows: as many are read as the most of them, so that all share one reading.
CHOICES = (200, 1000)
DOWNLOADED = 10_000
# A worker is asked for fresh lines and waited for; then what is known is shown, with its age.
WAIT_SECONDS = 3.0
DOWNLOAD_WAIT_SECONDS = 15.0
LOOK_SECONDS = 0.1
SOUGHT_MAX = 200

NEVER_RAN = "Your pub has never started. What it writes stands here from its first start on."
ON_THEIR_WAY = "We asked your pub's machine for the newest lines, and they are not here yet. Reload in a moment."
NOTHING = "There is nothing that your pub wrote, or its machine no longer has it."


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
    is_here = await _ask(bot, CHOICES[-1], WAIT_SECONDS)
    logs = await sync_to_async(live.newest_logs)(bot.pk, CHOICES[-1])
    rows = [_row(line, sought) for line in logs["lines"][-shown:]] if logs else []
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
    is_here = await _ask(bot, DOWNLOADED, DOWNLOAD_WAIT_SECONDS)
    logs = await sync_to_async(live.newest_logs)(bot.pk, DOWNLOADED)
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


async def _ask(bot: Bot, count: int, seconds: float) -> bool:
    """Whether fresh lines came in time, or the news that there are none. No thread waits meanwhile."""
    if _never_ran(bot):
        return True
    await sync_to_async(live.ask_for_logs)(bot.pk, count)
    deadline = time.monotonic() + seconds
    while await sync_to_async(live.are_logs_asked_for)(bot.pk, count):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(LOOK_SECONDS)
    return True


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
    return "" if logs and logs["lines"] else NOTHING
