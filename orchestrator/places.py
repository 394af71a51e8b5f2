"""Who lives where: written before anything is asked of the swarm, so that the next pass heals a crash in between.

Many bots are written in as few queries as one.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from orchestrator import dns, tell
from orchestrator.models import Hub, Placement
from orchestrator.planner import CancelMove, Place, Resize, StartMove
from pubs import live
from pubs.models import Bot, Event, Status

# After a move that was given up, until the next try.
STAYS = timedelta(hours=1)
NO_PORT = "All ports are taken. Our staff must give us more."


def place(wishes: Iterable[Place], names: Mapping[UUID, str]) -> list[UUID]:
    """Give each bot a place, a port and a label for life; gives the bots that got them."""
    with transaction.atomic():
        wishes = _to_ready_hubs(wishes)
        taken = Placement.objects.values_list("port", "label")
        ports, labels = ({*column} for column in zip(*taken, strict=True)) if taken else (set(), set())
        free = (port for port in all_ports() if port not in ports)
        homes = []
        for wish, port in zip(wishes, free, strict=False):
            label = _label(names[wish.bot], wish.bot, labels)
            labels.add(label)
            homes.append(Placement(bot_id=wish.bot, hub_id=wish.hub, places=wish.places, port=port, label=label))
        # A conflict: another pass was faster, and the next one sees what it did.
        Placement.objects.bulk_create(homes, ignore_conflicts=True)
        placed = [home.bot_id for home in homes]
        _give_reason(placed, "")
        _note_placed(homes)
    if left := [wish.bot for wish in wishes[len(homes) :]]:
        _give_reason(left, NO_PORT)
        tell.staff(None, f"PUB_PORTS={settings.PUB_PORTS} has no free port left: widen it.")
    return placed


def _note_placed(homes: Iterable[Placement]) -> None:
    hubs = dict(Hub.objects.filter(pk__in={home.hub_id for home in homes}).values_list("pk", "name"))
    placed = Event.Kind.PLACED
    Event.objects.bulk_create(
        (
            Event(bot_id=home.bot_id, kind=placed, details={"hub": hubs[home.hub_id]}, key=f"placed:{home.bot_id}")
            for home in homes
        ),
        ignore_conflicts=True,
    )


def _to_ready_hubs[Wish: (Place, StartMove)](wishes: Iterable[Wish]) -> list[Wish]:
    """Those whose hub is still ready; it then stays so to the end of the transaction."""
    wishes = list(wishes)
    hubs = Hub.objects.select_for_update().filter(pk__in={wish.hub for wish in wishes}, state=Hub.State.READY)
    ready = set(hubs.order_by("pk").values_list("pk", flat=True))
    return [wish for wish in wishes if wish.hub in ready]


def _label(name: str, bot_id: UUID, taken: set[str]) -> str:
    """Of many namesakes two may share the six digits."""
    label = dns.label_of(name, bot_id)
    return label if label not in taken else f"pub-{bot_id.hex}"


def _give_reason(bots: Iterable[UUID], reason: str) -> None:
    Bot.objects.filter(pk__in=bots).exclude(reason=reason).update(reason=reason)
    for bot in bots:
        live.changed(bot)


def all_ports() -> range:
    """The ports that we publish pubs on, unique over the whole fleet so that a move keeps a pub's address."""
    first, last = (int(port) for port in settings.PUB_PORTS.split("-"))
    return range(first, last + 1)


def resize(wishes: Iterable[Resize]) -> list[UUID]:
    """Let each hold as many places as it may; gives those that still hold any."""
    bots: dict[int, list[UUID]] = defaultdict(list)
    for wish in wishes:
        bots[wish.places].append(wish.bot)
    with transaction.atomic():
        for places, those in bots.items():
            Placement.objects.filter(bot__in=those).update(places=places)
            running = Bot.objects.filter(pk__in=those).exclude(status=Status.NONE)
            _note_resized(running.values_list("pk", flat=True), places)
    return [bot for places, those in bots.items() if places for bot in those]


def _note_resized(bots: Iterable[UUID], places: int) -> None:
    """Only another service has another size."""
    memory = settings.PUB_MEMORY_GB * places
    words = f"It has {memory} GB of memory now."
    Event.objects.bulk_create(
        Event(bot_id=bot, kind=Event.Kind.RESTARTED, words=words, details={"memory_gb": memory}) for bot in bots
    )


def start_moves(wishes: Iterable[StartMove]) -> list[UUID]:
    """Note where each is to go; gives the bots that go."""
    with transaction.atomic():
        wishes = _to_ready_hubs(wishes)
        bots: dict[int, list[UUID]] = defaultdict(list)
        for wish in wishes:
            bots[wish.hub].append(wish.bot)
        for hub, those in bots.items():
            staying = Placement.objects.filter(bot__in=those, moving_to=None, lost_at=None)
            staying.update(moving_to=hub, refusals=0, rests_until=None)
    return [wish.bot for wish in wishes]


def cancel_moves(wishes: Iterable[CancelMove]) -> None:
    """Each stays where its volume is: a copy that is under way comes to nothing."""
    wishes = list(wishes)
    moving = Placement.objects.filter(bot__in=[wish.bot for wish in wishes]).exclude(moving_to=None)
    given_up = moving.filter(bot__in=[wish.bot for wish in wishes if wish.given_up])
    for home in given_up.select_related("hub", "moving_to"):
        tell.staff(
            home.bot_id,
            f"Its move from {home.hub} to {home.moving_to} failed {home.refusals} times, and was given up for an hour; "
            f"it runs on at {home.hub}. {home.trouble}",
        )
    # It is to start at once where it is.
    given_up.update(moving_to=None, stays_until=timezone.now() + STAYS, refusals=0, rests_until=None)
    moving.update(moving_to=None)
