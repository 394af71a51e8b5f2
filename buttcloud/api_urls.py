"""Addresses of the API."""

from django.urls import path
from django.views.decorators.cache import never_cache
from drf_spectacular.views import SpectacularAPIView
from rest_framework.routers import SimpleRouter

from billing.api import CheckoutView, PaymentView, PortalView, PricesView
from pubs.api.history import HistoryView
from pubs.api.notices import NoticesView
from pubs.api.pubs import CatalogueView, CommandViewSet, PubViewSet, StatusChangeViewSet
from pubs.api.timeline import TimelineView
from pubs.api.working import WorkingView

router = SimpleRouter(use_regex_path=False)
router.register("pubs", PubViewSet, basename="api-pub")
router.register("pubs/<uuid:pub>/commands", CommandViewSet, basename="api-command")
router.register("pubs/<uuid:pub>/changes", StatusChangeViewSet, basename="api-change")

urlpatterns = [
    *router.urls,
    path("pubs/<uuid:pub>/history/", HistoryView.as_view(), name="api-history"),
    path("pubs/<uuid:pk>/payment/", PaymentView.as_view(), name="api-payment"),
    path("pubs/<uuid:pk>/checkout/", CheckoutView.as_view(), name="api-checkout"),
    path("pubs/<uuid:pk>/working/", WorkingView.as_view(), name="api-working"),
    path("pubs/<uuid:pk>/notices/", NoticesView.as_view(), name="api-notices"),
    path("pubs/<uuid:pk>/timeline/", TimelineView.as_view(), name="api-timeline"),
    path("pubs/<uuid:pk>/portal/", PortalView.as_view(), name="api-portal"),
    path("prices/", PricesView.as_view(), name="api-prices"),
    path("catalogue/", CatalogueView.as_view(), name="api-catalogue"),
    path("schema/", SpectacularAPIView.as_view(), name="api-schema"),
]
# A browser's session opens the API too: what is one person's stays in no cache.
for each in urlpatterns:
    assert each.callback
    each.callback = never_cache(each.callback)
