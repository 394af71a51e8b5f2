"""What each request may say: names and checks of parameters, by kind of object, and what can be expanded.

Only names that Stripe knows are here, and of those only the ones that the local Stripe minds or can safely ignore.
"""

from typing import Any

from .params import between, filled, flag, integer, metadata, moment, one_of, span, text, web_address
from .store import Json

# Who the keys belong to.
ACCOUNT: Json = {
    "id": "acct_local00000000001",
    "object": "account",
    "business_profile": {"name": "Local Stripe", "url": None},
    "capabilities": {"card_payments": "active"},
    "charges_enabled": True,
    "country": "FR",
    "created": 1_700_000_000,
    "default_currency": "eur",
    "details_submitted": True,
    "email": "stripe@example.com",
    "metadata": {},
    "payouts_enabled": True,
    "settings": {
        "branding": {"icon": None, "logo": None, "primary_color": None, "secondary_color": None},
        "dashboard": {"display_name": "Local Stripe", "timezone": "Etc/UTC"},
    },
    "type": "standard",
}

# The two of Stripe's named payment methods that make sense here: attaching one makes a new card.
NAMED_CARDS = {"pm_card_visa": "4242424242424242", "pm_card_chargeCustomerFail": "4000000000000341"}

RECURRING = {
    "interval": one_of("day", "week", "month", "year"),
    "interval_count": between(1, 36),
    "usage_type": one_of("licensed"),
}
PRODUCT = {"name": filled, "active": flag, "description": text, "metadata": metadata, "url": web_address}
NEW_PRODUCT = {**PRODUCT, "id": text}
PRICE = {
    "active": flag,
    "lookup_key": text,
    "metadata": metadata,
    "nickname": text,
    "transfer_lookup_key": flag,
}
NEW_PRICE = {
    **PRICE,
    "currency": text,
    "product": text,
    "product_data": {"name": filled, "metadata": metadata},
    "recurring": RECURRING,
    "tax_behavior": one_of("unspecified", "inclusive", "exclusive"),
    "unit_amount": between(0, 99_999_999),
}
ADDRESS = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"), text)
CUSTOMER = {
    "address": ADDRESS,
    "description": text,
    "email": text,
    "invoice_settings": {"default_payment_method": text},
    "metadata": metadata,
    "name": text,
    "phone": text,
    "preferred_locales": [text],
}
CARD = {"number": text, "exp_month": between(1, 12), "exp_year": between(0, 9999), "cvc": text}
NEW_CARD = {
    "card": CARD,
    "metadata": metadata,
    "type": one_of("card"),
}
SUBSCRIPTION = {
    "cancel_at": moment,
    "cancel_at_period_end": flag,
    "default_payment_method": text,
    "description": text,
    "items": [{"id": text, "price": text, "quantity": between(1, 999_999)}],
    "metadata": metadata,
    "off_session": flag,
    "payment_behavior": one_of("allow_incomplete", "default_incomplete", "error_if_incomplete"),
    "proration_behavior": one_of("none", "create_prorations", "always_invoice"),
}
NEW_SUBSCRIPTION = {**SUBSCRIPTION, "customer": text, "trial_period_days": between(1, 730)}
CANCEL = {
    "cancellation_details": {"comment": text, "feedback": text},
    "invoice_now": flag,
    "prorate": flag,
}
CHECKOUT = {
    "allow_promotion_codes": flag,
    "billing_address_collection": one_of("auto", "required"),
    "cancel_url": web_address,
    "client_reference_id": text,
    "customer": text,
    "customer_email": text,
    "expires_at": integer,
    "line_items": [{"price": text, "quantity": between(1, 999_999)}],
    "locale": text,
    "metadata": metadata,
    "mode": one_of("subscription", "payment", "setup"),
    "payment_method_collection": one_of("always", "if_required"),
    "payment_method_types": [one_of("card")],
    "subscription_data": {"description": text, "metadata": metadata, "trial_period_days": between(1, 730)},
    "success_url": web_address,
    "ui_mode": one_of("hosted_page"),
}
PORTAL = {"customer": text, "locale": text, "return_url": web_address}
ENDPOINT = {"description": text, "enabled_events": [filled], "metadata": metadata, "url": web_address}
NEW_ENDPOINT = {**ENDPOINT, "api_version": text, "connect": flag}

# Kind of object and the filters of its list, by path.
RESOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "checkout/sessions": (
        "checkout.session",
        {"customer": text, "subscription": text, "status": one_of("open", "complete", "expired")},
    ),
    "customers": ("customer", {"email": text}),
    "events": ("event", {"type": text, "types": [text], "delivery_success": flag}),
    "invoice_payments": ("invoice_payment", {"invoice": text, "status": text}),
    "invoices": ("invoice", {"customer": text, "subscription": text, "status": text}),
    "payment_intents": ("payment_intent", {"customer": text}),
    "payment_methods": ("payment_method", {"customer": text, "type": one_of("card")}),
    "prices": (
        "price",
        {
            "active": flag,
            "currency": text,
            "lookup_keys": [text],
            "product": text,
            "type": one_of("recurring", "one_time"),
        },
    ),
    "products": ("product", {"active": flag, "ids": [text]}),
    "subscriptions": ("subscription", {"customer": text, "price": text, "status": text}),
    "webhook_endpoints": ("webhook_endpoint", {}),
}
# What the local Stripe never has any of, though readers ask: these lists are always empty.
NEVER_ANY = (
    "accounts",
    "charges",
    "coupons",
    "customers/:id/balance_transactions",
    "customers/:id/sources",
    "customers/:id/tax_ids",
    "disputes",
    "products/:id/features",
    "promotion_codes",
    "refunds",
    "setup_intents",
)
EXPANDABLE = {
    "customer": "customer",
    "default_payment_method": "payment_method",
    "invoice": "invoice",
    "latest_invoice": "invoice",
    "payment_intent": "payment_intent",
    "payment_method": "payment_method",
    "price": "price",
    "product": "product",
    "subscription": "subscription",
}
# Left out of an answer unless asked for; nothing here ever has one, but asking is no error.
INCLUDABLE = (
    "breakdown",
    "balance_transaction",
    "currency_options",
    "discounts",
    "line_items",
    "payments",
    "sources",
    "taxes",
    "tax_ids",
    "tiers",
)
PAGE = {"limit": integer, "starting_after": text, "ending_before": text, "created": span, "expand": [text]}
