"""dj-stripe's pages for staff, linked with ours in both ways."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from djstripe.admin import admin as theirs
from djstripe.models import Customer, Invoice, Subscription

from billing import gateway
from pubs.models import Bot

for model in (Customer, Invoice, Subscription):
    admin.site.unregister(model)


def _link(bot: Bot) -> SafeString:
    return format_html('<a href="{}">{}</a>', reverse("admin:pubs_bot_change", args=[bot.pk]), bot.name)


@admin.register(Subscription)
class SubscriptionAdmin(theirs.SubscriptionAdmin):
    list_display = ("customer", "status", "bot")
    search_fields = ("id", "customer__email", "metadata")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Subscription]:
        found: QuerySet[Subscription] = super().get_queryset(request)
        return found.select_related("customer__subscriber")

    def get_readonly_fields(self, request: HttpRequest, obj: Subscription | None = None) -> list[str]:
        return [*super().get_readonly_fields(request, obj), "bot"]

    def get_fields(self, request: HttpRequest, obj: Subscription | None = None) -> list[str]:
        return ["bot", *super().get_fields(request, obj)]

    @admin.display(description="bot")
    def bot(self, subscription: Subscription) -> str:
        about = gateway.bot_id(subscription.stripe_data)
        bot = Bot.objects.filter(pk=about).first() if about else None
        return _link(bot) if bot else "-"


@admin.register(Customer)
class CustomerAdmin(theirs.CustomerAdmin):
    list_display = ("user", "email", "currency", "bots")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Customer]:
        found: QuerySet[Customer] = super().get_queryset(request)
        return found.prefetch_related("subscriber__bots")

    @admin.display(description="user", ordering="subscriber__email")
    def user(self, customer: Customer) -> str:
        user: Any = customer.subscriber
        if user is None:
            return "-"
        return format_html('<a href="{}">{}</a>', reverse("admin:accounts_user_change", args=[user.pk]), user)

    @admin.display(description="bots")
    def bots(self, customer: Customer) -> str:
        owned = customer.subscriber.bots.all() if customer.subscriber else []
        return format_html_join(", ", "{}", ((_link(bot),) for bot in owned)) or "-"


@admin.register(Invoice)
class InvoiceAdmin(theirs.InvoiceAdmin):
    """Without dj-stripe's "paid": it reads a field that Stripe took away in 2025, and the page fails with it."""

    list_display = ("status", "total", "currency", "number", "customer")

    def get_readonly_fields(self, request: HttpRequest, obj: Invoice | None = None) -> list[str]:
        return [name for name in super().get_readonly_fields(request, obj) if name != "paid"]
