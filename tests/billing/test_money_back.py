"""Refunds and disputes, wherever they were made: in the pub's history, and in a mail to staff."""

from typing import Any

import pytest
import stripe as sdk

from accounts.models import User
from billing import gateway, jobs, paid
from mailer.models import Message
from tests.billing.conftest import Customer
from tests.support.local_stripe import DAY, RunningLocalStripe, wait_until
from tests.support.make import Maker

DISPUTED = "4000000000000259"


@pytest.fixture
def staff(make: Maker) -> User:
    return make.user("stella", is_staff=True)


@pytest.fixture
def begun(alice: Customer) -> None:
    """Events are read from here on."""
    gateway.customer_for(alice.bot.owner)
    alice.come_back(alice.pay())
    jobs.read_events()


def history(customer: Customer) -> list[str]:
    return list(customer.bot.payment_changes.order_by("pk").values_list("words", flat=True))


def alarms(staff: User) -> list[str]:
    return list(Message.objects.filter(to=staff.email, key__startswith="staff_alarm:").values_list("text", flat=True))


def refund_in_the_dashboard(stripe: RunningLocalStripe, amount: int) -> Any:
    return sdk.Refund.create(payment_intent=stripe.app.store.all("payment_intent")[0]["id"], amount=amount)


def dispute(customer: Customer) -> Any:
    """The next payment is disputed."""
    stripe = customer.stripe
    stripe.change_card(customer.open_portal(), DISPUTED)
    for _ in range(2):
        stripe.advance(16 * DAY)
        jobs.read_events()
    [made] = stripe.app.store.all("dispute")
    return made


@pytest.mark.usefixtures("begun", "staff")
def test_what_was_given_back_in_the_dashboard_is_in_the_history_once_and_staff_are_told(
    alice: Customer, stripe: RunningLocalStripe, staff: User
) -> None:
    refund_in_the_dashboard(stripe, 250)
    for _ in range(3):
        jobs.read_events()
    assert history(alice)[1:] == ["€2.50 was given back to the card that paid it."]
    [alarm] = alarms(staff)
    assert "€2.50 was given back in Stripe's dashboard" in alarm and "https://dashboard.stripe.com/test/pay" in alarm
    assert alice.see().paid


@pytest.mark.usefixtures("begun")
def test_what_we_gave_back_is_no_news_to_staff(alice: Customer, stripe: RunningLocalStripe, staff: User) -> None:
    back = gateway.refund_newest(alice.see().subscription_id, "requested_by_customer")
    assert back
    jobs.read_events()
    assert history(alice)[1:] == [paid.given_back(900, "eur")]
    assert alarms(staff) == []


@pytest.mark.usefixtures("begun")
def test_a_refund_that_the_bank_refuses_is_told(alice: Customer, stripe: RunningLocalStripe, staff: User) -> None:
    refund = refund_in_the_dashboard(stripe, 900)
    stripe.app.store.get("refund", refund.id)["status"] = "failed"
    stripe.app.webhooks.emit("refund.failed", stripe.app.store.get("refund", refund.id))
    jobs.read_events()
    assert history(alice)[-1] == "The bank refused €9 that we gave back."
    assert "could not be given back" in alarms(staff)[-1]


@pytest.mark.usefixtures("begun", "one_clock")
def test_a_dispute_is_told_with_its_reason_and_date_and_stops_nothing(
    alice: Customer, stripe: RunningLocalStripe, staff: User
) -> None:
    made = dispute(alice)
    for _ in range(3):
        jobs.read_events()
    assert history(alice).count("A payment of €9 is disputed at its bank.") == 1
    [alarm] = [each for each in alarms(staff) if "disputed" in each]
    assert (
        "fraudulent" in alarm and "Answer by" in alarm and f"dashboard.stripe.com/test/disputes/{made['id']}" in alarm
    )
    assert alice.see().paid


@pytest.mark.usefixtures("begun", "one_clock")
@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("won", "The dispute about €9 is over: the payment stands."),
        ("lost", "The dispute about €9 is over: the bank gave it back to its customer."),
    ],
)
def test_how_a_dispute_ended_is_told_and_even_a_lost_one_stops_nothing(
    alice: Customer, stripe: RunningLocalStripe, staff: User, verdict: str, words: str
) -> None:
    made = dispute(alice)
    jobs.read_events()
    stripe.app.money.charges.close(made, verdict)
    for _ in range(2):
        jobs.read_events()
    assert history(alice).count(words) == 1
    assert any(words in each for each in alarms(staff))
    assert alice.see().paid


@pytest.mark.usefixtures("site")
def test_webhooks_tell_of_refunds_and_disputes_at_once(
    alice: Customer, stripe: RunningLocalStripe, staff: User
) -> None:
    alice.pay()
    stripe.settle()
    wait_until(lambda: alice.see().paid, "the payment to be seen")
    refund_in_the_dashboard(stripe, 100)
    wait_until(lambda: paid.given_back(100, "eur") in history(alice), "the refund to be in the history")
    stripe.change_card(alice.open_portal(), DISPUTED)
    stripe.advance(32 * DAY)
    wait_until(lambda: "A payment of €9 is disputed at its bank." in history(alice), "the dispute to be there")


@pytest.mark.usefixtures("begun")
def test_money_that_is_about_no_pub_is_no_error(alice: Customer, stripe: RunningLocalStripe, staff: User) -> None:
    price = gateway.offers()[0].price_id
    customer = gateway.customer_for(alice.bot.owner)
    sdk.Subscription.create(customer=customer.id, items=[{"price": price}])
    sdk.Refund.create(payment_intent=stripe.app.store.all("payment_intent")[-1]["id"])
    jobs.read_events()
    assert len(history(alice)) == 1 and alarms(staff) == []


@pytest.mark.usefixtures("begun")
def test_a_refund_that_cannot_be_read_holds_up_nothing_and_staff_are_told(
    alice: Customer, bob: Customer, stripe: RunningLocalStripe, staff: User
) -> None:
    refund = refund_in_the_dashboard(stripe, 250)
    stripe.app.store.remove("refund", refund.id)
    bob.pay()
    jobs.read_events()
    assert bob.see().paid
    [alarm] = alarms(staff)
    assert refund.id in alarm and "could not be read" in alarm


@pytest.mark.usefixtures("begun")
def test_with_stripe_away_a_refund_is_read_by_a_later_run(
    alice: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    refund = refund_in_the_dashboard(stripe, 250)

    def away(refund_id: str) -> None:
        raise gateway.Unreachable(gateway.UNREACHABLE)

    with monkeypatch.context() as patch:
        patch.setattr(gateway, "read_refund", away)
        jobs.read_events()
        jobs.hear_of_money("refund.created", refund.id)
    assert len(history(alice)) == 1
    jobs.read_events()
    assert len(history(alice)) == 2
