"""Only wires: settings, addresses and the entry points of the server and of the workers."""

from buttcloud.celery import app as celery_app

__all__ = ["celery_app"]
