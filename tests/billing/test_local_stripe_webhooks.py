"""Webhooks of the local Stripe: signed, in order, tried again, and not lost by a restart."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import stripe

from billing.local_stripe.app import CorruptState, make_app
from tests.support.local_stripe import RunningLocalStripe, wait_until


class Receiver:
    """An endpoint that keeps what it hears, and answers with the statuses in `answers`, then with 200."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, str]] = []
        self.tries = 0
        self.answers: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.tries += 1
                status = receiver.answers.pop(0) if receiver.answers else 200
                if status == 200:
                    receiver.heard.append((body, self.headers["stripe-signature"]))
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def names(self) -> list[str]:
        """The names of the customers that it was told of, in the order of arrival."""
        return [json.loads(body)["data"]["object"]["name"] for body, _ in self.heard]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


def listen(local: RunningLocalStripe, url: str, *events: Any) -> stripe.WebhookEndpoint:
    return local.client.v1.webhook_endpoints.create({"url": url, "enabled_events": [*events] or ["*"]})


def make_customers(local: RunningLocalStripe, *names: str) -> None:
    for name in names:
        local.client.v1.customers.create({"name": name})


def test_the_signature_verifies(local_stripe: RunningLocalStripe, receiver: Receiver) -> None:
    endpoint = listen(local_stripe, receiver.url)
    make_customers(local_stripe, "Ada")
    local_stripe.settle()
    body, signature = receiver.heard[0]
    event = stripe.Webhook.construct_event(body, signature, str(endpoint.secret))  # type: ignore[no-untyped-call]
    assert event.type == "customer.created" and event.data.object["name"] == "Ada"
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(body + b" ", signature, str(endpoint.secret))  # type: ignore[no-untyped-call]


def test_the_secret_is_told_only_once(local_stripe: RunningLocalStripe, receiver: Receiver) -> None:
    endpoint = listen(local_stripe, receiver.url)
    assert str(endpoint.secret).startswith("whsec_")
    endpoints = local_stripe.client.v1.webhook_endpoints
    assert "secret" not in endpoints.retrieve(endpoint.id).to_dict()
    assert "secret" not in endpoints.list().data[0].to_dict()


def test_only_wanted_events_are_sent(local_stripe: RunningLocalStripe, receiver: Receiver) -> None:
    listen(local_stripe, receiver.url, "product.created")
    make_customers(local_stripe, "Ada")
    local_stripe.client.v1.products.create({"name": "Pub"})
    local_stripe.settle()
    assert receiver.names() == ["Pub"]


def test_a_failing_endpoint_is_tried_again_and_gets_all_in_order(
    local_stripe: RunningLocalStripe, receiver: Receiver
) -> None:
    receiver.answers = [500, 302, 404]
    listen(local_stripe, receiver.url)
    make_customers(local_stripe, "one", "two", "three")
    local_stripe.settle()
    assert receiver.names() == ["one", "two", "three"]
    assert receiver.tries == 6
    assert {each.pending_webhooks for each in local_stripe.client.v1.events.list()} == {0}


def test_a_dead_endpoint_does_not_hold_up_another(local_stripe: RunningLocalStripe, receiver: Receiver) -> None:
    local_stripe.app.webhooks.retry_delays = (60.0, 60.0, 60.0)
    listen(local_stripe, "http://127.0.0.1:9/dead")
    listen(local_stripe, receiver.url)
    make_customers(local_stripe, "Ada")
    wait_until(receiver.names, "the living endpoint to be told")


def test_after_the_last_try_an_event_waits_for_a_restart(tmp_path: Path, receiver: Receiver) -> None:
    state = tmp_path / "stripe.json"
    receiver.answers = [500] * 4
    with RunningLocalStripe(state) as local:
        listen(local, receiver.url)
        make_customers(local, "kept")
        local.settle()
        make_customers(local, "later")
        local.settle()
        assert receiver.names() == ["later"]
        assert local.client.v1.events.list().data[1].pending_webhooks == 1
    with RunningLocalStripe(state) as local:
        local.settle()
        assert receiver.names() == ["later", "kept"]
        assert local.client.v1.events.list().data[1].pending_webhooks == 0
    with RunningLocalStripe(state) as local:
        local.settle()
        assert receiver.tries == 6


def test_a_stop_in_the_middle_of_a_pause_loses_nothing(tmp_path: Path, receiver: Receiver) -> None:
    state = tmp_path / "stripe.json"
    receiver.answers = [500]
    with RunningLocalStripe(state, retry_delays=(60.0, 60.0, 60.0)) as local:
        listen(local, receiver.url)
        make_customers(local, "one", "two")
        wait_until(lambda: receiver.tries == 1, "the first try")
    with RunningLocalStripe(state) as local:
        local.settle()
    assert receiver.names() == ["one", "two"]


def test_a_restart_keeps_everything(tmp_path: Path) -> None:
    state = tmp_path / "stripe.json"
    with RunningLocalStripe(state) as local:
        made = local.subscribe()
        local.advance(86_400)
        now = local.app.store.now()
        once = local.client.v1.customers.create({"name": "once"}, {"idempotency_key": "once"})
        port = local.port
    assert state.stat().st_mode & 0o777 == 0o600
    with RunningLocalStripe(state, port=port) as local:
        kept = local.client.v1.subscriptions.retrieve(made.id)
        assert kept.to_dict() == made.to_dict()
        assert local.app.store.now() >= now
        again = local.client.v1.customers.create({"name": "once"}, {"idempotency_key": "once"})
        assert again.id == once.id
        local.advance(31 * 86_400)
        assert len(local.client.v1.invoices.list({"subscription": made.id}).data) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 99}', '{"version": 1}'])
def test_a_corrupt_file_is_one_clear_error(tmp_path: Path, text: str) -> None:
    state = tmp_path / "stripe.json"
    state.write_text(text)
    with pytest.raises(CorruptState, match=r"stripe\.json.* Move the file away") as failed:
        make_app(state, "http://127.0.0.1:1")
    assert "\n" not in str(failed.value)


def test_a_state_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "a file, not a folder"
    folder.write_text("")
    with (
        RunningLocalStripe(folder / "stripe.json") as local,
        pytest.raises(stripe.APIError, match="cannot write"),
    ):
        make_customers(local, "Ada")


def test_an_endpoint_is_changed_disabled_and_deleted(local_stripe: RunningLocalStripe, receiver: Receiver) -> None:
    endpoint = listen(local_stripe, "http://127.0.0.1:9/dead", "product.created")
    endpoints = local_stripe.client.v1.webhook_endpoints
    endpoints.update(endpoint.id, {"url": receiver.url, "enabled_events": ["*"]})
    make_customers(local_stripe, "one")
    local_stripe.settle()
    assert endpoints.update(endpoint.id, {"disabled": True}).status == "disabled"
    make_customers(local_stripe, "two")
    assert endpoints.update(endpoint.id, {"disabled": False}).status == "enabled"
    make_customers(local_stripe, "three")
    local_stripe.settle()
    assert endpoints.delete(endpoint.id).deleted
    make_customers(local_stripe, "four")
    local_stripe.settle()
    assert receiver.names() == ["one", "three"]


def test_webhooks_that_are_held_back_come_later_in_order(local_stripe: RunningLocalStripe, receiver: Receiver) -> None:
    listen(local_stripe, receiver.url, "customer.created")
    local_stripe.webhooks("hold")
    for name in "abc":
        local_stripe.client.v1.customers.create({"name": name})
    local_stripe.settle()
    assert receiver.tries == 0 and "3 waiting" in local_stripe.see(local_stripe.url + "/")[1]
    local_stripe.webhooks("deliver")
    local_stripe.settle()
    assert receiver.names() == ["a", "b", "c"]


def test_webhooks_that_are_dropped_never_come_but_their_events_are_there(
    local_stripe: RunningLocalStripe, receiver: Receiver
) -> None:
    listen(local_stripe, receiver.url, "customer.created")
    local_stripe.webhooks("drop")
    local_stripe.client.v1.customers.create({"name": "lost"})
    local_stripe._submit(local_stripe.url + "/", {"webhooks": "deliver"})
    local_stripe.client.v1.customers.create({"name": "told"})
    local_stripe.settle()
    assert receiver.names() == ["told"]
    assert len(local_stripe.client.v1.events.list({"type": "customer.created"}).data) == 2


def test_a_restart_keeps_webhooks_held_back(tmp_path: Path, receiver: Receiver) -> None:
    state = tmp_path / "stripe.json"
    with RunningLocalStripe(state) as local:
        listen(local, receiver.url, "customer.created")
        local.webhooks("hold")
        local.client.v1.customers.create({"name": "patient"})
    with RunningLocalStripe(state) as local:
        local.settle()
        assert receiver.tries == 0
        local.webhooks("deliver")
        local.settle()
    assert receiver.names() == ["patient"]
