"""Figures of real containers, from real engines: they agree with Docker's own, and outlast what engines do."""

import asyncio
import os
import re
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from uuid import UUID, uuid4

import docker
import pytest
from django.conf import settings

from orchestrator import machines, stats, swarm
from orchestrator.models import Hub, Placement
from orchestrator.stats import Broadcaster
from orchestrator.swarm import Unreachable
from orchestrator.swarm.engine import EngineSwarm
from orchestrator.swarm.glance import TASK
from orchestrator.swarm.spec import labels
from pubs.live import Stats
from tests.support.lab.lab import Lab
from tests.support.lab.machine import Machine
from tests.support.make import Maker
from tests.support.wait import until, until_async

Container = docker.models.containers.Container

BUSY = "while :; do i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; sleep 0.1; done"


def start(engine: docker.DockerClient, image: str, bot: UUID, script: str) -> Container:
    """A container that looks like a pub's."""
    return engine.containers.run(
        image,
        ["-c", script],
        entrypoint="sh",
        detach=True,
        mem_limit="128m",
        labels=labels(bot) | {TASK: "test"},
    )


@pytest.fixture
def busy(engine: docker.DockerClient) -> Iterator[tuple[UUID, Container]]:
    bot = uuid4()
    container = start(engine, settings.PUB_IMAGE, bot, BUSY)
    yield bot, container
    container.remove(force=True)


def node_here(connected: EngineSwarm) -> str:
    return next(node.id for node in connected.look().nodes if node.is_manager_here)


UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 1e3, "MB": 1e6, "GB": 1e9}


def size(written: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)([A-Za-z]+)", written.strip()).groups()  # type: ignore[union-attr]
    return float(number) * UNITS[unit]


def docker_stats(container: Container) -> dict[str, float]:
    """What the program says to a person."""
    fields = "{{.CPUPerc}}|{{.MemUsage}}|{{.NetIO}}|{{.BlockIO}}|{{.PIDs}}"
    asked = ["docker", "stats", "--no-stream", "--format", fields, container.id]
    cpu, memory, network, disk, pids = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split(
        "|"
    )
    used, limit = memory.split("/")
    (rx, tx), (read, write) = network.split("/"), disk.split("/")
    sizes = {"memory": used, "memory_limit": limit, "net_rx": rx, "net_tx": tx, "disk_read": read, "disk_write": write}
    return {name: size(each) for name, each in sizes.items()} | {"cpu": float(cpu.rstrip("%")), "pids": float(pids)}


async def some(samples: AsyncIterator[Stats], number: int) -> list[Stats]:
    async with aclosing(samples) as opened:  # type: ignore[type-var]
        return [await anext(opened) for _ in range(number)]


async def test_the_figures_are_those_of_docker_stats(real_swarm: EngineSwarm, busy: tuple[UUID, Container]) -> None:
    bot, container = busy
    theirs = [await asyncio.to_thread(docker_stats, container)]
    ours = await some(real_swarm.stats(bot, node_here(real_swarm)), 3)
    theirs += [await asyncio.to_thread(docker_stats, container) for _ in range(2)]
    assert theirs[0]["cpu"] > 1 and theirs[0]["memory"] > 0, "it does something"
    for name in theirs[0]:
        low, high = (bound([each[name] for each in theirs]) for bound in (min, max))
        # As far as two reads of Docker's own program differ, and a tenth, for it rounds.
        noise = (high - low) + 0.1 * high + 0.2
        values = [each[name] for each in ours]  # type: ignore[literal-required]
        assert low - noise <= sum(values) / len(values) <= high + noise, (name, values, low, high)


async def test_a_glance_agrees_with_the_stream_and_tells_how_others_ended(
    real_swarm: EngineSwarm, busy: tuple[UUID, Container], engine: docker.DockerClient
) -> None:
    bot, _ = busy
    ended = {
        code: start(engine, settings.PUB_IMAGE, uuid4(), script)
        for code, script in ((3, "exit 3"), (137, "tail /dev/zero"))
    }
    try:
        for container in ended.values():
            container.wait()
        node = node_here(real_swarm)
        async with aclosing(real_swarm.glances(node, 2)) as glances:  # type: ignore[type-var]
            first, second = await anext(glances), await anext(glances)
            gone = ended.pop(3)
            await asyncio.to_thread(gone.remove)
            third = await anext(glances)
        streamed = await some(real_swarm.stats(bot, node), 2)
    finally:
        for container in ended.values():
            container.remove(force=True)
    assert bot not in first.stats and second.stats[bot]["seq"] < third.stats[bot]["seq"] < streamed[0]["seq"]
    cpu = [each["cpu"] for each in streamed]
    assert min(cpu) * 0.5 < second.stats[bot]["cpu"] < max(cpu) * 2
    assert {each.exit_code: (each.out_of_memory, each.unhealthy) for each in second.ended} == {
        3: (False, False),
        137: (True, False),
    }
    assert first.ended == second.ended and [each.exit_code for each in third.ended] == [137]


async def test_a_stream_ends_with_its_container_and_leaves_nothing(
    real_swarm: EngineSwarm, busy: tuple[UUID, Container]
) -> None:
    bot, container = busy
    node = node_here(real_swarm)
    await some(real_swarm.stats(bot, node), 1)

    def held() -> tuple[int, int, int]:
        # The loop keeps a pool of threads, and makes one more when the last is not back yet.
        threads = [thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")]
        return len(os.listdir("/proc/self/fd")), len(threads), len(asyncio.all_tasks())

    before = held()
    for _ in range(3):
        await some(real_swarm.stats(bot, node), 1)
    assert held() == before
    samples = real_swarm.stats(bot, node)
    await anext(samples)
    await asyncio.to_thread(container.kill)
    with suppress(StopAsyncIteration):
        async with asyncio.timeout(10):
            while True:
                await anext(samples)


# --- on another machine ----------------------------------------------------------------------------------------------
@pytest.fixture
def far(lab: Lab) -> tuple[str, Machine]:
    """One more machine in the swarm, with the small pub's image."""
    token, connected = uuid4(), swarm.connect()
    machines.connect().create(token, f"hub-{token.hex[:4]}", lambda: "")
    node = until(
        "it is in the swarm",
        lambda: next((node.id for node in connected.look().nodes if node.claims == token), ""),
        seconds=180,
    )
    until("its engine answers", lambda: connected.engines([node]) == {node: ""})
    connected.have_image(node, settings.PUB_IMAGE)
    machine = lab.machine(token)
    assert machine
    return node, machine


@pytest.mark.django_db(transaction=True)
async def test_figures_come_again_after_an_engine_restarts_and_after_a_hub_was_out_of_reach(
    far: tuple[str, Machine], transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, machine = far
    bot = await asyncio.to_thread(Maker().bot)
    hub = await Hub.objects.acreate(name="far", state=Hub.State.READY, node_id=node, places=15)
    await Placement.objects.acreate(bot=bot, hub=hub, port=29000, label="far")
    monkeypatch.setattr(stats, "RETRY_SECONDS", 0.3)
    monkeypatch.setattr("orchestrator.collect.PAUSE_SECONDS", 0.3)
    run = lambda: start(machine.engine, settings.PUB_IMAGE, bot.pk, BUSY)  # noqa: E731
    await asyncio.to_thread(run)
    broadcaster = Broadcaster()
    running = asyncio.create_task(broadcaster.run())

    def comes_after(seq: int) -> Callable[[], bool]:
        def look() -> bool:
            broadcaster.watch(bot.pk)
            newest = stats.live.newest_stats(bot.pk)
            return newest is not None and newest["seq"] > seq

        return look

    def seq() -> int:
        newest = stats.live.newest_stats(bot.pk)
        assert newest
        return newest["seq"]

    try:
        await until_async(comes_after(0), seconds=30)
        await asyncio.to_thread(machine.kill_engine)
        await asyncio.to_thread(machine.start_engine)
        await asyncio.to_thread(run)  # as Swarm would
        await until_async(comes_after(seq() + 1000), seconds=30)
        assert len(broadcaster.streams) == 1
        await asyncio.to_thread(machine.cut)
        with pytest.raises(Unreachable):
            await some(swarm.connect().stats(bot.pk, node), 10)
        await asyncio.to_thread(machine.heal)
        await until_async(comes_after(seq() + 1000), seconds=30)
        assert len(broadcaster.streams) == 1
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
