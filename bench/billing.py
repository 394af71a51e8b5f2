"""A webhook beside dj-stripe's bare work, a sweep of 10,000 subscriptions beside listing them, and payment → first job.

    .venv/bin/python bench/billing.py [--check] [--pairs N] [--runs N] [--payments N] [--only PART]

README.md in this folder says what the figures mean. Ours and bare take turns, so that a busy machine hits both.
"""

import argparse
import json
import multiprocessing
import secrets
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID

import requests
from support import (
    ROOT,
    BenchError,
    Report,
    WebhookWatch,
    count_queries,
    free_ports,
    in_turns,
    median,
    own_django,
    own_settings,
    ratio,
    seconds,
    wait_until,
)

# Before this folder, where this script has the app's name.
sys.path.insert(0, str(ROOT))

from orchestrator.swarm.memory import GB, MemorySwarm  # noqa: E402

CREATED, UPDATED, INVOICE_PAID = "customer.subscription.created", "customer.subscription.updated", "invoice.paid"
WEBHOOK_RATIO = 3.0
PAGE = 100
FEW, SOME, MANY = 100, 1_000, 10_000  # subscriptions
DIFFERENT = 50
SWEEP_RATIO = 2.0
CARD = {"number": "4242424242424242", "exp": "12 / 60", "cvc": "123"}
HUB_GB = 128


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="exit status 1 when a target is missed")
    arguments.add_argument("--pairs", type=int, default=100, metavar="N", help="webhooks to ours, and as many to bare")
    arguments.add_argument("--runs", type=int, default=3, metavar="N", help="sweeps of 10,000, and as many listings")
    arguments.add_argument("--payments", type=int, default=40, metavar="N", help="payments until the first job")
    arguments.add_argument("--only", choices=["webhook", "sweep", "job"], help="one part of it")
    asked = arguments.parse_args()
    # Ended by a signal it still cleans up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))
    report, figures = Report(), Figures()
    (port,) = free_ports(1)
    own = {"STRIPE_PORT": str(port), "PUB_IMAGE": f"sha256:{secrets.token_hex(32)}", "LOG_LEVEL": "CRITICAL"}
    try:
        with own_django(**own):
            if asked.only in (None, "webhook"):
                with own_settings(), LocalStripe(port):
                    measure_webhooks(max(2, asked.pairs), figures)
            if asked.only in (None, "sweep"):
                measure_sweep(port, max(1, asked.runs), figures)
            if asked.only in (None, "job"):
                with own_settings(SWARM="__main__.BigSwarm", HUB_PLACES=HUB_GB), LocalStripe(port):
                    measure_first_job(max(2, asked.payments), figures)
    except BenchError as error:
        sys.exit(f"error: {error}")
    figures.tell(report)
    return 1 if asked.check and report.missed else 0


@dataclass
class Figures:
    """What came out, in milliseconds, and what it should be at most: told in one table at the end."""

    rows: list[list[str]] = field(default_factory=list)
    targets: list[tuple[str, float, float]] = field(default_factory=list)

    def add(self, of: str, ours: Sequence[float], bare: Sequence[float] = ()) -> None:
        """Seconds. The ratio is that of neighbours, which a busy machine hits alike."""
        both = f"{ratio(ours, bare):.2f}" if bare else ""
        self.rows.append([of, _ms(median, bare), _ms(median, ours), _ms(p95, bare), _ms(p95, ours), both])

    def aim(self, what: str, figure: float, at_most: float) -> None:
        self.targets.append((what, figure, at_most))

    def tell(self, report: Report) -> None:
        head = ["ms", "bare", "ours", "bare p95", "ours p95", "ours / bare"]
        report.table("Medians and 95th percentiles; ratios are medians of the pairs", head, self.rows)
        for what, figure, at_most in self.targets:
            report.target(what, figure, at_most)


def _ms(figure: Callable[[Sequence[float]], float], values: Sequence[float]) -> str:
    """Nothing where there are too few for it."""
    enough = len(values) >= (20 if figure is p95 else 1)
    return f"{figure(values) * 1000:.1f}" if enough else ""


def p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


# --- Stripe and its customers --------------------------------------------------------------------------------------
class LocalStripe:
    """The local Stripe in a process of its own, with our catalogue, from `with` until its end.

    With a file it goes on with the objects that it finds there.
    """

    def __init__(self, port: int, file: Path | None = None) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._process = multiprocessing.get_context("spawn").Process(target=serve, args=(port, file), daemon=True)

    def __enter__(self) -> "LocalStripe":
        from billing import gateway

        self._process.start()
        wait_until(self._answers, "the local Stripe to start", every=0.1)
        gateway.set_up_catalogue()
        return self

    def _answers(self) -> bool:
        if not self._process.is_alive():
            raise BenchError("The local Stripe ended at once; it says above why.")
        try:
            return bool(requests.get(self.url, timeout=30))
        except requests.ConnectionError:
            return False

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join(60)
        self._process.kill()


def serve(port: int, file: Path | None) -> None:
    """Runs in the other process."""
    import django
    import uvicorn

    django.setup()
    from billing.local_stripe.app import make_app

    app = make_app(file, f"http://127.0.0.1:{port}")
    uvicorn.run(app, host="127.0.0.1", port=port, lifespan="on", log_config=None, access_log=False)


def new_bot(number: int) -> Any:
    """A pub that waits for its payment, of a customer who has no other."""
    from accounts.models import User
    from pubs.models import Bot

    owner = User.objects.create_user(f"bench-{number}@customer.example", name=f"Customer {number}")
    return Bot.objects.create(owner=owner, name="Bench")


def pay(bot: Any) -> None:
    """As its owner does it, on Stripe's page. The way back is not taken, since it looks at Stripe by itself."""
    from billing import gateway

    page = gateway.open_checkout(bot, "pub-monthly-1gb")
    answer = requests.post(page, CARD, headers={"Origin": page}, allow_redirects=False, timeout=60)
    if answer.status_code != 303:
        raise BenchError(f"The payment page answered {answer.status_code}.")


# --- Webhooks ------------------------------------------------------------------------------------------------------
def measure_webhooks(pairs: int, figures: Figures) -> None:
    """Each customer's life goes to one side alone, since dj-stripe does nothing when an event comes again."""
    import stripe

    from pubs.models import Bot, Rung

    bots = [new_bot(number) for number in range(2 * pairs)]
    sides = {"ours": bots[::2], "bare": bots[1::2]}
    times: dict[str, dict[str, list[float]]] = {}
    with running_site() as site:
        endpoint = Endpoint(site.url)
        for bot in bots:
            pay(bot)
        for kind in (CREATED, INVOICE_PAID):
            times[kind] = deliver(kind, sides, endpoint)
        for event in events_by_bot(CREATED).values():
            stripe.Subscription.modify(event.data.object.id, cancel_at_period_end=True)
        times[UPDATED] = deliver(UPDATED, sides, endpoint)
    rungs = {
        side: set(Bot.objects.filter(pk__in=[bot.pk for bot in those]).values_list("rung", flat=True))
        for side, those in sides.items()
    }
    if rungs != {"ours": {Rung.ENDING}, "bare": {Rung.NEW}}:
        raise BenchError(f"The webhooks did not do what they should: {rungs}.")
    for kind, took in times.items():
        figures.add(f"webhook {kind}", took["ours"], took["bare"])
        figures.aim(f"p95 of webhook {kind}, ours / bare", p95(took["ours"]) / p95(took["bare"]), WEBHOOK_RATIO)


@contextmanager
def running_site() -> Iterator[Any]:
    """The real site, in a thread of this process."""
    from tests.support.site import RunningSite

    with RunningSite() as site:
        yield site


class Endpoint:
    """Our webhook endpoint. Stripe knows it, but is told to be quiet: we send its events, to measure each."""

    def __init__(self, site: str) -> None:
        import stripe
        from djstripe.models import WebhookEndpoint

        from billing import gateway

        gateway.ensure_webhook_endpoint()
        row = WebhookEndpoint.objects.get()
        stripe.WebhookEndpoint.modify(row.id, disabled=True)
        self._url, self._secret, self._session = row.url, row.secret, requests.Session()
        if not self._url.startswith(site):
            raise BenchError(f"The endpoint is at {self._url}, the site at {site}.")

    def send(self, event: Any) -> float:
        """Seconds until the answer."""
        from billing.local_stripe.webhooks import signature

        body = str(event).encode()
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature(self._secret, body, int(time.time())),
        }
        began = time.perf_counter()
        answer = self._session.post(self._url, body, headers=headers, timeout=60)
        took = time.perf_counter() - began
        if answer.status_code != 200:
            raise BenchError(f"{event.type} was answered {answer.status_code}: {answer.text[:500]}")
        return took


def deliver(kind: str, sides: dict[str, list[Any]], endpoint: Endpoint) -> dict[str, list[float]]:
    """One event of this kind about each bot, to ours and to bare by turns."""
    events = events_by_bot(kind)
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    for number, (ours, bare) in enumerate(zip(sides["ours"], sides["bare"], strict=True)):
        for side in sorted(times, reverse=number % 2 == 0):
            if side == "ours":
                times[side].append(endpoint.send(events[ours.pk]))
            else:
                with without_our_handlers():
                    times[side].append(endpoint.send(events[bare.pk]))
    return times


def events_by_bot(kind: str) -> dict[UUID, Any]:
    """The newest event of this kind about each bot, as Stripe has it."""
    import stripe

    from billing import gateway

    found: dict[UUID, Any] = {}
    for event in stripe.Event.list(type=kind, limit=PAGE).auto_paging_iter():
        about = event.data.object
        details = about["parent"]["subscription_details"] if kind == INVOICE_PAID else about
        if bot := gateway.bot_id(details):
            found.setdefault(bot, event)
    return found


@contextmanager
def without_our_handlers() -> Iterator[None]:
    """dj-stripe as it comes: it checks the signature, keeps the event and brings its mirror up to date."""
    from djstripe.models import Event
    from djstripe.signals import WEBHOOK_SIGNALS

    from billing import handlers

    ours = [each for each in vars(handlers).values() if getattr(each, "__module__", "") == handlers.__name__]
    silenced = [
        (told, handler)
        for told in WEBHOOK_SIGNALS.values()
        for handler in ours
        if callable(handler) and told.disconnect(handler, sender=Event)
    ]
    try:
        yield
    finally:
        for told, handler in silenced:
            told.connect(handler, sender=Event)


# --- The sweep -----------------------------------------------------------------------------------------------------
def measure_sweep(port: int, runs: int, figures: Figures) -> None:
    import stripe

    queries = {}
    for number in (FEW, SOME, MANY):
        with own_settings(), many_subscriptions(port, number):
            with patch.object(stripe.Subscription, "list", wraps=stripe.Subscription.list) as listed:
                queries[number] = count_queries(partial(sweep, finds=0))
            if number == MANY:
                asked = [call.kwargs for call in listed.call_args_list if "customer" not in call.kwargs]
                bare, ours = in_turns(runs, partial(list_all, asked), partial(sweep, finds=0))
                healing = seconds(make_differences_and_heal)
    per_page = {
        more: (queries[more] - queries[fewer]) / ((more - fewer) / PAGE) for fewer, more in ((FEW, SOME), (SOME, MANY))
    }
    pages = MANY / PAGE
    figures.add(f"sweep of {MANY}, a page", [each / pages for each in ours], [each / pages for each in bare])
    figures.add(f"sweep that heals {DIFFERENT} of {MANY}, a page", [healing / pages])
    figures.aim(f"sweep of {MANY} / its listing", ratio(ours, bare), SWEEP_RATIO)
    print(f"  SQL queries: {', '.join(f'{each} for {number} subscriptions' for number, each in queries.items())}")
    more = per_page[MANY] - per_page[SOME]
    figures.aim(f"SQL queries a page more for {MANY} subscriptions than for {SOME}", more, 0)


def sweep(finds: int) -> None:
    """One comparison of all, which must find so many differences."""
    from billing import jobs
    from billing.models import Sweep

    jobs.compare_all()
    found = Sweep.objects.latest("started")
    if found.finished is None or found.differences != finds:
        raise BenchError(f"The sweep found {found.differences} differences, not {finds}: {found.words}")


def list_all(asked: list[dict[str, Any]]) -> None:
    """What a sweep asked Stripe to list, asked again without a sweep."""
    import stripe

    found = sum(1 for each in asked for _ in stripe.Subscription.list(**each).auto_paging_iter())
    if found < MANY:
        raise BenchError(f"Stripe listed only {found} subscriptions.")


def make_differences_and_heal() -> None:
    """As if the webhooks of so many payments had been lost."""
    from pubs.models import Bot, Rung

    lost = list(Bot.objects.order_by("pk").values_list("pk", flat=True)[:DIFFERENT])
    those = Bot.objects.filter(pk__in=lost)
    before = list(those.order_by("pk").values("paid", "rung", "paid_status", "paid_until", "runs_until", "kept_until"))
    those.update(paid=False, rung=Rung.SUSPENDED, paid_status="past_due")
    sweep(finds=DIFFERENT)
    if list(those.order_by("pk").values(*before[0])) != before:
        raise BenchError("The sweep did not heal what it found.")


@contextmanager
def many_subscriptions(port: int, number: int) -> Iterator[None]:
    """A Stripe and a database with so many paid pubs: one that was paid as all are, and copies of it in both."""
    from django.conf import settings

    from billing import paid

    file = settings.VAR / f"stripe-{number}.json"
    with LocalStripe(port, file):
        first = new_bot(0)
        pay(first)
        paid.look(first.pk)
    first.refresh_from_db()
    copies = copy_rows(first, number - 1)
    copy_in_stripe(file, first, copies)
    with LocalStripe(port, file):
        yield
    file.unlink()


@dataclass
class Copy:
    customer: str
    subscription: str
    bot: str = ""


def copy_rows(first: Any, number: int) -> list[Copy]:
    """Owners, customers and bots like the first."""
    from accounts.models import User
    from pubs.models import Bot

    copies = [Copy(f"cus_{secrets.token_hex(12)}", f"sub_{secrets.token_hex(12)}") for _ in range(number)]
    owners = User.objects.bulk_create(
        User(email=f"copy-{each}@customer.example", name=f"Copy {each}") for each in range(number)
    )
    customer = first.owner.djstripe_customers.get()
    columns = [field.attname for field in customer._meta.concrete_fields if not field.primary_key]
    type(customer).objects.bulk_create(
        type(customer)(
            **{name: getattr(customer, name) for name in columns}
            | {"id": copy.customer, "subscriber": owner, "stripe_data": customer.stripe_data | {"id": copy.customer}}
        )
        for copy, owner in zip(copies, owners, strict=True)
    )
    names = [field.attname for field in Bot._meta.concrete_fields]
    # Billing's columns stand together.
    said = {name: getattr(first, name) for name in names[names.index("paid") : names.index("memory_gb") + 1]}
    bots = Bot.objects.bulk_create(
        Bot(**said | {"owner": owner, "name": "Copy", "subscription_id": copy.subscription})
        for copy, owner in zip(copies, owners, strict=True)
    )
    for copy, bot in zip(copies, bots, strict=True):
        copy.bot = str(bot.pk)
    return copies


def copy_in_stripe(file: Path, first: Any, copies: list[Copy]) -> None:
    state = json.loads(file.read_text())
    subscription = state["objects"]["subscription"][first.subscription_id]
    customer = state["objects"]["customer"][subscription["customer"]]
    for copy in copies:
        item = subscription["items"]["data"][0] | {
            "id": f"si_{secrets.token_hex(12)}",
            "subscription": copy.subscription,
        }
        state["objects"]["customer"][copy.customer] = customer | {"id": copy.customer}
        state["objects"]["subscription"][copy.subscription] = subscription | {
            "id": copy.subscription,
            "customer": copy.customer,
            "metadata": {"bot": copy.bot},
            "items": subscription["items"] | {"data": [item]},
        }
    file.write_text(json.dumps(state))


# --- The first job -------------------------------------------------------------------------------------------------
class BigSwarm(MemorySwarm):
    """settings.SWARM: one machine with room for all that pay here."""

    def __init__(self) -> None:
        super().__init__(memory=HUB_GB * GB)


def measure_first_job(payments: int, figures: Figures) -> None:
    """The workers and the clock of `manage.py up`, in this process; only the swarm is the twin in memory."""
    from celery.signals import task_prerun
    from django.test import override_settings

    from billing import gateway
    from buttcloud.celery import app
    from buttcloud.workers import EmbeddedWorkers

    began: dict[str, float] = {}

    def note(task: Any, args: Any, **_: Any) -> None:
        if task.name == "orchestrator.ensure_pub_up":
            began.setdefault(args[0], time.time())

    watch, workers = WebhookWatch(), EmbeddedWorkers(app)
    task_prerun.connect(note, weak=False)
    with running_site() as site, override_settings(STRIPE_WEBHOOK_BASE=f"http://127.0.0.1:{watch.port}"):
        watch.forward_to = site.port
        watch.start()
        gateway.ensure_webhook_endpoint()
        workers.start()
        try:
            # The first one waits until there is a hub.
            _, *times = [first_job(new_bot(number), watch, began) for number in range(payments + 1)]
        finally:
            workers.stop()
            watch.stop()
            task_prerun.disconnect(note)
    figures.add("first webhook → ensure_pub_up runs", times)


def first_job(bot: Any, watch: WebhookWatch, began: dict[str, float]) -> float:
    known = len(watch.seen)
    pay(bot)
    at = wait_until(lambda: began.get(str(bot.pk)), "ensure_pub_up to run")
    came = min(each.came for each in watch.seen[known:] if each.kind in (CREATED, "checkout.session.completed"))
    # All that follows has its time before the next customer comes.
    wait_until(lambda: all(each.answered for each in watch.seen), "Stripe to be quiet", every=0.1)
    wait_until(lambda: is_up(bot), "the pub to be up", every=0.1)
    return at - came


def is_up(bot: Any) -> bool:
    bot.refresh_from_db()
    return bot.status == "up"


if __name__ == "__main__":
    sys.exit(main())
