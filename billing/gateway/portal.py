"""Stripe's page on which a customer changes card and plan, reads invoices and cancels."""

import stripe
from django.conf import settings

from accounts.models import User
from billing.gateway.customers import customer_for
from billing.gateway.door import told
from pubs.models import Bot


def open_portal(user: User, bot: Bot) -> str:
    """The address of the page where the user changes card, reads invoices and cancels; it leads back to the bot."""
    customer = customer_for(user)
    with told():
        back = f"{settings.SITE_URL}{bot.get_absolute_url()}"
        return stripe.billing_portal.Session.create(customer=customer.id, return_url=back).url
