"""The customers of Stripe: one a user."""

import logging
from typing import Any

import stripe
from django.conf import settings
from djstripe.models import Customer
from djstripe.settings import djstripe_settings

from accounts.models import User
from billing.gateway.door import Missing, note, told
from pubs.models import Bot

log = logging.getLogger("billing")


def customer_for(user: User) -> Customer:
    """The user's customer, made in Stripe the first time. Asking twice at once makes one.

    One that Stripe no longer has (a wiped local Stripe, deleted by hand) is let go of, and another one made. Stripe may
    answer with the deleted one again, for the key that once made it: then the next one follows on that.
    """
    customer = Customer.objects.filter(subscriber=user, livemode=settings.STRIPE_LIVE_MODE).first()
    cause = "first"
    while customer is None or not _has_customer(customer.id):
        if customer:
            log.error("Stripe has no customer %s of user %s: another one is made", customer.id, user.pk)
            Customer.objects.filter(pk=customer.pk).update(subscriber=None)
            cause = f"after:{customer.id}"
        customer = _make_customer(user, cause)
    return customer


def _make_customer(user: User, cause: str) -> Customer:
    with told():
        # dj-stripe keeps a random key for each cause: one account may serve many deployments, each with a first user.
        once = djstripe_settings.get_idempotency_key("customer", f"{user.pk}:{cause}", settings.STRIPE_LIVE_MODE)
        customer = Customer.create(user, idempotency_key=once)
    if customer.subscriber_id is None:
        # Stripe's webhook about the new customer can be here first, and its row knows no user yet.
        customer.subscriber = user
        customer.save(update_fields=["subscriber"])
    return customer


def _has_customer(customer_id: str) -> bool:
    try:
        with told(may_miss=True):
            return not getattr(stripe.Customer.retrieve(customer_id), "deleted", False)
    except Missing:
        return False


def customers_of(bot: Bot) -> list[Customer]:
    return list(bot.owner.djstripe_customers.all())  # type: ignore[attr-defined]  # dj-stripe adds it


def user_id(customer: Any) -> int | None:
    """The user that a customer was made for, as dj-stripe noted it in Stripe when it made the customer."""
    noted = note(customer, djstripe_settings.SUBSCRIBER_CUSTOMER_KEY)
    return int(noted) if noted.isdecimal() else None
