"""What is owed is charged to a better card by us: Stripe saves a new one, and charges nothing for that by itself."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import stripe as sdk
from django.db import connection
from django.urls import reverse
from django.utils import timezone

from billing import gateway, jobs, paid
from billing.ladder import Rung
from pubs.models import Bot
from tests.billing.conftest import Calendar, Customer
from tests.billing.test_stripe_away import at_each_call
from tests.support.local_stripe import DAY, RunningLocalStripe

FAILS = "4000000000000341"
BANK_ASKS = "4000002760003184"


@pytest.fixture
def failed_alice(alice: Customer, stripe: RunningLocalStripe, one_clock: None) -> Customer:
    """Her card failed at the first renewal, and no webhook told of it."""
    alice.come_back(alice.pay())
    fail_renewal(alice)
    paid.look(alice.bot.pk)
    jobs.read_events()
    assert (alice.see().rung, alice.bot.paid_status) == (Rung.GRACE, "past_due")
    return alice


def fail_renewal(customer: Customer) -> None:
    customer.stripe.change_card(customer.open_portal(), FAILS)
    customer.stripe.advance(32 * DAY)


def invoices(stripe: RunningLocalStripe) -> list[str]:
    return [each["status"] for each in stripe.app.store.all("invoice")]


def charges(stripe: RunningLocalStripe) -> list[str]:
    return [each["status"] for each in stripe.app.store.all("charge")]


def new_card(customer: Customer, number: str = "4242424242424242") -> str:
    """A card saved as the customer's default alone: the subscription keeps its own."""
    v1, owner = customer.stripe.client.v1, gateway.customer_for(customer.bot.owner).id
    values: Any = {"type": "card", "card": {"number": number, "exp_month": 12, "exp_year": 2060}}
    card = v1.payment_methods.create(values).id
    v1.payment_methods.attach(card, {"customer": owner})
    v1.customers.update(owner, {"invoice_settings": {"default_payment_method": card}})
    return card


@pytest.mark.parametrize("webhooks", ["deliver", "drop"])
def test_a_card_changed_in_the_portal_is_charged_once_by_us(
    calendar: Calendar, alice: Customer, stripe: RunningLocalStripe, webhooks: str
) -> None:
    alice.come_back(alice.pay())
    calendar.hours(1)
    fail_renewal(alice)
    calendar.hours(1)
    assert alice.see().rung == Rung.GRACE
    stripe.webhooks(webhooks)
    stripe.change_card(alice.open_portal())
    assert invoices(stripe) == ["paid", "open"]
    for _ in range(3):
        calendar.hours(0.01)
    assert (alice.see().rung, alice.bot.paid_status) == (Rung.PAID, "active")
    assert invoices(stripe) == ["paid", "paid"] and charges(stripe) == ["succeeded", "failed", "succeeded"]


def test_a_return_from_the_portal_is_enough(
    failed_alice: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pubs.live.look_at_payment", lambda bot_id: jobs.look_again(str(bot_id)))
    stripe.change_card(failed_alice.open_portal())
    failed_alice.come_back(reverse("billing:return", args=[failed_alice.bot.pk]))
    assert failed_alice.see().rung == Rung.PAID


def test_a_card_that_was_declined_is_not_tried_again(failed_alice: Customer, stripe: RunningLocalStripe) -> None:
    stripe.change_card(failed_alice.open_portal(), FAILS)
    for _ in range(4):
        paid.look(failed_alice.bot.pk)
        stripe.advance(60)
        jobs.read_events()
    assert charges(stripe) == ["succeeded", "failed", "failed"]
    assert failed_alice.see().rung == Rung.GRACE


def test_two_cards_that_were_declined_are_not_tried_by_turns(
    failed_alice: Customer, stripe: RunningLocalStripe
) -> None:
    """The customer's own card and the subscription's are two."""
    new_card(failed_alice, FAILS)
    for _ in range(4):
        paid.look(failed_alice.bot.pk)
    assert charges(stripe) == ["succeeded", "failed", "failed"]


def test_the_customers_card_pays_and_is_the_subscriptions_from_then_on(
    failed_alice: Customer, stripe: RunningLocalStripe
) -> None:
    card = new_card(failed_alice)
    jobs.read_events()
    assert failed_alice.see().rung == Rung.PAID
    assert stripe.app.store.get("subscription", failed_alice.bot.subscription_id)["default_payment_method"] == card
    stripe.advance(31 * DAY)
    assert invoices(stripe) == ["paid"] * 3


def test_a_customer_who_owes_nothing_is_charged_nothing_for_a_new_card(
    alice: Customer, stripe: RunningLocalStripe
) -> None:
    alice.come_back(alice.pay())
    stripe.change_card(alice.open_portal())
    paid.look(alice.bot.pk)
    assert charges(stripe) == ["succeeded"]


@pytest.mark.django_db(transaction=True)
def test_two_looks_at_once_charge_once(failed_alice: Customer, stripe: RunningLocalStripe) -> None:
    stripe.change_card(failed_alice.open_portal())

    def look(_: int) -> None:
        try:
            paid.look(failed_alice.bot.pk)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(look, range(4)))
    assert failed_alice.see().rung == Rung.PAID
    assert invoices(stripe) == ["paid", "paid"] and charges(stripe) == ["succeeded", "failed", "succeeded"]


def test_an_invoice_that_somebody_else_paid_meanwhile_is_fine(
    failed_alice: Customer,
    stripe: RunningLocalStripe,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stripe.change_card(failed_alice.open_portal())
    real = sdk.Invoice.pay

    def pay(invoice_id: str, **more: Any) -> Any:
        stripe.pay_invoice(invoice_id)
        return real(invoice_id, **more)

    monkeypatch.setattr(sdk.Invoice, "pay", pay)
    paid.look(failed_alice.bot.pk)
    assert failed_alice.see().rung == Rung.PAID and charges(stripe).count("succeeded") == 2
    assert not caplog.records


def test_what_is_unpaid_is_charged_with_its_newest_invoice_and_no_older_draft(
    failed_alice: Customer, stripe: RunningLocalStripe
) -> None:
    """The pub ran for what is open, and stood still for the older drafts."""
    stripe.after_retries("unpaid")
    stripe.advance(65 * DAY)
    paid.look(failed_alice.bot.pk)
    assert (failed_alice.see().rung, failed_alice.bot.paid_status) == (Rung.SUSPENDED, "unpaid")
    assert invoices(stripe) == ["paid", "open", "draft", "draft"]
    stripe.change_card(failed_alice.open_portal())
    for _ in range(2):
        paid.look(failed_alice.bot.pk)
    assert (failed_alice.see().rung, failed_alice.bot.paid_status) == (Rung.PAID, "active")
    assert invoices(stripe) == ["paid", "paid", "draft", "paid"] and charges(stripe).count("succeeded") == 3
    stripe.advance(31 * DAY)
    assert invoices(stripe) == ["paid", "paid", "draft", "paid", "paid"], "and it is renewed as before"


def test_a_look_that_breaks_off_before_the_draft_is_paid_is_completed_by_the_next_one(
    failed_alice: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    stripe.after_retries("unpaid")
    stripe.advance(40 * DAY)
    stripe.change_card(failed_alice.open_portal())
    real = sdk.Invoice.finalize_invoice

    def killed(*args: Any, **more: Any) -> Any:
        real(*args, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as once:
        once.setattr(sdk.Invoice, "finalize_invoice", killed)
        with pytest.raises(KeyboardInterrupt):
            paid.look(failed_alice.bot.pk)
    assert invoices(stripe) == ["paid", "paid", "open"]
    paid.look(failed_alice.bot.pk)
    assert failed_alice.see().rung == Rung.PAID and invoices(stripe) == ["paid"] * 3


@pytest.mark.parametrize("how", ["answer lost", "500"])
def test_wherever_a_look_breaks_off_the_next_ones_charge_each_invoice_once(
    failed_alice: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("stripe.max_network_retries", 0)
    stripe.after_retries("unpaid")
    stripe.advance(40 * DAY)
    stripe.change_card(failed_alice.open_portal())

    def look(_: int) -> None:
        with suppress(gateway.PaymentTrouble):
            paid.look(failed_alice.bot.pk)

    for _ in at_each_call(look, how):
        pass
    assert failed_alice.see().rung == Rung.PAID
    assert invoices(stripe) == ["paid"] * 3 and charges(stripe).count("succeeded") == 3


def test_a_comparison_has_another_card_charged(failed_alice: Customer, stripe: RunningLocalStripe) -> None:
    """Its event and the job that it asked for are lost."""
    new_card(failed_alice)
    jobs.compare_all()
    assert failed_alice.see().rung == Rung.PAID


def test_nothing_is_charged_for_a_pub_that_is_deleted(failed_alice: Customer, stripe: RunningLocalStripe) -> None:
    stripe.change_card(failed_alice.open_portal())
    Bot.objects.update(deleted_at=timezone.now())
    paid.look(failed_alice.bot.pk)
    assert failed_alice.see().paid_status == "canceled"
    assert charges(stripe) == ["succeeded", "failed"]


def test_where_the_bank_asks_the_owner_pays_on_the_invoice_in_the_portal(
    failed_alice: Customer, stripe: RunningLocalStripe
) -> None:
    """Nobody can be asked by us: the card is tried once, and the invoice stays open in the portal."""
    portal = failed_alice.open_portal()
    stripe.change_card(portal, BANK_ASKS)
    for _ in range(2):
        paid.look(failed_alice.bot.pk)
    assert failed_alice.see().rung == Rung.GRACE
    assert stripe.app.store.all("charge")[-1]["failure_code"] == "authentication_required"
    assert charges(stripe) == ["succeeded", "failed", "failed"]
    owed = stripe.app.store.all("invoice")[-1]
    assert f'href="{owed["hosted_invoice_url"]}"' in stripe.see(portal)[1]
    stripe.pay_invoice(owed["id"], BANK_ASKS)
    jobs.read_events()
    assert failed_alice.see().rung == Rung.PAID
