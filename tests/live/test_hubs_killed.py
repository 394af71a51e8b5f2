"""The worker is killed with SIGKILL around each call that changes an engine or the cloud: the next one finishes it."""

import os
import re
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections
from urllib3 import BaseHTTPResponse

from orchestrator import jobs, machines, swarm
from orchestrator.models import Enrolment, Hub, Placement, Turn
from orchestrator.reconcile import run_here, run_pass
from orchestrator.swarm import client
from pubs.models import Bot
from tests.support.lab.lab import Lab
from tests.support.lab.loop import all_up, home, identity, machine_of, nothing_to_do, time_passes
from tests.support.make import Maker
from tests.support.wait import until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    # The other threads only look; a child that hangs all the same is ended by its alarm.
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]

# What differs from deed to deed of one kind, and between runs.
NAMES = re.compile(r"sha256:\w+|test\d+-pub-[-0-9a-f]{36}(-\w+)?|\b\w{25,}\b")


class Deaths:
    """The moments at which some worker was killed: each kills one, until they are forgotten."""

    def __init__(self, kept: Path) -> None:
        self.kept = kept
        self.forget()

    def forget(self) -> None:
        self.kept.write_text("")

    def seen(self) -> set[str]:
        return set(self.kept.read_text().splitlines())

    def die_once(self, moment: str) -> None:
        if moment not in self.seen():
            with self.kept.open("a") as kept:
                kept.write(f"{moment}\n")
            os.kill(os.getpid(), signal.SIGKILL)


class MortalCloud:
    """A driver whose caller dies before and after each deed, once for each. Looks change nothing."""

    def __init__(self, real: Any, deaths: Deaths) -> None:
        self.real, self.deaths = real, deaths

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self.real, name)
        return partial(self.do, name, asked) if name in ("create", "destroy") else asked

    def do(self, name: str, deed: Callable[..., Any], *args: Any, **more: Any) -> Any:
        self.deaths.die_once(f"before {name}")
        done = deed(*args, **more)
        self.deaths.die_once(f"after {name}")
        return done


class MortalClient(client.Client):
    """One whose caller dies around everything that changes an engine, and amid what it sends in pieces."""

    deaths: Deaths

    @contextmanager
    def stream(self, method: str, path: str, body: Any = None, /, **more: Any) -> Iterator[BaseHTTPResponse]:
        deed = f"{method} {NAMES.sub('*', path)}"
        if isinstance(body, Iterator):
            body = self.broken_off(deed, body)
        if method != "GET":
            self.deaths.die_once(f"before {deed}")
        with super().stream(method, path, body, **more) as answer:
            yield answer
        if method != "GET":
            self.deaths.die_once(f"after {deed}")

    def broken_off(self, deed: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            yield piece
            self.deaths.die_once(f"amid {deed}")


@pytest.fixture
def deaths(tmp_path: Path) -> Deaths:
    return Deaths(tmp_path / "deaths")


@pytest.fixture
def worker_passes(lab: Lab, deaths: Deaths, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Workers one after the other, each in a process of its own, until `look` is true."""

    def work() -> None:
        """In the child."""
        for kept in (swarm._connect, machines._connect, client.engine_at, client._over_tls):
            kept.cache_clear()
        cloud = MortalCloud(machines.connect(), deaths)
        monkeypatch.setattr(machines, "connect", lambda: cloud)
        monkeypatch.setattr(MortalClient, "deaths", deaths, raising=False)
        monkeypatch.setattr(client, "Client", MortalClient)
        monkeypatch.setattr(jobs, "run_pass", partial(run_pass, ask=run_here))
        monkeypatch.setattr(jobs, "_soon", lambda: None)
        for _ in range(10):
            jobs.reconcile()

    def passes_until(what: str, look: Callable[[], bool]) -> None:
        def one_life() -> bool:
            # What a killed worker had claimed is free again after a while: so long has passed.
            Placement.objects.update(claimed_until=None)
            Turn.objects.update(until=None)
            connections.close_all()  # none is shared with the child
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

    return passes_until


def killed_around(*deeds: str) -> set[str]:
    return {f"{when} {deed}" for deed in deeds for when in ("before", "after")}


def test_a_worker_that_is_killed_at_each_step_is_succeeded_by_one_that_finishes(
    lab: Lab, make: Maker, settings: Any, deaths: Deaths, worker_passes: Callable[..., None]
) -> None:
    settings.MAX_HUBS = settings.HUB_PLACES = 2
    bots = [make.bot(paid=True) for _ in range(2)]
    with lab.watched() as most:
        worker_passes("a machine is asked for", Enrolment.objects.exists)
        Enrolment.objects.update(answer={"join_token": "as if it had been handed out"})
        worker_passes("they are up", lambda: all_up(bots))
        assert deaths.seen() >= killed_around("create", "POST /nodes/*/update", "POST /swarm/update")
        assert deaths.seen() >= killed_around("POST /volumes/create", "POST /containers/*/start")
        assert deaths.seen() >= killed_around("POST /images/load", "POST /services/create") | {"amid POST /images/load"}
        assert len(lab.machines) == 1 + 1 and Hub.objects.count() == 1

        before = [(bot.ssb_id, bot.address) for bot in Bot.objects.order_by("created")]
        old = home(bots[0]).hub
        deaths.forget()
        call_command("hub", "drain", old.name)
        worker_passes("they live elsewhere", lambda: not Placement.objects.filter(hub=old) and all_up(bots))
        archive = "PUT /containers/*/archive"
        assert deaths.seen() >= killed_around("DELETE /services/*", "DELETE /volumes/*", "POST /volumes/create")
        assert deaths.seen() >= killed_around(archive, "POST /services/create") | {f"amid {archive}"}
        time_passes(31)
        worker_passes("the old machine is gone", lambda: Hub.objects.get(pk=old.pk).state == Hub.State.GONE)
        assert deaths.seen() >= killed_around("destroy", "DELETE /nodes/*")
        worker_passes("nothing is left to do", lambda: all_up(bots) and nothing_to_do())

    assert [(bot.ssb_id, bot.address) for bot in Bot.objects.order_by("created")] == before
    assert [identity(lab, bot) for bot in bots] == [ssb_id for ssb_id, _ in before]
    assert most == {str(bot.pk): 1 for bot in bots}
    assert len(lab.machines) == 1 + 1 and lab.machine(old.token) is None
    assert len(lab.manager.engine.nodes.list()) == 1 + 1
    new = machine_of(lab, home(bots[0]).hub)
    assert len(new.engine.volumes.list()) == 2 and len(new.engine.containers.list(all=True)) == 2
