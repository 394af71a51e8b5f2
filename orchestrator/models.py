"""Where bots live: hubs and placements; and who may work on what just now."""

import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from django.db import Error, connections, models
from django.db.models import Q
from django.utils import timezone

log = logging.getLogger(__name__)


class HubQuerySet(models.QuerySet["Hub"]):
    def become(self, state: str, reason: str = "", **columns: Any) -> int:
        """Change the state of those that are still as they were filtered, with the deadline that the state has."""
        within = WITHIN.get(state)
        deadline = timezone.now() + within if within else None
        return self.update(**{"state": state, "reason": reason[:500], "deadline": deadline, **columns})


class Hub(models.Model):
    """A machine in the swarm with room for pubs. docs/hubs.md has its life: each state's deadline and what follows."""

    class State(models.TextChoices):
        REQUESTED = "requested"  # the row is there; the cloud has not yet said that it makes the machine
        BOOTING = "booting"  # the cloud has it; the swarm does not, or its engine does not answer yet
        READY = "ready"
        DRAINING = "draining"  # its bots move to other hubs; then it is destroyed
        DESTROYING = "destroying"
        GONE = "gone"
        FAILED = "failed"  # given up, or a stranger in quarantine; destroyed when its deadline passes

    # The token marks machine and node as this hub's. It exists before the machine, so that none is ever unknown.
    token = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    name = models.CharField(max_length=64, unique=True)
    state = models.CharField(max_length=12, choices=State.choices, default=State.REQUESTED)
    deadline = models.DateTimeField(null=True, blank=True, help_text="when the state has taken too long")
    reason = models.CharField(max_length=500, blank=True, help_text="why it is so, or what is wrong, for staff")
    places = models.PositiveSmallIntegerField(default=0, help_text="pubs of 1 GB that it holds")
    node_id = models.CharField(max_length=40, blank=True)
    address = models.CharField(max_length=255, blank=True, help_text="on the private network, as the swarm sees it")
    public_address = models.CharField(max_length=255, blank=True, help_text="where peers reach its pubs")
    created = models.DateTimeField(auto_now_add=True)
    seen_at = models.DateTimeField(null=True, blank=True, help_text="when the swarm last showed its node ready")
    answered_at = models.DateTimeField(null=True, blank=True, help_text="when its engine last answered")
    lost_at = models.DateTimeField(null=True, blank=True, help_text="since when nothing is known about it")
    fenced_at = models.DateTimeField(
        null=True, blank=True, help_text="since when its machine is known to be off for good"
    )
    # Then it holds only as long as the cloud does not list the machine again.
    fenced_by_cloud = models.BooleanField(default=False, help_text="fenced by the cloud's word, not by a person's")
    emptied_at = models.DateTimeField(null=True, blank=True, help_text="since when no bot is placed on it")
    told_at = models.DateTimeField(null=True, blank=True, help_text="when staff were told of its loss")
    failed_at = models.DateTimeField(null=True, blank=True, help_text="when the cloud failed to give us this machine")
    # Broadcasters divide the hubs among them, so that nothing is streamed or sampled twice.
    watched_by = models.ForeignKey("Broadcaster", on_delete=models.SET_NULL, null=True, blank=True, related_name="hubs")
    watched_until = models.DateTimeField(null=True, blank=True, help_text="nobody else watches it before")

    objects = HubQuerySet.as_manager()

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.name


class Broadcaster(models.Model):
    """A process that watches hubs: it samples their pubs, and streams to those who look."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    host = models.CharField(max_length=255, blank=True)
    started_at = models.DateTimeField(auto_now_add=True)
    seen_at = models.DateTimeField(help_text="its last sign of life")
    streams = models.PositiveIntegerField(default=0, help_text="streams of stats and logs that it holds open")

    def __str__(self) -> str:
        return f"broadcaster on {self.host}"


# How long a hub may stay in a state. docs/hubs.md says what follows then.
WITHIN: dict[str, timedelta] = {
    Hub.State.REQUESTED: timedelta(minutes=10),
    Hub.State.BOOTING: timedelta(minutes=15),
    Hub.State.DRAINING: timedelta(hours=6),
    Hub.State.DESTROYING: timedelta(minutes=15),
}
COMING = (Hub.State.REQUESTED, Hub.State.BOOTING)
# Pubs may run there, so that losing it means something.
CARRYING = (Hub.State.READY, Hub.State.DRAINING)


class Enrolment(models.Model):
    """A fresh machine's way into the swarm: its request for a certificate, and for a few minutes our answer.

    The web process writes the request, a worker the answer; so the web process needs neither the key of our
    certificate authority nor the swarm.
    """

    hub = models.OneToOneField(Hub, on_delete=models.CASCADE, related_name="enrolment")
    until = models.DateTimeField(help_text="the invitation is void after that")
    request = models.TextField(blank=True, help_text="the machine's certificate request (PEM)")
    answer = models.JSONField(
        null=True, blank=True, help_text="certificate, join token, managers; emptied after the join"
    )
    joined_at = models.DateTimeField(null=True, blank=True)
    report = models.TextField(blank=True, help_text="the end of the machine's own log, when it could not join")

    def __str__(self) -> str:
        return f"enrolment of {self.hub_id}"


class Turn(models.Model):
    """Something that one process at a time does, whichever machine it runs on."""

    name = models.CharField(max_length=40, primary_key=True)
    until = models.DateTimeField(null=True, help_text="somebody has the turn until then at most")

    def __str__(self) -> str:
        return self.name


@contextmanager
def turn(name: str, seconds: int) -> Iterator[bool]:
    """Whether it is our turn. It ends with the block, or after `seconds` if the process was killed."""
    Turn.objects.get_or_create(name=name)
    claim = Claim(Turn.objects.filter(name=name), "until", timedelta(seconds=seconds))
    if not claim.begin():
        yield False
        return
    try:
        with claim.kept():
            yield True
    finally:
        claim.end()


ANY = Q()


class ClaimLost(Exception):
    """It ran out, as for a process that stood still, and somebody else works there now."""


class Claim:
    """Rows that nobody else works on for `length` at most, unless it is renewed."""

    def __init__(self, rows: models.QuerySet[Any], column: str, length: timedelta) -> None:
        self.rows, self.column, self.length = rows, column, length
        # Until when it is ours. More than one after a renewal to which the database's answer never came.
        self._untils: set[datetime] = set()
        # The keeper renews it while the work asks whether it is still ours.
        self._lock = threading.RLock()

    def begin(self, only: Q = ANY) -> bool:
        now = timezone.now()
        free = self.rows.filter(only, Q(**{self.column: None}) | Q(**{f"{self.column}__lt": now}))
        self._untils = {now + self.length}
        return bool(free.update(**{self.column: now + self.length}))

    def write(self, only: Q = ANY, /, **columns: Any) -> int:
        """Change the rows, unless the claim was lost: after it has run out they may be somebody else's."""
        with self._lock:
            return self.rows.filter(only, **{f"{self.column}__in": self._untils}).update(**columns)

    def renew(self) -> None:
        """From now on it holds for its whole length; ClaimLost if it is somebody else's."""
        with self._lock:
            until = timezone.now() + self.length
            self._untils.add(until)
            if not self.write(**{self.column: until}):
                raise ClaimLost("The claim ran out, and somebody else works on it now.")
            self._untils = {until}

    def end(self, **columns: Any) -> None:
        self.write(**{self.column: None, **columns})

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renew it while the block works: so it ends soon after a kill, and never before the work does."""
        done = threading.Event()
        keeper = threading.Thread(target=self._keep, args=[done], daemon=True)
        keeper.start()
        try:
            yield
        finally:
            done.set()
            keeper.join()

    def _keep(self, done: threading.Event) -> None:
        pause = self.length.total_seconds() / 3
        try:
            while not done.wait(pause):
                pause = self.length.total_seconds() / 3
                try:
                    self.renew()
                except Error:
                    # A database that restarts is back before the claim runs out, on another connection.
                    log.exception("a claim could not be renewed")
                    connections.close_all()
                    pause /= 5
        except ClaimLost as lost:
            # Whoever works finds out before the next thing that is done.
            log.error("%s: %s", self.rows.model.__name__, lost)
        finally:
            connections.close_all()


class Placement(models.Model):
    """On which hub a bot's volume lives, and its port: written before the swarm is asked for anything."""

    bot = models.OneToOneField("pubs.Bot", on_delete=models.PROTECT, related_name="placement")
    hub = models.ForeignKey(Hub, on_delete=models.PROTECT, related_name="placements")
    # Port and label are the bot's for life and unique over the fleet, so that a move to another hub keeps its address.
    port = models.PositiveIntegerField(unique=True)
    label = models.CharField(max_length=63, unique=True, help_text="its name under PUB_DOMAIN")
    places = models.PositiveSmallIntegerField(default=1, help_text="places of 1 GB that it holds on its hub")
    moving_to = models.ForeignKey(Hub, on_delete=models.PROTECT, null=True, blank=True, related_name="arrivals")
    lost_at = models.DateTimeField(
        null=True, blank=True, help_text="since when its volume is known to be lost with its hub"
    )
    stays_until = models.DateTimeField(
        null=True, blank=True, help_text="its move was refused too often, and is not tried before"
    )
    min_seq = models.PositiveBigIntegerField(
        default=0, help_text="length that its feed had before a move: nothing is published below it"
    )
    created = models.DateTimeField(auto_now_add=True)
    claimed_until = models.DateTimeField(null=True, blank=True, help_text="a job works on it until then at most")
    rests_until = models.DateTimeField(null=True, blank=True, help_text="it was refused, and is tried again then")
    refusals = models.PositiveSmallIntegerField(default=0, help_text="in a row; each makes the rest longer")
    trouble = models.CharField(max_length=500, blank=True, help_text="the last refusal, in Docker's words")
    crash_rest_until = models.DateTimeField(
        null=True, blank=True, help_text="it crashed too often, and is not started before"
    )
    crash_rests = models.PositiveSmallIntegerField(default=0, help_text="in a row; each is longer")
    crash_restarts = models.PositiveIntegerField(
        default=0, help_text="its owner's restarts when the rest began: one more ends it"
    )
    crash_rested_at = models.DateTimeField(
        null=True, blank=True, help_text="when its last rest ended: what crashed before counts no more"
    )

    def __str__(self) -> str:
        return f"{self.bot_id} on {self.hub_id}, port {self.port}"
