from django.urls import URLPattern, URLResolver, include, path

from pubs.views import pub as views

pub_urls = [
    path("", views.pub, name="pub"),
    path("start/", views.start, name="start"),
    path("stop/", views.stop, name="stop"),
    path("restart/", views.restart, name="restart"),
    path("rename/", views.rename, name="rename"),
    path("delete/", views.delete, name="delete"),
    path("commands/", views.command, name="command"),
    path("commands/<uuid:command_pk>/", views.command_result, name="command_result"),
]
pubs_urls: list[URLPattern | URLResolver] = [
    path("", views.bot_list, name="list"),
    path("new/", views.new, name="new"),
    path("<uuid:pk>/", include(pub_urls)),
]
urlpatterns = [
    path("", views.landing, name="home"),
    path("pubs/", include((pubs_urls, "pubs"))),
]
