"""A real name server (Debian's knot) with a zone that it lets us change."""

import base64
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import dns.rcode
import dns.tsig
import dns.update
import pytest

import orchestrator.jobs  # noqa: F401  (its tasks are what a pass asks for)
from orchestrator import staff
from orchestrator.dns import NamesError, host_of, rfc2136, sync
from orchestrator.dns.rfc2136 import ZoneNames
from orchestrator.machines.memory import MemoryMachines
from orchestrator.models import Hub, Placement
from orchestrator.reconcile import run_here, run_pass
from tests.support.make import Maker
from tests.support.wait import until

KNOTD = shutil.which("knotd", path=f"{os.environ['PATH']}:/usr/sbin")
pytestmark = pytest.mark.skipif(not KNOTD, reason="there is no knotd (Debian: apt-get install knot)")

SECRET = base64.b64encode(b"what the name server knows us by").decode()
OTHER_SECRET = base64.b64encode(b"what somebody else is known by..").decode()
CONFIGURATION = """
server:
    rundir: {folder}
    listen: 127.0.0.1@{port}
    tcp-io-timeout: 10000
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: info
database:
    storage: {folder}
    journal-db-max-size: 16M
key:
  - id: ours
    algorithm: hmac-sha256
    secret: {secret}
  - id: reader
    algorithm: hmac-sha256
    secret: {secret}
acl:
  - id: change
    key: ours
    action: [transfer, update]
  - id: read
    key: reader
    action: transfer
zone:
  - domain: example.org
    storage: {folder}
    file: zone
    zonefile-sync: -1
    acl: [change, read]
"""
ZONE = """
@ 3600 SOA ns.example.org. staff.example.org. 1 3600 600 86400 60
@ 3600 NS ns.example.org.
ns 3600 A 192.0.2.53
"""


class NameServer:
    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        (folder / "knot.conf").write_text(CONFIGURATION.format(folder=folder, port=self.port, secret=SECRET))

    def start(self) -> None:
        """With the zone as it is in the file: what was changed since is forgotten."""
        (self.folder / "zone").write_text(ZONE)
        shutil.rmtree(self.folder / "journal", ignore_errors=True)
        with (self.folder / "log").open("w") as log:
            command = [str(KNOTD), "-c", str(self.folder / "knot.conf")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until("the name server answers", lambda: self.process.poll() is not None or self.answers())
        assert self.process.poll() is None, (self.folder / "log").read_text()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()

    def ask(self, host: str, kind: str = "A") -> list[str]:
        """What anybody in the world is told about the host."""
        reply = dns.query.tcp(dns.message.make_query(host, kind), "127.0.0.1", 10, self.port)
        return sorted(address.to_text() for answer in reply.answer for address in answer)

    def write(self, host: str, kind: str, content: str) -> None:
        """Somebody else writes a record into the zone."""
        update = dns.update.UpdateMessage("example.org", keyring=dns.tsig.Key("ours", SECRET, "hmac-sha256"))
        update.add(f"{host}.", 3600, kind, content)
        assert dns.query.tcp(update, "127.0.0.1", 10, self.port).rcode() == dns.rcode.NOERROR

    def answers(self) -> bool:
        try:
            return bool(self.ask("example.org", "SOA"))
        except OSError:
            return False

    @property
    def serial(self) -> int:
        """One more after each change, however many records it holds."""
        return int(self.ask("example.org", "SOA")[0].split()[2])


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


@pytest.fixture
def server(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    """A name server of the test's own, and settings that use it. On a busy machine it may be slow."""
    monkeypatch.setattr(rfc2136, "SECONDS", 60.0)
    made = NameServer(tmp_path)
    settings.DNS = "orchestrator.dns.rfc2136.ZoneNames"
    settings.PUB_DOMAIN, settings.DNS_ZONE = "pubs.example.org", "example.org"
    settings.DNS_SERVER, settings.DNS_KEY_NAME, settings.DNS_KEY = f"127.0.0.1:{made.port}", "ours", SECRET
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_a_record_follows_its_pub_from_hub_to_hub(server: NameServer) -> None:
    crab = host_of("crab-0a1b2c")
    sync({crab: "192.0.2.1"})
    assert server.ask(crab) == ["192.0.2.1"]
    sync({crab: "192.0.2.2"})
    assert server.ask(crab) == ["192.0.2.2"]
    sync({crab: "2001:db8::1"})
    assert server.ask(crab) == [] and server.ask(crab, "AAAA") == ["2001:db8::1"]
    sync({})
    assert server.ask(crab, "AAAA") == server.ask(crab, "TXT") == []


@pytest.mark.django_db
def test_after_a_pass_each_pub_has_its_record_and_a_moved_one_another(
    server: NameServer, make: Maker, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = MemoryMachines()
    monkeypatch.setattr("orchestrator.machines.connect", lambda: cloud)
    settings.MAX_HUBS, settings.MACHINES = 2, "orchestrator.machines.memory.MemoryMachines"
    bot = make.bot(name="Crab", paid=True)

    def has_moved_on_to(hub: Hub) -> bool:
        run_pass(ask=run_here)
        bot.refresh_from_db()
        return server.ask(bot.address.split(":")[0]) == [hub.public_address]

    until("it is on a hub", lambda: run_pass(ask=run_here) and Placement.objects.exists())
    first = Hub.objects.get()
    until("its record leads there", lambda: has_moved_on_to(first))
    address = bot.address
    staff.drain(first)
    until("it has moved", lambda: run_pass(ask=run_here) and Placement.objects.exclude(hub=first).exists())
    until("its record leads to the other hub", lambda: has_moved_on_to(Hub.objects.get(state=Hub.State.READY)))
    assert bot.address == address and address.startswith("crab-")


def test_what_is_right_is_left_alone(server: NameServer) -> None:
    wanted = {host_of("crab"): "192.0.2.1", host_of("shrimp"): "2001:db8:0::1"}
    sync(wanted)
    before = server.serial
    sync(wanted)
    assert server.serial == before


def test_strangers_among_ours_go_and_others_stay(server: NameServer, settings: Any) -> None:
    sync({host_of("crab"): "192.0.2.1", host_of("stranger"): "192.0.2.1"})
    server.write("www.pubs.example.org", "A", "192.0.2.80")
    deployment, settings.DEPLOYMENT = settings.DEPLOYMENT, "another"
    sync({host_of("neighbour"): "192.0.2.9"})
    settings.DEPLOYMENT = deployment
    sync({host_of("crab"): "192.0.2.1"})
    assert ZoneNames().records() == {host_of("crab"): "192.0.2.1"}
    assert server.ask(host_of("stranger")) == []
    assert server.ask(host_of("neighbour")) == ["192.0.2.9"]
    assert server.ask("www.pubs.example.org") == ["192.0.2.80"]
    assert server.ask("ns.example.org") == ["192.0.2.53"]


def test_somebody_elses_name_is_named_and_stops_no_other(server: NameServer) -> None:
    server.write(host_of("pub07"), "A", "192.0.2.80")
    wanted = {host_of(f"pub{number:02}"): "192.0.2.1" for number in range(20)}
    with pytest.raises(NamesError, match=r"under pub07\.pubs\.example\.org: remove"):
        sync(wanted)
    assert server.ask(host_of("pub07")) == ["192.0.2.80"]
    assert ZoneNames().records() == {host: address for host, address in wanted.items() if host != host_of("pub07")}


def test_a_name_that_was_taken_over_is_left_alone(server: NameServer) -> None:
    """Between our look and our change: the server itself holds us back."""
    sync({host_of("crab"): "192.0.2.1"})

    class Late(ZoneNames):
        def records(self) -> dict[str, str]:
            seen = super().records()
            server.write(host_of("crab"), "TXT", "mine")
            return seen

    with pytest.raises(NamesError, match="crab"):
        Late().sync({host_of("crab"): "192.0.2.2"})
    assert server.ask(host_of("crab")) == ["192.0.2.1"]


def test_what_was_changed_by_hand_is_put_right(server: NameServer, settings: Any) -> None:
    wanted = {host_of("crab"): "192.0.2.1"}
    sync(wanted)
    server.write(host_of("crab"), "A", "192.0.2.66")
    sync(wanted)
    assert server.ask(host_of("crab")) == ["192.0.2.1"]
    settings.DNS_TTL += 1
    assert ZoneNames().records() == {host_of("crab"): ""}
    sync(wanted)
    assert ZoneNames().records() == wanted


def test_a_zone_that_was_set_back_is_read_afresh(server: NameServer) -> None:
    wanted = {host_of("crab"): "192.0.2.1"}
    sync(wanted)
    sync(wanted)
    server.stop()
    with pytest.raises(NamesError, match="does not answer"):
        sync(wanted)
    server.start()
    sync(wanted)
    assert server.ask(host_of("crab")) == ["192.0.2.1"]


def test_a_zone_that_was_set_back_under_our_eyes_is_read_afresh(server: NameServer) -> None:
    wanted = {host_of("crab"): "192.0.2.1"}
    sync(wanted)
    sync(wanted)
    server.stop()
    server.start()
    with pytest.raises(NamesError, match="makes sense"):
        sync(wanted)
    sync(wanted)
    assert server.ask(host_of("crab")) == ["192.0.2.1"]


def test_a_copy_of_the_zone_is_not_trusted_for_ever(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same serial, other content: nothing in the answer says so."""
    sync({host_of("crab"): "192.0.2.1"})
    ZoneNames().records()
    server.stop()
    server.start()
    server.write("www.example.org", "A", "192.0.2.80")
    assert ZoneNames().records() == {host_of("crab"): "192.0.2.1"}
    monkeypatch.setattr(rfc2136, "COPY_SECONDS", 0.0)
    assert ZoneNames().records() == {}


def test_a_pub_whose_hub_has_no_address_just_now_keeps_its_record(server: NameServer) -> None:
    sync({host_of("crab"): "192.0.2.1"})
    sync({host_of("crab"): "", host_of("shrimp"): ""})
    assert ZoneNames().records() == {host_of("crab"): "192.0.2.1"}


def test_what_is_no_ip_address_is_named_and_stops_no_other(server: NameServer) -> None:
    with pytest.raises(NamesError, match=r"which this is not: hub\.example"):
        sync({host_of("crab"): "192.0.2.1", host_of("shrimp"): "hub.example"})
    assert ZoneNames().records() == {host_of("crab"): "192.0.2.1"}


def test_many_records_go_in_few_messages(server: NameServer) -> None:
    wanted = {host_of(f"{'x' * 59}{number:04}"): f"192.0.2.{number % 250}" for number in range(250)}
    before = server.serial
    sync(wanted)
    assert ZoneNames().records() == wanted
    moved = dict.fromkeys(wanted, "192.0.2.251")
    sync(moved)
    assert ZoneNames().records() == moved
    sync({})
    assert ZoneNames().records() == {}
    assert server.serial - before == 3 * 3


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("DNS_KEY", OTHER_SECRET, "refuses our key: check DNS_KEY_NAME and DNS_KEY"),
        ("DNS_KEY_NAME", "nobody", "refuses our key: check DNS_KEY_NAME and DNS_KEY"),
        ("DNS_KEY_NAME", "reader", "that this key may update and transfer"),
        ("DNS_ZONE", "example.net", "check DNS_ZONE"),
    ],
)
def test_a_refusal_says_what_to_look_at(
    server: NameServer, settings: Any, setting: str, value: str, words: str
) -> None:
    setattr(settings, setting, value)
    with pytest.raises(NamesError, match=words):
        sync({host_of("crab"): "192.0.2.1"})
    assert server.ask(host_of("crab")) == []
