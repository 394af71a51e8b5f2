"""The outbox: a mail is a row before it is a mail, so that none is lost and none is sent for one cause twice."""

from django.db import models


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
    claimed_until = models.DateTimeField(null=True, blank=True, help_text="a worker is sending it until then at most")
    tries = models.PositiveSmallIntegerField(default=0)
    error = models.CharField(max_length=500, blank=True)
    sent_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created"]
        indexes = [models.Index(fields=["created"], condition=models.Q(sent_at=None), name="message_unsent")]

    def __str__(self) -> str:
        return f"{self.subject} → {self.to}"
