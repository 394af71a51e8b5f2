"""The swarm's twin in memory: any number of nodes, services that are healthy at the next look. Mishaps are subclasses.

`MemorySwarm()` is one node, whose engine is the manager that we talk to. More come by `add_node`; `cut` and `heal` take
one out of sight and back, `drop_node` is its machine gone for good. It does not make the swarm kinder than it is: what
is out of sight runs on, a node that is forgotten too early runs its pubs on, a volume is only where it was made.
"""

import asyncio
import base64
import hashlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

from orchestrator.swarm import (
    Ended,
    Glance,
    JoinTicket,
    LogLine,
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
LOOK_SECONDS = 0.02  # between two looks whether a pub has written something
SILENCE = "The Docker engine does not answer."
Answer = Callable[[list[str]], Output]


@dataclass(frozen=True)
class Volume:
    """What is on a bot's volume, as far as it matters: who it is, and how long its feed is."""

    ssb_id: str
    sequence: int = 0


@dataclass
class Engine:
    """A node and what its own engine holds."""

    node: Node
    answers: bool = True
    in_swarm: bool = True
    images: set[str] = field(default_factory=set)  # the manager's engine has all
    volumes: dict[UUID, Volume] = field(default_factory=dict)
    containers: set[UUID] = field(default_factory=set)  # bots of which a container runs there
    ended: dict[UUID, Ended] = field(default_factory=dict)  # the last container of each: Swarm keeps no more


class MemorySwarm:
    def __init__(self, memory: int = 16 * GB) -> None:
        here = Node("node-1", "laptop", "127.0.0.1", True, memory, None, None, True)
        self.nodes = {here.id: Engine(here)}
        self.services: dict[UUID, PubService] = {}
        self.identities: dict[UUID, str] = {}  # the first that each bot got
        self.restarted: list[UUID] = []
        self.join_tokens = 1  # how many there were; the last is the one that is good
        self.tuned = False
        # What a program in a pub answers: pubctl's command → function of its argument vector.
        self.answers: dict[str, Answer] = {}
        self.written: dict[UUID, list[LogLine]] = {}  # what each bot's containers wrote
        self.lock = threading.Lock()

    # --- for tests: machines come, go and fall silent -----------------------------------------------------------------
    @property
    def node(self) -> Node:
        """The node that we talk to."""
        return next(engine.node for engine in self.nodes.values() if engine.node.is_manager_here)

    @node.setter
    def node(self, node: Node) -> None:
        engine = self.nodes.pop(self.node.id)
        engine.node = node
        self.nodes[node.id] = engine

    def add_node(
        self,
        token: UUID | None = None,
        claims: UUID | None = None,
        address: str = "",
        memory: int = 16 * GB,
        name: str = "",
    ) -> str:
        """A machine has joined: its node's id. `token`: as the manager marked it; `claims`: what it says of itself."""
        count = len(self.nodes) + 1
        node_id = f"node-{count}"
        node = Node(
            node_id, name or f"machine-{count}", address or f"10.0.0.{count}", True, memory, token, claims, False
        )
        self.nodes[node_id] = Engine(node)
        return node_id

    def cut(self, node_id: str) -> None:
        """Neither the manager nor we reach it; all that runs there runs on."""
        engine = self.nodes[node_id]
        engine.answers, engine.node = False, replace(engine.node, ready=False)

    def heal(self, node_id: str) -> None:
        """It is back, and if the swarm still knows it, does what was decided in the meantime."""
        engine = self.nodes[node_id]
        engine.answers, engine.node = True, replace(engine.node, ready=True)
        if engine.in_swarm:
            engine.containers = {pub.bot_id for pub in self.services.values() if pub.node_id == node_id}

    def drop_node(self, node_id: str) -> None:
        """Its machine is destroyed, with all volumes. The swarm shows it as down until it is told to forget it."""
        self.cut(node_id)
        engine = self.nodes[node_id]
        engine.images, engine.volumes, engine.containers, engine.ended = set(), {}, set(), {}

    def crash(self, bot_id: UUID, exit_code: int = 1, out_of_memory: bool = False, unhealthy: bool = False) -> Ended:
        """The bot's container ends by itself, and the swarm starts the next one."""
        [node_id] = self.running_on(bot_id)
        now = datetime.now(UTC)
        ended = Ended(bot_id, uuid4().hex, now, now, exit_code, out_of_memory, unhealthy)
        self.nodes[node_id].ended[bot_id] = ended
        return ended

    def write(self, bot_id: UUID, text: str, is_error: bool = False) -> None:
        """The bot's container writes a line."""
        self.written.setdefault(bot_id, []).append(LogLine(time.time_ns(), text, is_error))

    def running_on(self, bot_id: UUID) -> list[str]:
        """Where a container of the bot runs, whoever knows of it. Never more than one."""
        return [node_id for node_id, engine in self.nodes.items() if bot_id in engine.containers]

    # --- observing ----------------------------------------------------------------------------------------------------
    def look(self) -> Sight:
        nodes = tuple(engine.node for engine in self.nodes.values() if engine.in_swarm)
        return Sight(datetime.now(UTC), nodes, tuple(self._seen(pub) for pub in self.services.values()))

    def _seen(self, pub: PubService) -> Service:
        complaint = self._complaint(pub)
        return Service(pub.bot_id, pub.node_id, self.digest(pub), healthy=not complaint, complaint=complaint)

    def _complaint(self, pub: PubService) -> str:
        engine = self.nodes.get(pub.node_id)
        if engine is None or not engine.in_swarm or not engine.node.ready:
            return "no suitable node (scheduling constraints not satisfied on 1 node)"
        if not self._has_image(engine, pub.image):
            return f"No such image: {pub.image}"
        volume = engine.volumes.get(pub.bot_id)
        if pub.bot_id in self.identities and (volume is None or volume.ssb_id != pub.ssb_id):
            return "task: non-zero exit (78): unhealthy container"
        return ""

    def _has_image(self, engine: Engine, image: str) -> bool:
        return engine.node.is_manager_here or image in engine.images

    # --- nodes and their engines --------------------------------------------------------------------------------------
    def mark_node(self, node_id: str, hub: UUID) -> None:
        engine = self._node(node_id)
        engine.node = replace(engine.node, hub=hub)

    def _node(self, node_id: str) -> Engine:
        engine = self.nodes.get(node_id)
        if engine is None or not engine.in_swarm:
            raise SwarmError(f"node {node_id} not found")
        return engine

    def _answering(self, node_id: str) -> Engine:
        engine = self._node(node_id)
        if not engine.answers:
            raise Unreachable(SILENCE)
        return engine

    def remove_node(self, node_id: str) -> None:
        if engine := self.nodes.get(node_id):
            engine.in_swarm = False

    def engines(self, node_ids: Iterable[str]) -> dict[str, str]:
        return {node_id: self._silence(node_id) for node_id in node_ids}

    def _silence(self, node_id: str) -> str:
        try:
            self._answering(node_id)
        except SwarmError as error:
            return str(error)
        return ""

    def has_image(self, node_id: str, image: str) -> bool:
        return self._has_image(self._answering(node_id), image)

    def have_image(self, node_id: str, image: str) -> None:
        self._answering(node_id).images.add(image)

    def join_ticket(self) -> JoinTicket:
        return JoinTicket(f"SWMTKN-{self.join_tokens}", [f"{self.node.address}:2377"])

    def rotate_join_token(self) -> None:
        self.join_tokens += 1

    def tune(self) -> None:
        self.tuned = True

    # --- pubs ---------------------------------------------------------------------------------------------------------
    def make_identity(self, bot_id: UUID, node_id: str, image: str) -> str:
        engine = self._answering(node_id)
        if not self._has_image(engine, image):
            raise SwarmError(f"No such image: {image}")
        if bot_id not in engine.volumes:
            # Another node, another identity: what was not copied is not the same pub.
            digest = base64.b64encode(hashlib.sha256(bot_id.bytes + node_id.encode()).digest()).decode()
            engine.volumes[bot_id] = Volume(f"@{digest}.ed25519")
        ssb_id = engine.volumes[bot_id].ssb_id
        self.identities.setdefault(bot_id, ssb_id)
        return ssb_id

    def is_stopped(self, bot_id: UUID, node_id: str) -> bool:
        return bot_id not in self._answering(node_id).containers and bot_id not in self.services

    def copy_volume(
        self, bot_id: UUID, source: str, target: str, image: str, still_ours: Callable[[], None] = lambda: None
    ) -> None:
        before, after = self._answering(source), self._answering(target)
        if bot_id in before.containers | after.containers:
            raise SwarmError("The volume is in use.")
        if bot_id not in before.volumes:
            raise SwarmError(f"get {service_name(bot_id)}: no such volume")
        still_ours()
        after.volumes[bot_id] = before.volumes[bot_id]

    def digest(self, pub: PubService) -> str:
        return digest_of(asdict(replace(pub, name="")))

    def put_service(self, pub: PubService) -> bool:
        with self.lock:
            if pub.port in {other.port for other in self.services.values() if other.bot_id != pub.bot_id}:
                raise SwarmError("host-mode port already in use on 1 node")
            before = self.services.get(pub.bot_id)
            if before and before.node_id != pub.node_id:
                raise SwarmError("The service is pinned to another hub than its volume: a person must look at it.")
            if before and before != pub:
                self.restarted.append(pub.bot_id)
                if self.running_on(pub.bot_id):
                    self.crash(pub.bot_id, exit_code=0)  # it was told to stop, and did
            self.services[pub.bot_id] = pub
            engine = self.nodes.get(pub.node_id)
            if engine and engine.in_swarm and engine.node.ready:
                engine.containers.add(pub.bot_id)
            return before != pub

    def remove_service(self, bot_id: UUID) -> None:
        with self.lock:
            pub = self.services.pop(bot_id, None)
            engine = self.nodes.get(pub.node_id) if pub else None
            if engine and engine.in_swarm and engine.node.ready:
                self._stop(bot_id, engine)

    def _stop(self, bot_id: UUID, engine: Engine) -> None:
        engine.containers.discard(bot_id)
        engine.ended.pop(bot_id, None)

    # --- a running pub ------------------------------------------------------------------------------------------------
    def _running(self, service: str) -> PubService:
        for pub in self.services.values():
            if service_name(pub.bot_id) == service and self._seen(pub).healthy:
                self._answering(pub.node_id)
                return pub
        raise NotRunning("The pub is not running just now.")

    def run(self, service: str, argv: list[str], timeout: float) -> Output:
        pub = self._running(service)
        if answer := self.answers.get(argv[1]):
            return answer(argv)
        volume = self.nodes[pub.node_id].volumes.get(pub.bot_id, Volume(pub.ssb_id))
        if argv[1] == "whoami":
            return _printed({"ok": True, "result": {"id": volume.ssb_id}})
        if argv[1] == "status":
            return _printed({"ok": True, "result": {"id": volume.ssb_id, "sequence": volume.sequence}})
        return _printed({"ok": False, "error": {"code": "UNKNOWN", "message": "unknown command"}})

    async def stats(self, bot_id: UUID, node_id: str) -> AsyncIterator[Stats]:
        before = None
        while True:
            if bot_id not in self._answering(node_id).containers:
                if before:
                    return
                raise NotRunning("The pub is not running just now.")
            before = _calm_sample(self._memory_of(bot_id), before)
            yield before
            await asyncio.sleep(1)

    async def glances(self, node_id: str, seconds: float) -> AsyncIterator[Glance]:
        before: dict[UUID, Stats] = {}
        while True:
            engine = self._answering(node_id)
            now = {bot_id: _calm_sample(self._memory_of(bot_id), before.get(bot_id)) for bot_id in engine.containers}
            # What was not there before has no figures over time yet.
            stats = {bot_id: sample for bot_id, sample in now.items() if bot_id in before}
            yield Glance(stats, tuple(engine.ended.values()))
            before = now
            await asyncio.sleep(seconds)

    async def logs(self, bot_id: UUID, node_id: str, tail: int, follow: bool = False) -> AsyncIterator[LogLine]:
        lines = self.written.setdefault(bot_id, [])
        crash, begin = self._answering(node_id).ended.get(bot_id), max(0, len(lines) - tail)
        while True:
            for line in lines[begin:]:
                yield line
                begin += 1
            engine = self._answering(node_id)
            if not follow or bot_id not in engine.containers or engine.ended.get(bot_id) != crash:
                return
            await asyncio.sleep(LOOK_SECONDS)

    def _memory_of(self, bot_id: UUID) -> int:
        """One whose service was removed may run on for a while."""
        pub = self.services.get(bot_id)
        return pub.memory if pub else GB


def _printed(answer: dict[str, object]) -> Output:
    """What pubctl prints."""
    return Output(0 if answer["ok"] else 1, json.dumps({"id": 1, **answer}) + "\n", "")


def _calm_sample(memory_limit: int, before: Stats | None) -> Stats:
    now, nth = datetime.now(UTC), before["disk_write"] // 100 + 1 if before else 0
    return Stats(
        at=now.isoformat(),
        seq=round(now.timestamp() * 1000),
        cpu=1.5,
        memory=60 * 1024**2,
        memory_limit=memory_limit,
        net_rx=1000 * nth,
        net_tx=500 * nth,
        disk_read=0,
        disk_write=100 * nth,
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
        raise Unreachable(SILENCE)


class NodeDown(MemorySwarm):
    """The manager has lost sight of the node; nobody knows what runs there."""

    def look(self) -> Sight:
        sight = super().look()
        return replace(sight, nodes=tuple(replace(node, ready=False) for node in sight.nodes))


class Refusing(MemorySwarm):
    """Every service is refused."""

    def put_service(self, pub: PubService) -> bool:
        raise SwarmError("no space left on device")


class SlowToStop(MemorySwarm):
    """A service is gone at once; its container runs on until the test clears `nodes[...].containers`."""

    def _stop(self, bot_id: UUID, engine: Engine) -> None:
        pass


class SpoilsCopies(MemorySwarm):
    """Copies of volumes never come out right, and are thrown away."""

    def copy_volume(
        self, bot_id: UUID, source: str, target: str, image: str, still_ours: Callable[[], None] = lambda: None
    ) -> None:
        super().copy_volume(bot_id, source, target, image, still_ours)
        still_ours()
        del self.nodes[target].volumes[bot_id]
        raise SwarmError("The copy differs from the volume that it was made of.")


class WithoutImages(MemorySwarm):
    """No image can be brought to another node."""

    def have_image(self, node_id: str, image: str) -> None:
        raise SwarmError("no space left on device")
