"""The plan of 10,000 pubs, an idle pass over 1,000, and the start of 50 at once, each beside a bare peer.

    .venv/bin/python bench/orchestrator.py [--check] [--runs N] [--pairs N] [--only PART]

README.md in this folder says what the figures mean. Ours and bare take turns, so that a busy machine hits both.
"""

import argparse
import json
import os
import secrets
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import docker
from support import (
    ROOT,
    BenchError,
    Report,
    count_queries,
    in_turns,
    median,
    own_django,
    own_settings,
    ratio,
    remove_all,
    seconds,
    wait_until,
)

# Before this folder, where this script has the app's name.
sys.path.insert(0, str(ROOT))

from orchestrator.machines import Machine  # noqa: E402
from orchestrator.planner import Actual, HubSeen, Limits, Place, PlacementSeen, ServiceSeen, Wanted, plan  # noqa: E402
from orchestrator.swarm.client import Client, engine_on  # noqa: E402
from orchestrator.swarm.engine import EngineSwarm  # noqa: E402
from orchestrator.swarm.spec import DIGEST, hub_label, init_spec, labels, service_spec  # noqa: E402

PLANNED_BOTS, PLANNED_HUBS = 10_000, 700
COLD_RATIO, IDLE_RATIO = 4.0, 2.0  # of reading the same facts from JSON
BOTS, HUBS = 1_000, 70
FEW_BOTS = 100
ENGINE_CALLS = 5
PASS_RATIO = 2.0
AT_ONCE = 8  # services that the bench makes or removes at a time
HUB_TOKENS = {uuid4(): f"bench-{number}" for number in range(HUBS)}
STARTED_BOTS, STARTED_HUBS = 50, 4
START_RATIO = 1.3
FIRST_PORT = 20000
BOOT_SECONDS, START_SECONDS = 300, 600  # patience


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="exit status 1 when a target is missed")
    arguments.add_argument("--runs", type=int, default=15, metavar="N", help="of each thing that is quick")
    arguments.add_argument("--pairs", type=int, default=3, metavar="N", help="starts of ours, and as many bare ones")
    arguments.add_argument("--only", choices=["plan", "pass", "start"], help="one part of it")
    asked = arguments.parse_args()
    # Ended by a signal it still cleans up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))
    report = Report()
    try:
        if asked.only in (None, "plan"):
            measure_plan(asked.runs, report)
        with own_django(PUB_PORTS=f"{FIRST_PORT}-{FIRST_PORT + BOTS}"):
            if asked.only in (None, "pass"):
                with own_settings(**FLEET_SETTINGS), Fleet() as fleet:
                    measure_pass(fleet, asked.runs, report)
            if asked.only in (None, "start"):
                with open_lab() as lab, own_settings(**lab_settings(lab)):
                    measure_start(lab, asked.pairs, report)
    except BenchError as error:
        sys.exit(f"error: {error}")
    return 1 if asked.check and report.missed else 0


# --- The plan ------------------------------------------------------------------------------------------------------
def measure_plan(runs: int, report: Report) -> None:
    hubs = tuple(HubSeen(number, "ready", 15, in_sight=True) for number in range(PLANNED_HUBS))
    wanted = [Wanted(UUID(int=number), digest="d") for number in range(PLANNED_BOTS)]
    limits, now = Limits(max_hubs=PLANNED_HUBS), datetime.now(UTC)
    nobody = Actual(hubs, {}, {})
    placed = [action for action in plan(wanted, [], nobody, limits, now) if isinstance(action, Place)]
    if len(placed) != PLANNED_BOTS:
        raise BenchError(f"Only {len(placed)} of {PLANNED_BOTS} bots found a place.")
    homes = {place.bot: PlacementSeen(place.hub) for place in placed}
    everybody = Actual(hubs, homes, {bot: ServiceSeen("d", home.hub) for bot, home in homes.items()})
    if actions := plan(wanted, [], everybody, limits, now):
        raise BenchError(f"There should be nothing to do, but the plan has {len(actions)} actions.")
    facts = json.dumps([{"bot": str(bot), "hub": home.hub, "digest": "d"} for bot, home in homes.items()])
    bare, cold, idle = in_turns(
        runs,
        lambda: {UUID(fact["bot"]): (fact["hub"], fact["digest"]) for fact in json.loads(facts)},
        lambda: plan(wanted, [], nobody, limits, now),
        lambda: plan(wanted, [], everybody, limits, now),
    )
    rows = [("bare: the same facts from JSON into a dict", bare), ("cold: all to be placed", cold), ("idle", idle)]
    report.table(
        f"Plan of {PLANNED_BOTS} bots on {PLANNED_HUBS} hubs, median of {runs}",
        ["of", "ms", "of bare"],
        [[name, f"{median(times) * 1000:.1f}", f"{ratio(times, bare):.2f}"] for name, times in rows],
    )
    report.target("plan in which all are placed / bare", ratio(cold, bare), COLD_RATIO)
    report.target("plan in which nothing is to be done / bare", ratio(idle, bare), IDLE_RATIO)


def new_owner() -> Any:
    from accounts.models import User

    return User.objects.create_user("bench@customer.example", name="Bench")


# --- An idle pass --------------------------------------------------------------------------------------------------
FLEET_SETTINGS = {
    "SWARM": "__main__.ManyNodes",
    "MACHINES": "__main__.AllThere",
    "PUB_IMAGE": f"sha256:{secrets.token_hex(32)}",
    "MAX_HUBS": HUBS,
}


class Fleet:
    """1,000 pubs on 70 hubs in the database, and their services on the engine of this machine.

    One machine can't run so many. Their services are real and have our real spec, but no replicas, and are pinned to
    nodes that do not exist. After the decoding of Docker's answers each is made to look as if it ran, and beside this
    machine's node stand 70 more. So Docker's work and the decoding are real, and the same for the bare calls; what the
    change costs is counted as ours.
    """

    def __init__(self) -> None:
        from django.conf import settings

        self.deployment = settings.DEPLOYMENT
        self.engine = docker.APIClient(version="auto", timeout=60)

    def __enter__(self) -> "Fleet":
        from orchestrator.models import Hub

        self.owner = new_owner()
        now = datetime.now(UTC)
        Hub.objects.bulk_create(
            Hub(token=token, name=name, state="ready", node_id=name, places=15, answered_at=now)
            for token, name in HUB_TOKENS.items()
        )
        self.hubs = list(Hub.objects.all())
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as last_first:
            last_first.callback(remove_all, self.engine, self.deployment)
            with ThreadPoolExecutor(AT_ONCE) as threads:
                list(threads.map(self._remove, self.services()))

    def services(self) -> list[str]:
        ours = {"label": f"buttcloud.deployment={self.deployment}"}
        return [service["ID"] for service in self.engine.services(filters=ours)]

    def _remove(self, service: str) -> None:
        docker.APIClient(version="auto").remove_service(service)

    def grow_to(self, number: int) -> None:
        """So many bots that run as they should."""
        from orchestrator.models import Placement
        from pubs.models import Bot

        there = Bot.objects.count()
        bots = [
            Bot(
                owner=self.owner,
                name=f"Pub {each}",
                paid=True,
                status="up",
                told_up=True,
                wanted_since=datetime.now(UTC),
                ssb_id=f"@{uuid4().hex}.ed25519",
            )
            for each in range(there, number)
        ]
        Bot.objects.bulk_create(bots)
        homes = [
            Placement(bot=bot, hub=self.hubs[each % HUBS], port=FIRST_PORT + each, label=f"pub-{each}")
            for each, bot in enumerate(bots, start=there)
        ]
        Placement.objects.bulk_create(homes)
        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(self._make_service, homes))

    def _make_service(self, home: Any) -> None:
        from orchestrator import swarm
        from orchestrator.reconcile import service_of

        pub = service_of(home.bot, home)
        spec = service_spec(pub)
        spec["Labels"][DIGEST] = swarm.connect().digest(pub)
        spec["Mode"]["Replicated"]["Replicas"] = 0
        swarm.connect().manager.call("POST", "/services/create", spec)  # type: ignore[attr-defined]


class Disguised(Client):
    """The engine of this machine, whose answers are changed after they are decoded."""

    calls = 0

    @contextmanager
    def stream(self, *args: Any, **more: Any) -> Iterator[Any]:
        self.calls += 1
        with super().stream(*args, **more) as answer:
            yield answer

    def list(self, path: str, filters: dict[str, Any], /, **params: Any) -> list[dict[str, Any]]:
        found = super().list(path, filters, **params)
        if path == "/services":
            for service in found:
                service["ServiceStatus"]["RunningTasks"] = 1
        elif path == "/nodes":
            found += [self._node_like(found[0], token, name) for token, name in HUB_TOKENS.items()]
        return found

    def _node_like(self, node: dict[str, Any], token: UUID, name: str) -> dict[str, Any]:
        spec = {**node["Spec"], "Labels": {hub_label(): str(token)}}
        resources = {**node["Description"]["Resources"], "MemoryBytes": 16 * 2**30}
        return {**node, "ID": name, "Spec": spec, "Description": {**node["Description"], "Resources": resources}}


class ManyNodes(EngineSwarm):
    """settings.SWARM"""

    def __init__(self) -> None:
        super().__init__()
        self.manager = Disguised(self.manager.url)


class AllThere:
    """settings.MACHINES: a cloud that has them all and says so at once; it is not what is measured."""

    def list(self) -> list[Machine]:
        return [Machine(token, name) for token, name in HUB_TOKENS.items()]


def measure_pass(fleet: Fleet, runs: int, report: Report) -> None:
    from orchestrator import swarm
    from orchestrator.models import Hub
    from orchestrator.reconcile import run_pass

    engine = swarm.connect().manager  # type: ignore[attr-defined]
    plain = Client(engine.url)
    ours = {"label": [f"buttcloud.deployment={fleet.deployment}"]}

    def one_pass() -> None:
        asked: list[tuple[Any, ...]] = []
        actions = run_pass(ask=lambda *job: asked.append(job)).actions
        if actions or asked:
            raise BenchError(f"There should be nothing to do, but the pass wants {actions[:3]} {asked[:3]}.")

    def bare_calls() -> None:
        plain.list("/nodes", {})
        plain.list("/services", ours, status="true")

    queries = {}
    for number in (FEW_BOTS, BOTS):
        fleet.grow_to(number)
        Hub.objects.update(answered_at=datetime.now(UTC))
        run_pass(ask=lambda *job: None)  # writes down what is seen for the first time
        queries[number] = count_queries(one_pass)
    engine.calls = 0
    one_pass()
    calls = engine.calls
    Hub.objects.update(answered_at=datetime.now(UTC))
    passes, bare = in_turns(runs, one_pass, bare_calls)
    report.table(
        f"Idle pass over {BOTS} pubs on {HUBS} hubs, median of {runs}",
        ["of", "ms"],
        [["bare: its engine calls, decoded", f"{median(bare) * 1000:.0f}"], ["pass", f"{median(passes) * 1000:.0f}"]],
    )
    report.target("engine calls of an idle pass", calls, ENGINE_CALLS, digits=0)
    report.target("idle pass / its bare engine calls", ratio(passes, bare), PASS_RATIO)
    more = queries[BOTS] - queries[FEW_BOTS]
    print(f"  {queries[BOTS]} SQL queries for {BOTS} bots")
    report.target(f"SQL queries more for {BOTS} bots than for {FEW_BOTS}", more, 0, digits=0)


# --- The start of 50 ------------------------------------------------------------------------------------------------
@contextmanager
def open_lab() -> Iterator[Any]:
    """The tests' laboratory of real machines, each with an engine of its own."""
    from tests.support.lab import lab as labs

    if reason := labs.why_not():
        raise BenchError(f"There can be no lab here: {reason}.")
    lab = labs.open_lab()
    try:
        lab.build()
        yield lab
    finally:
        lab.close()


def lab_settings(lab: Any) -> dict[str, Any]:
    from tests.support.lab.image import make_small_pub

    os.environ |= {"DOCKER_HOST": lab.manager.url, "LAB": str(lab.folder)}
    return {
        "SWARM": "orchestrator.swarm.engine.EngineSwarm",
        "MACHINES": "tests.support.lab.driver.LabMachines",
        "ENGINE_TLS": lab.tls,
        "PUB_IMAGE": make_small_pub(lab.manager),
        "MAX_HUBS": STARTED_HUBS,
    }


def measure_start(lab: Any, pairs: int, report: Report) -> None:
    """Four hubs are ready beforehand. The workers that do it are production's own, in this process."""
    sides = {"bare": partial(start_bare, boot_hubs()), "ours": partial(start_ours, new_owner())}
    times: dict[str, list[float]] = {"bare": [], "ours": []}
    for number in range(pairs):
        # By turns the one and the other goes first.
        for side in sorted(sides, reverse=number % 2 == 0):
            times[side].append(sides[side]())
            clear(lab)
    rows = enumerate(zip(times["bare"], times["ours"], strict=True), 1)
    report.table(
        f"Start of {STARTED_BOTS} pubs on {STARTED_HUBS} ready hubs",
        ["pair", "bare, s", "ours, s", "ours / bare"],
        [[str(number), f"{bare:.1f}", f"{ours:.1f}", f"{ours / bare:.2f}"] for number, (bare, ours) in rows],
    )
    report.target("50 paid bots → all up, ours / bare", ratio(times["ours"], times["bare"]), START_RATIO)


def boot_hubs() -> list[Any]:
    """New hubs, once each is ready, with the image on it."""
    from orchestrator import hubs, jobs  # noqa: F401  (so that they can be asked for)
    from orchestrator.models import Hub
    from orchestrator.reconcile import run_here, run_pass

    hubs.buy(STARTED_HUBS)
    ready = Hub.objects.filter(state=Hub.State.READY)

    def are_ready() -> bool:
        run_pass(ask=run_here)
        return ready.count() == STARTED_HUBS

    wait_until(are_ready, "the hubs to be ready", every=0.5, patience=BOOT_SECONDS)
    return list(ready)


def start_ours(owner: Any) -> float:
    """From the moment that they are paid, until the database says of all that they are up."""
    from django.db import transaction

    from orchestrator.models import Hub
    from pubs import live
    from pubs.models import Bot, Status

    with production_workers():
        began = datetime.now(UTC)
        live.nudge()
        wait_until(Hub.objects.filter(seen_at__gt=began).exists, "the first pass")
        bots = [Bot(owner=owner, name=f"Pub {number}", paid=True) for number in range(STARTED_BOTS)]

        def start() -> None:
            with transaction.atomic():
                Bot.objects.bulk_create(bots)
                live.nudge()
            up = Bot.objects.filter(status=Status.UP)
            wait_until(lambda: up.count() == STARTED_BOTS, "all to be up", every=0.05, patience=START_SECONDS)

        return seconds(start)


@contextmanager
def production_workers() -> Iterator[None]:
    from buttcloud.celery import app
    from buttcloud.workers import QUEUES, EmbeddedWorkers

    workers = EmbeddedWorkers(app, {"swarm": QUEUES["swarm"]})
    workers.start()
    try:
        yield
    finally:
        workers.stop()


def start_bare(hubs: Sequence[Any]) -> float:
    """The same calls to the same engines by as many threads, and looks as often as the loop makes its passes."""
    from django.conf import settings

    from buttcloud.workers import QUEUES
    from orchestrator import swarm
    from orchestrator.jobs import SOON_SECONDS

    manager = swarm.connect().manager  # type: ignore[attr-defined]
    # As the plan does it: a hub is filled before the next one.
    homes = [(FIRST_PORT + number, hubs[number // settings.HUB_PLACES]) for number in range(STARTED_BOTS)]

    def all_run() -> bool:
        services = manager.list("/services", {}, status="true")
        return sum(service["ServiceStatus"]["RunningTasks"] for service in services) == STARTED_BOTS

    def start() -> None:
        with ThreadPoolExecutor(QUEUES["swarm"]) as threads:
            list(threads.map(lambda home: start_bare_pub(manager, *home), homes))
        wait_until(all_run, "all bare pubs to run", every=SOON_SECONDS, patience=START_SECONDS)

    return seconds(start)


def start_bare_pub(manager: Client, port: int, hub: Any) -> None:
    from django.conf import settings

    from orchestrator.record import GB
    from orchestrator.swarm import PubService, service_name

    bot, engine, image = uuid4(), engine_on(hub.address), settings.PUB_IMAGE
    name = service_name(bot)
    container = f"/containers/{name}-init"
    engine.call("POST", "/volumes/create", {"Name": name, "Labels": labels(bot)})
    engine.call("POST", "/containers/create", init_spec(bot, image), name=f"{name}-init")
    engine.call("POST", f"{container}/start")
    engine.call("POST", f"{container}/wait")
    with engine.stream("GET", f"{container}/logs", stdout="true") as answer:
        said = answer.read()[8:]  # before it stands the head of Docker's frame
    engine.call("DELETE", container, force="true")
    memory = settings.PUB_MEMORY_GB * GB
    pub = PubService(bot, json.loads(said)["id"], hub.node_id, port, settings.PUB_HOST, image, memory, restarts=0)
    manager.call("POST", "/services/create", service_spec(pub))


def clear(lab: Any) -> None:
    """Nothing is left of the pubs, in the database and on the machines."""
    from orchestrator.models import Placement
    from pubs.models import Bot

    Placement.objects.all().delete()
    Bot.objects.all().delete()
    for service in lab.manager.engine.services.list():
        service.remove()
    for machine in lab.machines:
        api = machine.engine.api
        wait_until(lambda api=api: not api.containers(all=True), "the containers to be gone", every=0.5)
        api.prune_volumes()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except docker.errors.DockerException as error:
        sys.exit(f"error: the Docker engine does not do it: {error}")
