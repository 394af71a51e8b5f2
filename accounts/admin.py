from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import AdminUserCreationForm
from django.contrib.auth.forms import UserChangeForm as DjangoUserChangeForm
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from accounts.models import User


def links(pairs: Iterable[tuple[str, str]]) -> SafeString:
    """Links side by side, from pairs of address and word."""
    return format_html_join(" · ", '<a href="{}">{}</a>', pairs)


def money(user: User) -> list[tuple[str, str]]:
    """Address and word of dj-stripe's pages about what a user pays."""
    customers = reverse("admin:djstripe_customer_changelist")
    events = reverse("admin:djstripe_event_changelist")
    return [
        (f"{customers}?{urlencode({'subscriber__id__exact': user.pk})}", "customer"),
        # The admin's search passes over what an event says; a filter by its column does not.
        *(
            (f"{events}?{urlencode({'data__icontains': customer})}", f"events of {customer}")
            for customer in user.djstripe_customers.values_list("id", flat=True)  # type: ignore[attr-defined]
        ),
    ]


class UserCreationForm(AdminUserCreationForm):
    class Meta:
        model = User
        fields = ("email", "name")


class UserChangeForm(DjangoUserChangeForm):
    class Meta:
        model = User
        fields = "__all__"


@admin.register(User)
class UserAdmin(DjangoUserAdmin):
    form = UserChangeForm
    add_form = UserCreationForm
    list_display = ["email", "name", "is_staff", "date_joined", "pubs"]
    list_filter = ["is_staff", "is_superuser", "is_active", "date_joined"]
    search_fields = ["email", "name"]
    ordering = ["email"]
    readonly_fields = ["date_joined", "last_login", "pubs", "stripe"]
    fieldsets = [
        (None, {"fields": ["email", "name", "password", "pubs", "stripe"]}),
        ("Rights", {"fields": ["is_active", "is_staff", "is_superuser", "groups", "user_permissions"]}),
        ("Dates", {"fields": ["date_joined", "last_login"]}),
    ]
    add_fieldsets = [(None, {"fields": ["email", "name", "usable_password", "password1", "password2"]})]

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        return super().get_queryset(request).annotate(pubs=Count("bots", filter=Q(bots__deleted_at=None)))

    @admin.display(description="pubs", ordering="pubs")
    def pubs(self, user: Any) -> SafeString:
        url = reverse("admin:pubs_bot_changelist")
        return format_html('<a href="{}?owner__id__exact={}">{}</a>', url, user.pk, user.pubs)

    @admin.display(description="Stripe")
    def stripe(self, user: User) -> SafeString:
        return links(money(user))
