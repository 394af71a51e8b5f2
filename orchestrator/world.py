"""What a pass reads: the wish, the actual, and nothing else. Nothing is written here."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from uuid import UUID

from django.db import models
from django.db.models import Q
from django.db.models.base import ModelState

from orchestrator import crashes, machines, swarm
from orchestrator.machines import Machine, MachineError
from orchestrator.models import CARRYING, COMING, Hub, Placement
from orchestrator.swarm import Node, Service, Sight
from pubs.models import Bot

log = logging.getLogger(__name__)

# An engine that has not answered for so long is out of sight. All are asked every 30 seconds.
SILENT_AFTER = timedelta(seconds=90)
# How long a failed purchase is remembered, and how long we wait at most before the next one.
FAILURES_KEPT = timedelta(hours=6)
NO_BUY_MAX = timedelta(hours=1)


# What a pass needs to know of a bot and of its home.
BOT_COLUMNS = (
    *("id", "name", "paid", "switched_on", "deleted_at", "memory_gb", "restarts", "ssb_id", "address", "status"),
    *("reason", "unknown_since", "lost_at", "moving", "rests_until", "changed_at", "started_at"),
    *("told_up", "wanted_since"),
)
HOME_COLUMNS = (
    *("id", "bot_id", "hub_id", "port", "label", "places", "moving_to_id", "lost_at", "min_seq"),
    *("refusals", "stays_until", "crash_rest_until", "crash_rests", "crash_restarts", "crash_rested_at"),
)


@dataclass
class World:
    sight: Sight
    bots: list[Bot]
    placements: dict[UUID, Placement]
    hubs: list[Hub]
    machines: dict[UUID, Machine] | None  # by token; None: the cloud did not say
    no_buy_until: datetime | None = None
    # Hub → "" if its engine answered this look, or why not; of those that had not answered lately.
    silence: dict[int, str] = field(default_factory=dict)
    # Bot that rests, because it crashed too often → why, and until when.
    rests: dict[UUID, str] = field(default_factory=dict)

    @cached_property
    def services(self) -> dict[UUID, Service]:
        return {service.bot_id: service for service in self.sight.services}

    @cached_property
    def nodes(self) -> dict[int, Node]:
        """Hub → its node: the one that is marked as it. One that only claims to be is believed while the hub comes."""
        # The ready one comes last, and so wins over one that the machine was before it joined anew.
        ordered = sorted(self.sight.nodes, key=lambda node: node.ready)
        marked = {node.hub: node for node in ordered if node.hub}
        claimed = {node.claims: node for node in ordered if node.claims and not node.hub}
        found = {hub.pk: marked[hub.token] for hub in self.hubs if hub.token in marked}
        for hub in self.hubs:
            node = claimed.get(hub.token)
            if node and hub.pk not in found and hub.state in COMING and self._is_where_it_should_be(hub, node):
                found[hub.pk] = node
        return found

    def _is_where_it_should_be(self, hub: Hub, node: Node) -> bool:
        """Any machine can claim to be any hub, but not have its address: without one nobody is believed."""
        machine = (self.machines or {}).get(hub.token)
        if machine is None or not machine.address:
            return False
        if node.address != machine.address:
            log.error("node %s at %s claims to be %s, which is at %s", node.id, node.address, hub, machine.address)
        return node.address == machine.address

    @cached_property
    def in_sight(self) -> set[int]:
        """Hubs whose node the swarm shows as ready and whose engine answered lately; the rest are unknown.

        Where the look itself was answered there is no need to ask again.
        """
        return {
            pk
            for hub in self.hubs
            if (node := self.nodes.get(pk := hub.pk))
            and node.ready
            and (node.is_manager_here or answered_lately(hub, self.sight.at) or self.silence.get(pk) == "")
        }

    def unheard(self) -> dict[int, str]:
        """Hub → its node: those that would be out of sight only because nobody has asked their engines lately."""
        return {
            hub.pk: node.id
            for hub in self.hubs
            if hub.state in CARRYING
            and (node := self.nodes.get(hub.pk))
            and node.ready
            and not node.is_manager_here
            and not answered_lately(hub, self.sight.at)
        }

    def is_dark(self, placement: Placement | None) -> bool:
        """Nothing is known about the bot that is placed so. What is lost for good is known."""
        return placement is not None and placement.lost_at is None and placement.hub_id not in self.in_sight


def observe() -> World:
    """A handful of calls and queries, however many bots there are."""
    sight = swarm.connect().look()
    # Rows before machines, so that a machine whose row was made meanwhile is not taken for a stranger.
    hubs = list(Hub.objects.exclude(state=Hub.State.GONE))
    bots = Bot.objects.filter(Q(deleted_at=None) | Q(placement__isnull=False)).order_by("created")
    homes = _read(Placement.objects.all(), HOME_COLUMNS)
    _join(homes, hubs)
    world = World(
        sight=sight,
        bots=_read(bots, BOT_COLUMNS),
        placements={home.bot_id: home for home in homes},
        hubs=hubs,
        machines=_machines(),
        no_buy_until=_no_buy_until(hubs, sight.at),
        rests=crashes.words_of_rests(homes),
    )
    # The clock has them asked, unless it or the workers are behind: then a hub is not lost for that.
    world.silence = ask_engines(world.unheard())
    return world


def _read[Row: models.Model](rows: models.QuerySet[Row], columns: tuple[str, ...]) -> list[Row]:
    """The rows with these columns; others are read when they are asked for, as after `only`.

    Django's own way to make a row's object takes twice as long as the query, and half as long as a whole pass.
    """
    found = []
    for values in rows.values_list(*columns):
        row = rows.model.__new__(rows.model)
        row.__dict__.update(zip(columns, values, strict=True))
        row._state = ModelState()
        row._state.adding, row._state.db = False, rows.db
        found.append(row)
    return found


def _join(homes: list[Placement], hubs: list[Hub]) -> None:
    by_pk = {hub.pk: hub for hub in hubs}
    for home in homes:
        if hub := by_pk.get(home.hub_id):
            home._state.fields_cache["hub"] = hub


def _machines() -> dict[UUID, Machine] | None:
    """A cloud that gives no answer keeps no pub from being looked after."""
    try:
        return {machine.token: machine for machine in machines.connect().list()}
    except MachineError as error:
        log.error("no look at the machines: %s", error)
        return None


def _no_buy_until(hubs: list[Hub], now: datetime) -> datetime | None:
    """After failed purchases the cloud is left alone for 2 minutes, 4, 8 … 60, until one succeeds."""
    failures = Hub.objects.filter(failed_at__gt=now - FAILURES_KEPT).values_list("failed_at", flat=True)
    succeeded = max((hub.created for hub in hubs if hub.state in CARRYING), default=None)
    times = [at for at in failures if at and (succeeded is None or at > succeeded)]
    return max(times) + min(NO_BUY_MAX, timedelta(minutes=2 ** min(len(times), 6))) if times else None


def answered_lately(hub: Hub, now: datetime) -> bool:
    return hub.answered_at is not None and now - hub.answered_at < SILENT_AFTER


def ask_engines(nodes: Mapping[int, str]) -> dict[int, str]:
    """Hub → "" if the engine of its node answers, or why not."""
    said = swarm.connect().engines(nodes.values()) if nodes else {}
    return {hub: said[node_id] for hub, node_id in nodes.items()}
