"""What is known of a bot beside its row: figures over time, events, how it answers, and what is wrong with it."""

import secrets
from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import models, transaction
from django.utils import timezone

from mailer import hooks
from pubs.models.bots import Bot

# What a sample measures: each has a column for its mean, and two for its lowest and highest value.
METRICS = ("cpu", "memory", "rx_rate", "tx_rate", "read_rate", "write_rate", "pids", "disk")


class StatsSample(models.Model):
    """The figures of a bot over `step` seconds from `at` on: lowest, mean and highest of the samples in it.

    Units are those of `live.Stats`: percent of one core, bytes, bytes a second. A step in which nothing was seen has no
    row, so that a gap stays a gap.
    """

    id = models.BigAutoField(primary_key=True)
    bot = models.ForeignKey(Bot, on_delete=models.CASCADE, related_name="samples", db_index=False)
    step = models.PositiveIntegerField(help_text="seconds")
    at = models.DateTimeField(help_text="when the step begins: a multiple of its length since 1970")
    count = models.PositiveIntegerField(default=1, help_text="samples of the finest step that are in it")

    cpu_min = models.FloatField()
    cpu = models.FloatField()
    cpu_max = models.FloatField()
    memory_min = models.BigIntegerField()
    memory = models.FloatField()
    memory_max = models.BigIntegerField()
    rx_rate_min = models.FloatField()
    rx_rate = models.FloatField()
    rx_rate_max = models.FloatField()
    tx_rate_min = models.FloatField()
    tx_rate = models.FloatField()
    tx_rate_max = models.FloatField()
    read_rate_min = models.FloatField()
    read_rate = models.FloatField()
    read_rate_max = models.FloatField()
    write_rate_min = models.FloatField()
    write_rate = models.FloatField()
    write_rate_max = models.FloatField()
    pids_min = models.IntegerField()
    pids = models.FloatField()
    pids_max = models.IntegerField()
    # Of the whole volume. Unknown until the pub was first asked.
    disk_min = models.BigIntegerField(null=True)
    disk = models.FloatField(null=True)
    disk_max = models.BigIntegerField(null=True)

    class Meta:
        ordering = ["at"]
        constraints = [models.UniqueConstraint(fields=["bot", "step", "at"], name="one_sample_a_step")]
        indexes = [models.Index(fields=["step", "at"], name="sample_age")]

    def __str__(self) -> str:
        return f"{self.bot_id} {self.at:%Y-%m-%d %H:%M:%S} + {self.step} s"


class Event(models.Model):
    """Something that happened to a bot and is neither a change of its status nor of its payment."""

    class Kind(models.TextChoices):
        PLACED = "placed", "got its place on a machine"
        MOVED = "moved", "moved to another machine"
        RESTARTED = "restarted", "restarted"
        CRASHED = "crashed", "crashed"
        RESTS = "rests", "stopped after too many crashes"
        RESUMED = "resumed", "tried again after a rest"

    bot = models.ForeignKey(Bot, on_delete=models.CASCADE, related_name="events")
    kind = models.CharField(max_length=10, choices=Kind.choices)
    words = models.CharField(max_length=500, blank=True, help_text="more about it, for its owner")
    details = models.JSONField(default=dict, blank=True, help_text="such as exit_code and out_of_memory")
    key = models.CharField(max_length=100, null=True, blank=True, unique=True, help_text="written once for this cause")
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-at", "-id"]
        indexes = [
            models.Index(fields=["bot", "-at"], name="event_newest"),
            # For the look at each pass whether anything crashes again and again.
            models.Index(fields=["at"], condition=models.Q(kind="crashed"), name="event_crashes"),
        ]

    def __str__(self) -> str:
        return f"{self.bot_id}: {self.kind}"

    @classmethod
    def note(
        cls,
        bot_id: UUID,
        kind: str,
        words: str = "",
        *,
        key: str | None = None,
        at: datetime | None = None,
        **details: Any,
    ) -> bool:
        """Write it down. False if something with this key stands there already."""
        values = {"bot_id": bot_id, "kind": kind, "words": words[:500], "details": details, "at": at or timezone.now()}
        if key is None:
            cls.objects.create(**values)
            return True
        return cls.objects.get_or_create(key=key, defaults=values)[1]


class Checkup(models.Model):
    """What the newest looks at a pub found: from outside by a handshake, from inside by what it says of itself."""

    bot = models.OneToOneField(Bot, on_delete=models.CASCADE, primary_key=True, related_name="checkup")

    tried_at = models.DateTimeField(null=True, help_text="when we last tried to reach it as a peer does")
    reached_at = models.DateTimeField(null=True, help_text="when that last went well")
    handshake_ms = models.FloatField(null=True, help_text="how long the last good handshake took")
    unreached = models.CharField(max_length=500, blank=True, help_text="why the last try failed, in words")

    asked_at = models.DateTimeField(null=True, help_text="when it was last asked about itself")
    answered_at = models.DateTimeField(null=True, help_text="when it last answered")
    unanswered = models.CharField(max_length=500, blank=True, help_text="why it did not, in words")
    # From its last answer.
    sequence = models.PositiveBigIntegerField(null=True, help_text="length of its own feed")
    messages = models.PositiveBigIntegerField(null=True, help_text="messages that it holds of everybody")
    synced_at = models.DateTimeField(null=True, help_text="when the last message of somebody else came in")
    peers = models.PositiveIntegerField(null=True, help_text="connected now")
    followers = models.PositiveIntegerField(null=True, help_text="who follows it, as far as it knows")
    members = models.PositiveIntegerField(null=True, help_text="whom it follows")
    version = models.CharField(max_length=40, blank=True)
    restoring = models.BooleanField(default=False, help_text="it gets its own feed back, and publishes nothing before")
    disk = models.PositiveBigIntegerField(null=True, help_text="bytes of its whole volume")
    blobs = models.PositiveBigIntegerField(null=True, help_text="bytes of pictures and files, a part of `disk`")

    def __str__(self) -> str:
        return f"checkup of {self.bot_id}"


class Trouble(models.Model):
    """Something that is wrong with a bot, from its beginning to its end: one mail for each of both.

    One that soon comes back is the same one again. `told…` is what its owner knows of it, and is written by who mails
    it; all else by who looks for troubles.
    """

    class Kind(models.TextChoices):
        DOWN = "down", "it does not answer"
        UNKNOWN = "unknown", "its machine is out of sight"
        CRASH_LOOP = "crash_loop", "it crashes again and again"
        MEMORY = "memory", "its memory is nearly full"
        DISK = "disk", "its disk is nearly full"

    bot = models.ForeignKey(Bot, on_delete=models.CASCADE, related_name="troubles")
    kind = models.CharField(max_length=12, choices=Kind.choices)
    words = models.CharField(max_length=500, blank=True)
    level = models.PositiveSmallIntegerField(default=0, help_text="percent, where there are several warnings")
    began = models.DateTimeField()
    back_at = models.DateTimeField(help_text="when it last came back; at first, when it began")
    times = models.PositiveIntegerField(default=1, help_text="how often it came")
    last_at = models.DateTimeField(help_text="when it was last seen to be so")
    calm_since = models.DateTimeField(null=True, blank=True, help_text="since when it is no longer so")
    ended = models.DateTimeField(null=True, blank=True)
    told = models.BooleanField(default=False, help_text="its owner knows of it")
    told_level = models.PositiveSmallIntegerField(default=0, help_text="the level that its owner knows of")
    told_flaps = models.BooleanField(default=False, help_text="its owner knows that it comes and goes")

    class Meta:
        ordering = ["-began"]
        constraints = [
            models.UniqueConstraint(
                fields=["bot", "kind"], condition=models.Q(ended=None), name="one_open_trouble_a_kind"
            )
        ]
        # What a look reads: open, ended lately, or ended and its end not told yet.
        indexes = [
            models.Index(fields=["ended"], name="trouble_ended"),
            models.Index(fields=["bot"], condition=models.Q(told=True), name="trouble_told"),
        ]

    def __str__(self) -> str:
        return f"{self.bot_id}: {self.kind}"


def _secret() -> str:
    return secrets.token_urlsafe(24)


class Notices(models.Model):
    """What the owner of a bot wants to be told, and how. A bot without a row is as a new one."""

    PAYMENT = "payment"
    POSTED = (*Trouble.Kind.values, PAYMENT)

    bot = models.OneToOneField(Bot, on_delete=models.CASCADE, primary_key=True, related_name="notices")
    # Kinds of Trouble that no mail is wished about: what is new is told until somebody says no. Of what is posted,
    # changes of the payment are one more kind; mails about them always come, and are not sent from here.
    no_mail = models.JSONField(default=list, blank=True)
    no_hook = models.JSONField(default=list, blank=True)
    hook_url = models.URLField(max_length=500, blank=True, help_text="where what happens is posted to")
    hook_since = models.DateTimeField(null=True, blank=True, help_text="what happened before is not posted")
    hook_secret = models.CharField(max_length=64, default=_secret, help_text="signs what is posted")

    def __str__(self) -> str:
        return f"notices of {self.bot_id}"

    @property
    def mailed(self) -> list[str]:
        return [kind for kind in Trouble.Kind.values if kind not in self.no_mail]

    @property
    def posted(self) -> list[str]:
        return [kind for kind in self.POSTED if kind not in self.no_hook]

    # What an owner may do. Page and API call these.

    @classmethod
    def of(cls, bot: Bot) -> "Notices":
        return cls.objects.get_or_create(bot=bot)[0]

    def choose(self, mailed: Collection[str], posted: Collection[str]) -> None:
        """Mail about these kinds of trouble, post these kinds of news, and no other."""
        no_hook = [kind for kind in self.POSTED if kind not in posted]
        # Payments that changed while nobody wished to know are not posted afterwards.
        is_new = self.PAYMENT in self.no_hook and self.PAYMENT not in no_hook
        since = {"hook_since": timezone.now()} if is_new and self.hook_url else {}
        self._write(no_mail=[kind for kind in Trouble.Kind.values if kind not in mailed], no_hook=no_hook, **since)

    def post_to(self, url: str) -> None:
        """ValidationError when the address does not do. An empty one ends it."""
        if url:
            hooks.check_url(url)
        if url != self.hook_url:
            hooks.forget(str(self.bot_id))
            self._write(hook_url=url, hook_since=timezone.now() if url else None)

    def renew_secret(self) -> None:
        """What waits to be posted is signed with it too: nothing is lost."""
        with transaction.atomic():
            self._write(hook_secret=_secret())
            hooks.sign_anew(str(self.bot_id), self.hook_secret)

    def _write(self, **columns: Any) -> None:
        Notices.objects.filter(pk=self.pk).update(**columns)
        self.refresh_from_db(fields=list(columns))

    def post(self, key: str, event: str, *, kind: str, since: datetime, words: str) -> None:
        """Have it posted to the owner's address, signed, once for this key."""
        pub = {"id": str(self.bot_id), "name": self.bot.name, "url": settings.SITE_URL + self.bot.get_absolute_url()}
        moments = {"since": since.isoformat(), "at": timezone.now().isoformat()}
        body = {"id": key, "event": event, "kind": kind, "pub": pub, "words": words, **moments}
        about = str(self.bot_id)
        hooks.post(key=key, about=about, event=event, url=self.hook_url, secret=self.hook_secret, body=body)
