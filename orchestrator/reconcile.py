"""One pass of the orchestrator: observe, record, plan, and queue the jobs that close the gap.

It reads the whole wish and the whole actual every time and remembers nothing, so that start-up, the clock, a lost
message and a crash are all the same to it.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from celery import current_app
from django.conf import settings
from django.core.cache import cache
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone

from mailer import messages
from orchestrator import machines, planner, swarm
from orchestrator.models import Hub, Placement
from orchestrator.planner import (
    Action,
    BuyHub,
    DestroyHub,
    EnsureDown,
    EnsureHub,
    EnsureUp,
    Place,
    Report,
    Wait,
)
from orchestrator.swarm import PubService, Service, Sight
from pubs import live
from pubs.models import Bot, Status, StatusChange

log = logging.getLogger(__name__)

GB = 1024**3
# A pub that comes back within this time has not been down in the sense of a mail.
DOWN_BEFORE_MAIL = timedelta(seconds=60)
# After a change the next look follows soon, so that nobody waits for the clock.
HURRY = timedelta(minutes=2)
SETTLES = timedelta(seconds=8)
REPORT_SECONDS = 3600


@dataclass
class World:
    """What a pass has read: the wish, the actual, and nothing else."""

    sight: Sight
    bots: list[Bot]
    placements: dict[UUID, Placement]
    hubs: list[Hub]
    machine_tokens: set[UUID]

    @property
    def services(self) -> dict[UUID, Service]:
        return {service.bot_id: service for service in self.sight.services}

    def in_sight(self, hub: Hub) -> bool:
        """The swarm shows its node ready; only then is known what runs there."""
        return any(node.hub == hub.token and node.ready for node in self.sight.nodes)


@dataclass(frozen=True)
class Pass:
    """What a pass wanted done. `hurry`: something is on its way, so the next look should follow soon."""

    actions: list[Action]
    hurry: bool


# How a job is asked for: its task's name and its one argument.
Ask = Callable[[str, str | int], None]


def queue(task: str, argument: str | int) -> None:
    """Leave the job to a worker."""
    transaction.on_commit(partial(current_app.send_task, task, args=[argument]), robust=True)


def run_here(task: str, argument: str | int) -> None:
    """Do the job at once, in this process."""
    current_app.tasks[task](argument)


def run_pass(ask: Ask = queue) -> Pass:
    """One whole pass."""
    world = observe()
    record(world)
    actions = make_plan(world)
    for action in actions:
        carry_out(action, ask)
    return Pass(actions, hurry=any(in_transition(bot, world.sight.at) for bot in world.bots))


def observe() -> World:
    sight = swarm.connect().look()
    placements = Placement.objects.select_related("hub").all()
    return World(
        sight=sight,
        bots=list(Bot.objects.filter(Q(deleted_at=None) | Q(placement__isnull=False)).order_by("created")),
        placements={placement.bot_id: placement for placement in placements},
        hubs=list(Hub.objects.exclude(state=Hub.State.GONE)),
        machine_tokens={machine.token for machine in machines.connect().list()},
    )


# --- record ----------------------------------------------------------------------------------------------------------
def record(world: World) -> None:
    """Write what was seen, each bot's status change with its history row and its mail in one transaction."""
    for hub in world.hubs:
        _record_hub(hub, world)
    for bot in world.bots:
        _record_address(bot, world.placements.get(bot.pk))
    seen = [bot for bot in world.bots if _is_seen(bot, world)]
    services = world.services
    for bot in seen:
        _record_status(bot, services.get(bot.pk))
    Bot.objects.filter(pk__in=[bot.pk for bot in seen]).update(seen_at=world.sight.at)
    for bot in seen:
        _tell(bot, world.sight.at)


def _record_hub(hub: Hub, world: World) -> None:
    node = next((node for node in world.sight.nodes if node.hub == hub.token), None)
    if node and node.ready and hub.state in (Hub.State.REQUESTED, Hub.State.BOOTING, Hub.State.READY):
        hub.state = Hub.State.READY
        hub.node_id, hub.address = node.id, node.address
        # 1 GB stays for the system.
        hub.places = max(0, min(settings.HUB_PLACES, round(node.memory / GB) - 1))
        hub.seen_at, hub.reason = world.sight.at, ""
    elif hub.state == Hub.State.READY:
        hub.reason = "The swarm does not show its node as ready."
    taken = any(placement.hub_id == hub.pk for placement in world.placements.values())
    hub.emptied_at = None if taken else hub.emptied_at or world.sight.at
    hub.save(update_fields=["state", "node_id", "address", "places", "seen_at", "reason", "emptied_at"])


def _record_address(bot: Bot, placement: Placement | None) -> None:
    """The port is for life; the host name is a setting that staff may change."""
    address = f"{settings.PUB_HOST}:{placement.port}" if placement else ""
    if bot.address != address:
        Bot.objects.filter(pk=bot.pk).update(address=address)
        live.changed(bot.pk)


def _is_seen(bot: Bot, world: World) -> bool:
    """Unknown is not down: a bot on a hub out of sight keeps its status and the time when it was last seen."""
    placement = world.placements.get(bot.pk)
    return placement is None or world.in_sight(placement.hub)


def _record_status(bot: Bot, service: Service | None) -> None:
    status = Status.NONE if service is None else Status.UP if service.healthy else Status.DOWN
    reason = _reason(bot, service)
    if (status, reason) == (bot.status, bot.reason):
        return
    changes: dict[str, Any] = {"status": status, "reason": reason}
    if status != bot.status:
        changes["changed_at"] = timezone.now()
    with transaction.atomic():
        # Only if it is still as it was read: of two passes one wins.
        won = Bot.objects.filter(pk=bot.pk, status=bot.status, reason=bot.reason).update(**changes)
        if won and status != bot.status:
            StatusChange.objects.create(bot=bot, old=bot.status, new=status, reason=reason)
        live.changed(bot.pk)
    if won:
        for name, value in changes.items():
            setattr(bot, name, value)


def _reason(bot: Bot, service: Service | None) -> str:
    if not bot.is_wanted or (service and service.healthy):
        return ""
    # Without a service the reason is a job's or the plan's to say.
    return in_plain_words(service.complaint) if service else bot.reason


# The first sign that is found counts: Docker's "no suitable node" has its cause behind it.
PLAIN_WORDS = {
    "port already in use": "Its port is still in use on its machine.",
    "insufficient resources": "There is no room on its machine just now.",
    "no suitable node": "There is no room on its machine just now.",
    "port is already allocated": "Its port is in use on its machine by something else.",
    "address already in use": "Its port is in use on its machine by something else.",
    "No such image": "The pub software is missing on its machine.",
    "(75)": "Its volume is still in use by its last run.",
    "(78)": "Its volume does not hold its identity. It was not started, so nothing is lost; we look at it.",
    "(137)": "It was ended from outside, most often because it ran out of memory. It starts again by itself.",
    "non-zero exit": "It crashed. It starts again by itself.",
    "unhealthy": "It stopped answering. It starts again by itself.",
}


def in_plain_words(complaint: str) -> str:
    """Docker's words for the owner of a pub."""
    for sign, words in PLAIN_WORDS.items():
        if sign in complaint:
            return words
    return ""


def _tell(bot: Bot, now: datetime) -> None:
    """Mail the owner what changed: up once it is up, down once it has been down for a while though it should run.

    A stop is no news to who asked for it, nor is the start after it.
    """
    is_up = bot.status == Status.UP
    if not bot.is_wanted and bot.told == Status.UP:
        Bot.objects.filter(pk=bot.pk, told=bot.told).update(told=Status.NONE)
    elif bot.is_wanted and is_up and bot.told == Status.NONE:
        Bot.objects.filter(pk=bot.pk, told=bot.told).update(told=Status.UP)
    elif bot.is_wanted and is_up and bot.told != Status.UP:
        _mail(bot, Status.UP)
    elif bot.is_wanted and not is_up and bot.told == Status.UP and now - down_since(bot) >= DOWN_BEFORE_MAIL:
        _mail(bot, Status.DOWN)


def down_since(bot: Bot) -> datetime:
    """Not before it was last started: a restart takes its time."""
    return max(bot.changed_at, bot.started_at or bot.changed_at)


def _mail(bot: Bot, news: Status) -> None:
    with transaction.atomic():
        if not Bot.objects.filter(pk=bot.pk, told=bot.told).update(told=news):
            return
        owner = bot.owner
        plain = {
            "key": f"pub_is_{news}:{bot.pk}:{bot.changed_at.isoformat()}",
            "to": owner.email,
            "name": owner.name,
            "pub_name": bot.name,
            "url": settings.SITE_URL + reverse("pubs:pub", args=[bot.pk]),
        }
        if news == Status.UP:
            messages.pub_is_up(**plain, address=bot.address)
        else:
            messages.pub_is_down(**plain, reason=bot.reason, since=down_since(bot))


# --- plan ------------------------------------------------------------------------------------------------------------
def make_plan(world: World) -> list[Action]:
    """What should be done now; changes nothing."""
    wanted = [bot for bot in world.bots if bot.is_wanted]
    kept = [bot for bot in world.bots if not bot.is_wanted]
    hub_of_node = {node.id: hub.pk for node in world.sight.nodes for hub in world.hubs if node.hub == hub.token}
    actual = planner.Actual(
        hubs=tuple(_hub_seen(hub, world) for hub in world.hubs),
        placements={bot: placement.hub_id for bot, placement in world.placements.items()},
        services={
            service.bot_id: planner.ServiceSeen(service.digest, hub_of_node.get(service.node_id))
            for service in world.sight.services
        },
    )
    return planner.plan(
        [planner.Wanted(bot.pk, digest=_digest(bot, world)) for bot in wanted],
        [planner.Kept(bot.pk, places=0 if bot.deleted_at else 1) for bot in kept],
        actual,
        planner.Limits(settings.HUB_PLACES, settings.SPARE_PLACES, settings.MAX_HUBS),
        world.sight.at,
    )


def _hub_seen(hub: Hub, world: World) -> planner.HubSeen:
    return planner.HubSeen(
        hub.pk, hub.state, hub.places, world.in_sight(hub), hub.token in world.machine_tokens, hub.emptied_at
    )


def _digest(bot: Bot, world: World) -> str:
    placement = world.placements.get(bot.pk)
    return swarm.connect().digest(service_of(bot, placement)) if placement and bot.ssb_id else ""


def service_of(bot: Bot, placement: Placement) -> PubService:
    """The service that a placed bot with an identity should have."""
    return PubService(
        bot_id=bot.pk,
        ssb_id=bot.ssb_id,
        node_id=placement.hub.node_id,
        port=placement.port,
        host=settings.PUB_HOST,
        image=settings.PUB_IMAGE,
        memory=settings.PUB_MEMORY_GB * GB,
        restarts=bot.restarts,
        network_key=settings.PUB_SHS,
        name=bot.name,
    )


def in_transition(bot: Bot, now: datetime) -> bool:
    """It was started lately and does not answer yet. One that crashes again and again is left to the clock.

    For some seconds after a restart the old task is still seen, and then nothing: both are to be noticed.
    """
    if not bot.is_wanted or bot.started_at is None:
        return False
    return now - bot.started_at < (SETTLES if bot.status == Status.UP else HURRY)


# --- act -------------------------------------------------------------------------------------------------------------
def carry_out(action: Action, ask: Ask) -> None:
    """Write what is ours to write at once; what takes time becomes a job of its own."""
    match action:
        case Place(bot, hub):
            if place(bot, hub):
                ask("orchestrator.ensure_pub_up", str(bot))
        case EnsureUp(bot):
            ask("orchestrator.ensure_pub_up", str(bot))
        case EnsureDown(bot):
            ask("orchestrator.ensure_pub_down", str(bot))
        case Wait(bot, reason):
            give_reason(bot, reason)
        case BuyHub():
            ask("orchestrator.create_hub", Hub.objects.create(name=_free_hub_name()).pk)
        case EnsureHub(hub):
            ask("orchestrator.create_hub", hub)
        case DestroyHub(hub):
            Hub.objects.filter(pk=hub, placements=None).update(state=Hub.State.DESTROYING)
            ask("orchestrator.destroy_hub", hub)
        case Report(bot, reason):
            # Once in a while, not at each pass.
            if cache.add(f"orchestrator.reported.{bot}", reason, REPORT_SECONDS):
                log.warning("pub service of %s: %s", bot, reason)


def place(bot_id: UUID, hub_id: int) -> bool:
    """Write the placement before anything is asked of the swarm: a crash in between is healed by the next pass."""
    with transaction.atomic():
        taken = set(Placement.objects.values_list("port", flat=True))
        port = next((port for port in ports() if port not in taken), None)
        if port is None:
            give_reason(bot_id, "All ports are taken. Our staff must give us more.")
            log.error("PUB_PORTS=%s has no free port left: widen it", settings.PUB_PORTS)
            return False
        try:
            with transaction.atomic():
                Placement.objects.create(bot_id=bot_id, hub_id=hub_id, port=port, label=f"pub-{bot_id.hex[:12]}")
        except IntegrityError:
            return False  # another pass was faster; the next one sees what it did
        Bot.objects.filter(pk=bot_id).update(address=f"{settings.PUB_HOST}:{port}", reason="")
        live.changed(bot_id)
    return True


def ports() -> Iterable[int]:
    """The ports that we publish pubs on, unique over the whole fleet so that a move keeps a pub's address."""
    first, last = (int(port) for port in settings.PUB_PORTS.split("-"))
    return range(first, last + 1)


def give_reason(bot_id: UUID, reason: str) -> None:
    """Say on the bot's page why it is not up."""
    reason = reason[:500]
    with transaction.atomic():
        if Bot.objects.filter(pk=bot_id).exclude(reason=reason).update(reason=reason):
            live.changed(bot_id)


def _free_hub_name() -> str:
    used = set(Hub.objects.values_list("name", flat=True))
    return next(name for number in range(1, len(used) + 2) if (name := f"hub-{number}") not in used)
