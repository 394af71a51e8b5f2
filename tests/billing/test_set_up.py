"""Catalogue and webhook endpoint in Stripe: made once, found again, mended."""

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from djstripe.models import Account, Price, WebhookEndpoint
from pytest_django import Settings

from billing import gateway
from tests.setup.test_settings import load
from tests.support.local_stripe import RunningLocalStripe


@pytest.fixture
def endpoints(stripe: RunningLocalStripe) -> list[dict[str, object]]:
    gateway.ensure_webhook_endpoint()
    return stripe.app.store.all("webhook_endpoint")


def test_setting_up_twice_makes_everything_once(stripe: RunningLocalStripe, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        call_command("stripe_setup")
    assert [len(stripe.app.store.all(kind)) for kind in ("product", "price", "webhook_endpoint")] == [1, 1, 1]
    assert Account.objects.count() == 1
    said = capsys.readouterr().out
    assert "made webhook endpoint" in said and said.rstrip().endswith("is there")


def test_a_new_price_takes_the_key_over_and_the_mirror_knows(stripe: RunningLocalStripe, settings: Settings) -> None:
    settings.PRICE_CENTS = 1250
    gateway.set_up_catalogue()
    old, new = stripe.app.store.all("price")
    assert (old["active"], old["lookup_key"]) == (False, None)
    assert (new["active"], new["lookup_key"], new["unit_amount"]) == (True, "pub-monthly-1gb", 1250)
    shown = Price.objects.get(active=True)
    assert shown.id == new["id"]


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
    assert load(environment, "STRIPE_PAGES").stdout == f"{pages}\n"
