from collections.abc import Callable

import pytest
from django.conf import settings as django_settings

from mailer import messages
from mailer.models import Message

LOCMEM = "django.core.mail.backends.locmem.EmailBackend"


@pytest.fixture(autouse=True)
def mail_in_memory(settings: django_settings) -> None:
    settings.EMAIL_BACKEND = LOCMEM
    settings.DEFAULT_FROM_EMAIL = "buttcloud <hello@pubs.example>"


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ids of the mails that were queued: the broker of these tests."""
    ids: list[int] = []
    monkeypatch.setattr("mailer.messages._queue", ids.append)
    monkeypatch.setattr("mailer.jobs.send.apply_async", lambda args, **options: ids.append(args[0]))
    return ids


@pytest.fixture
def posted(db: None, queued: list[int]) -> Callable[..., Message]:
    def post(**fields: object) -> Message:
        values = {"key": "k:1", "to": "ada@customer.example", "subject": "Hello", "text": "Hi.", "html": "<p>Hi.</p>"}
        messages.post(**values | fields)
        return Message.objects.latest("pk")

    return post
