"""Stripe is down, slow, or talks nonsense, at each call of each of our deeds: a person is told, nothing is half made,
and the next try completes it. Its webhooks are lost: the rows are right all the same.
"""

import socket
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
import stripe as sdk
from django.db import transaction
from django.utils import timezone
from pytest_django import Settings

from billing import gateway, jobs, views
from billing.gateway import door
from billing.ladder import Rung
from mailer.models import Message
from pubs.models import Bot
from tests.billing.conftest import Customer, forget_checkouts, new_customer, said
from tests.support.local_stripe import DAY, RunningLocalStripe
from tests.support.make import Maker

FAILS = "4000000000000341"
TROUBLE = {gateway.UNREACHABLE, gateway.OUR_FAULT}


class Spoiled(sdk.RequestsClient):
    """The way to Stripe, which goes wrong once: at the call with this number."""

    def __init__(self, number: int, how: str) -> None:
        super().__init__()
        self.number, self.how, self.calls = number, how, 0

    def request(self, method: str, url: str, headers: Any, post_data: Any = None) -> tuple[bytes, int, Any]:
        self.calls += 1
        if self.calls != self.number:
            return super().request(method, url, headers, post_data)
        match self.how:
            case "refuses":
                raise sdk.APIConnectionError("Connection refused")
            case "answer lost":
                super().request(method, url, headers, post_data)
                raise sdk.APIConnectionError("Connection reset by peer")
            case "500":
                return b'{"error": {"type": "api_error", "message": "Oh no"}}', 500, {}
            case "429":
                return b'{"error": {"type": "invalid_request_error", "code": "rate_limit"}}', 429, {}
        return b"<html>Bad gateway</html>", 502, {}

    @property
    def went_wrong(self) -> bool:
        return self.calls >= self.number


HOWS = ["refuses", "answer lost", "500", "429", "garbage"]
each_way = pytest.mark.parametrize("how", HOWS)


@pytest.fixture(autouse=True)
def one_try(stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the client would try again by itself shall reach us."""
    monkeypatch.setattr("stripe.max_network_retries", 0)


@pytest.fixture
def customers(make: Maker, stripe: RunningLocalStripe) -> Iterator[Customer]:
    """One new customer after the other."""
    return (new_customer(make, stripe, f"customer{number}") for number in count())


def at_each_call(deed: Callable[[int], object], how: str) -> Iterator[int]:
    """Does the deed again and again, with a later call to Stripe going wrong each time, until none does."""
    for number in count(1):
        well, spoiled = sdk.default_http_client, Spoiled(number, how)
        sdk.default_http_client = spoiled
        try:
            deed(number)
        finally:
            sdk.default_http_client = well
        if not spoiled.went_wrong:
            assert number > 1, "it never asked Stripe"
            return
        yield number


def sessions(stripe: RunningLocalStripe, customer: Customer) -> list[str]:
    found = stripe.app.store.all("checkout.session")
    return [each["status"] for each in found if each["client_reference_id"] == str(customer.bot.pk)]


def subscriptions(stripe: RunningLocalStripe, customer: Customer) -> list[str]:
    found = stripe.app.store.all("subscription")
    return [each["status"] for each in found if each["metadata"].get("bot") == str(customer.bot.pk)]


@each_way
def test_checkout_says_so_and_the_next_press_makes_the_one_page(
    customers: Iterator[Customer], stripe: RunningLocalStripe, how: str
) -> None:
    tried: list[Customer] = []

    def press(_: int) -> None:
        tried.append(next(customers))
        answer = tried[-1].press_pay()
        # Either the page says what is wrong, or it did not matter.
        assert answer.status_code == 303 or said(answer)[-1] in TROUBLE

    for _ in at_each_call(press, how):
        customer = tried[-1]
        customer.come_back(customer.pay())
        assert customer.see().paid
        assert subscriptions(stripe, customer) == ["active"]
        assert sessions(stripe, customer).count("open") == 0
    emails = [each["email"] for each in stripe.app.store.all("customer")]
    assert len(emails) == len(set(emails)) == len(tried)


@each_way
def test_another_offer_chosen_in_between_leaves_one_open_page(
    customers: Iterator[Customer], stripe: RunningLocalStripe, how: str
) -> None:
    tried: list[Customer] = []

    def prepare() -> None:
        tried.append(next(customers))
        tried[-1].open_checkout("pub-monthly-1gb")

    prepare()
    for _ in at_each_call(lambda _: tried[-1].press_pay("pub-yearly-4gb"), how):
        tried[-1].open_checkout("pub-yearly-4gb")
        assert sessions(stripe, tried[-1]).count("open") == 1
        prepare()


@each_way
def test_the_way_back_says_so_and_the_next_look_finds_the_payment(customers: Iterator[Customer], how: str) -> None:
    tried: list[tuple[Customer, str]] = []

    def come_back(_: int) -> None:
        customer, back = tried[-1]
        answer = customer.come_back(back)
        assert answer.status_code == 302 and said(answer)
        assert customer.see().paid or said(answer) == [views.WAITING]

    def prepare() -> None:
        customer = next(customers)
        tried.append((customer, customer.pay()))

    prepare()
    for _ in at_each_call(come_back, how):
        customer, back = tried[-1]
        customer.come_back(back)
        assert customer.see().paid and customer.bot.rung == Rung.PAID
        prepare()
    assert tried[-1][0].see().paid


@each_way
def test_the_portal_says_so_and_opens_at_the_next_press(alice: Customer, stripe: RunningLocalStripe, how: str) -> None:
    alice.come_back(alice.pay())

    def press(_: int) -> None:
        answer = alice.press("portal")
        assert answer.status_code == 303 or said(answer)[-1] in TROUBLE

    for _ in at_each_call(press, how):
        assert stripe.see(alice.open_portal())[0] == 200


def let_renewal_fail(customer: Customer, stripe: RunningLocalStripe) -> None:
    customer.come_back(customer.pay())
    stripe.change_card(customer.open_portal(), FAILS)
    stripe.advance(32 * DAY)


RUNS = {"look_at_due": jobs.look_at_due, "read_events": jobs.read_events, "compare_all": jobs.compare_all}


@each_way
@pytest.mark.parametrize("run", RUNS)
def test_a_job_that_breaks_off_is_completed_by_the_next_one(
    alice: Customer, bob: Customer, stripe: RunningLocalStripe, one_clock: None, run: str, how: str
) -> None:
    """Alice's renewal failed and bob's subscription was ended; no webhook said so."""
    jobs.read_events()
    let_renewal_fail(alice, stripe)
    bob.come_back(bob.pay())
    gateway.cancel(bob.see().subscription_id)
    stripe.advance(120)
    for number in count(1):
        with transaction.atomic():
            Bot.objects.update(due_at=timezone.now())
            well, spoiled = sdk.default_http_client, Spoiled(number, how)
            sdk.default_http_client = spoiled
            try:
                RUNS[run]()
            finally:
                sdk.default_http_client = well
            assert alice.see().rung in (Rung.PAID, Rung.GRACE) and alice.bot.paid
            RUNS[run]()
            jobs.look_at_due()
            assert (alice.see().rung, bob.see().rung) == (Rung.GRACE, Rung.KEPT), f"call {number} went wrong"
            assert Message.objects.filter(key__startswith="payment_failed").count() == 1
            transaction.set_rollback(True)
        if not spoiled.went_wrong:
            break
    assert number > 1, "it never asked Stripe"


def test_nobody_is_suspended_while_stripe_is_away(
    alice: Customer, stripe: RunningLocalStripe, one_clock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grace is over by our clock, but she may have paid."""
    let_renewal_fail(alice, stripe)
    jobs.look_at_due()
    stops = alice.see().runs_until
    assert stops and alice.bot.rung == Rung.GRACE
    with monkeypatch.context() as away:
        away.setattr("stripe.api_base", "http://127.0.0.1:1")
        stripe.advance(int(stops.timestamp()) + 3600 - stripe.app.store.now())
        for run in RUNS.values():
            run()
        assert alice.see().paid and alice.bot.rung == Rung.GRACE
    stripe.change_card(alice.open_portal())
    jobs.look_at_due()
    assert alice.see().paid and alice.bot.rung == Rung.PAID
    assert not Message.objects.filter(key__startswith="suspended").exists()


@each_way
def test_money_is_given_back_once(alice: Customer, stripe: RunningLocalStripe, how: str) -> None:
    alice.come_back(alice.pay())

    def give_back(_: int) -> None:
        newest = gateway.paid_invoices(alice.bot)[0]
        gateway.refund(newest.id, "requested_by_customer", "A mistake of ours")

    def try_to(number: int) -> None:
        try:
            give_back(number)
        except gateway.PaymentTrouble as trouble:
            assert str(trouble) in TROUBLE

    alice.bot.refresh_from_db()
    for _ in at_each_call(try_to, how):
        give_back(0)
        assert [each["amount"] for each in stripe.app.store.all("refund")] == [900]
        assert stripe.app.store.all("charge")[0]["amount_refunded"] == 900


@each_way
def test_a_second_subscription_is_refunded_and_ended_once(
    customers: Iterator[Customer], stripe: RunningLocalStripe, one_clock: None, how: str
) -> None:
    tried: list[Customer] = []

    def prepare() -> None:
        customer = next(customers)
        stripe.pay(gateway.open_checkout(customer.bot, "pub-monthly-1gb"))
        forget_checkouts(stripe)
        stripe.advance(60)
        stripe.pay(gateway.open_checkout(customer.bot, "pub-yearly-1gb"))
        tried.append(customer)

    def look(_: int) -> None:
        try:
            jobs.look_again(str(tried[-1].bot.pk))
        except gateway.PaymentTrouble as trouble:
            assert str(trouble) in TROUBLE

    prepare()
    for _ in at_each_call(look, how):
        customer = tried[-1]
        jobs.look_again(str(customer.bot.pk))
        assert subscriptions(stripe, customer) == ["active", "canceled"]
        assert customer.see().paid
        prepare()
    assert [each["amount"] for each in stripe.app.store.all("refund")] == [9000] * len(tried)


# --- Slow ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def silent_stripe(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Turns the way to Stripe to a server that takes every call and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:

        def turn() -> None:
            settings.STRIPE_API_HOST = f"http://127.0.0.1:{server.getsockname()[1]}"
            monkeypatch.setattr(door, "TIMEOUT", (0.2, 0.2))
            monkeypatch.setattr(door, "RETRIES", 0)
            gateway.connect()

        yield turn


def test_with_stripe_silent_pages_say_so_in_time_and_jobs_end(
    alice: Customer, bob: Customer, silent_stripe: Callable[[], None]
) -> None:
    back = alice.pay()
    bob.come_back(bob.pay())
    silent_stripe()
    began = time.monotonic()
    assert said(alice.come_back(back)) == [views.WAITING]
    for answer in (alice.press_pay(), bob.press("portal")):
        assert answer.status_code == 302 and said(answer)[-1] == gateway.UNREACHABLE
    Bot.objects.update(due_at=timezone.now() - timedelta(minutes=1))
    for run in RUNS.values():
        run()
    assert time.monotonic() - began < 6
    assert bob.see().paid and not alice.see().paid


# --- Lost webhooks -------------------------------------------------------------------------------------------------
def test_with_every_webhook_lost_the_rows_are_right_after_one_run(
    alice: Customer, stripe: RunningLocalStripe, one_clock: None
) -> None:
    """No endpoint is set up at this Stripe, so nothing is ever told."""

    def seen(what: str) -> Bot:
        stripe.advance(90)
        jobs.read_events()
        return alice.see()

    jobs.read_events()
    alice.pay()
    assert seen("paid").rung == Rung.PAID
    portal, subscription = alice.open_portal(), alice.bot.subscription_id
    stripe.cancel(portal, subscription)
    assert seen("cancelled").rung == Rung.ENDING
    stripe.resume(portal, subscription)
    assert seen("resumed").rung == Rung.PAID
    stripe.change_card(portal, FAILS)
    stripe.advance(32 * DAY)
    assert seen("failed").rung == Rung.GRACE
    stripe.change_card(portal)
    assert seen("put right").rung == Rung.PAID
    gateway.cancel(subscription)
    bot = seen("ended")
    assert bot.rung == Rung.KEPT and not bot.paid
