"""The channel layer of a single process, safe to send through from worker threads."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from channels.layers import InMemoryChannelLayer


class ThreadSafeInMemoryChannelLayer(InMemoryChannelLayer):
    """Runs everything on one loop, the server's, whoever calls.

    The queues of channels' own memory layer belong to a loop: a message put in from another thread does not wake the
    consumer that waits for it. Before `bind` it behaves like its parent.
    """

    home: asyncio.AbstractEventLoop | None = None
    cleaned = 0.0

    def _clean_expired(self) -> None:
        """Once a second is enough: it looks at all members of all groups, and the parent does so for each message."""
        if time.monotonic() > self.cleaned + 1:
            self.cleaned = time.monotonic()
            super()._clean_expired()

    def bind(self) -> None:
        """Make the running loop the home of all queues."""
        self.home = asyncio.get_running_loop()

    async def _at_home(self, call: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        home = self.home
        if home is None or home is asyncio.get_running_loop() or not home.is_running():
            return await call(*args)

        async def run() -> Any:
            return await call(*args)

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(run(), home))

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        await self._at_home(super().send, channel, message)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        await self._at_home(self._to_all, group, message)

    async def _to_all(self, group: str, message: dict[str, Any]) -> None:
        """The parent makes a task and a copy for each member; nobody changes a message, and none need be waited for."""
        self.require_valid_group_name(group)
        self._clean_expired()
        expires = time.time() + self.expiry
        for channel in self.groups.get(group, ()):
            if channel not in self.channels:
                self.channels[channel] = asyncio.Queue(self.get_capacity(channel))
            with suppress(asyncio.QueueFull):
                self.channels[channel].put_nowait((expires, message))

    async def group_add(self, group: str, channel: str) -> None:
        await self._at_home(super().group_add, group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        await self._at_home(super().group_discard, group, channel)
