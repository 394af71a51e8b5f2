"""What it costs to watch pubs: the engine, our collector, the way to the browsers, and history.

    .venv/bin/python bench/stats.py [--check] [--only engine|collector|fan-out|history]

README.md in this folder says what the figures mean.
"""

import argparse
import asyncio
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import statistics
import sys
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import docker
import uvloop
from support import ROOT, BenchError, Report, count_queries, cpu_seconds, free_ports, median, own_django, remove_all

sys.path.insert(0, str(ROOT))

STREAMS = 100
COLLECTOR_RATIO = 1.5
VIEWERS = 500
SOCKETS = 1000
AT_ONCE = 20  # of them come in at a time
HISTORY_RATIO = 2
DAYS = 730  # that steps of a day are kept
OTHERS = 30  # bots beside the one that is read
RUNS = 15
SETTLE_SECONDS = 12


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="exit status 1 when a target is missed")
    arguments.add_argument(
        "--pairs", type=int, default=3, metavar="N", help="turns of ours and of what it stands beside"
    )
    arguments.add_argument("--seconds", type=float, default=10, metavar="S", help="of each turn")
    arguments.add_argument("--only", choices=["engine", "collector", "fan-out", "history"], help="one part of it")
    asked = arguments.parse_args()
    # Ended by a signal it still cleans up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))
    report = Report()
    try:
        with own_django(SWARM="orchestrator.swarm.engine.EngineSwarm", PUB_IMAGE="sha256:" + "0" * 64):
            if asked.only in (None, "engine", "collector"):
                number = 1 if asked.only == "engine" else STREAMS
                with small_pubs(number) as bots:
                    if asked.only in (None, "engine"):
                        measure_engine(bots[0], asked.pairs, asked.seconds, report)
                    if asked.only in (None, "collector"):
                        measure_collector(bots, asked.pairs, asked.seconds, report)
            if asked.only in (None, "fan-out"):
                measure_fan_out(asked.seconds, report)
            if asked.only in (None, "history"):
                measure_history(report)
    except BenchError as error:
        sys.exit(f"error: {error}")
    return 1 if asked.check and report.missed else 0


# --- Pubs that cost nothing ------------------------------------------------------------------------------------------
@contextmanager
def small_pubs(number: int) -> Iterator[list[UUID]]:
    """As many rows of bots on one hub, each with a container of a few hundred kilobytes on this machine's engine."""
    from django.conf import settings

    from accounts.models import User
    from orchestrator import swarm
    from orchestrator.models import Hub, Placement
    from orchestrator.swarm.glance import TASK
    from orchestrator.swarm.spec import labels
    from pubs.models import Bot

    engine = docker.APIClient(version="auto", timeout=60)
    node = next(node.id for node in swarm.connect().look().nodes if node.is_manager_here)
    image = _small_image(engine)
    owner = User.objects.create_user("bench@customer.example", name="Bench")
    hub = Hub.objects.create(name="bench", state=Hub.State.READY, node_id=node, places=number)
    bots = [Bot.objects.create(owner=owner, name=f"Pub {nth}", paid=True).pk for nth in range(number)]
    for nth, bot in enumerate(bots):
        Placement.objects.create(bot_id=bot, hub=hub, port=30000 + nth, label=str(nth))

    def start(bot: UUID) -> None:
        made = engine.create_container(
            image,
            ["sleep", "100000"],
            labels=labels(bot) | {TASK: "bench"},
            host_config=engine.create_host_config(mem_limit=2**24, init=False),
        )
        engine.start(made["Id"])

    try:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(start, bots))
        yield bots
    finally:
        remove_all(engine, settings.DEPLOYMENT)
        engine.remove_image(image, force=True)


def _small_image(engine: docker.APIClient) -> str:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        program = tarfile.TarInfo("bin/sleep")
        body = Path(shutil.which("busybox") or "").read_bytes()
        program.mode, program.size = 0o755, len(body)
        tar.addfile(program, io.BytesIO(body))
    name = f"bench-{uuid4().hex[:6]}"
    engine.import_image_from_data(packed.getvalue(), name, "small")
    return f"{name}:small"


# --- A process that is measured from outside -------------------------------------------------------------------------
class Measured:
    """A child that works in turns, and says how much CPU it used for how many samples."""

    def __init__(
        self, loop: Callable[[], asyncio.AbstractEventLoop], work: Callable[..., Awaitable[None]], *args: Any
    ) -> None:
        context = multiprocessing.get_context("fork")
        self._door, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, loop, work, args), daemon=True)
        self._process.start()

    def turn(self, seconds: float) -> tuple[float, int]:
        """CPU seconds and samples."""
        self._door.send(seconds)
        return self._door.recv()  # type: ignore[no-any-return]

    def end(self) -> None:
        self._process.terminate()
        self._process.join(10)


def _serve(
    door: Connection, loop: Callable[[], asyncio.AbstractEventLoop], work: Callable[..., Awaitable[None]], args: Any
) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    async def run() -> None:
        while True:
            seconds = await asyncio.to_thread(door.recv)
            count = [0]
            working = asyncio.create_task(work(count, *args))  # type: ignore[arg-type]
            await asyncio.sleep(SETTLE_SECONDS)  # the streams are opened, and what is loaded once is loaded
            before, seen = time.process_time(), count[0]
            await asyncio.sleep(seconds)
            door.send((time.process_time() - before, count[0] - seen))
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


# --- The collector ---------------------------------------------------------------------------------------------------
async def read_bare(count: list[int], containers: list[str]) -> None:
    """The shortest way to 100 streams: aiohttp, and orjson makes a dict of each line."""
    import aiohttp
    import orjson

    async def read(session: aiohttp.ClientSession, container: str) -> None:
        async with session.get(f"http://docker/v1.41/containers/{container}/stats?stream=true") as answer:
            async for line in answer.content:
                orjson.loads(line)
                count[0] += 1

    connector = aiohttp.UnixConnector("/var/run/docker.sock", limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
        await asyncio.gather(*(read(session, container) for container in containers))


async def read_ours(count: list[int], bots: list[UUID]) -> None:
    """The whole broadcaster: leases, samples for history, streams, the cache and the channel layer."""
    from channels.layers import get_channel_layer

    from orchestrator.stats import Broadcaster
    from pubs import live

    live.WATCH_SECONDS = 10_000
    layer: Any = get_channel_layer()
    send = type(layer).group_send

    async def counted(group: str, message: dict[str, Any]) -> None:
        count[0] += 1
        await send(layer, group, message)

    layer.group_send = counted
    broadcaster = Broadcaster()
    for bot in bots:
        broadcaster.watch(bot)
    await broadcaster.run()


def measure_collector(bots: list[UUID], pairs: int, seconds: float, report: Report) -> None:
    from django.conf import settings
    from django.db import connections

    engine = docker.APIClient(version="auto", timeout=60)
    ours_to_read = engine.containers(filters={"label": f"buttcloud.deployment={settings.DEPLOYMENT}"})
    connections.close_all()  # a child must not share them
    sides = {
        "bare": Measured(asyncio.new_event_loop, read_bare, [each["Id"] for each in ours_to_read]),
        "ours": Measured(uvloop.new_event_loop, read_ours, bots),  # as `manage.py broadcast` does
    }
    cost: dict[str, list[float]] = {name: [] for name in sides}
    percent: dict[str, list[float]] = {name: [] for name in sides}
    try:
        for turn in range(pairs):
            for name in ("bare", "ours") if turn % 2 else ("ours", "bare"):
                cpu, samples = sides[name].turn(seconds)
                if samples < 0.5 * len(bots) * seconds:
                    raise BenchError(f"{name} got {samples} samples of {len(bots)} streams in {seconds:.0f} s.")
                cost[name].append(cpu / samples)
                percent[name].append(cpu / seconds * 100)
    finally:
        for side in sides.values():
            side.end()
    report.table(
        f"CPU of one process that reads {len(bots)} streams, medians of {pairs} turns of {seconds:.0f} s",
        ["of", "% of a core", "ms a sample"],
        [[name, f"{median(percent[name]):.1f}", f"{median(cost[name]) * 1000:.3f}"] for name in sides],
    )
    of_bare = median([one / other for one, other in zip(cost["ours"], cost["bare"], strict=True)])
    report.target("CPU a sample, ours / bare", of_bare, COLLECTOR_RATIO)


# --- The engine ------------------------------------------------------------------------------------------------------
def measure_engine(bot: UUID, pairs: int, seconds: float, report: Report) -> None:
    alone, many, noise, streams = asyncio.run(_watch_engine(bot, pairs, seconds))
    report.table(
        f"CPU of dockerd and containerd while one pub is watched, {pairs} turns of {seconds:.0f} s",
        ["viewers", "% of a core, median", "open streams, most"],
        [
            ["1", f"{median(alone):.2f}", str(streams[1])],
            [str(VIEWERS), f"{median(many):.2f}", str(streams[VIEWERS])],
        ],
    )
    report.target("open streams of the pub", max(streams.values()), 1, digits=0)
    difference = abs(median(many) - median(alone))
    report.target(
        f"percent of a core that {VIEWERS} viewers and 1 differ by, at most what 1 and 1 do", difference, noise
    )


async def _watch_engine(
    bot: UUID, pairs: int, seconds: float
) -> tuple[list[float], list[float], float, dict[int, int]]:
    from orchestrator import swarm
    from orchestrator.stats import Broadcaster
    from orchestrator.swarm.engine import EngineSwarm

    class Counting(EngineSwarm):
        open = most = 0

        async def stats(self, bot_id: UUID, node_id: str) -> AsyncIterator[Any]:
            self.open += 1
            self.most = max(self.most, self.open)
            try:
                async with aclosing(super().stats(bot_id, node_id)) as samples:  # type: ignore[type-var]
                    async for sample in samples:
                        yield sample
            finally:
                self.open -= 1

    counting = Counting()
    swarm.connect = lambda: counting
    engine = _engine_processes()
    scope = await asyncio.to_thread(_scope_of, bot)
    broadcaster = asyncio.create_task(Broadcaster().run())
    used: dict[int, list[float]] = {1: [], VIEWERS: []}
    streams = {1: 0, VIEWERS: 0}
    noise = 0.0
    try:
        for _ in range(pairs):
            for viewers in (1, VIEWERS, 1):
                async with _viewers(scope, viewers):
                    await asyncio.sleep(SETTLE_SECONDS)
                    counting.most = counting.open
                    before = sum(map(cpu_seconds, engine))
                    await asyncio.sleep(seconds)
                    used[viewers].append((sum(map(cpu_seconds, engine)) - before) / seconds * 100)
                    streams[viewers] = max(streams[viewers], counting.most)
            noise = max(noise, abs(used[1][-1] - used[1][-2]))
    finally:
        broadcaster.cancel()
        with suppress(asyncio.CancelledError):
            await broadcaster
    # The system counts in ticks, of which each window may win or lose one for each process.
    return used[1], used[VIEWERS], noise + len(engine) / os.sysconf("SC_CLK_TCK") / seconds * 100, streams


def _engine_processes() -> list[int]:
    """Those of this machine's engine, not of one that somebody runs in a namespace of its own."""
    here = os.readlink("/proc/self/ns/pid")
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_engine = (folder / "comm").read_text().strip() in ("dockerd", "containerd")
            if is_engine and os.readlink(folder / "ns/pid") == here:
                found.append(int(folder.name))
    if not found:
        raise BenchError("There is no dockerd on this machine whose CPU could be read.")
    return found


def _scope_of(bot: UUID) -> dict[str, Any]:
    """A visit of the bot's owner."""
    from types import SimpleNamespace

    from django.test import Client

    from pubs.models import Bot

    owner = Bot.objects.get(pk=bot).owner
    client = Client()
    client.force_login(owner)
    session = SimpleNamespace(session_key=client.session.session_key)
    route = {"kwargs": {"bot_id": bot}}
    return {"type": "websocket", "user": owner, "session": session, "url_route": route, "headers": []}


@asynccontextmanager
async def _viewers(scope: dict[str, Any], number: int) -> AsyncIterator[None]:
    """As many open pages, without the network between."""
    from orchestrator.consumers import PubConsumer

    async def drop(message: Any) -> None:
        pass

    said: list[asyncio.Queue[dict[str, Any]]] = [asyncio.Queue() for _ in range(number)]
    pages = []
    for each in said:
        each.put_nowait({"type": "websocket.connect"})
        pages.append(asyncio.create_task(PubConsumer.as_asgi()(dict(scope), each.get, drop)))
    try:
        yield
    finally:
        for each in said:
            each.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await asyncio.gather(*pages)


# --- To the browsers -------------------------------------------------------------------------------------------------
def measure_fan_out(seconds: float, report: Report) -> None:
    from accounts.models import User
    from pubs.models import Bot

    owner = User.objects.create_user("fan@customer.example", name="Fan")
    bot = Bot.objects.create(owner=owner, name="Fan", paid=True).pk
    session = _scope_of(bot)["session"].session_key
    took = asyncio.run(_fan_out(bot, session, max(5, int(seconds))))
    quantiles = statistics.quantiles(took, n=20, method="inclusive")
    report.table(
        f"From the broadcaster's word to {SOCKETS} browsers of one pub, {len(took)} frames, ms",
        ["", "median", "p95", "longest"],
        [["real sockets over loopback", *(f"{each * 1000:.0f}" for each in (quantiles[9], quantiles[18], max(took)))]],
    )


async def _fan_out(bot: UUID, session: str, frames: int) -> list[float]:
    from channels.layers import get_channel_layer

    from buttcloud.asgi import application
    from buttcloud.management.commands.up import make_server
    from pubs import live

    (port,) = free_ports(1)
    server = make_server(application)
    server.config.host, server.config.port = "127.0.0.1", port
    serving = asyncio.create_task(server.serve())
    # Not a fork: this process has threads and a loop.
    spawning = multiprocessing.get_context("spawn")
    door, theirs = spawning.Pipe()
    address = f"ws://localhost:{port}/ws/pubs/{bot}/"
    browsers = multiprocessing.get_context("spawn").Process(
        target=_browse, args=(theirs, address, session), daemon=True
    )
    browsers.start()
    try:
        if await _hear(door, 400) != SOCKETS:
            raise BenchError("The browsers did not get in.")
        layer: Any = get_channel_layer()
        for seq in range(1, frames + 1):
            sample = {
                "seq": seq,
                "sent": time.monotonic(),
                **dict.fromkeys(live.Stats.__annotations__.keys() - {"seq"}, 1),
            }
            await layer.group_send(live.group(bot), {"type": "stats", "sample": sample})
            await asyncio.sleep(1)
        door.send("done")
        return await _hear(door, 30)  # type: ignore[no-any-return]
    finally:
        browsers.kill()
        server.should_exit = True
        await serving


async def _hear(door: Connection, seconds: float) -> Any:
    """Without a thread, for whose end the process would wait when the bench is ended from outside."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not door.poll():
                await asyncio.sleep(0.05)
            return door.recv()
    raise BenchError(f"The browsers said nothing for {seconds:.0f} s.")


def _browse(door: Connection, address: str, session: str) -> None:
    """SOCKETS browsers in a process of their own: what each frame took."""
    import websockets

    took: list[float] = []

    async def browse(is_in: asyncio.Semaphore) -> None:
        cookie, origin = {"Cookie": f"sessionid={session}"}, websockets.Origin("http://localhost")
        async with websockets.connect(address, additional_headers=cookie, origin=origin, open_timeout=120) as page:
            await page.recv()
            is_in.release()
            async for message in page:
                said = json.loads(message)
                if "sent" in said:
                    took.append(time.monotonic() - said["sent"])

    async def run() -> None:
        is_in = asyncio.Semaphore(0)
        pages = []
        for _ in range(SOCKETS // AT_ONCE):
            pages += [asyncio.create_task(browse(is_in)) for _ in range(AT_ONCE)]
            for _ in range(AT_ONCE):
                await is_in.acquire()
        door.send(len(pages))
        await asyncio.to_thread(door.recv)
        door.send(took)

    asyncio.run(run())


# --- History ---------------------------------------------------------------------------------------------------------
def measure_history(report: Report) -> None:
    from pubs import history
    from pubs.models import Bot

    bot = Bot.objects.get(pk=_two_years(OTHERS))
    ranges = list(history.RANGES)
    times = {name: [] for name in ranges}  # type: dict[str, list[float]]
    queries = {name: count_queries(lambda name=name: history.read(bot, name)) for name in ranges}  # type: ignore[misc]
    for _ in range(RUNS):
        for name in ranges:
            began = time.perf_counter()
            history.read(bot, name)
            times[name].append(time.perf_counter() - began)
    hour = median(times["1h"])
    slots = {name: each.length.total_seconds() / each.step for name, each in history.RANGES.items()}
    report.table(
        f"A pub's history, two years of it and of {OTHERS} others, median of {RUNS}",
        ["range", "steps", "queries", "ms", "of 1 h", "of 1 h, a step"],
        [
            [
                name,
                f"{slots[name]:.0f}",
                str(queries[name]),
                f"{median(times[name]) * 1000:.1f}",
                f"{median(times[name]) / hour:.2f}",
                f"{median(times[name]) / hour * slots['1h'] / slots[name]:.2f}",
            ]
            for name in ranges
        ],
    )
    report.target("queries of any range", max(queries.values()), 1, digits=0)
    worst = max(median(times[name]) / hour * slots["1h"] / slots[name] for name in ranges)
    report.target("time a step of any range, of that of 1 h", worst, HISTORY_RATIO)


def _two_years(others: int) -> UUID:
    """All that is kept of a bot that ran all the time: each step as long as it is kept. The others have the same."""
    from django.db import connection
    from django.utils import timezone

    from accounts.models import User
    from orchestrator.collect import columns
    from pubs import history
    from pubs.models import METRICS, Bot, StatsSample

    owner = User.objects.create_user("past@customer.example", name="Past")
    bots = [Bot.objects.create(owner=owner, name=f"Past {nth}", paid=True).pk for nth in range(others + 1)]
    lengths = {each.step: each.length.total_seconds() for each in history.RANGES.values()} | {86400: DAYS * 86400.0}
    now, rows = timezone.now().timestamp(), []
    for step, length in lengths.items():
        for nth in range(int(length / step) + 1):
            at = datetime.fromtimestamp(now // step * step - nth * step, UTC)
            figures = dict.fromkeys(METRICS, random.randrange(1000))
            rows.append(StatsSample(bot_id=bots[0], step=step, at=at, **dict(columns(figures))))
    StatsSample.objects.bulk_create(rows, batch_size=500)
    copied = [field.column for field in StatsSample._meta.local_fields if field.column not in ("id", "bot_id")]
    names, table = ", ".join(copied), StatsSample._meta.db_table
    with connection.cursor() as cursor:
        value = StatsSample._meta.get_field("bot").get_db_prep_value
        for bot in bots[1:]:
            both = [value(each, connection) for each in (bot, bots[0])]
            cursor.execute(
                f"INSERT INTO {table} (bot_id, {names}) SELECT %s, {names} FROM {table} WHERE bot_id = %s", both
            )
    return bots[0]


if __name__ == "__main__":
    sys.exit(main())
