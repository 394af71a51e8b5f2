"""A sample of Docker's stats into ours: the figures of `docker stats`, on cgroup v1 and v2."""

from datetime import datetime
from typing import Any

from pubs.live import Stats


def sample(raw: dict[str, Any], before: dict[str, Any] | None) -> Stats:
    """`before` is the sample before it, for the rates; without one they are 0."""
    memory = raw["memory_stats"]
    details = memory.get("stats") or {}
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    at, totals = time_of(raw["read"]), _totals(raw)
    if before:
        seconds = (at - time_of(before["read"])).total_seconds() or 1.0
        rates = [max(0.0, (now - then) / seconds) for now, then in zip(totals, _totals(before), strict=True)]
    else:
        rates = [0.0] * len(totals)
    return Stats(
        at=raw["read"],
        # Of the time that it was taken at: it grows also from one stream, and one hub, to the next.
        seq=round(at.timestamp() * 1000),
        cpu=_cpu(raw["cpu_stats"], before["cpu_stats"] if before else raw["precpu_stats"]),
        memory=max(0, memory.get("usage", 0) - cache),
        memory_limit=memory.get("limit", 0),
        pids=(raw.get("pids_stats") or {}).get("current", 0),
        net_rx=totals[0],
        net_tx=totals[1],
        disk_read=totals[2],
        disk_write=totals[3],
        rx_rate=rates[0],
        tx_rate=rates[1],
        read_rate=rates[2],
        write_rate=rates[3],
    )


def is_last_word(raw: dict[str, Any]) -> bool:
    """What Docker says of a container that has ended."""
    return not raw.get("memory_stats")


def _totals(raw: dict[str, Any]) -> tuple[int, int, int, int]:
    """Bytes since its start: in and out, read and written."""
    rx = tx = read = write = 0
    for network in (raw.get("networks") or {}).values():
        rx += network["rx_bytes"]
        tx += network["tx_bytes"]
    for entry in (raw.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ():
        if entry["op"] in ("Read", "read"):
            read += entry["value"]
        elif entry["op"] in ("Write", "write"):
            write += entry["value"]
    return rx, tx, read, write


def _cpu(now: dict[str, Any], then: dict[str, Any]) -> float:
    """Percent of one core, over the time between both; 0 where there is nothing before it."""
    if "system_cpu_usage" not in then or "system_cpu_usage" not in now:
        return 0.0
    used = now["cpu_usage"]["total_usage"] - then["cpu_usage"]["total_usage"]
    passed = now["system_cpu_usage"] - then["system_cpu_usage"]
    cores = now.get("online_cpus") or len(now["cpu_usage"].get("percpu_usage") or [0])
    return max(0.0, round(used / passed * cores * 100, 2)) if passed > 0 else 0.0


def time_of(written: str) -> datetime:
    """Docker writes nanoseconds and leaves out zeros at the end."""
    return datetime.fromisoformat(f"{written[:19]}.{written[20:].rstrip('Z').ljust(6, '0')[:6]}+00:00")
