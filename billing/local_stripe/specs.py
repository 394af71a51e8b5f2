"""What each request may say: names and checks of parameters, by kind of object, and what can be expanded.

Only names that Stripe knows are here, and of those only the ones that the local Stripe minds or can safely ignore.
"""

from typing import Any

from .params import between, filled, flag, integer, metadata, moment, number, one_of, span, text, web_address
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

CANCELLATION_REASONS = (
    "customer_service",
    "low_quality",
    "missing_features",
    "other",
    "switched_service",
    "too_complex",
    "too_expensive",
    "unused",
)
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
NEW_TAX_ID = {"type": filled, "value": filled}
COUPON = {"metadata": metadata, "name": text}
NEW_COUPON = {
    **COUPON,
    "amount_off": between(1, 99_999_999),
    "currency": text,
    "duration": one_of("once", "repeating", "forever"),
    "duration_in_months": between(1, 120),
    "id": filled,
    "max_redemptions": between(1, 999_999),
    "percent_off": number(0.01, 100),
    "redeem_by": integer,
}
PROMOTION_CODE = {"active": flag, "metadata": metadata}
NEW_PROMOTION_CODE: dict[str, Any] = {
    **PROMOTION_CODE,
    "code": filled,
    "customer": text,
    "expires_at": integer,
    "max_redemptions": between(1, 999_999),
    "promotion": {"type": one_of("coupon"), "coupon": text},
    "restrictions": {
        "first_time_transaction": flag,
        "minimum_amount": between(1, 99_999_999),
        "minimum_amount_currency": text,
    },
}
DISCOUNTS = [{"coupon": text, "promotion_code": text}]
AUTOMATIC_TAX = {"enabled": flag}
TRIAL_SETTINGS = {"end_behavior": {"missing_payment_method": one_of("cancel", "create_invoice", "pause")}}
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
    "trial_settings": TRIAL_SETTINGS,
}
NEW_SUBSCRIPTION = {
    **SUBSCRIPTION,
    "automatic_tax": AUTOMATIC_TAX,
    "customer": text,
    "discounts": DISCOUNTS,
    "trial_period_days": between(1, 730),
}
CANCEL = {
    "cancellation_details": {"comment": text, "feedback": text},
    "invoice_now": flag,
    "prorate": flag,
}
CHECKOUT = {
    "allow_promotion_codes": flag,
    "automatic_tax": AUTOMATIC_TAX,
    "billing_address_collection": one_of("auto", "required"),
    "cancel_url": web_address,
    "client_reference_id": text,
    "customer": text,
    "customer_email": text,
    "customer_update": {"address": one_of("auto", "never"), "name": one_of("auto", "never")},
    "discounts": DISCOUNTS,
    "expires_at": integer,
    "line_items": [{"price": text, "quantity": between(1, 999_999)}],
    "locale": text,
    "metadata": metadata,
    "mode": one_of("subscription", "payment", "setup"),
    "payment_method_collection": one_of("always", "if_required"),
    "payment_method_types": [one_of("card")],
    "subscription_data": {
        "description": text,
        "metadata": metadata,
        "trial_period_days": between(1, 730),
        "trial_settings": TRIAL_SETTINGS,
    },
    "success_url": web_address,
    "tax_id_collection": {"enabled": flag},
    "ui_mode": one_of("hosted_page"),
}
PRORATION = one_of("none", "create_prorations", "always_invoice")
FEATURES: dict[str, Any] = {
    "customer_update": {
        "allowed_updates": [one_of("address", "email", "name", "phone", "shipping", "tax_id")],
        "enabled": flag,
    },
    "invoice_history": {"enabled": flag},
    "payment_method_update": {"enabled": flag},
    "subscription_cancel": {
        "cancellation_reason": {"enabled": flag, "options": [one_of(*CANCELLATION_REASONS)]},
        "enabled": flag,
        "mode": one_of("at_period_end", "immediately"),
        "proration_behavior": PRORATION,
    },
    "subscription_update": {
        "billing_cycle_anchor": one_of("unchanged"),
        "default_allowed_updates": [one_of("price", "promotion_code", "quantity")],
        "enabled": flag,
        "products": [{"prices": [filled], "product": filled}],
        "proration_behavior": PRORATION,
    },
}
PORTAL_CONFIGURATION: dict[str, Any] = {
    "active": flag,
    "business_profile": {"headline": text, "privacy_policy_url": text, "terms_of_service_url": text},
    "default_return_url": text,
    "features": FEATURES,
    "metadata": metadata,
    "name": text,
}
NEW_PORTAL_CONFIGURATION = {name: spec for name, spec in PORTAL_CONFIGURATION.items() if name != "active"}
OF_SUBSCRIPTION = {"subscription": filled}
FLOW: dict[str, Any] = {
    "after_completion": {
        "hosted_confirmation": {"custom_message": text},
        "redirect": {"return_url": web_address},
        "type": one_of("hosted_confirmation", "portal_homepage", "redirect"),
    },
    "subscription_cancel": OF_SUBSCRIPTION,
    "subscription_update": OF_SUBSCRIPTION,
    "subscription_update_confirm": {
        **OF_SUBSCRIPTION,
        "items": [{"id": filled, "price": filled, "quantity": between(1, 999_999)}],
    },
    "type": one_of(
        "payment_method_update", "subscription_cancel", "subscription_update", "subscription_update_confirm"
    ),
}
PORTAL = {
    "configuration": filled,
    "customer": text,
    "flow_data": FLOW,
    "locale": text,
    "return_url": web_address,
}
ENDPOINT = {"description": text, "enabled_events": [filled], "metadata": metadata, "url": web_address}
NEW_ENDPOINT = {**ENDPOINT, "api_version": text, "connect": flag}

REFUND = {
    "amount": between(1, 99_999_999),
    "charge": text,
    "metadata": metadata,
    "payment_intent": text,
    "reason": one_of("duplicate", "fraudulent", "requested_by_customer"),
}
DISPUTE = {
    "evidence": {"uncategorized_text": text},
    "metadata": metadata,
    "submit": flag,
}
RESUME = {"billing_cycle_anchor": one_of("now")}

# Kind of object and the filters of its list, by path.
RESOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "billing_portal/configurations": ("billing_portal.configuration", {"active": flag, "is_default": flag}),
    "charges": ("charge", {"customer": text, "payment_intent": text}),
    "checkout/sessions": (
        "checkout.session",
        {"customer": text, "subscription": text, "status": one_of("open", "complete", "expired")},
    ),
    "coupons": ("coupon", {}),
    "customers": ("customer", {"email": text}),
    "events": ("event", {"type": text, "types": [text], "delivery_success": flag}),
    "disputes": ("dispute", {"charge": text, "payment_intent": text}),
    "invoice_payments": (
        "invoice_payment",
        {
            "invoice": text,
            "payment": {"type": one_of("payment_intent"), "payment_intent": text},
            "status": one_of("open", "paid", "canceled"),
        },
    ),
    "invoiceitems": ("invoiceitem", {"customer": text, "invoice": text, "pending": flag}),
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
    "promotion_codes": (
        "promotion_code",
        {"active": flag, "code": text, "coupon": text, "customer": text},
    ),
    "refunds": ("refund", {"charge": text, "payment_intent": text}),
    "subscriptions": ("subscription", {"customer": text, "price": text, "status": text}),
    "tax_ids": ("tax_id", {}),
    "tax_rates": ("tax_rate", {"active": flag, "inclusive": flag}),
    "webhook_endpoints": ("webhook_endpoint", {}),
}
# What the local Stripe never has any of, though readers ask: these lists are always empty.
NEVER_ANY = (
    "accounts",
    "customers/:id/balance_transactions",
    "customers/:id/sources",
    "products/:id/features",
    "setup_intents",
)
EXPANDABLE = {
    "charge": "charge",
    "configuration": "billing_portal.configuration",
    "coupon": "coupon",
    "customer": "customer",
    "default_payment_method": "payment_method",
    "discounts": "discount",
    "invoice": "invoice",
    "latest_charge": "charge",
    "latest_invoice": "invoice",
    "payment_intent": "payment_intent",
    "payment_method": "payment_method",
    "price": "price",
    "product": "product",
    "promotion_code": "promotion_code",
    "subscription": "subscription",
}
# Left out of an answer unless asked for; nothing here ever has one, but asking is no error.
INCLUDABLE = (
    "applies_to",
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
