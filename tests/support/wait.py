"""Waiting for what happens by itself."""

import asyncio
import time
from collections.abc import Callable


def until[Value](what: str, look: Callable[[], Value], seconds: float = 60, every: float = 0.1) -> Value:
    """The first true value of `look`; AssertionError with `what` when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := look()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(every)
    return value


async def until_async(look: Callable[[], object], seconds: float = 10, every: float = 0.02) -> None:
    """The same on an event loop, where others go on meanwhile."""
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(every)
