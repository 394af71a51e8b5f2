"""The hosted pages of the local Stripe, as a customer's browser meets them."""

from collections.abc import Iterator
from typing import Any

import pytest
import stripe

from billing.local_stripe.cards import TEST_CARDS
from tests.support.local_stripe import DAY, KEY, PaymentRefused, RunningLocalStripe


@pytest.fixture(scope="module")
def local() -> Iterator[RunningLocalStripe]:
    with RunningLocalStripe() as running:
        yield running


@pytest.fixture(scope="module")
def price(local: RunningLocalStripe) -> str:
    return local.make_price().id


def subscriptions_of(local: RunningLocalStripe, email: str) -> list[stripe.Subscription]:
    customers = local.client.v1.customers.list({"email": email})
    return [
        each
        for customer in customers
        for each in local.client.v1.subscriptions.list({"customer": customer.id, "status": "all"})
    ]


def test_paying_leads_back_with_the_session(local: RunningLocalStripe, price: str) -> None:
    session = local.open_checkout(price, client_reference_id="bot-1", metadata={"bot": "1"})
    status, html = local.see(str(session.url))
    assert status == 200 and "TEST MODE" in html and "5.00 EUR" in html and "https://site.example/back" in html
    assert local.pay(str(session.url)) == f"https://site.example/return?session_id={session.id}"
    paid = local.client.v1.checkout.sessions.retrieve(session.id, {"expand": ["subscription", "line_items"]})
    assert (paid.status, paid.payment_status, paid.client_reference_id) == ("complete", "paid", "bot-1")
    assert paid.subscription.status == "active"  # type: ignore[union-attr]
    assert paid.line_items and paid.line_items.data[0].description == "Pub"


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ("4000000000000002", "Your card was declined."),
        ("4000 0000 0000 9995", "insufficient funds"),
        ("4000000000000341", "Your card was declined."),
        ("4111111111111111", "use one of the test cards"),
        ("hello", "number is incorrect"),
        ("", "number is incorrect"),
    ],
)
def test_a_declined_card_says_so_and_the_page_stays_open(
    local: RunningLocalStripe, price: str, card: str, words: str
) -> None:
    session = local.open_checkout(price)
    email = f"declined{card[-3:]}@example.com"
    with pytest.raises(PaymentRefused, match=words):
        local.pay(str(session.url), card, email)
    assert local.client.v1.checkout.sessions.retrieve(session.id).status == "open"
    assert local.client.v1.customers.list({"email": email}).data == []
    local.pay(str(session.url), email=email)
    assert len(subscriptions_of(local, email)) == 1


def test_paying_twice_makes_one_subscription(local: RunningLocalStripe, price: str) -> None:
    session = local.open_checkout(price)
    first = local.pay(str(session.url), email="twice@example.com")
    assert local.pay(str(session.url), email="twice@example.com") == first
    assert len(subscriptions_of(local, "twice@example.com")) == 1
    status, html = local.see(f"{local.url}/c/pay/{session.id}")
    assert status == 200 and "Already paid" in html and first in html


def test_a_session_of_a_known_customer_asks_for_no_address(local: RunningLocalStripe, price: str) -> None:
    customer = local.client.v1.customers.create({"email": "known@example.com"})
    session = local.open_checkout(price, customer=customer.id)
    _, html = local.see(str(session.url))
    assert "known@example.com" in html and 'name="email"' not in html
    local.pay(str(session.url))
    assert len(subscriptions_of(local, "known@example.com")) == 1


def test_an_address_that_is_none_is_refused(local: RunningLocalStripe, price: str) -> None:
    session = local.open_checkout(price)
    with pytest.raises(PaymentRefused, match="e-mail address"):
        local.pay(str(session.url), email="nobody")


def test_an_expired_session_takes_no_money(local: RunningLocalStripe, price: str) -> None:
    session = local.open_checkout(price)
    local.client.v1.checkout.sessions.expire(session.id)
    status, html = local.see(str(session.url))
    assert status == 410 and "expired" in html and "https://site.example/back" in html
    with pytest.raises(PaymentRefused, match="expired"):
        local.pay(str(session.url), email="late@example.com")
    assert subscriptions_of(local, "late@example.com") == []
    with pytest.raises(stripe.InvalidRequestError, match="status of expired"):
        local.client.v1.checkout.sessions.expire(session.id)


def test_a_session_expires_by_itself_after_a_day(local_stripe: RunningLocalStripe) -> None:
    session = local_stripe.open_checkout(local_stripe.make_price().id)
    local_stripe.advance(DAY - 60)
    assert local_stripe.client.v1.checkout.sessions.retrieve(session.id).status == "open"
    local_stripe.advance(61)
    assert local_stripe.client.v1.checkout.sessions.retrieve(session.id).status == "expired"
    events = local_stripe.client.v1.events.list({"type": "checkout.session.expired"})
    assert [each.data.object["id"] for each in events] == [session.id]


def test_names_are_escaped(local: RunningLocalStripe) -> None:
    made = local.client.v1.prices.create(
        {
            "currency": "eur",
            "unit_amount": 1,
            "recurring": {"interval": "month"},
            "product_data": {"name": "<script>x</script>"},
        }
    )
    _, html = local.see(str(local.open_checkout(made.id).url))
    assert "<script>" not in html and "&lt;script&gt;" in html


def test_the_portal_shows_subscription_card_and_invoices(local: RunningLocalStripe, price: str) -> None:
    session = local.open_checkout(price)
    local.pay(str(session.url), email="portal@example.com")
    (subscription,) = subscriptions_of(local, "portal@example.com")
    status, html = local.see(local.open_portal(str(subscription.customer)))
    assert status == 200
    for words in ("TEST MODE", "ending in 4242", "5.00 EUR", "https://site.example/account", "/i/in_"):
        assert words in html
    invoice = local.client.v1.invoices.list({"subscription": subscription.id}).data[0]
    status, html = local.see(str(invoice.hosted_invoice_url))
    assert status == 200 and str(invoice.number) in html


def test_the_portal_of_one_customer_cannot_cancel_for_another(local: RunningLocalStripe, price: str) -> None:
    mine, theirs = (local.open_checkout(price) for _ in range(2))
    local.pay(str(mine.url), email="mine@example.com")
    local.pay(str(theirs.url), email="theirs@example.com")
    (my_own,) = subscriptions_of(local, "mine@example.com")
    (other,) = subscriptions_of(local, "theirs@example.com")
    with pytest.raises(PaymentRefused):
        local.cancel(local.open_portal(str(my_own.customer)), other.id)
    assert local.client.v1.subscriptions.retrieve(other.id).cancel_at is None


def test_a_form_of_another_site_is_refused(local: RunningLocalStripe) -> None:
    answer, body = local._send("POST", f"{local.url}/", {"days": "31"}, {"Origin": "https://evil.example"})
    assert answer.status == 403 and "evil.example" in body


def test_unknown_pages_and_sessions_are_not_found(local: RunningLocalStripe) -> None:
    for path in ("/nothing", "/c/pay/cs_test_none", "/p/session/none", "/i/none"):
        assert local.see(local.url + path)[0] == 404


def test_an_open_invoice_is_paid_on_its_page_though_the_bank_asks(local_stripe: RunningLocalStripe) -> None:
    subscription = local_stripe.subscribe()
    local_stripe.change_card(local_stripe.open_portal(str(subscription.customer)), "4000000000000341")
    local_stripe.advance(32 * DAY)
    invoice = local_stripe.client.v1.invoices.list({"status": "open"}).data[0]
    assert "Pay this invoice" in local_stripe.see(str(invoice.hosted_invoice_url))[1]
    with pytest.raises(PaymentRefused, match="declined"):
        local_stripe.pay_invoice(str(invoice.id), "4000000000000341")
    local_stripe.pay_invoice(str(invoice.id), "4000002760003184")
    assert local_stripe.client.v1.invoices.retrieve(str(invoice.id)).status == "paid"
    assert local_stripe.client.v1.subscriptions.retrieve(subscription.id).status == "active"
    assert "Pay this invoice" not in local_stripe.see(str(invoice.hosted_invoice_url))[1]
    local_stripe.pay_invoice(str(invoice.id))
    assert len([each for each in local_stripe.client.v1.charges.list() if each.paid]) == 2, "pressed twice"


def test_the_index_moves_the_clock(local_stripe: RunningLocalStripe) -> None:
    local_stripe.subscribe()
    assert "ada@example.com" in local_stripe.see(local_stripe.url + "/")[1]
    assert local_stripe._submit(local_stripe.url + "/", {"days": "31"}) == "/"
    assert len(local_stripe.client.v1.invoices.list().data) == 2


def test_the_index_says_what_each_test_card_does(local_stripe: RunningLocalStripe) -> None:
    html = local_stripe.see(local_stripe.url + "/")[1]
    for card in TEST_CARDS:
        assert card.spaced in html and card.what in html


def test_the_index_sets_what_follows_the_last_try(local_stripe: RunningLocalStripe) -> None:
    subscription = local_stripe.subscribe()
    local_stripe.change_card(local_stripe.open_portal(str(subscription.customer)), "4000000000000341")
    local_stripe._submit(local_stripe.url + "/", {"after_retries": "unpaid"})
    local_stripe._submit(local_stripe.url + "/", {"days": "60"})
    assert local_stripe.client.v1.subscriptions.retrieve(subscription.id).status == "unpaid"


@pytest.mark.parametrize("verdict", ["won", "lost"])
def test_the_index_ends_a_dispute(local_stripe: RunningLocalStripe, verdict: str) -> None:
    session = local_stripe.open_checkout(local_stripe.make_price().id)
    local_stripe.pay(str(session.url), "4000000000000259")
    local_stripe.advance(2)
    (dispute,) = local_stripe.client.v1.disputes.list().data
    assert "The seller wins" in local_stripe.see(local_stripe.url + "/")[1]
    local_stripe._submit(local_stripe.url + "/", {"dispute": dispute.id, "verdict": verdict})
    assert local_stripe.client.v1.disputes.retrieve(dispute.id).status == verdict
    assert "The seller wins" not in local_stripe.see(local_stripe.url + "/")[1]


def test_the_index_refuses_what_it_does_not_know(local_stripe: RunningLocalStripe) -> None:
    for form in ({"days": "soon"}, {"webhooks": "eat"}, {"after_retries": "forgive"}):
        with pytest.raises(PaymentRefused):
            local_stripe._submit(local_stripe.url + "/", form)


def test_an_invoice_shows_each_line_and_what_was_given_back(local_stripe: RunningLocalStripe) -> None:
    subscription = local_stripe.subscribe()
    change: Any = {
        "items": [{"id": subscription["items"]["data"][0]["id"], "price": local_stripe.make_price("twice").id}],
        "proration_behavior": "always_invoice",
    }
    local_stripe.client.v1.subscriptions.update(subscription.id, change)
    changed, first = local_stripe.client.v1.invoices.list().data
    html = local_stripe.see(str(changed.hosted_invoice_url))[1]
    assert "Unused time on Pub" in html and "Remaining time on Pub" in html
    charge = local_stripe.client.v1.charges.list().data[0].id
    local_stripe.client.v1.refunds.create({"charge": charge, "amount": 123})
    html = local_stripe.see(str(first.hosted_invoice_url))[1]
    assert "Given back" in html and "1.23 EUR" in html


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8001"])
@pytest.mark.parametrize("path", ["/", "/v1/customers"])
def test_another_name_that_points_here_sees_nothing(local_stripe: RunningLocalStripe, host: str, path: str) -> None:
    """DNS rebinding: a site can make its own name point here, but not change the Host that the browser sends."""
    local_stripe.subscribe()
    answer, body = local_stripe._send(
        "GET", local_stripe.url + path, headers={"Host": host, "Authorization": f"Bearer {KEY}"}
    )
    assert answer.status == 403
    assert "ada@example.com" not in body


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8001", "127.0.0.1:8001", "[::1]:8001"])
def test_a_browser_on_this_machine_may_look(local_stripe: RunningLocalStripe, host: str) -> None:
    answer, _ = local_stripe._send("GET", local_stripe.url, headers={"Host": host})
    assert answer.status == 200
