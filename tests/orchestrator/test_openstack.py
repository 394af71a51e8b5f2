"""What only a real OpenStack can do to us. Promises that every driver makes are in test_machines.py."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, NoReturn
from uuid import UUID, uuid4

import pytest
from openstack.compute.v2.server import Server

from orchestrator.machines import Power, Refused, Unavailable
from orchestrator.machines.openstack import OpenStackMachines
from tests.orchestrator.conftest import OPENSTACK, OpenStackCloud
from tests.orchestrator.test_machines import USER_DATA, destroy, make, not_wanted, shown
from tests.support.openstack.proxy import late, nonsense
from tests.support.wait import until

pytestmark = pytest.mark.openstack


@pytest.fixture
def cloud(openstack_cloud: OpenStackCloud) -> OpenStackCloud:
    return openstack_cloud


def on_network(cloud: OpenStackCloud, things: str, token: UUID) -> list[Any]:
    return [thing for thing in getattr(cloud.admin.network, things)() if str(token) in (thing.description or "")]


def create(cloud: OpenStackCloud, token: UUID) -> None:
    cloud.machines.create(token, "hub-1", lambda: USER_DATA)


def test_a_request_that_was_given_up_and_arrives_late_makes_no_second_machine(cloud: OpenStackCloud) -> None:
    token, impatient, arrives = uuid4(), OpenStackMachines(), Event()
    impatient.timeout = 10
    cloud.nova.spoil("POST", "/servers", late(arrives))
    with pytest.raises(Unavailable):
        impatient.create(token, "hub-1", lambda: USER_DATA)
    create(cloud, token)
    machine = shown(cloud, token, Power.RUNNING)
    arrives.set()
    until("the late request is answered", lambda: len(cloud.nova.answered("POST", "/servers")) == 2)
    assert cloud.nova.answered("POST", "/servers") == [202, 409]
    assert cloud.paid_for(token) == 1 and cloud.machines.list() == [machine]


def test_the_library_asks_for_a_machine_only_once(cloud: OpenStackCloud) -> None:
    cloud.lose_the_answer()
    token = make(cloud)
    assert cloud.nova.answered("POST", "/servers") == [0] and cloud.paid_for(token) == 1


def test_a_look_is_one_call(cloud: OpenStackCloud) -> None:
    make(cloud)
    cloud.nova.answers.clear()
    cloud.machines.list()
    assert [path for _, path, _ in cloud.nova.answers] == ["/v2.1/servers/detail"]


def test_an_answer_that_makes_no_sense_is_not_an_empty_cloud(cloud: OpenStackCloud) -> None:
    token = make(cloud)
    cloud.nova.spoil("GET", "/servers/detail", nonsense, times=2)
    with pytest.raises(Unavailable):
        cloud.machines.list()
    with pytest.raises(Unavailable):
        cloud.machines.destroy(token)
    assert len(on_network(cloud, "ports", token)) == 1, "the claim stays as long as a machine may be there"


def test_a_worker_that_is_killed_after_its_request_leaves_a_machine_that_is_found(cloud: OpenStackCloud) -> None:
    token = uuid4()
    script = f"""if True:
        import time, uuid, django
        django.setup()
        from orchestrator.machines.openstack import OpenStackMachines
        OpenStackMachines().create(uuid.UUID("{token}"), "hub-1", lambda: "")
        print("made", flush=True)
        time.sleep(600)
    """
    ours = {"DJANGO_SETTINGS_MODULE": "buttcloud.settings", "DEPLOYMENT": cloud.settings.DEPLOYMENT, **OPENSTACK}
    worker = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=cloud.settings.BASE_DIR,
        env=os.environ | ours,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout and worker.stdout.readline() == "made\n"
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    cloud.machines.create(token, "hub-1", not_wanted)
    assert cloud.paid_for(token) == 1 and [machine.token for machine in cloud.machines.list()] == [token]


def test_many_workers_at_once_end_with_one_machine(cloud: OpenStackCloud) -> None:
    token = uuid4()

    def ask(_: int) -> None:
        with suppress(Unavailable):
            create(cloud, token)

    with ThreadPoolExecutor(5) as workers:
        list(workers.map(ask, range(5)))
    until("none is being built", lambda: all(server.status != "BUILD" for server in cloud.servers(token)), every=0.5)

    def settled() -> bool:
        cloud.machines.create(token, "hub-1", lambda: USER_DATA)
        return cloud.paid_for(token) == 1

    until("there is one", settled, every=0.5)
    shown(cloud, token, Power.RUNNING)


def test_what_bears_another_mark_or_none_is_neither_shown_nor_destroyed(cloud: OpenStackCloud) -> None:
    token = make(cloud)
    cloud.settings.DEPLOYMENT, ours = f"test-{uuid4().hex[:8]}", cloud.settings.DEPLOYMENT
    assert cloud.machines.list() == []
    assert cloud.machines.destroy(token), "there is none in this deployment"
    cloud.settings.DEPLOYMENT = ours
    assert [machine.token for machine in cloud.machines.list()] == [token]
    assert on_network(cloud, "ports", token)


def test_a_machine_made_by_hand_with_our_mark_is_a_stranger_that_can_be_destroyed(cloud: OpenStackCloud) -> None:
    make(cloud)
    [known] = cloud.machines.list()
    mark = {"buttcloud.deployment": cloud.settings.DEPLOYMENT}
    compute = cloud.machines._cloud.compute
    compute.create_server(
        name="by-hand",
        flavor_id=compute.find_flavor("hub", ignore_missing=False).id,
        image_id=cloud.machines._cloud.image.find_image("debian-13", ignore_missing=False).id,
        networks="none",
        metadata=mark,
    )
    [stranger] = [machine for machine in cloud.machines.list() if machine.token != known.token]
    assert stranger.name == "by-hand"
    destroy(cloud, stranger.token)
    assert [machine.token for machine in cloud.machines.list()] == [known.token]


def test_nothing_is_made_for_a_machine_that_nobody_has_words_for(cloud: OpenStackCloud) -> None:
    token = uuid4()

    def refuse() -> NoReturn:
        raise Refused("Its volumes went with it.")

    with pytest.raises(Refused, match="volumes"):
        cloud.machines.create(token, "hub-1", refuse)
    assert not on_network(cloud, "ports", token)


def test_in_another_project_no_machine_is_gone(cloud: OpenStackCloud) -> None:
    """There it is not listed, and its claim is not there either."""
    assert cloud.machines.list() == [] and not cloud.machines.is_gone(uuid4())


def test_a_machine_that_is_not_listed_is_not_gone_while_its_claim_is_held(cloud: OpenStackCloud) -> None:
    token = make(cloud)
    shown(cloud, token, Power.RUNNING)
    [server] = cloud.servers(token)
    cloud.admin.compute.set_server_metadata(server, **{"buttcloud.deployment": "hidden"})
    assert cloud.machines.list() == [] and not cloud.machines.is_gone(token)
    cloud.admin.compute.set_server_metadata(server, **{"buttcloud.deployment": cloud.settings.DEPLOYMENT})


def test_a_cloud_that_does_not_reach_all_of_its_machines_says_nothing_about_any(
    cloud: OpenStackCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Nova shows what is in a cell that is down: without name, marks and addresses."""
    token = make(cloud)
    shown_by_nova = [Server(id=str(uuid4()), status="UNKNOWN")]
    monkeypatch.setattr(type(cloud.machines._cloud.compute), "servers", lambda self: iter(shown_by_nova))
    for ask in (cloud.machines.list, partial(cloud.machines.is_gone, token), partial(cloud.machines.destroy, token)):
        with pytest.raises(Unavailable, match="can't reach all"):
            ask()
    monkeypatch.undo()


def test_a_machine_that_makes_no_sense_hides_no_other(cloud: OpenStackCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    token = make(cloud)
    real = type(cloud.machines._cloud.compute).servers
    marks = {"buttcloud.deployment": cloud.settings.DEPLOYMENT, "buttcloud.hub": str(uuid4())}
    odd = Server(id="odd", name="odd", status="ACTIVE", metadata=marks, created_at="yesterday")
    monkeypatch.setattr(type(cloud.machines._cloud.compute), "servers", lambda self: iter([odd, *real(self)]))
    assert [machine.token for machine in cloud.machines.list()] == [token]
    monkeypatch.undo()


def test_of_twins_the_one_that_has_the_port_stays(cloud: OpenStackCloud) -> None:
    token = make(cloud)
    machine = shown(cloud, token, Power.RUNNING)
    compute = cloud.machines._cloud.compute
    compute.create_server(
        name="twin",
        flavor_id=compute.find_flavor("hub", ignore_missing=False).id,
        image_id=cloud.machines._cloud.image.find_image("debian-13", ignore_missing=False).id,
        networks="none",
        metadata={"buttcloud.deployment": cloud.settings.DEPLOYMENT, "buttcloud.hub": str(token)},
    )
    assert [machine.has_twin for machine in cloud.machines.list()] == [True]
    cloud.machines.create(token, "hub-1", not_wanted)
    until("the twin is gone", lambda: cloud.paid_for(token) == 1, every=0.5)
    assert cloud.machines.list() == [machine]


def test_peers_reach_a_machine_at_a_floating_address_that_goes_with_it(cloud: OpenStackCloud) -> None:
    cloud.settings.OPENSTACK_FLOATING_NETWORK = "public"
    token = make(cloud)
    machine = shown(cloud, token, Power.RUNNING)
    assert machine.public_address.startswith("203.0.113.") and machine.address.startswith("10.77.")
    assert [ip.floating_ip_address for ip in on_network(cloud, "ips", token)] == [machine.public_address]
    destroy(cloud, token)
    assert not on_network(cloud, "ips", token) and not on_network(cloud, "ports", token)


def test_a_machine_that_is_no_longer_listed_is_not_gone_while_nova_holds_its_port(cloud: OpenStackCloud) -> None:
    token = uuid4()
    with pytest.raises(Refused):
        cloud.machines.create(token, "hub-1", lambda: "x" * 50_000)
    [port] = on_network(cloud, "ports", token)
    cloud.admin.network.update_port(port, device_id=str(uuid4()), device_owner="compute:nova")
    assert not cloud.machines.destroy(token)
    cloud.admin.network.update_port(port, device_id="", device_owner="")
    assert cloud.machines.destroy(token)
    assert not on_network(cloud, "ports", token)


@pytest.mark.parametrize(
    "setting", ["OPENSTACK_FLAVOR", "OPENSTACK_IMAGE", "OPENSTACK_NETWORK", "OPENSTACK_SECURITY_GROUP"]
)
def test_a_setting_that_names_nothing_is_named(cloud: OpenStackCloud, setting: str) -> None:
    setattr(cloud.settings, setting, "nothing")
    with pytest.raises(Refused, match=f"no 'nothing': look at the setting {setting}"):
        make(cloud)
    assert cloud.machines.list() == []


def test_an_access_that_is_not_set_up_is_said_so(
    settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "none"))
    settings.OPENSTACK_CLOUD = "elsewhere"
    with pytest.raises(Refused, match="clouds.yaml"):
        OpenStackMachines().list()


def test_user_data_that_nova_does_not_take_is_refused_here(cloud: OpenStackCloud) -> None:
    with pytest.raises(Refused, match="too long"):
        cloud.machines.create(uuid4(), "hub-1", lambda: "x" * 50_000)
    assert cloud.machines.list() == []
