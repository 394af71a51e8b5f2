"""Machines that become hubs: one driver a cloud, chosen by settings.MACHINES."""

from dataclasses import dataclass
from functools import cache
from typing import Protocol, cast
from uuid import UUID

from django.conf import settings
from django.utils.module_loading import import_string


class MachineError(Exception):
    """Something that the cloud refused or could not do, in words for staff."""


@dataclass(frozen=True)
class Machine:
    """A machine of ours as the cloud sees it, marked with its hub's token."""

    token: UUID
    name: str


class Machines(Protocol):
    """A cloud. Each deed may be done twice; each may raise MachineError."""

    def list(self) -> list[Machine]:
        """Every machine that bears our mark."""

    def create(self, token: UUID, name: str) -> None:
        """Have a machine with this token made and joined to the swarm; returns before it has joined."""

    def destroy(self, token: UUID) -> None:
        """Have it gone for good."""


@cache
def _connect(path: str) -> Machines:
    return cast(Machines, import_string(path)())


def connect() -> Machines:
    """The driver that settings chose."""
    return _connect(settings.MACHINES)
