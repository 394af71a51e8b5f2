"""Real Docker, real Swarm, the real pub server. Where they can't run, the tests say why and are skipped."""

from collections.abc import Iterator
from typing import Any

import docker
import pytest
from django.conf import settings

from orchestrator import swarm
from orchestrator.swarm.engine import EngineSwarm


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
