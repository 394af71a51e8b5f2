"""The broadcaster as a process of its own."""

import asyncio
import signal
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand

from orchestrator.stats import Broadcaster


class Command(BaseCommand):
    help = "Samples all pubs, and streams the stats of each that somebody looks at. Any number may run side by side."

    def handle(self, *args: Any, **options: Any) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        running = asyncio.create_task(Broadcaster().run())
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, running.cancel)
        with suppress(asyncio.CancelledError):
            await running
