"""The websocket of a pub's log: it only carries what the broadcaster of the pub's hub reads."""

import asyncio
import logging
from typing import Any

from orchestrator.consumers import NOT_FOUND, TRY_AGAIN, OwnPubConsumer
from pubs import live

log = logging.getLogger(__name__)


class LogsConsumer(OwnPubConsumer):
    """What a pub writes, for its owner. A browser that is slow delays nobody: once its channel is full, what comes is
    dropped, and the browser counts what is missing.
    """

    watching: asyncio.Task[None] | None = None
    closing: asyncio.Task[None] | None = None
    has_begun = False

    async def begin(self) -> None:
        # The browser knows that it is heard, even while nobody can see its pub.
        await self.send_json({"kind": "waiting"})
        self.watching = asyncio.create_task(self._watch())
        self.watching.add_done_callback(self._ended)

    async def disconnect(self, code: int) -> None:
        if self.watching:
            self.watching.cancel()
            await self.channel_layer.group_discard(live.log_group(self.bot_id), self.channel_name)

    async def _watch(self) -> None:
        """Say again and again that somebody reads; the stream ends when nobody says so any more."""
        while True:
            # Layers forget their members after a day.
            await self.channel_layer.group_add(live.log_group(self.bot_id), self.channel_name)
            message = live.watch_message(self.bot_id, "logs")
            if not self.has_begun:
                message["reader"] = self.channel_name
            await self.channel_layer.group_send(live.BROADCASTERS, message)
            await asyncio.sleep(live.WATCH_SECONDS / 3)
            if await self._bot() is None:
                await self.close(NOT_FOUND)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Without it nobody checks any more who reads: the browser connects anew."""
        if not task.cancelled() and (error := task.exception()):
            log.error("a reader of pub %s is cut off: %s", self.bot_id, error)
            self.closing = asyncio.create_task(self.close(TRY_AGAIN))

    async def log_begin(self, event: dict[str, Any]) -> None:
        """What was sent before we came, or the beginning of another broadcaster's stream."""
        self.has_begun = True
        await self.send_json({"kind": "begin", "stream": event["stream"], "lines": event["lines"]})

    async def log_lines(self, event: dict[str, Any]) -> None:
        if self.has_begun:
            await self.send_json({"kind": "lines", "stream": event["stream"], "lines": event["lines"]})
