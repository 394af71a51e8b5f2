from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from mailer.models import TRIES_MAX, Hook, Message


class SentFilter(admin.SimpleListFilter):
    title = "sent"
    parameter_name = "sent"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "sent"), ("no", "unsent"), ("given_up", "given up")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.value():
            case "yes":
                return queryset.exclude(sent_at=None)
            case "no":
                return queryset.filter(sent_at=None)
            case "given_up":
                return queryset.filter(sent_at=None, tries__gte=TRIES_MAX)
        return queryset


@admin.register(Message)
class MessageAdmin(admin.ModelAdmin):
    list_display = ["to", "subject", "created", "sent_at", "tries", "error"]
    list_filter = [SentFilter, "created"]
    search_fields = ["to", "subject", "key"]
    date_hierarchy = "created"
    fields = readonly_fields = ("to", "subject", "key", "created", "sent_at", "tries", "claimed_until", "error", "body")
    actions = ["send_again"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    @admin.display(description="text")
    def body(self, message: Message) -> str:
        # Whoever reads a sign-in code before its owner does can sign in as the owner.
        return "Hidden, since it holds a code." if message.forget else message.text

    @admin.action(description="Send again what was not sent", permissions=["change"])
    def send_again(self, request: HttpRequest, queryset: QuerySet[Message]) -> None:
        """Make them due; the next sweep sends them. A code that was forgotten has nothing left to send."""
        unsent = queryset.filter(sent_at=None).exclude(text="")
        count = unsent.update(tries=0, claimed_until=None, error="")
        self.message_user(request, f"{count} will go out within a minute.", messages.SUCCESS)


@admin.register(Hook)
class HookAdmin(admin.ModelAdmin):
    """To look at: whose address it is sees on the page of the pub how it went, and can mend it there."""

    list_display = ["url", "event", "created", "sent_at", "tries", "error"]
    list_filter = [SentFilter, "created"]
    search_fields = ["url", "about", "key"]
    fields = readonly_fields = (
        "url",
        "event",
        "about",
        "key",
        "created",
        "sent_at",
        "tries",
        "claimed_until",
        "error",
        "body",
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False
