from django.urls import path

from accounts import views

app_name = "accounts"
urlpatterns = [
    path("", views.home, name="home"),
    path("name/", views.change_name, name="change_name"),
    path("tokens/", views.make_token, name="make_token"),
    path("tokens/<slug:key>/revoke/", views.revoke_token, name="revoke_token"),
]
