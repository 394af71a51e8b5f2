"""The real site on a loopback port, in a thread of the test process: same database file, same channel layer."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from queue import Empty
from types import TracebackType
from typing import Self

import uvicorn
from channels.layers import get_channel_layer
from django.db import connections
from django.test import override_settings

from buttcloud.celery import app as celery_app


class RunningSite:
    """The ASGI application from `with` until its end; `url` is its address, which settings name meanwhile, `loop` the
    event loop that it runs on.

    Tests that use it need `transactional_db`: what a test has not committed the site can't see.
    """

    def __init__(self, port: int = 0, host: str = "127.0.0.1") -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((host, port))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://{host}:{self.port}"
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="site", daemon=True)
        self._settings = override_settings(
            SITE_URL=self.url, STRIPE_WEBHOOK_BASE=self.url, CSRF_TRUSTED_ORIGINS=[self.url]
        )

    async def _serve(self) -> None:
        from buttcloud.asgi import application

        self.loop = asyncio.get_running_loop()
        if (layer := get_channel_layer()) and hasattr(layer, "bind"):
            layer.bind()
        config = uvicorn.Config(
            application, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=2
        )
        self._server = uvicorn.Server(config)
        self._ready.set()
        # The signals belong to the test run.
        with contextlib.ExitStack() as stack:
            self._server.capture_signals = lambda: stack  # type: ignore[method-assign,assignment,return-value]
            await self._server.serve(sockets=[self._socket])

    def start(self) -> Self:
        self._settings.enable()
        self._thread.start()
        # The socket listens from here on: a request that comes before the server is ready waits in its queue.
        self._socket.listen(128)
        assert self._ready.wait(10), "the site did not start"
        return self

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=10)
        self._socket.close()
        self._settings.disable()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@contextlib.contextmanager
def running_worker(queue: str) -> Iterator[None]:
    """Runs the jobs of one queue as they come, in a thread. Celery's own worker takes two seconds to stop.

    Jobs that earlier tests left in the queue are dropped first.
    """
    celery_app.loader.import_default_modules()
    over = threading.Event()

    def work() -> None:
        with celery_app.connection_for_read() as connection, connection.SimpleQueue(queue) as jobs:
            while not over.is_set():
                with contextlib.suppress(Empty):
                    message = jobs.get(timeout=0.05)
                    message.ack()
                    args, kwargs, _ = message.payload
                    celery_app.tasks[message.headers["task"]].apply(args, kwargs)
        connections.close_all()

    with celery_app.connection_for_read() as connection, connection.SimpleQueue(queue) as jobs:
        jobs.clear()
    thread = threading.Thread(target=work, name="worker", daemon=True)
    thread.start()
    yield
    over.set()
    # What it still wrote after the test would be found by the next one.
    thread.join(timeout=60)
    assert not thread.is_alive(), f"a job of the {queue} queue does not end"
