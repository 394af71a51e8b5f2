"""What every test stands on: an own deployment, own ports and own network key, so that nothing of a running
`make run` is ever touched.
"""

import base64
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Before Django reads its settings.
VAR = Path(os.environ.get("TEST_VAR") or tempfile.mkdtemp(prefix="buttcloud-test-"))
REAL_IMAGE = Path(__file__).parent.parent / "var" / "pub_image"
os.environ["BUTTCLOUD_VAR"] = str(VAR)
os.environ["DEPLOYMENT"] = f"test{os.getpid()}"
os.environ["PUB_PORTS"] = "29000-29399"
os.environ["PUB_SHS"] = base64.b64encode(hashlib.sha256(VAR.name.encode()).digest()).decode()
os.environ["PUB_HOST"] = "127.0.0.1"
os.environ["SWARM"] = "orchestrator.swarm.memory.MemorySwarm"
if REAL_IMAGE.exists():
    os.environ.setdefault("PUB_IMAGE", REAL_IMAGE.read_text().strip())
os.environ.setdefault("PUB_IMAGE", "sha256:none")
os.environ["LOG_LEVEL"] = "WARNING"
# Playwright keeps a loop running in the test's thread, and Django would refuse to read its database there.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"

import pytest  # noqa: E402
from django.core.cache import cache  # noqa: E402

from orchestrator import machines, swarm  # noqa: E402
from orchestrator.swarm.memory import MemorySwarm  # noqa: E402
from tests.support.make import Maker  # noqa: E402


@pytest.fixture(autouse=True)
def empty_cache() -> Iterator[None]:
    """Rate limits, locks and newest stats of one test are no concern of the next."""
    cache.clear()
    yield


@pytest.fixture(autouse=True)
def fresh_twins() -> Iterator[None]:
    swarm._connect.cache_clear()
    machines._connect.cache_clear()
    yield


@pytest.fixture
def memory_swarm() -> MemorySwarm:
    """The swarm that the code under test talks to."""
    connected = swarm.connect()
    assert isinstance(connected, MemorySwarm)
    return connected


@pytest.fixture
def make(db: None) -> Maker:
    """Makes the rows that a test starts from: `make.user("alice")`, `make.bot(paid=True)`."""
    return Maker()
