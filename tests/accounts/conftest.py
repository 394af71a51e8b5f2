"""A visitor with a browser, and the mails that reach them."""

import re
from collections.abc import Callable

import pytest
from django.conf import settings
from django.test import Client

from accounts.models import User
from mailer import jobs
from mailer.models import Message

PASSWORD = "a long enough secret"
CODE = re.compile(r"^([A-Z]{4}-[A-Z]{4})$", re.MULTILINE)


@pytest.fixture(autouse=True)
def no_worker(monkeypatch: pytest.MonkeyPatch, settings: settings) -> None:
    """Mails stay in the outbox, where the tests read them; no broker is asked."""
    monkeypatch.setattr("mailer.messages._queue", lambda message_id: None)
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"


@pytest.fixture
def alice(db: None) -> User:
    """Somebody with a confirmed address and no password."""
    user = User.objects.create_user("alice@customer.example", name="Alice")
    user.emailaddress_set.create(email=user.email, verified=True, primary=True)
    return user


@pytest.fixture
def with_password(alice: User) -> User:
    alice.set_password(PASSWORD)
    alice.save()
    return alice


@pytest.fixture
def signed_in(client: Client, alice: User) -> Client:
    client.force_login(alice)
    return client


@pytest.fixture
def code_for(db: None) -> Callable[[str], str]:
    """The newest code mailed to an address."""

    def newest(email: str) -> str:
        text = Message.objects.filter(to=email, forget=True).order_by("-pk")[0].text
        found = CODE.search(text)
        assert found, text
        return found[1]

    return newest


def send_all() -> None:
    for pk in Message.objects.filter(sent_at=None).values_list("pk", flat=True):
        jobs.send(pk)
