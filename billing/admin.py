"""The money of pubs for staff: where each stands, what staff do about it, and dj-stripe's pages, linked with ours in
both ways.
"""

from datetime import timedelta
from functools import partial
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from djstripe.admin import admin as theirs
from djstripe.models import Customer, Event, Invoice, Price, Product, Subscription, WebhookEventTrigger

from accounts.admin import links, money
from billing import gateway, staff
from billing.ladder import ALIVE, Rung
from billing.models import Sweep
from pubs import live
from pubs.admin import BotAdmin, LookOnly, NewestInline, YesNoFilter
from pubs.models import Bot, PaymentChange

STRIPE = "https://api.stripe.com"
SOON = timedelta(days=7)


# --- Pubs and what is paid for them --------------------------------------------------------------------------------
class SoonFilter(YesNoFilter):
    title = "stops or goes within 7 days"
    parameter_name = "soon"

    def those(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        soon = timezone.now() + SOON
        return rows.filter(Q(runs_until__lt=soon) | Q(kept_until__lt=soon)).exclude(rung=Rung.OVER)


class CompedFilter(YesNoFilter):
    title = "comped"
    parameter_name = "comped"

    def those(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        return rows.filter(comped_until__gt=timezone.now())


class ChargedForNothingFilter(YesNoFilter):
    title = "deleted, yet subscribed"
    parameter_name = "charged"

    def those(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        return rows.filter(deleted_at__isnull=False, paid_status__in=ALIVE)


class PaymentChangeInline(NewestInline):
    model = PaymentChange
    readonly_fields = ["at", "old", "new", "words", "by"]
    verbose_name_plural = "newest payment changes"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("by")


@admin.register(Bot)
class PaidBotAdmin(BotAdmin):
    list_display = [*BotAdmin.list_display[:3], "short_rung", "until", *BotAdmin.list_display[3:]]
    list_filter = ["rung", SoonFilter, CompedFilter, ChargedForNothingFilter, *BotAdmin.list_filter]
    search_fields = [*BotAdmin.search_fields, "subscription_id", "owner__djstripe_customers__id"]
    actions = [
        *BotAdmin.actions,
        "look_at_stripe",
        "comp",
        "end_comp",
        "extend_grace",
        "give_back",
        "end_subscription",
    ]
    inlines = [PaymentChangeInline, *BotAdmin.inlines]
    fieldsets = [
        *BotAdmin.fieldsets[:2],
        (
            "Money",
            {
                "fields": [
                    "rung",
                    "paid",
                    "runs_until",
                    "kept_until",
                    "comped_until",
                    "grace_until",
                    "memory_gb",
                    "paid_status",
                    "paid_until",
                    "paid_ends",
                    "unpaid_since",
                    "retry_at",
                    "asked_at",
                    "paid_seen_at",
                    "due_at",
                    "subscription_id",
                    "price_id",
                    "stripe",
                ]
            },
        ),
        *BotAdmin.fieldsets[2:],
    ]

    @admin.display(description="rung", ordering="rung")
    def short_rung(self, bot: Bot) -> str:
        """In a word: the table is wide, and its filter has all of it."""
        return bot.rung

    @admin.display(ordering="runs_until")
    def until(self, bot: Bot) -> SafeString | None:
        word, moment = ("runs", bot.runs_until) if bot.runs_until else ("kept", bot.kept_until)
        if moment is None:
            return None
        return format_html('{} until <span class="nowrap">{}</span>', word, date_format(moment, "j M Y"))

    @admin.display(description="Stripe")
    def stripe(self, bot: Bot) -> SafeString:
        return links([*money(bot.owner), *_pages_of_subscription(bot.subscription_id)])

    @admin.action(description="Look again at Stripe now", permissions=["deed"])
    def look_at_stripe(self, request: HttpRequest, bots: QuerySet[Bot]) -> None:
        if len(bots) == 1:
            self.do(request, bots[0], partial(staff.look_at_stripe, bots[0]))
            return
        for bot in bots:
            live.look_at_payment(bot.pk)
        self.message_user(request, f"Stripe is asked about {len(bots)} pubs now. Come back in a few seconds.")

    @admin.action(description="Comp until…", permissions=["deed"])
    def comp(self, request: HttpRequest, bots: QuerySet[Bot]) -> HttpResponse | None:
        return self.do_by_form(request, bots, staff.Comp)

    @admin.action(description="End the comp…", permissions=["deed"])
    def end_comp(self, request: HttpRequest, bots: QuerySet[Bot]) -> HttpResponse | None:
        return self.do_by_form(request, bots, staff.EndComp)

    @admin.action(description="Extend the grace until…", permissions=["deed"])
    def extend_grace(self, request: HttpRequest, bots: QuerySet[Bot]) -> HttpResponse | None:
        return self.do_by_form(request, bots, staff.ExtendGrace)

    @admin.action(description="Refund…", permissions=["deed"])
    def give_back(self, request: HttpRequest, bots: QuerySet[Bot]) -> HttpResponse | None:
        return self.do_by_form(request, bots, staff.Refund)

    @admin.action(description="End the subscription now…", permissions=["deed"])
    def end_subscription(self, request: HttpRequest, bots: QuerySet[Bot]) -> HttpResponse | None:
        return self.do_by_form(request, bots, staff.EndSubscription)


def _pages_of_subscription(subscription_id: str) -> list[tuple[str, str]]:
    """Address and word of each page about a subscription: dj-stripe's mirror, Stripe's own dashboard."""
    if not subscription_id:
        return []
    # By Stripe's own id: the mirror's key is dj-stripe's affair.
    page = reverse("admin:djstripe_subscription_change", args=[quote(subscription_id)])
    # An invoice names its subscription within what Stripe says of it, and nowhere else.
    named = urlencode({"stripe_data__icontains": subscription_id})
    return [
        (f"{page}?_to_field=id", "subscription"),
        (f"{reverse('admin:djstripe_invoice_changelist')}?{named}", "invoices"),
        *_dashboard(f"subscriptions/{subscription_id}"),
    ]


def _dashboard(page: str) -> list[tuple[str, str]]:
    """A page of Stripe's dashboard. The local Stripe has none."""
    if settings.STRIPE_API_HOST != STRIPE:
        return []
    return [
        (f"https://dashboard.stripe.com/{'' if settings.STRIPE_LIVE_MODE else 'test/'}{page}", "Stripe's dashboard")
    ]


@admin.register(PaymentChange)
class PaymentChangeAdmin(LookOnly, admin.ModelAdmin):
    list_display = ["at", "bot", "old", "new", "words", "by"]
    list_select_related = ["bot", "by"]
    list_filter = ["new", "at"]
    search_fields = ["words", "key", "bot__name", "bot__owner__email", "bot__id__startswith", "by__email"]
    show_full_result_count = False


class DifferentFilter(YesNoFilter):
    title = "found differences"
    parameter_name = "different"

    def those(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        return rows.filter(differences__gt=0)


@admin.register(Sweep)
class SweepAdmin(LookOnly, admin.ModelAdmin):
    list_display = ["started", "kind", "finished", "looked", "differences", "read_until"]
    list_filter = ["kind", DifferentFilter, "started"]
    search_fields = ["words"]
    show_full_result_count = False


# --- dj-stripe's pages ---------------------------------------------------------------------------------------------
# What of its forty tables helps staff, and how each is shown here; the rest is its own business.
SHOWN = (Event, Price, Product, WebhookEventTrigger)
# A property with our secret key, and one that reads a field which Stripe took away in 2025 and fails with it.
HIDDEN = ("default_api_key", "paid")


class Mirror(LookOnly):
    """What Stripe knows: it is changed there, and only looked at here."""

    # Theirs warns of changes that nobody can make here.
    change_form_template = None
    ours: tuple[str, ...] = ()

    def get_urls(self) -> list[URLPattern]:
        # Their actions, such as the end of a subscription, ask for no permission at all.
        return [each for each in super().get_urls() if each.name != "djstripe_custom_action"]  # type: ignore[misc]

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        return {}

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        names = [name for name in super().get_readonly_fields(request, obj) if name not in HIDDEN]  # type: ignore[misc]
        return [*names, "pages", *self.ours]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        first = [*self.ours, "pages"]
        return [*first, *(name for name in super().get_fields(request, obj) if name not in first)]  # type: ignore[misc]

    @admin.display(description="at Stripe")
    def pages(self, row: Any) -> str:
        kind = getattr(row, "stripe_dashboard_item_name", "")
        return links(_dashboard(f"{kind}/{row.id}") if kind else []) or "-"


def _show_what_helps() -> None:
    for model in apps.get_app_config("djstripe").get_models():
        if model in admin.site._registry:
            shown_by = type(admin.site._registry[model])
            admin.site.unregister(model)
            if model in SHOWN:
                admin.site.register(model, type(shown_by.__name__, (Mirror, shown_by), {}))


_show_what_helps()


def _page_of_bot(data: Any) -> str:
    """A link to the bot that something in Stripe is for: by its id alone, so that a list asks for no rows."""
    about = gateway.bot_id(data)
    return links([(reverse("admin:pubs_bot_change", args=[about]), f"pub {str(about)[:8]}")]) if about else "-"


@admin.register(Subscription)
class SubscriptionAdmin(Mirror, theirs.SubscriptionAdmin):
    list_display = ("customer", "status", "bot")
    search_fields = ("id", "customer__email", "metadata")
    ours = ("bot", "invoices")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Subscription]:
        found: QuerySet[Subscription] = super().get_queryset(request)
        return found.select_related("customer__subscriber")

    @admin.display
    def bot(self, subscription: Subscription) -> str:
        return _page_of_bot(subscription.stripe_data)

    @admin.display
    def invoices(self, subscription: Subscription) -> str:
        return links(each for each in _pages_of_subscription(subscription.id) if each[1] == "invoices")


@admin.register(Customer)
class CustomerAdmin(Mirror, theirs.CustomerAdmin):
    list_display = ("user", "email", "currency", "bots")
    ours = ("user", "bots")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Customer]:
        found: QuerySet[Customer] = super().get_queryset(request)
        return found.prefetch_related("subscriber__bots")

    @admin.display(ordering="subscriber__email")
    def user(self, customer: Customer) -> str:
        user: Any = customer.subscriber
        return links([(reverse("admin:accounts_user_change", args=[user.pk]), str(user))]) if user else "-"

    @admin.display
    def bots(self, customer: Customer) -> str:
        owned = customer.subscriber.bots.all() if customer.subscriber else []
        return links((reverse("admin:pubs_bot_change", args=[bot.pk]), bot.name) for bot in owned) or "-"


@admin.register(Invoice)
class InvoiceAdmin(Mirror, theirs.InvoiceAdmin):
    list_display = ("status", "total", "currency", "number", "customer", "bot")
    ours = ("bot", "subscription_page")

    @admin.display
    def bot(self, invoice: Invoice) -> str:
        return _page_of_bot(_subscription_details(invoice))

    @admin.display(description="subscription")
    def subscription_page(self, invoice: Invoice) -> str:
        about = _subscription_details(invoice)["subscription"]
        return links(each for each in _pages_of_subscription(about) if each[1] == "subscription") or "-"


def _subscription_details(invoice: Invoice) -> dict[str, Any]:
    """What an invoice says of its subscription: its id, and its metadata as it was then."""
    parent = invoice.stripe_data.get("parent") or {}
    return parent.get("subscription_details") or {"subscription": "", "metadata": {}}
