"""The swarm's twin in memory: one node, services that are healthy at the next look. Mishaps are subclasses."""

import asyncio
import base64
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from uuid import UUID

from orchestrator.swarm import (
    Node,
    NotRunning,
    Output,
    PubService,
    Service,
    Sight,
    SwarmError,
    Unreachable,
    digest_of,
    service_name,
)
from pubs.live import Stats

GB = 1024**3
Answer = Callable[[list[str]], Output]


class MemorySwarm:
    def __init__(self, memory: int = 16 * GB) -> None:
        self.node = Node("node-1", "laptop", "127.0.0.1", True, memory, None, None, True)
        self.services: dict[UUID, PubService] = {}
        self.identities: dict[UUID, str] = {}
        self.restarted: list[UUID] = []
        # What a program in a pub answers: pubctl's command → function of its argument vector.
        self.answers: dict[str, Answer] = {}
        self.lock = threading.Lock()

    def look(self) -> Sight:
        return Sight(datetime.now(UTC), (self.node,), tuple(self._seen(pub) for pub in self.services.values()))

    def _seen(self, pub: PubService) -> Service:
        return Service(pub.bot_id, pub.node_id, self.digest(pub), healthy=True)

    def mark_node(self, node_id: str, hub: UUID) -> None:
        self.node = replace(self.node, hub=hub)

    def make_identity(self, bot_id: UUID, node_id: str, image: str) -> str:
        digest = base64.b64encode(hashlib.sha256(bot_id.bytes).digest()).decode()
        return self.identities.setdefault(bot_id, f"@{digest}.ed25519")

    def digest(self, pub: PubService) -> str:
        return digest_of(asdict(replace(pub, name="")))

    def put_service(self, pub: PubService) -> bool:
        with self.lock:
            if pub.port in {other.port for other in self.services.values() if other.bot_id != pub.bot_id}:
                raise SwarmError("host-mode port already in use on 1 node")
            before = self.services.get(pub.bot_id)
            if before and before != pub:
                self.restarted.append(pub.bot_id)
            self.services[pub.bot_id] = pub
            return before != pub

    def remove_service(self, bot_id: UUID) -> None:
        self.services.pop(bot_id, None)

    def _running(self, service: str) -> PubService:
        for pub in self.services.values():
            if service_name(pub.bot_id) == service and self._seen(pub).healthy:
                return pub
        raise NotRunning("The pub is not running just now.")

    def run(self, service: str, argv: list[str], timeout: float) -> Output:
        pub = self._running(service)
        if answer := self.answers.get(argv[1]):
            return answer(argv)
        if argv[1] == "whoami":
            return Output(0, json.dumps({"id": 1, "ok": True, "result": {"id": pub.ssb_id}}) + "\n", "")
        refusal = {"code": "UNKNOWN", "message": "unknown command"}
        return Output(1, json.dumps({"id": 1, "ok": False, "error": refusal}) + "\n", "")

    async def stats(self, service: str) -> AsyncIterator[Stats]:
        seq = 0
        while pub := self._running(service):
            yield _calm_sample(pub, seq)
            seq += 1
            await asyncio.sleep(1)


def _calm_sample(pub: PubService, seq: int) -> Stats:
    return Stats(
        at=datetime.now(UTC).isoformat(),
        seq=seq,
        cpu=1.5,
        memory=60 * 1024**2,
        memory_limit=pub.memory,
        net_rx=1000 * seq,
        net_tx=500 * seq,
        disk_read=0,
        disk_write=100 * seq,
        rx_rate=1000.0,
        tx_rate=500.0,
        read_rate=0.0,
        write_rate=100.0,
        pids=8,
    )


class NeverHealthy(MemorySwarm):
    """Each service starts and crashes again and again."""

    def _seen(self, pub: PubService) -> Service:
        return replace(super()._seen(pub), healthy=False, complaint="task: non-zero exit (1)")


class Silent(MemorySwarm):
    """An engine that does not answer."""

    def look(self) -> Sight:
        raise Unreachable("The Docker engine does not answer.")


class NodeDown(MemorySwarm):
    """The manager has lost sight of the node; nobody knows what runs there."""

    def look(self) -> Sight:
        sight = super().look()
        return replace(sight, nodes=tuple(replace(node, ready=False) for node in sight.nodes))


class Refusing(MemorySwarm):
    """Every service is refused."""

    def put_service(self, pub: PubService) -> bool:
        raise SwarmError("no space left on device")
