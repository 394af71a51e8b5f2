from django.urls import path

from orchestrator.consumers import PubConsumer
from orchestrator.log_consumer import LogsConsumer

websocket_urlpatterns = [
    path("ws/pubs/<uuid:bot_id>/", PubConsumer.as_asgi()),
    path("ws/pubs/<uuid:bot_id>/logs/", LogsConsumer.as_asgi()),
]
