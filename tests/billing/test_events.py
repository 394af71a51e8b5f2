"""Stripe's list of events heals what webhooks did not tell: it is read from where the last run came to. Here no webhook
is ever sent.
"""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from billing import gateway, jobs, paid, sweeps
from billing.gateway.set_up import EVENTS
from billing.ladder import Rung
from billing.models import Sweep
from mailer.models import Message
from pubs.models import Bot
from tests.billing.conftest import Customer
from tests.billing.test_heal import counted, never_answers_for
from tests.support.local_stripe import DAY, RunningLocalStripe
from tests.support.make import Maker


@pytest.fixture
def begun(alice: Customer, bob: Customer) -> None:
    """Bob has paid, and events are read from then on."""
    bob.come_back(bob.pay())
    jobs.read_events()
    assert last().cursor


def last() -> Sweep:
    run = Sweep.objects.filter(kind=Sweep.Kind.EVENTS).first()
    assert run
    return run


def events(stripe: RunningLocalStripe) -> list[Any]:
    return [each["id"] for each in stripe.app.store.all("event") if each["type"] in gateway.events.TYPES]


def make_many_events(stripe: RunningLocalStripe, customer: Customer, number: int) -> None:
    subscription = stripe.app.store.get("subscription", customer.see().subscription_id)
    for _ in range(number):
        stripe.app.webhooks.emit("customer.subscription.updated", subscription)


@pytest.mark.usefixtures("begun")
def test_a_payment_of_one_who_never_came_back_is_seen(alice: Customer) -> None:
    alice.pay()
    jobs.read_events()
    assert alice.see().rung == Rung.PAID


@pytest.mark.usefixtures("begun", "one_clock")
def test_one_who_pays_again_runs_with_the_next_run_though_no_webhook_came(
    alice: Customer, stripe: RunningLocalStripe
) -> None:
    alice.come_back(alice.pay())
    stripe.change_card(portal := alice.open_portal(), "4000000000000341")
    stripe.advance(45 * DAY)
    paid.look(alice.bot.pk)
    assert not alice.see().paid
    jobs.read_events()
    if alice.bot.rung == Rung.SUSPENDED:
        stripe.change_card(portal)
    else:
        alice.pay()
    assert not alice.see().paid
    jobs.read_events()
    assert alice.see().paid


@pytest.mark.usefixtures("begun", "one_clock")
def test_what_was_paid_for_a_renewal_has_one_line_and_the_first_payment_none(
    bob: Customer, stripe: RunningLocalStripe
) -> None:
    stripe.advance(35 * DAY)
    for _ in range(2):
        Sweep.objects.update(cursor=events(stripe)[0])
        jobs.read_events()
    lines = bob.bot.payment_changes.filter(key__startswith="in_")
    assert list(lines.values_list("words", flat=True)) == ["€9 was paid."]


@pytest.mark.usefixtures("begun")
def test_an_end_and_a_deleted_customer_are_seen(alice: Customer, bob: Customer, stripe: RunningLocalStripe) -> None:
    alice.come_back(alice.pay())
    gateway.cancel(alice.see().subscription_id)
    stripe.client.v1.customers.delete(gateway.customer_for(bob.bot.owner).id)
    jobs.read_events()
    assert (alice.see().rung, bob.see().rung) == (Rung.KEPT, Rung.KEPT)


@pytest.mark.usefixtures("begun")
def test_who_was_read_after_an_event_is_not_looked_at_for_it(
    alice: Customer, bob: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.come_back(alice.pay())
    Bot.objects.update(paid_seen_at=timezone.now() + sweeps.CLOCKS_DIFFER)
    looked = counted(monkeypatch)
    jobs.read_events()
    assert looked == []


def test_the_first_run_compares_all(alice: Customer, bob: Customer, stripe: RunningLocalStripe) -> None:
    alice.pay()
    jobs.read_events()
    assert alice.see().paid
    assert Sweep.objects.get(kind=Sweep.Kind.ALL).looked == 1
    assert last().cursor == events(stripe)[-1]


def test_with_nothing_in_stripe_there_is_nothing_to_compare(stripe: RunningLocalStripe) -> None:
    for _ in range(3):
        jobs.read_events()
    assert Sweep.objects.get().kind == Sweep.Kind.EVENTS


@pytest.mark.usefixtures("begun")
def test_after_a_month_without_reading_all_is_compared(alice: Customer, stripe: RunningLocalStripe) -> None:
    Sweep.objects.update(read_until=timezone.now() - timedelta(days=30))
    alice.pay()
    stripe.app.store.objects["event"] = dict(list(stripe.app.store.objects["event"].items())[:-20])
    jobs.read_events()
    assert alice.see().paid
    assert Sweep.objects.filter(kind=Sweep.Kind.ALL).count() == 2


@pytest.mark.usefixtures("begun")
def test_where_stripe_knows_the_last_event_no_more_all_is_compared(alice: Customer, stripe: RunningLocalStripe) -> None:
    Sweep.objects.filter(kind=Sweep.Kind.EVENTS).update(cursor="evt_of_another_account")
    alice.pay()
    jobs.read_events()
    assert alice.see().paid
    assert last().cursor == events(stripe)[-1]


@pytest.mark.usefixtures("begun", "one_clock")
def test_many_events_are_read_over_pages_from_the_oldest_to_the_newest(
    alice: Customer, bob: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.pay()
    make_many_events(stripe, bob, 250)
    stripe.advance(120)
    pages = [[each.id for each in page] for page in gateway.events_after(last().cursor)]
    wanted = events(stripe)[events(stripe).index(last().cursor) + 1 :]
    assert [len(page) for page in pages[:2]] == [100, 100] and sum(pages, []) == wanted
    jobs.read_events()
    assert alice.see().paid
    assert last().cursor == wanted[-1]


@pytest.mark.usefixtures("begun", "one_clock")
def test_with_stripe_away_in_the_middle_the_next_run_goes_on_from_the_last_page(
    alice: Customer, bob: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_many_events(stripe, bob, 150)
    alice.pay()
    stripe.advance(120)
    real, seen = gateway.events_after, []

    def events_after(cursor: str) -> Any:
        for page in real(cursor):
            if len(seen) == 1:
                raise gateway.Unreachable(gateway.UNREACHABLE)
            seen.append(page)
            yield page

    monkeypatch.setattr(gateway, "events_after", events_after)
    jobs.read_events()
    assert last().cursor == seen[0][-1].id
    assert not alice.see().paid
    seen.append(None)
    jobs.read_events()
    assert alice.see().paid
    assert last().cursor == events(stripe)[-1]


@pytest.mark.usefixtures("begun")
def test_with_stripe_away_while_a_bot_is_looked_at_its_event_is_read_again(
    alice: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.pay()
    before = last().cursor

    def away(bot_id: object) -> bool:
        raise gateway.Unreachable(gateway.UNREACHABLE)

    with monkeypatch.context() as patch:
        patch.setattr(paid, "look", away)
        jobs.read_events()
    assert last().cursor == before and not alice.see().paid
    jobs.read_events()
    assert alice.see().paid


@pytest.mark.usefixtures("begun", "one_clock")
def test_one_that_stripe_never_answers_for_holds_up_no_event(
    alice: Customer, bob: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.pay()
    gateway.cancel(bob.see().subscription_id)
    stripe.advance(120)
    never_answers_for(monkeypatch, alice.bot)
    jobs.read_events()
    assert not bob.see().paid and last().cursor == events(stripe)[-1]
    assert paid.take_due(10) == [alice.bot.pk]


@pytest.mark.usefixtures("begun", "one_clock")
def test_a_refund_that_stripe_never_shows_holds_up_events_for_an_hour(
    make: Maker, bob: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    staff = make.user("stella", is_staff=True)
    gateway.refund_newest(bob.see().subscription_id, "duplicate")

    def away(*told: str) -> None:
        raise gateway.Unreachable(gateway.UNREACHABLE)

    monkeypatch.setattr("billing.money_back.hear", away)
    before = last().cursor
    for minutes in (2, 57):
        stripe.advance(minutes * 60)
        jobs.read_events()
        assert last().cursor == before and not Message.objects.filter(key__contains="unheard").exists()
    stripe.advance(2 * 60)
    jobs.read_events()
    assert last().cursor == events(stripe)[-1]
    assert "could not be read" in Message.objects.get(to=staff.email, key__contains="unheard").text


@pytest.mark.usefixtures("begun", "one_clock")
def test_staff_are_told_once_a_day_of_events_that_can_not_be_read_for_an_hour(
    make: Maker, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    staff = make.user("stella", is_staff=True)

    def away(cursor: str) -> None:
        raise gateway.Unreachable(gateway.UNREACHABLE)

    monkeypatch.setattr(gateway, "events_after", away)
    told = []
    for minutes in (50, 20, 1):
        stripe.advance(minutes * 60)
        jobs.read_events()
        told.append(Message.objects.filter(to=staff.email).count())
    assert told == [0, 1, 1]
    assert "They were last read to their end at " in Message.objects.get(to=staff.email).text


@pytest.mark.usefixtures("begun")
def test_an_event_that_comes_to_light_late_is_not_missed(
    alice: Customer, bob: Customer, stripe: RunningLocalStripe
) -> None:
    """Stripe lists a younger one first, and these a moment later, before it."""
    listed = stripe.app.store.objects["event"]
    before = dict(listed)
    alice.pay()
    late = {key: each for key, each in listed.items() if key not in before}
    listed.clear()
    listed.update(before)
    make_many_events(stripe, bob, 1)
    younger = {key: each for key, each in listed.items() if key not in before}
    jobs.read_events()
    assert not alice.see().paid
    listed.clear()
    listed.update(before | late | younger)
    jobs.read_events()
    assert alice.see().paid


@pytest.mark.usefixtures("begun")
def test_a_run_in_which_nothing_happened_asks_the_database_no_more_for_many_bots(
    make: Maker, bob: Customer, stripe: RunningLocalStripe, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(2):
        jobs.read_events()
    for number in range(30):
        make.bot(paid=True, paid_status="active", subscription_id=f"sub_{number}")
    with django_assert_num_queries(2):
        jobs.read_events()


@pytest.mark.usefixtures("begun", "one_clock")
@pytest.mark.parametrize("number", [10, 90])
def test_a_page_is_compared_in_as_many_queries_however_full_it_is(
    bob: Customer,
    stripe: RunningLocalStripe,
    django_assert_num_queries: DjangoAssertNumQueries,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    monkeypatch.setattr("billing.alarms.tell", lambda *told: None)
    make_many_events(stripe, bob, number)
    stripe.advance(120)
    paid.look(bob.bot.pk)
    with django_assert_num_queries(6):
        jobs.read_events()


@pytest.mark.usefixtures("one_clock")
def test_webhooks_that_never_came_are_counted_and_staff_are_told_once_a_day(
    alice: Customer, make: Maker, stripe: RunningLocalStripe
) -> None:
    staff = make.user("stella", is_staff=True)
    alice.come_back(alice.pay())
    jobs.read_events()
    first = last().pk
    for _ in range(2):
        make_many_events(stripe, alice, 3)
        stripe.advance(120)
        jobs.read_events()
    assert [each.differences for each in Sweep.objects.filter(kind=Sweep.Kind.EVENTS)] == [3, 3]
    assert first in Sweep.objects.values_list("pk", flat=True)
    assert "customer.subscription.updated" in last().words
    mail = Message.objects.get(to=staff.email)
    assert "did not reach us" in mail.text and "/sweep/" in mail.text


def test_runs_that_find_nothing_leave_one_row(alice: Customer, stripe: RunningLocalStripe) -> None:
    alice.come_back(alice.pay())
    for _ in range(3):
        jobs.read_events()
    assert Sweep.objects.filter(kind=Sweep.Kind.EVENTS).count() == 1


def test_every_event_that_is_read_is_sent_as_a_webhook_too() -> None:
    assert set(gateway.events.TYPES) <= set(EVENTS)
    assert len(gateway.events.TYPES) <= 20, "Stripe filters by no more"
