"""What staff see of the hubs and do about them by hand: `manage.py hubs`, `manage.py hub` and the admin's actions.

Each deed changes the row only if it is still as it was read, and asks for a pass, which does the rest. docs/hubs.md
says what follows.
"""

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.module_loading import import_string

from orchestrator.hubs import retire
from orchestrator.machines.local import LocalMachines
from orchestrator.models import CARRYING, COMING, Hub, HubQuerySet, Placement
from orchestrator.record import services_on
from pubs import live
from pubs.deeds import NotNow

State = Hub.State

UNITS = ((86400, "d"), (3600, "h"), (60, "min"))  # in seconds
DESTROYABLE = (*COMING, *CARRYING, State.FAILED)


# --- look ------------------------------------------------------------------------------------------------------------
def with_load(hubs: QuerySet[Hub]) -> QuerySet[Any]:
    """Each with `volumes` (on it, those of deleted pubs too) and `taken` (places of 1 GB, of pubs on their way too)."""
    held = Placement.objects.filter(bot__deleted_at=None, lost_at=None).order_by()
    here = held.filter(hub=OuterRef("pk")).values("hub").values_list(Sum("places"))
    coming = held.filter(moving_to=OuterRef("pk")).values("moving_to").values_list(Sum("places"))
    return hubs.annotate(volumes=Count("placements"), taken=Coalesce(Subquery(here), 0) + Coalesce(Subquery(coming), 0))


def living() -> QuerySet[Hub]:
    return Hub.objects.exclude(state=State.GONE)


def condition(hub: Hub) -> str:
    """Its state, and whether more must be known."""
    return hub.state + (", fenced" if hub.fenced_at else ", out of sight" if hub.lost_at else "")


def apart(at: datetime | None) -> str:
    """How far from now: "12 s ago", "in 6 h"; "-" for never."""
    if at is None:
        return "-"
    seconds = round((at - timezone.now()).total_seconds())
    size, unit = next(((size, unit) for size, unit in UNITS if abs(seconds) >= 2 * size), (1, "s"))
    amount = f"{abs(seconds) // size} {unit}"
    return f"in {amount}" if seconds > 0 else f"{amount} ago"


def find(name: str) -> Hub:
    """NotNow when no hub of ours has that name."""
    if hub := living().filter(name=name).first():
        return hub
    names = ", ".join(living().values_list("name", flat=True))
    raise NotNow(f"There is no hub “{name}”. " + (f"There are: {names}." if names else "There is none yet."))


# --- deeds -----------------------------------------------------------------------------------------------------------
def drain(hub: Hub) -> str:
    """Have its pubs move to other hubs, and then its machine destroyed."""
    _refuse_this_machine(hub, "drained")
    _need(hub, [State.READY])
    means = _drain_means(hub)
    _wrote(hub, _as_read(hub).become(State.DRAINING, "Staff drain it: what is on it moves, then it is destroyed."))
    return f"{hub} is being drained. {means}"


def uncordon(hub: Hub) -> str:
    """Call a drain off, or the destruction of what pubs run on, which has not begun while they do."""
    _need(hub, [State.DRAINING, State.DESTROYING] if services_on(hub) else [State.DRAINING])
    _wrote(hub, _as_read(hub).become(State.READY))
    return f"{hub} takes pubs again. What has moved stays where it is; moves that are not done are called off."


def before_destroy(hub: Hub) -> str:
    """What staff must know before. NotNow if it can't be done."""
    _refuse_this_machine(hub, "destroyed")
    _need(hub, DESTROYABLE)
    if (load := _load(hub)) and not hub.fenced_at:
        raise NotNow(f"{hub} has {load} on it: drain it first.")
    if (strange := services_on(hub)) and not hub.fenced_at:
        raise NotNow(
            f"{hub} has no pub on it that we know of, but {_count(strange, 'service')} of ours: look first whose they "
            "are. After a restore of the database, its newest rows may be missing."
        )
    return f"The machine of {hub} is destroyed for good, with its disk. No pub lives on it."


def destroy(hub: Hub) -> str:
    """Have the machine of an empty hub destroyed."""
    before_destroy(hub)
    _wrote(hub, retire(hub.pk, hub.state, "Staff have it destroyed."))
    return f"{hub} is being destroyed: first its machine, then its node in the swarm."


def before_fence(hub: Hub) -> str:
    """What staff must know before they give their word. NotNow if it can't be done."""
    _refuse_this_machine(hub, "fenced")
    _need(hub, CARRYING)
    if hub.fenced_at:
        raise NotNow(f"{hub} is fenced already.")
    if hub.lost_at is None:
        raise NotNow(
            f"{hub} is in sight, so its pubs may well run: drain it. Only a hub that is out of sight can be fenced."
        )
    return (
        f"To fence {hub} is to give your word: its machine is off for good, and nothing on it will ever run again. It "
        f"is then destroyed with its disk, and what was on it ({_load(hub) or 'nothing'}) waits for a restore. If the "
        "machine does run somewhere, so do its pubs, and restored beside them their identities break for ever. Look "
        "first: the cloud's console must show it as shut off or gone."
    )


def fence(hub: Hub) -> str:
    """Take staff's word that the machine of a lost hub is off for good."""
    before_fence(hub)
    still_lost = _as_read(hub).filter(lost_at__isnull=False, fenced_at=None)
    _wrote(hub, still_lost.update(fenced_at=timezone.now(), reason="Staff say that its machine is off for good."))
    return f"{hub} is fenced: what was on it waits for a restore now, and its machine is destroyed."


DEEDS: dict[str, Callable[[Hub], str]] = {"drain": drain, "uncordon": uncordon, "destroy": destroy, "fence": fence}
# What can't be undone, and what staff must know before.
BEFORE: dict[str, Callable[[Hub], str]] = {"destroy": before_destroy, "fence": before_fence}


# --- how -------------------------------------------------------------------------------------------------------------
def _need(hub: Hub, states: Collection[str]) -> None:
    if hub.state not in states:
        raise NotNow(f"{hub} is {hub.state}: that needs a hub that is {' or '.join(states)}.")


def _as_read(hub: Hub) -> HubQuerySet:
    """Its row, if it is still in the state that it was read in."""
    return Hub.objects.filter(pk=hub.pk, state=hub.state)


def _wrote(hub: Hub, rows: int | bool) -> None:
    if not rows:
        raise NotNow(f"{hub} has changed just now: look at it again.")
    live.nudge()


def _refuse_this_machine(hub: Hub, word: str) -> None:
    if issubclass(import_string(settings.MACHINES), LocalMachines):
        raise NotNow(f"{hub} is this machine, the only hub there is: it can't be {word}.")


def _load(hub: Hub) -> str:
    """What lives on the hub or is on its way to it, in words; nothing if it is empty."""
    there = Placement.objects.filter(Q(hub=hub) | Q(moving_to=hub))
    pubs, deleted = (there.filter(bot__deleted_at__isnull=alive).count() for alive in (True, False))
    words = [_count(pubs, "pub")] if pubs else []
    if deleted:
        words.append(f"{_count(deleted, 'volume')} of deleted pubs")
    return " and ".join(words)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _drain_means(hub: Hub) -> str:
    """What a drain comes to just now; a person may think again."""
    load = _load(hub)
    if not load:
        return "It is empty, so its machine is destroyed at the next pass."
    means = f"Now {load} must move to other hubs, a few at a time, each away for some minutes. Then it is destroyed."
    if hub.lost_at:
        means += " It is out of sight: nothing moves until it is back."
    others = with_load(living().exclude(pk=hub.pk))
    free = sum(
        max(0, other.places - other.taken) for other in others if other.state == State.READY and not other.lost_at
    )
    coming = sum(settings.HUB_PLACES for other in others if other.state in COMING)
    leaving = with_load(Hub.objects.filter(pk=hub.pk)).get().taken
    if free + coming >= leaving:
        return means
    means += f" The others have room for {free + coming} GB of {leaving} GB:"
    if living().count() < settings.MAX_HUBS:
        return f"{means} one more machine is bought for the rest."
    return (
        f"{means} MAX_HUBS={settings.MAX_HUBS} allows no more machines, so the rest stays here, running, until there "
        "is room. Uncordon calls it off."
    )
