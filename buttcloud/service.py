"""How the whole service is, for anybody: a page and the same as JSON. No name, no address, no sum of money."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Literal

from django.core.cache import cache
from django.db.models import Count, Min, Q
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe

from billing.models import Sweep
from mailer.models import Message
from orchestrator import signs
from orchestrator.models import CARRYING, Hub
from orchestrator.world import answered_lately
from pubs.models import Bot, Status
from pubs.shown import STALE, STARTS_WITHIN
from pubs.units import age

KEPT_SECONDS = 20
# Below this share of the pubs that should be up, something is wrong with us and not with single pubs.
SHARE = 95  # percent
STRIPE_LATE = timedelta(minutes=15)
MAIL_LATE = timedelta(minutes=5)

State = Literal["good", "bad", "unknown"]


@dataclass(frozen=True)
class Part:
    name: str
    title: str
    state: State
    words: str


@dataclass(frozen=True)
class Service:
    state: State
    words: str
    parts: list[Part]
    at: datetime


def service() -> Service:
    """As it was within the last seconds, however many ask."""
    seen = cache.get("service_status")
    if seen is None:
        seen = look()
        cache.set("service_status", seen, KEPT_SECONDS)
    return seen


def look() -> Service:
    now = timezone.now()
    last_pass, _ = signs.last_pass()
    parts = list(_parts(last_pass.at if last_pass else None, now))
    if bad := [part.title for part in parts if part.state == "bad"]:
        return Service("bad", f"Not all is well: {', '.join(bad).lower()}.", parts, now)
    if any(part.state == "unknown" for part in parts):
        return Service("unknown", "We don't know everything right now.", parts, now)
    return Service("good", "All is well.", parts, now)


def _parts(looked_at: datetime | None, now: datetime) -> Iterator[Part]:
    # What was seen long ago says nothing about now.
    is_seen = looked_at is not None and now - looked_at < STALE
    yield _pubs(now) if is_seen else Part("pubs", "Pubs", "unknown", "We can't see how they are. They probably run on.")
    yield _hubs(now)
    words = f"We last looked at all pubs {age(looked_at)}." if looked_at else "We have not looked at the pubs yet."
    yield Part("looks", "Our looks at the pubs", "good" if is_seen else "bad" if looked_at else "unknown", words)
    yield _payments(now)
    yield _mail(now)


def _pubs(now: datetime) -> Part:
    """What is out of sight is neither up nor down: where it could make the difference, we don't know."""
    up, unknown = Q(status=Status.UP, unknown_since=None), ~Q(unknown_since=None)
    lately = now - STARTS_WITHIN
    starts = Q(wanted_since=None) | Q(wanted_since__gt=lately) | Q(started_at__gt=lately)
    due = Bot.objects.wanted().exclude(starts & ~up & ~unknown)
    count = due.aggregate(all=Count("pk"), up=Count("pk", filter=up), unknown=Count("pk", filter=unknown))
    if not count["all"]:
        return Part("pubs", "Pubs", "good", "There is none that should be up just now.")
    seen = count["all"] - count["unknown"]
    words = f"{100 * count['up'] / seen:.3g} % of those that should be up are up." if seen else ""
    if count["unknown"]:
        words += f" We can't see {100 * count['unknown'] / count['all']:.3g} %, which probably run on."
    least, most = 100 * count["up"] / count["all"], 100 * (count["up"] + count["unknown"]) / count["all"]
    state: State = "good" if least >= SHARE else "unknown" if most >= SHARE else "bad"
    return Part("pubs", "Pubs", state, words.strip())


def _hubs(now: datetime) -> Part:
    hubs = Hub.objects.filter(state__in=CARRYING)
    away = sum(not answered_lately(hub, now) for hub in hubs)
    if not away:
        return Part("machines", "Machines", "good", "All are in our sight.")
    return Part("machines", "Machines", "bad", f"{away} of {len(hubs)} out of our sight. Pubs there probably run on.")


def _payments(now: datetime) -> Part:
    last = Sweep.objects.filter(kind=Sweep.Kind.EVENTS, read_until__isnull=False).first()
    if last is None or last.read_until is None:
        return Part("payments", "Payments", "unknown", "We have not read Stripe's news yet.")
    is_late = now - last.read_until > STRIPE_LATE
    return Part("payments", "Payments", "bad" if is_late else "good", f"We read Stripe's news {age(last.read_until)}.")


def _mail(now: datetime) -> Part:
    # One that is tried again has an address that takes no mail, more often than not.
    oldest = Message.objects.filter(sent_at=None, tries=0).aggregate(oldest=Min("created"))["oldest"]
    if oldest is None or now - oldest < MAIL_LATE:
        return Part("mail", "Mail", "good", "It goes out at once.")
    return Part("mail", "Mail", "bad", f"It is late: what waits longest was written {age(oldest)}.")


@require_safe
def page(request: HttpRequest) -> HttpResponse:
    return render(request, "status/service.html", {"service": service()})


@require_safe
@cache_control(public=True, max_age=KEPT_SECONDS)
def as_json(request: HttpRequest) -> HttpResponse:
    return JsonResponse(asdict(service()), headers={"Access-Control-Allow-Origin": "*"})
