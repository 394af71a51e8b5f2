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

from billing import gateway, jobs
from pubs.models import Bot
from tests.support.local_stripe import RunningLocalStripe
from tests.support.make import Maker
from tests.support.site import RunningSite, running_worker


@pytest.fixture
def stripe(db: None, settings: Settings) -> Iterator[RunningLocalStripe]:
    """An empty local Stripe that the whole code talks to, with our catalogue and our portal."""
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
class Calendar:
    """Days that go by for us and for Stripe, with what beat does on each."""

    stripe: RunningLocalStripe

    def days(self, number: int) -> None:
        for _ in range(number):
            self.hours(24)

    def hours(self, number: float) -> None:
        self.stripe.advance(int(number * 3600))
        self.stripe.settle()
        beat()


def beat() -> None:
    """What beat does about money, again and again."""
    jobs.look_at_due()
    jobs.read_events()


@pytest.fixture
def calendar(site: RunningSite, one_clock: None, stripe: RunningLocalStripe) -> Calendar:
    return Calendar(stripe)


@dataclass
class Customer:
    """Somebody signed in, with one pub, at the site and at Stripe's pages."""

    stripe: RunningLocalStripe
    bot: Bot
    browser: Client

    def press_pay(self, offer: str = "pub-monthly-1gb") -> HttpResponse:
        return self.press("checkout", offer=offer)

    def open_checkout(self, offer: str = "pub-monthly-1gb") -> str:
        """The address of the payment page."""
        answer = self.press_pay(offer)
        assert answer.status_code == 303, answer.content
        return answer["Location"]

    def open_portal(self) -> str:
        answer = self.press("portal")
        assert answer.status_code == 303, answer.content
        return answer["Location"]

    def press(self, button: str, **form: str) -> HttpResponse:
        # In a life of months every session runs out.
        self.browser.force_login(self.bot.owner)
        return self.browser.post(reverse(f"billing:{button}", args=[self.bot.pk]), form)

    def pay(self, card: str = "4242424242424242", offer: str = "pub-monthly-1gb") -> str:
        """Pays, and stays on Stripe's side; the address that leads back."""
        return self.stripe.pay(self.open_checkout(offer), card)

    def come_back(self, address: str) -> HttpResponse:
        parts = urlsplit(address)
        return self.browser.get(f"{parts.path}?{parts.query}")

    def see(self) -> Bot:
        self.bot.refresh_from_db()
        return self.bot


@pytest.fixture
def alice(make: Maker, stripe: RunningLocalStripe) -> Customer:
    return new_customer(make, stripe, "alice")


@pytest.fixture
def bob(make: Maker, stripe: RunningLocalStripe) -> Customer:
    return new_customer(make, stripe, "bob")


def new_customer(make: Maker, stripe: RunningLocalStripe, name: str) -> Customer:
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
