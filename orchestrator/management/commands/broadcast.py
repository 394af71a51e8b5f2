"""The broadcaster as a process of its own."""

import asyncio
from typing import Any

from django.core.management.base import BaseCommand

from orchestrator.stats import Broadcaster


class Command(BaseCommand):
    help = "Streams the stats of each pub that somebody looks at."

    def handle(self, *args: Any, **options: Any) -> None:
        asyncio.run(Broadcaster().run())
