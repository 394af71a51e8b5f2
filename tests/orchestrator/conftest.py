"""Clouds to test the machine drivers on: the twin in memory and a real OpenStack, each with its mishaps."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator.machines import Unavailable, memory
from orchestrator.swarm.memory import MemorySwarm
from tests.support.openstack import Lab
from tests.support.openstack.proxy import Proxy, gateway_error, lose_answer, spoiling
from tests.support.wait import until


class MemoryCloud:
    def __init__(self) -> None:
        self.nodes = MemorySwarm()
        self.machines = memory.MemoryMachines(self.nodes)

    def _turn(self, kind: type[memory.MemoryMachines]) -> None:
        made = self.machines.made
        self.machines = kind(self.nodes)
        self.machines.made = made

    def use_up_the_quota(self) -> None:
        self._turn(memory.Refuses)

    def fill_all_hosts(self) -> None:
        self._turn(memory.FailsToBuild)

    def lose_the_answer(self) -> None:
        self._turn(memory.AnswersTwice)

    def fall_silent(self) -> None:
        self._turn(memory.Silent)

    def lose(self, token: UUID) -> None:
        self.machines.lose(token)

    def paid_for(self, token: UUID) -> int:
        return len(self.machines.of(token))

    def user_data(self, token: UUID) -> str:
        return self.machines.of(token)[0].user_data


@dataclass
class OpenStackCloud:
    """With a proxy between the driver and Nova. What is behind the driver's back is asked as administrator."""

    machines: Any
    nova: Proxy
    admin: Any
    settings: Any

    def use_up_the_quota(self) -> None:
        self.settings.OPENSTACK_FLAVOR = "over-quota"

    def fill_all_hosts(self) -> None:
        self.settings.OPENSTACK_FLAVOR = "no-host"

    def lose_the_answer(self) -> None:
        self.nova.spoil("POST", "/servers", lose_answer)

    def fall_silent(self) -> None:
        self.nova.spoil("GET", "/servers/detail", gateway_error, times=100)

    def lose(self, token: UUID) -> None:
        """Somebody deletes the machine in the cloud's console."""
        for server in self.servers(token):
            self.admin.compute.delete_server(server)

    def servers(self, token: UUID) -> list[Any]:
        everything = self.admin.compute.servers(all_projects=True)
        return [server for server in everything if server.metadata.get("buttcloud.hub") == str(token)]

    def paid_for(self, token: UUID) -> int:
        return len(self.servers(token))

    def user_data(self, token: UUID) -> str:
        server = self.admin.compute.get_server(self.servers(token)[0])
        return base64.b64decode(server.user_data).decode()


OPENSTACK = {
    "OPENSTACK_CLOUD": "lab",
    "OPENSTACK_FLAVOR": "hub",
    "OPENSTACK_IMAGE": "debian-13",
    "OPENSTACK_NETWORK": "hubs",
    "OPENSTACK_SECURITY_GROUP": "hubs",
    "OPENSTACK_FLOATING_NETWORK": "",
}


@pytest.fixture
def openstack_cloud(
    openstack_lab: Lab, settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[OpenStackCloud]:
    import openstack

    from orchestrator.machines.openstack import OpenStackMachines

    settings.DEPLOYMENT = f"test-{uuid4().hex[:8]}"
    for name, value in OPENSTACK.items():
        setattr(settings, name, value)
    with spoiling(openstack_lab.url["nova"]) as nova:
        clouds = json.loads(openstack_lab.clouds.read_text())
        # What an operator's file may ask for, too.
        retries = {"compute_connect_retries": 2, "compute_status_code_retries": 2}
        clouds["clouds"]["lab"] |= {"compute_endpoint_override": f"{nova.url}/v2.1", **retries}
        (tmp_path / "clouds.yaml").write_text(json.dumps(clouds))
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
        machines = OpenStackMachines()
        yield OpenStackCloud(machines, nova, openstack.connect(cloud="lab-admin"), settings)
        nova.mishaps.clear()
        for machine in machines.list():
            until("the test's machine is gone", lambda token=machine.token: is_gone(machines, token), 180, 0.5)


def is_gone(machines: Any, token: UUID) -> bool:
    """Nova answers 500 to the end of a machine that is just being built, and is then asked again, as the loop does."""
    try:
        return machines.destroy(token)
    except Unavailable:
        return False


Cloud = MemoryCloud | OpenStackCloud


@pytest.fixture(params=["memory", pytest.param("openstack", marks=pytest.mark.openstack)])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    return MemoryCloud() if request.param == "memory" else request.getfixturevalue("openstack_cloud")
