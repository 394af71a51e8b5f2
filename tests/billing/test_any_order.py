"""Events only say "look again": whatever order they come in, however often, with some of them lost and with jobs in
between, a life leaves the same rows, the same mails and the same history.

Each life is lived at the local Stripe alone, and its events are kept. Then they are signed and brought to dj-stripe's
own view, while Stripe stands where the life ended.
"""

import copy
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any
from uuid import UUID, uuid4

import pytest
import stripe as sdk
from django.db import transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from djstripe.models import WebhookEndpoint
from hypothesis import Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from billing import gateway, jobs
from billing.gateway.set_up import EVENTS
from billing.ladder import ALIVE, Rung
from billing.local_stripe.webhooks import signature
from mailer.models import Message
from pubs.models import Bot, PaymentChange
from tests.billing.conftest import Customer, forget_checkouts
from tests.support.local_stripe import DAY, RunningLocalStripe

SECRET = "whsec_of_the_test"
OWNERS = ("name", "switched_on", "restarts", "created", "changed_at")
# What our handlers listen to; the rest only changes dj-stripe's mirror.
HEARD = ("customer.subscription.", "checkout.session.completed", "invoice.paid", "invoice.payment_failed")

# Shrinking would take minutes: an example that fails is short enough to be read as it is.
few_examples = hypothesis_settings(max_examples=2, deadline=None, database=None, phases=[Phase.generate])

type Json = dict[str, Any]
type End = tuple[Json, list[str], list[tuple[str, str, str]], list[str], list[tuple[str, str, int]]]


@dataclass
class World:
    """One pub and all that moves its payment: events, the clock's jobs, and looks that wait for a worker."""

    stripe: RunningLocalStripe
    customer: Customer
    monkeypatch: pytest.MonkeyPatch
    waiting: list[UUID] = field(default_factory=list)
    browser: Client = field(default_factory=lambda: Client(raise_request_exception=False))

    def pay(self, offer: str = "pub-monthly-1gb") -> str:
        """Pays at Stripe, unseen by us; the id of the subscription."""
        self.stripe.pay(gateway.open_checkout(self.customer.bot, offer))
        return str(self.stripe.app.store.all("subscription")[-1]["id"])

    def portal(self) -> str:
        return gateway.open_portal(self.customer.bot.owner, self.customer.bot)

    def events(self) -> list[Json]:
        """What Stripe would have told us of the life, but not of our catalogue."""
        store = self.stripe.app.store
        told = [each for each in store.all("event") if each["type"] in EVENTS]
        return [store.public(each) for each in told if not each["type"].startswith(("product.", "price."))]

    def deliver(self, event: Json) -> None:
        endpoint = WebhookEndpoint.objects.get(secret=SECRET)
        body = json.dumps(event)
        answer = self.browser.post(
            reverse("djstripe:djstripe_webhook_by_uuid", args=[endpoint.djstripe_uuid]),
            body,
            content_type="application/json",
            headers={"Stripe-Signature": signature(SECRET, body.encode(), int(time.time()))},
        )
        assert answer.status_code == 200, event["type"]

    def work(self) -> None:
        """Runs the jobs that wait, the newest first."""
        while self.waiting:
            jobs.look_again(str(self.waiting.pop()))

    def end(self) -> End:
        """Where all of it has led, but for when Stripe was last read."""
        self.work()
        columns = Bot.objects.filter(pk=self.customer.bot.pk).values().get()
        kept = {name: value for name, value in columns.items() if name not in (*OWNERS, "paid_seen_at")}
        mails = [f"{each.key} {each.text}" for each in Message.objects.order_by("key")]
        changes = list(PaymentChange.objects.order_by("pk").values_list("old", "new", "words"))
        # On which rung a bot stood when money went back is no matter.
        history = [each for each in changes if each[0] != each[1]]
        remarks = sorted(words for old, new, words in changes if old == new)
        store = self.stripe.app.store
        paid = [(each["id"], each["status"], len(store.all("refund"))) for each in store.all("subscription")]
        return kept, mails, history, remarks, paid

    @contextmanager
    def again(self) -> Iterator[None]:
        """What is done within leaves no trace, neither with us nor at Stripe, whose clock stands still meanwhile."""
        store = self.stripe.app.store
        objects, keys, now = copy.deepcopy(store.objects), copy.deepcopy(store.idempotency), store.now()
        self.monkeypatch.setattr(store, "now", lambda: now)
        try:
            with transaction.atomic():
                yield
                transaction.set_rollback(True)
        finally:
            store.objects, store.idempotency = objects, keys
            self.waiting.clear()


@pytest.fixture
def world(alice: Customer, stripe: RunningLocalStripe, one_clock: None, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(stripe, alice, monkeypatch)
    monkeypatch.setattr("pubs.live.look_at_payment", made.waiting.append)
    WebhookEndpoint.objects.create(
        id="we_test",
        url="http://127.0.0.1/",
        secret=SECRET,
        livemode=False,
        api_version="2026-05-27.dahlia",
        enabled_events=EVENTS,
        status="enabled",
        djstripe_uuid=uuid4(),
        stripe_data={},
    )
    return made


# --- Lives ---------------------------------------------------------------------------------------------------------
def bought(world: World) -> None:
    world.pay()


def cancelled(world: World) -> None:
    subscription = world.pay()
    world.stripe.cancel(world.portal(), subscription)


def cancelled_and_over(world: World) -> None:
    cancelled(world)
    world.stripe.advance(32 * DAY)


def failing(world: World) -> None:
    world.pay()
    world.stripe.change_card(world.portal(), "4000000000000341")
    world.stripe.advance(32 * DAY)


def put_right(world: World) -> None:
    """With the new card charged by us, of which each event tells that comes after it."""
    failing(world)
    world.stripe.change_card(world.portal())
    assert gateway.collect(world.stripe.app.store.all("subscription")[-1]["id"])


def failed_for_good(world: World) -> None:
    failing(world)
    world.stripe.advance(20 * DAY)


def paid_after_its_end(world: World) -> None:
    failed_for_good(world)
    for card in world.stripe.app.store.all("payment_method"):
        card["_fails"] = ""
    sdk.Invoice.pay(world.stripe.app.store.all("invoice")[-1]["id"])


def bought_again(world: World) -> None:
    gateway.cancel(world.pay())
    world.stripe.advance(DAY)
    world.pay("pub-yearly-2gb")


def renewed_for_months(world: World) -> None:
    world.pay("pub-monthly-4gb")
    world.stripe.advance(100 * DAY)


def bought_twice(world: World) -> None:
    """A second subscription slipped through: a look ends it."""
    world.pay()
    world.stripe.advance(60)
    forget_checkouts(world.stripe)
    world.pay()


def deleted(world: World) -> None:
    """The owner deleted the pub before we heard of anything: a look ends the subscription."""
    world.pay()
    Bot.objects.update(deleted_at=timezone.now())


LIVES: dict[Callable[[World], None], str] = {
    bought: Rung.PAID,
    cancelled: Rung.ENDING,
    cancelled_and_over: Rung.KEPT,
    failing: Rung.GRACE,
    put_right: Rung.PAID,
    failed_for_good: Rung.KEPT,
    paid_after_its_end: Rung.KEPT,
    bought_again: Rung.PAID,
    renewed_for_months: Rung.PAID,
    bought_twice: Rung.PAID,
    deleted: Rung.KEPT,
}


def in_order(world: World, events: list[Json]) -> End:
    """Where the life leads when all goes as it should."""
    with world.again():
        for event in events:
            world.deliver(event)
        return world.end()


def but_for_renewals(end: End) -> End:
    """A payment that no event tells of, neither a webhook nor Stripe's list, has no line. Nothing else hangs on it."""
    *before, remarks, paid = end
    return (*before, [words for words in remarks if not words.endswith(" was paid.")], paid)  # type: ignore[return-value]


each_life = pytest.mark.parametrize(("life", "rung"), LIVES.items(), ids=[life.__name__ for life in LIVES])


def test_every_order_of_the_events_of_a_payment_leads_to_the_same_end(world: World) -> None:
    """All of them, of those that we listen to. There are too many orders of a longer life: they are drawn below."""
    bought(world)
    heard = [each for each in world.events() if each["type"].startswith(HEARD)]
    expected = in_order(world, world.events())
    assert expected[0]["paid"] and len(heard) > 3
    for order in permutations(heard):
        with world.again():
            for event in order:
                world.deliver(event)
            assert world.end() == expected


@each_life
def test_events_in_any_order_and_number_among_any_jobs_lead_to_the_same_end(
    world: World, life: Callable[[World], None], rung: str
) -> None:
    life(world)
    events = world.events()
    expected = in_order(world, events)
    assert expected[0]["rung"] == rung
    between = [jobs.look_at_due, jobs.read_events, world.work, lambda: jobs.look_again(str(world.customer.bot.pk))]

    @few_examples
    @given(data=st.data())
    def leads_there(data: st.DataObject) -> None:
        told = data.draw(st.permutations(events + data.draw(st.lists(st.sampled_from(events), max_size=3))))
        with world.again():
            for event in told:
                world.deliver(event)
                for job in data.draw(st.lists(st.sampled_from(between), max_size=1)):
                    job()
            assert world.end() == expected

    leads_there()


@each_life
def test_with_events_lost_each_comparison_leads_to_the_same_end(
    world: World, life: Callable[[World], None], rung: str
) -> None:
    life(world)
    events = world.events()
    expected = in_order(world, events)
    assert expected[0]["rung"] == rung
    lives = expected[0]["paid_status"] in ALIVE
    heard_by_us = [each for each in events if each["type"].startswith(HEARD)]

    @few_examples
    @given(data=st.data())
    def leads_there(data: st.DataObject) -> None:
        heard = data.draw(st.lists(st.sampled_from(heard_by_us), min_size=not lives, max_size=4))
        with world.again():
            for event in heard:
                world.deliver(event)
            if lives:
                # The looks that events ask for are lost, too. Of a life that was over before anything of it was heard
                # there is nothing left to put right.
                world.waiting.clear()
            data.draw(st.sampled_from([jobs.read_events, jobs.compare_all]))()
            assert but_for_renewals(world.end()) == but_for_renewals(expected)

    leads_there()
