"""The loop in tests on the lab: passes, with their jobs done by some workers at a time as in production."""

import json
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

from django.db import connections
from django.db.models import F
from docker.errors import APIError
from docker.models.volumes import Volume

from orchestrator import jobs, swarm  # noqa: F401  (jobs, so that they can be asked for)
from orchestrator.models import Hub, Placement
from orchestrator.planner import Action, Report, Wait
from orchestrator.reconcile import run_here, run_pass
from orchestrator.swarm import NotRunning, service_name
from pubs.models import Bot, Status
from tests.support.lab.lab import Lab
from tests.support.lab.machine import Machine
from tests.support.wait import until

WORKERS = 4


def one_pass() -> list[Action]:
    """All its jobs are done when it returns."""
    with ThreadPoolExecutor(WORKERS) as workers:

        def ask(*job: str | int) -> None:
            workers.submit(_work, *job)

        return run_pass(ask).actions


def _work(*job: str | int) -> None:
    try:
        run_here(*job)  # type: ignore[arg-type]
    finally:
        connections.close_all()


def passes_until[Value](what: str, look: Callable[[], Value], seconds: float = 180) -> Value:
    """Passes go on until `look` gives a true value."""

    def one_more() -> Value:
        one_pass()
        return look()

    return until(what, one_more, seconds, every=0.3)


def all_up(bots: Iterable[Bot]) -> bool:
    return not Bot.objects.filter(pk__in=[bot.pk for bot in bots]).exclude(status=Status.UP).exists()


def nothing_to_do() -> bool:
    """A pass that finds the world as it should be."""
    return all(isinstance(action, Wait | Report) for action in one_pass())


def fill() -> dict[str, int]:
    """Hub that is not gone → how many bots are placed on it."""
    hubs = Hub.objects.exclude(state=Hub.State.GONE)
    return {hub.name: Placement.objects.filter(hub=hub).count() for hub in hubs}


def machine_of(lab: Lab, hub: Hub) -> Machine:
    machine = lab.machine(hub.token)
    assert machine
    return machine


def home(bot: Bot) -> Placement:
    return Placement.objects.select_related("hub").get(bot=bot)


def time_passes(minutes: int) -> None:
    """For what the rows of hubs remember."""
    ago = timedelta(minutes=minutes)
    for column in ("emptied_at", "lost_at", "deadline", "told_at"):
        Hub.objects.exclude(**{column: None}).update(**{column: F(column) - ago})


def end_keep_time(lab: Lab, bots: Iterable[Bot]) -> None:
    """Their volumes and placements go. Archives come with a later issue, and then that does it."""
    for bot in bots:
        volume = machine_of(lab, home(bot).hub).engine.volumes.get(service_name(bot.pk))
        until("its volume is out of use", partial(_is_removed, volume))
        Placement.objects.filter(bot=bot).delete()


def _is_removed(volume: Volume) -> bool:
    try:
        volume.remove()
    except APIError:
        return False
    return True


def asked(bot: Bot, command: str) -> Any:
    """What the pub itself says, once it runs."""

    def ask() -> str:
        try:
            return swarm.connect().run(service_name(bot.pk), ["pubctl", command], timeout=30).stdout
        except NotRunning:
            return ""

    return json.loads(until("the pub is asked", ask))["result"]


def feed_length(bot: Bot) -> int:
    """Once anything is published."""
    return until("its feed has begun", lambda: int(asked(bot, "feed.head")["sequence"]))


def identity(lab: Lab, bot: Bot) -> str:
    """What the small pub says on its port."""
    with socket.create_connection((machine_of(lab, home(bot).hub).address, home(bot).port), timeout=10) as pub:
        return pub.recv(200).decode().strip()
