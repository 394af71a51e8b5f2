"""Websockets that only carry: may this user see the pub, join its group, pass on."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.conf import settings
from django.contrib.auth import get_user
from django.template.loader import render_to_string

from pubs import history, live
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
    """A pub's page, live: stats each second, and its pieces drawn again when a row changed.

    What is to be said waits under its name for the browser to take what was said before: a newer one takes the place of
    an older, so that a slow browser misses some, gets the newest, and delays nobody.
    """

    tasks: tuple[asyncio.Task[None], ...] = ()
    closing: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        self.to_say: dict[str, Callable[[], Awaitable[dict[str, Any] | None]]] = {}
        self.something = asyncio.Event()
        self.seq = 0  # of the newest stats
        await self.channel_layer.group_add(live.group(self.bot_id), self.channel_name)
        # What happened between the page's first paint and now is not lost.
        await self.pub_changed({})
        self._soon("past", self._past)
        if sample := await sync_to_async(live.newest_stats)(self.bot_id):
            await self.stats({"sample": sample})
        self.tasks = (asyncio.create_task(self._watch()), asyncio.create_task(self._say()))
        for task in self.tasks:
            task.add_done_callback(self._ended)

    async def disconnect(self, code: int) -> None:
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await self.channel_layer.group_discard(live.group(self.bot_id), self.channel_name)

    async def dispatch(self, message: dict[str, Any]) -> None:
        """A sample touches no database: for all else channels first looks at its connections, in another thread."""
        if message["type"] == "stats":
            await self.stats(message)
        else:
            await super().dispatch(message)

    async def _watch(self) -> None:
        """Say again and again that somebody looks; the stream ends when nobody says so any more."""
        while True:
            # Layers forget their members after a day.
            await self.channel_layer.group_add(live.group(self.bot_id), self.channel_name)
            await self.channel_layer.group_send(live.BROADCASTERS, live.watch_message(self.bot_id))
            await asyncio.sleep(live.WATCH_SECONDS / 3)
            if await self._bot() is None:
                await self.close(NOT_FOUND)

    async def _say(self) -> None:
        while True:
            await self.something.wait()
            self.something.clear()
            while self.to_say:
                make = self.to_say.pop(next(iter(self.to_say)))
                if message := await make():
                    await self.send_json(message)

    def _soon(self, name: str, make: Callable[[], Awaitable[dict[str, Any] | None]]) -> None:
        self.to_say[name] = make
        self.something.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Without it nobody checks any more who looks, or tells: the browser connects anew."""
        if not task.cancelled() and (error := task.exception()):
            log.error("a page of pub %s is cut off: %s", self.bot_id, error)
            self.closing = asyncio.create_task(self.close(TRY_AGAIN))

    async def stats(self, event: dict[str, Any]) -> None:
        sample = event["sample"]
        # Never one that is older than what the page shows, as two broadcasters may send while a hub changes hands.
        if sample["seq"] <= self.seq:
            return
        self.seq = sample["seq"]

        async def say() -> dict[str, Any]:
            return {"kind": "stats", **sample}

        self._soon("stats", say)

    async def pub_changed(self, event: dict[str, Any]) -> None:
        async def say() -> dict[str, Any] | None:
            html = await self._render_pub()
            return {"kind": "pub", "html": html} if html else None

        self._soon("pub", say)

    async def command_changed(self, event: dict[str, Any]) -> None:
        command_id = event["id"]

        async def say() -> dict[str, Any] | None:
            html = await self._render_command(command_id)
            return {"kind": "command", "id": command_id, "html": html} if html else None

        self._soon(f"command {command_id}", say)

    @database_sync_to_async
    def _past(self) -> dict[str, Any] | None:
        """What its charts show of the minutes before, and of those that a page was away."""
        bot = self._look_up()
        rows = history.lately(bot) if bot else []
        return {"kind": "past", "rows": rows} if rows else None

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
