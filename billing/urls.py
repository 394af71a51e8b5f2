from django.urls import path

from billing import views

app_name = "billing"
urlpatterns = [
    path("pubs/<uuid:pk>/checkout/", views.checkout, name="checkout"),
    path("pubs/<uuid:pk>/return/", views.come_back, name="return"),
    path("pubs/<uuid:pk>/portal/", views.portal, name="portal"),
]
