"""The Billing Portal of the local Stripe: its configurations, its flows, and changing plans in it."""

import re
from typing import Any

import pytest
import stripe

from tests.support.local_stripe import DAY, PaymentRefused, RunningLocalStripe

ALL: dict[str, Any] = {
    "customer_update": {"enabled": True, "allowed_updates": ["email", "address", "tax_id"]},
    "invoice_history": {"enabled": True},
    "payment_method_update": {"enabled": True},
    "subscription_cancel": {"enabled": True},
}
BACK = "https://site.example/account"


@pytest.fixture
def plans(local_stripe: RunningLocalStripe) -> dict[str, str]:
    """Three sizes by the month and the year; the prices by size and interval. A yearly one costs ten monthly ones."""
    found = {}
    for size in (1, 2, 4):
        product = local_stripe.client.v1.products.create({"name": f"Pub {size} GB"})
        for interval, amount in (("month", 500 * size), ("year", 5000 * size)):
            values: Any = {"currency": "eur", "unit_amount": amount, "recurring": {"interval": interval}}
            values["product"] = product.id
            price = local_stripe.client.v1.prices.create(values)
            found[f"{size} {interval}"] = price.id
    return found


def configure(local: RunningLocalStripe, plans: dict[str, str], proration: str = "always_invoice") -> str:
    """A configuration that allows everything; its id."""
    products: dict[str, list[str]] = {}
    for price in plans.values():
        products.setdefault(str(local.client.v1.prices.retrieve(price).product), []).append(price)
    update: Any = {
        "enabled": True,
        "default_allowed_updates": ["price"],
        "products": [{"product": product, "prices": prices} for product, prices in products.items()],
        "proration_behavior": proration,
    }
    features: Any = {**ALL, "subscription_update": update}
    return local.client.v1.billing_portal.configurations.create({"features": features}).id


def subscribe(local: RunningLocalStripe, price: str, **more: Any) -> stripe.Subscription:
    session = local.open_checkout(price, **more)
    local.pay(str(session.url))
    paid = local.client.v1.checkout.sessions.retrieve(session.id)
    return local.client.v1.subscriptions.retrieve(str(paid.subscription))


def open_portal(
    local: RunningLocalStripe, subscription: stripe.Subscription, configuration: str, flow: str = "", **more: Any
) -> str:
    values: Any = {"customer": subscription.customer, "return_url": BACK, "configuration": configuration, **more}
    if flow:
        values["flow_data"] = {
            "type": flow,
            "after_completion": {"type": "redirect", "redirect": {"return_url": f"{BACK}?done"}},
        }
    if flow.startswith("subscription"):
        values["flow_data"][flow] = {"subscription": subscription.id}
    return local.client.v1.billing_portal.sessions.create(values).url


def price_of(local: RunningLocalStripe, subscription: stripe.Subscription) -> str:
    return str(local.client.v1.subscriptions.retrieve(subscription.id)["items"]["data"][0]["price"]["id"])


def preview(local: RunningLocalStripe, url: str, subscription: stripe.Subscription, price: str) -> str:
    """What the portal says before the change is confirmed."""
    form = {"do": "preview", "sub": subscription.id, "price": price}
    answer, html = local._send("POST", url, form, {"Origin": local.url})
    assert answer.status == 200
    return html


# Configurations -----------------------------------------------------------------------------------


def test_a_configuration_is_kept_as_it_was_asked_for(local_stripe: RunningLocalStripe, plans: dict[str, str]) -> None:
    made = configure(local_stripe, plans)
    api = local_stripe.client.v1.billing_portal.configurations
    changed = api.update(
        made,
        {"metadata": {"mark": "here"}, "features": {"subscription_cancel": {"enabled": True, "mode": "immediately"}}},
    )
    assert changed.metadata and changed.metadata["mark"] == "here"
    features = api.retrieve(made).features
    assert features.subscription_cancel.mode == "immediately" and features.invoice_history.enabled
    assert features.subscription_update.products and len(features.subscription_update.products) == 3
    assert features.subscription_update.default_allowed_updates == ["price"]
    api.update(made, {"active": False})
    assert [each.id for each in api.list({"active": True, "is_default": False})] == []
    customer = local_stripe.client.v1.customers.create({"email": "ada@example.com"})
    with pytest.raises(stripe.InvalidRequestError, match="not active"):
        local_stripe.client.v1.billing_portal.sessions.create({"customer": customer.id, "configuration": made})


def test_one_product_cannot_be_offered_twice_by_the_month(local_stripe: RunningLocalStripe) -> None:
    """Stripe's portal cannot show it, and refuses it."""
    first = local_stripe.make_price("one")
    second = local_stripe.client.v1.prices.create(
        {"currency": "eur", "unit_amount": 900, "recurring": {"interval": "month"}, "product": str(first.product)}
    )
    product: Any = {"product": first.product, "prices": [first.id, second.id]}
    update: Any = {"enabled": True, "default_allowed_updates": ["price"], "products": [product]}
    with pytest.raises(stripe.InvalidRequestError, match="unique billing intervals"):
        local_stripe.client.v1.billing_portal.configurations.create({"features": {"subscription_update": update}})


@pytest.mark.parametrize(
    ("features", "param"),
    [
        ({"customer_update": {"enabled": True}}, "features[customer_update][allowed_updates]"),
        ({"subscription_update": {"enabled": True}}, "features[subscription_update][default_allowed_updates]"),
        (
            {"subscription_update": {"enabled": True, "default_allowed_updates": ["price"]}},
            "features[subscription_update][products]",
        ),
    ],
)
def test_a_feature_that_lacks_something_is_refused(local_stripe: RunningLocalStripe, features: Any, param: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        local_stripe.client.v1.billing_portal.configurations.create({"features": features})
    assert refused.value.param == param


def test_without_a_configuration_the_saved_one_counts(local_stripe: RunningLocalStripe) -> None:
    subscription = local_stripe.subscribe()
    html = local_stripe.see(local_stripe.open_portal(str(subscription.customer)))[1]
    assert "Cancel the subscription" in html and "Use this card" in html and "Change plan" not in html
    (default,) = local_stripe.client.v1.billing_portal.configurations.list({"is_default": True}).data
    with pytest.raises(stripe.InvalidRequestError, match="default configuration"):
        local_stripe.client.v1.billing_portal.configurations.update(default.id, {"active": False})


def test_the_portal_shows_and_does_only_what_its_configuration_allows(
    local_stripe: RunningLocalStripe, plans: dict[str, str]
) -> None:
    subscription = subscribe(local_stripe, plans["1 month"])
    api = local_stripe.client.v1.billing_portal.configurations
    little = api.create({"features": {"invoice_history": {"enabled": False}}}).id
    url = open_portal(local_stripe, subscription, little)
    html = local_stripe.see(url)[1]
    for words in ("Cancel the subscription", "Use this card", "Change plan", "Invoices", "Your details"):
        assert words not in html
    for form in (
        {"do": "cancel", "sub": subscription.id},
        {"do": "card", "number": "4242424242424242", "exp": "12/60"},
        {"do": "change", "sub": subscription.id, "price": plans["2 month"]},
        {"do": "details", "email": "eve@example.com"},
    ):
        with pytest.raises(PaymentRefused):
            local_stripe._submit(url, form)
    seen = local_stripe.client.v1.subscriptions.retrieve(subscription.id)
    assert seen.cancel_at is None and price_of(local_stripe, subscription) == plans["1 month"]


# Changing plans -----------------------------------------------------------------------------------


def test_a_bigger_plan_shows_what_is_due_and_charges_that(
    local_stripe: RunningLocalStripe, plans: dict[str, str]
) -> None:
    subscription = subscribe(local_stripe, plans["1 month"])
    url = open_portal(local_stripe, subscription, configure(local_stripe, plans))
    assert "Change plan" in local_stripe.see(url)[1]
    html = local_stripe.see(f"{url}/plan/{subscription.id}")[1]
    assert all(price in html for price in plans.values())
    local_stripe.advance(10 * DAY)
    html = preview(local_stripe, url, subscription, plans["4 month"])
    assert price_of(local_stripe, subscription) == plans["1 month"], "asking changes nothing"
    shown = re.search(r"Due today</th><td>([0-9.]+) EUR", html)
    assert shown and "Unused time on" in html and "Remaining time on" in html
    assert local_stripe.change_plan(url, subscription.id, plans["4 month"]).startswith("/p/session/")
    newest = local_stripe.client.v1.invoices.list().data[0]
    assert (newest.billing_reason, newest.status) == ("subscription_update", "paid")
    assert abs(newest.amount_paid - round(float(shown[1]) * 100)) <= 1, "a second may have passed"
    assert 950 < newest.amount_paid < 1050, "two thirds of the difference of 15.00"
    assert price_of(local_stripe, subscription) == plans["4 month"]


def test_a_smaller_plan_leaves_a_credit_that_the_next_invoice_uses(
    local_stripe: RunningLocalStripe, plans: dict[str, str]
) -> None:
    subscription = subscribe(local_stripe, plans["4 month"])
    url = open_portal(local_stripe, subscription, configure(local_stripe, plans))
    html = preview(local_stripe, url, subscription, plans["1 month"])
    assert "stay to your credit" in html and "Due today</th><td>0.00 EUR" in html
    local_stripe.change_plan(url, subscription.id, plans["1 month"])
    balance = local_stripe.client.v1.customers.retrieve(str(subscription.customer)).balance
    assert balance is not None and -1500 <= balance < -1490
    local_stripe.advance(31 * DAY)
    newest = local_stripe.client.v1.invoices.list().data[0]
    assert (newest.total, newest.amount_due) == (500, 0)
    assert "Credit used" in local_stripe.see(str(newest.hosted_invoice_url))[1]


def test_a_yearly_plan_begins_a_year_now(local_stripe: RunningLocalStripe, plans: dict[str, str]) -> None:
    subscription = subscribe(local_stripe, plans["1 month"])
    url = open_portal(local_stripe, subscription, configure(local_stripe, plans))
    html = preview(local_stripe, url, subscription, plans["1 year"])
    assert "Pub 1 GB, per year" in html
    local_stripe.change_plan(url, subscription.id, plans["1 year"])
    changed = local_stripe.client.v1.subscriptions.retrieve(subscription.id)
    assert changed["items"]["data"][0]["current_period_end"] - local_stripe.app.store.now() > 364 * DAY
    assert 4490 < local_stripe.client.v1.invoices.list().data[0].amount_paid <= 4510


@pytest.mark.parametrize(
    ("proration", "words"),
    [("create_prorations", "this comes with the invoice of"), ("none", "The new price counts from")],
)
def test_the_configuration_says_when_a_change_is_charged(
    local_stripe: RunningLocalStripe, plans: dict[str, str], proration: str, words: str
) -> None:
    subscription = subscribe(local_stripe, plans["1 month"])
    url = open_portal(local_stripe, subscription, configure(local_stripe, plans, proration))
    assert words in preview(local_stripe, url, subscription, plans["2 month"])
    local_stripe.change_plan(url, subscription.id, plans["2 month"])
    assert len(local_stripe.client.v1.invoices.list().data) == 1
    assert price_of(local_stripe, subscription) == plans["2 month"]


def test_a_change_that_cannot_be_paid_says_so(local_stripe: RunningLocalStripe, plans: dict[str, str]) -> None:
    subscription = subscribe(local_stripe, plans["1 month"])
    url = open_portal(local_stripe, subscription, configure(local_stripe, plans))
    local_stripe.change_card(url, "4000000000000341")
    with pytest.raises(PaymentRefused, match="payment was declined"):
        local_stripe.change_plan(url, subscription.id, plans["2 month"])
    assert local_stripe.client.v1.subscriptions.retrieve(subscription.id).status == "past_due"


def test_only_listed_plans_can_be_chosen_and_not_the_present_one(
    local_stripe: RunningLocalStripe, plans: dict[str, str]
) -> None:
    subscription = subscribe(local_stripe, plans["1 month"])
    listed = {name: price for name, price in plans.items() if not name.startswith("4")}
    url = open_portal(local_stripe, subscription, configure(local_stripe, listed))
    with pytest.raises(PaymentRefused, match="choose one of the plans"):
        local_stripe.change_plan(url, subscription.id, plans["4 month"])
    with pytest.raises(PaymentRefused, match="your plan already"):
        local_stripe.change_plan(url, subscription.id, plans["1 month"])


def test_a_cancelled_subscription_must_be_kept_before_it_changes(
    local_stripe: RunningLocalStripe, plans: dict[str, str]
) -> None:
    subscription = subscribe(local_stripe, plans["1 month"])
    configuration = configure(local_stripe, plans)
    url = open_portal(local_stripe, subscription, configuration)
    local_stripe.cancel(url, subscription.id)
    assert "Change plan" not in local_stripe.see(url)[1]
    with pytest.raises(PaymentRefused):
        local_stripe.change_plan(url, subscription.id, plans["2 month"])
    for flow in ("subscription_update", "subscription_cancel"):
        with pytest.raises(stripe.InvalidRequestError, match="already set to be canceled"):
            open_portal(local_stripe, subscription, configuration, flow)
    local_stripe.resume(url, subscription.id)
    local_stripe.change_plan(url, subscription.id, plans["2 month"])
    assert price_of(local_stripe, subscription) == plans["2 month"]


# Flows --------------------------------------------------------------------------------------------


def test_the_flow_to_a_plan_begins_there_and_comes_back(
    local_stripe: RunningLocalStripe, plans: dict[str, str]
) -> None:
    subscription = subscribe(local_stripe, plans["1 month"])
    url = open_portal(local_stripe, subscription, configure(local_stripe, plans), "subscription_update")
    html = local_stripe.see(url)[1]
    assert "Change plan" in html and "Invoices" not in html and BACK in html
    assert local_stripe.change_plan(url, subscription.id, plans["2 month"]) == f"{BACK}?done"


def test_the_flow_to_a_new_card_begins_there_and_comes_back(
    local_stripe: RunningLocalStripe, plans: dict[str, str]
) -> None:
    subscription = subscribe(local_stripe, plans["1 month"])
    url = open_portal(local_stripe, subscription, configure(local_stripe, plans), "payment_method_update")
    assert "Your card" in local_stripe.see(url)[1]
    with pytest.raises(PaymentRefused, match="declined"):
        local_stripe.change_card(url, "4000000000000002")
    form = {"do": "card", "number": "5555555555554444", "exp": "12/60", "cvc": "1"}
    assert local_stripe._submit(url, form) == f"{BACK}?done"


def test_the_flow_to_cancel_asks_why_and_comes_back(local_stripe: RunningLocalStripe, plans: dict[str, str]) -> None:
    subscription = subscribe(local_stripe, plans["1 month"])
    configuration = configure(local_stripe, plans)
    reasons: Any = {"enabled": True, "options": ["too_expensive", "unused"]}
    cancel: Any = {"enabled": True, "cancellation_reason": reasons}
    local_stripe.client.v1.billing_portal.configurations.update(
        configuration, {"features": {"subscription_cancel": cancel}}
    )
    url = open_portal(local_stripe, subscription, configuration, "subscription_cancel")
    html = local_stripe.see(url)[1]
    assert "expensive" in html and "I need more features" not in html
    form = {"do": "cancel", "sub": subscription.id, "reason": "unused"}
    assert local_stripe._submit(url, form) == f"{BACK}?done"
    ended = local_stripe.client.v1.subscriptions.retrieve(subscription.id)
    assert ended.cancel_at and not ended.cancel_at_period_end
    assert ended.cancellation_details and ended.cancellation_details.feedback == "unused"


def test_the_flow_to_one_price_shows_what_it_costs(local_stripe: RunningLocalStripe, plans: dict[str, str]) -> None:
    subscription = subscribe(local_stripe, plans["1 month"])
    configuration = configure(local_stripe, plans)
    item = subscription["items"]["data"][0]["id"]
    confirm: Any = {"subscription": subscription.id, "items": [{"id": item, "price": plans["2 month"]}]}
    values: Any = {
        "customer": subscription.customer,
        "configuration": configuration,
        "return_url": BACK,
        "flow_data": {
            "type": "subscription_update_confirm",
            "subscription_update_confirm": confirm,
            "after_completion": {"type": "hosted_confirmation", "hosted_confirmation": {"custom_message": "Enjoy!"}},
        },
    }
    url = local_stripe.client.v1.billing_portal.sessions.create(values).url
    assert "Due today" in local_stripe.see(url)[1]
    form = {"do": "change", "sub": subscription.id, "price": plans["2 month"]}
    answer, html = local_stripe._send("POST", url, form, {"Origin": local_stripe.url})
    assert answer.status == 200 and "Enjoy!" in html
    assert price_of(local_stripe, subscription) == plans["2 month"]


def test_a_flow_that_its_configuration_forbids_is_refused(
    local_stripe: RunningLocalStripe, plans: dict[str, str]
) -> None:
    subscription = subscribe(local_stripe, plans["1 month"])
    little = local_stripe.client.v1.billing_portal.configurations.create(
        {"features": {"invoice_history": {"enabled": True}}}
    )
    for flow in ("payment_method_update", "subscription_update", "subscription_cancel"):
        with pytest.raises(stripe.InvalidRequestError, match="is disabled"):
            open_portal(local_stripe, subscription, little.id, flow)


def test_a_flow_for_somebody_elses_subscription_is_refused(
    local_stripe: RunningLocalStripe, plans: dict[str, str]
) -> None:
    mine, theirs = (subscribe(local_stripe, plans["1 month"]) for _ in range(2))
    configuration = configure(local_stripe, plans)
    values: Any = {"type": "subscription_update", "subscription_update": {"subscription": theirs.id}}
    with pytest.raises(stripe.InvalidRequestError, match="does not belong"):
        open_portal(local_stripe, mine, configuration, flow_data=values)
    status, _ = local_stripe.see(f"{open_portal(local_stripe, mine, configuration)}/plan/{theirs.id}")
    assert status == 404


# Details ------------------------------------------------------------------------------------------


def test_a_customer_changes_the_details_that_may_be_changed(
    local_stripe: RunningLocalStripe, plans: dict[str, str]
) -> None:
    subscription = subscribe(local_stripe, plans["1 month"])
    url = open_portal(local_stripe, subscription, configure(local_stripe, plans))
    html = local_stripe.see(f"{url}/details")[1]
    assert 'name="email"' in html and 'name="name"' not in html
    form = {"do": "details", "email": "new@example.com", "name": "Eve", "country": "DE", "tax_number": "DE123456789"}
    local_stripe._submit(url, form)
    customer = local_stripe.client.v1.customers.retrieve(str(subscription.customer))
    assert (customer.email, customer.name) == ("new@example.com", None)
    assert customer.address and customer.address.country == "DE"
    (tax_id,) = local_stripe.client.v1.customers.tax_ids.list(customer.id).data
    assert tax_id.value == "DE123456789"
    with pytest.raises(PaymentRefused, match="e-mail"):
        local_stripe._submit(url, {**form, "email": "nobody"})
