"""From the paid webhook to a pub that is up, beside the bare engine that makes the same pub with no buttcloud between.

    .venv/bin/python bench/end_to_end.py [--check] [--runs N]

README.md in this folder says what the figures mean. Ours and bare take turns, so that a busy machine hits both.
"""

import argparse
import json
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import docker
import requests
from support import (
    BenchError,
    Report,
    RunningService,
    cpu_seconds,
    median,
    memory_of,
    parent_of,
    wait_until,
)

PUB_PORTS = "29450-29498"
BARE_PORT = 29499
RATIO = 1.3
IDLE_CPU = 10.0  # percent of one core
IDLE_MEMORY = 1 / 8  # of the pub's limit
IDLE_SECONDS = 25
CARD = {"number": "4242424242424242", "exp": "12 / 60", "cvc": "123"}
# The first that arrives says that the pub is paid.
PAID_EVENTS = ("customer.subscription.created", "checkout.session.completed")
STAGES = [
    "paid is written down",
    "has a place",
    "Stripe has told all",
    "identity container starts",
    "identity is made",
    "service is created",
    "container starts",
    "pub answers (health)",
    "up",
]

Times = dict[str, float]  # stage → seconds since the start of the run


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="exit status 1 when a target is missed")
    arguments.add_argument("--runs", type=int, default=5, metavar="N", help="pubs of ours, and as many bare ones")
    asked = arguments.parse_args()
    report = Report()
    try:
        with RunningService(PUB_PORTS) as service:
            measure(service, max(1, asked.runs), report)
    except BenchError as error:
        sys.exit(f"error: {error}")
    return 1 if asked.check and report.missed else 0


def measure(service: RunningService, runs: int, report: Report) -> None:
    customer, engine = Customer(service), BareEngine(service)
    ours, bare = [], []
    for run in range(runs + 1):
        bot, one = customer.pub()
        other = engine.pub()
        print(
            f"  {'warm-up' if not run else f'run {run}'}: ours {one['up']:.2f} s, bare {other['up']:.2f} s", flush=True
        )
        if run:
            # The first pub of ours also makes the hub, once for all that come.
            ours.append(one)
            bare.append(other)
        if run < runs:
            customer.remove(bot)
    tell_times(ours, bare, report)
    tell_idle(service, bot, report)


# --- Ours ----------------------------------------------------------------------------------------------------------
class Customer:
    """Names a pub and pays for it over HTTP, then watches the database from outside."""

    def __init__(self, service: RunningService) -> None:
        from django.conf import settings
        from knox.models import AuthToken

        from accounts.models import User

        self.service = service
        user = User.objects.create_user("bench@customer.example", name="Bench")
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Token {AuthToken.objects.create(user)[1]}"
        self.database = f"file:{settings.VAR / 'db.sqlite3'}?mode=ro"

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        answer = self.session.request(method, f"{self.service.url}/api/v1/pubs/{path}", timeout=60, **more)
        if not answer.ok:
            raise BenchError(f"{method} {path} answered {answer.status_code}: {answer.text[:500]}")
        return answer.json() if answer.content else None

    def pub(self) -> tuple[UUID, Times]:
        """A new pub, and when it was where, from the arrival of the webhook on."""
        bot = UUID(self._ask("POST", "", json={"name": f"Bench {uuid4().hex[:8]}"})["id"])
        page = self._ask("POST", f"{bot}/checkout/", json={"offer": "pub-monthly-1gb"})["url"]
        known = len(self.service.webhooks.seen)
        # Not followed: the return page looks at Stripe by itself, and what is measured is the webhook's way.
        paid = requests.post(page, CARD, headers={"Origin": page}, allow_redirects=False, timeout=60)
        if paid.status_code != 303:
            raise BenchError(f"The payment page answered {paid.status_code}.")
        seen = self._watch(bot)
        arrived = self.service.webhooks.seen[known:]
        began = min(each.came for each in arrived if each.kind in PAID_EVENTS)
        seen["Stripe has told all"] = max(each.answered for each in arrived)
        seen |= docker_times(self.service, f"{self.service.deployment}-pub-{bot}")
        return bot, {stage: at - began for stage, at in seen.items()}

    def _watch(self, bot: UUID) -> Times:
        """The row is read each 10 ms, without a lock that could keep the service waiting."""
        seen: Times = {}
        with closing(sqlite3.connect(self.database, uri=True)) as database:

            def is_up() -> bool:
                now = time.time()
                for stage, is_there in zip(
                    ("paid is written down", "has a place", "identity is made", "up"),
                    _columns(database, bot),
                    strict=True,
                ):
                    if is_there:
                        seen.setdefault(stage, now)
                return "up" in seen

            wait_until(is_up, "the pub to be up", every=0.01)
        return seen

    def remove(self, bot: UUID) -> None:
        self._ask("DELETE", f"{bot}/")
        name = f"{self.service.deployment}-pub-{bot}"
        wait_until(
            lambda: not self.service.engine.containers(all=True, filters={"name": name}), "a pub to be gone", every=0.2
        )
        wait_until(lambda: all(each.answered for each in self.service.webhooks.seen), "Stripe to be quiet", every=0.1)
        time.sleep(1.5)  # the last pass that follows


def _columns(database: sqlite3.Connection, bot: UUID) -> tuple[bool, ...]:
    row = database.execute("SELECT paid, address, ssb_id, status = 'up' FROM pubs_bot WHERE id = ?", [bot.hex])
    return tuple(bool(column) for column in row.fetchone())


def docker_times(service: RunningService, name: str) -> Times:
    """What only Docker knows: the same events for ours and for bare."""
    events = {
        "identity container starts": ("container", "start", f"{name}-init", "\0"),
        "service is created": ("service", "create", name, "\0"),
        "container starts": ("container", "start", name, "-init"),
        "pub answers (health)": ("container", "health_status: healthy", name, "\0"),
    }
    return {
        stage: wait_until(partial(service.events.first, *event), f"Docker to tell of: {stage}", patience=5)
        for stage, event in events.items()
    }


# --- Bare ----------------------------------------------------------------------------------------------------------
class BareEngine:
    """The same pub by the shortest way: volume, identity, service, and a look at its task each 50 ms."""

    def __init__(self, service: RunningService) -> None:
        self.service, self.api = service, service.engine
        self.node = self.api.info()["Swarm"]["NodeID"]

    def _call(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        answer = self.api.request(
            method, f"{self.api.base_url}/v{self.api.api_version}{path}", json=body, params=params
        )
        if not answer.ok:
            raise BenchError(f"Docker answered {answer.status_code} to {method} {path}: {answer.text[:500]}")
        return answer.json() if answer.content else None

    def pub(self) -> Times:
        from django.conf import settings

        from orchestrator.swarm import service_name, spec

        bot = uuid4()
        name, init = service_name(bot), f"{service_name(bot)}-init"
        began = time.time()
        seen: Times = {}
        self._call("POST", "/volumes/create", {"Name": name, "Labels": spec.labels(bot)})
        self._call("POST", "/containers/create", spec.init_spec(bot, settings.PUB_IMAGE), name=init)
        self._call("POST", f"/containers/{init}/start")
        self._call("POST", f"/containers/{init}/wait")
        said = self.api.logs(init, stdout=True, stderr=True).decode()
        self._call("DELETE", f"/containers/{init}", force="true")
        seen["identity is made"] = time.time()
        pub = self._wanted(bot, json.loads(said.strip().splitlines()[-1])["id"])
        self._call("POST", "/services/create", spec.service_spec(pub))
        wait_until(lambda: self._runs(name), "the bare pub to run", every=0.05)
        seen["up"] = time.time()
        seen |= docker_times(self.service, name)
        self._call("DELETE", f"/services/{name}")
        wait_until(
            lambda: not self.api.containers(all=True, filters={"name": name}), "a bare pub to be gone", every=0.2
        )
        return {stage: at - began for stage, at in seen.items()}

    def _wanted(self, bot: UUID, ssb_id: str) -> Any:
        from django.conf import settings

        from orchestrator.reconcile import GB
        from orchestrator.swarm import PubService

        return PubService(
            bot_id=bot,
            ssb_id=ssb_id,
            node_id=self.node,
            port=BARE_PORT,
            host=settings.PUB_HOST,
            image=settings.PUB_IMAGE,
            memory=settings.PUB_MEMORY_GB * GB,
            restarts=0,
            network_key=settings.PUB_SHS,
            name="Bare",
        )

    def _runs(self, name: str) -> bool:
        # With a health check Swarm counts a task as running only once it is healthy.
        tasks = self._call("GET", "/tasks", filters=json.dumps({"service": [name]}))
        return any(task["Status"]["State"] == "running" for task in tasks)


# --- What came out -------------------------------------------------------------------------------------------------
def tell_times(ours: list[Times], bare: list[Times], report: Report) -> None:
    rows = list(_rows(ours, bare))
    report.table(
        f"Median of {len(ours)} pubs each, seconds since: ours – the webhook came; bare – the first call to Docker",
        ["stage", "ours", "bare", "ours / bare"],
        rows,
    )
    up_ours, up_bare = [run["up"] for run in ours], [run["up"] for run in bare]
    spread = f"ours {min(up_ours):.2f}–{max(up_ours):.2f} s, bare {min(up_bare):.2f}–{max(up_bare):.2f} s"
    print(f"  spread: {spread}")
    # By neighbours, which a busy machine hits alike.
    ratio = median([one / other for one, other in zip(up_ours, up_bare, strict=True)])
    report.target("webhook → up, ours / bare, median of the pairs", ratio, RATIO)


def _rows(ours: list[Times], bare: list[Times]) -> Iterator[list[str]]:
    for stage in STAGES:
        one = median([run[stage] for run in ours])
        if stage in bare[0]:
            other = median([run[stage] for run in bare])
            yield [stage, f"{one:.2f}", f"{other:.2f}", f"{one / other:.2f}"]
        else:
            yield [stage, f"{one:.2f}", "", ""]


def tell_idle(service: RunningService, bot: UUID, report: Report) -> None:
    """The last pub of ours, left alone: what it costs while nobody talks to it."""
    name = f"{service.deployment}-pub-{bot}"
    container = service.engine.containers(filters={"name": name})[0]["Id"]
    helper = parent_of(service.engine.inspect_container(container)["State"]["Pid"])
    before, began = _cpu(service, container, helper), time.monotonic()
    time.sleep(IDLE_SECONDS)
    after, seconds = _cpu(service, container, helper), time.monotonic() - began
    inside, outside, control = ((late - early) / seconds * 100 for early, late in zip(before, after, strict=True))
    stats = service.engine.stats(container, stream=False)["memory_stats"]
    used, limit = stats["usage"] - _reclaimable(stats["stats"]), stats["limit"]
    report.table(
        f"Idle for {seconds:.0f} s, one pub",
        ["of", "CPU, % of a core", "memory, MB", "of its limit"],
        [
            ["pub container", f"{inside:.2f}", f"{used / 2**20:.0f}", f"1/{limit / used:.0f}"],
            ["its containerd-shim (runs the health check)", f"{outside:.2f}", f"{memory_of(helper) / 2**20:.0f}", ""],
            ["whole control plane, one process", f"{control:.2f}", f"{memory_of(service.pid) / 2**20:.0f}", ""],
        ],
    )
    report.target("CPU of an idle pub and its shim, % of a core", inside + outside, IDLE_CPU)
    report.target("memory of an idle pub, share of its limit", used / limit, IDLE_MEMORY, digits=3)


def _cpu(service: RunningService, container: str, helper: int) -> tuple[float, float, float]:
    """CPU seconds so far: in the container, by its helper outside of it, by the control plane."""
    stats = service.engine.stats(container, stream=False)
    inside = stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
    return inside, cpu_seconds(helper, with_ended_children=True), cpu_seconds(service.pid)


def _reclaimable(stats: dict[str, int]) -> int:
    """What the kernel takes back when it needs it, under its names in cgroup v1 and v2."""
    return stats.get("total_inactive_file", stats.get("inactive_file", 0))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except docker.errors.DockerException as error:
        sys.exit(f"error: the Docker engine does not do it: {error}")
