"""Tax at the local Stripe: by the country that customers give, shown before they pay and on each invoice."""

from typing import Any

import pytest
import stripe

from tests.support.local_stripe import DAY, PaymentRefused, RunningLocalStripe

TAXED: dict[str, Any] = {"automatic_tax": {"enabled": True}, "tax_id_collection": {"enabled": True}}
KEPT: dict[str, Any] = {"customer_update": {"address": "auto", "name": "auto"}}


def retrieve(local: RunningLocalStripe, session: stripe.checkout.Session) -> stripe.checkout.Session:
    return local.client.v1.checkout.sessions.retrieve(session.id)


def newest_invoice(local: RunningLocalStripe) -> stripe.Invoice:
    return local.client.v1.invoices.list({"limit": 1}).data[0]


def test_a_taxed_page_asks_for_the_country_before_the_card(local_stripe: RunningLocalStripe) -> None:
    session = local_stripe.open_checkout(local_stripe.make_price().id, **TAXED)
    html = local_stripe.see(str(session.url))[1]
    assert "Where you are" in html and 'name="number"' not in html
    assert session.automatic_tax.status == "requires_location_inputs"
    with pytest.raises(PaymentRefused, match="say where you are"):
        local_stripe.pay(str(session.url))
    with pytest.raises(PaymentRefused, match="choose your country"):
        local_stripe.pay(str(session.url), country="XX")
    local_stripe._submit(str(session.url), {"do": "address", "country": "DE"})
    html = local_stripe.see(str(session.url))[1]
    for words in ("Tax (19 %)", "0.95 EUR", "5.95 EUR", 'name="number"'):
        assert words in html


def test_tax_is_charged_and_named_on_each_invoice(local_stripe: RunningLocalStripe) -> None:
    session = local_stripe.open_checkout(local_stripe.make_price().id, **TAXED)
    local_stripe.pay(str(session.url), country="DE")
    paid = retrieve(local_stripe, session)
    assert (paid.amount_subtotal, paid.amount_total, paid.automatic_tax.status) == (500, 595, "complete")
    assert paid.total_details and paid.total_details.amount_tax == 95
    assert paid.customer_details and paid.customer_details.address and paid.customer_details.address.country == "DE"
    for _ in range(2):
        invoice = newest_invoice(local_stripe)
        assert (invoice.subtotal, invoice.total_excluding_tax, invoice.total) == (500, 500, 595)
        assert (invoice.amount_paid, invoice.automatic_tax.status) == (595, "complete")
        (tax,) = invoice.total_taxes or []
        assert (tax.amount, tax.taxability_reason) == (95, "standard_rated") and tax.tax_rate_details
        rate = local_stripe.client.v1.tax_rates.retrieve(tax.tax_rate_details.tax_rate)
        assert (rate.country, rate.percentage) == ("DE", 19)
        assert "Tax (19 %)" in local_stripe.see(str(invoice.hosted_invoice_url))[1]
        local_stripe.advance(31 * DAY)


def test_a_country_without_tax_pays_none(local_stripe: RunningLocalStripe) -> None:
    session = local_stripe.open_checkout(local_stripe.make_price().id, **TAXED)
    local_stripe.pay(str(session.url), country="US")
    invoice = newest_invoice(local_stripe)
    assert (invoice.total, invoice.automatic_tax.status) == (500, "complete")
    (tax,) = invoice.total_taxes or []
    assert (tax.amount, tax.taxability_reason) == (0, "not_collecting")


def test_tax_comes_after_the_discount(local_stripe: RunningLocalStripe) -> None:
    coupon = local_stripe.client.v1.coupons.create({"percent_off": 50, "duration": "once"})
    session = local_stripe.open_checkout(local_stripe.make_price().id, discounts=[{"coupon": coupon.id}], **TAXED)
    local_stripe.pay(str(session.url), country="FR")
    assert newest_invoice(local_stripe).total == 300


def test_a_price_with_tax_in_it_costs_the_same_everywhere(local_stripe: RunningLocalStripe) -> None:
    price = local_stripe.client.v1.prices.create(
        {
            "currency": "eur",
            "unit_amount": 600,
            "recurring": {"interval": "month"},
            "tax_behavior": "inclusive",
            "product_data": {"name": "Pub"},
        }
    )
    session = local_stripe.open_checkout(price.id, **TAXED)
    local_stripe.pay(str(session.url), country="FR")
    invoice = newest_invoice(local_stripe)
    assert (invoice.total, invoice.total_excluding_tax) == (600, 500)


def test_a_business_elsewhere_in_the_union_pays_no_tax_here(local_stripe: RunningLocalStripe) -> None:
    session = local_stripe.open_checkout(local_stripe.make_price().id, **TAXED)
    address = {"do": "address", "country": "DE", "name": "Hafen GmbH"}
    with pytest.raises(PaymentRefused, match="number of your business"):
        local_stripe._submit(str(session.url), {**address, "tax_number": "FR123456789"})
    local_stripe._submit(str(session.url), {**address, "tax_number": "de 123 456 789"})
    local_stripe.pay(str(session.url))
    invoice = newest_invoice(local_stripe)
    (tax,) = invoice.total_taxes or []
    assert (invoice.total, tax.taxability_reason) == (500, "reverse_charge")
    (tax_id,) = local_stripe.client.v1.customers.tax_ids.list(str(invoice.customer)).data
    assert (tax_id.type, tax_id.value, tax_id.country) == ("eu_vat", "DE123456789", "DE")
    assert local_stripe.client.v1.customers.retrieve(str(invoice.customer)).name == "Hafen GmbH"


def test_a_known_customer_without_an_address_must_be_allowed_to_give_one(local_stripe: RunningLocalStripe) -> None:
    customer = local_stripe.client.v1.customers.create({"email": "ada@example.com"})
    price = local_stripe.make_price().id
    with pytest.raises(stripe.InvalidRequestError, match="requires a valid address") as refused:
        local_stripe.open_checkout(price, customer=customer.id, automatic_tax={"enabled": True})
    assert refused.value.code == "customer_tax_location_invalid"
    with pytest.raises(stripe.InvalidRequestError, match="set `customer_update"):
        local_stripe.open_checkout(price, customer=customer.id, customer_update={"address": "auto"}, **TAXED)
    session = local_stripe.open_checkout(price, customer=customer.id, **KEPT, **TAXED)
    local_stripe.pay(str(session.url), country="NL")
    kept = local_stripe.client.v1.customers.retrieve(customer.id)
    assert kept.address and kept.address.country == "NL"
    assert newest_invoice(local_stripe).total == 605


def test_a_known_address_is_used_and_only_changed_where_that_was_agreed(local_stripe: RunningLocalStripe) -> None:
    customer = local_stripe.client.v1.customers.create({"email": "ada@example.com", "address": {"country": "IE"}})
    price = local_stripe.make_price().id
    session = local_stripe.open_checkout(price, customer=customer.id, automatic_tax={"enabled": True})
    assert (session.amount_total, session.automatic_tax.status) == (615, "complete")
    assert "Where you are" not in local_stripe.see(str(session.url))[1]
    with pytest.raises(PaymentRefused):
        local_stripe.pay(str(session.url), country="US")
    local_stripe.pay(str(session.url))
    assert newest_invoice(local_stripe).total == 615


def test_a_subscription_made_by_the_api_is_taxed_too(local_stripe: RunningLocalStripe) -> None:
    price = local_stripe.make_price().id
    values: Any = {"items": [{"price": price}], "automatic_tax": {"enabled": True}}
    nowhere = local_stripe.client.v1.customers.create({"email": "ada@example.com"})
    with pytest.raises(stripe.InvalidRequestError, match="location isn't recognized"):
        local_stripe.client.v1.subscriptions.create({"customer": nowhere.id, **values})
    known = local_stripe.client.v1.customers.create({"email": "bob@example.com", "address": {"country": "FR"}})
    made = local_stripe.client.v1.subscriptions.create({"customer": known.id, **values})
    assert made.automatic_tax.enabled and newest_invoice(local_stripe).total == 600


def test_an_address_can_be_asked_for_without_tax(local_stripe: RunningLocalStripe) -> None:
    session = local_stripe.open_checkout(local_stripe.make_price().id, billing_address_collection="required")
    local_stripe.pay(str(session.url), country="CH")
    invoice = newest_invoice(local_stripe)
    assert (invoice.total, invoice.total_taxes) == (500, [])
    customer = local_stripe.client.v1.customers.retrieve(str(invoice.customer))
    assert customer.address and customer.address.country == "CH"
