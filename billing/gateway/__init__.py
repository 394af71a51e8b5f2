"""The only door to Stripe. Behind it is Stripe itself or the local Stripe: settings say which, nothing here asks.

Whoever calls gets our own small types and one error, PaymentTrouble, whose words are for people. Nothing here decides
whether a pub may run (billing.paid does) and nothing here writes to a bot.
"""

from billing.gateway.checkout import Checkout, NotForSale, close_checkouts, open_checkout, read_checkout
from billing.gateway.collect import OWES, collect
from billing.gateway.customers import customer_for, user_id
from billing.gateway.disputes import Dispute, GivenBack, read_dispute, read_refund
from billing.gateway.door import OUR_FAULT, UNREACHABLE, Missing, PaymentTrouble, Unreachable, bot_id, connect
from billing.gateway.events import (
    CUSTOMER_EVENTS,
    DISPUTE_EVENTS,
    INVOICE_EVENTS,
    REFUND_EVENTS,
    SUBSCRIPTION_EVENTS,
    Happening,
    Renewal,
    bot_of,
    events_after,
    newest_event,
    renewal_of,
)
from billing.gateway.portal import FLOWS, Impossible, open_portal
from billing.gateway.prices import Offer, offer_of, offers
from billing.gateway.refunds import PaidInvoice, Reason, Refunded, Refused, paid_invoices, refund, refund_newest
from billing.gateway.set_up import ensure_webhook_endpoint, set_up, set_up_catalogue
from billing.gateway.subscriptions import (
    Reading,
    cancel,
    live_subscriptions,
    read_subscription,
    reading,
    subscriptions_of,
    with_invoices,
)

__all__ = [
    "CUSTOMER_EVENTS",
    "DISPUTE_EVENTS",
    "FLOWS",
    "INVOICE_EVENTS",
    "OUR_FAULT",
    "OWES",
    "REFUND_EVENTS",
    "SUBSCRIPTION_EVENTS",
    "UNREACHABLE",
    "Checkout",
    "Dispute",
    "GivenBack",
    "Happening",
    "Impossible",
    "Missing",
    "NotForSale",
    "Offer",
    "PaidInvoice",
    "PaymentTrouble",
    "Reading",
    "Reason",
    "Refunded",
    "Refused",
    "Renewal",
    "Unreachable",
    "bot_id",
    "bot_of",
    "cancel",
    "close_checkouts",
    "collect",
    "connect",
    "customer_for",
    "ensure_webhook_endpoint",
    "events_after",
    "live_subscriptions",
    "newest_event",
    "offer_of",
    "offers",
    "open_checkout",
    "open_portal",
    "paid_invoices",
    "read_checkout",
    "read_dispute",
    "read_refund",
    "read_subscription",
    "reading",
    "refund",
    "refund_newest",
    "renewal_of",
    "set_up",
    "set_up_catalogue",
    "subscriptions_of",
    "user_id",
    "with_invoices",
]
