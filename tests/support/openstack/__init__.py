"""A real OpenStack on loopback whose hypervisor only plays its part: machines go through Nova's own API, quotas,
scheduler and conductor, but nothing boots.

`lab.py` and `services.py` run on an environment of their own (scripts/openstack.sh), `proxy.py` spoils answers.
"""

import subprocess
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.settings import SET_UP

HERE = Path(__file__).parent
INSTALLED = SET_UP / "openstack"
# A minute, on a quiet machine of two cores.
START_SECONDS = 600


@dataclass
class Lab:
    """What runs, and where. `clouds` is a file with the clouds "lab", ours, and "lab-admin"."""

    clouds: Path
    url: dict[str, str]


class NoLab(Exception):
    """It did not start; with the end of its logs."""


@pytest.fixture(scope="session")
def openstack_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if not (INSTALLED / "stamp").exists():
        pytest.skip("there is no OpenStack to test with (`make test` installs it as root on Debian)")
    try:
        lab, process = start(tmp_path_factory.mktemp("openstack"))
    except NoLab as error:
        # Five servers that start at once on a busy machine: one more chance.
        print(error)
        lab, process = start(tmp_path_factory.mktemp("openstack"))
    yield lab
    stop(process)


def start(root: Path) -> tuple[Lab, subprocess.Popen[str]]:
    process = subprocess.Popen(
        [INSTALLED / "bin" / "python", HERE / "lab.py", root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C is for the tests, which then end it
    )
    impatient = threading.Timer(START_SECONDS, process.terminate)
    impatient.start()
    url: dict[str, str] = {}
    said: deque[str] = deque(maxlen=100)
    assert process.stdout
    for line in process.stdout:
        said.append(line)
        match line.split():
            case ["url", name, address]:
                url[name] = address
            case ["ready"]:
                impatient.cancel()
                return Lab(root / "clouds.yaml", url), process
    impatient.cancel()
    stop(process)
    raise NoLab("".join(said))


def stop(process: subprocess.Popen[str]) -> None:
    """Its standard input is what keeps it alive, so that it ends with whoever started it."""
    assert process.stdin
    process.stdin.close()
    process.wait(120)
