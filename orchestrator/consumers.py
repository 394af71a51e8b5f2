"""Websockets that only carry: may this user see the pub, join its group, pass on."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib import import_module
from itertools import count
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

Say = Callable[[], Awaitable[dict[str, Any] | None]]  # makes a message at the moment that the browser takes it


class OwnPubConsumer(AsyncJsonWebsocketConsumer):
    """Something of a pub, live, for its owner: for all others there is no such pub.

    What is to be said waits under its name for the browser to take what was said before: a newer one takes the place of
    an older, so that a slow browser misses some, gets the newest, and delays nobody. Nothing is awaited of a browser
    where messages are taken from the layer, for in production those that are not taken have no limit.
    """

    bot_id: UUID
    tasks: tuple[asyncio.Task[None], ...] = ()
    closing: asyncio.Task[None] | None = None

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
        self.to_say: dict[str, Say] = {}
        self.something = asyncio.Event()
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.begin()
        self.tasks = (asyncio.create_task(self._watch()), asyncio.create_task(self._say()))
        for task in self.tasks:
            task.add_done_callback(self._ended)

    async def disconnect(self, code: int) -> None:
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await self.channel_layer.group_discard(self.group, self.channel_name)

    @property
    def group(self) -> str:
        """Where what it passes on is sent."""
        raise NotImplementedError

    def look(self) -> dict[str, str]:
        """What the broadcasters are told: that somebody looks, and at what."""
        raise NotImplementedError

    async def begin(self) -> None:
        """The pub is the visitor's, and nothing that is sent from now on is missed: what is said first."""

    async def _watch(self) -> None:
        """Say again and again that somebody looks; the stream ends when nobody says so any more."""
        for nth in count(1):
            # Layers forget their members after a day.
            await self.channel_layer.group_add(self.group, self.channel_name)
            await self.channel_layer.group_send(live.BROADCASTERS, self.look())
            await asyncio.sleep(live.WATCH_SECONDS / 3)
            # More seldom, for it asks the database: a thousand open pages would keep that busy all the time.
            if nth % 3 == 0 and await self._bot() is None:
                await self.close(NOT_FOUND)

    def _soon(self, name: str, say: Say) -> None:
        self.to_say[name] = say
        self.something.set()

    async def _say(self) -> None:
        while True:
            await self.something.wait()
            self.something.clear()
            while self.to_say:
                say = self.to_say.pop(next(iter(self.to_say)))
                if message := await say():
                    await self.send_json(message)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Without it nobody checks any more who looks, or tells: the browser connects anew."""
        if not task.cancelled() and (error := task.exception()):
            log.error("a page of pub %s is cut off: %s", self.bot_id, error)
            self.closing = asyncio.create_task(self.close(TRY_AGAIN))

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

    seq = 0  # of the newest stats

    @property
    def group(self) -> str:
        return live.group(self.bot_id)

    def look(self) -> dict[str, str]:
        return live.watch_message(self.bot_id)

    async def begin(self) -> None:
        # What happened between the page's first paint and now is not lost.
        await self.pub_changed({})
        self._soon("past", self._past)
        if sample := await sync_to_async(live.newest_stats)(self.bot_id):
            await self.stats({"sample": sample})

    async def dispatch(self, message: dict[str, Any]) -> None:
        """A sample touches no database: for all else channels first looks at its connections, in another thread."""
        if message["type"] == "stats":
            await self.stats(message)
        else:
            await super().dispatch(message)

    async def stats(self, event: dict[str, Any]) -> None:
        sample = event["sample"]
        # Never one that is older than what the page shows, as two broadcasters may send while a hub changes hands.
        if sample["seq"] <= self.seq:
            return
        self.seq = sample["seq"]
        self._soon("stats", ready({"kind": "stats", **sample}))

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


def ready(message: dict[str, Any]) -> Say:
    async def say() -> dict[str, Any]:
        return message

    return say
