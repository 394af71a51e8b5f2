"""Where bots live: hubs and placements."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from django.db import models
from django.db.models import Q
from django.utils import timezone


class Hub(models.Model):
    """A machine in the swarm with room for pubs."""

    class State(models.TextChoices):
        REQUESTED = "requested"  # the row is there, the machine is not asked for yet
        BOOTING = "booting"  # the cloud has it, the swarm does not
        READY = "ready"
        DRAINING = "draining"
        DESTROYING = "destroying"
        GONE = "gone"
        FAILED = "failed"

    # The token marks machine and node as this hub's. It exists before the machine, so that none is ever unknown.
    token = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    name = models.CharField(max_length=64, unique=True)
    state = models.CharField(max_length=12, choices=State.choices, default=State.REQUESTED)
    places = models.PositiveSmallIntegerField(default=0, help_text="pubs of 1 GB that it holds")
    node_id = models.CharField(max_length=40, blank=True)
    address = models.CharField(max_length=255, blank=True, help_text="as the swarm sees it")
    reason = models.CharField(max_length=500, blank=True)
    created = models.DateTimeField(auto_now_add=True)
    seen_at = models.DateTimeField(null=True, blank=True, help_text="when the swarm last showed it ready")
    emptied_at = models.DateTimeField(null=True, blank=True, help_text="since when no bot is placed on it")

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.name


class Turn(models.Model):
    """Something that one process at a time does, whichever machine it runs on."""

    name = models.CharField(max_length=40, primary_key=True)
    until = models.DateTimeField(null=True, help_text="somebody has the turn until then at most")

    def __str__(self) -> str:
        return self.name


@contextmanager
def turn(name: str, seconds: int) -> Iterator[bool]:
    """Whether it is our turn. It ends with the block, or after `seconds` if the process was killed."""
    now = timezone.now()
    until = now + timedelta(seconds=seconds)
    Turn.objects.get_or_create(name=name)
    ours = Turn.objects.filter(Q(until=None) | Q(until__lt=now), name=name).update(until=until) == 1
    try:
        yield ours
    finally:
        if ours:
            Turn.objects.filter(name=name, until=until).update(until=None)


class Placement(models.Model):
    """On which hub a bot's volume lives, and its port: written before the swarm is asked for anything."""

    bot = models.OneToOneField("pubs.Bot", on_delete=models.PROTECT, related_name="placement")
    hub = models.ForeignKey(Hub, on_delete=models.PROTECT, related_name="placements")
    # Unique over the fleet, so that a move to another hub keeps the address.
    port = models.PositiveIntegerField(unique=True)
    created = models.DateTimeField(auto_now_add=True)
    claimed_until = models.DateTimeField(
        null=True, blank=True, help_text="a job works on it, or it rests after a refusal, until then at most"
    )
    trouble = models.CharField(max_length=500, blank=True, help_text="the last refusal, in Docker's words")

    def __str__(self) -> str:
        return f"{self.bot_id} on {self.hub_id}, port {self.port}"
