"""Staff's view of the machines, and of who lives where. The orchestrator writes all of it but for staff's few deeds."""

from functools import partial
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.utils import display_for_value
from django.contrib.admin.widgets import AdminTextInputWidget
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Case, QuerySet, When
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from accounts.admin import links
from accounts.models import User
from orchestrator import enrol, fleet, staff
from orchestrator.models import Enrolment, Hub, Placement
from pubs import live
from pubs.admin import LookOnly, TroubleFilter, YesNoFilter
from pubs.deeds import DeedAdmin, DeedForm


class LostFilter(YesNoFilter):
    title = "out of sight"
    parameter_name = "lost"

    def those(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        return rows.exclude(lost_at=None)


class OverdueFilter(YesNoFilter):
    title = "past its deadline"
    parameter_name = "overdue"

    def those(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        return rows.filter(deadline__lt=timezone.now())


class ForGood(DeedForm):
    """What can't be undone is done after the hub's name was typed below what it means."""

    deed = ""
    typed = forms.CharField(
        widget=AdminTextInputWidget({"autocomplete": "off", "autocapitalize": "off", "spellcheck": "false"})
    )

    def __init__(self, row: Hub, data: Any = None) -> None:
        super().__init__(row, data)
        self.name, self.means = self.deed.title(), staff.BEFORE[self.deed](row)
        self.fields["typed"].label = f"Type {row} to go on:"

    def clean_typed(self) -> None:
        if self.cleaned_data["typed"] != self.row.name:
            raise ValidationError(f"That is not “{self.row}”: nothing was done.")

    def do(self, by: User) -> str:
        return staff.DEEDS[self.deed](self.row)


class Destroy(ForGood):
    deed = "destroy"


class Fence(ForGood):
    deed = "fence"


@admin.register(Hub)
class HubAdmin(LookOnly, DeedAdmin):
    list_display = ["hub", "condition", "until", "taken", "seen", "reason"]
    # Those that are gone stay for the record, below the others.
    ordering = [Case(When(state=Hub.State.GONE, then=1), default=0), "id"]
    list_filter = ["state", LostFilter, OverdueFilter]
    search_fields = ["name", "node_id", "address", "public_address", "token__startswith"]
    actions = ["look_again", "drain", "uncordon", "destroy", "fence"]
    fieldsets = [
        (None, {"fields": ["name", "state", "deadline", "reason", "taken", "volumes"]}),
        ("Machine", {"fields": ["token", "created", "node_id", "address", "public_address"]}),
        ("Seen", {"fields": ["seen_at", "answered_at", "lost_at", "told_at", "fenced_at", "emptied_at"]}),
        ("Joining", {"fields": ["joined_at", "certificate_ends", "report"]}),
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Hub]:
        return staff.with_load(super().get_queryset(request).select_related("enrolment"))

    def get_urls(self) -> list[URLPattern]:
        fleet_page = path("fleet/", self.admin_site.admin_view(self.fleet_page), name="orchestrator_hub_fleet")
        return [fleet_page, *super().get_urls()]

    def fleet_page(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {**self.admin_site.each_context(request), "title": "The fleet", "fleet": fleet.look()}
        return TemplateResponse(request, "admin/orchestrator/fleet.html", context)

    @admin.display(ordering="name")
    def hub(self, hub: Hub) -> SafeString:
        return format_html('<span class="nowrap">{}</span>', hub)

    @admin.display(description="state", ordering="state")
    def condition(self, hub: Hub) -> str:
        return staff.condition(hub)

    @admin.display(ordering="deadline")
    def until(self, hub: Hub) -> str:
        return staff.apart(hub.deadline)

    @admin.display(ordering="seen_at")
    def seen(self, hub: Hub) -> str:
        return staff.apart(hub.seen_at)

    @admin.display(description="places", ordering="taken")
    def taken(self, hub: Any) -> SafeString:
        return links([(_placements(hub), f"{hub.taken} of {hub.places}")])

    @admin.display(description="volumes, those of deleted pubs too")
    def volumes(self, hub: Any) -> SafeString:
        return links([(_placements(hub), hub.volumes)])

    @admin.display(description="joined")
    def joined_at(self, hub: Hub) -> str:
        return display_for_value(getattr(_enrolment(hub), "joined_at", None), "-")

    @admin.display(description="certificate ends")
    def certificate_ends(self, hub: Hub) -> str:
        return display_for_value(enrol.expires(hub), "-")

    @admin.display(description="its own log")
    def report(self, hub: Hub) -> str:
        return getattr(_enrolment(hub), "report", "")

    @admin.action(description="Look again now", permissions=["deed"])
    def look_again(self, request: HttpRequest, hubs: QuerySet[Hub]) -> None:
        live.nudge()
        self.message_user(request, "The orchestrator looks at all hubs now. Come back in a few seconds.")

    @admin.action(description="Drain: move its pubs, then destroy it", permissions=["deed"])
    def drain(self, request: HttpRequest, hubs: QuerySet[Hub]) -> None:
        for hub in hubs:
            self.do(request, hub, partial(staff.drain, hub))

    @admin.action(description="Uncordon: call a drain off", permissions=["deed"])
    def uncordon(self, request: HttpRequest, hubs: QuerySet[Hub]) -> None:
        for hub in hubs:
            self.do(request, hub, partial(staff.uncordon, hub))

    @admin.action(description="Destroy an empty hub…", permissions=["deed"])
    def destroy(self, request: HttpRequest, hubs: QuerySet[Hub]) -> HttpResponse | None:
        return self.do_by_form(request, hubs, Destroy)

    @admin.action(description="Fence: its machine is off for good…", permissions=["deed"])
    def fence(self, request: HttpRequest, hubs: QuerySet[Hub]) -> HttpResponse | None:
        return self.do_by_form(request, hubs, Fence)


def _placements(hub: Hub) -> str:
    return f"{reverse('admin:orchestrator_placement_changelist')}?hub__id__exact={hub.pk}"


def _enrolment(hub: Hub) -> Enrolment | None:
    """None for this machine and for one that never asked. Its answer is a ticket into the swarm, shown to nobody."""
    return getattr(hub, "enrolment", None)


class PlacementTroubleFilter(TroubleFilter):
    column = "trouble"


class MovingFilter(YesNoFilter):
    title = "moving"
    parameter_name = "moving"

    def those(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        return rows.exclude(moving_to=None)


class LostWithHubFilter(LostFilter):
    title = "lost with its hub"


@admin.register(Placement)
class PlacementAdmin(LookOnly, admin.ModelAdmin):
    list_display = ["bot", "hub", "moving_to", "places", "port", "is_lost", "tried_again", "trouble"]
    list_select_related = ["bot", "hub", "moving_to"]
    list_filter = ["hub", MovingFilter, LostWithHubFilter, PlacementTroubleFilter]
    search_fields = ["bot__name", "bot__owner__email", "bot__id__startswith", "=port", "label"]
    show_full_result_count = False

    @admin.display(description="lost", ordering="lost_at")
    def is_lost(self, placement: Placement) -> str:
        return "lost" if placement.lost_at else ""

    @admin.display(ordering="rests_until")
    def tried_again(self, placement: Placement) -> str:
        """After a refusal."""
        return staff.apart(placement.rests_until)
