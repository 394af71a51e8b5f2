"""All addresses of the site, by room."""

from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.urls import include, path

from buttcloud import service
from buttcloud.metrics import metrics
from orchestrator.routing import websocket_urlpatterns

__all__ = ["urlpatterns", "websocket_urlpatterns"]

# Staff sign in where everybody does: the same rate limits, the same second looks.
admin.autodiscover()
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]
admin.site.site_header = admin.site.site_title = "buttcloud staff"

urlpatterns = [
    path("status/", service.page, name="service_status"),
    path("status.json", service.as_json, name="service_status_json"),
    path("", include("pubs.urls")),
    path("account/", include("accounts.urls")),
    path("accounts/", include("allauth.urls")),
    path("billing/", include("billing.urls")),
    path("hubs/", include("orchestrator.urls")),
    path("stripe/", include("djstripe.urls", namespace="djstripe")),
    path("api/v1/", include("buttcloud.api_urls")),
    path("admin/", admin.site.urls),
    path("metrics", metrics),
]
