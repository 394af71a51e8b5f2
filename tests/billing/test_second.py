"""Nobody pays twice for a pub, nor for one that is deleted: what slips through is given back and cancelled, and staff
see it.
"""

from collections.abc import Callable
from typing import Any

import pytest
import stripe as sdk
from django.utils import timezone

from accounts.models import User
from billing import gateway, jobs, paid
from billing.ladder import Rung
from mailer.models import Message
from pubs.models import Bot
from tests.billing.conftest import Customer, forget_checkouts
from tests.support.local_stripe import DAY, RunningLocalStripe, wait_until
from tests.support.make import Maker

OFFER = "pub-monthly-1gb"


@pytest.fixture
def staff(make: Maker) -> User:
    return make.user("stella", is_staff=True)


@pytest.fixture
def paid_twice(one_clock: None, alice: Customer, stripe: RunningLocalStripe, staff: User) -> Customer:
    """Two payment pages, both paid, which the code itself would never let happen."""
    alice.pay()
    forget_checkouts(stripe)
    stripe.advance(2)  # Stripe tells ages in whole seconds
    stripe.pay(gateway.open_checkout(alice.bot, OFFER))
    return alice


def subscriptions(stripe: RunningLocalStripe) -> list[str]:
    return [each["status"] for each in stripe.app.store.all("subscription")]


def given_back(stripe: RunningLocalStripe) -> list[tuple[int, str]]:
    return [(each["amount"], each["reason"]) for each in stripe.app.store.all("refund")]


def pay_what_is_open(stripe: RunningLocalStripe) -> None:
    """The bank lets through what it declined."""
    for card in stripe.app.store.all("payment_method"):
        card["_fails"] = ""
    for invoice in stripe.app.store.all("invoice"):
        if invoice["status"] == "open":
            sdk.Invoice.pay(invoice["id"])


def history(customer: Customer) -> list[str]:
    return list(customer.bot.payment_changes.order_by("pk").values_list("words", flat=True))


def alarms(staff: User) -> list[str]:
    return list(Message.objects.filter(to=staff.email, key__startswith="staff_alarm:").values_list("text", flat=True))


def test_a_second_subscription_is_given_back_and_cancelled_and_staff_see_it_once(
    paid_twice: Customer, stripe: RunningLocalStripe, staff: User
) -> None:
    for _ in range(3):
        paid.look(paid_twice.bot.pk)
    oldest, newest = stripe.app.store.all("subscription")
    assert subscriptions(stripe) == ["active", "canceled"]
    assert (paid_twice.see().subscription_id, paid_twice.bot.rung) == (oldest["id"], Rung.PAID)
    assert given_back(stripe) == [(900, "duplicate")]
    said = history(paid_twice)
    assert said.count(paid.SOLD_TWICE) == 1 and said.count(paid.given_back(900, "eur")) == 1
    [alarm] = alarms(staff)
    assert newest["id"] in alarm and "€9 is given back" in alarm


@pytest.mark.usefixtures("site")
def test_webhooks_alone_end_a_second_subscription(alice: Customer, stripe: RunningLocalStripe, staff: User) -> None:
    alice.pay()
    stripe.settle()
    forget_checkouts(stripe)
    wait_until(lambda: alice.see().paid, "the first payment to be seen")
    stripe.pay(gateway.open_checkout(alice.bot, OFFER))
    wait_until(lambda: sorted(subscriptions(stripe)) == ["active", "canceled"], "the second one to be cancelled")
    stripe.settle()
    wait_until(lambda: paid.given_back(900, "eur") in history(alice), "the refund to be in the history")
    assert given_back(stripe) == [(900, "duplicate")]
    assert history(alice).count(paid.given_back(900, "eur")) == 1


@pytest.mark.parametrize(("step", "is_done"), [("refund_newest", True), ("cancel", False), ("cancel", True)])
def test_a_look_that_is_killed_at_any_step_is_made_up_for(
    paid_twice: Customer,
    stripe: RunningLocalStripe,
    staff: User,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    is_done: bool,
) -> None:
    real: Callable[..., Any] = getattr(gateway, step)

    def killed(*args: Any, **kwargs: Any) -> Any:
        if is_done:
            real(*args, **kwargs)
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(gateway, step, killed)
        with pytest.raises(SystemExit):
            paid.look(paid_twice.bot.pk)
    paid.look(paid_twice.bot.pk)
    assert subscriptions(stripe) == ["active", "canceled"]
    assert given_back(stripe) == [(900, "duplicate")]
    assert history(paid_twice).count(paid.SOLD_TWICE) == 1 and len(alarms(staff)) == 1


def test_what_stripe_refuses_to_give_back_is_cancelled_all_the_same_and_staff_are_told_why(
    paid_twice: Customer, stripe: RunningLocalStripe, staff: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(subscription_id: str, reason: str) -> None:
        raise gateway.Refused("Stripe refuses: it has been charged back.")

    monkeypatch.setattr(gateway, "refund_newest", refused)
    paid.look(paid_twice.bot.pk)
    assert subscriptions(stripe) == ["active", "canceled"]
    [alarm] = alarms(staff)
    assert "charged back" in alarm
    assert paid.SOLD_TWICE in history(paid_twice) and not any("given back" in words for words in history(paid_twice))


def test_with_a_key_that_may_not_give_back_it_is_cancelled_all_the_same_and_staff_are_told(
    paid_twice: Customer, stripe: RunningLocalStripe, staff: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(**asked: Any) -> None:
        raise sdk.PermissionError("This key may not make refunds.")

    monkeypatch.setattr(sdk.Refund, "create", forbidden)
    paid.look(paid_twice.bot.pk)
    assert subscriptions(stripe) == ["active", "canceled"]
    [alarm] = alarms(staff)
    assert "could not be given back" in alarm


@pytest.mark.parametrize("status", ["incomplete", "paused"])
def test_one_that_was_begun_and_left_or_is_paused_is_ended_and_nobody_is_bothered(
    paid_twice: Customer, stripe: RunningLocalStripe, staff: User, status: str
) -> None:
    stripe.app.store.all("subscription")[0]["status"] = status
    paid.look(paid_twice.bot.pk)
    assert subscriptions(stripe) == ["canceled", "active"]
    assert (alarms(staff), given_back(stripe)) == ([], [])
    assert paid.OUTLIVED not in history(paid_twice)


@pytest.mark.usefixtures("one_clock")
def test_an_old_unpaid_subscription_is_ended_and_what_it_charged_long_ago_is_kept(
    alice: Customer, stripe: RunningLocalStripe, staff: User
) -> None:
    alice.come_back(alice.pay())
    stripe.change_card(alice.open_portal(), "4000000000000341")
    stripe.advance(32 * DAY)
    customer = gateway.customer_for(alice.bot.owner)
    stripe.change_card(alice.open_portal(), "4242424242424242")
    [old] = stripe.app.store.all("subscription")
    assert old["status"] == "past_due"
    price = gateway.offers()[0].price_id
    sdk.Subscription.create(customer=customer.id, items=[{"price": price}], metadata={"bot": str(alice.bot.pk)})
    paid.look(alice.bot.pk)
    assert subscriptions(stripe) == ["canceled", "active"]
    assert given_back(stripe) == []
    assert paid.OUTLIVED in history(alice) and len(alarms(staff)) == 1


@pytest.mark.usefixtures("one_clock")
def test_a_payment_after_the_pub_was_deleted_is_given_back(
    alice: Customer, stripe: RunningLocalStripe, staff: User
) -> None:
    page = alice.open_checkout()
    Bot.objects.update(deleted_at=timezone.now())
    stripe.pay(page)
    for _ in range(2):
        paid.look(alice.bot.pk)
    assert subscriptions(stripe) == ["canceled"] and not alice.see().paid
    assert given_back(stripe) == [(900, "requested_by_customer")]
    assert history(alice).count(paid.given_back(900, "eur")) == 1
    [alarm] = alarms(staff)
    assert "paid after it was deleted" in alarm and "€9 is given back" in alarm


@pytest.mark.usefixtures("site", "one_clock")
def test_webhooks_alone_end_a_payment_for_a_deleted_pub(alice: Customer, stripe: RunningLocalStripe) -> None:
    page = alice.open_checkout()
    Bot.objects.update(deleted_at=timezone.now())
    stripe.pay(page)
    wait_until(lambda: subscriptions(stripe) == ["canceled"], "the end of the subscription")
    wait_until(lambda: not alice.see().paid, "the pub to be unpaid")
    assert given_back(stripe) == [(900, "requested_by_customer")]


@pytest.mark.usefixtures("one_clock")
def test_a_renewal_after_the_pub_was_deleted_is_given_back_and_what_was_used_is_not(
    alice: Customer, stripe: RunningLocalStripe
) -> None:
    """Its job was lost, and Stripe away, until the next month was charged."""
    alice.come_back(alice.pay())
    stripe.advance(10 * DAY)
    Bot.objects.update(deleted_at=timezone.now())
    stripe.advance(25 * DAY)
    assert [each["status"] for each in stripe.app.store.all("invoice")] == ["paid", "paid"]
    jobs.look_at_due()
    assert subscriptions(stripe) == ["canceled"]
    [refund] = stripe.app.store.all("refund")
    [_, second] = stripe.app.store.all("invoice")
    assert refund["metadata"]["invoice"] == second["id"]


@pytest.mark.usefixtures("one_clock")
def test_what_was_owed_before_the_pub_was_deleted_and_paid_after_it_is_given_back(
    alice: Customer, stripe: RunningLocalStripe
) -> None:
    alice.come_back(alice.pay())
    stripe.change_card(alice.open_portal(), "4000000000000341")
    stripe.advance(32 * DAY)
    Bot.objects.update(deleted_at=timezone.now())
    stripe.advance(60)
    pay_what_is_open(stripe)
    jobs.look_at_due()
    assert subscriptions(stripe) == ["canceled"]
    [refund] = stripe.app.store.all("refund")
    assert refund["metadata"]["invoice"] == stripe.app.store.all("invoice")[1]["id"]


@pytest.mark.usefixtures("one_clock")
def test_staff_are_told_of_a_payment_in_the_moment_in_which_its_subscription_is_ended(
    alice: Customer, stripe: RunningLocalStripe, staff: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = gateway.cancel

    def just_too_late(subscription_id: str) -> None:
        pay_what_is_open(stripe)
        real(subscription_id)

    stripe.after_retries("unpaid")
    alice.come_back(alice.pay())
    stripe.change_card(alice.open_portal(), "4000000000000341")
    stripe.advance(110 * DAY)
    monkeypatch.setattr(gateway, "cancel", just_too_late)
    for _ in range(2):
        paid.look(alice.bot.pk)
    assert (subscriptions(stripe), given_back(stripe)) == (["canceled"], [])
    [alarm] = alarms(staff)
    assert paid.PAID_AT_ITS_END in alarm


@pytest.mark.usefixtures("one_clock")
def test_a_pub_that_was_kept_in_vain_is_charged_nothing_more(alice: Customer, stripe: RunningLocalStripe) -> None:
    """Stripe was set to leave unpaid subscriptions alive: after the time of keeping they are ended."""
    stripe.after_retries("unpaid")
    alice.come_back(alice.pay())
    stripe.change_card(alice.open_portal(), "4000000000000341")
    for _ in range(24):
        stripe.advance(5 * DAY)
        jobs.look_at_due()
    assert alice.see().rung == Rung.OVER
    assert subscriptions(stripe) == ["canceled"]
