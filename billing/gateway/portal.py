"""Stripe's page on which a customer changes card and plan, reads invoices and cancels."""

from typing import Any

import stripe
from django.conf import settings
from django.urls import reverse

from accounts.models import User
from billing.gateway.customers import customer_for
from billing.gateway.door import MARK, PaymentTrouble, is_ours, key, told
from billing.gateway.prices import offers
from billing.gateway.subscriptions import Reading, read_subscription
from pubs.models import Bot

# What Stripe calls the ways into its portal that lead to one deed and back.
FLOWS = {"card": "payment_method_update", "plan": "subscription_update", "cancel": "subscription_cancel"}
NO_SUCH_FLOW = "The payment page has no such part."
NOTHING_THERE = "This pub has no subscription yet: pay first."
OVER = "The subscription of this pub has ended: nothing more is charged. Pay again to have it back, in any size."
CANCELLED = "The subscription of this pub is cancelled already: nothing more is charged."
KEEP_FIRST = "This pub is cancelled. Keep its subscription first, behind “Payment and invoices”; then change its size."
PAY_FIRST = "A payment of this pub is open. Put the payment right first; then change its size."
PAUSED = "The subscription of this pub is paused. Write to us, and we look into it."


class Impossible(PaymentTrouble):
    """This part of the portal has nothing to do for the bot now. The message is for its owner."""


def ensure_portal() -> list[str]:
    """One configuration of the portal for this deployment: what customers may do there.

    Written each time, for somebody may have changed it by hand.
    """
    wish = _configuration_wish()
    with told():
        if held := _configuration():
            stripe.billing_portal.Configuration.modify(held, active=True, **wish)
            return []
        made = stripe.billing_portal.Configuration.create(**wish, idempotency_key=key("portal", wish))
        return [f"made portal configuration {made.id}"]


def _configuration(**only: Any) -> str:
    """The id of ours, or nothing."""
    listed = stripe.billing_portal.Configuration.list(limit=100, **only)
    return min((each.id for each in listed.auto_paging_iter() if is_ours(each)), default="")


def _configuration_wish() -> Any:
    sold: dict[str, list[str]] = {}
    for offer in offers():
        sold.setdefault(offer.product_id, []).append(offer.price_id)
    return {
        "metadata": {MARK: settings.DEPLOYMENT},
        "features": {
            "customer_update": {
                "enabled": True,
                "allowed_updates": ["email", *(["address", "name", "tax_id"] if settings.STRIPE_TAX else [])],
            },
            "invoice_history": {"enabled": True},
            "payment_method_update": {"enabled": True},
            "subscription_cancel": {"enabled": True, "mode": "at_period_end"},
            "subscription_update": {
                "enabled": True,
                "default_allowed_updates": ["price"],
                "products": [{"product": product, "prices": prices} for product, prices in sold.items()],
                # Charged at once: with yearly prices the next invoice can be a year away.
                "proration_behavior": "always_invoice",
            },
        },
    }


def open_portal(user: User, bot: Bot, flow: str = "") -> str:
    """The address of the portal, or of the part of it that a flow names; it leads back to the bot.

    Raises Impossible for a flow that has nothing to do now.
    """
    data = _flow_data(bot, flow) if flow else None
    customer = customer_for(user)
    with told():
        more: Any = {"flow_data": data} if data else {}
        # Without ours, the account's own serves.
        if configuration := _configuration(active=True):
            more["configuration"] = configuration
        return stripe.billing_portal.Session.create(customer=customer.id, return_url=_back(bot), **more).url


def _back(bot: Bot) -> str:
    return f"{settings.SITE_URL}{reverse('billing:return', args=[bot.pk])}"


def _flow_data(bot: Bot, flow: str) -> dict[str, Any]:
    if flow not in FLOWS:
        raise Impossible(NO_SUCH_FLOW)
    data: dict[str, Any] = {
        "type": FLOWS[flow],
        "after_completion": {"type": "redirect", "redirect": {"return_url": _back(bot)}},
    }
    if flow != "card":
        # As Stripe has it now: our row may not know yet what was done in another tab.
        read = read_subscription(bot.subscription_id) if bot.subscription_id else None
        _check_possible(read, flow)
        data[FLOWS[flow]] = {"subscription": bot.subscription_id}
    return data


def _check_possible(read: Reading | None, flow: str) -> None:
    """Stripe refuses these, or would do what nobody means."""
    if read is None or read.status == "incomplete":
        raise Impossible(NOTHING_THERE)
    if read.status == "paused":
        raise Impossible(PAUSED)
    if read.status in ("canceled", "incomplete_expired"):
        raise Impossible(OVER)
    if read.ends:
        raise Impossible(CANCELLED if flow == "cancel" else KEEP_FIRST)
    if flow == "plan" and read.status not in ("active", "trialing"):
        raise Impossible(PAY_FIRST)
