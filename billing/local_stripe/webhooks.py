"""Events, and their signed delivery to the webhook endpoints that listen for them."""

import asyncio
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Iterable

import aiohttp

from .store import API_VERSION, Json, Store

log = logging.getLogger("billing.local_stripe")

RETRY_DELAYS = (1.0, 5.0, 20.0)
TIMEOUT = aiohttp.ClientTimeout(total=20)
NO_CAUSE: Json = {"id": None, "idempotency_key": None}
# What becomes of webhooks: sent, kept for later, or lost as if the network had swallowed them.
MODES = ("deliver", "hold", "drop")


class Webhooks:
    """Writes events down and delivers them, one at a time and in order for each endpoint.

    A delivery is tried once, and again after each of `retry_delays` (seconds). Then it rests in the state
    file until the next start. `cause` is the API request that is being answered, named on the events it
    makes.
    """

    def __init__(self, store: Store, retry_delays: tuple[float, ...] = RETRY_DELAYS) -> None:
        self.store = store
        self.retry_delays = retry_delays
        self.cause = NO_CAUSE
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._client: aiohttp.ClientSession | None = None

    def emit(self, kind: str, subject: Json, previous: Json | None = None) -> None:
        """Writes the event with the object as it is now, and queues it for each endpoint that wants it."""
        data: Json = {"object": self.store.public(subject)}
        if previous is not None:
            data["previous_attributes"] = previous
        listeners = [each["id"] for each in self.store.all("webhook_endpoint") if _wants(each, kind)]
        if self.mode == "drop":
            listeners = []
        event = self.store.add(
            "event", type=kind, api_version=API_VERSION, data=data, pending_webhooks=len(listeners), request=self.cause
        )
        del event["metadata"]
        self.store.deliveries += [{"event": event["id"], "endpoint": each, "tries": 0} for each in listeners]
        self._wake(listeners)

    @property
    def mode(self) -> str:
        return self.store.settings.get("webhooks", "deliver")

    def set_mode(self, mode: str) -> None:
        """From now on webhooks are delivered, held back or lost. Delivering again sends what was held back."""
        self.store.settings["webhooks"] = mode
        self._wake({each["endpoint"] for each in self.store.deliveries})

    def waiting(self) -> list[Json]:
        """Deliveries that are being tried: none while they are held back."""
        return [each for each in self.store.deliveries if self._is_waiting(each)]

    def _is_waiting(self, delivery: Json) -> bool:
        return bool(self.mode != "hold" and delivery["tries"] <= len(self.retry_delays))

    def forget(self, endpoint_id: str) -> None:
        """Drops what waits for an endpoint that is deleted or disabled."""
        for delivery in [each for each in self.store.deliveries if each["endpoint"] == endpoint_id]:
            self._drop(delivery)

    def _drop(self, delivery: Json) -> None:
        if delivery in self.store.deliveries:
            self.store.deliveries.remove(delivery)
            if event := self.store.find("event", delivery["event"]):
                event["pending_webhooks"] -= 1

    async def start(self) -> None:
        """Begins to deliver, first what an earlier run left undelivered."""
        for delivery in self.store.deliveries:
            delivery["tries"] = 0
        self._client = aiohttp.ClientSession(timeout=TIMEOUT)
        self._wake({each["endpoint"] for each in self.store.deliveries})

    async def stop(self) -> None:
        """Ends all deliveries where they are. What is not delivered stays in the store."""
        client, self._client = self._client, None
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if client is not None:
            await client.close()

    def _wake(self, endpoint_ids: Iterable[str]) -> None:
        """Gives a task to each of these endpoints that has none yet."""
        if self._client is None:
            return
        for endpoint_id in set(endpoint_ids) - self._tasks.keys():
            self._tasks[endpoint_id] = asyncio.create_task(self._drain(endpoint_id, self._client))

    async def _drain(self, endpoint_id: str, client: aiohttp.ClientSession) -> None:
        try:
            while delivery := self._next(endpoint_id):
                await self._deliver(delivery, client)
        finally:
            # No await between the last look and this line, so no event can slip in unseen.
            del self._tasks[endpoint_id]
        # Saved only now and not after each: a kill before this line sends some again, which every receiver of
        # webhooks must bear anyway.
        self.store.save_soon()

    def _next(self, endpoint_id: str) -> Json | None:
        waiting = (each for each in self.store.deliveries if self._is_waiting(each))
        return next((each for each in waiting if each["endpoint"] == endpoint_id), None)

    async def _deliver(self, delivery: Json, client: aiohttp.ClientSession) -> None:
        endpoint = self.store.find("webhook_endpoint", delivery["endpoint"])
        event = self.store.find("event", delivery["event"])
        outcome = "its endpoint or event is gone"
        if endpoint and event:
            outcome = await self._send(endpoint, event, client)
        if outcome in ("", "its endpoint or event is gone"):
            self._drop(delivery)
            return
        log.warning("webhook %s to %s: %s", event and event["type"], endpoint and endpoint["url"], outcome)
        delivery["tries"] += 1
        if delivery["tries"] <= len(self.retry_delays):
            await asyncio.sleep(self.retry_delays[delivery["tries"] - 1])

    async def _send(self, endpoint: Json, event: Json, client: aiohttp.ClientSession) -> str:
        """Empty if the endpoint answered 2xx, else what went wrong."""
        body = json.dumps(self.store.public(event)).encode()
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "Stripe/1.0 (local)",
            "Stripe-Signature": signature(endpoint["_secret"], body, int(time.time())),
        }
        try:
            # A redirect counts as a failure, as with Stripe.
            async with client.post(endpoint["url"], data=body, headers=headers, allow_redirects=False) as answer:
                return "" if 200 <= answer.status < 300 else f"answered {answer.status}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return f"{type(error).__name__}: {error}"


def signature(secret: str, body: bytes, moment: int) -> str:
    """The Stripe-Signature header. The time is the machine's, since receivers compare it with theirs."""
    mac = hmac.new(secret.encode(), b"%d.%s" % (moment, body), hashlib.sha256)
    return f"t={moment},v1={mac.hexdigest()}"


def _wants(endpoint: Json, kind: str) -> bool:
    wanted = endpoint["enabled_events"]
    return endpoint["status"] == "enabled" and ("*" in wanted or kind in wanted)
