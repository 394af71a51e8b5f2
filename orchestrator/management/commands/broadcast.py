"""The broadcaster as a process of its own."""

import asyncio
import signal
from contextlib import suppress
from typing import Any

import uvloop
from django.core.management.base import BaseCommand

from orchestrator.stats import Broadcaster


class Command(BaseCommand):
    help = "Samples all pubs, and streams the stats of each that somebody looks at. Any number may run side by side."

    def handle(self, *args: Any, **options: Any) -> None:
        # Of what a stream costs, most is asyncio's own loop, and this one takes less: bench/stats.py.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._run())

    async def _run(self) -> None:
        running = asyncio.create_task(Broadcaster().run())
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, running.cancel)
        with suppress(asyncio.CancelledError):
            await running
