"""Catalogue, portal and webhook endpoint in Stripe: made once, found again, put right."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from weakref import ref

import pytest
import stripe as stripe_module
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from djstripe.models import Account, Price, WebhookEndpoint
from djstripe.signals import WEBHOOK_SIGNALS
from pytest_django import Settings
from stripe.billing_portal import Configuration

from billing import gateway
from billing.gateway.set_up import EVENTS
from tests.billing.test_pay import forget_everything
from tests.setup.test_settings import load
from tests.support.local_stripe import RunningLocalStripe


@pytest.fixture
def endpoints(stripe: RunningLocalStripe) -> list[dict[str, object]]:
    gateway.ensure_webhook_endpoint()
    return stripe.app.store.all("webhook_endpoint")


def counted(stripe: RunningLocalStripe) -> dict[str, int]:
    """How many of ours there are; Stripe has a portal configuration of its own."""
    store = stripe.app.store
    ours = [each for each in store.all("billing_portal.configuration") if each["metadata"]]
    kinds = ("product", "price", "webhook_endpoint")
    return {kind: len(store.all(kind)) for kind in kinds} | {"configuration": len(ours)}


ALL_ONCE = {"product": 3, "price": 6, "webhook_endpoint": 1, "configuration": 1}


def test_setting_up_twice_makes_everything_once(stripe: RunningLocalStripe, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        call_command("stripe_setup")
    assert counted(stripe) == ALL_ONCE
    assert Account.objects.count() == 1
    said = capsys.readouterr().out
    assert "made webhook endpoint" in said and said.rstrip().endswith("is there")


@pytest.mark.django_db(transaction=True)
def test_setting_up_twice_at_once_makes_everything_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that never find what the other one has just made: they go in step at each thing they make."""
    together = Barrier(2)
    for kind in (stripe_module.Product, stripe_module.Price, Configuration, stripe_module.WebhookEndpoint):
        monkeypatch.setattr(kind, "create", staticmethod(_in_step(kind.create, together)))

    def set_up(_: int) -> None:
        try:
            gateway.set_up()
        finally:
            connection.close()

    with RunningLocalStripe() as empty:
        settings.STRIPE_API_HOST = empty.url
        gateway.connect()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(set_up, range(2)))
        assert counted(empty) == ALL_ONCE
        (endpoint,) = empty.app.store.all("webhook_endpoint")
        assert WebhookEndpoint.objects.get().secret == endpoint["_secret"]


def _in_step(create: Callable[..., Any], together: Barrier) -> Callable[..., Any]:
    def create_in_step(**values: Any) -> Any:
        together.wait(timeout=20)
        return create(**values)

    return create_in_step


def test_each_size_is_sold_by_the_month_and_the_year(stripe: RunningLocalStripe) -> None:
    prices = {each["lookup_key"]: each for each in stripe.app.store.all("price")}
    sold = {
        name: (each["unit_amount"], each["recurring"]["interval"], each["metadata"]) for name, each in prices.items()
    }
    assert sold == {
        "pub-monthly-1gb": (900, "month", {"memory_gb": "1"}),
        "pub-monthly-2gb": (1700, "month", {"memory_gb": "2"}),
        "pub-monthly-4gb": (3200, "month", {"memory_gb": "4"}),
        "pub-yearly-1gb": (9000, "year", {"memory_gb": "1"}),
        "pub-yearly-2gb": (17000, "year", {"memory_gb": "2"}),
        "pub-yearly-4gb": (32000, "year", {"memory_gb": "4"}),
    }
    assert [offer.lookup_key for offer in gateway.offers()] == list(sold)
    assert {each["name"] for each in stripe.app.store.all("product")} == {"Pub 1 GB", "Pub 2 GB", "Pub 4 GB"}


def test_a_new_amount_makes_a_new_price_which_takes_the_key_over(
    stripe: RunningLocalStripe, settings: Settings
) -> None:
    settings.PRICES_MONTHLY = (1250, 1700, 3200)
    gateway.set_up_catalogue()
    old, *_, new = stripe.app.store.all("price")
    assert (old["active"], old["lookup_key"]) == (False, None)
    assert (new["active"], new["lookup_key"], new["unit_amount"]) == (True, "pub-monthly-1gb", 1250)
    assert gateway.offers()[0].price_id == new["id"]
    assert not Price.objects.get(id=old["id"]).active
    settings.PRICES_MONTHLY = (900, 1700, 3200)
    gateway.set_up_catalogue()
    assert gateway.offers()[0].amount == 900


def test_what_somebody_changed_by_hand_is_put_right(stripe: RunningLocalStripe) -> None:
    before = gateway.offers()
    archived, renamed, emptied = (offer.price_id for offer in before[:3])
    prices = stripe.client.v1.prices
    prices.update(archived, {"active": False})
    prices.update(renamed, {"lookup_key": "something-else"})
    prices.update(emptied, {"metadata": {"memory_gb": ""}})
    stripe.client.v1.products.update("buttcloud-pub-2gb", {"active": False})
    stripe.client.v1.products.update("buttcloud-pub-4gb", {"name": "Four"})
    for price_id in (archived, renamed, emptied):
        Price.sync_from_stripe_data(prices.retrieve(price_id))
    assert len(gateway.offers()) == 3
    gateway.set_up_catalogue()
    assert gateway.offers() == before
    products = {each["id"]: (each["active"], each["name"]) for each in stripe.app.store.all("product")}
    assert products["buttcloud-pub-2gb"] == (True, "Pub 2 GB")
    assert products["buttcloud-pub-4gb"] == (True, "Pub 4 GB")


def test_a_price_beside_ours_is_archived(stripe: RunningLocalStripe) -> None:
    """As a set-up leaves it that was killed between the new price and the old one."""
    left = stripe.client.v1.prices.create(
        {"product": "buttcloud-pub-1gb", "currency": "eur", "unit_amount": 100, "recurring": {"interval": "month"}}
    )
    gateway.set_up_catalogue()
    assert not stripe.client.v1.prices.retrieve(left.id).active


def test_a_wiped_stripe_leaves_no_old_prices_for_sale(stripe: RunningLocalStripe) -> None:
    before = {offer.price_id for offer in gateway.offers()}
    forget_everything(stripe)
    after = {offer.price_id for offer in gateway.offers()}
    assert len(after) == 6 and not before & after
    assert Price.objects.filter(active=True).count() == 6


def test_stripe_tells_of_all_that_we_hear() -> None:
    heard = {kind for kind, signal in WEBHOOK_SIGNALS.items() if any(_is_ours(each) for each in signal.receivers)}
    assert heard and heard <= set(EVENTS)


def _is_ours(receiver: tuple[Any, ...]) -> bool:
    return any(getattr(part(), "__module__", "") == "billing.handlers" for part in receiver if isinstance(part, ref))


def portal_of(stripe: RunningLocalStripe) -> dict[str, Any]:
    (ours,) = [each for each in stripe.app.store.all("billing_portal.configuration") if each["metadata"]]
    return ours


def test_the_portal_lets_customers_do_what_our_pages_promise(stripe: RunningLocalStripe) -> None:
    features = portal_of(stripe)["features"]
    assert features["payment_method_update"]["enabled"] and features["invoice_history"]["enabled"]
    assert features["subscription_cancel"]["mode"] == "at_period_end"
    change = features["subscription_update"]
    assert change["proration_behavior"] == "always_invoice"
    offered = {price for product in change["products"] for price in product["prices"]}
    assert offered == {offer.price_id for offer in gateway.offers()}
    assert features["customer_update"]["allowed_updates"] == ["email"]


def test_the_portal_follows_settings_and_prices_and_is_put_right(
    stripe: RunningLocalStripe, settings: Settings
) -> None:
    portal = portal_of(stripe)
    portal["active"] = portal["features"]["subscription_cancel"]["enabled"] = False
    settings.STRIPE_TAX = True
    settings.PRICES_YEARLY = (9900, 17000, 32000)
    gateway.set_up_catalogue()
    mended = portal_of(stripe)
    assert mended["id"] == portal["id"] and mended["active"]
    assert mended["features"]["subscription_cancel"]["enabled"]
    assert "tax_id" in mended["features"]["customer_update"]["allowed_updates"]
    offered = {price for each in mended["features"]["subscription_update"]["products"] for price in each["prices"]}
    assert offered == {offer.price_id for offer in gateway.offers()}


def test_the_portal_of_another_deployment_is_left_alone(stripe: RunningLocalStripe, settings: Settings) -> None:
    settings.DEPLOYMENT = "another"
    gateway.set_up_catalogue()
    assert counted(stripe)["configuration"] == 2


def test_a_moved_site_moves_its_endpoint(
    stripe: RunningLocalStripe, endpoints: list[dict[str, object]], settings: Settings
) -> None:
    secret = WebhookEndpoint.objects.get().secret
    settings.STRIPE_WEBHOOK_BASE = "http://127.0.0.1:4444"
    gateway.ensure_webhook_endpoint()
    (moved,) = stripe.app.store.all("webhook_endpoint")
    assert moved["id"] == endpoints[0]["id"]
    assert str(moved["url"]).startswith("http://127.0.0.1:4444/stripe/webhook/")
    held = WebhookEndpoint.objects.get()
    assert held.secret == secret and held.url == moved["url"]


def test_an_endpoint_whose_secret_was_lost_is_replaced(
    stripe: RunningLocalStripe, endpoints: list[dict[str, object]]
) -> None:
    WebhookEndpoint.objects.all().delete()
    gateway.ensure_webhook_endpoint()
    (replaced,) = stripe.app.store.all("webhook_endpoint")
    assert replaced["id"] != endpoints[0]["id"]
    assert WebhookEndpoint.objects.get().id == replaced["id"]


def test_a_wiped_stripe_gets_a_new_endpoint_and_old_secrets_go(
    stripe: RunningLocalStripe, endpoints: list[dict[str, object]]
) -> None:
    stripe.app.store.objects["webhook_endpoint"].clear()
    gateway.ensure_webhook_endpoint()
    assert WebhookEndpoint.objects.get().id == stripe.app.store.all("webhook_endpoint")[0]["id"]


def test_an_endpoint_deleted_today_is_made_again(
    stripe: RunningLocalStripe, endpoints: list[dict[str, object]]
) -> None:
    """Stripe remembers for a day what it once answered, and would answer with the deleted one."""
    first = str(endpoints[0]["id"])
    stripe.client.v1.webhook_endpoints.delete(first)
    WebhookEndpoint.objects.all().delete()
    gateway.ensure_webhook_endpoint()
    (again,) = stripe.app.store.all("webhook_endpoint")
    assert again["id"] != first and WebhookEndpoint.objects.get().secret == again["_secret"]


def test_a_disabled_endpoint_is_enabled_again(stripe: RunningLocalStripe, endpoints: list[dict[str, object]]) -> None:
    endpoints[0]["status"] = "disabled"
    gateway.ensure_webhook_endpoint()
    assert stripe.app.store.all("webhook_endpoint")[0]["status"] == "enabled"


def test_the_endpoint_of_another_deployment_is_left_alone(
    stripe: RunningLocalStripe, endpoints: list[dict[str, object]], settings: Settings
) -> None:
    settings.DEPLOYMENT = "another"
    gateway.ensure_webhook_endpoint()
    assert len(stripe.app.store.all("webhook_endpoint")) == 2
    assert WebhookEndpoint.objects.count() == 2


def test_without_stripe_the_command_says_why(stripe: RunningLocalStripe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stripe.max_network_retries", 0)
    stripe.stop()
    with pytest.raises(CommandError, match="could not be set up"):
        call_command("stripe_setup")


@pytest.mark.parametrize(
    ("environment", "pages"),
    [
        ({}, ["http://localhost:8001"]),
        ({"STRIPE_PORT": "8101"}, ["http://localhost:8101"]),
        ({"STRIPE_API_HOST": "http://127.0.0.1:8201/"}, ["http://localhost:8201"]),
        ({"STRIPE_API_HOST": "https://api.stripe.com"}, ["https://checkout.stripe.com", "https://billing.stripe.com"]),
    ],
)
def test_the_browser_may_go_to_the_pages_of_the_stripe_in_use(environment: dict[str, str], pages: list[str]) -> None:
    assert pages == load(environment).STRIPE_PAGES
