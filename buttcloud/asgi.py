"""The entry point of the web server: pages by HTTP, live pages by websocket."""

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "buttcloud.settings")
pages = get_asgi_application()

from buttcloud.urls import websocket_urlpatterns  # noqa: E402  (models can't be imported before Django is set up)

application = ProtocolTypeRouter(
    {
        "http": pages,
        # A page of another site must not open our sockets with the visitor's cookie.
        "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns))),
    }
)
