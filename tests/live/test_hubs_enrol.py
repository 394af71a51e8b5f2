"""A fresh machine becomes a hub by what it is told at its first start, and by nothing else."""

from collections.abc import Iterator
from typing import Any

import pytest
from pytest_django.live_server_helper import LiveServer

from orchestrator import swarm
from orchestrator.models import Enrolment, Hub
from orchestrator.swarm import service_name
from tests.support.lab.lab import Lab
from tests.support.lab.loop import all_up, passes_until
from tests.support.make import Maker

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def site(transactional_db: None, lab: Lab, settings: Any) -> Iterator[LiveServer]:
    """The control plane's site, where the lab's machines find it."""
    settings.MACHINES = "tests.support.lab.driver.EnrollingMachines"
    settings.ALLOWED_HOSTS = ["*"]
    server = LiveServer(lab.address)
    settings.ENROL_URL = server.url
    yield server
    server.stop()


def test_a_machine_that_was_told_how_enrols_and_runs_pubs(site: LiveServer, lab: Lab, make: Maker) -> None:
    def join_token() -> str:
        lab.manager.engine.swarm.reload()
        return str(lab.manager.engine.swarm.attrs["JoinTokens"]["Worker"])

    before = join_token()
    bot = make.bot(paid=True)
    passes_until("it is up", lambda: all_up([bot]))
    hub = Hub.objects.get()
    [machine] = [machine for machine in lab.machines if machine.name == hub.name]
    assert hub.address == machine.address
    # Commands go to the hub's own engine, over the certificate that it got.
    answer = swarm.connect().run(service_name(bot.pk), ["pubctl", "whoami"], timeout=20)
    bot.refresh_from_db()
    assert bot.ssb_id in answer.stdout
    # What it was given to join with is worth nothing any more, and nobody keeps it.
    enrolment = Enrolment.objects.get()
    assert enrolment.joined_at and before not in str(enrolment.answer)
    assert join_token() != before
    assert "no such file" in machine.inside("sh", "-c", "ls /etc/buttcloud/invitation 2>&1 || true").lower()
