"""The objects of the local Stripe: made, found, shown and kept in one file."""

import json
import os
import secrets
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

type Json = dict[str, Any]

API_VERSION = "2026-05-27.dahlia"
STATE_VERSION = 2
# Stripe forgets events after 30 days. Counting is simpler, and bounds the file.
KEPT_EVENTS = 20_000
KEPT_IDEMPOTENCY_KEYS = 500
IDEMPOTENCY_KEYS_KEPT_FOR = 24 * 3600  # seconds, as with Stripe
# A state that takes longer than this to write is no longer written before each answer: see `save_soon`.
QUICK_TO_SAVE = 0.02

PREFIXES = {
    "billing_portal.configuration": "bpc",
    "billing_portal.session": "bps",
    "charge": "ch",
    "checkout.session": "cs_test",
    "customer": "cus",
    "discount": "di",
    "dispute": "du",
    "event": "evt",
    "invoice": "in",
    "invoice_payment": "inpay",
    "invoiceitem": "ii",
    "item": "li",
    "line_item": "il",
    "payment_intent": "pi",
    "payment_method": "pm",
    "price": "price",
    "product": "prod",
    "promotion_code": "promo",
    "refund": "re",
    "subscription": "sub",
    "subscription_item": "si",
    "tax_id": "txi",
    "tax_rate": "txr",
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


class OtherVersion(CorruptState):
    """The state file is whole, but was written by an older local Stripe, or by a newer one."""

    def __init__(self, path: Path, version: int) -> None:
        super().__init__(
            f"The local Stripe cannot read its state file {path}: its version is {version}, not {STATE_VERSION}. "
            "Move the file away to start with an empty local Stripe."
        )
        self.version = version


def new_id(kind: str) -> str:
    return f"{PREFIXES[kind]}_{secrets.token_hex(12)}"


class Store:
    """Objects by kind and id, in the order they were made, with the clock they live by.

    Names that begin with an underscore are our own notes on an object and are never shown. A price inside of
    an item is stored as its id, so that each object is in one place only.

    A clock that begins elsewhere than the machine's (`clock_offset`, in seconds) does so only in a new state.
    """

    def __init__(self, state_file: Path | None, clock_offset: int = 0) -> None:
        self.state_file = state_file
        self.clock_offset = clock_offset
        self.objects: dict[str, dict[str, Json]] = {}
        # What the owner of the account chose: here, what becomes of a subscription after the last retry.
        self.settings: dict[str, str] = {"after_retries": "cancel"}
        self.idempotency: dict[str, Json] = {}
        self.deliveries: list[Json] = []
        # Ids by kind and customer. Some may have gone or changed hands since: `of_customer` looks.
        self._owned: dict[tuple[str, str], dict[str, None]] = {}
        self._unsaved = False
        self._save_again_at = 0.0
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
        self.put(made)
        return made

    def put(self, made: Json) -> None:
        """Into the store, and among what its customer has."""
        self.objects.setdefault(made["object"], {})[made["id"]] = made
        self._own(made)

    def assign(self, found: Json, customer_id: str | None) -> None:
        """Gives an object to a customer, or to nobody."""
        found["customer"] = customer_id
        self._own(found)

    def _own(self, found: Json) -> None:
        if owner := _owner(found):
            self._owned.setdefault((found["object"], owner), {})[found["id"]] = None

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
        """What a customer has of a kind, oldest first."""
        ids = self._owned.get((kind, customer_id), ())
        return [found for each in ids if (found := self.find(kind, each)) and _owner(found) == customer_id]

    def newest(self, kind: str) -> Iterator[Json]:
        """Every object of a kind, newest first, each looked up only when its turn comes."""
        return (found for found in reversed(self.objects.get(kind, {}).values()) if not found.get("deleted"))

    def public(self, stored: Json) -> Json:
        """A copy as the API shows it: without our notes, with the price inside of each item."""
        shown: Json = self._shown(stored)
        return shown

    def _shown(self, value: Any) -> Any:
        if isinstance(value, dict):
            kind = value.get("object")
            if kind == "event":
                # What an event tells is the past: it was copied when it happened.
                return _copied(value)
            shown = {name: self._shown(each) for name, each in value.items() if name[0] != "_"}
            if kind in ("subscription_item", "item"):
                shown["price"] = _copied(self.get("price", value["price"]))
            return shown
        return [self._shown(each) for each in value] if isinstance(value, list) else value

    # The file -------------------------------------------------------------------------------------

    def save_soon(self) -> None:
        """Writes the state now if that is quick, else when it has rested nine times as long as writing took.

        A small state is on disk before each answer. Of a big one (thousands of subscriptions) a kill loses the last
        seconds, as if they had never been; the server's clock and its end write what is left.
        """
        self._unsaved = True
        self.save_if_due()

    def save_if_due(self) -> None:
        if self._unsaved and time.monotonic() >= self._save_again_at:
            self.save()

    def save(self) -> None:
        """Writes a new file and puts it in the old one's place, so that a kill leaves one of the two."""
        self._forget_the_oldest()
        if self.state_file is not None:
            began = time.monotonic()
            self._write(self.state_file)
            took = time.monotonic() - began
            self._save_again_at = began + 10 * took if took > QUICK_TO_SAVE else 0.0
        self._unsaved = False

    def _write(self, path: Path) -> None:
        state = {
            "version": STATE_VERSION,
            "clock_offset": self.clock_offset,
            "settings": self.settings,
            "objects": self.objects,
            "idempotency": self.idempotency,
            "deliveries": self.deliveries,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(path.name + ".new")
        unfinished.unlink(missing_ok=True)
        # The webhook secrets are in it: nobody else may read it, not even for the moment between open and
        # chmod.
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(state))
        unfinished.replace(path)

    def _load(self, path: Path) -> None:
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            if state["version"] != STATE_VERSION:
                raise OtherVersion(path, int(state["version"]))
            self.clock_offset = int(state["clock_offset"])
            self.settings |= state.get("settings", {})
            self.objects = {kind: dict(found) for kind, found in state["objects"].items()}
            for found in [each for kind in self.objects.values() for each in kind.values()]:
                self._own(found)
            # Before keys had their time they were kept for ever.
            self.idempotency = {key: known for key, known in state["idempotency"].items() if "at" in known}
            self.deliveries = list(state["deliveries"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptState(
                f"The local Stripe cannot read its state file {path} ({type(error).__name__}: {error}). "
                "Move the file away to start with an empty local Stripe, or put back a copy."
            ) from error

    def _forget_the_oldest(self) -> None:
        if too_many := _too_many(self.objects.get("event", {}), KEPT_EVENTS):
            waiting = {each["event"] for each in self.deliveries}
            for event_id in [each for each in too_many if each not in waiting]:
                self.remove("event", event_id)
        for key in _too_many(self.idempotency, KEPT_IDEMPOTENCY_KEYS):
            del self.idempotency[key]


def _copied(value: Any) -> Any:
    """As copy.deepcopy, which takes several times as long, for what JSON can say."""
    if isinstance(value, dict):
        return {name: _copied(each) for name, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value


def _owner(found: Json) -> str:
    """Whose it is. What shows no customer may have a note of one."""
    return found.get("customer") or found.get("_customer") or ""


def _too_many(kept: dict[str, Json], limit: int) -> list[str]:
    return list(islice(kept, max(0, len(kept) - limit)))
