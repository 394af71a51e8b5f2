"""Lost webhooks and lost jobs: Stripe is looked at all the same. Here no webhook is ever sent."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from billing import gateway, jobs, paid, sweeps
from billing.gateway import Unreachable
from billing.ladder import Rung
from mailer.models import Message
from pubs.models import Bot
from tests.billing.conftest import Customer
from tests.support.local_stripe import DAY, RunningLocalStripe
from tests.support.make import Maker


@pytest.fixture
def no_stripe(monkeypatch: pytest.MonkeyPatch, stripe: RunningLocalStripe) -> None:
    monkeypatch.setattr("stripe.api_base", "http://127.0.0.1:1")
    monkeypatch.setattr("stripe.max_network_retries", 0)


def make_due(*customers: Customer) -> None:
    Bot.objects.filter(pk__in=[each.bot.pk for each in customers]).update(due_at=timezone.now())


def fail_the_renewal(customer: Customer) -> str:
    """Its card fails, and the period ends; the address where the card can be changed."""
    customer.stripe.change_card(portal := customer.open_portal(), "4000000000000341")
    customer.stripe.advance(32 * DAY)
    return portal


def after_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    later = timezone.now() + paid.REST
    monkeypatch.setattr(timezone, "now", lambda: later)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The bots that are looked at from now on."""
    looked: list[Any] = []
    real: Callable[[Any], bool] = paid.look

    def look(bot_id: Any) -> bool:
        looked.append(bot_id)
        return real(bot_id)

    monkeypatch.setattr(paid, "look", look)
    return looked


def test_the_return_page_sees_the_payment(alice: Customer) -> None:
    alice.come_back(alice.pay())
    assert alice.see().paid


@pytest.mark.usefixtures("one_clock")
def test_a_renewal_that_nobody_told_of_is_seen_when_it_is_due(alice: Customer, stripe: RunningLocalStripe) -> None:
    alice.come_back(alice.pay())
    until = alice.see().paid_until
    stripe.advance(32 * DAY)
    jobs.look_at_due()
    bot = alice.see()
    assert bot.paid and until and bot.paid_until and bot.paid_until > until + timedelta(days=25)


@pytest.mark.usefixtures("one_clock")
def test_a_failed_payment_that_nobody_told_of_is_seen_and_mailed_once(
    alice: Customer, stripe: RunningLocalStripe
) -> None:
    alice.come_back(alice.pay())
    fail_the_renewal(alice)
    for _ in range(3):
        jobs.look_at_due()
        make_due(alice)
    assert (alice.see().rung, alice.bot.paid) == (Rung.GRACE, True)
    assert Message.objects.filter(key__startswith="payment_failed:").count() == 1


@pytest.mark.usefixtures("one_clock")
def test_nobody_is_suspended_who_has_paid_in_the_last_moment(alice: Customer, stripe: RunningLocalStripe) -> None:
    alice.come_back(alice.pay())
    portal = fail_the_renewal(alice)
    jobs.look_at_due()
    stripe.change_card(portal)
    stripe.advance(14 * DAY)
    jobs.look_at_due()
    assert (alice.see().rung, alice.bot.paid) == (Rung.PAID, True)
    assert not alice.bot.payment_changes.filter(new=Rung.SUSPENDED).exists()


@pytest.mark.usefixtures("one_clock")
def test_with_stripe_away_nobody_is_suspended_and_later_it_is_made_up_for(
    alice: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.come_back(alice.pay())
    fail_the_renewal(alice)
    jobs.look_at_due()
    stripe.advance(14 * DAY)
    with monkeypatch.context() as away:
        away.setattr("stripe.api_base", "http://127.0.0.1:1")
        away.setattr("stripe.max_network_retries", 0)
        jobs.look_at_due()
        assert alice.see().paid
    jobs.look_at_due()
    assert not alice.see().paid


def test_stripe_that_goes_away_in_the_middle_leaves_the_rest_to_the_next_run(
    alice: Customer, bob: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in (alice, bob):
        each.come_back(each.pay())
        gateway.cancel(each.see().subscription_id)
    make_due(alice, bob)
    real, asked = paid.look, []

    def look(bot_id: Any) -> bool:
        asked.append(bot_id)
        if len(asked) > 1:
            raise Unreachable(gateway.UNREACHABLE)
        return real(bot_id)

    with monkeypatch.context() as away:
        away.setattr(paid, "look", look)
        jobs.look_at_due()
    assert [alice.see().paid, bob.see().paid].count(False) == 1
    jobs.look_at_due()
    assert not alice.see().paid and not bob.see().paid


def never_answers_for(monkeypatch: pytest.MonkeyPatch, *bots: Bot) -> None:
    """Stripe answers 500 whenever it is asked about these."""
    real, silent = gateway.subscriptions_of, {each.pk for each in bots}

    def subscriptions_of(bot: Bot) -> Any:
        if bot.pk in silent:
            raise Unreachable(gateway.UNREACHABLE)
        return real(bot)

    monkeypatch.setattr(gateway, "subscriptions_of", subscriptions_of)


def test_those_that_stripe_never_answers_for_hold_up_nobody(
    make: Maker, bob: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob.come_back(bob.pay())
    gateway.cancel(bob.see().subscription_id)
    long_ago = timezone.now() - timedelta(days=1)
    silent = [make.bot(due_at=long_ago) for _ in range(sweeps.IN_A_ROW + 1)]
    never_answers_for(monkeypatch, *silent)
    make_due(bob)
    looked = counted(monkeypatch)
    jobs.look_at_due()
    assert len(looked) == sweeps.IN_A_ROW and bob.see().paid, "it seems to be away"
    jobs.look_at_due()
    assert not bob.see().paid
    assert set(paid.take_due(10)) == {each.pk for each in silent}


def test_one_unreadable_subscription_hides_no_other_and_rests(
    make: Maker, alice: Customer, bob: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    staff = make.user("stella", is_staff=True)
    alice.come_back(alice.pay())
    bob.come_back(bob.pay())
    stripe.app.store.objects["subscription"][alice.see().subscription_id]["status"] = "a word of tomorrow"
    gateway.cancel(bob.see().subscription_id)
    make_due(alice, bob)
    Bot.objects.filter(pk=alice.bot.pk).update(due_at=timezone.now() - timedelta(days=1))
    looked = counted(monkeypatch)
    jobs.look_at_due()
    assert alice.see().paid
    assert not bob.see().paid
    jobs.look_at_due()
    assert looked == [alice.bot.pk, bob.bot.pk], "it rests now"
    mail = Message.objects.get(to=staff.email)
    assert "could not be looked at" in mail.text and "a word of tomorrow" in mail.text
    after_a_rest(monkeypatch)
    jobs.look_at_due()
    assert looked == [alice.bot.pk, bob.bot.pk, alice.bot.pk]


def test_a_look_that_was_killed_is_made_up_for(alice: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    alice.come_back(alice.pay())
    make_due(alice)
    assert paid.take_due(10) == [alice.bot.pk], "and then the worker is killed"
    looked = counted(monkeypatch)
    jobs.look_at_due()
    assert looked == []
    after_a_rest(monkeypatch)
    jobs.look_at_due()
    assert looked == [alice.bot.pk]


def test_a_run_looks_at_so_many_and_the_next_at_the_rest(
    make: Maker, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    bots = {make.bot(due_at=timezone.now()).pk for _ in range(5)}
    monkeypatch.setattr(sweeps, "LOOKS_A_RUN", 3)
    looked = counted(monkeypatch)
    jobs.look_at_due()
    assert len(looked) == 3
    jobs.look_at_due()
    assert set(looked) == bots and len(looked) == 5


@pytest.mark.parametrize("bots", [1, 30])
def test_a_run_with_nothing_due_asks_the_database_once(
    make: Maker, no_stripe: None, django_assert_num_queries: DjangoAssertNumQueries, bots: int
) -> None:
    later = timezone.now() + timedelta(hours=1)
    for number in range(bots):
        make.bot(paid=True, paid_status="active", subscription_id=f"sub_{number}", due_at=later if number % 2 else None)
    with django_assert_num_queries(1):
        jobs.look_at_due()


def test_a_subscription_that_stripe_does_not_know_stops_nobody(
    alice: Customer, stripe: RunningLocalStripe, caplog: pytest.LogCaptureFixture
) -> None:
    alice.come_back(alice.pay())
    stripe.app.store.objects["subscription"].clear()
    make_due(alice)
    before = alice.see().paid_seen_at
    jobs.look_at_due()
    assert alice.see().paid
    assert "knows no subscription" in caplog.text
    assert before and alice.bot.paid_seen_at and alice.bot.paid_seen_at > before


def test_a_customer_deleted_at_stripe_ends_the_pub(alice: Customer, stripe: RunningLocalStripe) -> None:
    alice.come_back(alice.pay())
    stripe.client.v1.customers.delete(gateway.customer_for(alice.bot.owner).id)
    paid.look(alice.bot.pk)
    assert (alice.see().rung, alice.bot.paid_status) == (Rung.KEPT, "canceled")
    alice.come_back(alice.pay())
    assert alice.see().rung == Rung.PAID


def test_a_job_for_a_pub_that_is_gone_is_no_error(db: None) -> None:
    jobs.look_again("00000000-0000-0000-0000-000000000000")


# --- Two at once -----------------------------------------------------------------------------------------------------
def meanwhile(monkeypatch: pytest.MonkeyPatch, asked: str, happens: Callable[[], object]) -> None:
    """Once Stripe has answered a question, something else happens before the answer is written down."""
    real = getattr(gateway, asked)

    def answer(*args: Any) -> Any:
        monkeypatch.setattr(gateway, asked, real)
        read = real(*args)
        happens()
        return read

    monkeypatch.setattr(gateway, asked, answer)


def test_of_two_looks_at_once_the_later_reading_stays(alice: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    alice.come_back(alice.pay())

    def ends_and_is_looked_at() -> None:
        gateway.cancel(alice.see().subscription_id)
        paid.look(alice.bot.pk)

    meanwhile(monkeypatch, "subscriptions_of", ends_and_is_looked_at)
    assert not paid.look(alice.bot.pk)
    assert (alice.see().paid_status, alice.bot.rung) == ("canceled", Rung.KEPT)


def test_a_webhook_in_the_middle_of_a_look_is_not_overwritten(alice: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    alice.come_back(alice.pay())

    def ends_and_a_webhook_tells() -> None:
        gateway.cancel(alice.see().subscription_id)
        read = gateway.read_subscription(alice.bot.subscription_id)
        assert read
        paid.record(read)

    meanwhile(monkeypatch, "subscriptions_of", ends_and_a_webhook_tells)
    paid.look(alice.bot.pk)
    assert (alice.see().paid_status, alice.bot.rung) == ("canceled", Rung.KEPT)


def test_a_payment_in_the_middle_of_a_look_that_found_none_stays(
    alice: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def pays() -> None:
        alice.come_back(alice.pay())
        seen.append(alice.see().paid_seen_at)

    meanwhile(monkeypatch, "subscriptions_of", pays)
    assert not paid.look(alice.bot.pk)
    assert alice.see().paid and [alice.bot.paid_seen_at] == seen


def test_looking_again_and_again_writes_and_tells_nothing_new(alice: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    alice.come_back(alice.pay())
    told: list[str] = []
    monkeypatch.setattr("pubs.live.changed", lambda bot_id: told.append("page"))
    monkeypatch.setattr("pubs.live.nudge", lambda: told.append("orchestrator"))
    before = Bot.objects.values().get()
    assert not paid.look(alice.bot.pk)
    after = Bot.objects.values().get()
    assert {name for name in after if after[name] != before[name]} == {"paid_seen_at"}
    assert told == [] and alice.bot.payment_changes.count() == 1


# --- At sign-in ------------------------------------------------------------------------------------------------------
@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[Any]]]:
    """The jobs that are asked for."""
    jobs_asked: list[tuple[str, list[Any]]] = []
    monkeypatch.setattr("celery.current_app.send_task", lambda name, args=(): jobs_asked.append((name, list(args))))
    return jobs_asked


def sign_in(customer: Customer) -> None:
    customer.bot.owner.set_password("a long password")
    customer.bot.owner.save()
    assert Client().login(username=customer.bot.owner.email, password="a long password")


@pytest.mark.django_db(transaction=True)
def test_signing_in_has_the_pub_looked_at_that_waits_for_its_payment(
    alice: Customer, asked: list[tuple[str, list[Any]]]
) -> None:
    alice.pay()
    asked.clear()
    sign_in(alice)
    [(name, args)] = [each for each in asked if each[0].startswith("billing.")]
    assert (name, args) == ("billing.look_at_waiting", [alice.bot.owner.pk])
    Bot.objects.update(paid_seen_at=timezone.now() - timedelta(minutes=1))
    jobs.look_at_waiting(*args)
    assert alice.see().paid


@pytest.mark.django_db(transaction=True)
def test_signing_in_works_while_the_broker_is_away(alice: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no broker")

    monkeypatch.setattr("celery.current_app.send_task", broken)
    sign_in(alice)


def test_at_sign_in_nothing_is_asked_about_pubs_that_are_paid_new_or_seen_a_moment_ago(
    alice: Customer, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.come_back(alice.pay())
    make.bot(alice.bot.owner)
    make.bot(alice.bot.owner, asked_at=timezone.now(), paid_seen_at=timezone.now())
    looked = counted(monkeypatch)
    jobs.look_at_waiting(alice.bot.owner.pk)
    assert looked == []


@pytest.mark.usefixtures("no_stripe")
def test_at_sign_in_stripe_may_be_away_and_the_pub_is_looked_at_later(make: Maker) -> None:
    bot = make.bot(rung=Rung.SUSPENDED, subscription_id="sub_1", paid_status="unpaid")
    jobs.look_at_waiting(bot.owner.pk)
    assert paid.take_due(10) == [bot.pk]
