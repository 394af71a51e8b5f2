"""What every test stands on. tests/settings.py keeps it apart from a running `make run`."""

import os
import shutil
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.core.cache import cache

from orchestrator import authority, machines, swarm
from orchestrator.swarm.memory import MemorySwarm
from tests.support.local_stripe import local_stripe  # noqa: F401
from tests.support.make import Maker
from tests.support.openstack import openstack_lab, openstack_start, openstack_starts_early  # noqa: F401


def pytest_unconfigure() -> None:
    """The folder that tests/settings.py made, with the database in it; never the one of a running site."""
    if settings.SETTINGS_MODULE == "tests.settings" and "TEST_VAR" not in os.environ:
        shutil.rmtree(settings.VAR, ignore_errors=True)


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


@pytest.fixture(scope="session", autouse=True)
def hub_authority() -> None:
    """What fresh hubs are signed by, in the tests' own folder."""
    authority.make()


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
