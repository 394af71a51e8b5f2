"""The worker is killed with SIGKILL at each deed that it asks of the swarm or the cloud: the next one finishes it."""

import os
import signal
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections

from orchestrator import jobs, machines, swarm
from orchestrator.models import Hub, Placement
from orchestrator.reconcile import run_here, run_pass
from orchestrator.swarm import client
from pubs.models import Bot
from tests.support.lab.lab import Lab
from tests.support.lab.loop import all_up, home, identity, machine_of, nothing_to_do
from tests.support.make import Maker
from tests.support.wait import until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    # The other threads only look; a child that hangs all the same is ended by its alarm.
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]

# What changes the world, of both protocols. Looks change nothing, so a kill there is one between two of these.
DEEDS = {
    *("create", "destroy", "tune", "mark_node", "have_image", "remove_node"),
    *("make_identity", "put_service", "remove_service", "is_stopped", "copy_volume"),
}


class Mortal:
    """A driver or a swarm whose caller dies before and after each deed, once for each."""

    def __init__(self, real: Any, deaths: Path) -> None:
        self.real, self.deaths = real, deaths

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self.real, name)
        return partial(self.do, name, asked) if name in DEEDS else asked

    def do(self, name: str, deed: Callable[..., Any], *args: Any, **more: Any) -> Any:
        self.die_once(f"before {name}")
        done = deed(*args, **more)
        self.die_once(f"after {name}")
        return done

    def die_once(self, where: str) -> None:
        died = self.deaths.read_text().splitlines()
        if where not in died:
            self.deaths.write_text("\n".join([*died, where]))
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def worker_passes(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., set[str]]:
    """Workers one after the other, each in a process of its own, until `look` is true; gives where some were killed."""
    deaths = tmp_path / "deaths"
    deaths.touch()
    # What a killed worker had claimed is free again after that.
    monkeypatch.setattr(jobs, "CLAIM_SECONDS", 2)

    def work() -> None:
        """In the child: nothing is shared with the parent but the database's file."""
        connections.close_all()
        for kept in (swarm._connect, machines._connect, client.engine_at, client._over_tls):
            kept.cache_clear()
        mortal_swarm, mortal_cloud = (Mortal(of.connect(), deaths) for of in (swarm, machines))
        monkeypatch.setattr(swarm, "connect", lambda: mortal_swarm)
        monkeypatch.setattr(machines, "connect", lambda: mortal_cloud)
        for _ in range(10):
            run_pass(ask=run_here)

    def passes_until(what: str, look: Callable[[], bool]) -> set[str]:
        def one_life() -> bool:
            child = os.fork()
            if child == 0:
                signal.alarm(90)  # rather than hang for ever
                try:
                    work()
                    os._exit(0)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
            return look()

        until(what, one_life, 240)
        return set(deaths.read_text().splitlines())

    return passes_until


def killed_around(*deeds: str) -> set[str]:
    return {f"{when} {deed}" for deed in deeds for when in ("before", "after")}


def test_a_worker_that_is_killed_at_each_step_is_succeeded_by_one_that_finishes(
    lab: Lab, make: Maker, settings: Any, worker_passes: Callable[..., set[str]]
) -> None:
    settings.MAX_HUBS = settings.HUB_PLACES = 2
    bots = [make.bot(paid=True) for _ in range(2)]
    with lab.watched() as most:
        deaths = worker_passes("they are up", lambda: all_up(bots))
        assert deaths >= killed_around("create", "mark_node", "have_image", "make_identity", "put_service")
        assert len(lab.machines) == 1 + 1 and Hub.objects.count() == 1

        before = [(bot.ssb_id, bot.address) for bot in Bot.objects.order_by("created")]
        old = home(bots[0]).hub
        call_command("hub", "drain", old.name)
        deaths = worker_passes(
            "the old machine is gone", lambda: not Hub.objects.filter(pk=old.pk, state__in=["draining", "destroying"])
        )
        assert deaths >= killed_around("remove_service", "is_stopped", "copy_volume", "destroy", "remove_node")
        worker_passes("they are up again", lambda: all_up(bots) and not Placement.objects.exclude(moving_to=None))
        worker_passes("nothing is left to do", nothing_to_do)

    assert [(bot.ssb_id, bot.address) for bot in Bot.objects.order_by("created")] == before
    assert [identity(lab, bot) for bot in bots] == [ssb_id for ssb_id, _ in before]
    assert most == {str(bot.pk): 1 for bot in bots}
    assert len(lab.machines) == 1 + 1 and lab.machine(old.token) is None
    assert len(lab.manager.engine.nodes.list()) == 1 + 1
    new = machine_of(lab, home(bots[0]).hub)
    assert len(new.engine.volumes.list()) == 2 and len(new.engine.containers.list(all=True)) == 2
