"""What a cloud does after it said yes: power on, first start, `python -m tests.support.lab.first_start LAB TOKEN`."""

import json
import sys
from pathlib import Path

from tests.support.lab.lab import Lab
from tests.support.lab.machine import Machine


def first_start(lab: Lab, machine: Machine) -> None:
    machine.boot()
    (machine.disk / "booted").touch()
    join(lab, machine)


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
    config = machine.disk / "own/etc/docker/daemon.json"
    config.parent.mkdir(exist_ok=True)
    config.write_text(json.dumps(engine))
    machine.start_engine()
    manager = lab.manager
    machine.engine.swarm.join(
        [f"{manager.address}:2377"],
        manager.engine.swarm.attrs["JoinTokens"]["Worker"],
        listen_addr=f"{machine.address}:2377",
        advertise_addr=machine.address,
    )


if __name__ == "__main__":
    asked_for = Lab(Path(sys.argv[1]))
    ordered = Machine(asked_for.folder / "machines" / sys.argv[2])
    try:
        first_start(asked_for, ordered)
    except Exception as error:
        if ordered.disk.exists():  # else it was destroyed meanwhile
            (ordered.disk / "fault").write_text(str(error)[-300:])
        raise
