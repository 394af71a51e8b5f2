"""Real Docker, real Swarm, the real pub server. Where they can't run, the tests say why and are skipped."""

from collections.abc import Iterator
from typing import Any

import docker
import pytest
from django.conf import settings

from orchestrator import machines, swarm
from orchestrator.swarm.engine import EngineSwarm
from tests.support.lab import lab as labs
from tests.support.lab.image import bring, make_small_pub
from tests.support.lab.lab import Lab


def why_not() -> str:
    """Why no live test can run on this machine, or ""."""
    try:
        here = EngineSwarm().look()
    except swarm.SwarmError as error:
        return f"{error} (`make test` sets an engine up as root on Debian)"
    try:
        docker.from_env().images.get(settings.PUB_IMAGE)
    except docker.errors.DockerException:
        return "there is no pub image (`make test` builds it)"
    return "" if here.nodes else "the swarm has no node"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if "tests/live" in str(item.path)]
    reason = why_not() if ours else ""
    for item in ours:
        item.add_marker("live")
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """The engine itself, to look behind our back. What the tests made is removed at the end."""
    client = docker.from_env()
    yield client
    remove_all(client, settings.DEPLOYMENT)


def remove_all(client: docker.DockerClient, deployment: str) -> None:
    """Everything that bears the deployment's label."""
    ours = {"label": f"buttcloud.deployment={deployment}"}
    for service in client.services.list(filters=ours):
        service.remove()
    for container in client.containers.list(all=True, filters=ours, ignore_removed=True):
        try:
            container.remove(force=True)
        except docker.errors.APIError:
            container.wait()
    for volume in client.volumes.list(filters=ours):
        volume.remove(force=True)
    for node in client.nodes.list():
        spec = node.attrs["Spec"]
        if spec.get("Labels", {}).pop(f"buttcloud.hub.{deployment}", None):
            node.update(spec)


@pytest.fixture
def real_swarm(engine: docker.DockerClient, settings: Any) -> EngineSwarm:
    """The code under test talks to real Docker."""
    settings.SWARM = "orchestrator.swarm.engine.EngineSwarm"
    connected = swarm.connect()
    assert isinstance(connected, EngineSwarm)
    return connected


@pytest.fixture(scope="session")
def lab_room() -> Iterator[Lab]:
    """One lab for all tests: its switch and its manager."""
    if reason := labs.why_not():
        pytest.skip(reason)
    lab = labs.open_lab()
    try:
        lab.build()
        yield lab
    finally:
        lab.close()


@pytest.fixture
def lab(lab_room: Lab, small_pub: str, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """The code under test talks to the lab's swarm, buys its machines there, and fills them with small pubs."""
    monkeypatch.setenv("DOCKER_HOST", lab_room.manager.url)
    monkeypatch.setenv("LAB", str(lab_room.folder))
    settings.SWARM = "orchestrator.swarm.engine.EngineSwarm"
    settings.MACHINES = "tests.support.lab.driver.LabMachines"
    settings.ENGINE_TLS = lab_room.tls
    settings.NODE_HEARTBEAT_SECONDS = labs.HEARTBEAT_SECONDS
    settings.PUB_IMAGE = small_pub
    swarm._connect.cache_clear()
    machines._connect.cache_clear()
    yield lab_room
    lab_room.empty()


@pytest.fixture(scope="session")
def small_pub(lab_room: Lab) -> str:
    return make_small_pub(lab_room.manager)


@pytest.fixture(scope="session")
def real_pub(lab_room: Lab) -> str:
    """The real pub's image, on the lab's manager as well."""
    bring(settings.PUB_IMAGE, lab_room.manager)
    return settings.PUB_IMAGE
