"""The lab itself, before any test builds on it: its cloud makes real machines, and leaves nothing of them."""

from collections import Counter
from pathlib import Path
from uuid import UUID, uuid4

import docker
import pytest

from orchestrator import machines
from orchestrator.machines import Power
from tests.support.lab.lab import Lab
from tests.support.lab.machine import CGROUPS, Machine, run
from tests.support.wait import until


def bought(lab: Lab, name: str = "hub-1") -> tuple[UUID, Machine]:
    """A machine that the cloud made, in the swarm."""
    token = uuid4()
    machines.connect().create(token, name, lambda: "")
    machine = lab.machine(token)
    assert machine
    until(f"{machine} is in the swarm", lambda: state(lab, machine) == "ready")
    return token, machine


def state(lab: Lab, machine: Machine) -> str:
    """As the manager sees it."""
    seen = {node.attrs["Status"].get("Addr"): node.attrs["Status"]["State"] for node in lab.manager.engine.nodes.list()}
    return str(seen.get(machine.address, "none"))


def start_a_pub(lab: Lab, machine: Machine) -> str:
    """The bot that its label names; pinned to the machine."""
    bot, engine = str(uuid4()), lab.manager.engine
    [node] = [node.id for node in engine.nodes.list() if node.attrs["Status"]["Addr"] == machine.address]
    image = engine.images.get("small-pub:lab")
    machine.engine.images.load(image.save())
    service = engine.services.create(
        image.id,
        args=["sleep", "1000"],
        container_labels={"buttcloud.bot": bot},
        constraints=[f"node.id=={node}"],
        restart_policy=docker.types.RestartPolicy("any"),
    )
    until("its container runs", lambda: [task["Status"]["State"] for task in service.tasks()] == ["running"])
    assert lab.copies()[bot] == 1
    return bot


def test_a_machine_is_made_once_and_is_known_by_its_token(lab: Lab) -> None:
    token, machine = bought(lab)
    machines.connect().create(token, "hub-1", lambda: pytest.fail("no second machine is made"))
    [seen] = machines.connect().list()
    assert (seen.token, seen.name, seen.power, seen.address) == (token, "hub-1", Power.RUNNING, machine.address)
    [node] = [node for node in lab.manager.engine.nodes.list() if node.attrs["Spec"]["Role"] == "worker"]
    assert node.attrs["Description"]["Engine"]["Labels"] == {"buttcloud.hub": str(token)}
    assert node.attrs["Description"]["Resources"]["MemoryBytes"] == machine.memory


def test_its_engine_answers_our_certificate_alone(lab: Lab) -> None:
    _, machine = bought(lab)
    url, ca = f"https://{machine.address}:2376/_ping", ("--cacert", lab.tls / "ca.pem")
    ours = ("--cert", lab.tls / "cert.pem", "--key", lab.tls / "key.pem")
    assert run("curl", "--silent", "--noproxy", "*", *ca, *ours, url) == "OK"
    assert run("curl", "--silent", "--noproxy", "*", *ca, url, check=False) == ""


def test_a_machine_that_is_destroyed_leaves_nothing(lab: Lab) -> None:
    token, machine = bought(lab)
    start_a_pub(lab, machine)
    assert [machines.connect().destroy(token), machines.connect().destroy(token)] == [False, True]
    assert machines.connect().list() == []
    assert not machine.disk.exists() and machine.network not in run("ip", "netns")
    assert not any(top.exists() for top in [CGROUPS / machine.cgroup, *CGROUPS.glob(f"*/{machine.cgroup}")])
    assert str(token) not in run("ps", "-eo", "args")
    until("the manager notices", lambda: state(lab, machine) == "down")


def test_one_that_is_destroyed_while_it_is_built_is_gone_too(lab: Lab) -> None:
    token = uuid4()
    machines.connect().create(token, "hub-1", lambda: "")
    until("it is gone", lambda: machines.connect().destroy(token))
    assert machines.connect().list() == [] and str(token) not in run("ps", "-eo", "args")


def test_a_watch_that_breaks_off_or_sleeps_fails_what_it_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off() -> Counter[str]:
        raise FileNotFoundError("a folder that was there")

    lab = Lab(tmp_path)
    monkeypatch.setattr(lab, "copies", break_off)
    with pytest.raises(FileNotFoundError), lab.watched():
        pass

    monkeypatch.setattr(lab, "copies", Counter)
    with lab.watched():
        pass
    monkeypatch.setattr("tests.support.lab.lab.monotonic", iter([0, 600]).__next__)
    with pytest.raises(AssertionError, match="in 600 s"), lab.watched():
        pass
