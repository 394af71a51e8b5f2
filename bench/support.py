"""What benches share: the whole service in a process of its own, Docker's events, and the table at the end."""

import json
import os
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import docker
import docker.errors

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 120.0  # seconds for any one thing; on a new machine the first pub takes longest


class BenchError(Exception):
    """Why nothing could be measured."""


def wait_until[T](look: Callable[[], T | None], what: str, every: float = 0.02, patience: float = PATIENCE) -> T:
    """The first true thing that `look` gives, looking each `every` seconds."""
    deadline = time.monotonic() + patience
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise BenchError(f"Waited {patience:.0f} s in vain for {what}.")
        time.sleep(every)
    return seen


def free_ports(number: int) -> list[int]:
    opened = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in opened]
    for each in opened:
        each.close()
    return ports


# --- The service ---------------------------------------------------------------------------------------------------
class RunningService:
    """`manage.py up` with a state folder, a deployment, a network and ports of its own, from `with` until its end.

    This process gets the same settings, so that it can read the service's database. Docker things that it makes itself
    bear `bare`, a deployment that the service does not see. At the end all of both deployments is removed.
    """

    def __init__(self, pub_ports: str) -> None:
        self.deployment = f"bench-{secrets.token_hex(3)}"
        self.bare = f"{self.deployment}-bare"
        self.image = os.environ.get("PUB_IMAGE") or _built_image()
        self.engine = docker.APIClient(version="auto", timeout=60)
        self.events = Events(self.deployment)
        self.var = Path(tempfile.mkdtemp(prefix="buttcloud-bench-"))
        self.log = self.var / "up.log"
        self.webhooks = WebhookWatch()
        self._set_up_django(pub_ports)
        self._process: subprocess.Popen[bytes] | None = None

    def _set_up_django(self, pub_ports: str) -> None:
        site, stripe, mail = free_ports(3)
        self.webhooks.forward_to = site
        os.environ |= {
            "BUTTCLOUD_VAR": str(self.var),
            "DJANGO_SETTINGS_MODULE": "buttcloud.settings",
            "DEPLOYMENT": self.deployment,
            "SITE_PORT": str(site),
            "STRIPE_PORT": str(stripe),
            "MAIL_PORT": str(mail),
            "STRIPE_WEBHOOK_BASE": f"http://127.0.0.1:{self.webhooks.port}",
            "PUB_PORTS": pub_ports,
            "PUB_SHS": secrets.token_urlsafe(24).ljust(43, "A")[:43] + "=",
            "PUB_IMAGE": self.image,
            "LOG_LEVEL": "WARNING",
        }
        self._environment = dict(os.environ)
        sys.path.insert(0, str(ROOT))
        import django
        from django.conf import settings

        django.setup()
        settings.DEPLOYMENT = self.bare
        self.url = settings.SITE_URL

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def __enter__(self) -> Self:
        # Ended by a signal it still cleans up.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))
        try:
            self.events.start()
            self.webhooks.start()
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def _start(self) -> None:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "manage.py", "up"], cwd=ROOT, env=self._environment, stdout=log, stderr=log
            )
        wait_until(self._runs, "`manage.py up` to run", every=0.1)

    def _runs(self) -> bool:
        said = self.log.read_text(errors="replace")
        if self._process and self._process.poll() is not None:
            raise BenchError(f"`manage.py up` ended at once:\n{said[-2000:]}")
        return "buttcloud runs." in said

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self.log.exists():
            sys.stderr.write(
                f"--- the end of what the service said ---\n{self.log.read_text(errors='replace')[-3000:]}\n"
            )
        self.stop()

    def stop(self) -> None:
        """Everything is tried, whatever fails. The process ends first, since it would make again what is removed."""
        with ExitStack() as last_first:
            last_first.callback(shutil.rmtree, self.var, ignore_errors=True)
            for deployment in (self.deployment, self.bare):
                last_first.callback(remove_all, self.engine, deployment)
            last_first.callback(self.webhooks.stop)
            last_first.callback(self._end_process)

    def _end_process(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()


def _built_image() -> str:
    file = ROOT / "var" / "pub_image"
    if not file.exists():
        raise BenchError("There is no pub image yet: run `scripts/setup.sh run`, which builds it, or set PUB_IMAGE.")
    return file.read_text().strip()


def remove_all(engine: docker.APIClient, deployment: str) -> None:
    """Everything in Docker that bears the deployment's label, and the mark that it left on the node."""
    ours = {"label": f"buttcloud.deployment={deployment}"}
    for service in engine.services(filters=ours):
        engine.remove_service(service["ID"])

    def no_container_is_left() -> bool:
        left = engine.containers(all=True, filters=ours)
        for container in left:
            with suppress(docker.errors.APIError):
                engine.remove_container(container["Id"], force=True)
        return not left

    wait_until(no_container_is_left, "the containers to be gone", every=0.3)
    for volume in engine.volumes(filters=ours)["Volumes"] or []:
        engine.remove_volume(volume["Name"], force=True)
    wait_until(lambda: _unmark_nodes(engine, deployment), "the mark on the node to be gone", every=0.5)


def _unmark_nodes(engine: docker.APIClient, deployment: str) -> bool:
    mark = f"buttcloud.hub.{deployment}"
    for node in engine.nodes():
        if mark in (node["Spec"].get("Labels") or {}):
            del node["Spec"]["Labels"][mark]
            try:
                engine.update_node(node["ID"], node["Version"]["Index"], node["Spec"])
            except docker.errors.APIError:
                return False  # somebody else changed the node meanwhile
    return True


# --- Django in this process ------------------------------------------------------------------------------------------
@contextmanager
def own_django(**environment: str) -> Iterator[None]:
    """A folder, a database and a deployment of our own."""
    var = Path(tempfile.mkdtemp(prefix="buttcloud-bench-"))
    os.environ |= {
        "BUTTCLOUD_VAR": str(var),
        "DJANGO_SETTINGS_MODULE": "buttcloud.settings",
        "DEPLOYMENT": f"bench-{secrets.token_hex(3)}",
        "LOG_LEVEL": "WARNING",
        **environment,
    }
    import django
    from django.core.management import call_command

    try:
        django.setup()
        call_command("migrate", verbosity=0)
        yield
    finally:
        shutil.rmtree(var, ignore_errors=True)


@contextmanager
def own_settings(**values: Any) -> Iterator[None]:
    """And no row is left afterwards."""
    from django.core.management import call_command
    from django.test import override_settings

    with override_settings(**values):
        yield
    call_command("flush", interactive=False, verbosity=0)


def count_queries(work: Callable[[], object]) -> int:
    from django.db import connection

    seen: list[str] = []

    def note(execute: Any, sql: str, *more: Any) -> Any:
        seen.append(sql)
        return execute(sql, *more)

    with connection.execute_wrapper(note):
        work()
    return len(seen)


# --- Watching from outside -----------------------------------------------------------------------------------------
class Events:
    """When Docker did what to things of ours, by Docker's own clock, which is this machine's. Costs nobody a poll."""

    def __init__(self, prefix: str) -> None:
        # Its own connection, since a session of requests is for one thread.
        self._engine, self._prefix = docker.APIClient(version="auto", timeout=None), prefix
        self._seen: list[tuple[float, str, str, str]] = []

    def start(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        wanted = {"event": ["create", "start", "health_status"], "type": ["container", "service", "volume"]}
        for event in self._engine.events(filters=wanted, decode=True):
            actor = event["Actor"]
            name = actor.get("Attributes", {}).get("name") or actor["ID"]
            if name.startswith(self._prefix):
                self._seen.append((event["timeNano"] / 1e9, event["Type"], event["Action"], name))

    def first(self, kind: str, action: str, name: str, but: str = "\0") -> float | None:
        """Seconds since 1970 of the first such event of something whose name begins so and has no `but` in it."""
        found = (
            at
            for at, its_kind, its_action, its_name in self._seen
            if (its_kind, its_action) == (kind, action) and its_name.startswith(name) and but not in its_name
        )
        return next(found, None)


@dataclass
class Webhook:
    kind: str
    came: float  # seconds since 1970
    answered: float = 0.0


class WebhookWatch:
    """Stands between Stripe and the site, hands every request on as it is, and writes down when."""

    def __init__(self) -> None:
        self.seen: list[Webhook] = []
        self.forward_to = 0
        watch = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the name is http.server's
                watch._hand_on(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        self._server.server_close()

    def _hand_on(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        webhook = Webhook(json.loads(body)["type"], came=time.time())
        self.seen.append(webhook)
        site = HTTPConnection("127.0.0.1", self.forward_to, timeout=30)
        try:
            site.request("POST", request.path, body, dict(request.headers))
            status = site.getresponse().status
        except OSError:
            status = 502
        finally:
            site.close()
        webhook.answered = time.time()
        with suppress(OSError):
            request.send_response(status)
            request.send_header("Content-Length", "0")
            request.end_headers()


# --- CPU -----------------------------------------------------------------------------------------------------------
def cpu_seconds(pid: int, with_ended_children: bool = False) -> float:
    """CPU time that the process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(ticks) for ticks in fields[11 : 15 if with_ended_children else 13]) / os.sysconf("SC_CLK_TCK")


def memory_of(pid: int) -> int:
    """Bytes of memory that the process holds (RSS)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


# --- The table -----------------------------------------------------------------------------------------------------
@dataclass
class Report:
    """Rows of text, and the targets that were missed."""

    missed: list[str] = field(default_factory=list)

    def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
        print(f"\n{title}")
        for row in [head, ["-" * width for width in widths], *rows]:
            cells = [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
            print("  " + "  ".join(cells))

    def target(self, what: str, figure: float, at_most: float, digits: int = 2) -> None:
        is_met = figure <= at_most
        verdict = "met" if is_met else "MISSED"
        line = f"{what}: {figure:.{digits}f}, target at most {at_most:.{digits}f}: {verdict}"
        print(f"  {line}")
        if not is_met:
            self.missed.append(line)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def ratio(ours: Sequence[float], bare: Sequence[float]) -> float:
    """By neighbours, which a busy machine hits alike."""
    return median([one / other for one, other in zip(ours, bare, strict=True)])


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turns(runs: int, *works: Callable[[], object]) -> list[list[float]]:
    """Seconds that each took in each run."""
    rounds = [[seconds(work) for work in works] for _ in range(runs)]
    return [list(times) for times in zip(*rounds, strict=True)]
