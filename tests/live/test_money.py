"""Money and a real pub: paid, resized, unpaid, stopped, paid again, and the same pub as before.

The local Stripe's clock begins in the past and is moved on. Ours is the machine's: the time of grace runs out while the
test waits, and nothing of the product knows that it is tested.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from typing import Any

import docker
import pytest
from django.conf import settings as django_settings
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from billing import gateway, paid
from billing.ladder import Rung
from buttcloud.celery import app as celery_app
from orchestrator import jobs as swarm_jobs
from orchestrator.swarm import service_name
from orchestrator.swarm.engine import EngineSwarm
from pubs import catalogue
from pubs.models import Bot, Command, Status
from tests.support.local_stripe import DAY, PaymentRefused, RunningLocalStripe
from tests.support.make import Maker
from tests.support.site import RunningSite, running_worker
from tests.support.wait import until

pytestmark = pytest.mark.django_db(transaction=True)

FAILS = "4000000000000341"
# By then she has paid, and her next payment has failed: so long her grace lasts from the first payment on.
PATIENCE = timedelta(seconds=30)


@pytest.fixture
def stripe(transactional_db: None, settings: Any) -> Iterator[RunningLocalStripe]:
    """A local Stripe with our catalogue, whose clock is far behind ours."""
    with RunningLocalStripe(clock_offset=-400 * DAY) as running:
        settings.STRIPE_API_HOST = running.url
        gateway.connect()
        gateway.set_up_catalogue()
        yield running


@contextmanager
def beat() -> Iterator[None]:
    """Sends each job as often as settings say."""
    over = threading.Event()

    def send(entry: dict[str, Any]) -> None:
        while not over.wait(entry["schedule"]):
            celery_app.send_task(entry["task"], entry.get("args"), **entry["options"])

    schedule = django_settings.CELERY_BEAT_SCHEDULE.values()
    clocks = [threading.Thread(target=send, args=[each], name=each["task"], daemon=True) for each in schedule]
    for clock in clocks:
        clock.start()
    yield
    over.set()
    for clock in clocks:
        clock.join()


@pytest.fixture
def site(stripe: RunningLocalStripe, real_swarm: EngineSwarm) -> Iterator[RunningSite]:
    """The site with its workers and its clock."""
    with RunningSite() as running, ExitStack() as beside:
        for queue in ("default", "mailer", "swarm"):
            beside.enter_context(running_worker(queue))
        beside.enter_context(beat())
        yield running
        stripe.settle()


class Watch:
    """Looks at a pub's containers all the time: there must never be two."""

    def __init__(self, engine: docker.DockerClient, bot: Bot) -> None:
        self.engine, self.bot = engine, bot
        self.most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def containers(self) -> list[Any]:
        return self.engine.containers.list(filters={"label": f"buttcloud.bot={self.bot.pk}"}, ignore_removed=True)

    def _look(self) -> None:
        while not self._over.wait(0.1):
            self.most = max(self.most, len(self.containers()))

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


class Owner:
    """The pub's owner, at our pages and at Stripe's."""

    def __init__(self, stripe: RunningLocalStripe, bot: Bot) -> None:
        self.stripe, self.bot = stripe, bot
        self.browser = Client()
        self.browser.force_login(bot.owner)

    def press(self, button: str, **form: str) -> str:
        answer = self.browser.post(reverse(f"billing:{button}", args=[self.bot.pk]), form)
        assert answer.status_code == 303, answer.content
        return str(answer["Location"])

    def pay(self, offer: str = "pub-monthly-1gb") -> None:
        self.stripe.pay(self.press("checkout", offer=offer))

    def see(self) -> Bot:
        self.bot.refresh_from_db()
        return self.bot

    def wait(self, status: Status, seconds: float = 120) -> float:
        """Waits until the pub is so; how many seconds that took."""
        began = time.monotonic()
        until(f"the pub is {status}: {self.see().reason}", lambda: self.see().status == status, seconds)
        return time.monotonic() - began

    def ask(self, name: str, /, **args: object) -> Any:
        command = catalogue.ask(self.bot, self.bot.owner, name, args)
        swarm_jobs.run_command(str(command.pk))
        command.refresh_from_db()
        assert command.state == Command.State.DONE, command.error
        return command.result


@pytest.fixture
def owner(make: Maker, site: RunningSite, stripe: RunningLocalStripe, engine: docker.DockerClient) -> Iterator[Owner]:
    bot = make.bot(name="Harbour Garden")
    yield Owner(stripe, bot)
    Bot.objects.update(paid=False)
    EngineSwarm().remove_service(bot.pk)
    until("its container is gone", lambda: not Watch(engine, bot).containers())


def begin_a_year_before(stripe: RunningLocalStripe, renewal: datetime) -> None:
    """Moves Stripe's clock on: what is bought for a year now is renewed then."""
    stripe.advance(int(renewal.replace(year=renewal.year - 1).timestamp()) - stripe.app.store.now())


def fail_card(owner: Owner, renewal: datetime) -> None:
    owner.stripe.change_card(owner.press("portal"), FAILS)
    owner.stripe.advance(int(renewal.timestamp()) + 5 - owner.stripe.app.store.now())


def put_right(owner: Owner) -> float:
    """She pays in the portal; how many seconds later her pub is up."""
    owner.stripe.change_card(owner.press("portal"))
    return owner.wait(Status.UP)


def test_an_unpaid_pub_stops_after_its_grace_and_comes_back_as_the_same_one(
    owner: Owner, stripe: RunningLocalStripe, engine: docker.DockerClient, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.ensure_webhook_endpoint()
    # Staff let it run before she pays, for by then the time to her next payment is short.
    paid.comp(owner.bot.pk, timezone.now() + timedelta(days=3), "While she looks for her card", owner.bot.owner)
    first_up = owner.wait(Status.UP)
    born = owner.see()
    ssb_id, address = born.ssb_id, born.address
    assert owner.ask("whoami") == {"id": ssb_id}
    owner.ask("set_profile", name="Harbour Garden", description="Before the money ran out")
    length = owner.ask("status")["sequence"]
    renewal = timezone.now() - timedelta(days=14) + PATIENCE
    begin_a_year_before(stripe, renewal)
    owner.pay("pub-yearly-1gb")
    until("the payment is known", lambda: owner.see().paid_status == "active")
    paid.comp(owner.bot.pk, None, "She has found it", owner.bot.owner)
    assert owner.see().rung == Rung.PAID

    with Watch(engine, born) as watch:
        fail_card(owner, renewal)
        until("the payment is known to have failed", lambda: owner.see().paid_status == "past_due")
        assert owner.see().rung == Rung.GRACE and owner.bot.paid
        [running] = watch.containers()
        assert owner.ask("whoami") == {"id": ssb_id}, "it runs on meanwhile"

        stops = owner.bot.runs_until
        assert stops and abs(stops - renewal - timedelta(days=14)) < timedelta(seconds=30)
        until("the grace is over", lambda: owner.see().rung == Rung.SUSPENDED, 180)
        assert stops < timezone.now() < stops + timedelta(seconds=45)
        until("its container is gone", lambda: not watch.containers(), 60)
        owner.wait(Status.NONE)
        assert engine.volumes.get(service_name(owner.bot.pk)), "its volume is kept"
        assert not owner.bot.paid and owner.bot.kept_until

        seconds = put_right(owner)
        assert seconds < 60
        [again] = watch.containers()
        assert again.id != running.id and watch.most == 1
    assert (owner.see().ssb_id, owner.bot.address) == (ssb_id, address)
    assert owner.ask("whoami") == {"id": ssb_id}
    assert owner.ask("status")["sequence"] >= length > 0
    owner.ask("set_profile", name="Harbour Garden", description="And after")
    assert owner.ask("status")["sequence"] > length, "its feed goes on"
    with capsys.disabled():
        print(f"\nup {first_up:.1f} s after the comp, {seconds:.1f} s after the card was put right")


def test_with_every_webhook_lost_a_pub_that_is_paid_again_runs_within_a_minute(
    owner: Owner, stripe: RunningLocalStripe, capsys: pytest.CaptureFixture[str]
) -> None:
    """No endpoint is set up: Stripe tells us nothing. Its clock is ours by the time that she pays."""
    renewal = timezone.now() - timedelta(days=14)
    begin_a_year_before(stripe, renewal)
    owner.pay("pub-yearly-1gb")
    paid.look(owner.bot.pk)
    owner.wait(Status.UP)
    fail_card(owner, renewal)
    stripe.advance(-stripe.app.store.clock_offset)
    until("it is suspended", lambda: owner.see().rung == Rung.SUSPENDED, 120)
    owner.wait(Status.NONE)
    seconds = put_right(owner)
    with capsys.disabled():
        print(f"\nno webhook came: up {seconds:.1f} s after the card was put right")
    assert seconds < 60


def test_a_bigger_plan_gives_the_same_pub_more_memory_and_never_two_of_it(
    owner: Owner, stripe: RunningLocalStripe, engine: docker.DockerClient
) -> None:
    gateway.ensure_webhook_endpoint()
    owner.pay()
    owner.wait(Status.UP)
    subscription, ssb_id, address = owner.see().subscription_id, owner.bot.ssb_id, owner.bot.address
    with Watch(engine, owner.bot) as watch:
        [small] = watch.containers()
        assert small.attrs["HostConfig"]["Memory"] == 2**30
        bigger = next(each for each in gateway.offers() if each.lookup_key == "pub-monthly-2gb")
        stripe.change_plan(owner.press("portal"), subscription, bigger.price_id)

        def has_grown() -> bool:
            memory = [each.attrs["HostConfig"]["Memory"] for each in watch.containers()]
            # The swarm hears a moment after the engine that the new container is healthy.
            healthy = {each.bot_id for each in EngineSwarm().look().services if each.healthy}
            return memory == [2 * 2**30] and owner.bot.pk in healthy

        until("its container has 2 GB", has_grown, 120)
        owner.wait(Status.UP)
        assert watch.most == 1
    assert (owner.see().ssb_id, owner.bot.address, owner.bot.memory_gb) == (ssb_id, address, 2)
    assert owner.ask("whoami") == {"id": ssb_id}
    spec = engine.services.get(service_name(owner.bot.pk)).attrs["Spec"]
    assert spec["UpdateConfig"]["Order"] == "stop-first"


def test_a_pub_that_staff_comp_runs_without_a_payment_until_they_end_it(
    owner: Owner, make: Maker, engine: docker.DockerClient
) -> None:
    with pytest.raises(PaymentRefused):
        owner.stripe.pay(owner.press("checkout", offer="pub-monthly-1gb"), "4000000000000002")
    staff = make.user("staff", is_staff=True, is_superuser=True)
    paid.comp(owner.bot.pk, timezone.now() + timedelta(days=3), "For the festival", staff)
    owner.wait(Status.UP)
    assert owner.see().rung == Rung.COMPED and owner.bot.subscription_id == ""
    paid.comp(owner.bot.pk, None, "The festival is over", staff)
    assert owner.see().rung == Rung.KEPT
    until("its container is gone", lambda: not Watch(engine, owner.bot).containers(), 60)
    assert engine.volumes.get(service_name(owner.bot.pk)), "its volume is kept"
