"""The door to an engine, against one that says what a test wants, and the checksum of a volume."""

import io
import json
import socket
import socketserver
import ssl
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings

from orchestrator import authority
from orchestrator.models import ClaimLost
from orchestrator.swarm import SwarmError, Unreachable, client, engine, volume
from orchestrator.swarm.client import Client
from orchestrator.swarm.engine import EngineSwarm
from orchestrator.swarm.volume import Checksum, checked, copy_volume

Answer = tuple[int, Any]


def loopback() -> str:
    """In IPv6, which asks for more care, where this machine has it."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return "::1"
    except OSError:
        return "127.0.0.1"


HERE = loopback()


class TcpServer(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6 if ":" in HERE else socket.AF_INET


class StagedEngine:
    """Answers by path, as a test says; remembers what it was asked. In the folder, or HERE by certificate."""

    def __init__(self, api: str, folder: str, tls: ssl.SSLContext | None = None) -> None:
        self.answers: dict[str, Callable[[], Answer]] = {}
        self.asked: list[str] = []
        self.taken: list[int] = []  # bytes of each body that came in pieces
        self.connections = 0
        self.disk_seconds = 0.0  # before it takes what it is sent
        self.url = f"unix://{folder}/s"
        staged = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                staged.connections += 1

            def take(self) -> None:
                time.sleep(staged.disk_seconds)
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Transfer-Encoding"):
                    staged.taken.append(0)
                    while size := int(self.rfile.readline(), 16):
                        staged.taken[-1] += len(self.rfile.read(size + 2)) - 2
                    self.rfile.readline()

            def answer(self) -> None:
                self.take()
                path = self.path.partition("?")[0]
                staged.asked.append(f"{self.command} {path}")
                status, body = (200, "OK") if path == "/_ping" else staged.answers[path.split("/", 2)[2]]()
                said = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Api-Version", api)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, *args: Any) -> None:
                pass

            def address_string(self) -> str:
                return ""

        self.server: socketserver.ThreadingMixIn = (
            TcpServer((HERE, 0), Handler) if tls else socketserver.ThreadingUnixStreamServer(f"{folder}/s", Handler)
        )
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=[0.05], daemon=True).start()


@pytest.fixture
def stage() -> Iterator[Callable[[str], StagedEngine]]:
    opened: list[StagedEngine] = []
    # A socket's path is short.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:

        def open_one(api: str, tls: ssl.SSLContext | None = None) -> StagedEngine:
            opened.append(StagedEngine(api, folder, tls))
            return opened[-1]

        yield open_one
        for staged in opened:
            staged.server.shutdown()
            staged.server.server_close()


@pytest.mark.parametrize(("theirs", "spoken"), [("1.41", "v1.41"), ("1.44", "v1.44"), ("1.52", "v1.44")])
def test_a_newer_engine_is_asked_in_the_version_that_we_know(stage: Any, theirs: str, spoken: str) -> None:
    staged = stage(theirs)
    staged.answers["info"] = lambda: (200, {"a": 1})
    asking = Client(staged.url)
    assert asking.call("GET", "/info") == asking.call("GET", "/info") == {"a": 1}
    assert staged.asked == ["GET /_ping", f"GET /{spoken}/info", f"GET /{spoken}/info"]


def test_an_engine_that_is_too_old_is_said(stage: Any) -> None:
    with pytest.raises(SwarmError, match=r"20\.10"):
        Client(stage("1.40").url).call("GET", "/info")


def test_an_error_is_dockers_own_words_and_some_are_good_news(stage: Any) -> None:
    staged = stage("1.44")
    staged.answers["x"] = lambda: (404, {"message": "no such thing"})
    with pytest.raises(SwarmError, match="^no such thing$"):
        Client(staged.url).call("GET", "/x")
    assert Client(staged.url).call("GET", "/x", ok=(404,)) is None


def test_an_error_in_the_middle_of_progress_is_an_error(stage: Any) -> None:
    staged = stage("1.44")
    lines = [{"status": "Pulling"}, {"error": "manifest unknown", "errorDetail": {}}]
    staged.answers["images/create"] = lambda: (200, b"\r\n".join(json.dumps(line).encode() for line in lines))
    with pytest.raises(SwarmError, match="manifest unknown"):
        Client(staged.url).progress("/images/create", fromImage="x")


def test_an_engine_that_is_not_there_is_named_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"unix:///nowhere/s does not answer: .*No such file"):
        Client("unix:///nowhere/s").call("GET", "/info")


def test_what_is_sent_in_pieces_may_wait_for_the_disk(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    staged = stage("1.44")
    staged.answers["images/load"] = lambda: (200, b"")
    asking = Client(staged.url)
    assert asking.api == "1.44"
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.1)
    staged.disk_seconds = 1
    asking.progress("/images/load", (b"x" * 2**20 for _ in range(20)))
    assert staged.taken == [20 * 2**20]


async def test_a_stream_begins_with_what_was_measured_over_time(stage: Any) -> None:
    def said(second: int) -> dict[str, Any]:
        cpu = {"cpu_usage": {"total_usage": 10**8 * second}, "system_cpu_usage": 10**9 * second, "online_cpus": 1}
        memory, networks = {"usage": 2**20, "limit": 2**30}, {"eth0": {"rx_bytes": 500 * second, "tx_bytes": 0}}
        read = f"2026-12-03T14:05:{second:02}Z"
        return {"read": read, "cpu_stats": cpu, "precpu_stats": {}, "memory_stats": memory, "networks": networks}

    staged = stage("1.44")
    staged.answers["info"] = lambda: (200, {"Swarm": {"ControlAvailable": True, "NodeID": "here"}})
    staged.answers["containers/json"] = lambda: (200, [{"Id": "x"}])
    staged.answers["containers/x/stats"] = lambda: (
        200,
        b"".join(json.dumps(said(n)).encode() + b"\n" for n in (1, 2, 3)),
    )
    samples = [sample async for sample in EngineSwarm(staged.url).stats(uuid4(), "here")]
    assert [(sample["cpu"], sample["rx_rate"]) for sample in samples] == [(10.0, 500.0)] * 2


# --- by certificate --------------------------------------------------------------------------------------------------
@pytest.fixture
def far(stage: Any, settings: Any, tmp_path: Path) -> StagedEngine:
    """An engine HERE whose certificate our authority has signed."""
    settings.ENGINE_TLS = tmp_path
    authority.make()
    wish = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    wish += ["-keyout", tmp_path / "far-key.pem", "-subj", "/CN=x"]
    request = subprocess.run(wish, check=True, capture_output=True, text=True).stdout
    (tmp_path / "far.pem").write_text(authority.sign(request, "far", HERE)[0])
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca.pem"))
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_cert_chain(tmp_path / "far.pem", tmp_path / "far-key.pem")
    staged = stage("1.44", tls)
    staged.answers["info"] = lambda: (200, {"a": 1})
    settings.ENGINE_PORT = staged.server.server_address[1]
    return staged


def test_the_environment_has_no_say_in_whom_we_trust(far: StagedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert client.engine_on(HERE).call("GET", "/info") == {"a": 1}


def test_certificates_are_read_strictly(far: StagedEngine, settings: Any) -> None:
    files = tuple(str(settings.ENGINE_TLS / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    assert client._context(files).verify_flags & ssl.VERIFY_X509_STRICT
    assert client.engine_on(HERE).call("GET", "/info") == {"a": 1}


def test_a_connection_is_kept_for_whichever_thread_asks_next(far: StagedEngine) -> None:
    for _ in range(3):
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(client.engine_on(HERE).call, "GET", "/info").result() == {"a": 1}
    assert far.connections == 1


def test_threads_that_ask_at_once_share_no_connection(far: StagedEngine) -> None:
    asking, together = client.engine_on(HERE), threading.Barrier(8, timeout=60)
    assert asking.api == "1.44"

    def wait_for_all() -> Answer:
        return 200, {"nth": together.wait()}

    far.answers["info"] = wait_for_all
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: asking.call("GET", "/info"), range(8)))
    assert sorted(answer["nth"] for answer in answers) == list(range(8))
    assert far.connections == 8


async def test_certificates_are_read_once_for_all_talks_and_never_in_the_loop(
    far: StagedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking, read_in = client.engine_on(HERE), list[int]()
    context = client._context

    def noted(files: client.Files) -> ssl.SSLContext:
        read_in.append(threading.get_ident())
        return context(files)

    asking.ping()  # the session of threads has its own
    monkeypatch.setattr(client, "_context", noted)
    for _ in range(2):
        async with asking.talk() as talk:
            assert await talk.get("/info") == {"a": 1}
    assert len(read_in) == 1 and threading.get_ident() not in read_in


def test_other_certificates_count_from_now_on(far: StagedEngine, settings: Any) -> None:
    assert client.engine_on(HERE).call("GET", "/info") == {"a": 1}
    for file in settings.ENGINE_TLS.iterdir():
        file.unlink()
    authority.make()
    with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
        client.engine_on(HERE).call("GET", "/info")


def test_without_certificates_the_remedy_is_said(settings: Any, tmp_path: Path) -> None:
    settings.ENGINE_TLS = tmp_path
    (tmp_path / "ca.pem").write_text("x")
    with pytest.raises(Unreachable, match=r"has no cert\.pem, key\.pem: .*hub_authority"):
        client.engine_on("10.0.0.1")
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("x")
    with pytest.raises(Unreachable, match="of no use"):
        client.engine_on("10.0.0.1")


# --- changes, and many engines at once -------------------------------------------------------------------------------
def node(staged: StagedEngine, updates: list[Answer]) -> None:
    staged.answers["nodes/n"] = lambda: (200, {"Version": {"Index": 1}, "Spec": {"Labels": {}}})
    staged.answers["nodes/n/update"] = lambda: updates.pop(0)


STALE: Answer = (500, {"message": "rpc error: code = Unknown desc = update out of sequence"})


def test_who_was_too_late_reads_again_and_changes_that(stage: Any) -> None:
    staged = stage("1.44")
    node(staged, [STALE, STALE, (200, {})])
    EngineSwarm(staged.url).mark_node("n", uuid4())
    assert staged.asked.count("GET /v1.44/nodes/n") == staged.asked.count("POST /v1.44/nodes/n/update") == 3


def test_another_refusal_is_tried_once(stage: Any) -> None:
    staged = stage("1.44")
    node(staged, [(500, {"message": "raft is broken"}), (200, {})])
    with pytest.raises(SwarmError, match="raft is broken"):
        EngineSwarm(staged.url).mark_node("n", uuid4())


def test_who_is_always_too_late_gives_up(stage: Any) -> None:
    staged = stage("1.44")
    node(staged, [STALE] * 100)
    with pytest.raises(SwarmError, match="out of sequence"):
        EngineSwarm(staged.url).mark_node("n", uuid4())


def test_one_that_never_answers_is_not_waited_for(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    staged = stage("1.44")
    staged.answers["nodes"] = lambda: (200, [{"ID": name, "Status": {"Addr": name}} for name in ("slow", "quick")])
    released, ended = threading.Event(), threading.Event()
    swarm = EngineSwarm(staged.url)
    swarm._node_here, swarm._nodes_elsewhere = "here", {"slow", "quick"}

    class Other:
        def __init__(self, address: str) -> None:
            self.address = address

        def ping(self, seconds: float) -> None:
            if self.address == "slow":
                released.wait(20)
                ended.set()

    monkeypatch.setattr(engine, "engine_on", Other)
    monkeypatch.setattr(engine, "PINGS_SECONDS", 1)
    answers = swarm.engines(["slow", "quick", "unknown"])
    assert not ended.is_set()
    released.set()
    assert answers["quick"] == "" and "within 1 s" in answers["slow"] and "no such node" in answers["unknown"]


def test_the_whole_is_seen_in_four_calls(stage: Any) -> None:
    staged, bot = stage("1.44"), uuid4()
    labels = {"buttcloud.deployment": settings.DEPLOYMENT, "buttcloud.bot": str(bot), "buttcloud.digest": "d"}
    spec = {"Name": "pub", "Labels": labels, "TaskTemplate": {"Placement": {"Constraints": ["node.id==n"]}}}
    described = {"Hostname": "one", "Resources": {"MemoryBytes": 1}, "Engine": {}}
    up = {"ID": "n", "Status": {"State": "ready", "Addr": "10.0.0.2"}, "Spec": {"Availability": "active"}}
    just_joined = {"ID": "m", "Status": {"State": "unknown"}, "Spec": {}, "Description": {"Engine": {}}}
    staged.answers["info"] = lambda: (200, {"Swarm": {"ControlAvailable": True, "NodeID": "n"}})
    staged.answers["nodes"] = lambda: (200, [up | {"Description": described}, just_joined])
    staged.answers["services"] = lambda: (200, [{"ID": "s", "Spec": spec, "ServiceStatus": {"RunningTasks": 0}}])
    staged.answers["tasks"] = lambda: (
        200,
        [{"ServiceID": "s", "CreatedAt": "1", "Status": {"State": "failed", "Err": "non-zero exit (1)"}}],
    )
    sight = EngineSwarm(staged.url).look()
    assert [seen.id for seen in sight.nodes] == ["n"], "one that has only just joined says nothing of itself yet"
    [service] = sight.services
    assert (service.bot_id, service.node_id, service.digest) == (bot, "n", "d")
    assert not service.healthy and service.complaint == "non-zero exit (1)"
    assert len([path for path in staged.asked if path != "GET /_ping"]) == 4


# --- the checksum ----------------------------------------------------------------------------------------------------
def packed(*entries: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            body = entry.pop("body", b"")
            info = tarfile.TarInfo(entry.pop("name"))
            info.size = len(body)
            for name, value in entry.items():
                setattr(info, name, value)
            tar.addfile(info, io.BytesIO(body))
    return out.getvalue()


def file(**more: Any) -> dict[str, Any]:
    return {"name": "data/feed", "uid": 1000, "gid": 1000, "mode": 0o600, "body": b"hello"} | more


def folder(**more: Any) -> dict[str, Any]:
    return {"name": "data", "type": tarfile.DIRTYPE, "mode": 0o700} | more


def checksum(tar: bytes) -> Checksum:
    taken = Checksum()
    assert b"".join(checked(io.BytesIO(tar), taken)) == tar, "what passes is passed on whole"
    return taken


def test_the_same_content_has_the_same_checksum_whatever_the_order_and_time() -> None:
    assert checksum(packed(folder(), file())) == checksum(packed(file(mtime=5), folder(mtime=7)))


@pytest.mark.parametrize(
    "other",
    [
        {"body": b"hellO"},
        {"body": b"hello!"},
        {"uid": 0},
        {"gid": 0},
        {"mode": 0o644},
        {"name": "data/feet"},
        {"type": tarfile.SYMTYPE, "linkname": "x", "body": b""},
    ],
)
def test_any_difference_is_another_checksum(other: dict[str, Any]) -> None:
    assert checksum(packed(folder(), file())) != checksum(packed(folder(), file(**other)))


def test_a_file_too_few_or_too_many_is_another_checksum() -> None:
    one, two = packed(file()), packed(file(), file(name="data/b"))
    assert checksum(one) != checksum(two)


def test_a_large_file_passes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume, "PIECE", 1024)
    tar = packed(file(body=bytes(range(256)) * 400))
    assert max(len(piece) for piece in checked(io.BytesIO(tar), Checksum())) < 20_000


def test_half_a_tar_is_an_error() -> None:
    with pytest.raises(tarfile.TarError):
        checksum(packed(file(body=b"x" * 100_000))[:50_000])


class Recorder:
    """An engine that does all that it is asked, but makes no container."""

    def __init__(self) -> None:
        self.removed: list[str] = []

    def call(self, method: str, path: str, *args: Any, **more: Any) -> None:
        if path == "/containers/create":
            raise Unreachable("The Docker engine does not answer.")
        if method == "DELETE" and path.startswith("/volumes/"):
            self.removed.append(path)


def test_who_may_be_overtaken_removes_no_copy() -> None:
    source, target = Recorder(), Recorder()
    answers = iter([True, False])

    def still_ours() -> None:
        if not next(answers):
            raise ClaimLost("Somebody else works on it now.")

    with pytest.raises(ClaimLost):
        copy_volume(uuid4(), source, target, "image", still_ours)  # type: ignore[arg-type]
    assert len(target.removed) == 1 and source.removed == []
    with pytest.raises(Unreachable):
        copy_volume(uuid4(), source, target, "image")  # type: ignore[arg-type]
    assert len(target.removed) == 3, "before the copy, and after it failed"
