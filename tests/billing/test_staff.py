"""Staff find their way between our rows and Stripe's."""

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse
from djstripe.models import Customer as StripeCustomer
from djstripe.models import Event, Invoice, Subscription

from tests.billing.conftest import Customer
from tests.support.local_stripe import RunningLocalStripe


@pytest.mark.usefixtures("site")
def test_staff_see_subscriptions_customers_invoices_and_events(
    alice: Customer, stripe: RunningLocalStripe, admin_client: Client
) -> None:
    alice.pay()
    stripe.settle()
    bot_page = reverse("admin:pubs_bot_change", args=[alice.bot.pk])
    user_page = reverse("admin:accounts_user_change", args=[alice.bot.owner.pk])
    for model, links in (
        (Subscription, [bot_page]),
        (StripeCustomer, [bot_page, user_page]),
        (Invoice, []),
        (Event, []),
    ):
        name = model._meta.model_name
        shown = admin_client.get(reverse(f"admin:djstripe_{name}_changelist")).content.decode()
        assert all(link in shown for link in links), name
        one = model.objects.first()
        assert one is not None
        page = admin_client.get(reverse(f"admin:djstripe_{name}_change", args=[one.pk]))
        assert page.status_code == 200, name
        assert settings.STRIPE_SECRET_KEY not in page.content.decode(), "a key is nobody's business"
        assert b'name="_save"' not in page.content, "what Stripe knows is changed at Stripe"
    assert (
        bot_page
        in admin_client.get(
            reverse("admin:djstripe_subscription_change", args=[Subscription.objects.get().pk])
        ).content.decode()
    )


def test_staff_are_shown_only_the_tables_that_help(admin_client: Client) -> None:
    front = admin_client.get(reverse("admin:index")).content.decode()
    for shown in ("subscription", "customer", "invoice", "event", "price", "product"):
        assert f"/admin/djstripe/{shown}/" in front
    for hidden in ("apikey", "webhookendpoint", "coupon", "account"):
        assert f"/admin/djstripe/{hidden}/" not in front
