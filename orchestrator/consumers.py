"""Websockets that only carry: may this user see the pub, join its group, pass on."""

import asyncio
import logging
from contextlib import suppress
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.conf import settings
from django.contrib.auth import get_user
from django.template.loader import render_to_string

from pubs import live
from pubs.models import Bot

log = logging.getLogger(__name__)

NOT_FOUND = 4404
TRY_AGAIN = 1012
SessionStore = import_module(settings.SESSION_ENGINE).SessionStore


class OwnPubConsumer(AsyncJsonWebsocketConsumer):
    """Something of a pub, live, for its owner: for all others there is no such pub."""

    bot_id: UUID

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_if_there(message: Any) -> None:
            # ASGI's word for a browser that has left; its disconnect is on its way to us.
            with suppress(OSError):
                await send(message)

        await super().__call__(scope, receive, send_if_there)

    async def connect(self) -> None:
        self.bot_id = self.scope["url_route"]["kwargs"]["bot_id"]
        await self.accept()
        if await self._bot() is None:
            await self.close(NOT_FOUND)
            return
        await self.begin()

    async def begin(self) -> None:
        """The pub is the visitor's: what follows."""

    def _look_up(self) -> Bot | None:
        """The bot, as long as it is the visitor's and the visitor is still signed in."""
        # The session as it is now: signed out, or signed in with a password that was changed since, ends it.
        session = SessionStore(self.scope["session"].session_key)
        user = get_user(SimpleNamespace(session=session))  # type: ignore[arg-type]
        return user.bots.alive().filter(pk=self.bot_id).first() if user.is_authenticated else None

    @database_sync_to_async
    def _bot(self) -> Bot | None:
        return self._look_up()


class PubConsumer(OwnPubConsumer):
    """A pub's page, live: stats each second, and its pieces drawn again when a row changed."""

    watching: asyncio.Task[None] | None = None
    closing: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        await self.channel_layer.group_add(live.group(self.bot_id), self.channel_name)
        # What happened between the page's first paint and now is not lost.
        await self.pub_changed({})
        if sample := live.newest_stats(self.bot_id):
            await self.stats({"sample": sample})
        self.watching = asyncio.create_task(self._watch())
        self.watching.add_done_callback(self._watch_ended)

    async def disconnect(self, code: int) -> None:
        if self.watching:
            self.watching.cancel()
            await self.channel_layer.group_discard(live.group(self.bot_id), self.channel_name)

    async def _watch(self) -> None:
        """Say again and again that somebody looks; the stream ends when nobody says so any more."""
        while True:
            # Layers forget their members after a day.
            await self.channel_layer.group_add(live.group(self.bot_id), self.channel_name)
            await self.channel_layer.group_send(live.BROADCASTERS, {"type": "watch", "bot": str(self.bot_id)})
            await asyncio.sleep(live.WATCH_SECONDS / 3)
            if await self._bot() is None:
                await self.close(NOT_FOUND)

    def _watch_ended(self, task: asyncio.Task[None]) -> None:
        """Without it nobody checks any more who looks: the browser connects anew."""
        if not task.cancelled() and (error := task.exception()):
            log.error("a page of pub %s is cut off: %s", self.bot_id, error)
            self.closing = asyncio.create_task(self.close(TRY_AGAIN))

    async def stats(self, event: dict[str, Any]) -> None:
        await self.send_json({"kind": "stats", **event["sample"]})

    async def pub_changed(self, event: dict[str, Any]) -> None:
        if html := await self._render_pub():
            await self.send_json({"kind": "pub", "html": html})

    async def command_changed(self, event: dict[str, Any]) -> None:
        if html := await self._render_command(event["id"]):
            await self.send_json({"kind": "command", "id": event["id"], "html": html})

    @database_sync_to_async
    def _render_pub(self) -> str:
        bot = self._look_up()
        # Prices are written as the browser wishes, here as on the whole page.
        wish = dict(self.scope["headers"]).get(b"accept-language", b"").decode("latin-1")
        context = {"bot": bot, "user": self.scope["user"], "accept_language": wish}
        return render_to_string("pubs/_pub.html", context) if bot else ""

    @database_sync_to_async
    def _render_command(self, command_id: str) -> str:
        bot = self._look_up()
        command = bot.commands.filter(pk=command_id).first() if bot else None
        return render_to_string("pubs/_command.html", {"bot": bot, "command": command}) if command else ""
