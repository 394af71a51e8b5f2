"""The jobs of the swarm queue. Each may run twice, in any order, and be killed anywhere: the next pass sees what is
left to do and asks again.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

from celery import shared_task
from django.conf import settings
from django.core.cache import cache
from django.db.models import Q
from django.utils import timezone

from orchestrator import machines, relay, swarm
from orchestrator.machines import MachineError
from orchestrator.models import Hub, Placement, turn
from orchestrator.reconcile import give_reason, run_pass, service_of
from orchestrator.swarm import SwarmError
from pubs import live
from pubs.models import Bot

log = logging.getLogger(__name__)

# Longer than any pass or job takes; what outlives it was killed.
CLAIM_SECONDS = 60
# A pass costs some 25 ms, and the owner of a new pub waits for the next one.
SOON_SECONDS = 0.25
# After a refusal, until the next try.
REST_SECONDS = 15


@shared_task(name="orchestrator.reconcile")
def reconcile() -> None:
    """One pass, unless another worker makes one: then one follows that sees what this one was asked for."""
    hurry = True
    with turn("pass", CLAIM_SECONDS) as ours:
        if ours:
            try:
                hurry = run_pass().hurry
            except (SwarmError, MachineError) as error:
                # Nothing was seen, so nothing is known and nothing is done. The clock asks again.
                log.error("no pass: %s", error)
                hurry = False
    if hurry:
        _soon()


def _soon() -> None:
    """Ask for one more pass in a moment, however many ask."""
    # By the slot of time that it falls in, and not by a key that ends with it: Redis counts those in whole seconds.
    slot = int(time.time() / SOON_SECONDS)
    if cache.add(f"orchestrator.soon.{slot}", 1, CLAIM_SECONDS):
        reconcile.apply_async(countdown=SOON_SECONDS)


@shared_task(name="orchestrator.ensure_pub_up")
def ensure_pub_up(bot_id: str) -> None:
    """Identity first, stored before the service that bears it; then the service."""
    with _claimed(UUID(bot_id)) as placement:
        if placement is None or not placement.bot.is_wanted:
            return
        bot = placement.bot
        if not settings.PUB_IMAGE:
            raise SwarmError("There is no pub image: `make run` builds it, or set PUB_IMAGE.")
        if not bot.ssb_id:
            bot.ssb_id = swarm.connect().make_identity(bot.pk, placement.hub.node_id, settings.PUB_IMAGE)
            Bot.objects.filter(pk=bot.pk, ssb_id="").update(ssb_id=bot.ssb_id)
            live.changed(bot.pk)
        if swarm.connect().put_service(service_of(bot, placement)):
            Bot.objects.filter(pk=bot.pk).update(started_at=timezone.now())
        live.nudge()


@shared_task(name="orchestrator.ensure_pub_down")
def ensure_pub_down(bot_id: str) -> None:
    """The service goes, the volume stays."""
    with _claimed(UUID(bot_id)) as placement:
        if placement is None or placement.bot.is_wanted:
            return
        swarm.connect().remove_service(placement.bot_id)
        live.nudge()


@contextmanager
def _claimed(bot_id: UUID) -> Iterator[Placement | None]:
    """The bot's placement, with nobody else working on it, or None. After a refusal, whose words staff see, the bot is
    left in peace for a while.
    """
    now = timezone.now()
    after: dict[str, Any] = {"claimed_until": None, "trouble": ""}
    free = Placement.objects.filter(Q(claimed_until=None) | Q(claimed_until__lt=now), bot_id=bot_id)
    if not free.update(claimed_until=now + timedelta(seconds=CLAIM_SECONDS)):
        yield None
        return
    try:
        yield Placement.objects.select_related("bot", "hub").get(bot_id=bot_id)
    except SwarmError as error:
        log.error("bot %s: %s", bot_id, error)
        give_reason(bot_id, "Our machine could not do it just now. We try again by ourselves, and staff see why.")
        after = {"claimed_until": timezone.now() + timedelta(seconds=REST_SECONDS), "trouble": str(error)[:500]}
    finally:
        Placement.objects.filter(bot_id=bot_id).update(**after)


@shared_task(name="orchestrator.create_hub")
def create_hub(hub_id: int) -> None:
    hub = Hub.objects.get(pk=hub_id)
    try:
        machines.connect().create(hub.token, hub.name, lambda: "")
    except (MachineError, SwarmError) as error:
        log.error("%s: %s", hub, error)
        Hub.objects.filter(pk=hub_id).update(reason=str(error)[:500])
        return
    Hub.objects.filter(pk=hub_id, state=Hub.State.REQUESTED).update(state=Hub.State.BOOTING)
    live.nudge()


@shared_task(name="orchestrator.destroy_hub")
def destroy_hub(hub_id: int) -> None:
    """Only a hub that is marked for it and that no bot was placed on since."""
    hub = Hub.objects.filter(pk=hub_id, state=Hub.State.DESTROYING, placements=None).first()
    if hub is None:
        return
    try:
        machines.connect().destroy(hub.token)
    except MachineError as error:
        log.error("%s: %s", hub, error)
        Hub.objects.filter(pk=hub_id).update(state=Hub.State.READY, reason=str(error)[:500])
        return
    Hub.objects.filter(pk=hub_id).update(state=Hub.State.GONE)


@shared_task(name="orchestrator.run_command")
def run_command(command_id: str) -> None:
    relay.run(UUID(command_id))


@shared_task(name="orchestrator.sweep_commands")
def sweep_commands() -> None:
    relay.sweep()
