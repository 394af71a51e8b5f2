"""A machine's first start by its very user data, into a real swarm."""

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from django.db import connections

from orchestrator import authority, enrol, swarm
from orchestrator.models import Hub
from orchestrator.swarm import Node
from tests.support.lab.lab import Lab
from tests.support.lab.machine import Machine
from tests.support.site import RunningSite
from tests.support.wait import until


@pytest.fixture
def site(lab: Lab, settings: Any, tmp_path: Path) -> Iterator[RunningSite]:
    """As the lab's machines reach it."""
    settings.ENGINE_TLS = tmp_path
    authority.make()
    settings.ALLOWED_HOSTS = [lab.address]
    with RunningSite(host=lab.address) as site:
        settings.ENROL_URL = site.url
        yield site


@pytest.fixture
def worker() -> Iterator[None]:
    """Somebody who answers requests."""
    over = Event()

    def work() -> None:
        while not over.wait(0.5):
            enrol.answer_requests()
        connections.close_all()

    thread = Thread(target=work)
    thread.start()
    yield
    over.set()
    thread.join()


def made(lab: Lab, hub: Hub) -> Machine:
    """The hub's machine, switched on with what cloud-init writes on its disk."""
    user_data = enrol.user_data(hub)
    lab.order(str(hub.token), hub.name, user_data)
    machine = lab.machine(hub.token)
    assert machine
    for file in json.loads(user_data.partition("\n")[2])["write_files"]:
        written = machine.disk / "own" / file["path"].lstrip("/")
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(file["content"])
        written.chmod(int(file["permissions"], 8))
    machine.boot()
    return machine


def node_of(hub: Hub) -> Node | None:
    return next((node for node in swarm.connect().look().nodes if node.claims == hub.token), None)


@pytest.mark.django_db(transaction=True)
def test_a_fresh_machine_becomes_a_node_whose_engine_answers_us(lab: Lab, site: RunningSite, worker: None) -> None:
    hub = Hub.objects.create(name="hub-1", state=Hub.State.BOOTING)
    machine = made(lab, hub)
    try:
        machine.inside("hub-join")
    except RuntimeError as error:
        pytest.fail(f"{error}\n{machine.inside('cat', '/var/log/hub-join.log')}")
    node = until("its node is there", lambda: node_of(hub))
    assert (node.address, node.ready, node.hub) == (machine.address, True, None)
    assert swarm.connect().engines([node.id]) == {node.id: ""}
    # On the address that the cloud gave it, and nowhere else.
    assert machine.inside("ss", "-Hltn", "sport = :2376").split()[3] == f"{machine.address}:2376"

    old = swarm.connect().join_ticket().token
    enrol.close(hub)
    assert swarm.connect().join_ticket().token != old
    assert until("it is in still", lambda: node_of(hub)).ready
