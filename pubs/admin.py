"""Staff's control room: all pubs at a glance, and the few deeds that staff do for an owner.

Nothing is edited by hand: each column has its one writer, and a saved form would write over all of them.
"""

from collections.abc import Callable, Sequence
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.forms import BaseInlineFormSet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from accounts.admin import links
from pubs import live
from pubs.deeds import DeedAdmin
from pubs.models import Bot, Command, StatusChange

NEWEST = 10
WHY_MAX = 80


class LookOnly:
    """What staff may see and nobody may change by hand."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class Newest(BaseInlineFormSet):
    """The newest few rows of what may be a long history."""

    def get_queryset(self) -> QuerySet[Any]:
        if not hasattr(self, "_newest"):
            self._newest = super().get_queryset()[:NEWEST]
        return self._newest


class NewestInline(LookOnly, admin.TabularInline):
    formset = Newest
    extra = 0
    show_change_link = True

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.get_readonly_fields(request, obj)


class StatusChangeInline(NewestInline):
    model = StatusChange
    readonly_fields = ["at", "old", "new", "reason"]
    verbose_name_plural = f"last {NEWEST} status changes"


class CommandInline(NewestInline):
    model = Command
    readonly_fields = ["created", "by", "name", "args", "state", "error", "finished"]
    verbose_name_plural = f"last {NEWEST} commands"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("by")


class YesNoFilter(admin.SimpleListFilter):
    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:
        return [("yes", "Yes"), ("no", "No")]

    def those(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        """The rows that "yes" means."""
        raise NotImplementedError

    def queryset(self, request: HttpRequest, rows: QuerySet[Any]) -> QuerySet[Any]:
        those = self.those(rows.order_by()).values("pk")
        match self.value():
            case "yes":
                return rows.filter(pk__in=those)
            case "no":
                return rows.exclude(pk__in=those)
        return rows


class WantedFilter(YesNoFilter):
    title = "wanted"
    parameter_name = "wanted"

    def those(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        return Bot.objects.wanted()


class DeletedFilter(YesNoFilter):
    title = "deleted"
    parameter_name = "deleted"

    def those(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        return rows.exclude(deleted_at=None)


class TroubleFilter(YesNoFilter):
    title = "has trouble"
    parameter_name = "trouble"
    column = "placement__trouble"

    def those(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        return rows.filter(**{f"{self.column}__gt": ""})


class UnknownFilter(YesNoFilter):
    title = "out of sight"
    parameter_name = "unknown"

    def those(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        return rows.exclude(unknown_since=None)


class LostFilter(YesNoFilter):
    title = "waits for a restore"
    parameter_name = "lost"

    def those(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        return rows.exclude(lost_at=None)


class BotAdmin(LookOnly, DeedAdmin):
    """Without its money, which billing adds when it registers this."""

    list_display = [
        "name",
        "owner_link",
        "condition",
        "hub",
        "port",
        "seen_at",
        "why",
        "deleted_at",
    ]
    # The placement is the orchestrator's; from here it is only the other end of its key.
    list_select_related = ["owner", "placement__hub"]
    list_filter = [
        "status",
        "switched_on",
        WantedFilter,
        UnknownFilter,
        LostFilter,
        TroubleFilter,
        DeletedFilter,
    ]
    search_fields = ["name", "owner__email", "ssb_id", "id__startswith", "address"]
    show_full_result_count = False
    actions = ["look_again", "start", "stop", "restart"]
    inlines = [StatusChangeInline, CommandInline]
    fieldsets = [
        (None, {"fields": ["name", "id", "owner_link", "created", "deleted_at"]}),
        ("Wish", {"fields": ["wanted", "switched_on", "restarts"]}),
        (
            "Seen",
            {
                "fields": [
                    "status",
                    "unknown_since",
                    "lost_at",
                    "moving",
                    "changed_at",
                    "started_at",
                    "seen_at",
                    "reason",
                    "trouble",
                    "address",
                    "ssb_id",
                    "told_up",
                    "wanted_since",
                    "hub",
                    "port",
                ]
            },
        ),
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Bot]:
        return super().get_queryset(request).select_related(*self.list_select_related)

    @admin.display(description="owner", ordering="owner__email")
    def owner_link(self, bot: Bot) -> SafeString:
        return format_html('<a href="{}">{}</a>', reverse("admin:accounts_user_change", args=[bot.owner_id]), bot.owner)

    @admin.display(description="status", ordering="status")
    def condition(self, bot: Bot) -> str:
        """What is not known now is not shown as if it were."""
        if bot.lost_at:
            return "lost with its hub"
        if bot.unknown_since:
            return f"unknown, was {bot.get_status_display()}"
        return bot.get_status_display() + (", moving" if bot.moving else "")

    @admin.display(boolean=True)
    def wanted(self, bot: Bot) -> bool:
        return bot.is_wanted

    @admin.display(ordering="placement__hub__name")
    def hub(self, bot: Bot) -> SafeString | None:
        placement = getattr(bot, "placement", None)
        return placement and links([(reverse("admin:orchestrator_hub_change", args=[placement.hub_id]), placement.hub)])

    @admin.display(ordering="placement__port")
    def port(self, bot: Bot) -> SafeString | None:
        placement = getattr(bot, "placement", None)
        return placement and links(
            [(reverse("admin:orchestrator_placement_change", args=[placement.pk]), placement.port)]
        )

    @admin.display(description="reason", ordering="reason")
    def why(self, bot: Bot) -> SafeString:
        """In one line: the table is wide, and its page has all of it."""
        return format_html('<span class="nowrap">{}</span>', Truncator(bot.reason).chars(WHY_MAX))

    @admin.display(description="trouble, in Docker's words")
    def trouble(self, bot: Bot) -> str:
        return getattr(getattr(bot, "placement", None), "trouble", "")

    def wish(self, request: HttpRequest, bots: QuerySet[Bot], deed: Callable[[Bot], None], word: str) -> None:
        # What waits for a restore can't be asked for anything.
        there = [bot for bot in bots if bot.deleted_at is None and bot.lost_at is None]
        for bot in there:
            deed(bot)
        self.message_user(request, f"{word}: {len(there)} of {len(bots)} pubs.")

    @admin.action(description="Look at the swarm now", permissions=["deed"])
    def look_again(self, request: HttpRequest, bots: QuerySet[Bot]) -> None:
        live.nudge()
        self.message_user(request, "The orchestrator looks at all pubs now. Come back in a few seconds.")

    @admin.action(description="Switch on", permissions=["deed"])
    def start(self, request: HttpRequest, bots: QuerySet[Bot]) -> None:
        self.wish(request, bots, Bot.start, "Switched on")

    @admin.action(description="Switch off", permissions=["deed"])
    def stop(self, request: HttpRequest, bots: QuerySet[Bot]) -> None:
        self.wish(request, bots, Bot.stop, "Switched off")

    @admin.action(description="Restart", permissions=["deed"])
    def restart(self, request: HttpRequest, bots: QuerySet[Bot]) -> None:
        self.wish(request, bots, Bot.restart, "Asked to restart")


@admin.register(StatusChange)
class StatusChangeAdmin(LookOnly, admin.ModelAdmin):
    list_display = ["at", "bot", "old", "new", "reason"]
    list_select_related = ["bot"]
    list_filter = ["new", "at"]
    search_fields = ["bot__name", "bot__owner__email", "bot__id__startswith"]
    show_full_result_count = False


@admin.register(Command)
class CommandAdmin(LookOnly, admin.ModelAdmin):
    list_display = ["created", "bot", "by", "name", "state", "error", "started", "finished"]
    list_select_related = ["bot", "by"]
    list_filter = ["state", "name", "created"]
    search_fields = ["id__startswith", "bot__name", "bot__owner__email", "bot__id__startswith", "by__email"]
    show_full_result_count = False
