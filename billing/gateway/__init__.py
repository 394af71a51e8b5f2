"""The only door to Stripe. Behind it is Stripe itself or the local Stripe: settings say which, nothing here asks.

Whoever calls gets our own small types and one error, PaymentTrouble, whose words are for people. Nothing here decides
whether a pub may run (billing.paid does) and nothing here writes to a bot.
"""

from billing.gateway.checkout import Checkout, checkouts, close_checkouts, open_checkout, read_checkout
from billing.gateway.customers import customer_for
from billing.gateway.door import OUR_FAULT, UNREACHABLE, Missing, PaymentTrouble, Unreachable, bot_id, connect
from billing.gateway.portal import open_portal
from billing.gateway.prices import Offer, offer_of, offers
from billing.gateway.refunds import PaidInvoice, Reason, Refunded, Refused, paid_invoices, refund, refund_newest
from billing.gateway.set_up import ensure_webhook_endpoint, set_up, set_up_catalogue
from billing.gateway.subscriptions import Reading, cancel, read_subscription, reading, subscriptions_of, with_invoices

__all__ = [
    "OUR_FAULT",
    "UNREACHABLE",
    "Checkout",
    "Missing",
    "Offer",
    "PaidInvoice",
    "PaymentTrouble",
    "Reading",
    "Reason",
    "Refunded",
    "Refused",
    "Unreachable",
    "bot_id",
    "cancel",
    "checkouts",
    "close_checkouts",
    "connect",
    "customer_for",
    "ensure_webhook_endpoint",
    "offer_of",
    "offers",
    "open_checkout",
    "open_portal",
    "paid_invoices",
    "read_checkout",
    "read_subscription",
    "reading",
    "refund",
    "refund_newest",
    "set_up",
    "set_up_catalogue",
    "subscriptions_of",
    "with_invoices",
]
