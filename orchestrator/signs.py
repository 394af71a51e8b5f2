"""Signs of life of what works beside the web: how long a job waits in each queue, and what the last pass did.

They stand in the cache, where every process sees them. What was never seen, or was lost with the cache, is None.
"""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from celery.signals import before_task_publish
from django.conf import settings
from django.core.cache import cache
from django.utils import timezone

PULSE = "orchestrator.pulse"
PASS_KEY, FAILED_PASS_KEY = "orchestrator.last_pass", "orchestrator.failed_pass"


# --- queues ----------------------------------------------------------------------------------------------------------
@before_task_publish.connect(sender=PULSE)
def say_when_it_was_sent(body: Any, **_: Any) -> None:
    """The clock sends the same arguments each time: now is added as the pulse leaves."""
    body[1]["sent"] = time.time()


def note_pulse(queue: str, sent: float) -> None:
    """A worker of the queue has come to a pulse. Of two that it has at once the newer counts."""
    last = cache.get(_pulse_key(queue))
    if last is None or last["sent"] <= sent:
        cache.set(_pulse_key(queue), {"sent": sent, "delay": max(0.0, time.time() - sent)}, None)


def queue_ages() -> dict[str, float | None]:
    """Queue → how many seconds its oldest job waits: what the last pulse took, or since when the next one is due."""
    pulses = cache.get_many([_pulse_key(queue) for queue in settings.QUEUES])
    now = time.time()
    return {queue: _age(pulses.get(_pulse_key(queue)), now) for queue in settings.QUEUES}


def _age(pulse: dict[str, float] | None, now: float) -> float | None:
    return None if pulse is None else max(pulse["delay"], now - pulse["sent"] - settings.PULSE_SECONDS)


def _pulse_key(queue: str) -> str:
    return f"orchestrator.pulse.{queue}"


# --- passes ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class LastPass:
    at: datetime
    seconds: float
    bots: int
    actions: int


@dataclass(frozen=True)
class FailedPass:
    at: datetime
    error: str


def note_pass(seconds: float, bots: int, actions: int) -> None:
    cache.set(PASS_KEY, LastPass(timezone.now(), seconds, bots, actions), None)


def note_failed_pass(error: str) -> None:
    cache.set(FAILED_PASS_KEY, FailedPass(timezone.now(), error), None)


def last_pass() -> tuple[LastPass | None, FailedPass | None]:
    """The last one that went well; and the last one that did not, if none went well since."""
    found = cache.get_many([PASS_KEY, FAILED_PASS_KEY])
    done, failed = found.get(PASS_KEY), found.get(FAILED_PASS_KEY)
    return done, None if done and failed and failed.at < done.at else failed
