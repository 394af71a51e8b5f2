"""The way to Stripe and its errors in words for people, and how ids, moments and notes of its objects are read."""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import stripe
from django.conf import settings

log = logging.getLogger("billing")

# Seconds until a connection and until each answer: a customer waits at the other end.
TIMEOUT = (5.0, 10.0)
RETRIES = 2

# The word on what is this deployment's in Stripe: many may share one account. Products and prices are the account's, so
# that all who share it must have the same.
MARK = "buttcloud"

# Whether anything was charged nobody knows then: an answer can be lost.
UNREACHABLE = "We can't reach our payment provider just now. Try again in a minute."
OUR_FAULT = "Something is wrong with payments on our side. We have been told and look into it."


class PaymentTrouble(Exception):
    """Stripe said no or nothing. The message is for the person who waits."""


class Unreachable(PaymentTrouble):
    """Stripe did not answer, or too late, or with trouble of its own."""


class Missing(PaymentTrouble):
    """Stripe has nothing with this id."""


def connect() -> None:
    """Point the stripe module, ours and dj-stripe's, to the Stripe of the settings."""
    stripe.api_key = settings.STRIPE_SECRET_KEY
    stripe.api_base = settings.STRIPE_API_HOST
    stripe.api_version = settings.STRIPE_API_VERSION
    stripe.max_network_retries = RETRIES
    stripe.default_http_client = stripe.RequestsClient(timeout=TIMEOUT)
    # stripe brings its own list of authorities; behind a company's proxy the machine's list is the right one.
    stripe.ca_bundle_path = os.environ.get("REQUESTS_CA_BUNDLE") or stripe.ca_bundle_path


@contextmanager
def told(may_miss: bool = False) -> Iterator[None]:
    """Turn Stripe's errors into PaymentTrouble; with `may_miss` an unknown id into Missing."""
    try:
        yield
    except stripe.CardError as error:
        raise PaymentTrouble(error.user_message or "Your card was declined. Nothing was charged.") from error
    except (stripe.APIConnectionError, stripe.RateLimitError, stripe.APIError) as error:
        log.warning("Stripe can't be reached: %s", error)
        raise Unreachable(UNREACHABLE) from error
    except stripe.StripeError as error:
        if may_miss and error.code == "resource_missing":
            raise Missing(OUR_FAULT) from error
        log.exception("Stripe refused what we asked")
        raise PaymentTrouble(OUR_FAULT) from error


def key(about: str, *parts: Any) -> str:
    return f"{about}:{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()}"


def moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def id_of(value: Any) -> str:
    """The id of something that Stripe shows as an id, whole or not at all."""
    return "" if value is None else str(value if isinstance(value, str) else value["id"])


def note(data: Any, name: str) -> str:
    """A word that we left on an object in Stripe."""
    metadata = data["metadata"] or {}
    return str(metadata[name]) if name in metadata else ""


def is_ours(data: Any) -> bool:
    """Whether something in Stripe belongs to this deployment."""
    return note(data, MARK) == settings.DEPLOYMENT


def is_anothers(data: Any) -> bool:
    """Whether something in Stripe bears the mark of another deployment."""
    return note(data, MARK) not in ("", settings.DEPLOYMENT)


def bot_id(data: Any) -> UUID | None:
    """The bot that something in Stripe is for, by the metadata that we gave it."""
    try:
        return UUID(note(data, "bot"))
    except ValueError:
        return None


def bot_of_invoice(invoice: Any) -> UUID | None:
    """The bot that an invoice is for: Stripe copies a subscription's metadata onto its invoices."""
    parent = invoice["parent"]
    details = parent["subscription_details"] if parent else None
    return bot_id(details) if details else None
