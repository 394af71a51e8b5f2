"""One pass of the orchestrator: observe, record, plan, and queue the jobs that close the gap.

It reads the whole wish and the whole actual every time and remembers nothing, so that start-up, the clock, a lost
message and a crash are all the same to it. What it reads is in world.py, what it writes down in record.py, and what it
decides in planner.py.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from celery import current_app
from django.conf import settings
from django.core.cache import cache
from django.db import transaction

from orchestrator import crashes, dns, hubs, places, planner, swarm, tell
from orchestrator.machines import Machine, Power
from orchestrator.models import Hub, Placement
from orchestrator.planner import (
    Action,
    Actual,
    Adopt,
    BuyHub,
    CancelMove,
    DestroyHub,
    EnsureDown,
    EnsureHub,
    EnsureMoved,
    EnsureUp,
    FenceHub,
    GiveUpHub,
    Limits,
    Place,
    Report,
    Resize,
    StartMove,
    UnfenceHub,
    Wait,
)
from orchestrator.record import GB, note_wishes, record_bots, record_hubs
from orchestrator.swarm import PubService
from orchestrator.world import World, observe
from pubs.models import Bot, Status

__all__ = ["GB", "Pass", "World", "make_plan", "observe", "queue", "run_here", "run_pass", "service_of"]

log = logging.getLogger(__name__)

# After a change the next look follows soon, so that nobody waits for the clock.
HURRY = timedelta(minutes=2)
SETTLES = timedelta(seconds=8)
# A job that was asked for is not asked for again until it has ended, or for so long: it may have been lost. When many
# bots start at once they wait long, and what is asked for twice makes all wait longer. One that is worked on for longer
# is asked for again, finds itself claimed, and ends at once.
ASKED_SECONDS = 60
FAULTS = {
    Power.FAILED: "The cloud could not build its machine.",
    Power.STOPPED: "Its machine is switched off.",
}


@dataclass(frozen=True)
class Pass:
    """What a pass saw and wanted done. `hurry`: something is on its way, so the next look should follow soon."""

    world: World
    actions: list[Action]
    hurry: bool


# How a job is asked for: its task's name and its one argument, if it takes any.
Ask = Callable[..., None]


def queue(task: str, *arguments: str | int) -> None:
    """Leave the job to a worker."""
    if cache.add(asked_key(task, *arguments), 1, ASKED_SECONDS):
        transaction.on_commit(partial(current_app.send_task, task, args=arguments), robust=True)


def asked_key(task: str, *arguments: str | int) -> str:
    """What says that a job is asked for and has not ended."""
    return ".".join(["asked", task, *map(str, arguments)])


def run_here(task: str, *arguments: str | int) -> None:
    """Do the job at once, in this process. One that breaks stops no other."""
    try:
        current_app.tasks[task](*arguments)
    except Exception:
        log.exception("%s%s broke", task, arguments)


def run_pass(ask: Ask = queue) -> Pass:
    """One whole pass."""
    world = observe()
    record_hubs(world)
    crashes.judge(world)
    actions = make_plan(world)
    record_bots(world, {action.bot: action.reason for action in actions if isinstance(action, Wait)})
    note_wishes(world.bots, world.sight.at)
    carry_out(actions, world, ask)
    now = world.sight.at
    for bot in world.bots:
        if tell.is_first_up(bot):
            ask("orchestrator.tell_up", str(bot.pk))
    if settings.PUB_DOMAIN:
        ask("orchestrator.sync_names")
    return Pass(world, actions, hurry=any(in_transition(bot, now) for bot in world.bots))


# --- plan ------------------------------------------------------------------------------------------------------------
def make_plan(world: World) -> list[Action]:
    """What should be done now; changes nothing."""
    wanted = [
        planner.Wanted(bot.pk, bot.memory_gb, _digest(bot, world.placements.get(bot.pk)))
        for bot in world.bots
        if bot.is_wanted
    ]
    kept = [planner.Kept(bot.pk, 0 if bot.deleted_at else bot.memory_gb) for bot in world.bots if not bot.is_wanted]
    actions = planner.plan(wanted, kept, actual(world), limits(), world.sight.at)
    if world.machines is None:
        # Whether a machine is there or gone is not known: nothing is done that could be wrong then.
        return [action for action in actions if not isinstance(action, DestroyHub | FenceHub | GiveUpHub)]
    return actions


def limits() -> Limits:
    rest = timedelta(minutes=settings.DRAINED_REST_MINUTES)
    return Limits(settings.HUB_PLACES, settings.SPARE_PLACES, settings.MAX_HUBS, drained_rest=rest)


def actual(world: World) -> Actual:
    """The world in the planner's words."""
    hub_of_node = {node.id: hub for hub, node in world.nodes.items()}
    rows = {hub.token for hub in world.hubs}
    cloud = world.machines or {}
    unheard = world.machines is None
    return Actual(
        hubs=tuple(_hub_seen(hub, world, cloud.get(hub.token)) for hub in world.hubs),
        placements={bot: _placement_seen(home, world) for bot, home in world.placements.items()},
        services={
            service.bot_id: planner.ServiceSeen(service.digest, hub_of_node.get(service.node_id))
            for service in world.sight.services
        },
        strangers=tuple(token for token, it in cloud.items() if token not in rows and it.power != Power.GOING),
        no_buy_until=world.sight.at + HURRY if unheard else world.no_buy_until,
    )


def _placement_seen(home: Placement, world: World) -> planner.PlacementSeen:
    return planner.PlacementSeen(
        hub=home.hub_id,
        places=home.places,
        moving_to=home.moving_to_id,
        lost=home.lost_at is not None,
        refusals=home.refusals,
        stays=home.stays_until is not None and home.stays_until > world.sight.at,
        rests=world.rests.get(home.bot_id, ""),
    )


def _hub_seen(hub: Hub, world: World, machine: Machine | None) -> planner.HubSeen:
    return planner.HubSeen(
        id=hub.pk,
        state=hub.state,
        places=hub.places,
        in_sight=hub.pk in world.in_sight,
        has_machine=machine is not None or world.machines is None,
        fault=(machine.fault or FAULTS.get(machine.power, "")) if machine else "",
        deadline=hub.deadline,
        emptied_at=hub.emptied_at,
        lost_at=hub.lost_at,
        fenced=hub.fenced_at is not None,
        has_twin=machine is not None and machine.has_twin,
        is_back=hub.fenced_by_cloud and machine is not None,
    )


def _digest(bot: Bot, placement: Placement | None) -> str:
    known = placement and placement.lost_at is None and bot.ssb_id
    return swarm.connect().digest(service_of(bot, placement)) if placement and known else ""


def service_of(bot: Bot, placement: Placement) -> PubService:
    """The service that a placed bot with an identity should have."""
    return PubService(
        bot_id=bot.pk,
        ssb_id=bot.ssb_id,
        node_id=placement.hub.node_id,
        port=placement.port,
        host=dns.host_of(placement.label),
        image=settings.PUB_IMAGE,
        memory=settings.PUB_MEMORY_GB * placement.places * GB,
        restarts=bot.restarts,
        network_key=settings.PUB_SHS,
        name=bot.name,
        min_seq=placement.min_seq,
    )


def in_transition(bot: Bot, now: datetime) -> bool:
    """It moves, or was started lately and does not answer yet. One that crashes again and again is left to the clock.

    For some seconds after a restart the old task is still seen, and then nothing: both are to be noticed.
    """
    if bot.moving and not bot.unknown_since:
        return True
    if not bot.is_wanted or bot.started_at is None:
        return False
    return now - bot.started_at < (SETTLES if bot.status == Status.UP else HURRY)


# --- act -------------------------------------------------------------------------------------------------------------
def carry_out(actions: Iterable[Action], world: World, ask: Ask) -> None:
    """Write what is ours to write at once; what takes time becomes a job of its own."""
    actions = list(actions)
    with _apart("what is written for many at once"):
        _carry_out_together(actions, world, ask)
    states = {hub.pk: hub.state for hub in world.hubs}
    for action in actions:
        with _apart(action):
            _carry_out_one(action, states, ask)


@contextmanager
def _apart(what: object) -> Iterator[None]:
    """One thing that breaks stops no other; the next pass tries it again."""
    try:
        yield
    except Exception:
        log.exception("%s broke", what)


def _carry_out_together(actions: list[Action], world: World, ask: Ask) -> None:
    names = {bot.pk: bot.name for bot in world.bots}
    if here := [action for action in actions if isinstance(action, Place)]:
        _ask_each(ask, "orchestrator.ensure_pub_up", places.place(here, names))
    if sizes := [action for action in actions if isinstance(action, Resize)]:
        _ask_each(ask, "orchestrator.ensure_pub_up", places.resize(sizes))
    if away := [action for action in actions if isinstance(action, StartMove)]:
        _ask_each(ask, "orchestrator.move_pub", places.start_moves(away))
    if stay := [action for action in actions if isinstance(action, CancelMove)]:
        places.cancel_moves(stay)
    if count := actions.count(BuyHub()):
        _ask_each(ask, "orchestrator.ensure_hub", hubs.buy(count))


def _carry_out_one(action: Action, states: Mapping[int, str], ask: Ask) -> None:
    match action:
        case EnsureUp(bot):
            ask("orchestrator.ensure_pub_up", str(bot))
        case EnsureDown(bot):
            ask("orchestrator.ensure_pub_down", str(bot))
        case EnsureMoved(bot):
            ask("orchestrator.move_pub", str(bot))
        case EnsureHub(hub):
            ask("orchestrator.ensure_hub", hub)
        case GiveUpHub(hub, reason):
            hubs.give_up(hub, reason)
        case DestroyHub(hub):
            if hubs.retire(hub, states[hub]):
                ask("orchestrator.destroy_hub", hub)
        case FenceHub(hub):
            ask("orchestrator.fence_hub", hub)
        case UnfenceHub(hub):
            hubs.unfence(hub)
        case Adopt(stranger):
            hubs.adopt(stranger)
        case Report(about, reason):
            tell.staff(about, reason)


def _ask_each(ask: Ask, task: str, arguments: Iterable[UUID | int]) -> None:
    for argument in arguments:
        ask(task, argument if isinstance(argument, int) else str(argument))
