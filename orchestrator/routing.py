from django.urls import path

from orchestrator.consumers import PubConsumer

websocket_urlpatterns = [path("ws/pubs/<uuid:bot_id>/", PubConsumer.as_asgi())]
