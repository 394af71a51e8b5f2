"""The outbox: what we send is a row before it is sent, so that nothing is lost, nor sent for one cause twice."""

from datetime import datetime, timedelta
from typing import Any, Self

from django.db import models

# With the waits between them this is about two days; after that only staff can help.
TRIES_MAX = 12
# A code is good for a quarter of an hour; an hour later nobody waits for it any more.
FORGET_AFTER = timedelta(hours=1)


class OutgoingQuerySet(models.QuerySet[Any]):
    def due(self, now: datetime) -> Self:
        """Those that may be sent now: unsent, not in other hands, not waiting for their next try, not given up."""
        free = models.Q(claimed_until=None) | models.Q(claimed_until__lte=now)
        return self.filter(free, sent_at=None, tries__lt=TRIES_MAX)


class Outgoing(models.Model):
    """What every row of the outbox has, so that jobs.py can claim it, try it, and try it again."""

    # What it is about, like "pub_is_up:42". Asking twice for the same one makes one row.
    key = models.CharField(max_length=200, unique=True)
    created = models.DateTimeField(auto_now_add=True)
    claimed_until = models.DateTimeField(
        null=True, blank=True, help_text="nobody sends it before: a worker has it, or it waits for its next try"
    )
    tries = models.PositiveSmallIntegerField(default=0)
    error = models.CharField(max_length=500, blank=True)
    sent_at = models.DateTimeField(null=True, blank=True)

    objects = OutgoingQuerySet.as_manager()

    class Meta:
        abstract = True
        ordering = ["-created"]
        indexes = [models.Index(fields=["created"], condition=models.Q(sent_at=None), name="%(class)s_unsent")]


class Message(Outgoing):
    """A mail."""

    to = models.EmailField()
    subject = models.CharField(max_length=200)
    text = models.TextField()
    html = models.TextField(blank=True)
    # A sign-in code has no business in a database once it is sent.
    forget = models.BooleanField(default=False, help_text="its text is deleted once it is sent")

    def __str__(self) -> str:
        return f"{self.subject} → {self.to}"


class Hook(Outgoing):
    """News that is posted to an address of somebody's own: a webhook."""

    about = models.CharField(max_length=40, help_text="what it belongs to, like a pub's id")
    event = models.CharField(max_length=40)
    url = models.CharField(max_length=500)
    secret = models.CharField(max_length=64, help_text="signs it; deleted once it is sent")
    body = models.TextField(help_text="JSON, just as it is signed and sent")

    class Meta(Outgoing.Meta):
        indexes = [*Outgoing.Meta.indexes, models.Index(fields=["about", "-created"], name="hook_newest")]

    def __str__(self) -> str:
        return f"{self.event} → {self.url}"

    @property
    def is_given_up(self) -> bool:
        return self.sent_at is None and self.tries >= TRIES_MAX
