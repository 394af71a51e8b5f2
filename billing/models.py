"""What comparing ourselves with Stripe found."""

from django.db import models


class Sweep(models.Model):
    """A comparison with Stripe: of what happened there lately, or of all that is paid for.

    The newest one of events tells how far they were read; the next run goes on from there. A run that finds nothing
    leaves no row of its own: it moves that one on.
    """

    class Kind(models.TextChoices):
        EVENTS = "events", "what happened lately"
        ALL = "all", "all subscriptions"

    kind = models.CharField(max_length=10, choices=Kind.choices)
    started = models.DateTimeField(db_index=True)
    finished = models.DateTimeField(null=True, blank=True, help_text="nothing here: it broke off, or is on its way")
    read_until = models.DateTimeField(null=True, blank=True, help_text="what happened until then is in it")
    cursor = models.CharField(max_length=255, blank=True, help_text="Stripe's id of the event that was read last")
    looked = models.PositiveIntegerField(default=0, help_text="how many subscriptions or events were read")
    differences = models.PositiveIntegerField(default=0, help_text="how many were not as we held them")
    words = models.TextField(blank=True, help_text="what they were")

    class Meta:
        ordering = ["-started", "-id"]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}, {self.started:%Y-%m-%d %H:%M} UTC"
