"""Staff's view of the machines, and of who lives where. The orchestrator writes all of it."""

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest

from orchestrator.models import Hub, Placement
from pubs.admin import LookOnly


@admin.register(Hub)
class HubAdmin(LookOnly, admin.ModelAdmin):
    list_display = ["name", "state", "places", "taken", "node_id", "address", "seen_at", "reason"]
    list_filter = ["state"]
    search_fields = ["name", "node_id", "address", "token__startswith"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Hub]:
        return super().get_queryset(request).annotate(taken_places=Count("placements"))

    @admin.display(ordering="taken_places")
    def taken(self, hub: Hub) -> int:
        count: int = hub.taken_places  # type: ignore[attr-defined]
        return count


@admin.register(Placement)
class PlacementAdmin(LookOnly, admin.ModelAdmin):
    list_display = ["bot", "hub", "port", "created", "claimed_until"]
    list_select_related = ["bot", "hub"]
    list_filter = ["hub"]
    search_fields = ["bot__name", "bot__owner__email", "bot__id__startswith", "=port"]
    show_full_result_count = False
