"""What a cloud does after it said yes: `python -m tests.support.lab.first_start join|obey LAB TOKEN`."""

import json
import sys
from pathlib import Path
from typing import Any

from tests.support.lab.lab import Lab
from tests.support.lab.machine import Machine


def join(lab: Lab, machine: Machine) -> None:
    """Become a worker of the lab's swarm, with an engine that answers the lab's certificate alone."""
    tls = machine.disk / "tls"
    lab.certify(tls, "extendedKeyUsage=serverAuth", f"subjectAltName=IP:{machine.address}")
    engine = {
        "labels": [f"buttcloud.hub={machine.disk.name}"],
        "hosts": ["unix:///run/docker.sock", f"tcp://{machine.address}:2376"],
        "tlsverify": True,
        "tlscacert": f"{lab.tls}/ca.pem",
        "tlscert": f"{tls}/cert.pem",
        "tlskey": f"{tls}/key.pem",
    }
    write(machine, {"path": "/etc/docker/daemon.json", "content": json.dumps(engine)})
    power_on(machine)
    machine.start_engine()
    manager = lab.manager
    machine.engine.swarm.join(
        [f"{manager.address}:2377"],
        manager.engine.swarm.attrs["JoinTokens"]["Worker"],
        listen_addr=f"{machine.address}:2377",
        advertise_addr=machine.address,
    )


def obey(lab: Lab, machine: Machine) -> None:
    """Do what the machine's user data say, as cloud-init does."""
    config: dict[str, Any] = json.loads((machine.disk / "user-data").read_text().removeprefix("#cloud-config"))
    for file in config["write_files"]:
        if file["path"] == "/etc/docker/daemon.json":
            # Where the computer of the tests may not grant so many open files itself, no container of it starts.
            engine = json.loads(file["content"])
            del engine["default-ulimits"]
            file["content"] = json.dumps(engine)
        write(machine, file)
    power_on(machine)
    machine.start_engine()  # its package has just been installed
    for command in config["runcmd"]:
        machine.inside(*command)


def write(machine: Machine, file: dict[str, str]) -> None:
    """A file of the machine that is not on yet."""
    path = machine.disk / "own" / file["path"].lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(file["content"])
    path.chmod(int(file.get("permissions", "0644"), 8))


def power_on(machine: Machine) -> None:
    machine.boot()
    (machine.disk / "booted").touch()


if __name__ == "__main__":
    way_in, lab_folder, token = sys.argv[1:]
    opened = Lab(Path(lab_folder))
    ordered = Machine(opened.folder / "machines" / token)
    try:
        {"join": join, "obey": obey}[way_in](opened, ordered)
    except Exception as error:
        if ordered.disk.exists():  # else it was destroyed meanwhile
            (ordered.disk / "fault").write_text(str(error)[-300:])
        raise
