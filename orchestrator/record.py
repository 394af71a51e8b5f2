"""Writes down what a pass has seen, in a number of queries that does not grow with the number of bots."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from operator import attrgetter
from uuid import UUID

from django.conf import settings
from django.core.cache import cache
from django.db import transaction
from django.db.models import Q

from orchestrator import crashes, dns, tell
from orchestrator.models import CARRYING, COMING, Hub, Placement
from orchestrator.swarm import Service
from orchestrator.world import World
from pubs import live
from pubs.models import Bot, Status, StatusChange

GB = 1024**3
MOVING = "It is moving to another machine, with all that it knows. It is back in a few minutes."
TROUBLE = "Our machine could not do it just now. We try again by ourselves, and staff see why."
NODE_DOWN = "The swarm does not show its node as ready."
OVERDUE_DRAIN = (
    "It is not drained yet, though it had its time: some bots found no room, can't move, or have not started there."
)
SERVICES_KEY = "orchestrator.services"
SERVICES_SECONDS = 10 * 60


# --- hubs ------------------------------------------------------------------------------------------------------------
HUB_COLUMNS = ["node_id", "address", "public_address", "places", "emptied_at", "lost_at", "reason"]
hub_columns = attrgetter(*HUB_COLUMNS)


def record_hubs(world: World) -> None:
    at = world.sight.at
    if changed := see_hubs(world):
        Hub.objects.bulk_update(changed, HUB_COLUMNS)
    # Not with the others: what a worker has heard meanwhile is newer than what this pass has read.
    note_answers(world.silence, at)
    Hub.objects.filter(pk__in=world.in_sight).update(seen_at=at)
    cache.set(SERVICES_KEY, _services(world), SERVICES_SECONDS)
    for hub in world.hubs:
        if hub.state in CARRYING and not hub.fenced_at:
            tell.staff_of_loss(hub, at)
            _see_overdue_drain(hub, at)


def see_hubs(world: World) -> list[Hub]:
    """What the look means for each hub, in memory alone; gives those that it changes."""
    taken = {place.hub_id for place in world.placements.values() if place.lost_at is None}
    taken |= {place.moving_to_id for place in world.placements.values() if place.moving_to_id}
    before = {hub.pk: hub_columns(hub) for hub in world.hubs}
    for hub in world.hubs:
        _see_node(hub, world)
        _see_loss(hub, world)
        hub.emptied_at = None if hub.pk in taken else hub.emptied_at or world.sight.at
    return [hub for hub in world.hubs if hub_columns(hub) != before[hub.pk]]


def note_answers(silence: Mapping[int, str], at: datetime) -> None:
    if answering := [hub for hub, words in silence.items() if not words]:
        Hub.objects.filter(pk__in=answering).update(answered_at=at)


def _services(world: World) -> dict[int, int]:
    """Hub → services that run on it, or would, whether we know their pubs or not."""
    hub_of_node = {node.id: hub for hub, node in world.nodes.items()}
    return Counter(hub_of_node[it.node_id] for it in world.sight.services if it.node_id in hub_of_node)


def services_on(hub: Hub) -> int:
    """As the last pass saw them: staff's deeds are done where no swarm is in reach."""
    return cache.get(SERVICES_KEY, {}).get(hub.pk, 0)


def _see_node(hub: Hub, world: World) -> None:
    node = world.nodes.get(hub.pk)
    if node and node.ready and hub.state in (*COMING, *CARRYING):
        hub.node_id, hub.address = node.id, node.address
        # 1 GB stays for the system.
        hub.places = max(0, min(settings.HUB_PLACES, round(node.memory / GB) - 1))
    if machine := (world.machines or {}).get(hub.token):
        hub.public_address = machine.public_address or hub.public_address


def _see_loss(hub: Hub, world: World) -> None:
    """When its node comes back, its pubs are taken as they are."""
    if hub.pk in world.in_sight and hub.lost_at:
        hub.lost_at, hub.reason = None, ""
    elif hub.pk not in world.in_sight and hub.state in CARRYING and not hub.lost_at:
        hub.lost_at = world.sight.at
        silence = world.silence.get(hub.pk)
        hub.reason = f"Its engine does not answer: {silence}"[:500] if silence else NODE_DOWN


def _see_overdue_drain(hub: Hub, at: datetime) -> None:
    if hub.state == Hub.State.DRAINING and hub.deadline and hub.deadline < at:
        tell.staff(hub.pk, OVERDUE_DRAIN)
        Hub.objects.filter(pk=hub.pk, state=hub.state).become(hub.state, hub.reason)


# --- bots ------------------------------------------------------------------------------------------------------------
# What is seen of a bot, as it is compared and written.
COLUMNS = ["address", "status", "reason", "unknown_since", "lost_at", "moving", "rests_until"]
columns = attrgetter(*COLUMNS)


def record_bots(world: World, waits: Mapping[UUID, str]) -> None:
    """`waits`: why the plan can do nothing for a bot."""
    news: dict[UUID, tuple[object, ...]] = {}
    killed = [service.bot_id for service in world.sight.services if KILLED in service.complaint]
    causes = crashes.causes(killed, world.sight.at) if killed else {}
    for bot in world.bots:
        seen = _seen(bot, world, waits.get(bot.pk, ""), causes)
        if seen != columns(bot):
            news[bot.pk] = seen
    if news:
        _write([bot for bot in world.bots if bot.pk in news], news, world.sight.at)
    dark = [hub.pk for hub in world.hubs if hub.pk not in world.in_sight]
    unseen = Placement.objects.filter(hub__in=dark, lost_at=None)
    # Where nothing runs and nothing should, nobody asks when it was seen.
    may_run = Bot.objects.filter(Q(paid=True) | ~Q(status=Status.NONE))
    may_run.exclude(pk__in=unseen.values("bot")).update(seen_at=world.sight.at)


def _seen(bot: Bot, world: World, wait: str, causes: Mapping[UUID, str]) -> tuple[object, ...]:
    """Unknown is not down: a bot on a hub out of sight keeps its status."""
    placement = world.placements.get(bot.pk)
    service = world.services.get(bot.pk)
    # The port is for life; the host name is a setting that staff may change.
    address = f"{dns.host_of(placement.label)}:{placement.port}" if placement else ""
    if world.is_dark(placement):
        assert placement is not None
        since = bot.unknown_since or placement.hub.lost_at or world.sight.at
        return (address, bot.status, wait or bot.reason, since, None, bot.moving, placement.crash_rest_until)
    moving = placement is not None and placement.moving_to_id is not None
    status = Status.NONE if service is None else Status.UP if service.healthy else Status.DOWN
    if moving:
        wait = TROUBLE if placement and placement.refusals else MOVING
    reason = _reason(bot, service, wait, causes.get(bot.pk, ""))
    lost_at, rests_until = (placement.lost_at, placement.crash_rest_until) if placement else (None, None)
    return (address, status, reason, None, lost_at, moving, rests_until)


def _reason(bot: Bot, service: Service | None, wait: str, cause: str) -> str:
    if not bot.is_wanted:
        return ""
    if wait or service is None:
        # Without a service the reason is a job's or the plan's to say.
        return wait or bot.reason
    return "" if service.healthy else cause or in_plain_words(service.complaint)


def _write(bots: list[Bot], news: Mapping[UUID, tuple[object, ...]], at: datetime) -> None:
    """Each only if it is still as it was read: of two passes one wins. Those that become the same are one query."""
    with transaction.atomic():
        rows = Bot.objects.select_for_update().filter(pk__in=news).order_by("pk")
        there = {pk: tuple(values) for pk, *values in rows.values_list("pk", *COLUMNS)}
        won = [bot for bot in bots if there.get(bot.pk) == columns(bot)]
        alike: defaultdict[tuple[object, ...], list[UUID]] = defaultdict(list)
        moved, changes = [], []
        for bot in won:
            address, status = bot.address, bot.status
            for column, value in zip(COLUMNS, news[bot.pk], strict=True):
                setattr(bot, column, value)
            if bot.status != status:
                bot.changed_at = at
                changes.append(StatusChange(bot=bot, old=status, new=bot.status, reason=bot.reason))
            if bot.address != address:
                moved.append(bot)
            alike[(bot.changed_at if bot.status != status else None, *columns(bot)[1:])].append(bot.pk)
        live.changed(*(bot.pk for bot in won))
        for (changed_at, *values), those in alike.items():
            new = dict(zip(COLUMNS[1:], values, strict=True)) | ({"changed_at": changed_at} if changed_at else {})
            Bot.objects.filter(pk__in=those).update(**new)
        # Each has its own.
        Bot.objects.bulk_update(moved, ["address"])
        StatusChange.objects.bulk_create(changes)


def note_wishes(bots: Iterable[Bot], now: datetime) -> None:
    """Since when each should run: what it did before, as before a stop, is no trouble, nor is the start after it."""
    begun = [bot.pk for bot in bots if bot.is_wanted and bot.wanted_since is None]
    ended = [bot.pk for bot in bots if not bot.is_wanted and bot.wanted_since is not None]
    if begun:
        Bot.objects.filter(pk__in=begun, wanted_since=None).update(wanted_since=now)
    if ended:
        Bot.objects.filter(pk__in=ended).update(wanted_since=None)


# All that the swarm's manager says of what was ended by force. Why it was, its own engine knows.
KILLED = "(137)"
# The first sign that is found counts: Docker's "no suitable node" has its cause behind it.
PLAIN_WORDS = {
    "port already in use": "Its port is still in use on its machine.",
    "insufficient resources": "There is no room on its machine just now.",
    "no suitable node": "There is no room on its machine just now.",
    "port is already allocated": "Its port is in use on its machine by something else.",
    "address already in use": "Its port is in use on its machine by something else.",
    "No such image": "The pub software is missing on its machine.",
    **{f"({code})": words for code, words in crashes.WORDS.items()},
    KILLED: f"{crashes.WORDS[137]} Most often that is because it ran out of memory. It starts again by itself.",
    "non-zero exit": "It crashed. It starts again by itself.",
    "unhealthy": "It stopped answering. It starts again by itself.",
}


def in_plain_words(complaint: str) -> str:
    """Docker's words for the owner of a pub."""
    for sign, words in PLAIN_WORDS.items():
        if sign in complaint:
            return words
    return ""


def give_reason(bot_id: UUID, reason: str) -> None:
    """Say on the bot's page why it is not up."""
    reason = reason[:500]
    with transaction.atomic():
        if Bot.objects.filter(pk=bot_id).exclude(reason=reason).update(reason=reason):
            live.changed(bot_id)
