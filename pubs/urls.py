from django.urls import URLPattern, URLResolver, include, path

from pubs.views import pub as views
from pubs.views import public, settings
from pubs.views.history import history_csv, history_page
from pubs.views.logs import logs_download, logs_page
from pubs.views.timeline import timeline

pub_urls = [
    path("", views.pub, name="pub"),
    path("start/", views.start, name="start"),
    path("stop/", views.stop, name="stop"),
    path("restart/", views.restart, name="restart"),
    path("settings/", settings.settings, name="settings"),
    path("settings/notices/", settings.choose_notices, name="notices"),
    path("settings/hook/", settings.set_hook, name="hook"),
    path("settings/hook/secret/", settings.renew_secret, name="hook_secret"),
    path("settings/hook/test/", settings.test_hook, name="hook_test"),
    path("settings/public/", settings.make_public, name="public"),
    path("rename/", settings.rename, name="rename"),
    path("delete/", settings.delete, name="delete"),
    path("history/", history_page, name="history"),
    path("history.csv", history_csv, name="history_csv"),
    path("timeline/", timeline, name="timeline"),
    path("logs/", logs_page, name="logs"),
    path("logs.txt", logs_download, name="logs_download"),
    path("commands/", views.command, name="command"),
    path("commands/<uuid:command_pk>/", views.command_result, name="command_result"),
]
pubs_urls: list[URLPattern | URLResolver] = [
    path("", views.bot_list, name="list"),
    path("new/", views.new, name="new"),
    path("<uuid:pk>/", include(pub_urls)),
]
status_urls = [
    path("<uuid:pk>/", public.page, name="pub"),
    path("<uuid:pk>.json", public.as_json, name="json"),
    path("<uuid:pk>/badge.svg", public.badge, name="badge"),
]
urlpatterns = [
    path("", views.landing, name="home"),
    path("status/", include((status_urls, "status"))),
    path("pubs/", include((pubs_urls, "pubs"))),
]
