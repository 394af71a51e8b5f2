"""A swarm in memory for pages to look at: its pubs answer when told to, and their figures go up and down."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from orchestrator.swarm import NotRunning, Output, PubService, Service
from orchestrator.swarm.memory import MemorySwarm
from pubs.live import Stats
from pubs.working import newest_version

MB = 1024**2
INVITE = "pubs.example.org:29000:@bWFkZS1mb3ItYS10ZXN0LW9mLXRoZS1wYWdlcy0wMDA=.ed25519~c2VlZC1tYWRlLWZvci1hLXRlc3Q="

STATUS = {
    **{"version": newest_version(), "uptime": 4000, "sequence": 12, "feeds": 8, "messages": 3400, "synced": None},
    **{"peers": 2, "followers": 1, "following": 1, "restoring": None, "disk": {"total": 90 * MB, "blobs": 12 * MB}},
}


class StagedSwarm(MemorySwarm):
    """`healthy`: pubs answer. `measured`: samples come."""

    healthy = True
    measured = True

    def __init__(self) -> None:
        super().__init__()
        self.answers["invite.create"] = self._make_invite
        self.answers["status"] = lambda argv: answer(STATUS)
        self.answers["members"] = lambda argv: answer([{"id": f"@{'m' * 43}=.ed25519", "name": "Ada"}])

    def _make_invite(self, argv: list[str]) -> Output:
        asked = json.loads(argv[2])
        return answer({"invite": INVITE, "id": f"@{'i' * 43}=.ed25519", "uses": asked["uses"]})

    def _seen(self, pub: PubService) -> Service:
        return replace(super()._seen(pub), healthy=self.healthy, complaint="" if self.healthy else "starting")

    async def stats(self, bot_id: UUID, node_id: str) -> AsyncIterator[Stats]:
        for second in range(86_400):
            if bot_id not in self._answering(node_id).containers:
                raise NotRunning("The pub is not running just now.")
            yield sample(self._memory_of(bot_id), second, datetime.now(UTC))
            await asyncio.sleep(1)
            while not self.measured:
                await asyncio.sleep(0.1)


def answer(result: Any) -> Output:
    """What pubctl prints when all went well."""
    return Output(0, json.dumps({"id": 1, "ok": True, "result": result}) + "\n", "")


def sample(memory_limit: int, second: int, at: datetime) -> Stats:
    """A pub with a friend who syncs every 40 seconds."""
    busy = math.exp(-(((second % 40) - 12) ** 2) / 30)
    wave = 1 + math.sin(second * 1.7) / 3
    return Stats(
        at=at.isoformat(),
        seq=round(at.timestamp() * 1000),
        cpu=round(1.1 * wave + 17 * busy, 1),
        memory=int((96 + second * 0.08 + 4 * busy) * MB),
        memory_limit=memory_limit,
        net_rx=48 * MB + 1000 * second,
        net_tx=131 * MB + 2000 * second,
        disk_read=6 * MB,
        disk_write=52 * MB + 3000 * second,
        rx_rate=900 * wave + 21_000 * busy,
        tx_rate=400 * wave + 46_000 * busy,
        read_rate=0.0,
        write_rate=300 * wave + 30_000 * busy,
        pids=11,
    )
