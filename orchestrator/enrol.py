"""How a fresh machine becomes a node of the swarm that our workers can reach.

It gets an invitation with its first start, makes a key, and asks the site for a certificate. The web process only takes
the request into the Enrolment row and reads the answer from it; a worker answers, for it has what the web process must
not have: the key of our authority, the swarm, and the cloud's word on which machine has which address.
"""

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import QuerySet
from django.urls import reverse
from django.utils import timezone
from django.utils.crypto import constant_time_compare, salted_hmac

from orchestrator import authority, machines, swarm, tell
from orchestrator.machines import Machine, Power
from orchestrator.machines.first_start import cloud_config
from orchestrator.models import Enrolment, Hub
from orchestrator.swarm import JoinTicket
from pubs import live

log = logging.getLogger(__name__)

# So long before a hub's certificate ends it should be drained.
TOLD_BEFORE = timedelta(days=60)
# Of a machine's log, what a hub's reason shows; the enrolment has more.
LOG_MAX = 400


# --- the invitation --------------------------------------------------------------------------------------------------
def user_data(hub: Hub) -> str:
    """What cloud-init reads on the hub's machine; opens the enrolment, or opens it again for a machine made anew.

    The same hub always gets the same invitation, so that of two requests for its machine either may be the one that is
    carried out. Raises AuthorityMissing.
    """
    enrolment = Enrolment.objects.filter(hub=hub).first() or Enrolment(hub=hub)
    enrolment.until = timezone.now() + timedelta(minutes=settings.ENROL_MINUTES)
    enrolment.joined_at = None
    # Another machine has another key. A machine that asked already asks again until it is answered.
    enrolment.request = enrolment.report = ""
    if enrolment.answer:
        enrolment.answer.pop("certificate", None)
    enrolment.save()
    url = settings.ENROL_URL + reverse("hubs:enrol", args=[hub.token]).removesuffix("/enrol/")
    return cloud_config(hub.token, hub.name, url, _invitation(hub), authority.certificate())


def _invitation(hub: Hub) -> str:
    return salted_hmac("orchestrator.enrol", str(hub.token), algorithm="sha256").hexdigest()


def _open() -> QuerySet[Enrolment]:
    """Those of machines that are on their way into the swarm."""
    on_the_way = [Hub.State.REQUESTED, Hub.State.BOOTING]
    return Enrolment.objects.filter(joined_at=None, until__gt=timezone.now(), hub__state__in=on_the_way)


# --- the web process -------------------------------------------------------------------------------------------------
def invited(token: UUID, invitation: str) -> Enrolment | None:
    """The open enrolment of the hub with this token, if that is its invitation."""
    enrolment = _open().select_related("hub").filter(hub__token=token).first()
    if enrolment and constant_time_compare(invitation, _invitation(enrolment.hub)):
        return enrolment
    return None


def take_request(enrolment: Enrolment, request: str) -> bool:
    """Keep a machine's request for a worker to answer. False for a second key; ValueError for what is no request.

    The first key wins, and may come again. So whoever steals an invitation and is first shuts out the machine that it
    was for, which is seen; and whoever comes later gets nothing.
    """
    key = authority.public_key(request)
    if Enrolment.objects.filter(pk=enrolment.pk, request="").update(request=request):
        live.nudge()
        return True
    enrolment.refresh_from_db()
    return authority.public_key(enrolment.request) == key


def note(enrolment: Enrolment, trouble: str, details: str = "") -> None:
    """Keep what went wrong for staff: one line, and a log."""
    log.error("%s: %s\n%s", enrolment.hub, trouble, details)
    Enrolment.objects.filter(pk=enrolment.pk).update(report=f"{trouble}\n{details}")


# --- a worker --------------------------------------------------------------------------------------------------------
def answer_requests() -> None:
    """Give waiting machines their certificate and the way in; take back what was given to those that no longer need it.

    Cheap when nobody waits, so it may be called at each pass. Raises SwarmError, MachineError.
    """
    waiting = list(_open().exclude(request="").select_related("hub"))
    if waiting:
        ticket = swarm.connect().join_ticket()
        seen = {machine.token: machine for machine in machines.connect().list()}
        for enrolment in waiting:
            _answer(enrolment, seen.get(enrolment.hub.token), ticket)
    _give_reasons(_open().exclude(report="").select_related("hub"))
    _take_tickets_back()


def _answer(enrolment: Enrolment, machine: Machine | None, ticket: JoinTicket) -> None:
    answer: dict[str, Any] = enrolment.answer or {}
    if "certificate" not in answer:
        if doubt := _doubt(machine):
            _say(enrolment, f"It asked for a certificate and got none: {doubt}")
            return
        assert machine is not None
        if not machine.address:
            return  # the cloud has not said yet
        certificate, expires = authority.sign(enrolment.request, enrolment.hub.name, machine.address)
        answer = {"certificate": certificate, "expires": expires.isoformat(), "address": machine.address}
    # Looked up again each time, for the token may have been rotated since it was written down.
    answer = answer | {"join_token": ticket.token, "managers": ticket.managers}
    if answer != enrolment.answer:
        Enrolment.objects.filter(pk=enrolment.pk, request=enrolment.request, joined_at=None).update(answer=answer)


def _doubt(machine: Machine | None) -> str:
    """Why the request may come from somewhere else than the hub's machine."""
    if machine is None:
        return "the cloud knows no machine of this hub."
    if machine.power not in (Power.BUILDING, Power.RUNNING):
        return f"the cloud says that its machine is {machine.power}."
    return ""


def _give_reasons(reported: Iterable[Enrolment]) -> None:
    for enrolment in reported:
        trouble, _, details = enrolment.report.partition("\n")
        _say(enrolment, f"{trouble} {details.strip()[-LOG_MAX:]}".strip())


def _say(enrolment: Enrolment, reason: str) -> None:
    """On the hub's row, and to staff at once: it may be somebody else than its machine that asks."""
    Hub.objects.filter(pk=enrolment.hub_id).update(reason=reason[:500])
    tell.staff(enrolment.hub_id, reason)


def close(hub: Hub) -> None:
    """The hub's machine is in the swarm: its invitation is void, and the join token, once nobody else needs it."""
    Enrolment.objects.filter(hub=hub, joined_at=None).update(joined_at=timezone.now())
    _take_tickets_back()


def _take_tickets_back() -> None:
    """Rotate the join token that was handed out, once nobody who holds it is still on the way, then forget it.

    In this order: killed between the two, it is done again. Somebody who was given the old token just now fails to join
    with it, asks again, and finds the new one.
    """
    handed_out = Enrolment.objects.filter(answer__has_key="join_token")
    if not handed_out.exists() or _open().filter(answer__has_key="join_token").exists():
        return
    old = list(handed_out)
    swarm.connect().rotate_join_token()
    for enrolment in old:
        enrolment.answer = {"expires": (enrolment.answer or {}).get("expires")}
        enrolment.save(update_fields=["answer"])


# --- certificates that end -------------------------------------------------------------------------------------------
def expires(hub: Hub) -> datetime | None:
    """When the certificate of the hub's engine ends; None for a hub that never enrolled."""
    enrolment: Enrolment | None = getattr(hub, "enrolment", None)
    written = (enrolment and enrolment.answer or {}).get("expires")
    return datetime.fromisoformat(written) if written else None


def expiring() -> list[tuple[Hub, datetime]]:
    """Hubs to drain, since the certificate of their engine ends soon, and when."""
    soon = timezone.now() + TOLD_BEFORE
    carrying = Hub.objects.filter(state__in=[Hub.State.READY, Hub.State.DRAINING]).select_related("enrolment")
    return [(hub, end) for hub in carrying if (end := expires(hub)) and end < soon]
