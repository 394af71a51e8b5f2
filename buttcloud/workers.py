"""Celery's workers and beat as threads of this process."""

import threading
import time
from typing import Any

from celery import Celery
from celery.beat import EmbeddedService
from celery.worker import WorkController, state

# Threads by queue. A job of the swarm queue waits for Docker most of the time.
QUEUES = {"swarm": 6, "mailer": 2, "hooks": 1, "default": 2}


class EmbeddedWorkers:
    """One worker a queue, so that a slow swarm never keeps a sign-in code waiting."""

    def __init__(self, app: Celery, queues: dict[str, int] = QUEUES, beat: bool = True) -> None:
        self.app, self.queues, self.with_beat = app, queues, beat
        self.threads: list[threading.Thread] = []
        self.beat: Any = None

    def start(self) -> None:
        """Not from an event loop: building a worker runs Django's checks, which read the database."""
        state.should_stop = state.should_terminate = None
        self.app.set_default()
        self.app.loader.import_default_modules()  # each app's jobs.py
        for queue, threads in self.queues.items():
            self.threads.append(self._start_worker(queue, threads))
        if self.with_beat:
            self.beat = EmbeddedService(self.app, thread=True, scheduler_cls=self.app.conf.beat_scheduler)
            self.beat.start()

    def _start_worker(self, queue: str, threads: int) -> threading.Thread:
        # An app of its own: which queues are consumed is kept in the app, and the last worker would decide for all.
        # Shared tasks are known to every app, and the memory broker is one for the process.
        app = Celery(queue, set_as_current=False)
        app.config_from_object("django.conf:settings", namespace="CELERY")
        app.finalize()
        worker: WorkController = app.WorkController(
            hostname=f"{queue}@buttcloud",
            queues=[queue],
            pool_cls="threads",
            concurrency=threads,
            loglevel="WARNING",
            without_heartbeat=True,
            without_mingle=True,
            without_gossip=True,
            quiet=True,
        )
        thread = threading.Thread(target=worker.start, name=f"worker-{queue}", daemon=True)
        thread.start()
        return thread

    def stop(self, seconds: float = 20) -> None:
        """Running jobs end first; what is still queued is derived again from the database at the next start."""
        if self.beat:
            self.beat.stop()
        state.should_stop = 0  # type: ignore[assignment]  # an exit status, and the sign for a warm stop
        deadline = time.monotonic() + seconds
        for thread in self._all():
            thread.join(max(0, deadline - time.monotonic()))

    def dead(self) -> str:
        """The name of a thread that ended by itself, or ""."""
        return next((thread.name for thread in self._all() if not thread.is_alive()), "")

    def _all(self) -> list[Any]:
        return [*self.threads, *([self.beat] if self.beat else [])]
