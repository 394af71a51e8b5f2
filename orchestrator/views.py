"""Where fresh machines enrol. Only the invitation counts here, and nothing here reaches the swarm or the authority."""

from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from uuid import UUID

from allauth.account.adapter import get_adapter
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from orchestrator import enrol as enrolments
from orchestrator.models import Enrolment

BODY_MAX = 64 * 1024  # bytes: a hundred times a request for a certificate
# Refusals of an address, after which nobody there is listened to for a minute.
REFUSALS_MAX = 30
LATER_SECONDS = 2
SAID_MAX = 4000


def for_the_invited(view: Callable[[HttpRequest, Enrolment, str], HttpResponse]) -> Callable[..., HttpResponse]:
    """Hands the view the open enrolment of whoever has its invitation, and what was sent. Others learn nothing."""

    @csrf_exempt
    @require_POST
    @wraps(view)
    def checked(request: HttpRequest, token: UUID) -> HttpResponse:
        if cache.get(_refusals(request), 0) >= REFUSALS_MAX:
            return _plain("too many tries", HTTPStatus.TOO_MANY_REQUESTS, retry_after=60)
        body = request.read(BODY_MAX + 1)
        if len(body) > BODY_MAX:
            return _plain("too long", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        invitation = request.headers.get("Authorization", "").removeprefix("Bearer ")
        enrolment = enrolments.invited(token, invitation)
        # Postgres keeps no zero bytes.
        return view(request, enrolment, body.decode(errors="replace").replace("\0", "")) if enrolment else _no(request)

    return checked


@for_the_invited
def enrol(request: HttpRequest, enrolment: Enrolment, body: str) -> HttpResponse:
    """A machine's address, the way into the swarm and its certificate; or "later" until a worker has answered."""
    try:
        is_first_key = enrolments.take_request(enrolment, body)
    except ValueError:
        return _plain("no certificate request", HTTPStatus.BAD_REQUEST)
    if not is_first_key:
        enrolments.note(
            enrolment, f"A second machine, at {_address(request)}, asked for its certificate: destroy the hub."
        )
        return _no(request)
    answer = enrolment.answer or {}
    if "certificate" not in answer:
        return _plain("later", HTTPStatus.SERVICE_UNAVAILABLE, retry_after=LATER_SECONDS)
    way_in = " ".join([answer["address"], answer["join_token"], *answer["managers"]])
    return _plain(f"{way_in}\n{answer['certificate']}")


@for_the_invited
def report(request: HttpRequest, enrolment: Enrolment, body: str) -> HttpResponse:
    """The end of the log of a machine that could not join."""
    enrolments.note(enrolment, "Its machine could not join the swarm.", body[-SAID_MAX:])
    return _plain("thank you")


def _no(request: HttpRequest) -> HttpResponse:
    cache.add(_refusals(request), 0, 60)
    cache.incr(_refusals(request))
    return _plain("no", HTTPStatus.FORBIDDEN)


def _refusals(request: HttpRequest) -> str:
    return f"orchestrator.enrol.refusals.{_address(request)}"


def _address(request: HttpRequest) -> str:
    """Behind as many proxies as settings say."""
    return get_adapter().get_client_ip(request)


def _plain(text: str, status: int = HTTPStatus.OK, retry_after: int | None = None) -> HttpResponse:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return HttpResponse(text, "text/plain", status, headers=headers)
