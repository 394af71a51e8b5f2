"""Staff's view of the machines, and of who lives where. The orchestrator writes all of it."""

from typing import Any

from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.safestring import SafeString

from accounts.admin import links
from orchestrator.models import Hub, Placement
from pubs.admin import LookOnly, TroubleFilter


@admin.register(Hub)
class HubAdmin(LookOnly, admin.ModelAdmin):
    list_display = ["name", "state", "places", "taken", "node_id", "address", "seen_at", "reason"]
    list_filter = ["state"]
    search_fields = ["name", "node_id", "address", "token__startswith"]
    readonly_fields = ["taken"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Hub]:
        return (
            super()
            .get_queryset(request)
            .annotate(taken_places=Count("placements", filter=Q(placements__bot__deleted_at=None)))
        )

    @admin.display(ordering="taken_places")
    def taken(self, hub: Any) -> SafeString:
        placements = reverse("admin:orchestrator_placement_changelist")
        return links([(f"{placements}?hub__id__exact={hub.pk}", hub.taken_places)])


class PlacementTroubleFilter(TroubleFilter):
    column = "trouble"


@admin.register(Placement)
class PlacementAdmin(LookOnly, admin.ModelAdmin):
    list_display = ["bot", "hub", "port", "created", "claimed_until", "trouble"]
    list_select_related = ["bot", "hub"]
    list_filter = ["hub", PlacementTroubleFilter]
    search_fields = ["bot__name", "bot__owner__email", "bot__id__startswith", "=port"]
    show_full_result_count = False
