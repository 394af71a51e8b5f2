"""The clouds' twin in memory: a machine is a node of the twin swarm at the next look. Mishaps are subclasses."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from orchestrator import swarm
from orchestrator.machines import Machine, Power, Refused, Unavailable
from orchestrator.swarm.memory import MemorySwarm


@dataclass
class Made:
    """A machine that is paid for. A token has more than one only by mishap."""

    machine: Machine
    user_data: str
    looks: int = 0  # at it since it was made
    node_id: str = ""  # in the twin swarm, once it has joined


class MemoryMachines:
    # Looks after which a machine runs and is a node; never, if None.
    boots_after: int | None = 1

    def __init__(self, nodes: MemorySwarm | None = None) -> None:
        self._nodes = nodes
        self.made: list[Made] = []
        self.count = 0
        self.lock = threading.RLock()

    @property
    def nodes(self) -> MemorySwarm | None:
        """The swarm that the machines join: the one given, or the one that settings chose, if that is a twin too."""
        if self._nodes is None and isinstance(chosen := swarm.connect(), MemorySwarm):
            self._nodes = chosen
        return self._nodes

    # --- the driver ---

    def list(self) -> list[Machine]:
        with self.lock:
            self._time_passes()
            seen: dict[UUID, Machine] = {}
            for made in self.made:
                # Of twins the first one made is shown.
                token = made.machine.token
                seen[token] = replace(seen[token], has_twin=True) if token in seen else made.machine
            return list(seen.values())

    def create(self, token: UUID, name: str, user_data: Callable[[], str]) -> None:
        with self.lock:
            have = self.of(token)
            for twin in have[1:]:
                self._gone(twin)
            if not have:
                self._make(token, name, user_data())

    def is_gone(self, token: UUID) -> bool:
        with self.lock:
            return not self.of(token)

    def destroy(self, token: UUID) -> bool:
        with self.lock:
            for made in self.of(token):
                if made.machine.power is Power.GOING:
                    self._gone(made)
                made.machine = replace(made.machine, power=Power.GOING)
            return not self.of(token)

    # --- what tests look at, and do to it ---

    def of(self, token: UUID) -> Sequence[Made]:
        """What is paid for under this token."""
        return [made for made in self.made if made.machine.token == token]

    def strange(self, token: UUID, name: str = "stranger") -> None:
        """A machine that bears our mark and that no row knows."""
        self._make(token, name, "")

    def lose(self, token: UUID) -> None:
        """The machine is gone, and nobody of ours did it."""
        for made in self.of(token):
            self._gone(made)

    # --- inside ---

    def _make(self, token: UUID, name: str, user_data: str) -> None:
        self.count += 1
        machine = Machine(
            token,
            name,
            Power.BUILDING,
            address=f"10.77.0.{self.count}",
            public_address=f"203.0.113.{self.count}",
            created=datetime.now(UTC),
        )
        self.made.append(Made(machine, user_data))

    def _time_passes(self) -> None:
        for made in self.made:
            made.looks += 1
            if made.machine.power is Power.BUILDING and self.boots_after and made.looks >= self.boots_after:
                made.machine = machine = replace(made.machine, power=Power.RUNNING)
                if self.nodes:
                    made.node_id = self.nodes.add_node(claims=machine.token, address=machine.address, name=machine.name)

    def _gone(self, made: Made) -> None:
        self.made.remove(made)
        if self.nodes and made.node_id:
            self.nodes.drop_node(made.node_id)


class Refuses(MemoryMachines):
    """The quota is used up."""

    def _make(self, token: UUID, name: str, user_data: str) -> None:
        raise Refused("Quota exceeded for instances: requested 1, but already used 10 of 10 instances")


class FailsToBuild(MemoryMachines):
    """The cloud takes the request and has no room for the machine, which counts all the same."""

    def _time_passes(self) -> None:
        for made in self.made:
            if made.machine.power is Power.BUILDING:
                made.machine = replace(made.machine, power=Power.FAILED, fault="No valid host was found.")


class NeverBoots(MemoryMachines):
    """Each machine is there, and is never a node."""

    boots_after = None


class BootsLate(MemoryMachines):
    """Each machine takes a few looks to boot."""

    boots_after = 4


class AnswersTwice(MemoryMachines):
    """The answer to the first request for a machine is lost, and the request is carried out twice."""

    def _make(self, token: UUID, name: str, user_data: str) -> None:
        super()._make(token, name, user_data)
        super()._make(token, name, user_data)
        raise Unavailable("The cloud did not answer in time.")


class Silent(MemoryMachines):
    """The cloud does not answer: nothing is known about what it has."""

    def of(self, token: UUID) -> Sequence[Made]:
        raise Unavailable("The cloud does not answer.")

    def _time_passes(self) -> None:
        raise Unavailable("The cloud does not answer.")


class Forgets(MemoryMachines):
    """The first request for each machine is taken, and nothing comes of it."""

    def __init__(self, nodes: MemorySwarm | None = None) -> None:
        super().__init__(nodes)
        self.forgotten: set[UUID] = set()

    def _make(self, token: UUID, name: str, user_data: str) -> None:
        if token in self.forgotten:
            super()._make(token, name, user_data)
        self.forgotten.add(token)
