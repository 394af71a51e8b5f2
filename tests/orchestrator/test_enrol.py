"""A fresh machine becomes a node: whom we let in, and what nobody gets."""

import os
import socket
import ssl
import subprocess
import threading
from base64 import b64decode, b64encode
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography import x509
from django.conf import LazySettings
from django.core.management import CommandError, call_command
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from mailer.models import Message
from orchestrator import authority, enrol, hubs, machines, swarm
from orchestrator.machines import Power
from orchestrator.machines.memory import MemoryMachines
from orchestrator.models import Enrolment, Hub
from orchestrator.swarm.memory import MemorySwarm
from tests.support.machine import FreshMachine
from tests.support.make import Maker

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def cloud(settings: LazySettings) -> MemoryMachines:
    """The cloud that the hubs' machines are made in."""
    settings.MACHINES = "orchestrator.machines.memory.MemoryMachines"
    connected = machines.connect()
    assert isinstance(connected, MemoryMachines)
    return connected


@pytest.fixture
def hub() -> Hub:
    return booting("hub-1")


@pytest.fixture
def machine(hub: Hub, tmp_path: Path) -> FreshMachine:
    return boot(hub, tmp_path)


def booting(name: str) -> Hub:
    return Hub.objects.create(name=name, state=Hub.State.BOOTING)


def boot(hub: Hub, folder: Path) -> FreshMachine:
    """The hub's machine, made by the cloud with its user data and on its first start."""
    cloud = machines.connect()
    assert isinstance(cloud, MemoryMachines)
    cloud.create(hub.token, hub.name, lambda: enrol.user_data(hub))
    return FreshMachine(cloud.of(hub.token)[0].user_data, folder / hub.name)


def ask(machine: FreshMachine, **headers: Any) -> HttpResponse:
    return post(machine, "enrol", machine.request(), **headers)


def post(machine: FreshMachine, what: str, body: str | bytes, **headers: Any) -> HttpResponse:
    headers = {"Authorization": machine.invitation} | headers
    return Client().post(f"{machine.path}/{what}/", body, content_type="text/plain", headers=headers)


def way_in(machine: FreshMachine) -> list[str]:
    """Address, join token and managers, as the answer gives them."""
    answer = ask(machine)
    assert answer.status_code == 200
    return answer.text.splitlines()[0].split()


def reason(hub: Hub) -> str:
    hub.refresh_from_db()
    return hub.reason


# --- the way in ------------------------------------------------------------------------------------------------------
def test_a_machine_is_put_off_until_a_worker_has_answered(machine: FreshMachine) -> None:
    answer = ask(machine)
    assert answer.status_code == 503
    assert answer["Retry-After"]
    enrol.answer_requests()
    assert ask(machine).status_code == 200


def test_a_machine_gets_the_way_in_and_a_certificate_for_the_address_that_the_cloud_gave_it(
    machine: FreshMachine, hub: Hub, cloud: MemoryMachines
) -> None:
    ask(machine)
    enrol.answer_requests()
    ticket = swarm.connect().join_ticket()
    address = cloud.list()[0].address
    assert way_in(machine) == [address, ticket.token, *ticket.managers]
    told = machine.openssl("x509", "-noout", "-ext", "subjectAltName,extendedKeyUsage", stdin=ask(machine).text)
    assert f"IP Address:{address}\n" in told
    assert "TLS Web Server Authentication\n" in told


def test_of_a_request_only_the_key_is_taken(machine: FreshMachine) -> None:
    greedy = machine.request("/CN=orchestrator", "basicConstraints=CA:TRUE", "subjectAltName=IP:192.0.2.1")
    post(machine, "enrol", greedy)
    enrol.answer_requests()
    signed = x509.load_pem_x509_certificate(post(machine, "enrol", greedy).content.split(b"\n", 1)[1])
    assert "CN=hub-1" in signed.subject.rfc4514_string()
    assert not signed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert "192.0.2.1" not in str(signed.extensions)


def test_a_worker_and_the_engine_of_a_hub_know_each_other(
    machine: FreshMachine, cloud: MemoryMachines, settings: LazySettings
) -> None:
    ask(machine)
    enrol.answer_requests()
    certificate = machine.keep(ask(machine).text)
    tls, address = settings.ENGINE_TLS, cloud.list()[0].address
    engine, worker = (certificate, machine.key), (tls / "cert.pem", tls / "key.pem")
    assert shake_hands(tls / "ca.pem", engine, worker, address) == "welcome"
    with pytest.raises(ssl.SSLError, match="IP address mismatch"):
        shake_hands(tls / "ca.pem", engine, worker, "10.0.0.99")
    # Who has broken into one hub can't command the engines of others.
    with pytest.raises((ssl.SSLError, ConnectionError), match="alert|reset"):
        shake_hands(tls / "ca.pem", engine, engine, address)


def shake_hands(ca: Path, engine: tuple[Path, Path], worker: tuple[Path, Path], address: str) -> str:
    """What a worker hears from an engine that is like dockerd with --tlsverify, said to be at the address."""
    as_engine = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ca))
    as_engine.verify_mode = ssl.CERT_REQUIRED
    as_engine.load_cert_chain(*engine)
    as_worker = ssl.create_default_context(cafile=str(ca))
    as_worker.load_cert_chain(*worker)
    near, far = socket.socketpair()
    near.settimeout(20)
    far.settimeout(20)

    def serve() -> None:
        try:
            with as_engine.wrap_socket(far, server_side=True) as line:
                line.sendall(b"welcome")
        except OSError:
            far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with as_worker.wrap_socket(near, server_hostname=address) as line:
            return line.recv(100).decode()
    finally:
        near.close()
        thread.join()


# --- who is let in ---------------------------------------------------------------------------------------------------
def test_without_its_invitation_nobody_learns_anything(machine: FreshMachine, tmp_path: Path) -> None:
    other = boot(booting("hub-2"), tmp_path)
    refused = [
        ask(machine, Authorization="Bearer wrong"),
        ask(machine, Authorization=""),
        ask(machine, Authorization=other.invitation),
        Client().post(f"/hubs/{uuid4()}/enrol/", "x", "text/plain", headers={"Authorization": machine.invitation}),
    ]
    assert {(answer.status_code, answer.content) for answer in refused} == {(403, b"no")}
    assert not Enrolment.objects.exclude(request="").exists()


def test_an_invitation_ends(machine: FreshMachine) -> None:
    Enrolment.objects.update(until=timezone.now() - timedelta(seconds=1))
    assert ask(machine).status_code == 403


@pytest.mark.parametrize("state", [Hub.State.READY, Hub.State.FAILED, Hub.State.DESTROYING, Hub.State.GONE])
def test_the_machine_of_a_hub_that_is_not_on_its_way_is_refused(machine: FreshMachine, state: Hub.State) -> None:
    Hub.objects.update(state=state)
    assert ask(machine).status_code == 403


def test_the_same_machine_may_ask_again_and_gets_the_same(machine: FreshMachine) -> None:
    ask(machine)
    enrol.answer_requests()
    first = ask(machine)
    enrol.answer_requests()
    assert ask(machine).content == first.content
    # The same key in another request is the same machine.
    assert post(machine, "enrol", machine.request("/CN=again")).content == first.content


def test_a_second_key_is_refused_and_staff_are_told_and_read_of_it_to_the_end(
    machine: FreshMachine, hub: Hub, tmp_path: Path, make: Maker
) -> None:
    make.user("stella", is_staff=True)
    ask(machine)
    thief = FreshMachine(machine.user_data, tmp_path / "thief")
    assert ask(thief).status_code == 403
    enrol.answer_requests()
    assert ask(thief).status_code == 403
    alarm = "A second machine, at 127.0.0.1, asked for its certificate"
    assert alarm in reason(hub)
    assert Message.objects.filter(text__contains=alarm).count() == 1
    assert ask(machine).status_code == 200
    hubs.give_up(hub.pk, "It took too long.")
    assert "It took too long." in reason(hub) and alarm in reason(hub)


def test_a_machine_that_the_cloud_does_not_know_gets_nothing(
    machine: FreshMachine, hub: Hub, cloud: MemoryMachines
) -> None:
    cloud.lose(hub.token)
    ask(machine)
    enrol.answer_requests()
    assert ask(machine).status_code == 503
    assert "the cloud knows no machine of this hub" in reason(hub)


def test_a_machine_that_is_being_destroyed_gets_nothing(machine: FreshMachine, hub: Hub, cloud: MemoryMachines) -> None:
    cloud.destroy(hub.token)
    assert cloud.list()[0].power == Power.GOING
    ask(machine)
    enrol.answer_requests()
    assert ask(machine).status_code == 503
    assert "going" in reason(hub)


def test_what_is_no_certificate_request_is_refused(machine: FreshMachine) -> None:
    rsa = machine.openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=hub")
    # The public key of somebody else is no secret, so only the signature shows whose request it is.
    head, *lines, foot = machine.request().splitlines()
    forged = bytearray(b64decode("".join(lines)))
    forged[-1] ^= 1
    unsigned = "\n".join([head, b64encode(forged).decode(), foot])
    for body in ["", "hello", "\0", rsa, unsigned]:
        assert post(machine, "enrol", body).status_code == 400
    assert Client().get(f"{machine.path}/enrol/").status_code == 405


def test_a_long_body_is_refused(machine: FreshMachine) -> None:
    assert post(machine, "enrol", machine.request() + "x" * 2**16).status_code == 413


def test_who_was_refused_often_is_not_heard_for_a_while(machine: FreshMachine) -> None:
    for _ in range(30):
        assert ask(machine, Authorization="Bearer guess").status_code == 403
    answer = ask(machine)
    assert answer.status_code == 429
    assert answer["Retry-After"]


def test_the_web_process_needs_neither_authority_nor_swarm_nor_cloud(
    machine: FreshMachine, settings: LazySettings
) -> None:
    settings.ENGINE_TLS = Path("/nowhere")
    settings.SWARM = settings.MACHINES = "nowhere.Nothing"
    assert ask(machine).status_code == 503
    assert post(machine, "report", "no room").status_code == 200


# --- once it is in ---------------------------------------------------------------------------------------------------
def test_after_the_join_the_invitation_and_the_join_token_are_worth_nothing(
    machine: FreshMachine, hub: Hub, memory_swarm: MemorySwarm
) -> None:
    ask(machine)
    enrol.answer_requests()
    token = way_in(machine)[1]
    enrol.close(hub)
    assert ask(machine).status_code == 403
    assert memory_swarm.join_ticket().token != token
    assert token not in str(Enrolment.objects.values())


def test_the_join_token_is_kept_while_another_machine_is_on_its_way_with_it(
    machine: FreshMachine, hub: Hub, tmp_path: Path, memory_swarm: MemorySwarm
) -> None:
    second_hub = booting("hub-2")
    second = boot(second_hub, tmp_path)
    ask(machine)
    ask(second)
    enrol.answer_requests()
    token = way_in(second)[1]
    enrol.close(hub)
    assert memory_swarm.join_ticket().token == token
    enrol.close(second_hub)
    assert memory_swarm.join_ticket().token != token
    assert token not in str(Enrolment.objects.values())


def test_the_join_token_of_a_hub_that_was_given_up_is_taken_back(
    machine: FreshMachine, hub: Hub, memory_swarm: MemorySwarm
) -> None:
    ask(machine)
    enrol.answer_requests()
    token = way_in(machine)[1]
    Hub.objects.update(state=Hub.State.FAILED)
    enrol.answer_requests()
    assert memory_swarm.join_ticket().token != token


def test_nobody_joined_so_nothing_is_rotated(hub: Hub, memory_swarm: MemorySwarm) -> None:
    token = memory_swarm.join_ticket().token
    enrol.close(hub)
    enrol.answer_requests()
    assert memory_swarm.join_ticket().token == token


def test_a_machine_with_an_old_join_token_finds_the_new_one(machine: FreshMachine, memory_swarm: MemorySwarm) -> None:
    ask(machine)
    enrol.answer_requests()
    certificate = ask(machine).text.partition("\n")[2]
    memory_swarm.rotate_join_token()
    enrol.answer_requests()
    assert way_in(machine)[1] == memory_swarm.join_ticket().token
    assert ask(machine).text.partition("\n")[2] == certificate


def test_a_rotation_that_fails_is_done_by_the_next_look(
    machine: FreshMachine, hub: Hub, memory_swarm: MemorySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(machine)
    enrol.answer_requests()
    token = way_in(machine)[1]

    def away() -> None:
        raise swarm.Unreachable("The Docker engine does not answer.")

    with monkeypatch.context() as broken:
        broken.setattr(memory_swarm, "rotate_join_token", away)
        with pytest.raises(swarm.Unreachable):
            enrol.close(hub)
    enrol.answer_requests()
    assert memory_swarm.join_ticket().token != token


# --- the machine's start ---------------------------------------------------------------------------------------------
def test_asking_twice_for_a_machine_gives_the_same_invitation(hub: Hub, machine: FreshMachine) -> None:
    assert enrol.user_data(hub) == machine.user_data


def test_a_machine_that_is_made_anew_may_come_with_a_new_key(
    hub: Hub, machine: FreshMachine, cloud: MemoryMachines, tmp_path: Path
) -> None:
    ask(machine)
    enrol.answer_requests()
    cloud.lose(hub.token)
    anew = boot(hub, tmp_path / "anew")
    assert ask(anew).status_code == 503
    enrol.answer_requests()
    assert way_in(anew)[0] == cloud.list()[0].address


def test_why_a_machine_could_not_join_stands_on_its_hub(machine: FreshMachine, hub: Hub) -> None:
    assert post(machine, "report", "apt-get\0 failed: no space left").status_code == 200
    enrol.answer_requests()
    assert reason(hub) == "Its machine could not join the swarm. apt-get failed: no space left"
    post(machine, "report", b"\xff" * 60_000 + b"the end")
    enrol.answer_requests()
    assert reason(hub).endswith("the end")
    assert post(machine, "report", "x", Authorization="Bearer wrong").status_code == 403


# --- the authority ---------------------------------------------------------------------------------------------------
def test_the_authority_is_made_once_and_never_overwritten(tmp_path: Path, settings: LazySettings) -> None:
    settings.ENGINE_TLS = tmp_path / "tls"
    call_command("hub_authority")
    files = {file: file.read_bytes() for file in settings.ENGINE_TLS.iterdir()}
    assert {file.name for file in files} == {"ca.pem", "ca-key.pem", "cert.pem", "key.pem"}
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    call_command("hub_authority")
    assert {file: file.read_bytes() for file in settings.ENGINE_TLS.iterdir()} == files


def test_an_authority_whose_making_was_killed_is_finished(tmp_path: Path, settings: LazySettings) -> None:
    settings.ENGINE_TLS = tmp_path
    authority.make()
    key = (tmp_path / "ca-key.pem").read_bytes()
    for name in ["ca.pem", "cert.pem"]:
        (tmp_path / name).unlink()
    assert [file.name for file in authority.make()] == ["ca.pem", "cert.pem"]
    assert (tmp_path / "ca-key.pem").read_bytes() == key
    for name, purpose in [("cert.pem", "sslclient"), ("ca.pem", "any")]:
        verify = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca.pem", name]
        subprocess.run(verify, cwd=tmp_path, check=True, capture_output=True)


def test_an_authority_without_its_key_is_not_replaced(tmp_path: Path, settings: LazySettings) -> None:
    settings.ENGINE_TLS = tmp_path
    authority.make()
    os.unlink(tmp_path / "ca-key.pem")
    with pytest.raises(CommandError, match="without its key"):
        call_command("hub_authority")


def test_a_missing_authority_is_said_with_its_remedy(hub: Hub, settings: LazySettings) -> None:
    settings.ENGINE_TLS = Path("/nowhere")
    with pytest.raises(machines.MachineError, match="manage.py hub_authority"):
        enrol.user_data(hub)


def test_staff_can_see_in_time_when_a_certificate_ends(
    machine: FreshMachine, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert enrol.expires(booting("hub-2")) is None
    ask(machine)
    enrol.answer_requests()
    enrol.close(hub)
    Hub.objects.update(state=Hub.State.READY)
    end = enrol.expires(Hub.objects.get(pk=hub.pk))
    assert end and end > timezone.now() + timedelta(days=800)
    assert not enrol.expiring()
    monkeypatch.setattr(timezone, "now", lambda: end - timedelta(days=59))
    assert enrol.expiring() == [(hub, end)]
