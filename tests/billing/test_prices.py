"""Prices as visitors read them: amounts of the mirror, each reader's way of writing, and plain words without any."""

import re

import pytest
from django.template import Context, Template
from django.test import Client, RequestFactory
from django.urls import reverse
from djstripe.models import Price
from pytest_django import Settings

from billing import gateway, paid, prices
from billing.money import ENGLISH, locale_of, money
from tests.billing.conftest import Customer
from tests.support.local_stripe import RunningLocalStripe
from tests.support.make import Maker


def plain(words: str) -> str:
    """Without the spaces that keep an amount on one line."""
    return words.replace("\u00a0", " ").replace("\u202f", " ")


@pytest.mark.parametrize(
    ("amount", "currency", "browser", "written"),
    [
        (900, "eur", "", "€9"),
        (950, "eur", "en", "€9.50"),
        (5, "usd", "en-US,en;q=0.9", "$0.05"),
        (123456, "usd", "en-US", "$1,234.56"),
        (123456, "usd", "de-DE,de;q=0.9", "1.234,56 $"),
        (900, "eur", "de-DE", "9 €"),
        (123456, "eur", "fr", "1 234,56 €"),
        (123456, "chf", "de-CH", "CHF 1’234.56"),
        (1200, "jpy", "en-US", "¥1,200"),
        (1200, "jpy", "fr", "1 200 JPY"),
        (3500, "kwd", "en-US", "KWD3.500"),
        (3000, "kwd", "en-US", "KWD3"),
        (3500, "kwd", "de-DE", "3,500 KWD"),
        (99000, "isk", "en", "ISK990"),
        (99050, "isk", "en", "ISK990"),
        (500000, "ugx", "en", "UGX5,000"),
    ],
)
def test_money_is_written_in_the_readers_way(amount: int, currency: str, browser: str, written: str) -> None:
    assert plain(money(amount, currency, locale_of(browser))) == written


@pytest.mark.parametrize(
    ("browser", "language"),
    [
        ("", "en"),
        ("de-DE,de;q=0.9,en;q=0.8", "de_DE"),
        ("tlh, fr;q=0.5", "fr"),
        ("*", "en"),
        ("*;q=0.1, ja", "ja"),
        ("en;q=0.3, de;q=0.7", "de"),
        ("zh-Hant-TW", "zh_Hant_TW"),
        ("x" * 9000, "en"),
        ("../../etc/passwd", "en"),
    ],
)
def test_the_browser_says_which_language_counts(browser: str, language: str) -> None:
    assert str(locale_of(browser)) == language


def test_all_that_is_for_sale_is_shown_smallest_first(stripe: RunningLocalStripe) -> None:
    shown = prices.sizes(ENGLISH)
    assert [size.memory_gb for size in shown] == [1, 2, 4]
    assert [way.words for size in shown for way in size.ways] == [
        "€9 a month", "€90 a year", "€17 a month", "€170 a year", "€32 a month", "€320 a year",
    ]  # fmt: skip
    assert [(size.ways[0].a_month, size.ways[0].saved) for size in shown] == [("", "")] * 3
    assert [(size.ways[1].a_month, size.ways[1].saved) for size in shown] == [
        ("€7.50", "€18"), ("€14.17", "€34"), ("€26.67", "€64"),
    ]  # fmt: skip


def test_a_year_that_saves_nothing_does_not_say_so(stripe: RunningLocalStripe, settings: Settings) -> None:
    settings.PRICES_YEARLY = (10800, 20400, 38400)
    gateway.set_up_catalogue()
    assert [size.ways[1].saved for size in prices.sizes(ENGLISH)] == ["", "", ""]


@pytest.mark.parametrize(
    ("currency", "browser", "monthly", "a_month"),
    [("jpy", "en-US", "¥900 a month", "¥750"), ("kwd", "de-DE", "0,900 KWD a month", "0,750 KWD")],
)
def test_a_currency_without_hundredths_is_no_trap(
    stripe: RunningLocalStripe, settings: Settings, currency: str, browser: str, monthly: str, a_month: str
) -> None:
    settings.PRICE_CURRENCY = currency
    gateway.set_up_catalogue()
    smallest = prices.sizes(locale_of(browser))[0]
    assert (plain(smallest.ways[0].words), plain(smallest.ways[1].a_month)) == (monthly, a_month)


def test_the_landing_page_writes_prices_as_the_visitor_does(client: Client, stripe: RunningLocalStripe) -> None:
    german = client.get("/", headers={"Accept-Language": "de-DE,de;q=0.9"})
    assert "9 € a month" in plain(german.content.decode())
    assert "Accept-Language" in german["Vary"]
    english = client.get("/").content.decode()
    assert "€9 a month" in english
    assert "€320 a year" in english and "4 GB" in english


def test_the_mirror_is_what_is_shown_whatever_settings_say(
    client: Client, stripe: RunningLocalStripe, settings: Settings
) -> None:
    settings.PRICES_MONTHLY = (1250, 1700, 3200)
    assert "€9 a month" in client.get("/").content.decode()
    gateway.set_up_catalogue()
    assert "€12.50 a month" in client.get("/").content.decode()


def test_the_pubs_page_lets_a_size_and_a_way_to_pay_be_chosen(alice: Customer) -> None:
    answer = alice.browser.get(alice.bot.get_absolute_url(), headers={"Accept-Language": "de"})
    fields = re.findall(
        r'<input type="radio" name="offer"[^>]*value="([^"]*)" form="checkout-form"([^>]*)>', answer.text
    )
    assert [key for key, _ in fields] == [
        "pub-monthly-1gb", "pub-yearly-1gb", "pub-monthly-2gb", "pub-yearly-2gb", "pub-monthly-4gb", "pub-yearly-4gb",
    ]  # fmt: skip
    assert [key for key, more in fields if "checked" in more] == ["pub-monthly-1gb"]
    assert "32 € a month" in plain(answer.text) and "restarts once" in answer.text
    assert "Accept-Language" in answer["Vary"]


@pytest.mark.parametrize("address", ["/", "/pubs/new/"])
def test_without_prices_the_page_says_so_and_makes_none_up(client: Client, make: Maker, address: str) -> None:
    client.force_login(make.user())
    text = client.get(address).content.decode()
    assert "no prices" in text
    assert "€" not in text and "a month" not in text


def test_a_pub_can_not_be_paid_as_long_as_there_are_no_prices(alice: Customer) -> None:
    Price.objects.all().delete()
    text = alice.browser.get(alice.bot.get_absolute_url()).content.decode()
    assert "no prices" in text and 'name="offer"' not in text and 'id="pay"' not in text


def test_a_key_on_another_price_sells_nothing_else(client: Client, stripe: RunningLocalStripe) -> None:
    """Somebody gave the key of the smallest to a price of their own, in Stripe."""
    stranger = stripe.make_price("strange")
    stripe.client.v1.prices.update(stranger.id, {"lookup_key": "pub-monthly-1gb", "transfer_lookup_key": True})
    Price.objects.filter(lookup_key="pub-monthly-1gb").delete()
    Price.sync_from_stripe_data(stripe.client.v1.prices.retrieve(stranger.id))
    assert [offer.lookup_key for offer in gateway.offers()][:2] == ["pub-monthly-2gb", "pub-monthly-4gb"]
    assert client.get("/").status_code == 200


def test_what_is_paid_is_said_even_when_it_is_no_longer_sold(alice: Customer, settings: Settings) -> None:
    assert prices.price_of(alice.bot, ENGLISH) == ""
    alice.come_back(alice.pay())
    settings.PRICES_MONTHLY = (1250, 1700, 3200)
    gateway.set_up_catalogue()
    assert prices.price_of(alice.see(), ENGLISH) == "€9 a month"
    assert prices.price_from(ENGLISH) == "€12.50 a month"


def test_who_paid_before_finds_the_same_chosen(alice: Customer, settings: Settings) -> None:
    assert prices.usual(alice.bot) == "pub-monthly-1gb"
    bought = gateway.offers()[4]
    assert bought.lookup_key == "pub-yearly-2gb"
    alice.bot.price_id = bought.price_id
    assert prices.usual(alice.bot) == "pub-yearly-2gb"
    settings.PRICES_YEARLY = (9000, 18000, 32000)
    gateway.set_up_catalogue()
    assert prices.usual(alice.bot) == "pub-yearly-2gb"


def test_a_price_that_can_not_be_said_is_left_out(make: Maker, stripe: RunningLocalStripe) -> None:
    quarterly = stripe.client.v1.prices.create(
        {
            "currency": "eur",
            "unit_amount": 2500,
            "recurring": {"interval": "month", "interval_count": 3},
            "product_data": {"name": "By hand"},
        }
    )
    Price.sync_from_stripe_data(quarterly)
    assert prices.price_of(make.bot(price_id=quarterly.id), ENGLISH) == ""
    assert prices.price_of(make.bot(price_id="price_unknown"), ENGLISH) == ""


def test_a_piece_without_a_request_is_told_the_language(alice: Customer) -> None:
    alice.come_back(alice.pay())
    template = Template("{% load payment %}{% price_from %}, {% price_of bot %}")
    told = template.render(Context({"bot": alice.see(), "accept_language": "de"}))
    assert plain(told) == "9 € a month, 9 € a month"
    request = RequestFactory().get("/", headers={"Accept-Language": "fr"})
    assert plain(template.render(Context({"bot": alice.bot, "request": request}))).startswith("9 € a month")
    assert template.render(Context({"bot": alice.bot})) == "€9 a month, €9 a month"


def test_the_api_lists_prices_for_everybody(client: Client, stripe: RunningLocalStripe) -> None:
    answer = client.get(reverse("api-prices"), headers={"Accept-Language": "de"})
    assert answer.status_code == 200 and "Accept-Language" in answer["Vary"]
    first = answer.json()[0]
    assert plain(first.pop("words")) == "9 € a month"
    assert first == {
        "offer": "pub-monthly-1gb", "memory_gb": 1, "interval": "month", "amount": 900, "currency": "eur",
    }  # fmt: skip
    assert len(answer.json()) == 6


def test_the_api_lists_nothing_before_there_are_prices(client: Client, db: None) -> None:
    assert client.get(reverse("api-prices")).json() == []


def test_the_pubs_page_says_what_is_paid_and_leads_to_other_sizes_and_the_end(alice: Customer) -> None:
    def shown() -> str:
        return alice.browser.get(alice.bot.get_absolute_url()).text

    assert 'name="flow"' not in shown()
    alice.come_back(alice.pay(offer="pub-yearly-2gb"))
    assert "2 GB for €170 a year" in shown()
    assert 'name="flow" value="plan"' in shown() and 'name="flow" value="cancel"' in shown()
    alice.stripe.cancel(alice.open_portal(), alice.see().subscription_id)
    paid.look(alice.bot.pk)
    assert 'name="flow"' not in shown() and "Payment and invoices" in shown()
