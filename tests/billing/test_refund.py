"""Money given back: all of a payment or a part, once, in its own currency, and what both sides read of it."""

import re
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from pytest_django import Settings

from billing import gateway, paid
from billing.gateway import Refused
from billing.money import units
from pubs.models import PaymentChange
from tests.billing.conftest import Customer
from tests.billing.test_staff import act
from tests.support.local_stripe import DAY, RunningLocalStripe

WHY = "You could not use it."
ASKED = "requested_by_customer"


@pytest.fixture
def payer(alice: Customer) -> Customer:
    """She paid €9 for a month."""
    alice.come_back(alice.pay())
    alice.see()
    return alice


def refunds(stripe: RunningLocalStripe) -> list[int]:
    """What Stripe gave back, oldest first."""
    return [each["amount"] for each in stripe.app.store.all("refund")]


def remarks(customer: Customer) -> list[str]:
    """What the owner reads of money given back."""
    found = PaymentChange.objects.filter(bot=customer.bot, key__startswith="re_").order_by("id")
    return list(found.values_list("words", flat=True))


def open_form(client: Client, customer: Customer) -> dict[str, str]:
    """What the form is sent with if nobody touches it but for the reason."""
    page = act(client, "give_back", customer.bot)
    once = re.search(r'name="once" value="(\w{32})"', page)
    chosen = re.search(r'value="(in_\w+)"[^>]* checked', page)
    assert once and chosen, page
    return {"once": once[1], "invoice": chosen[1], "reason": ASKED, "words": WHY}


# --- at the gateway ---------------------------------------------------------------------------------------------------
def test_what_was_paid_is_listed_newest_first(payer: Customer, stripe: RunningLocalStripe) -> None:
    stripe.advance(32 * DAY)
    newest, oldest = gateway.paid_invoices(payer.bot)
    assert newest.at > oldest.at and newest.number != oldest.number
    assert (newest.amount, newest.refunded, newest.left, newest.currency) == (900, 0, 900, "eur")
    gateway.refund(oldest.id, ASKED, WHY, 250)
    assert [each.left for each in gateway.paid_invoices(payer.bot)] == [900, 650]


def test_another_pub_of_the_same_owner_has_its_own_payments(
    payer: Customer, bob: Customer, stripe: RunningLocalStripe
) -> None:
    payer.bot.owner.bots.add(bob.bot)
    bob.browser.force_login(payer.bot.owner)
    bob.pay()
    assert len(stripe.app.store.all("customer")) == 1
    [mine], [other] = gateway.paid_invoices(payer.bot), gateway.paid_invoices(bob.see())
    assert mine.id != other.id


def test_all_of_a_payment_goes_back_once(payer: Customer, stripe: RunningLocalStripe) -> None:
    [invoice] = gateway.paid_invoices(payer.bot)
    first = gateway.refund(invoice.id, ASKED, WHY)
    assert (first.amount, first.currency, first.number) == (900, "eur", invoice.number)
    assert gateway.refund(invoice.id, ASKED, WHY) == first, "what is given back already is fine"
    [made] = stripe.app.store.all("refund")
    assert made["reason"] == ASKED and made["metadata"] == {"invoice": invoice.id, "words": WHY}


def test_what_is_left_goes_back_after_a_part(payer: Customer, stripe: RunningLocalStripe) -> None:
    [invoice] = gateway.paid_invoices(payer.bot)
    gateway.refund(invoice.id, ASKED, WHY, 250)
    gateway.refund(invoice.id, ASKED, WHY)
    assert refunds(stripe) == [250, 650]


def test_the_same_form_gives_back_once_and_another_form_again(payer: Customer, stripe: RunningLocalStripe) -> None:
    [invoice] = gateway.paid_invoices(payer.bot)
    one = gateway.refund(invoice.id, ASKED, WHY, 100, once="one")
    assert gateway.refund(invoice.id, ASKED, WHY, 100, once="one") == one
    assert gateway.refund(invoice.id, ASKED, WHY, 100, once="two") != one
    with pytest.raises(Refused, match="begin anew"):
        gateway.refund(invoice.id, ASKED, WHY, 200, once="two")
    assert refunds(stripe) == [100, 100]


@pytest.mark.parametrize("once", ["", "a form"])
def test_refunds_asked_for_at_once_are_one(payer: Customer, stripe: RunningLocalStripe, once: str) -> None:
    [invoice] = gateway.paid_invoices(payer.bot)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(gateway.refund, invoice.id, ASKED, WHY, None, once) for _ in range(4)]
    assert len({each.result().id for each in asked}) == 1 and refunds(stripe) == [900]


def test_more_than_is_left_is_refused_in_stripes_words(payer: Customer, stripe: RunningLocalStripe) -> None:
    [invoice] = gateway.paid_invoices(payer.bot)
    with pytest.raises(Refused, match=r"Stripe refuses: .*greater than"):
        gateway.refund(invoice.id, ASKED, WHY, 901)
    assert refunds(stripe) == []


def test_a_disputed_payment_is_refused_in_stripes_words(alice: Customer, stripe: RunningLocalStripe) -> None:
    alice.come_back(alice.pay("4000000000000259"))
    stripe.advance(3600)
    assert stripe.app.store.all("dispute")
    [invoice] = gateway.paid_invoices(alice.see())
    with pytest.raises(Refused, match="charged back"):
        gateway.refund(invoice.id, ASKED, WHY)


def test_the_newest_payment_of_a_subscription_goes_back(payer: Customer, stripe: RunningLocalStripe) -> None:
    stripe.advance(32 * DAY)
    newest, _ = gateway.paid_invoices(payer.bot)
    for _ in range(2):
        back = gateway.refund_newest(payer.bot.subscription_id, "duplicate")
        assert back and (back.number, back.amount) == (newest.number, 900)
    assert refunds(stripe) == [900]


def test_a_subscription_that_never_charged_gives_nothing_back(alice: Customer, stripe: RunningLocalStripe) -> None:
    customer = gateway.customer_for(alice.bot.owner)
    price = stripe.make_price()
    wish: Any = {"customer": customer.id, "items": [{"price": price.id}], "trial_period_days": 7}
    trial = stripe.client.v1.subscriptions.create({**wish, "metadata": {"bot": str(alice.bot.pk)}})
    assert gateway.refund_newest(trial.id, "duplicate") is None
    assert gateway.paid_invoices(alice.bot) == []


# --- by staff ---------------------------------------------------------------------------------------------------------
def test_staff_give_all_of_a_payment_back(
    admin_client: Client, admin_user: Any, payer: Customer, stripe: RunningLocalStripe
) -> None:
    form = open_form(admin_client, payer)
    assert refunds(stripe) == [], "nothing happens before the form is sent"
    said = act(admin_client, "give_back", payer.bot, **form)
    assert "€9 of invoice" in said and "goes back." in said
    assert refunds(stripe) == [900]
    assert remarks(payer) == [f"€9 was given back to the card that paid it. {WHY}"]
    assert PaymentChange.objects.get(key__startswith="re_").by == admin_user
    assert WHY in LogEntry.objects.get().get_change_message()
    assert payer.see().paid, "staff said nothing of its end"
    assert "There is nothing to give back" in act(admin_client, "give_back", payer.bot)


def test_staff_give_a_part_back_and_then_the_rest(
    admin_client: Client, payer: Customer, stripe: RunningLocalStripe
) -> None:
    act(admin_client, "give_back", payer.bot, **open_form(admin_client, payer), amount="2.50")
    assert "€9, paid on" in (page := act(admin_client, "give_back", payer.bot)) and "€2.50 of it given back" in page
    act(admin_client, "give_back", payer.bot, **open_form(admin_client, payer))
    assert refunds(stripe) == [250, 650]
    assert [words.split(" ")[0] for words in remarks(payer)] == ["€2.50", "€6.50"]


def test_a_form_that_is_sent_twice_gives_back_once(
    admin_client: Client, payer: Customer, stripe: RunningLocalStripe
) -> None:
    form = open_form(admin_client, payer)
    for _ in range(2):
        act(admin_client, "give_back", payer.bot, **form, amount="2")
    assert refunds(stripe) == [200] and len(remarks(payer)) == 1


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        ("9.01", "It must be between nothing and €9"),
        ("0", "It must be between nothing and €9"),
        ("-1", "It must be between nothing and €9"),
        ("1.005", "An amount in EUR has 2 digits after the point."),
        ("1,50", "Enter a number."),
        ("NaN", "Enter a number."),
        ("1e99", "no more than"),
    ],
)
def test_an_amount_that_can_not_go_back_is_refused(
    admin_client: Client, payer: Customer, stripe: RunningLocalStripe, amount: str, said: str
) -> None:
    form = open_form(admin_client, payer)
    page = act(admin_client, "give_back", payer.bot, **form, amount=amount)
    assert said in page and form["once"] in page
    assert refunds(stripe) == [] and remarks(payer) == [] and not LogEntry.objects.exists()


def test_an_invoice_of_somebody_else_can_not_be_chosen(
    admin_client: Client, payer: Customer, bob: Customer, stripe: RunningLocalStripe
) -> None:
    bob.come_back(bob.pay())
    [other] = gateway.paid_invoices(bob.see())
    form = open_form(admin_client, payer) | {"invoice": other.id}
    assert "Select a valid choice" in act(admin_client, "give_back", payer.bot, **form)
    assert refunds(stripe) == []


@pytest.mark.parametrize(
    ("amount", "given"), [("1.5", "An amount in JPY has no digits after the point."), ("150", [150])]
)
def test_a_currency_without_small_coins_is_given_back_in_whole_ones(
    admin_client: Client,
    alice: Customer,
    stripe: RunningLocalStripe,
    settings: Settings,
    amount: str,
    given: str | list[int],
) -> None:
    settings.PRICE_CURRENCY = "jpy"
    gateway.set_up_catalogue()
    alice.come_back(alice.pay())
    alice.see()
    page = act(admin_client, "give_back", alice.bot, **open_form(admin_client, alice), amount=amount)
    assert (given in page) if isinstance(given, str) else (refunds(stripe) == given and "¥150 of invoice" in page)


@pytest.mark.parametrize(
    ("written", "currency", "counted"),
    [
        ("9.50", "eur", 950),
        ("150", "jpy", 150),
        ("3.5", "kwd", 3500),
        ("3.505", "kwd", None),  # Stripe wants its thousandths by the ten
        ("990", "isk", 99000),
        ("1.5", "isk", None),
    ],
)
def test_an_amount_is_counted_as_stripe_counts(written: str, currency: str, counted: int | None) -> None:
    if counted is None:
        with pytest.raises(ValueError, match="digits after the point"):
            units(Decimal(written), currency)
    else:
        assert units(Decimal(written), currency) == counted


def test_staff_end_the_subscription_with_the_refund(
    admin_client: Client, payer: Customer, stripe: RunningLocalStripe
) -> None:
    said = act(admin_client, "give_back", payer.bot, **open_form(admin_client, payer), end="on")
    assert "The subscription has ended." in said
    [subscription] = stripe.app.store.all("subscription")
    assert subscription["status"] == "canceled" and refunds(stripe) == [900]
    assert (payer.see().paid, payer.bot.rung) == (False, "kept")


def test_what_has_ended_is_still_given_back(admin_client: Client, payer: Customer, stripe: RunningLocalStripe) -> None:
    gateway.cancel(payer.bot.subscription_id)
    paid.look(payer.bot.pk)
    payer.see()
    assert 'name="end"' not in act(admin_client, "give_back", payer.bot)
    act(admin_client, "give_back", payer.bot, **open_form(admin_client, payer))
    assert refunds(stripe) == [900]


def test_a_refusal_of_stripe_is_read_by_staff_and_leaves_no_trace(
    admin_client: Client, payer: Customer, stripe: RunningLocalStripe
) -> None:
    form = open_form(admin_client, payer)
    stripe.app.store.all("charge")[0]["disputed"] = True
    assert "Stripe refuses:" in act(admin_client, "give_back", payer.bot, **form)
    assert remarks(payer) == [] and not LogEntry.objects.exists()


@pytest.mark.parametrize(("amount", "given"), [("2", 200), ("5", 500), ("9", 900), ("", 900)])
def test_stripe_goes_away_while_it_gives_back_and_the_same_form_ends_it(
    admin_client: Client,
    payer: Customer,
    stripe: RunningLocalStripe,
    monkeypatch: pytest.MonkeyPatch,
    amount: str,
    given: int,
) -> None:
    form = open_form(admin_client, payer) | {"end": "on"}
    real = gateway.refund

    def lost_on_the_way_back(*asked: Any) -> Any:
        real(*asked)
        raise gateway.Unreachable(gateway.UNREACHABLE)

    monkeypatch.setattr(gateway, "refund", lost_on_the_way_back)
    page = act(admin_client, "give_back", payer.bot, **form, amount=amount)
    assert "Send this form again as it is" in page and form["once"] in page
    assert remarks(payer) == [], "nobody knows yet"
    monkeypatch.setattr(gateway, "refund", real)
    act(admin_client, "give_back", payer.bot, **form, amount=amount)
    assert refunds(stripe) == [given]
    [words] = remarks(payer)
    assert WHY in words and WHY in LogEntry.objects.get().get_change_message()
    assert not payer.see().paid


def test_another_form_that_comes_too_late_takes_nobody_s_words_away(
    admin_client: Client, payer: Customer, stripe: RunningLocalStripe
) -> None:
    first, second = open_form(admin_client, payer), open_form(admin_client, payer)
    act(admin_client, "give_back", payer.bot, **first)
    assert "Stripe refuses:" in act(admin_client, "give_back", payer.bot, **second | {"words": "Twice?"})
    assert refunds(stripe) == [900] and WHY in remarks(payer)[0] and LogEntry.objects.count() == 1


def test_staff_hear_that_the_end_failed_after_the_refund(
    admin_client: Client, payer: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = open_form(admin_client, payer)

    def away(subscription_id: str) -> None:
        raise gateway.Unreachable(gateway.UNREACHABLE)

    monkeypatch.setattr(gateway, "cancel", away)
    said = act(admin_client, "give_back", payer.bot, **form, end="on")
    assert "goes back." in said and "Its subscription did not end. Stripe can&#x27;t be reached" in said
    assert refunds(stripe) == [900] and len(remarks(payer)) == 1
    monkeypatch.undo()
    act(admin_client, "end_subscription", payer.bot, words=WHY)
    assert not payer.see().paid


@pytest.mark.usefixtures("site")
def test_the_deed_and_its_event_are_one_line_of_the_history(
    admin_client: Client, payer: Customer, stripe: RunningLocalStripe
) -> None:
    stripe.settle()
    act(admin_client, "give_back", payer.bot, **open_form(admin_client, payer))
    stripe.settle()
    assert remarks(payer) == [f"€9 was given back to the card that paid it. {WHY}"]
