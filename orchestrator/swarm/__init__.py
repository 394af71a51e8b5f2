"""The only room that speaks Docker. It gives and takes the plain values below, never Docker's own dicts.

`connect()` gives the swarm that settings.SWARM names: `engine.EngineSwarm`, the real one, or `memory.MemorySwarm`, its
twin for a laptop without Docker and for fast tests.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, Protocol, cast
from uuid import UUID

from django.conf import settings
from django.utils.module_loading import import_string

from pubs.live import Stats


class SwarmError(Exception):
    """Something that Docker refused or could not do, in words for the person who can act."""


class Unreachable(SwarmError):
    """An engine did not answer: nothing is known about what runs there."""


class NotRunning(SwarmError):
    """The pub has no running container just now."""


@dataclass(frozen=True)
class Node:
    """A machine as the swarm's manager sees it."""

    id: str
    name: str
    address: str
    ready: bool
    memory: int  # bytes
    hub: UUID | None  # the token of our hub that the manager marked this node with
    claims: UUID | None  # the token that its engine says it has: its own claim, proof of nothing
    is_manager_here: bool  # the node whose engine we talk to


@dataclass(frozen=True)
class Service:
    """A pub service as it is."""

    bot_id: UUID
    node_id: str
    digest: str  # of the PubService that it was made from
    healthy: bool
    complaint: str = ""  # Docker's words on why it does not run


@dataclass(frozen=True)
class Sight:
    """The whole actual, read at one moment."""

    at: datetime
    nodes: tuple[Node, ...]
    services: tuple[Service, ...]


@dataclass(frozen=True)
class PubService:
    """A pub service as it should be."""

    bot_id: UUID
    ssb_id: str
    node_id: str
    port: int
    host: str
    image: str
    memory: int  # bytes, both limit and reservation
    restarts: int
    network_key: str = ""  # other than Scuttlebutt's own, for tests
    # Published once, if the pub has no name yet: a new one is no reason to restart it.
    name: str = field(default="", compare=False)
    # How long its feed was before its volume was moved: the pub publishes nothing below it.
    min_seq: int = 0


@dataclass(frozen=True)
class Output:
    exit_code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Ended:
    """A container of a pub that has ended, for whatever reason."""

    bot_id: UUID
    container: str
    began: datetime
    at: datetime
    exit_code: int
    out_of_memory: bool
    unhealthy: bool  # it was ended because it no longer passed its health check


@dataclass(frozen=True)
class Glance:
    """What a node's own engine says of its pubs at one moment."""

    stats: dict[UUID, Stats]
    ended: tuple[Ended, ...]  # as far as the engine still has them: the same ones come again with the next glance


@dataclass(frozen=True)
class LogLine:
    nanoseconds: int  # since 1970, when it was written: with microseconds lines that come together would look alike
    text: str
    is_error: bool = False  # from stderr

    @property
    def at(self) -> datetime:
        return datetime.fromtimestamp(self.nanoseconds / 10**9, UTC)


@dataclass(frozen=True)
class JoinTicket:
    token: str
    managers: list[str]  # host:port


class Swarm(Protocol):
    """What the orchestrator needs of a swarm. Each deed may be done twice; each may raise SwarmError."""

    def look(self) -> Sight:
        """All nodes, and the services of our deployment, in a handful of calls however many there are."""

    # --- nodes and their engines ---

    def mark_node(self, node_id: str, hub: UUID) -> None:
        """Say in the swarm that this node is our hub."""

    def remove_node(self, node_id: str) -> None:
        """Forget a node. Only once its machine is gone: a node that is forgotten while it lives runs its pubs on."""

    def engines(self, node_ids: Iterable[str]) -> dict[str, str]:
        """Node → "" if its own engine answers, or why it does not. All at once, in a few seconds at most."""

    def has_image(self, node_id: str, image: str) -> bool:
        """Whether the image is on the node."""

    def have_image(self, node_id: str, image: str) -> None:
        """The image is on the node: pulled if it is named by digest, brought from the manager's engine if by id."""

    def join_ticket(self) -> JoinTicket:
        """What a machine needs to become a worker node."""

    def rotate_join_token(self) -> None:
        """Make the join token that was handed out worthless; nodes that are in stay in."""

    def tune(self) -> None:
        """Give the swarm the settings that pubs need: heartbeat, and one old task kept a service."""

    # --- pubs ---

    def make_identity(self, bot_id: UUID, node_id: str, image: str) -> str:
        """The Scuttlebutt id on the bot's volume; volume and identity are made there if there are none yet."""

    def is_stopped(self, bot_id: UUID, node_id: str) -> bool:
        """Nothing of the bot runs on the node, says its own engine, or may do so in a moment, says the swarm.

        Unreachable if the engine says nothing.
        """

    def copy_volume(
        self, bot_id: UUID, source: str, target: str, image: str, still_ours: Callable[[], None] = lambda: None
    ) -> None:
        """The bot's volume on node `target` becomes what it is on node `source`, compared by checksum.

        Only for a stopped bot. What was on the target is replaced; the source stays as it is. `image` is on both
        nodes, and gives a container to reach the volumes through. `still_ours` raises once somebody else may work on
        the bot: nothing more is removed then.
        """

    def digest(self, pub: PubService) -> str:
        """The same for the same service; any change that needs a restart changes it, one of our code too."""

    def put_service(self, pub: PubService) -> bool:
        """Create the service, or change it to be so. True if anything had to be done."""

    def remove_service(self, bot_id: UUID) -> None:
        """Remove the service; its volume stays."""

    def run(self, service: str, argv: list[str], timeout: float) -> Output:
        """Run a program in the service's container; it is killed after `timeout` seconds (exit code 124 or 137)."""

    def stats(self, bot_id: UUID, node_id: str) -> AsyncIterator[Stats]:
        """Docker's stats of the bot's container on the node, a sample a second, until the container ends."""

    def glances(self, node_id: str, seconds: float) -> AsyncIterator[Glance]:
        """All pubs of the node, again each `seconds`, with rates and CPU over that time: no stream is held open."""

    def logs(self, bot_id: UUID, node_id: str, tail: int, follow: bool = False) -> AsyncIterator[LogLine]:
        """What a bot's containers on the node wrote, the oldest first: the last `tail` lines of the newest one, after
        those of the one before it, as far as the engine still has it.

        With `follow` also what is written from now on, until the container ends.
        """


def digest_of(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, default=str, sort_keys=True).encode()).hexdigest()[:16]


def service_name(bot_id: UUID) -> str:
    """The service's name, which is its volume's too. Being derived, it makes a second create harmless."""
    return f"{settings.DEPLOYMENT}-pub-{bot_id}"


@cache
def _connect(path: str) -> Swarm:
    return cast(Swarm, import_string(path)())


def connect() -> Swarm:
    """The swarm that settings chose; safe to share between threads."""
    return _connect(settings.SWARM)
