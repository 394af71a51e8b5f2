"""A local Stripe that runs in a thread of the test process, and a customer's browser for its pages."""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from html import unescape
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import pytest
import stripe
import uvicorn

from billing.local_stripe.app import LocalStripe, make_app
from billing.local_stripe.store import API_VERSION

KEY = "sk_test_" + "0" * 24
DAY = 86_400


@pytest.fixture
def local_stripe() -> Iterator["RunningLocalStripe"]:
    """An empty local Stripe for one test."""
    with RunningLocalStripe() as running:
        yield running


class PaymentRefused(Exception):
    """A page of the local Stripe refused the form, with the words that it shows."""


class RunningLocalStripe:
    """A local Stripe on a free loopback port, from `with` until its end.

    `url` is its address, `client` a Stripe client for it, `app` the app itself. `retry_delays` are the
    pauses in seconds between the tries of one webhook. Pass `port` to come back where an earlier one was, and
    `clock_offset` to let the clock of a new one begin so many seconds ahead of ours, or behind it.
    """

    def __init__(
        self,
        state_file: Path | None = None,
        retry_delays: tuple[float, ...] = (0.05, 0.05, 0.05),
        port: int = 0,
        clock_offset: int = 0,
    ) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.app: LocalStripe = make_app(state_file, self.url, retry_delays, clock_offset)
        self.client = stripe.StripeClient(
            KEY, base_addresses={"api": self.url}, stripe_version=API_VERSION, max_network_retries=0
        )
        config = uvicorn.Config(self.app, log_config=None, lifespan="on", timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="local-stripe", daemon=True
        )

    def start(self) -> Self:
        self._thread.start()
        wait_until(lambda: self._server.started, "the local Stripe to start")
        return self

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=10)
        self._socket.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def make_price(self, lookup_key: str = "pub", interval: str = "month") -> stripe.Price:
        """A price of 5.00 EUR with its product."""
        values: stripe.params.PriceCreateParams = {
            "currency": "eur",
            "unit_amount": 500,
            "recurring": {"interval": interval},
            "lookup_key": lookup_key,
            "product_data": {"name": "Pub"},
        }
        return self.client.v1.prices.create(values)

    def open_checkout(self, price_id: str, **more: Any) -> stripe.checkout.Session:
        values: Any = {
            "mode": "subscription",
            "line_items": [{"price": price_id, "quantity": 1}],
            "success_url": "https://site.example/return?session_id={CHECKOUT_SESSION_ID}",
            "cancel_url": "https://site.example/back",
            **more,
        }
        return self.client.v1.checkout.sessions.create(values)

    def open_portal(self, customer_id: str) -> str:
        """The address of a portal page."""
        values: Any = {"customer": customer_id, "return_url": "https://site.example/account"}
        return self.client.v1.billing_portal.sessions.create(values).url

    def subscribe(self, interval: str = "month", **more: Any) -> stripe.Subscription:
        """A subscription paid through Checkout with the card that works."""
        price = self.make_price(f"pub-{time.monotonic_ns()}", interval)
        session = self.open_checkout(price.id, **more)
        self.pay(str(session.url))
        paid = self.client.v1.checkout.sessions.retrieve(session.id)
        return self.client.v1.subscriptions.retrieve(str(paid.subscription))

    def advance(self, seconds: int) -> None:
        """Moves the clock on. Renewals, expiries and retries on the way have happened when it returns."""
        self._help("_advance", seconds=str(seconds))

    def after_retries(self, status: str) -> None:
        """Sets what follows the last try of a payment: cancel, unpaid or past_due."""
        self._help("_settings", after_retries=status)

    def webhooks(self, mode: str) -> None:
        """Has webhooks delivered, held back or lost from now on: deliver, hold, drop."""
        self._help("_webhooks", mode=mode)

    def _help(self, helper: str, **form: str) -> None:
        """Asks for what only the local Stripe can do."""
        address = f"{self.url}/v1/test_helpers/{helper}"
        answer, body = self._send("POST", address, form, {"Authorization": f"Bearer {KEY}"})
        assert answer.status == 200, body

    def settle(self, timeout: float = 10) -> None:
        """Waits until every webhook is delivered or given up."""
        wait_until(lambda: not self.app.webhooks.waiting(), "the webhooks to be delivered", timeout)

    def pay(
        self,
        checkout_url: str,
        card: str = "4242424242424242",
        email: str = "ada@example.com",
        code: str = "",
        country: str = "",
        authenticates: bool = True,
    ) -> str:
        """Sends the Checkout forms as a browser does; the address they redirect to. Raises PaymentRefused.

        A promotion code and a country are sent where given. Where the bank asks, the customer `authenticates` or not.
        """
        if code:
            self._submit(checkout_url, {"do": "code", "code": code})
        if country:
            self._submit(checkout_url, {"do": "address", "country": country})
        location = self._submit(checkout_url, {"email": email, **_card(card)})
        if location == urlsplit(checkout_url).path:
            location = self._submit(checkout_url, {"do": "authenticate" if authenticates else "refuse"})
        return location

    def change_plan(self, portal_url: str, subscription_id: str, price_id: str) -> str:
        """Confirms another price in the portal; the address that leads to. Raises PaymentRefused."""
        return self._submit(portal_url, {"do": "change", "sub": subscription_id, "price": price_id})

    def pay_invoice(self, invoice_id: str, card: str = "4242424242424242") -> None:
        """Pays an open invoice on its own page, and authenticates where the bank asks. Raises PaymentRefused."""
        page = f"{self.url}/i/{invoice_id}"
        self._submit(page, {"do": "pay", **_card(card)})
        if "Your bank asks" in self.see(page)[1]:
            self._submit(page, {"do": "authenticate"})

    def change_card(self, portal_url: str, card: str = "4242424242424242") -> None:
        """Sends the portal's card form: nothing is charged. Raises PaymentRefused for a card that can't be saved."""
        self._submit(portal_url, {"do": "card", **_card(card)})

    def cancel(self, portal_url: str, subscription_id: str) -> None:
        """Presses the portal's button to end a subscription with its period."""
        self._submit(portal_url, {"do": "cancel", "sub": subscription_id})

    def resume(self, portal_url: str, subscription_id: str) -> None:
        """Presses the portal's button to keep a subscription."""
        self._submit(portal_url, {"do": "resume", "sub": subscription_id})

    def see(self, url: str) -> tuple[int, str]:
        """Status and HTML of a page."""
        answer, body = self._send("GET", url)
        return answer.status, body

    def _submit(self, url: str, form: dict[str, str]) -> str:
        answer, body = self._send("POST", url, form, {"Origin": self.url})
        if answer.status == 303:
            return answer.getheader("location") or ""
        said = re.search(r'role="alert">([^<]*)<', body) or re.search(r"<h1>([^<]*)<", body)
        raise PaymentRefused(unescape(said[1]) if said else f"{answer.status}: {body}")

    def _send(
        self,
        method: str,
        url: str,
        form: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[HTTPResponse, str]:
        parts = urlsplit(url)
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        body = urlencode(form) if form else None
        kind = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
        try:
            connection.request(method, parts.path or "/", body, {**kind, **(headers or {})})
            answer = connection.getresponse()
            return answer, answer.read().decode()
        finally:
            connection.close()


def wait_until(true: Callable[[], object], what: str, timeout: float = 10) -> None:
    """Looks again every few milliseconds; TimeoutError says what never happened."""
    end = time.monotonic() + timeout
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout} s in vain for {what}")
        time.sleep(0.01)


def _card(number: str) -> dict[str, str]:
    return {"number": number, "exp": "12 / 60", "cvc": "123"}
