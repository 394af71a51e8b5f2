"""Stripe itself, with a test key: the same calls as everywhere, on the same path.

    STRIPE_TEST_KEY=sk_test_… pytest tests/stripe

Without a key the tests are skipped. A live key is refused before anything is asked.

The key is that of an account, or a sandbox, that nobody else uses: products and lookup keys are the account's, so that
these tests take them from any deployment on it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
import stripe as sdk
from djstripe.models import Customer

from billing import gateway
from pubs.models import Bot
from tests.support.make import Maker

KEY = os.environ.get("STRIPE_TEST_KEY", "")
HOW = "set STRIPE_TEST_KEY to the secret test key (sk_test_…) of a Stripe account to run against Stripe itself"


def is_for_tests(key: str) -> bool:
    return key.startswith(("sk_test_", "rk_test_"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if "tests/stripe/" in str(item.path)]
    if ours and KEY and not is_for_tests(KEY):
        raise pytest.UsageError("STRIPE_TEST_KEY is no test key. Nothing was asked of Stripe.")
    for item in [each for each in ours if "real_stripe" in getattr(each, "fixturenames", ())]:
        item.add_marker("stripe")
        if not KEY:
            item.add_marker(pytest.mark.skip(reason=HOW))


@pytest.fixture
def real_stripe(db: None, settings: Any) -> Iterator[None]:
    with stripe_itself(settings):
        yield


@contextmanager
def stripe_itself(settings: Any) -> Iterator[None]:
    """The whole code talks to Stripe, as a deployment of its own. Products and prices stay there afterwards."""
    before = sdk.api_base, sdk.api_key
    settings.STRIPE_SECRET_KEY = settings.STRIPE_TEST_SECRET_KEY = KEY
    settings.STRIPE_LIVE_SECRET_KEY, settings.STRIPE_LIVE_MODE = "", False
    settings.STRIPE_API_HOST = "https://api.stripe.com"
    settings.DEPLOYMENT = f"test-{uuid4().hex[:12]}"
    settings.DJSTRIPE_SUBSCRIBER_CUSTOMER_KEY = f"{settings.DEPLOYMENT}_user"
    # Stripe takes no address that nobody else can reach.
    settings.SITE_URL = settings.STRIPE_WEBHOOK_BASE = "https://buttcloud.example"
    gateway.connect()
    try:
        yield
        forget(settings.DEPLOYMENT)
    finally:
        # No test after it may reach Stripe.
        sdk.api_base, sdk.api_key = before


def forget(deployment: str) -> None:
    for endpoint in sdk.WebhookEndpoint.list(limit=100).auto_paging_iter():
        if deployment in dict(endpoint.metadata or {}).values():
            sdk.WebhookEndpoint.delete(endpoint.id)
    for configuration in sdk.billing_portal.Configuration.list(limit=100, active=True).auto_paging_iter():
        if deployment in dict(configuration.metadata or {}).values():
            sdk.billing_portal.Configuration.modify(configuration.id, active=False)


@pytest.fixture
def catalogue(real_stripe: None) -> None:
    gateway.set_up()


@pytest.fixture
def bot(make: Maker, catalogue: None) -> Iterator[Bot]:
    """Somebody's pub. The customer that Stripe makes of them goes with the test, and all that it pays for."""
    made = make.bot(make.user(f"ada{uuid4().hex[:8]}"))
    yield made
    for customer in Customer.objects.filter(subscriber=made.owner):
        sdk.Customer.delete(customer.id)
