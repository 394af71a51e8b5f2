from django.urls import path

from orchestrator import views

app_name = "hubs"
urlpatterns = [
    path("<uuid:token>/enrol/", views.enrol, name="enrol"),
    path("<uuid:token>/report/", views.report, name="report"),
]
