"""What the gateway asks, asked of Stripe itself."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import stripe as sdk
from django.utils import timezone
from djstripe.models import Customer

from billing import gateway, paid
from billing.ladder import Rung
from pubs.models import Bot
from tests.stripe import conftest

DAY = 86_400


@pytest.mark.parametrize("key", ["", "sk_live_1", "rk_live_1", "pk_test_1", "whsec_1"])
def test_only_a_secret_test_key_is_taken(key: str) -> None:
    assert not conftest.is_for_tests(key)


def test_no_later_test_reaches_stripe(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest, "forget", lambda deployment: None)
    before = sdk.api_base, sdk.api_key
    with conftest.stripe_itself(settings):
        assert sdk.api_base == "https://api.stripe.com"
    assert (sdk.api_base, sdk.api_key) == before


@pytest.mark.usefixtures("catalogue")
def test_set_up_again_makes_nothing_again() -> None:
    assert len(gateway.offers()) == 6
    prices = [each.price_id for each in gateway.offers()]
    assert not [line for line in gateway.set_up() if line.startswith("made")]
    assert [each.price_id for each in gateway.offers()] == prices


def test_a_bot_has_one_payment_page_which_can_be_closed(bot: Bot) -> None:
    page = gateway.open_checkout(bot, "pub-monthly-1gb")
    assert page.startswith("https://checkout.stripe.com/") and gateway.open_checkout(bot, "pub-monthly-1gb") == page
    assert gateway.open_checkout(bot, "pub-yearly-2gb") != page
    [open_page] = gateway.checkout._sessions_of(gateway.customer_for(bot.owner).id, status="open")
    read = gateway.read_checkout(open_page.id)
    assert read and read.status == "open" and read.subscription_id == ""
    gateway.close_checkouts(bot)
    closed = gateway.read_checkout(open_page.id)
    assert closed and closed.status == "expired"


def test_the_portal_opens_for_a_customer_with_a_subscription(bot: Bot) -> None:
    subscribe(bot, gateway.customer_for(bot.owner).id)
    paid.look(bot.pk)
    bot.refresh_from_db()
    for flow in ("", "card", "plan", "cancel"):
        assert gateway.open_portal(bot.owner, bot, flow).startswith("https://billing.stripe.com/")


def test_a_payment_is_given_back_once(bot: Bot) -> None:
    subscription = subscribe(bot, gateway.customer_for(bot.owner).id)
    assert paid.look(bot.pk)
    [invoice] = gateway.paid_invoices(bot)
    assert (invoice.amount, invoice.refunded) == (900, 0)
    first = gateway.refund(invoice.id, "requested_by_customer", "A test", amount=400)
    assert first.amount == 400
    rest = gateway.refund_newest(subscription, "duplicate")
    assert rest and rest.amount == 500
    assert gateway.paid_invoices(bot)[0].refunded == 900
    assert gateway.refund(invoice.id, "requested_by_customer", "A test").id in (first.id, rest.id)


def test_a_card_that_fails_leads_to_grace_and_a_new_one_out_of_it(bot: Bot, clock: "Clock") -> None:
    subscription = subscribe(bot, clock.customer_for(bot))
    paid.look(bot.pk)
    bot.refresh_from_db()
    assert (bot.rung, bot.paid_status, bot.memory_gb) == (Rung.PAID, "active", 1)
    use_card(subscription, clock.customer, "pm_card_chargeCustomerFail")
    clock.advance(32 * DAY)
    paid.look(bot.pk)
    bot.refresh_from_db()
    assert bot.paid_status == "past_due" and bot.unpaid_since and bot.retry_at
    assert not gateway.collect(subscription), "its card was declined"
    method = choose_card(clock.customer, "pm_card_visa")
    paid.look(bot.pk)
    bot.refresh_from_db()
    assert (bot.rung, bot.paid_status, bot.unpaid_since) == (Rung.PAID, "active", None)
    assert sdk.Subscription.retrieve(subscription).default_payment_method == method
    gateway.cancel(subscription)
    gateway.cancel(subscription)
    read = gateway.read_subscription(subscription)
    assert read and read.status == "canceled"


def test_events_are_read_from_one_that_is_known_on(bot: Bot) -> None:
    before = gateway.newest_event()
    subscribe(bot, gateway.customer_for(bot.owner).id)
    deadline = time.monotonic() + 60
    while bot.pk not in (told := [each.bot_id for page in gateway.events_after(before) for each in page]):
        assert time.monotonic() < deadline, told
        time.sleep(1)


def test_all_that_is_charged_for_is_listed(bot: Bot) -> None:
    subscription = subscribe(bot, gateway.customer_for(bot.owner).id)
    assert subscription in [each.subscription_id for page, _ in gateway.live_subscriptions() for each in page]


def use_card(subscription: str, customer: str, card: str) -> None:
    """Gives a subscription one of Stripe's own test cards."""
    sdk.Subscription.modify(subscription, default_payment_method=choose_card(customer, card))


def choose_card(customer: str, card: str) -> str:
    """Saves one of Stripe's own test cards as the customer's default, as the portal does; its id."""
    method = sdk.PaymentMethod.attach(card, customer=customer)
    sdk.Customer.modify(customer, invoice_settings={"default_payment_method": method.id})
    return method.id


def subscribe(bot: Bot, customer: str) -> str:
    """What Checkout would make: no program fills in Stripe's own page. The subscription's id."""
    method = sdk.PaymentMethod.attach("pm_card_visa", customer=customer)
    price = next(each.price_id for each in gateway.offers() if each.lookup_key == "pub-monthly-1gb")
    made = sdk.Subscription.create(
        customer=customer,
        items=[{"price": price}],
        default_payment_method=method.id,
        metadata={"bot": str(bot.pk)},
    )
    assert made.status == "active"
    return made.id


class Clock:
    """A clock of Stripe's own, and the customer who lives by it."""

    def __init__(self) -> None:
        self.clock = sdk.test_helpers.TestClock.create(frozen_time=int(timezone.now().timestamp()))
        self.customer = ""

    def customer_for(self, bot: Bot) -> str:
        made = sdk.Customer.create(email=bot.owner.email, test_clock=self.clock.id)
        customer: Any = Customer.sync_from_stripe_data(made)
        customer.subscriber = bot.owner
        customer.save()
        self.customer = made.id
        return made.id

    def advance(self, seconds: int) -> None:
        sdk.test_helpers.TestClock.advance(self.clock.id, frozen_time=self.clock.frozen_time + seconds)
        deadline = time.monotonic() + 120
        while sdk.test_helpers.TestClock.retrieve(self.clock.id).status != "ready":
            assert time.monotonic() < deadline, "Stripe's clock did not come so far"
            time.sleep(2)


@pytest.fixture
def clock(catalogue: None) -> Iterator[Clock]:
    made = Clock()
    yield made
    sdk.test_helpers.TestClock.delete(made.clock.id)
