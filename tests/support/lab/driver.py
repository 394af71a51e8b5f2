"""The lab as a cloud: the orchestrator's driver asks for machines, and a process of the cloud's own builds them."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from django.conf import settings

from orchestrator.machines import Machine, Power
from tests.support.lab import machine as real
from tests.support.lab.lab import Lab


class LabMachines:
    """settings.MACHINES = "tests.support.lab.driver.LabMachines", with the lab's folder in the environment's LAB.

    Its machines join the swarm without asking the site, which most tests do not run.
    """

    way_in = "join"

    def __init__(self) -> None:
        self.lab = Lab(Path(os.environ["LAB"]))

    def list(self) -> list[Machine]:
        return [_seen(machine) for machine in self.lab.machines if machine.disk.name != "manager"]

    def create(self, token: UUID, name: str, user_data: Callable[[], str]) -> None:
        if self.lab.machine(token) is None and self.lab.order(str(token), name, user_data()):
            # It lives on when the one who asked for it is killed, as a cloud does.
            started = subprocess.Popen(
                [sys.executable, "-m", "tests.support.lab.first_start", self.way_in, self.lab.folder, str(token)],
                cwd=settings.BASE_DIR,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            (self.lab.folder / "machines" / str(token) / "first_start.pid").write_text(str(started.pid))

    def is_gone(self, token: UUID) -> bool:
        return self.lab.machine(token) is None

    def destroy(self, token: UUID) -> bool:
        """The first call has it done, the second one sees that it is."""
        machine = self.lab.machine(token)
        if machine:
            machine.destroy()
        return machine is None


class EnrollingMachines(LabMachines):
    """They do at their first start what they are told, as cloud-init does."""

    way_in = "obey"


def _seen(machine: real.Machine) -> Machine:
    fault = machine.disk / "fault"
    building = not (machine.disk / "booted").exists()
    if fault.exists():
        power = Power.FAILED
    else:
        power = Power.BUILDING if building else Power.RUNNING if machine.pid else Power.STOPPED
    return Machine(
        token=UUID(machine.disk.name),
        name=machine.name,
        power=power,
        address=machine.address,
        public_address=machine.address,
        created=datetime.fromtimestamp((machine.disk / "machine.json").stat().st_mtime, UTC),
        fault=fault.read_text() if fault.exists() else "",
    )
