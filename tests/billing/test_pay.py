"""A customer pays for a pub, or does not."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIRequestFactory, force_authenticate
from rest_framework.views import APIView

from accounts.models import User
from billing import gateway, paid, views
from billing.api import CheckoutView, PaymentView, PortalView
from billing.gateway import checkout, portal
from billing.words import words
from mailer.models import Message
from pubs.models import Bot
from tests.billing.conftest import Customer, forget_checkouts, said
from tests.support.local_stripe import DAY, PaymentRefused, RunningLocalStripe, wait_until
from tests.support.make import Maker


@pytest.mark.usefixtures("site")
def test_a_paid_pub_is_paid_by_webhook_alone(alice: Customer, stripe: RunningLocalStripe) -> None:
    alice.pay()
    stripe.settle()
    bot = alice.see()
    assert bot.paid and bot.is_wanted
    assert bot.paid_status == "active"
    assert bot.paid_until and bot.paid_until > timezone.now()
    assert not bot.paid_ends


@pytest.mark.usefixtures("site")
def test_the_subscription_and_customer_are_linked_with_pub_and_user(
    alice: Customer, stripe: RunningLocalStripe
) -> None:
    from djstripe.models import Event, Subscription

    alice.pay()
    stripe.settle()
    subscription = Subscription.objects.get()
    assert subscription.id == alice.see().subscription_id
    assert subscription.metadata == {"bot": str(alice.bot.pk), "buttcloud": settings.DEPLOYMENT}
    assert subscription.customer.subscriber == alice.bot.owner
    assert Event.objects.filter(type="checkout.session.completed").exists()


def test_paying_leads_to_stripes_page_and_back_to_the_pub(alice: Customer) -> None:
    answer = alice.come_back(alice.pay())
    assert answer.status_code == 302
    assert answer["Location"] == alice.bot.get_absolute_url()
    assert said(answer) == ["Thank you! Your pub is paid."]


def test_a_declined_card_leaves_the_pub_unpaid_and_can_be_tried_again(alice: Customer) -> None:
    with pytest.raises(PaymentRefused, match="declined"):
        alice.pay("4000000000000002")
    assert gateway.subscriptions_of(alice.bot) == []
    alice.come_back(alice.pay())
    assert alice.see().paid


def test_an_abandoned_payment_page_is_offered_again(alice: Customer, stripe: RunningLocalStripe) -> None:
    first = alice.open_checkout()
    assert not alice.see().paid
    assert alice.open_checkout() == first
    stripe.advance(25 * 3600)
    later = alice.open_checkout()
    assert later != first
    alice.come_back(stripe.pay(later))
    assert alice.see().paid


def test_a_page_abandoned_days_ago_makes_way_for_another_though_stripe_remembers_its_key(
    alice: Customer, stripe: RunningLocalStripe
) -> None:
    first = alice.open_checkout()
    stripe.advance(25 * 3600)
    store = stripe.app.store
    store.all("checkout.session")[0]["created"] -= 3 * DAY
    for known in store.idempotency.values():
        known["at"] = store.now()
    later = alice.open_checkout()
    assert later != first
    alice.come_back(stripe.pay(later))
    assert alice.see().paid


def test_with_stripe_bringing_back_old_pages_for_ever_the_page_says_so(
    alice: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = alice.open_checkout().rsplit("/", 1)[1]
    stripe.advance(25 * 3600)
    dead = stripe.client.v1.checkout.sessions.retrieve(session_id)
    monkeypatch.setattr("stripe.checkout.Session.create", lambda **_: dead)
    assert said(alice.press_pay()) == [gateway.OUR_FAULT]


def forget_everything(stripe: RunningLocalStripe) -> None:
    stripe.app.store.objects.clear()
    stripe.app.store.idempotency.clear()
    gateway.set_up_catalogue()


def test_with_stripe_wiped_a_customer_can_still_pay(alice: Customer, stripe: RunningLocalStripe) -> None:
    alice.open_checkout()
    forget_everything(stripe)
    alice.come_back(alice.pay())
    assert alice.see().paid
    stripe.see(alice.open_portal())
    assert gateway.customer_for(alice.bot.owner).id == stripe.app.store.all("customer")[0]["id"]


def test_a_customer_deleted_at_stripe_can_still_pay(alice: Customer, stripe: RunningLocalStripe) -> None:
    alice.open_checkout()
    stripe.client.v1.customers.delete(gateway.customer_for(alice.bot.owner).id)
    alice.come_back(alice.pay())
    assert alice.see().paid
    assert len(stripe.app.store.all("customer")) == 1


def test_coming_back_before_the_payment_is_seen_says_that_we_wait(
    alice: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = alice.pay()
    monkeypatch.setattr("billing.paid.look", lambda bot_id: False)
    assert said(alice.come_back(back)) == [views.WAITING]
    assert not alice.see().paid


def test_nobody_is_thanked_for_a_payment_page_that_is_still_open(alice: Customer, make: Maker) -> None:
    session_id = alice.open_checkout().rsplit("/", 1)[1]
    paid.comp(alice.bot.pk, timezone.now() + timedelta(days=30), "For your help.", make.user("staff"))
    answer = alice.browser.get(reverse("billing:return", args=[alice.bot.pk]), {"session_id": session_id})
    assert answer["Location"] == alice.bot.get_absolute_url() and said(answer) == []


def test_with_stripe_away_who_has_paid_is_told_that_we_wait_and_is_looked_at_later(
    alice: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    back, looked = alice.pay(), []
    monkeypatch.setattr("stripe.max_network_retries", 0)
    monkeypatch.setattr("pubs.live.look_at_payment", looked.append)
    stripe.stop()
    answer = alice.come_back(back)
    assert answer["Location"] == alice.bot.get_absolute_url() and said(answer) == [views.WAITING]
    assert looked == [alice.bot.pk]


@pytest.mark.django_db(transaction=True)
def test_a_double_click_opens_one_payment_page(alice: Customer, stripe: RunningLocalStripe) -> None:
    gateway.customer_for(alice.bot.owner)

    def click(_: int) -> str:
        try:
            return gateway.open_checkout(alice.bot, "pub-monthly-1gb")
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        pages = set(pool.map(click, range(8)))
    assert len(pages) == 1
    assert len(stripe.app.store.all("checkout.session")) == 1


def test_another_choice_closes_the_page_of_the_first(alice: Customer, stripe: RunningLocalStripe) -> None:
    first = alice.open_checkout("pub-monthly-1gb")
    second = alice.open_checkout("pub-yearly-4gb")
    assert first != second
    with pytest.raises(PaymentRefused, match="expired"):
        stripe.pay(first)
    third = alice.open_checkout("pub-monthly-1gb")
    assert third not in (first, second)
    for offer in ("pub-monthly-2gb", "pub-monthly-4gb") * 4:  # however their ids, which are random, are ordered
        page = alice.open_checkout(offer)
        assert open_pages(stripe) == [page]
    alice.come_back(stripe.pay(page))
    assert alice.see().memory_gb == 4


def open_pages(stripe: RunningLocalStripe) -> list[str]:
    return [each["url"] for each in stripe.app.store.all("checkout.session") if each["status"] == "open"]


@pytest.mark.django_db(transaction=True)
def test_tabs_that_choose_differently_at_once_leave_one_page_open(
    alice: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.customer_for(alice.bot.owner)
    offers = [offer.lookup_key for offer in gateway.offers()[:4]]
    together, make = Barrier(len(offers)), checkout._new_checkout

    def make_all_at_once(*args: Any) -> Any:
        together.wait(timeout=20)
        made = make(*args)
        together.wait(timeout=20)
        return made

    monkeypatch.setattr(checkout, "_new_checkout", make_all_at_once)

    def click(offer: str) -> str:
        try:
            return gateway.open_checkout(alice.bot, offer)
        finally:
            connection.close()

    with ThreadPoolExecutor(len(offers)) as pool:
        pages = set(pool.map(click, offers))
    assert len(stripe.app.store.all("checkout.session")) == len(offers)
    assert list(pages) == open_pages(stripe)


@pytest.mark.parametrize("offer", ["", "pub-monthly-3gb", "price_123", "x" * 5000, "pub-monthly-1gb\0"])
def test_what_is_not_for_sale_is_refused_and_nothing_is_made(
    alice: Customer, stripe: RunningLocalStripe, offer: str
) -> None:
    assert said(alice.press_pay(offer)) == [checkout.NOT_FOR_SALE]
    status, answer = call(CheckoutView, alice.bot.owner, alice.bot, offer=offer)
    assert status == 400 and list(answer) == ["offer"]
    assert stripe.app.store.all("checkout.session") == stripe.app.store.all("customer") == []


@pytest.mark.parametrize(("offer", "size"), [("pub-monthly-2gb", 2), ("pub-yearly-4gb", 4)])
def test_what_was_chosen_is_what_is_bought(alice: Customer, offer: str, size: int) -> None:
    alice.come_back(alice.pay(offer=offer))
    bot = alice.see()
    assert bot.paid and bot.memory_gb == size
    bought = gateway.offer_of(bot.price_id)
    assert bought and bought.lookup_key == offer


def test_the_payment_page_takes_promotion_codes_and_speaks_the_visitors_language(
    alice: Customer, stripe: RunningLocalStripe
) -> None:
    alice.open_checkout()
    (session,) = stripe.app.store.all("checkout.session")
    assert session["allow_promotion_codes"] is True and session["locale"] == "auto"
    assert not session["automatic_tax"]["enabled"]


def test_with_stripe_tax_the_payment_page_asks_for_what_taxes_need(
    alice: Customer, stripe: RunningLocalStripe, settings: Settings
) -> None:
    settings.STRIPE_TAX = True
    alice.open_checkout()
    (session,) = stripe.app.store.all("checkout.session")
    assert session["automatic_tax"]["enabled"] and session["tax_id_collection"]["enabled"]
    assert session["billing_address_collection"] == "required"


def test_two_tabs_make_one_subscription(alice: Customer, stripe: RunningLocalStripe) -> None:
    page, same_page = alice.open_checkout(), alice.open_checkout()
    stripe.pay(page)
    # Sent a second time, Stripe's page leads on to where the first one led.
    assert "/return/" in stripe.pay(same_page)
    assert len(stripe.app.store.all("subscription")) == 1


def test_who_has_paid_is_not_sent_to_pay_again(alice: Customer) -> None:
    """Not even when no webhook told us yet."""
    alice.pay()
    answer = alice.press_pay()
    assert answer.status_code == 302
    assert "already" in said(answer)[0]
    assert alice.see().paid
    # The words name a button that the pub's page has.
    button = said(answer)[0].split("“")[1].split("”")[0]
    assert f">{button}</button>" in alice.browser.get(alice.bot.get_absolute_url()).content.decode()


@pytest.mark.usefixtures("site")
def test_a_second_subscription_that_slips_through_is_cancelled(
    alice: Customer, stripe: RunningLocalStripe, caplog: pytest.LogCaptureFixture
) -> None:
    alice.pay()
    stripe.settle()
    first = alice.see().subscription_id
    forget_checkouts(stripe)
    stripe.advance(2)  # Stripe tells ages in whole seconds
    stripe.pay(gateway.open_checkout(alice.bot, "pub-monthly-1gb"))
    wait_until(lambda: [each for each in stripe.app.store.all("subscription") if each["status"] == "canceled"], "one")
    stripe.settle()
    states = {each["id"]: each["status"] for each in stripe.app.store.all("subscription")}
    assert states.pop(first) == "active"
    assert list(states.values()) == ["canceled"]
    assert alice.see().subscription_id == first and alice.bot.paid
    assert "two subscriptions" in caplog.text
    assert not Message.objects.filter(key__startswith="subscription_ended").exists()


def test_a_new_price_makes_a_new_payment_page(alice: Customer, settings: Settings) -> None:
    first = alice.open_checkout()
    settings.PRICES_MONTHLY = (1100, 1700, 3200)
    gateway.set_up_catalogue()
    assert alice.open_checkout() != first


def test_a_stranger_gets_404(alice: Customer, bob: Customer) -> None:
    for name in ("checkout", "portal"):
        assert bob.browser.post(reverse(f"billing:{name}", args=[alice.bot.pk])).status_code == 404
    assert bob.browser.get(reverse("billing:return", args=[alice.bot.pk])).status_code == 404


@pytest.mark.parametrize(("name", "method"), [("checkout", "post"), ("portal", "post"), ("portal", "get")])
def test_nobody_is_sent_to_sign_in(alice: Customer, name: str, method: str) -> None:
    answer = getattr(Client(), method)(reverse(f"billing:{name}", args=[alice.bot.pk]))
    assert answer.status_code == 302 and answer["Location"].startswith("/accounts/login/")


def test_a_deleted_pub_can_not_be_paid(alice: Customer) -> None:
    type(alice.bot).objects.update(deleted_at=timezone.now())
    assert alice.press_pay().status_code == 404


def test_looking_at_the_address_of_a_form_pays_nothing(alice: Customer) -> None:
    assert alice.browser.get(reverse("billing:checkout", args=[alice.bot.pk])).status_code == 405


def test_somebody_elses_session_on_the_return_page_is_ignored(alice: Customer, bob: Customer) -> None:
    session_id = alice.pay().rsplit("=", 1)[1]
    answer = bob.browser.get(reverse("billing:return", args=[bob.bot.pk]), {"session_id": session_id})
    assert answer.status_code == 302 and said(answer) == []
    assert not bob.see().paid and not alice.see().paid


@pytest.mark.parametrize("session_id", ["", "cs_test_none", "../customers", "x" * 4000, "cs_test_\u2603?&"])
def test_a_made_up_session_on_the_return_page_is_ignored(alice: Customer, session_id: str) -> None:
    answer = alice.browser.get(reverse("billing:return", args=[alice.bot.pk]), {"session_id": session_id})
    assert answer.status_code == 302 and answer["Location"] == alice.bot.get_absolute_url()
    assert not alice.see().paid


def test_with_stripe_away_the_page_says_so_and_nothing_is_half_made(
    alice: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stripe.max_network_retries", 0)
    stripe.stop()
    answer = alice.press_pay()
    assert answer.status_code == 302
    assert said(answer) == [gateway.UNREACHABLE]


def test_the_api_gives_the_address_of_the_payment_page(alice: Customer) -> None:
    offer = {"offer": "pub-yearly-2gb"}
    status, answer = call(CheckoutView, alice.bot.owner, alice.bot, **offer)
    assert status == 200
    alice.stripe.pay(answer["url"])
    status, answer = call(CheckoutView, alice.bot.owner, alice.bot, **offer)
    assert status == 409 and "already" in answer["detail"]


@pytest.mark.parametrize(
    ("flow", "begins"),
    [("", None), ("card", "payment_method_update"), ("plan", "subscription_update"), ("cancel", "subscription_cancel")],
)
def test_the_portal_opens_where_the_owner_wants_to_go(
    alice: Customer, stripe: RunningLocalStripe, flow: str, begins: str | None
) -> None:
    alice.come_back(alice.pay())
    address = reverse("billing:portal", args=[alice.bot.pk])
    for answer in (alice.browser.post(address, {"flow": flow}), alice.browser.get(address, {"flow": flow})):
        assert answer.status_code == 303 and stripe.see(answer["Location"])[0] == 200
    session = stripe.app.store.all("billing_portal.session")[-1]
    assert (session["flow"] and session["flow"]["type"]) == begins
    if flow in ("plan", "cancel"):
        assert session["flow"][begins]["subscription"] == alice.see().subscription_id
    configuration = stripe.app.store.get("billing_portal.configuration", session["configuration"])
    assert configuration["metadata"]["buttcloud"] == settings.DEPLOYMENT


def test_of_two_pubs_the_right_one_is_cancelled(alice: Customer, stripe: RunningLocalStripe, make: Maker) -> None:
    second = Customer(stripe, make.bot(alice.bot.owner), alice.browser)
    for customer in (alice, second):
        customer.come_back(customer.pay())
    address = reverse("billing:portal", args=[second.bot.pk])
    alice.browser.post(address, {"flow": "cancel"})
    flow = stripe.app.store.all("billing_portal.session")[-1]["flow"]
    assert flow["subscription_cancel"]["subscription"] == second.see().subscription_id != alice.see().subscription_id
    assert flow["after_completion"]["redirect"]["return_url"].endswith(reverse("billing:return", args=[second.bot.pk]))


def test_back_from_the_portal_we_look_at_stripe_though_no_webhook_came(
    alice: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.come_back(alice.pay())
    looked: list[Any] = []
    monkeypatch.setattr("pubs.live.look_at_payment", looked.append)
    answer = alice.browser.get(reverse("billing:return", args=[alice.bot.pk]))
    assert answer["Location"] == alice.bot.get_absolute_url()
    assert looked == [alice.bot.pk]


def as_stripe_has_it(alice: Customer, **columns: Any) -> None:
    """Changes the subscription at Stripe, as if it had happened there while nobody told us."""
    alice.stripe.app.store.get("subscription", alice.see().subscription_id).update(columns)


@pytest.mark.parametrize(
    ("flow", "columns", "words"),
    [
        ("plan", {"cancel_at_period_end": True}, portal.KEEP_FIRST),
        ("cancel", {"cancel_at_period_end": True}, portal.CANCELLED),
        ("plan", {"status": "past_due"}, portal.PAY_FIRST),
        ("plan", {"status": "canceled"}, portal.OVER),
        ("cancel", {"status": "canceled"}, portal.OVER),
        ("cancel", {"status": "paused"}, portal.PAUSED),
        ("cancel", {"status": "incomplete"}, portal.NOTHING_THERE),
        ("plan", {"status": "incomplete_expired"}, portal.OVER),
        ("sell", {}, portal.NO_SUCH_FLOW),
    ],
)
def test_a_part_of_the_portal_with_nothing_to_do_says_so_beforehand(
    alice: Customer, flow: str, columns: dict[str, Any], words: str
) -> None:
    alice.come_back(alice.pay())
    as_stripe_has_it(alice, **columns)
    answer = alice.browser.post(reverse("billing:portal", args=[alice.bot.pk]), {"flow": flow})
    assert answer["Location"] == alice.bot.get_absolute_url() and said(answer)[-1] == words
    if flow != "sell":
        assert call(PortalView, alice.bot.owner, alice.bot, flow=flow) == (409, {"detail": words})


@pytest.mark.parametrize("flow", ["plan", "cancel"])
def test_what_was_never_paid_can_not_be_changed(alice: Customer, stripe: RunningLocalStripe, flow: str) -> None:
    assert call(PortalView, alice.bot.owner, alice.bot, flow=flow) == (409, {"detail": portal.NOTHING_THERE})
    assert stripe.app.store.all("customer") == []


def test_a_card_that_fails_can_be_changed(alice: Customer) -> None:
    alice.come_back(alice.pay())
    as_stripe_has_it(alice, status="past_due")
    assert call(PortalView, alice.bot.owner, alice.bot, flow="card")[0] == 200


def test_the_api_knows_no_other_part_of_the_portal(alice: Customer) -> None:
    status, answer = call(PortalView, alice.bot.owner, alice.bot, flow="sell")
    assert status == 400 and list(answer) == ["flow"]


def test_without_a_portal_of_ours_the_accounts_own_serves(alice: Customer, stripe: RunningLocalStripe) -> None:
    for each in stripe.app.store.all("billing_portal.configuration"):
        each["active"] = False
    assert call(PortalView, alice.bot.owner, alice.bot)[0] == 200


def test_the_api_gives_the_address_of_the_portal(alice: Customer) -> None:
    status, answer = call(PortalView, alice.bot.owner, alice.bot)
    assert status == 200 and alice.stripe.see(answer["url"])[0] == 200


def test_the_api_says_how_it_stands_with_the_payment(alice: Customer) -> None:
    status, before = call(PaymentView, alice.bot.owner, alice.bot, "get")
    assert status == 200
    assert before["words"] == words(alice.bot) and before["price"] == "" and before["pays_by"] == "checkout"
    assert before["paid"] is False and before["until"] is None
    alice.come_back(alice.pay(offer="pub-yearly-4gb"))
    after = call(PaymentView, alice.bot.owner, alice.see(), "get")[1]
    assert after["words"] == words(alice.bot) and "next payment" in after["words"]
    assert after["paid"] is True and after["status"] == "active" and after["until"] and after["ends"] is False
    assert after["pays_by"] == "" and after["price"] == "€320 a year"
    assert before["dates"] == []
    assert after["dates"] == [{"label": "Next payment", "at": after["until"]}]


def test_the_api_tells_of_a_payment_to_its_owner_alone(alice: Customer, bob: Customer) -> None:
    assert call(PaymentView, bob.bot.owner, alice.bot, "get")[0] == 404
    assert call(PaymentView, None, alice.bot, "get")[0] == 401


@pytest.mark.parametrize("view", [CheckoutView, PortalView])
def test_the_api_gives_a_stranger_404_and_nobody_401(alice: Customer, bob: Customer, view: type[APIView]) -> None:
    assert call(view, bob.bot.owner, alice.bot)[0] == 404
    assert call(view, None, alice.bot)[0] == 401


def test_the_api_says_when_stripe_is_away(
    alice: Customer, stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stripe.max_network_retries", 0)
    stripe.stop()
    asked = call(CheckoutView, alice.bot.owner, alice.bot, offer="pub-monthly-1gb")
    assert asked == (503, {"detail": gateway.UNREACHABLE})


def call(view: type[APIView], user: User | None, bot: Bot, method: str = "post", **sent: str) -> tuple[int, Any]:
    request = getattr(APIRequestFactory(), method)("/", sent)
    if user:
        force_authenticate(request, user)
    answer = view.as_view()(request, pk=bot.pk)
    return answer.status_code, answer.data
