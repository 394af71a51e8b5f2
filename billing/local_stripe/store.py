"""The objects of the local Stripe: made, found, shown and kept in one file."""

import copy
import json
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

type Json = dict[str, Any]

API_VERSION = "2026-05-27.dahlia"
STATE_VERSION = 1
# Stripe forgets events after 30 days. Counting is simpler, and bounds the file.
KEPT_EVENTS = 1000
KEPT_IDEMPOTENCY_KEYS = 500
IDEMPOTENCY_KEYS_KEPT_FOR = 24 * 3600  # seconds, as with Stripe

PREFIXES = {
    "billing_portal.session": "bps",
    "checkout.session": "cs_test",
    "customer": "cus",
    "event": "evt",
    "invoice": "in",
    "invoice_payment": "inpay",
    "item": "li",
    "line_item": "il",
    "payment_intent": "pi",
    "payment_method": "pm",
    "price": "price",
    "product": "prod",
    "subscription": "sub",
    "subscription_item": "si",
    "webhook_endpoint": "we",
}


class Problem(Exception):
    """An error answer in Stripe's shape. `status` is the HTTP status."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str = "",
        param: str = "",
        kind: str = "invalid_request_error",
        decline_code: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        optional = {"code": code, "param": param, "decline_code": decline_code}
        self.body: Json = {"error": {"type": kind, "message": message, **{k: v for k, v in optional.items() if v}}}


class CorruptState(Exception):
    """The state file cannot be read. The message says which file, and the remedy."""


def new_id(kind: str) -> str:
    return f"{PREFIXES[kind]}_{secrets.token_hex(12)}"


class Store:
    """Objects by kind and id, in the order they were made, with the clock they live by.

    Names that begin with an underscore are our own notes on an object and are never shown. A price inside of
    an item is stored as its id, so that each object is in one place only.
    """

    def __init__(self, state_file: Path | None) -> None:
        self.state_file = state_file
        self.clock_offset = 0
        self.objects: dict[str, dict[str, Json]] = {}
        self.idempotency: dict[str, Json] = {}
        self.deliveries: list[Json] = []
        if state_file is not None and state_file.exists():
            self._load(state_file)

    # Time -----------------------------------------------------------------------------------------

    def now(self) -> int:
        """Seconds since 1970 by this Stripe's clock, which can be ahead of the machine's."""
        return int(time.time()) + self.clock_offset

    def move_clock_to(self, moment: int) -> None:
        self.clock_offset = moment - int(time.time())

    # Objects --------------------------------------------------------------------------------------

    def make(self, kind: str, **fields: Any) -> Json:
        """An object with the fields that all of Stripe's objects have, not yet in the store."""
        metadata = {name: word for name, word in (fields.pop("metadata", None) or {}).items() if word}
        return {
            "id": fields.pop("id", None) or new_id(kind),
            "object": kind,
            "created": self.now(),
            "livemode": False,
            "metadata": metadata,
            **fields,
        }

    def add(self, kind: str, **fields: Any) -> Json:
        made = self.make(kind, **fields)
        self.objects.setdefault(kind, {})[made["id"]] = made
        return made

    def remove(self, kind: str, object_id: str) -> None:
        del self.objects[kind][object_id]

    def all(self, kind: str) -> list[Json]:
        """Every object of a kind, oldest first. Deleted customers are left out."""
        return [found for found in self.objects.get(kind, {}).values() if not found.get("deleted")]

    def find(self, kind: str, object_id: str | None) -> Json | None:
        return self.objects.get(kind, {}).get(object_id or "")

    def get(self, kind: str, object_id: str, param: str = "id") -> Json:
        """The object, or Stripe's 404 that names the parameter."""
        found = self.find(kind, object_id)
        if found is None:
            words = kind.replace("_", " ").replace(".", " ")
            raise Problem(404, f"No such {words}: '{object_id}'", "resource_missing", param)
        return found

    def get_living(self, kind: str, object_id: str, param: str) -> Json:
        """As `get`, but a deleted customer is as good as none."""
        found = self.get(kind, object_id, param)
        if found.get("deleted"):
            raise Problem(400, f"No such {kind}: '{object_id}'; it was deleted.", "resource_missing", param)
        return found

    def known_request(self, key: str) -> Json | None:
        """What was asked with this idempotency key in the last 24 hours, and the answer."""
        known = self.idempotency.get(key)
        is_fresh = known is not None and self.now() < known["at"] + IDEMPOTENCY_KEYS_KEPT_FOR
        return known if is_fresh else None

    def remember_request(self, key: str, asked: str, reply: Json) -> None:
        # Taken out first, so that the newest stand last, where they are kept longest.
        self.idempotency.pop(key, None)
        self.idempotency[key] = {"asked": asked, "reply": reply, "at": self.now()}

    def of_customer(self, kind: str, customer_id: str) -> list[Json]:
        return [found for found in self.all(kind) if found["customer"] == customer_id]

    def public(self, stored: Json) -> Json:
        """A copy as the API shows it: without our notes, with the price inside of each item."""
        shown: Json = self._shown(stored)
        return shown

    def _shown(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._shown(each) for each in value]
        if not isinstance(value, dict):
            return value
        if value.get("object") == "event":
            # What an event tells is the past: it was copied when it happened.
            waiting = sum(each["event"] == value["id"] for each in self.deliveries)
            return copy.deepcopy(value) | {"pending_webhooks": waiting}
        shown = {name: self._shown(each) for name, each in value.items() if not name.startswith("_")}
        if value.get("object") in ("subscription_item", "item"):
            shown["price"] = copy.deepcopy(self.get("price", value["price"]))
        return shown

    # The file -------------------------------------------------------------------------------------

    def save(self) -> None:
        """Writes a new file and puts it in the old one's place, so that a kill leaves one of the two."""
        if self.state_file is None:
            return
        self._forget_the_oldest()
        state = {
            "version": STATE_VERSION,
            "clock_offset": self.clock_offset,
            "objects": self.objects,
            "idempotency": self.idempotency,
            "deliveries": self.deliveries,
        }
        self.state_file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.state_file.with_name(self.state_file.name + ".new")
        unfinished.unlink(missing_ok=True)
        # The webhook secrets are in it: nobody else may read it, not even for the moment between open and
        # chmod.
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(state, file)
        unfinished.replace(self.state_file)

    def _load(self, path: Path) -> None:
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            if state["version"] != STATE_VERSION:
                raise ValueError(f"its version is {state['version']}, not {STATE_VERSION}")
            self.clock_offset = int(state["clock_offset"])
            self.objects = {kind: dict(found) for kind, found in state["objects"].items()}
            # Before keys had their time they were kept for ever.
            self.idempotency = {key: known for key, known in state["idempotency"].items() if "at" in known}
            self.deliveries = list(state["deliveries"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptState(
                f"The local Stripe cannot read its state file {path} ({type(error).__name__}: {error}). "
                "Move the file away to start with an empty local Stripe, or put back a copy."
            ) from error

    def _forget_the_oldest(self) -> None:
        waiting = {each["event"] for each in self.deliveries}
        for event_id in _too_many(self.objects.get("event", {}), KEPT_EVENTS):
            if event_id not in waiting:
                self.remove("event", event_id)
        for key in _too_many(self.idempotency, KEPT_IDEMPOTENCY_KEYS):
            del self.idempotency[key]


def _too_many(kept: dict[str, Json], limit: int) -> Iterator[str]:
    yield from list(kept)[: max(0, len(kept) - limit)]
