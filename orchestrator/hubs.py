"""What is done about hubs: from the row that is made before anything else, to the machine that is gone.

docs/hubs.md has the states. Each deed may be done twice and be killed anywhere; each changes a hub only from the state
that it was seen in.
"""

import logging
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import NoReturn
from uuid import UUID

from django.conf import settings
from django.core.cache import cache
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from orchestrator import enrol, machines, swarm, tell
from orchestrator.machines import MachineError, Refused
from orchestrator.machines.local import LocalMachines
from orchestrator.models import CARRYING, COMING, WITHIN, Enrolment, Hub, Placement, Turn
from orchestrator.swarm import Node, SwarmError, Unreachable
from pubs import live

log = logging.getLogger(__name__)

State = Hub.State
QUARANTINE = timedelta(minutes=10)
# A cloud that says no again and again is left in peace: from the third time on, twice as long each time.
PATIENCE = 2
REST_SECONDS = 15
REST_MAX = 15 * 60
DAY = 24 * 3600


def turn_name(hub_id: int) -> str:
    """Under which one job at a time works on the hub."""
    return f"hub {hub_id}"


def image_turn_name(node_id: str) -> str:
    """Under which one job at a time brings the pub image to the node."""
    return f"image {node_id}"[:40]


def is_lived_on(hub_id: int) -> bool:
    """Something is there, or on its way there, that could be lost."""
    return Placement.objects.filter(Q(hub=hub_id) | Q(moving_to=hub_id), lost_at=None).exists()


# --- rows ------------------------------------------------------------------------------------------------------------
def buy(count: int) -> list[int]:
    """New rows, each with the token that its machine will bear."""
    used = set(Hub.objects.values_list("name", flat=True))
    names = [name for number in range(1, len(used) + count + 1) if (name := f"hub-{number}") not in used]
    deadline = timezone.now() + WITHIN[State.REQUESTED]
    return [hub.pk for hub in Hub.objects.bulk_create(Hub(name=name, deadline=deadline) for name in names[:count])]


def adopt(token: UUID) -> None:
    """Give a machine that bears our mark and that nobody knows a row, under which it is destroyed after a while."""
    back = Hub.objects.filter(token=token, state=State.GONE, fenced_by_cloud=True).first()
    if back and back.placements.exists():
        unfence(back.pk)
        return
    deadline = timezone.now() + QUARANTINE
    reason = "It bears our mark, but no row knew it. Look what it is: it is destroyed after ten minutes."
    columns = {"state": State.FAILED, "deadline": deadline, "reason": reason}
    hub, is_new = Hub.objects.get_or_create(token=token, defaults={"name": f"stranger-{token.hex[:8]}", **columns})
    # One that was destroyed, and is there all the same, is a stranger too.
    if is_new or Hub.objects.filter(pk=hub.pk, state=State.GONE).update(**columns):
        tell.staff(hub.pk, reason)


def give_up(hub_id: int, reason: str) -> None:
    """It did not come, or not in time. What there is of it is destroyed."""
    now = timezone.now()
    coming = Hub.objects.filter(pk=hub_id, state__in=COMING)
    known = coming.values_list("reason", flat=True).first() or ""
    if known not in reason:
        # What went wrong on the way may be the cause, or more than that.
        reason = f"{reason} {known}"
    if coming.become(State.FAILED, reason, deadline=now, failed_at=now):
        tell.staff(hub_id, f"It was given up. {reason}")


def retire(hub_id: int, state: str, reason: str = "") -> bool:
    """Mark it for destruction, if it is still in that state and nothing lives there."""
    with transaction.atomic():
        # Whoever places a bot locks the hub first, too; so what is counted here is all there is.
        hub = Hub.objects.select_for_update().filter(pk=hub_id, state=state).first()
        if hub is None or is_lived_on(hub_id):
            return False
        if state != State.DESTROYING:
            Hub.objects.filter(pk=hub_id).become(State.DESTROYING, reason or hub.reason or "It is empty.")
        return True


# --- jobs ------------------------------------------------------------------------------------------------------------
def ensure(hub_id: int) -> None:
    """The next step of a hub on its way to ready, or of one that has lost its mark in the swarm."""
    hub = Hub.objects.filter(pk=hub_id, state__in=(*COMING, *CARRYING)).first()
    if hub is None or _rests(hub):
        return
    try:
        machines.connect().create(hub.token, hub.name, _first_words(hub))
        if hub.state == State.REQUESTED:
            Hub.objects.filter(pk=hub_id, state=State.REQUESTED).become(State.BOOTING)
        elif hub.state == State.BOOTING:
            enrol.answer_requests()
            _greet(hub)
    except Refused as error:
        _note_trouble(hub, error)
        if hub.state == State.REQUESTED:
            give_up(hub_id, str(error))
    except (MachineError, SwarmError) as error:
        _note_trouble(hub, error)
    else:
        cache.delete(_refusals_key(hub))
        live.nudge()


def _first_words(hub: Hub) -> Callable[[], str]:
    """What a new machine is told; a machine that carried pubs is not made anew, for its volumes went with it."""

    def refuse() -> NoReturn:
        raise Refused("Its machine is gone, and the pubs' volumes with it: none is made in its place.")

    return partial(enrol.user_data, hub) if hub.state in COMING else refuse


def _greet(hub: Hub) -> None:
    """Take its node in, once it is there: its engine within our reach, the pub image on it, and last marked."""
    node = next((node for node in swarm.connect().look().nodes if _is_its_node(hub, node)), None)
    if node is None:
        return
    swarm.connect().tune()
    if silence := swarm.connect().engines([node.id])[node.id]:
        raise Unreachable(silence)
    if settings.PUB_IMAGE:
        swarm.connect().have_image(node.id, settings.PUB_IMAGE)
    swarm.connect().mark_node(node.id, hub.token)
    enrol.close(hub)
    Hub.objects.filter(pk=hub.pk, state=State.BOOTING).become(State.READY, answered_at=timezone.now(), lost_at=None)


def _is_its_node(hub: Hub, node: Node) -> bool:
    """Looked at afresh, for the machine may be another than the one that the last pass saw.

    Drivers that know no address have marked the node themselves.
    """
    if node.id != hub.node_id or not node.ready:
        return False
    if node.hub == hub.token:
        return True
    addresses = [machine.address for machine in machines.connect().list() if machine.token == hub.token]
    return node.claims == hub.token and bool(node.address) and node.address in addresses


def _note_trouble(hub: Hub, error: Exception) -> None:
    log.error("%s: %s", hub, error)
    Hub.objects.filter(pk=hub.pk, state=hub.state).update(reason=str(error)[:500])
    if not isinstance(error, MachineError):
        return
    cache.add(_refusals_key(hub), 0, DAY)
    refusals = cache.incr(_refusals_key(hub))
    if refusals > PATIENCE:
        rest = min(REST_MAX, REST_SECONDS * 2 ** min(refusals - PATIENCE - 1, 10))
        cache.set(_rest_key(hub), 1, rest)


def _rests(hub: Hub) -> bool:
    return cache.get(_rest_key(hub)) is not None


# In the cache: lost, it is only asked sooner. By state, for what is asked of the cloud then is something else.
def _rest_key(hub: Hub) -> str:
    return f"orchestrator.hub_rests.{hub.pk}.{hub.state}"


def _refusals_key(hub: Hub) -> str:
    return f"orchestrator.hub_refusals.{hub.pk}.{hub.state}"


def destroy(hub_id: int) -> None:
    """First the machine, and only once it is gone its node: one that is forgotten while it lives runs its pubs on."""
    hub = Hub.objects.filter(pk=hub_id, state=State.DESTROYING).first()
    if hub is None or is_lived_on(hub_id) or _rests(hub):
        return
    try:
        if hub.fenced_by_cloud and _is_listed(hub):
            return  # it was not gone: the next pass takes the fence back
        if not machines.connect().destroy(hub.token):
            _see_overdue(hub)
            return
        _forget_nodes(hub)
        enrol.close(hub)
    except Refused as error:
        _note_trouble(hub, error)
        if isinstance(machines.connect(), LocalMachines):
            # There is no other, so that it is a hub again.
            Hub.objects.filter(pk=hub_id, state=State.DESTROYING).become(State.READY, str(error))
        else:
            tell.staff(hub_id, f"It can't be destroyed, and is paid for: the cloud refuses. {error}")
        return
    except (MachineError, SwarmError) as error:
        _note_trouble(hub, error)
        _see_overdue(hub)
        return
    Enrolment.objects.filter(hub=hub).delete()
    Turn.objects.filter(name__in=[turn_name(hub_id), image_turn_name(hub.node_id)]).delete()
    Hub.objects.filter(pk=hub_id, state=State.DESTROYING).become(State.GONE, hub.reason)
    live.nudge()


def _forget_nodes(hub: Hub) -> None:
    """All that the machine ever was in the swarm, those too that nobody took in; but none that is another hub's."""
    for node in swarm.connect().look().nodes:
        is_its = node.id == hub.node_id or node.claims == hub.token
        if not node.is_manager_here and (node.hub == hub.token or (node.hub is None and is_its)):
            swarm.connect().remove_node(node.id)


def _see_overdue(hub: Hub) -> None:
    now = timezone.now()
    if hub.deadline and hub.deadline < now:
        tell.staff(hub.pk, "Its machine should be gone by now, and the cloud still has it.")
        Hub.objects.filter(pk=hub.pk, state=State.DESTROYING).update(deadline=now + WITHIN[State.DESTROYING])


def fence(hub_id: int) -> None:
    """Its machine is off for good: staff said so, or it is out of sight and the cloud is certain."""
    hub = Hub.objects.exclude(state=State.GONE).filter(pk=hub_id).first()
    if hub is None or not (hub.fenced_at or _has_vanished(hub)):
        return
    now = timezone.now()
    with transaction.atomic():
        is_new = Hub.objects.filter(pk=hub_id, fenced_at=None).update(
            fenced_at=now, fenced_by_cloud=True, reason="The cloud has no machine for it any more."
        )
        Placement.objects.filter(hub=hub, lost_at=None).update(lost_at=now, moving_to=None)
        Placement.objects.filter(moving_to=hub).update(moving_to=None)
    if is_new:
        tell.staff(hub_id, "Its machine is gone, and what was on it is lost: its pubs wait for a restore.")
    live.nudge()


def _has_vanished(hub: Hub) -> bool:
    if hub.state not in CARRYING or hub.lost_at is None:
        return False
    try:
        is_gone = machines.connect().is_gone(hub.token)
    except MachineError as error:
        _note_trouble(hub, error)
        return False
    if not is_gone:
        tell.staff(hub.pk, "It is out of sight, and the cloud did not list its machine, but does not say it is gone.")
    return is_gone


def _is_listed(hub: Hub) -> bool:
    return hub.token in [machine.token for machine in machines.connect().list()]


def unfence(hub_id: int) -> None:
    """The cloud has taken its word back: nothing is lost, and what runs there is unknown until the hub is in sight."""
    with transaction.atomic():
        if not Hub.objects.filter(pk=hub_id, fenced_by_cloud=True).update(fenced_at=None, fenced_by_cloud=False):
            return
        Hub.objects.filter(pk=hub_id).exclude(state__in=CARRYING).become(State.READY)
        Placement.objects.filter(hub=hub_id).update(lost_at=None)
    tell.staff(hub_id, "Its machine is back, though the cloud said that it had none: its pubs may run there.")
    live.nudge()
