"""The outbox: a mail is a row before it is a mail, so that none is lost and none is sent for one cause twice."""

from datetime import datetime, timedelta
from typing import Self

from django.db import models

# With the waits between them this is about two days; after that only staff can help.
TRIES_MAX = 12
# A code is good for a quarter of an hour; an hour later nobody waits for it any more.
FORGET_AFTER = timedelta(hours=1)


class MessageQuerySet(models.QuerySet["Message"]):
    def due(self, now: datetime) -> Self:
        """Those that may be sent now: unsent, not in other hands, not waiting for their next try, not given up."""
        free = models.Q(claimed_until=None) | models.Q(claimed_until__lte=now)
        return self.filter(free, sent_at=None, tries__lt=TRIES_MAX)


class Message(models.Model):
    # What the mail is about, like "pub_is_up:42". Asking twice for the same one makes one mail.
    key = models.CharField(max_length=200, unique=True)
    to = models.EmailField()
    subject = models.CharField(max_length=200)
    text = models.TextField()
    html = models.TextField(blank=True)
    # A sign-in code has no business in a database once it is sent.
    forget = models.BooleanField(default=False, help_text="its text is deleted once it is sent")
    created = models.DateTimeField(auto_now_add=True)
    claimed_until = models.DateTimeField(
        null=True, blank=True, help_text="nobody sends it before: a worker has it, or it waits for its next try"
    )
    tries = models.PositiveSmallIntegerField(default=0)
    error = models.CharField(max_length=500, blank=True)
    sent_at = models.DateTimeField(null=True, blank=True)

    objects = MessageQuerySet.as_manager()

    class Meta:
        ordering = ["-created"]
        indexes = [models.Index(fields=["created"], condition=models.Q(sent_at=None), name="message_unsent")]

    def __str__(self) -> str:
        return f"{self.subject} → {self.to}"
