"""A local Stripe over real HTTP, and what a customer does with it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from billing import gateway
from pubs.models import Bot
from tests.support.local_stripe import RunningLocalStripe
from tests.support.make import Maker
from tests.support.site import RunningSite, running_worker


@pytest.fixture
def stripe(db: None, settings: Settings) -> Iterator[RunningLocalStripe]:
    """An empty local Stripe that the whole code talks to, with our catalogue."""
    with RunningLocalStripe() as running:
        settings.STRIPE_API_HOST = running.url
        gateway.connect()
        gateway.set_up_catalogue()
        yield running


@pytest.fixture
def site(transactional_db: None, stripe: RunningLocalStripe) -> Iterator[RunningSite]:
    """The site with its worker, to which Stripe sends its webhooks."""
    with RunningSite() as running, running_worker("default"):
        gateway.ensure_webhook_endpoint()
        yield running
        stripe.settle()


@pytest.fixture
def one_clock(stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our clock goes with Stripe's: `stripe.advance` lets both live through the same days."""
    real = timezone.now
    monkeypatch.setattr(timezone, "now", lambda: real() + timedelta(seconds=stripe.app.store.clock_offset))


@dataclass
class Customer:
    """Somebody signed in, with one pub, at the site and at Stripe's pages."""

    stripe: RunningLocalStripe
    bot: Bot
    browser: Client

    def press_pay(self) -> HttpResponse:
        return self.browser.post(reverse("billing:checkout", args=[self.bot.pk]))

    def open_checkout(self) -> str:
        """The address of the payment page."""
        answer = self.press_pay()
        assert answer.status_code == 303, answer.content
        return answer["Location"]

    def open_portal(self) -> str:
        answer = self.browser.post(reverse("billing:portal", args=[self.bot.pk]))
        assert answer.status_code == 303, answer.content
        return answer["Location"]

    def pay(self, card: str = "4242424242424242") -> str:
        """Pays, and stays on Stripe's side; the address that leads back."""
        return self.stripe.pay(self.open_checkout(), card)

    def come_back(self, address: str) -> HttpResponse:
        parts = urlsplit(address)
        return self.browser.get(f"{parts.path}?{parts.query}")

    def see(self) -> Bot:
        self.bot.refresh_from_db()
        return self.bot


@pytest.fixture
def alice(make: Maker, stripe: RunningLocalStripe) -> Customer:
    return _customer(make, stripe, "alice")


@pytest.fixture
def bob(make: Maker, stripe: RunningLocalStripe) -> Customer:
    return _customer(make, stripe, "bob")


def _customer(make: Maker, stripe: RunningLocalStripe, name: str) -> Customer:
    bot = make.bot(make.user(name))
    browser = Client()
    browser.force_login(bot.owner)
    return Customer(stripe, bot, browser)


def said(answer: HttpResponse) -> list[str]:
    """The messages that wait for the next page."""
    from django.contrib.messages import get_messages

    return [str(message) for message in get_messages(answer.wsgi_request)]  # type: ignore[attr-defined]


def forget_checkouts(stripe: RunningLocalStripe) -> None:
    """Makes way for a second payment page, which the code itself would never open."""
    stripe.app.store.objects["checkout.session"].clear()
    stripe.app.store.idempotency.clear()
