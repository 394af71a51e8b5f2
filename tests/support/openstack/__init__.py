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


@dataclass
class Start:
    """A lab on its way."""

    root: Path
    process: subprocess.Popen[str]


class NoLab(Exception):
    """It did not start; with the end of its logs."""


@pytest.fixture(scope="session")
def openstack_start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    if not (INSTALLED / "stamp").exists():
        pytest.skip("there is no OpenStack to test with (`make test` installs it as root on Debian)")
    begun = begin(tmp_path_factory.mktemp("openstack"))
    yield begun
    stop(begun)


@pytest.fixture(scope="session", autouse=True)
def openstack_starts_early(request: pytest.FixtureRequest) -> None:
    """It takes a minute, so it begins with the session where a test will need it, and others run meanwhile."""
    needs = any(item.get_closest_marker("openstack") for item in request.session.items)
    if needs and (INSTALLED / "stamp").exists():
        request.getfixturevalue("openstack_start")


@pytest.fixture(scope="session")
def openstack_lab(openstack_start: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    try:
        yield finish(openstack_start)
    except NoLab as error:
        # Five servers that start at once on a busy machine: one more chance.
        print(error)
        again = begin(tmp_path_factory.mktemp("openstack"))
        yield finish(again)
        stop(again)


def begin(root: Path) -> Start:
    process = subprocess.Popen(
        [INSTALLED / "bin" / "python", HERE / "lab.py", root],
        # It ends when this does, and so with whoever started it.
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C is for the tests, which then end it
    )
    return Start(root, process)


def finish(start: Start) -> Lab:
    """Waits until it is there."""
    impatient = threading.Timer(START_SECONDS, start.process.terminate)
    impatient.start()
    url: dict[str, str] = {}
    said: deque[str] = deque(maxlen=100)
    assert start.process.stdout
    for line in start.process.stdout:
        said.append(line)
        match line.split():
            case ["url", name, address]:
                url[name] = address
            case ["ready"]:
                impatient.cancel()
                return Lab(start.root / "clouds.yaml", url)
    impatient.cancel()
    stop(start)
    raise NoLab("".join(said))


def stop(start: Start) -> None:
    """Even while it still starts."""
    start.process.terminate()
    start.process.wait(120)
