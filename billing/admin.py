"""dj-stripe's pages for staff, linked with ours in both ways."""

from typing import Any

from django.apps import apps
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from djstripe.admin import admin as theirs
from djstripe.models import Customer, Event, Invoice, Price, Product, Subscription, WebhookEventTrigger

from billing import gateway
from pubs.admin import LookOnly
from pubs.models import Bot

# What of dj-stripe's forty tables helps staff, and how each is shown here; the rest is its own business.
SHOWN = (Event, Price, Product, WebhookEventTrigger)
# A property with our secret key, and one that reads a field which Stripe took away in 2025 and fails with it.
HIDDEN = ("default_api_key", "paid")


class Mirror(LookOnly):
    """What Stripe knows: it is changed there, and only looked at here."""

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return [name for name in super().get_readonly_fields(request, obj) if name not in HIDDEN]  # type: ignore[misc]


def _show_what_helps() -> None:
    for model in apps.get_app_config("djstripe").get_models():
        if model in admin.site._registry:
            shown_by = type(admin.site._registry[model])
            admin.site.unregister(model)
            if model in SHOWN:
                admin.site.register(model, type(shown_by.__name__, (Mirror, shown_by), {}))


_show_what_helps()


def _link(bot: Bot) -> SafeString:
    return format_html('<a href="{}">{}</a>', reverse("admin:pubs_bot_change", args=[bot.pk]), bot.name)


@admin.register(Subscription)
class SubscriptionAdmin(Mirror, theirs.SubscriptionAdmin):
    list_display = ("customer", "status", "bot")
    search_fields = ("id", "customer__email", "metadata")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Subscription]:
        found: QuerySet[Subscription] = super().get_queryset(request)
        return found.select_related("customer__subscriber")

    def get_readonly_fields(self, request: HttpRequest, obj: Subscription | None = None) -> list[str]:
        return [*super().get_readonly_fields(request, obj), "bot"]

    def get_fields(self, request: HttpRequest, obj: Subscription | None = None) -> list[str]:
        return ["bot", *(name for name in super().get_fields(request, obj) if name != "bot")]

    @admin.display(description="bot")
    def bot(self, subscription: Subscription) -> str:
        about = gateway.bot_id(subscription.stripe_data)
        bot = Bot.objects.filter(pk=about).first() if about else None
        return _link(bot) if bot else "-"


@admin.register(Customer)
class CustomerAdmin(Mirror, theirs.CustomerAdmin):
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
class InvoiceAdmin(Mirror, theirs.InvoiceAdmin):
    list_display = ("status", "total", "currency", "number", "customer")
