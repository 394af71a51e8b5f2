"""A bot's volume on one engine made the same as on another, and compared.

Docker gives and takes the content of a volume as a tar, through a container that has it mounted and is never started.
The tar goes through this process in small pieces.
"""

import hashlib
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol
from uuid import UUID

from urllib3.exceptions import HTTPError

from orchestrator.swarm import SwarmError, Unreachable, service_name
from orchestrator.swarm.client import PIECE, Client
from orchestrator.swarm.spec import DATA, copy_spec, labels

# Writing may have to wait for the disk at its very end.
COPY_SECONDS = 240


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Checksum:
    """Of what a tar holds: each entry's name, kind, rights, owner, size, target and content; not its times."""

    def __init__(self) -> None:
        self._entries: list[bytes] = []

    def take(self, tar: Readable) -> Iterator[None]:
        """Read the tar to its end, a piece at each step."""
        with tarfile.open(fileobj=tar, mode="r|", bufsize=PIECE) as archive:  # type: ignore[call-overload]
            while entry := archive.next():
                about = (entry.name, entry.type, entry.mode, entry.uid, entry.gid, entry.size, entry.linkname)
                content = hashlib.sha256(repr(about).encode())
                if file := archive.extractfile(entry) if entry.isreg() else None:
                    while piece := file.read(PIECE):
                        content.update(piece)
                        yield
                self._entries.append(content.digest())
                archive.members.clear()  # it would keep them all
                yield
        while tar.read(PIECE):
            yield

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Checksum) and sorted(self._entries) == sorted(other._entries)

    __hash__ = None  # type: ignore[assignment]


class _Tap:
    """A stream that keeps what was read of it until it is passed on."""

    def __init__(self, stream: Readable) -> None:
        self.stream = stream
        self.read_so_far: list[bytes] = []

    def read(self, size: int, /) -> bytes:
        try:
            piece = self.stream.read(size)
        except (HTTPError, OSError) as error:
            # Said here, or it would pass for trouble of the engine that is written to.
            raise Unreachable(f"The engine that the volume is on broke off: {error}") from error
        self.read_so_far.append(piece)
        return piece

    def emptied(self) -> bytes:
        piece = b"".join(self.read_so_far)
        self.read_so_far.clear()
        return piece


def checked(stream: Readable, checksum: Checksum) -> Iterator[bytes]:
    """The pieces of the stream, with the checksum taken in passing."""
    tap = _Tap(stream)
    for _ in checksum.take(tap):
        if piece := tap.emptied():
            yield piece
    if piece := tap.emptied():
        yield piece


def copy_volume(
    bot_id: UUID, source: Client, target: Client, image: str, still_ours: Callable[[], None] = lambda: None
) -> None:
    """Make the volume on `target` what it is on `source`; SwarmError, and none on the target, if it did not come right.

    The caller knows that the bot runs on neither; a volume that any container has is refused by Docker besides.
    """
    name = service_name(bot_id)
    # Mounting would make one that is not there, and an empty volume is the loss of an identity.
    source.call("GET", f"/volumes/{name}")
    still_ours()
    _remove(target, name)
    target.call("POST", "/volumes/create", {"Name": name, "Labels": labels(bot_id)})
    try:
        with _mounted(source, bot_id, image) as read, _mounted(target, bot_id, image) as written:
            sent, stored = Checksum(), Checksum()
            with (
                source.stream("GET", f"{read}/archive", seconds=COPY_SECONDS, path=DATA) as tar,
                target.stream("PUT", f"{written}/archive", checked(tar, sent), seconds=COPY_SECONDS, path="/"),
            ):
                pass
            with target.stream("GET", f"{written}/archive", seconds=COPY_SECONDS, path=DATA) as tar:
                for _ in checked(tar, stored):
                    pass
        if sent != stored:
            raise SwarmError("The copy of the volume differs from the volume: it is thrown away.")
    except (SwarmError, tarfile.TarError) as error:
        # Or what is on the target may be another worker's, and its only copy.
        still_ours()
        _remove(target, name)
        if isinstance(error, SwarmError):
            raise
        raise SwarmError(f"The copy of the volume broke off, and is thrown away: {error}") from error


def _remove(engine: Client, name: str) -> None:
    for helper in ("init", "copy"):
        # What a killed worker left; one that runs is refused with 409, and then so is the volume.
        engine.call("DELETE", f"/containers/{name}-{helper}", ok=(404, 409))
    engine.call("DELETE", f"/volumes/{name}", ok=(404,))


@contextmanager
def _mounted(engine: Client, bot_id: UUID, image: str) -> Iterator[str]:
    """The path of a container with the bot's volume."""
    name = f"{service_name(bot_id)}-copy"
    engine.call("DELETE", f"/containers/{name}", ok=(404,), force="true")
    made = engine.call("POST", "/containers/create", copy_spec(bot_id, image), name=name)
    # By its id: another worker's, who took over, may have the name by now.
    container = f"/containers/{made['Id']}"
    try:
        yield container
    finally:
        engine.call("DELETE", container, ok=(404, 409), force="true")
