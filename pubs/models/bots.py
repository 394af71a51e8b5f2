"""Bots, how their status and payment changed, and what was asked of them.

Each column has one writer. Owner: name, switched_on, restarts, status_public, deleted_at. Billing: all from `paid` to
`memory_gb`. Orchestrator: status and all that is observed.
"""

import unicodedata
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from django.conf import settings
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import IntegrityError, models, transaction
from django.db.models.functions import Now
from django.urls import reverse
from django.utils import timezone

from accounts.names import check_characters
from pubs import live

if TYPE_CHECKING:
    from accounts.models import User

NAME_MAX = 64
WAITS_FOR_RESTORE = "The machine that it lived on is lost. Until we have restored it, it can't be started or stopped."
NAME_TAKEN = "You already have a pub with this name. Choose another one."


def tidy_name(name: str) -> str:
    """The name as it is kept: composed (NFC) and without space around it."""
    return unicodedata.normalize("NFC", name).strip()


def check_name(name: str) -> None:
    if not 1 <= len(name) <= NAME_MAX:
        raise ValidationError(f"A name has 1 to {NAME_MAX} characters.")
    check_characters(name)
    if not any(unicodedata.category(character)[0] in "LNPS" for character in name):
        raise ValidationError("A name needs at least one visible character.")


@contextmanager
def name_clash_explained() -> Iterator[None]:
    """The database has the last word when two requests take one name at once; its refusal reads like the form's."""
    try:
        with transaction.atomic():
            yield
    except IntegrityError as error:
        raise ValidationError({"name": NAME_TAKEN}) from error


class Status(models.TextChoices):
    """What is seen of a bot in the swarm."""

    NONE = "none", "not running"  # no service exists
    DOWN = "down", "not answering"  # a service exists, but does not answer
    UP = "up", "up"  # healthy


class Rung(models.TextChoices):
    """How it stands with the payment of a bot: a rung of the ladder, which billing/ladder.py describes."""

    NEW = "new", "waits for its first payment"
    PAID = "paid", "paid"
    ENDING = "ending", "cancelled, runs to the end of its period"
    COMPED = "comped", "comped by staff"
    GRACE = "grace", "payment failed, runs on"
    SUSPENDED = "suspended", "stopped until it is paid"
    KEPT = "kept", "ended, and kept"
    OVER = "over", "ended, and no longer kept"


@dataclass(frozen=True)
class Step:
    """One line of the way from a name to a running pub."""

    name: str
    done: bool
    current: bool


class BotQuerySet(models.QuerySet["Bot"]):
    def alive(self) -> Self:
        return self.filter(deleted_at=None)

    def wanted(self) -> Self:
        """Those that should be running: paid, switched on by their owner, not deleted."""
        return self.alive().filter(paid=True, switched_on=True)

    def create_named(self, owner: "User", name: str) -> "Bot":
        """A new bot of this owner. ValidationError when the name does not do."""
        bot = self.model(owner=owner, name=tidy_name(name))
        bot.full_clean()
        with name_clash_explained():
            bot.save(force_insert=True)
        return bot


class Bot(models.Model):
    """A Scuttlebutt identity that somebody owns and pays for; customers say "my pub"."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="bots")
    name = models.CharField(max_length=NAME_MAX, validators=[check_name])
    created = models.DateTimeField(auto_now_add=True)

    switched_on = models.BooleanField(default=True, help_text="what the owner wishes")
    restarts = models.PositiveIntegerField(default=0, help_text="one more is the owner's wish for a restart")
    deleted_at = models.DateTimeField(null=True, blank=True)

    paid = models.BooleanField(default=False, help_text="whether it may run")
    rung = models.CharField(max_length=10, choices=Rung.choices, default=Rung.NEW, db_index=True)
    runs_until = models.DateTimeField(null=True, blank=True, help_text="it stops then, unless something happens")
    kept_until = models.DateTimeField(null=True, blank=True, help_text="its data is kept at least until then")
    paid_status = models.CharField(max_length=30, blank=True, help_text="Stripe's word for the subscription")
    paid_until = models.DateTimeField(null=True, blank=True, help_text="end of the paid period")
    paid_ends = models.BooleanField(default=False, help_text="cancelled: runs to the end of the paid period")
    paid_seen_at = models.DateTimeField(null=True, blank=True, help_text="when Stripe was last read")
    subscription_id = models.CharField(max_length=255, blank=True, db_index=True)
    price_id = models.CharField(max_length=255, blank=True, help_text="Stripe's id of what is paid for")
    unpaid_since = models.DateTimeField(null=True, blank=True, help_text="since when it owes, or owed at its end")
    retry_at = models.DateTimeField(null=True, blank=True, help_text="when Stripe tries the card again")
    asked_at = models.DateTimeField(null=True, blank=True, help_text="when its owner last opened the payment page")
    comped_until = models.DateTimeField(null=True, blank=True, help_text="staff let it run until then, paid or not")
    grace_until = models.DateTimeField(null=True, blank=True, help_text="staff extended the time of grace until then")
    due_at = models.DateTimeField(null=True, blank=True, db_index=True, help_text="when billing looks at it again")
    told_payment = models.CharField(max_length=40, blank=True, help_text="what its owner was last mailed about it")
    memory_gb = models.PositiveSmallIntegerField(
        "memory", default=1, choices=[(1, "1 GB"), (2, "2 GB"), (4, "4 GB")], help_text="the size that is paid for"
    )

    status = models.CharField(max_length=10, choices=Status.choices, default=Status.NONE)
    seen_at = models.DateTimeField(null=True, blank=True, help_text="when the swarm was last seen")
    unknown_since = models.DateTimeField(
        null=True, blank=True, help_text="since when its hub is out of sight, so that nothing is known about it"
    )
    lost_at = models.DateTimeField(
        null=True, blank=True, help_text="since when its hub is lost for good, so that it waits for a restore"
    )
    moving = models.BooleanField(default=False, help_text="on its way to another hub")
    rests_until = models.DateTimeField(
        null=True, blank=True, help_text="it crashed too often, and is not started again before"
    )
    changed_at = models.DateTimeField(auto_now_add=True, help_text="when the status last changed")
    started_at = models.DateTimeField(null=True, blank=True, help_text="when its service was last started or changed")
    reason = models.CharField(max_length=500, blank=True, help_text="why it is not up, in the owner's words")
    address = models.CharField(max_length=255, blank=True, help_text="host:port that peers reach")
    ssb_id = models.CharField("Scuttlebutt id", max_length=60, blank=True)
    told_up = models.BooleanField(default=False, help_text="its owner was told that it came up for the first time")
    wanted_since = models.DateTimeField(null=True, blank=True, help_text="since when it should run, as passes saw it")

    status_public = models.BooleanField(default=False, help_text="whether anybody may see how it is: the owner's wish")

    objects = BotQuerySet.as_manager()

    class Meta:
        ordering = ["created"]
        constraints = [
            models.UniqueConstraint(
                fields=["owner", "name"], condition=models.Q(deleted_at=None), name="one_bot_a_name_and_owner"
            ),
            # The same identity twice would fork its feed for ever.
            models.UniqueConstraint(fields=["ssb_id"], condition=~models.Q(ssb_id=""), name="one_bot_an_identity"),
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("pubs:pub", args=[self.pk])

    def clean(self) -> None:
        self.name = tidy_name(self.name)
        namesakes = Bot.objects.alive().filter(owner_id=self.owner_id, name=self.name).exclude(pk=self.pk)
        if self.deleted_at is None and namesakes.exists():
            raise ValidationError({"name": NAME_TAKEN})

    @property
    def is_wanted(self) -> bool:
        return self.paid and self.switched_on and self.deleted_at is None

    def steps(self) -> list[Step]:
        """The way to a running pub; the first one that is not done is the current one."""
        done = {
            "Named": True,
            "Paid": self.paid,
            "Room found": bool(self.address),
            "Identity made": bool(self.ssb_id),
            "Started": self.status != Status.NONE,
            "Answering": self.status == Status.UP,
        }
        missing = next((name for name, is_done in done.items() if not is_done), None)
        return [Step(name, is_done, name == missing) for name, is_done in done.items()]

    # What an owner may do. Pages and API call these; each writes only its own columns.

    def rename(self, name: str) -> None:
        """ValidationError when the name does not do; the row then keeps its old one."""
        old, self.name = self.name, tidy_name(name)
        try:
            self.full_clean()
            with name_clash_explained():
                self._write(name=self.name)
        except ValidationError:
            self.name = old
            raise

    def start(self) -> None:
        self._wish(switched_on=True)

    def stop(self) -> None:
        self._wish(switched_on=False)

    def restart(self) -> None:
        from pubs.models.monitoring import Event  # it knows bots

        with transaction.atomic():
            self._wish(restarts=models.F("restarts") + 1)
            # What does not run is started, or waits.
            if self.is_wanted and self.status != Status.NONE:
                Event.note(self.pk, Event.Kind.RESTARTED, "You asked for it.")

    def _wish(self, **columns: Any) -> None:
        """ValidationError while nothing can be done about it."""
        if self.lost_at:
            raise ValidationError({NON_FIELD_ERRORS: WAITS_FOR_RESTORE})
        self._write(**columns)

    def show_status(self, to_all: bool) -> None:
        """Whether anybody may see how it is."""
        Bot.objects.alive().filter(pk=self.pk).update(status_public=to_all)
        self.status_public = to_all

    def delete_softly(self) -> None:
        """It stops and is no longer shown; its volume is kept, and billing ends its subscription."""
        self._write(deleted_at=timezone.now())
        live.look_at_payment(self.pk)

    def ask(self, by: "User | None", name: str, args: dict[str, Any]) -> "Command":
        """Have a worker run a command after commit. `catalogue.ask` has checked the arguments by then."""
        command: Command = self.commands.create(by=by, name=name, args=args)
        live.ask(command.pk)
        return command

    def _write(self, **columns: Any) -> None:
        Bot.objects.alive().filter(pk=self.pk).update(**columns)
        self.refresh_from_db(fields=list(columns))
        live.changed(self.pk)
        live.nudge()


class StatusChange(models.Model):
    """A status that became another one: the pub's history."""

    bot = models.ForeignKey(Bot, on_delete=models.CASCADE, related_name="status_changes")
    old = models.CharField(max_length=10, choices=Status.choices)
    new = models.CharField(max_length=10, choices=Status.choices)
    reason = models.CharField(max_length=500, blank=True)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-at", "-id"]

    def __str__(self) -> str:
        return f"{self.bot_id}: {self.old} → {self.new}"


class PaymentChange(models.Model):
    """Something that happened with the payment of a bot: a rung that became another one, money given back, a deed of
    staff. `words` are for owner and staff alike; what staff alone should read has no place here.
    """

    bot = models.ForeignKey(Bot, on_delete=models.CASCADE, related_name="payment_changes")
    old = models.CharField(max_length=10, choices=Rung.choices)
    new = models.CharField(max_length=10, choices=Rung.choices)
    words = models.CharField(max_length=500, blank=True)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    key = models.CharField(
        max_length=255, null=True, blank=True, unique=True, help_text="written once for this, such as a refund's id"
    )
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-at", "-id"]

    def __str__(self) -> str:
        return f"{self.bot_id}: {self.old} → {self.new}"


class Command(models.Model):
    """Something asked of a pub, and its answer. It runs once at most: whoever sets queued to running may run it."""

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"
        REFUSED = "refused"
        TIMED_OUT = "timed_out", "timed out"
        LOST = "lost"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    bot = models.ForeignKey(Bot, on_delete=models.CASCADE, related_name="commands")
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="commands")
    name = models.CharField(max_length=40)
    args = models.JSONField(default=dict, blank=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    result = models.JSONField(null=True, blank=True)
    error = models.CharField(max_length=1000, blank=True)
    created = models.DateTimeField(db_default=Now())
    started = models.DateTimeField(null=True, blank=True)
    finished = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created"]
        indexes = [
            models.Index(fields=["bot", "-created"], name="command_newest"),
            models.Index(
                fields=["created"],
                condition=models.Q(state__in=["queued", "running"]),
                name="command_unfinished",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.state})"

    @property
    def is_finished(self) -> bool:
        return self.state not in (self.State.QUEUED, self.State.RUNNING)
