"""Since when a subscription owes: its grace counts from that, and what its owner was told holds whatever is paid."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import stripe as sdk
from django.utils import timezone

from billing import gateway, jobs, paid
from billing.ladder import Rung
from mailer.models import Message
from tests.billing.conftest import Customer
from tests.support.local_stripe import DAY, RunningLocalStripe
from tests.support.make import Maker

pytestmark = pytest.mark.usefixtures("one_clock")
FAILS = "4000000000000341"


def invoices(stripe: RunningLocalStripe) -> list[Any]:
    """The oldest first."""
    return stripe.app.store.all("invoice")


def made(invoice: Any) -> datetime:
    return datetime.fromtimestamp(invoice["created"], UTC)


def cover(stripe: RunningLocalStripe, invoice: Any) -> None:
    """The bank lets through what it declined, and the invoice is paid."""
    for card in stripe.app.store.all("payment_method"):
        card["_fails"] = ""
    sdk.Invoice.pay(invoice["id"])


def void(stripe: RunningLocalStripe, invoice: Any) -> None:
    invoice["status"] = "void"
    invoice["status_transitions"]["voided_at"] = stripe.app.store.now()


@pytest.fixture
def owing(alice: Customer, stripe: RunningLocalStripe) -> Customer:
    """Alice's first renewal fails, and we have seen it."""
    alice.come_back(alice.pay())
    stripe.change_card(alice.open_portal(), FAILS)
    stripe.advance(31 * DAY)
    while invoices(stripe)[-1]["attempt_count"] == 0 or len(invoices(stripe)) < 2:
        stripe.advance(DAY // 4)
    jobs.look_again(str(alice.bot.pk))
    assert alice.see().rung == Rung.GRACE
    return alice


@pytest.fixture
def ended(owing: Customer, stripe: RunningLocalStripe) -> Customer:
    """And days later her subscription was ended."""
    stripe.advance(5 * DAY)
    gateway.cancel(owing.bot.subscription_id)
    jobs.look_again(str(owing.bot.pk))
    assert (owing.see().rung, owing.bot.unpaid_since) == (Rung.KEPT, made(invoices(stripe)[-1]))
    return owing


def test_an_old_invoice_that_stayed_open_takes_nothing_from_a_later_grace(
    alice: Customer, stripe: RunningLocalStripe
) -> None:
    alice.come_back(alice.pay())
    stripe.advance(100 * DAY)
    stripe.change_card(alice.open_portal(), FAILS)
    # As Stripe leaves it when its tries have ended and a later one is paid.
    invoices(stripe)[1].update(status="open", next_payment_attempt=None)
    invoices(stripe)[1]["status_transitions"]["paid_at"] = None
    stripe.advance(26 * DAY)
    jobs.look_again(str(alice.bot.pk))
    bot, newest = alice.see(), invoices(stripe)[-1]
    assert newest["status"] == "open" and bot.paid_status == "past_due"
    assert (bot.rung, bot.unpaid_since) == (Rung.GRACE, made(newest))
    assert bot.runs_until == made(newest) + timedelta(days=14)


def test_of_two_invoices_that_are_open_one_after_the_other_the_older_one_counts(
    owing: Customer, stripe: RunningLocalStripe
) -> None:
    """Or a subscription that is left past due would have a new grace each month."""
    stripe.after_retries("past_due")
    since = owing.bot.unpaid_since
    stripe.advance(40 * DAY)
    jobs.look_again(str(owing.bot.pk))
    assert [each["status"] for each in invoices(stripe)[-2:]] == ["open", "open"]
    assert (owing.see().unpaid_since, owing.bot.rung) == (since, Rung.SUSPENDED)


@pytest.mark.parametrize("settle", [cover, void])
def test_what_is_settled_after_the_end_moves_no_date_that_its_owner_was_told(
    ended: Customer, stripe: RunningLocalStripe, settle: Any
) -> None:
    kept_until, mails = ended.bot.kept_until, Message.objects.count()
    stripe.advance(DAY)
    settle(stripe, invoices(stripe)[-1])
    jobs.look_again(str(ended.bot.pk))
    assert invoices(stripe)[-1]["status"] in ("paid", "void")
    assert (ended.see().rung, ended.bot.kept_until) == (Rung.KEPT, kept_until)
    assert Message.objects.count() == mails


@pytest.mark.parametrize("settle", [cover, void])
def test_who_pays_after_the_end_runs_on_until_the_date_that_staff_gave(
    ended: Customer, stripe: RunningLocalStripe, make: Maker, settle: Any
) -> None:
    until = timezone.now() + timedelta(days=20)
    paid.extend_grace(ended.bot.pk, until, "You wrote to us.", make.user("staff"))
    assert ended.see().rung == Rung.GRACE
    stripe.advance(DAY)
    settle(stripe, invoices(stripe)[-1])
    jobs.look_again(str(ended.bot.pk))
    assert (ended.see().rung, ended.bot.runs_until) == (Rung.GRACE, until)


def test_who_paid_before_the_end_owed_nothing(owing: Customer, stripe: RunningLocalStripe) -> None:
    cover(stripe, invoices(stripe)[-1])
    stripe.advance(5 * DAY)
    gateway.cancel(owing.bot.subscription_id)
    jobs.look_again(str(owing.bot.pk))
    assert (owing.see().rung, owing.bot.unpaid_since) == (Rung.KEPT, None)
    assert owing.bot.paid_until and owing.bot.kept_until == owing.bot.paid_until + timedelta(days=60)


def test_a_cancellation_for_a_later_period_is_one_only_when_nothing_more_is_charged(
    alice: Customer, stripe: RunningLocalStripe
) -> None:
    alice.come_back(alice.pay())
    period_end = alice.see().paid_until
    assert period_end
    ends = period_end + timedelta(days=10)
    sdk.Subscription.modify(alice.bot.subscription_id, cancel_at=int(ends.timestamp()))
    jobs.look_again(str(alice.bot.pk))
    assert (alice.see().rung, alice.bot.paid_until) == (Rung.PAID, period_end), "it is charged once more"
    stripe.advance(int((period_end - timezone.now()).total_seconds()) + DAY)
    jobs.look_again(str(alice.bot.pk))
    assert len(invoices(stripe)) == 2
    assert (alice.see().rung, alice.bot.runs_until) == (Rung.ENDING, ends)
