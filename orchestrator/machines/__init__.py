"""Machines that become hubs: one driver a cloud, chosen by settings.MACHINES.

A machine is known by its hub's token, which stands in what the cloud keeps with the machine from its first moment.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Protocol, cast
from uuid import UUID

from django.conf import settings
from django.utils.module_loading import import_string


class MachineError(Exception):
    """Something that the cloud refused or could not do, in words for staff."""


class Unavailable(MachineError):
    """No answer, or none that says what happened: the outcome is unknown, and the same call may be made again."""


class Refused(MachineError):
    """The cloud said no, and nothing was made: bad request, no right, over quota."""


class Power(StrEnum):
    BUILDING = "building"
    RUNNING = "running"
    FAILED = "failed"  # the cloud could not build it; it still counts, and still costs
    STOPPED = "stopped"
    GOING = "going"  # being destroyed


@dataclass(frozen=True)
class Machine:
    """A machine of ours as the cloud sees it."""

    token: UUID
    name: str
    power: Power = Power.RUNNING
    address: str = ""  # on the private network; "" while the cloud has not given it one
    public_address: str = ""  # where peers reach it
    created: datetime | None = None
    fault: str = ""  # the cloud's words on why it failed
    has_twin: bool = False  # there is another one with its token, by mishap


class Driver(Protocol):
    """A cloud. Each deed may be done twice; each may raise MachineError."""

    def list(self) -> list[Machine]:
        """Every machine that bears our deployment's mark, one a token, whatever is odd about others."""

    def create(self, token: UUID, name: str, user_data: Callable[[], str]) -> None:
        """Have a machine with this token made, if the cloud has none; returns before it has booted.

        `user_data` is called only when a machine must be made, and gives what cloud-init reads at its first start.
        """

    def is_gone(self, token: UUID) -> bool:
        """The cloud is certain that it had a machine with this token and has it no more. Destroys nothing.

        One that is only not listed is not gone: the list may leave out what it can't reach, or be another project's.
        """

    def destroy(self, token: UUID) -> bool:
        """Have it gone for good. True once the cloud says that it has none with this token; False: ask again later."""


@cache
def _connect(path: str) -> Driver:
    return cast(Driver, import_string(path)())


def connect() -> Driver:
    """The driver that settings chose."""
    return _connect(settings.MACHINES)
