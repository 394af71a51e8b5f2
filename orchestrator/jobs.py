"""The jobs of the swarm queue. Each may run twice, in any order, and be killed anywhere: the next pass sees what is
left to do and asks again.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from typing import Any
from uuid import UUID

from celery import shared_task
from django.conf import settings
from django.core.cache import cache
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from orchestrator import checkups, crashes, dns, enrol, hubs, logs, relay, rollup, signs, swarm, tell, troubles
from orchestrator.machines import MachineError
from orchestrator.models import CARRYING, Claim, ClaimLost, Hub, Placement, turn
from orchestrator.reconcile import asked_key, queue, run_pass, service_of
from orchestrator.record import TROUBLE, give_reason, note_answers
from orchestrator.swarm import NotRunning, SwarmError
from orchestrator.world import ask_engines
from pubs import live
from pubs.models import Bot, Event, Status

log = logging.getLogger(__name__)

# What is worked on is claimed for so long, and claimed again while the work goes on; what outlives it was killed.
CLAIM_SECONDS = 60
# A pass costs some 25 ms, and the owner of a new pub waits for the next one.
SOON_SECONDS = 0.25
# After a refusal, until the next try; twice as long after each further one.
REST_SECONDS = 15
REST_MAX = 15 * 60
# An image or a volume may be large, and its way long.
COPY_SECONDS = 4 * 3600
PUBCTL_SECONDS = 25
# It gets 30 seconds to end by itself, and then Docker ends it.
STOPS_WITHIN = timedelta(minutes=2)
# Names that are as they were are looked at again after that.
NAMES_SECONDS = 60
WEEK = 7 * 24  # hours
NAMES_KEY = "orchestrator.names"

BROUGHT_UP_TO_DATE = "We brought it up to date."
MOVED = "It has all that it knows, and its address is the same."
RUNS_ON = "It was stopped, and still runs there or may do so: it is not moved before it has ended."


def job(name: str, **options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A task that a pass may ask for again once it has ended."""

    def task(work: Callable[..., None]) -> Callable[..., None]:
        @shared_task(name=name, **options)
        @wraps(work)
        def begin(*arguments: str | int) -> None:
            try:
                work(*arguments)
            finally:
                cache.delete(asked_key(name, *arguments))

        return begin

    return task


@shared_task(name="orchestrator.reconcile")
def reconcile() -> None:
    """One pass, unless another worker makes one: then one follows that sees what this one was asked for."""
    hurry = True
    with turn("pass", CLAIM_SECONDS) as ours:
        if ours:
            began = time.monotonic()
            try:
                done = run_pass()
                hurry = done.hurry
                signs.note_pass(time.monotonic() - began, len(done.world.bots), len(done.actions))
            except SwarmError as error:
                # Nothing was seen, so nothing is known and nothing is done. The clock asks again.
                log.error("no pass: %s", error)
                signs.note_failed_pass(str(error))
                hurry = False
            except Exception as error:
                # Staff see that passes fail, and the worker's log says where.
                signs.note_failed_pass(f"{type(error).__name__}: {error}")
                raise
    if hurry:
        _soon()


def _soon() -> None:
    """Ask for one more pass in a moment, however many ask."""
    # By the slot of time that it falls in, and not by a key that ends with it: Redis counts those in whole seconds.
    slot = int(time.time() / SOON_SECONDS)
    if cache.add(f"orchestrator.soon.{slot}", 1, CLAIM_SECONDS):
        reconcile.apply_async(countdown=SOON_SECONDS)


# --- pubs ------------------------------------------------------------------------------------------------------------
@job("orchestrator.ensure_pub_up", time_limit=COPY_SECONDS)
def ensure_pub_up(bot_id: str) -> None:
    """Image first, then the identity, stored before the service that bears it; then the service."""
    with _work_on(UUID(bot_id)) as work:
        if work is None or not work.bot.is_wanted or work.home.lost_at or work.home.moving_to_id:
            return
        if crashes.is_resting(work.bot, work.home):
            return
        bot, node_id = work.bot, work.home.hub.node_id
        if not settings.PUB_IMAGE:
            raise SwarmError("There is no pub image: `make run` builds it, or set PUB_IMAGE.")
        if not _have_image(node_id):
            return
        work.claim.renew()
        if not bot.ssb_id:
            bot.ssb_id = swarm.connect().make_identity(bot.pk, node_id, settings.PUB_IMAGE)
            Bot.objects.filter(pk=bot.pk, ssb_id="").update(ssb_id=bot.ssb_id)
            live.changed(bot.pk)
            work.claim.renew()
        if swarm.connect().put_service(service_of(bot, work.home)):
            _note_start(bot)
        work.is_done = True
        live.nudge()


def _note_start(bot: Bot) -> None:
    """A service that was there and is another one now restarts. If neither its owner's wish for it nor another size is
    written down yet, it is a newer image, host name or the like.
    """
    with transaction.atomic():
        if bot.status != Status.NONE:
            restarts = Event.objects.filter(bot=bot, kind=Event.Kind.RESTARTED)
            if not restarts.filter(at__gt=bot.started_at or bot.created).exists():
                Event.note(bot.pk, Event.Kind.RESTARTED, BROUGHT_UP_TO_DATE)
        Bot.objects.filter(pk=bot.pk).update(started_at=timezone.now())


def _have_image(node_id: str) -> bool:
    """The pub image is there now. It is large, so one worker brings it; for the others it is not there yet."""
    if swarm.connect().has_image(node_id, settings.PUB_IMAGE):
        return True
    with turn(hubs.image_turn_name(node_id), CLAIM_SECONDS) as ours:
        if ours:
            swarm.connect().have_image(node_id, settings.PUB_IMAGE)
        return ours


@job("orchestrator.ensure_pub_down")
def ensure_pub_down(bot_id: str) -> None:
    """The service goes, the volume stays. A start that was refused keeps no stop waiting."""
    with _work_on(UUID(bot_id), is_stop=True) as work:
        if work is None:
            return
        is_resting = crashes.is_resting(work.bot, work.home)
        if work.bot.is_wanted and not work.home.lost_at and not is_resting:
            return
        if is_resting:
            logs.keep_last(work.bot.pk)
        work.claim.renew()
        swarm.connect().remove_service(work.bot.pk)
        work.is_done = True
        live.nudge()


@job("orchestrator.move_pub", time_limit=COPY_SECONDS)
def move_pub(bot_id: str) -> None:
    """To another hub, with its volume: stopped here for certain, then copied, and only then at home there.

    Until the last line it lives where it lived, and whoever looks finds out how far it has come.
    """
    with _work_on(UUID(bot_id)) as work:
        if work is None or work.home.lost_at or work.home.moving_to is None:
            return
        bot, source, target = work.bot, work.home.hub, work.home.moving_to
        if not _have_image(target.node_id):
            return
        if bot.ssb_id:
            _note_feed_length(work.home)
            work.claim.renew()
            swarm.connect().remove_service(bot.pk)
            if not swarm.connect().is_stopped(bot.pk, source.node_id):
                if bot.status == Status.NONE and timezone.now() - bot.changed_at > STOPS_WITHIN:
                    raise SwarmError(RUNS_ON)
                return
            still_ours = work.claim.renew
            swarm.connect().copy_volume(bot.pk, source.node_id, target.node_id, settings.PUB_IMAGE, still_ours)
            if not swarm.connect().is_stopped(bot.pk, source.node_id):
                # Started meanwhile, by a worker that had stood still: the copy may lack what it has said since.
                return
        # Not if the move was called off meanwhile, or the source was fenced.
        with transaction.atomic():
            is_here = Q(hub=source, moving_to=target, lost_at=None)
            if work.claim.write(is_here, hub=target, moving_to=None):
                Event.note(bot.pk, Event.Kind.MOVED, MOVED, source=source.name, target=target.name)
        work.is_done = True
        live.nudge()


def _note_feed_length(home: Placement) -> None:
    """While it runs it can say how long its feed is. Where it is then started, it publishes nothing below that."""
    try:
        said = swarm.connect().run(swarm.service_name(home.bot_id), ["pubctl", "feed.head"], PUBCTL_SECONDS)
    except NotRunning:
        return
    try:
        sequence = int(json.loads(said.stdout)["result"]["sequence"])
    except (ValueError, KeyError, TypeError):
        # It is on its start, or broken. Its volume is moved as it is.
        log.warning("bot %s did not say how long its feed is: %s", home.bot_id, (said.stdout + said.stderr)[-300:])
        return
    Placement.objects.filter(pk=home.pk, min_seq__lt=sequence).update(min_seq=sequence)


@dataclass
class Work:
    """A bot with its home, and the claim under which nobody else works on it."""

    bot: Bot
    home: Placement
    claim: Claim
    # What was only looked at says nothing about what was refused before.
    is_done: bool = False


@contextmanager
def _work_on(bot_id: UUID, is_stop: bool = False) -> Iterator[Work | None]:
    """The bot, with nobody else working on it, or None. After a refusal, whose words staff see, it is left in peace for
    a while, longer each time; a stop only after a refused stop.
    """
    rows = Placement.objects.filter(bot=bot_id)
    stop_rests = f"orchestrator.stop_rests.{bot_id}"
    awake = Q() if is_stop else Q(rests_until=None) | Q(rests_until__lt=timezone.now())
    claim = Claim(rows, "claimed_until", timedelta(seconds=CLAIM_SECONDS))
    if (is_stop and cache.get(stop_rests)) or not claim.begin(awake):
        yield None
        return
    after: dict[str, Any] = {}
    home = rows.select_related("bot", "hub", "moving_to").get()
    try:
        with claim.kept():
            work = Work(home.bot, home, claim)
            yield work
        if work.is_done:
            after = {"rests_until": None, "refusals": 0, "trouble": ""}
    except ClaimLost as lost:
        log.error("bot %s: %s", bot_id, lost)
    except Exception as error:
        log.error("bot %s: %s", bot_id, error, exc_info=not isinstance(error, SwarmError))
        give_reason(bot_id, TROUBLE)
        rest = min(REST_MAX, REST_SECONDS * 2 ** min(home.refusals, 10))
        if is_stop:
            cache.set(stop_rests, 1, rest)
        until = timezone.now() + timedelta(seconds=rest)
        after = {"rests_until": until, "refusals": F("refusals") + 1, "trouble": str(error)[:500]}
    finally:
        claim.end(**after)


@job("orchestrator.tell_up")
def tell_up(bot_id: str) -> None:
    tell.first_up(UUID(bot_id))


# --- troubles --------------------------------------------------------------------------------------------------------
@shared_task(name="orchestrator.look_for_troubles")
def look_for_troubles() -> None:
    with turn("troubles", CLAIM_SECONDS) as ours:
        if ours:
            troubles.look(queue)
            tell.payments()


@job("orchestrator.tell_trouble")
def tell_trouble(trouble_id: int) -> None:
    tell.trouble(trouble_id)


# --- hubs ------------------------------------------------------------------------------------------------------------
@job("orchestrator.ensure_hub", time_limit=COPY_SECONDS)
def ensure_hub(hub_id: int) -> None:
    _alone(hubs.ensure, hub_id)


@job("orchestrator.destroy_hub")
def destroy_hub(hub_id: int) -> None:
    _alone(hubs.destroy, hub_id)


@job("orchestrator.fence_hub")
def fence_hub(hub_id: int) -> None:
    _alone(hubs.fence, hub_id)


def _alone(deed: Callable[[int], None], hub_id: int) -> None:
    with turn(hubs.turn_name(hub_id), CLAIM_SECONDS) as ours:
        if ours:
            deed(hub_id)


@shared_task(name="orchestrator.look_at_engines")
def look_at_engines() -> None:
    """Ask all engines whether they answer: the swarm's manager may see a node that we do not reach."""
    nodes = dict(Hub.objects.filter(state__in=CARRYING).exclude(node_id="").values_list("pk", "node_id"))
    try:
        note_answers(ask_engines(nodes), timezone.now())
        enrol.answer_requests()
        # Somebody may have set it otherwise, or made the swarm anew. Only what differs is written.
        swarm.connect().tune()
    except (SwarmError, MachineError) as error:
        log.error("no look at the engines: %s", error)
    for hub, end in enrol.expiring():
        tell.staff(hub.pk, f"The certificate of its engine ends on {end:%d %B %Y}: drain it before.", hours=WEEK)


@job("orchestrator.sync_names")
def sync_names() -> None:
    """A record a pub that leads to its hub: looked at after a change at once, and every minute."""
    homes = Placement.objects.filter(lost_at=None).values_list("label", "hub__public_address")
    wanted = {dns.host_of(label): address for label, address in homes}
    digest = swarm.digest_of(wanted)
    if cache.get(NAMES_KEY) == digest:
        return
    with turn("names", CLAIM_SECONDS) as ours:
        if not ours:
            return
        try:
            dns.sync(wanted)
        except dns.NamesError as error:
            tell.staff(None, f"The names of the pubs are not as they should be: {error}")
        else:
            cache.set(NAMES_KEY, digest, NAMES_SECONDS)


# --- figures ---------------------------------------------------------------------------------------------------------
@shared_task(name="orchestrator.roll_up")
def roll_up() -> None:
    with turn("roll up", CLAIM_SECONDS) as ours:
        if ours:
            rollup.run()


# --- checkups --------------------------------------------------------------------------------------------------------
@shared_task(name="orchestrator.check_pubs")
def check_pubs() -> None:
    """Try all from outside. Those that are to be asked about themselves are asked hub by hub, beside each other."""
    for hub_id in checkups.hubs_to_ask():
        ask_pubs.apply_async(args=(hub_id,), expires=CLAIM_SECONDS)
    checkups.try_due()


@shared_task(name="orchestrator.ask_pubs")
def ask_pubs(hub_id: int) -> None:
    checkups.ask_due(hub_id)


@shared_task(name="orchestrator.check_pub")
def check_pub(bot_id: str) -> None:
    checkups.look_at(UUID(bot_id))


# What it lacks when the clock sends it is added on the way.
@shared_task(name=signs.PULSE, typing=False)
def pulse(queue: str, sent: float) -> None:
    """Comes by the queue that it is about, and says how long that took."""
    signs.note_pulse(queue, sent)


@shared_task(name="orchestrator.read_logs")
def read_logs(bot_id: str, count: int) -> None:
    logs.remember(UUID(bot_id), count)


# --- commands --------------------------------------------------------------------------------------------------------
@shared_task(name="orchestrator.run_command")
def run_command(command_id: str) -> None:
    relay.run(UUID(command_id))


@shared_task(name="orchestrator.sweep_commands")
def sweep_commands() -> None:
    relay.sweep()
