"""Real pages in a real Chromium: the site on loopback, Stripe's local twin with its signed webhooks, workers for all
queues, and the swarm's twin in memory.
"""

import asyncio
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core import mail
from django.test import Client
from playwright.sync_api import BrowserContext, ConsoleMessage, Page

from accounts.models import User
from billing import gateway
from buttcloud.celery import app as celery_app
from orchestrator import swarm
from orchestrator.stats import Broadcaster
from pubs.models import Bot, Status, StatusChange
from tests.browser.swarm import StagedSwarm
from tests.support.local_stripe import RunningLocalStripe
from tests.support.make import Maker
from tests.support.site import RunningSite, running_worker
from tests.support.wait import until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --disable-dev-shm-usage"
)
CODE = re.compile(r"^([A-Z]{4}-[A-Z]{4})$", re.MULTILINE)
FAILED_REQUEST = re.compile(r"Failed to load resource: the server responded with a status of (\d+)")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    yield  # first all others put them in their order
    for item in items:
        if "tests/browser" in str(item.path):
            item.add_marker("browser")
            if not CHROMIUM:
                item.add_marker(pytest.mark.skip(reason="there is no Chromium (Debian: apt-get install chromium)"))
    # Playwright leaves a loop running in the main thread until the session ends, where no async test could run.
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)


@pytest.fixture(scope="session")
def browser_type_launch_args() -> dict[str, Any]:
    return {"executable_path": CHROMIUM, "args": FLAGS.split()}


@pytest.fixture
def stripe(transactional_db: None, settings: Any) -> Iterator[RunningLocalStripe]:
    """An empty local Stripe with our catalogue and our portal, to whose pages our forms may lead."""
    with RunningLocalStripe() as running:
        settings.STRIPE_API_HOST = running.url
        settings.SECURE_CSP = django_settings.SECURE_CSP | {"form-action": ["'self'", running.url]}
        gateway.connect()
        gateway.set_up_catalogue()
        yield running


async def meet(address: str, ssb_id: str) -> float:
    """A staged pub has no port to shake hands at."""
    return 41.0


@pytest.fixture
def staged(settings: Any, monkeypatch: pytest.MonkeyPatch) -> StagedSwarm:
    """The swarm that the code under test talks to."""
    monkeypatch.setattr("orchestrator.checkups.shake_hands", meet)
    settings.PUB_HOST = "pubs.example.org"
    settings.SWARM = "tests.browser.swarm.StagedSwarm"
    connected = swarm.connect()
    assert isinstance(connected, StagedSwarm)
    return connected


@pytest.fixture
def site(stripe: RunningLocalStripe, staged: StagedSwarm) -> Iterator[RunningSite]:
    """The site with all that `manage.py up` runs beside it, but for the clock."""
    with RunningSite() as running, ExitStack() as workers:
        for queue in ("default", "mailer", "swarm"):
            workers.enter_context(running_worker(queue))
        gateway.ensure_webhook_endpoint()
        broadcaster = asyncio.run_coroutine_threadsafe(Broadcaster().run(), running.loop)
        yield running
        broadcaster.cancel()
        stripe.settle()


@pytest.fixture
def browser_context_args(site: RunningSite) -> dict[str, Any]:
    """What each new window is like. Addresses in tests begin at the site."""
    return {"base_url": site.url, "viewport": {"width": 1280, "height": 900}, "color_scheme": "light"}


@dataclass
class Console:
    """What the browser complains about. A refusal that a test provokes it names beforehand, by its HTTP status."""

    expected: set[int] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)

    def hear(self, message: ConsoleMessage) -> None:
        refused = FAILED_REQUEST.match(message.text)
        if message.type == "error" and not (refused and int(refused[1]) in self.expected):
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")


@pytest.fixture(autouse=True)
def console(context: BrowserContext) -> Iterator[Console]:
    """No page may make the browser complain: no script error, nothing that the content security policy stops."""
    heard = Console()
    context.on("console", heard.hear)
    context.on("weberror", lambda error: heard.errors.append(str(error.error)))
    yield heard
    assert heard.errors == []


@pytest.fixture
def sign_in(site: RunningSite, context: BrowserContext) -> Callable[[User], User]:
    """Gives the window the session of a user, for tests that are not about signing in."""

    def give(user: User) -> User:
        user.emailaddress_set.get_or_create(email=user.email, verified=True, primary=True)
        client = Client()
        client.force_login(user)
        context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": site.url}])
        return user

    return give


@pytest.fixture
def alice(make: Maker, sign_in: Callable[[User], User]) -> User:
    """The customer at the screen."""
    return sign_in(make.user("alice"))


@pytest.fixture
def running_pub(alice: User, make: Maker) -> Bot:
    """Alice's pub, which is up."""
    bot = make.bot(alice, name="Harbour Garden", paid=True, rung="paid")
    look_again()
    until("the pub to run", lambda: Bot.objects.filter(pk=bot.pk, status=Status.UP).exists(), 10, 0.02)
    bot.refresh_from_db()
    return bot


def look_again() -> None:
    """What the clock does every 15 seconds."""
    celery_app.send_task("orchestrator.reconcile")


def read_code(email: str) -> str:
    """The code in the newest mail to this address."""

    def newest() -> str:
        codes = [CODE.search(str(sent.body)) for sent in mail.outbox if email in sent.to]
        return codes[-1][1] if codes and codes[-1] else ""

    return until(f"a code for {email}", newest, 10, 0.02)


def join(page: Page, email: str = "ada@customer.example") -> None:
    """From the landing page to the page where the first pub is named."""
    page.goto("/")
    page.get_by_role("link", name="Create your pub").first.click()
    page.get_by_label("Your name").fill("Ada")
    page.get_by_label("Email").fill(email)
    page.get_by_role("button", name="Send me the code").click()
    page.get_by_label("Code").fill(read_code(email))
    page.get_by_role("button", name="Continue").click()
    page.wait_for_url("**/pubs/new/")


def name_pub(page: Page, name: str) -> None:
    page.get_by_label("Name of your pub").fill(name)
    page.get_by_role("button", name="Create it").click()


def went_through(bot: Bot) -> list[str]:
    """The statuses that a pub had, oldest first."""
    return list(StatusChange.objects.filter(bot=bot).order_by("id").values_list("new", flat=True))
