"""How a pub is, for anybody, where its owner wishes so: a page, the same as JSON, and a badge.

Only what a visitor of the pub could find out anyway: no members, no addresses of people, no sizes, no payment.
"""

import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.core.cache import cache
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe

from pubs import working
from pubs.models import Bot, Status

# What is shown may be so old: many may look at once, and a badge may stand on a busy page.
KEPT_SECONDS = 20
SPANS = {"24 hours": timedelta(hours=24), "7 days": timedelta(days=7), "30 days": timedelta(days=30)}
# By the state of the verdict, which the owner reads in other words.
WORDS = {
    "good": ("up", "It runs, and people can reach it."),
    "bad": ("down", "It does not work right now."),
    "unknown": ("unknown", "We can't tell right now whether it works."),
    "off": ("down", "It is not running right now."),
}
BADGE_NAME_MAX = 32  # characters
# Of the badge, in pixels: how wide a letter of its font is, about, and the space beside a text.
LETTER = 6.8
MARGIN = 16


@dataclass(frozen=True)
class PublicStatus:
    word: str
    meaning: str
    uptime: dict[str, float | None]  # percent, by span; None before it was first up
    at: datetime  # when all that was found


def shown_to_all(pk: UUID) -> tuple[Bot, PublicStatus]:
    """Each time only whether it may be shown is looked up; what is shown is kept for a moment."""
    bot = get_object_or_404(Bot.objects.alive().filter(status_public=True).select_related("checkup"), pk=pk)
    key = f"public_status.{pk}"
    status = cache.get(key)
    if status is None:
        status = public_status(bot)
        cache.set(key, status, KEPT_SECONDS)
    return bot, status


def public_status(bot: Bot) -> PublicStatus:
    word, meaning = WORDS[working.verdict(bot).state]
    now = timezone.now()
    return PublicStatus(word, meaning, uptime(bot, now), now)


def uptime(bot: Bot, now: datetime) -> dict[str, float | None]:
    """Percent of each span that it was up. What lies before its first day up does not count."""
    first = bot.status_changes.filter(new=Status.UP).order_by("at", "id").values_list("at", flat=True).first()
    if first is None:
        return dict.fromkeys(SPANS)
    since = max(first, now - max(SPANS.values()))
    changes = list(bot.status_changes.filter(at__gt=since).order_by("at", "id").values_list("at", "old", "new"))
    # From when on, and whether it was up then. Before the first change it was what that one says it had been.
    turns = [(since, (changes[0][1] if changes else bot.status) == Status.UP)]
    turns += [(at, new == Status.UP) for at, _, new in changes]
    return {name: _percent_up(turns, max(since, now - span), now) for name, span in SPANS.items()}


def _percent_up(turns: list[tuple[datetime, bool]], since: datetime, now: datetime) -> float | None:
    ends = [at for at, _ in turns[1:]] + [now]
    up = sum(
        (max(timedelta(0), end - max(at, since)) for (at, is_up), end in zip(turns, ends, strict=True) if is_up),
        timedelta(0),
    )
    return round(100 * (up / (now - since)), 2) if now > since else None


@require_safe
def page(request: HttpRequest, pk: UUID) -> HttpResponse:
    bot, status = shown_to_all(pk)
    return render(request, "status/pub.html", {"bot": bot, "status": status})


@require_safe
@cache_control(public=True, max_age=KEPT_SECONDS)
def as_json(request: HttpRequest, pk: UUID) -> HttpResponse:
    bot, status = shown_to_all(pk)
    answer = {
        "name": bot.name,
        "address": bot.address,
        "id": bot.ssb_id,
        "status": status.word,
        "words": status.meaning,
        "uptime": {f"{span / timedelta(hours=1):g}h": status.uptime[name] for name, span in SPANS.items()},
        "at": status.at,
    }
    # For scripts of other sites: there is nothing in it that not everybody may see.
    return JsonResponse(answer, headers={"Access-Control-Allow-Origin": "*"})


@require_safe
@cache_control(public=True, max_age=KEPT_SECONDS)
def badge(request: HttpRequest, pk: UUID) -> HttpResponse:
    bot, status = shown_to_all(pk)
    name = bot.name if len(bot.name) <= BADGE_NAME_MAX else f"{bot.name[: BADGE_NAME_MAX - 1]}…"
    left, right = _width(name), _width(status.word)
    context = {
        "name": name,
        "word": status.word,
        "left": left,
        "right": right,
        "width": left + right,
        "left_text": left - MARGIN,
        "left_middle": left / 2,
        "right_middle": left + right / 2,
    }
    return render(request, "status/badge.svg", context, content_type="image/svg+xml")


def _width(text: str) -> int:
    """Room for a text on the badge: East Asian letters and emoji take that of two."""
    letters = sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)
    return round(letters * LETTER) + MARGIN
