"""A sample of Docker's stats into ours: the figures of `docker stats`, on cgroup v1 and v2."""

from datetime import datetime
from typing import Any, NamedTuple

from pubs.live import Stats

Dict = dict[str, Any]  # one of Docker's


class Reading(NamedTuple):
    """What we take from one of Docker's samples. It waits for the next, for the rates: the whole would cost memory, and
    with so many small things that live on, time.
    """

    read: str  # when, as Docker wrote it
    seconds: float  # and since 1970
    cpu: int  # nanoseconds, of all cores
    system: int  # and of all that ran on the machine; 0 if unknown
    cores: int
    memory: int
    memory_limit: int
    pids: int
    # Bytes since its start.
    rx: int
    tx: int
    read_bytes: int
    write_bytes: int


def reading(raw: Dict) -> Reading | None:
    """None for what Docker says of a container that has ended."""
    if not (memory := raw.get("memory_stats")):
        return None
    details = memory.get("stats") or {}
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    cpu = raw["cpu_stats"]
    rx = tx = read = write = 0
    for network in (raw.get("networks") or {}).values():
        rx += network["rx_bytes"]
        tx += network["tx_bytes"]
    for entry in (raw.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ():
        if entry["op"] in ("Read", "read"):
            read += entry["value"]
        elif entry["op"] in ("Write", "write"):
            write += entry["value"]
    return Reading(
        raw["read"],
        time_of(raw["read"]).timestamp(),
        cpu["cpu_usage"]["total_usage"],
        cpu.get("system_cpu_usage", 0),
        cpu.get("online_cpus") or len(cpu["cpu_usage"].get("percpu_usage") or [0]),
        max(0, memory.get("usage", 0) - cache),
        memory.get("limit", 0),
        (raw.get("pids_stats") or {}).get("current", 0),
        rx,
        tx,
        read,
        write,
    )


def sample(now: Reading, before: Reading) -> Stats:
    """`before` is the one before it, for the rates."""
    seconds = now.seconds - before.seconds or 1.0
    return Stats(
        at=now.read,
        # Of the time that it was taken at: it grows also from one stream, and one hub, to the next.
        seq=round(now.seconds * 1000),
        cpu=_cpu(now, before),
        memory=now.memory,
        memory_limit=now.memory_limit,
        pids=now.pids,
        net_rx=now.rx,
        net_tx=now.tx,
        disk_read=now.read_bytes,
        disk_write=now.write_bytes,
        rx_rate=max(0.0, (now.rx - before.rx) / seconds),
        tx_rate=max(0.0, (now.tx - before.tx) / seconds),
        read_rate=max(0.0, (now.read_bytes - before.read_bytes) / seconds),
        write_rate=max(0.0, (now.write_bytes - before.write_bytes) / seconds),
    )


def _cpu(now: Reading, before: Reading) -> float:
    """Percent of one core, over the time between both; 0 where there is nothing before it."""
    passed = now.system - before.system
    if not before.system or passed <= 0:
        return 0.0
    return max(0.0, round((now.cpu - before.cpu) / passed * now.cores * 100, 2))


def time_of(written: str) -> datetime:
    """Docker writes nanoseconds and leaves out zeros at the end."""
    return datetime.fromisoformat(f"{written[:19]}.{written[20:].rstrip('Z').ljust(6, '0')[:6]}+00:00")
