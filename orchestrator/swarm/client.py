"""The door to one engine: a Unix socket, or mutual TLS to the engine of another machine.

Straight over urllib3, whose pools threads may share, and which takes nothing from the environment: `requests`, and with
it docker-py, would let REQUESTS_CA_BUNDLE replace our certificate authority. Only streams for asyncio go by aiodocker.
"""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiodocker
import aiohttp
from django.conf import settings
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from orchestrator.swarm import NotRunning, SwarmError, Unreachable

# An engine that is not there must delay nobody; one that is there may have to work.
CONNECT_SECONDS = 4
ANSWER_SECONDS = 60
# What this code was written for. Older engines are asked in their own version, newer ones in this.
API = (1, 44)
OLDEST_API = (1, 41)
# A machine that is cut off takes what is sent and says nothing; the system sees that nothing arrives. Seconds and ms.
_PROOF_OF_LIFE = {"TCP_USER_TIMEOUT": 8000, "TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5}
SOCKET_OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    # Not every system that somebody tries us on has all of these.
    *((socket.IPPROTO_TCP, getattr(socket, name), n) for name, n in _PROOF_OF_LIFE.items() if hasattr(socket, name)),
]
CONNECTIONS = 20  # kept open for each engine
PIECE = 2**18  # bytes of a stream that are held in memory


class _Connection(HTTPConnection):
    """urllib3 would let what is sent take no longer than a connection may take to come about."""

    def request(self, *args: Any, **more: Any) -> None:
        if self.sock is None:
            self.connect()
        self.sock.settimeout(ANSWER_SECONDS)
        super().request(*args, **more)


class _TlsConnection(_Connection, HTTPSConnection):
    pass


class _UnixConnection(_Connection):
    def __init__(self, *args: Any, path: str, **more: Any) -> None:
        super().__init__(*args, **more)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CONNECT_SECONDS)
        self.sock.connect(self.path)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _UnixPool(HTTPConnectionPool):
    ConnectionCls = _UnixConnection


class Client:
    """One engine. Threads may share it."""

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        self.url, self.tls = url, tls
        self._api = ""
        where = urlsplit(url)
        options: dict[str, Any] = {"maxsize": CONNECTIONS, "retries": False}
        self._pool: HTTPConnectionPool
        if where.scheme == "unix":
            self._pool = _UnixPool("localhost", path=where.path, **options)
        elif tls:
            options |= {"ssl_context": tls, "socket_options": SOCKET_OPTIONS}
            self._pool = _TlsPool(where.hostname or "", where.port, **options)
        else:
            self._pool = _Pool(where.hostname or "", where.port, socket_options=SOCKET_OPTIONS, **options)

    # --- asking ------------------------------------------------------------------------------------------------------
    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        body: Any = None,
        /,
        ok: tuple[int, ...] = (),
        seconds: float = ANSWER_SECONDS,
        **params: Any,
    ) -> Iterator[BaseHTTPResponse]:
        """The answer, unread. `body`: pieces of a tar, or what becomes JSON. `seconds`: the longest silence."""
        pieces = body if isinstance(body, Iterator) else None
        sent = pieces if pieces or body is None else json.dumps(body)
        kind = "application/x-tar" if pieces else "application/json"
        address = f"/v{self.api}{path}?{urlencode(params)}"
        with self._one_answer(method, address, sent, {"Content-Type": kind}, seconds) as answer:
            if answer.status >= 400 and answer.status not in ok:
                raise SwarmError(_message(answer))
            yield answer

    @contextmanager
    def _one_answer(
        self, method: str, address: str, body: Any, headers: dict[str, str], seconds: float
    ) -> Iterator[BaseHTTPResponse]:
        answer = None
        try:
            answer = self._pool.urlopen(
                method,
                address,
                body,
                headers,
                timeout=Timeout(connect=min(CONNECT_SECONDS, seconds), read=seconds),
                preload_content=False,
                redirect=False,
            )
            yield answer
        except (HTTPError, OSError) as error:
            self._api = ""  # it may come back as another version
            raise Unreachable(f"The Docker engine at {self.url} does not answer: {_why(error)}") from error
        finally:
            if answer is not None:
                # One that was read to its end has given its connection back already, and this one is not kept.
                answer.close()

    def call(self, method: str, path: str, body: Any = None, /, ok: tuple[int, ...] = (), **params: Any) -> Any:
        """The decoded answer, or None for a status in `ok`, which is good news (there already, gone already)."""
        with self.stream(method, path, body, ok=ok, **params) as answer:
            said = answer.read()
            return json.loads(said) if said and answer.status < 400 else None

    def list(self, path: str, filters: dict[str, Any], /, **params: Any) -> list[dict[str, Any]]:
        # 404: tasks of a service that is gone.
        return self.call("GET", path, ok=(404,), filters=json.dumps(filters), **params) or []

    def progress(self, path: str, body: Any = None, /, seconds: float = ANSWER_SECONDS, **params: Any) -> None:
        """Something that Docker works at while it talks: it says 200 at once, and errors only in what follows."""
        with self.stream("POST", path, body, seconds=seconds, **params) as answer:
            for line in _lines(answer):
                if error := json.loads(line).get("error"):
                    raise SwarmError(str(error))

    @property
    def api(self) -> str:
        """The version of the API that is spoken with it, like 1.41."""
        if not self._api:
            theirs = self.ping()
            if theirs < OLDEST_API:
                raise SwarmError(f"The Docker engine at {self.url} is too old: version 20.10 or later is needed.")
            self._api = ".".join(map(str, min(theirs, API)))
        return self._api

    def ping(self, seconds: float = ANSWER_SECONDS) -> tuple[int, ...]:
        """The newest version of the API that it speaks; Unreachable if it says nothing."""
        with self._one_answer("GET", "/_ping", None, {}, seconds) as answer:
            answer.read()
            if answer.status != 200:
                raise Unreachable(f"The Docker engine at {self.url} is not ready: it answered {answer.status}.")
            return tuple(int(part) for part in answer.headers["Api-Version"].split("."))

    # --- a stream for asyncio ----------------------------------------------------------------------------------------
    async def stats(self, container: str) -> AsyncIterator[dict[str, Any]]:
        """Docker's own samples, one a second."""
        api = await asyncio.to_thread(lambda: self.api)
        url = self.url.replace("tcp://", "https://") if self.tls else self.url
        # Only the connection may time out; samples come as long as there is a container.
        limit = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        engine = aiodocker.Docker(url=url, ssl_context=self.tls, timeout=limit, api_version=f"v{api}")
        samples = engine.containers.container(container).stats(stream=True)
        try:
            async for sample in samples:
                yield sample
        except aiodocker.DockerError as error:
            raise NotRunning(error.message) from error
        except (OSError, aiohttp.ClientError, aiodocker.exceptions.DockerContainerError) as error:
            raise Unreachable(f"The Docker engine at {self.url} does not answer: {error}") from error
        finally:
            # In this order, or asyncio complains of a connection that nobody closed.
            await engine.close()
            await samples.aclose()  # type: ignore[attr-defined]


def engine_at(url: str) -> Client:
    """The engine that an operator named: by its socket, or in plain by tcp://."""
    return _plain(url)


@lru_cache(maxsize=10)
def _plain(url: str) -> Client:
    return Client(url)


def engine_on(address: str) -> Client:
    """The engine of another machine, by the certificates in settings.ENGINE_TLS. Unreachable if there are none."""
    folder = settings.ENGINE_TLS
    files = [folder / name for name in ("ca.pem", "cert.pem", "key.pem")]
    if missing := [file.name for file in files if not file.is_file()]:
        raise Unreachable(
            f"The engines of other hubs are reached by certificate, and {folder} has no {', '.join(missing)}: "
            "`manage.py hub_authority` makes them, and ENGINE_TLS names their folder."
        )
    host = f"[{address}]" if ":" in address else address
    # New certificates, new connections.
    stamp = tuple(file.stat().st_mtime_ns for file in files)
    return _over_tls(f"tcp://{host}:{settings.ENGINE_PORT}", tuple(map(str, files)), stamp)


@lru_cache(maxsize=1000)
def _over_tls(url: str, files: tuple[str, str, str], stamp: tuple[int, ...]) -> Client:
    return Client(url, _context(files, stamp))


@lru_cache(maxsize=10)
def _context(files: tuple[str, str, str], stamp: tuple[int, ...]) -> ssl.SSLContext:
    ca, certificate, key = files
    try:
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(certificate, key)
    except OSError as error:
        raise Unreachable(f"The certificates of ENGINE_TLS are of no use: {error}") from error
    # Certificates made as Docker's own manual shows lack what the strict reading of the standard asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _why(error: BaseException) -> str:
    """The system's own words, without urllib3's."""
    return str(error.__cause__ or error.__context__ or error)


def _message(answer: BaseHTTPResponse) -> str:
    said = answer.read().decode(errors="replace")
    try:
        return str(json.loads(said)["message"])
    except (ValueError, KeyError, TypeError):
        return f"Docker answered {answer.status}: {said[:200]}"


def _lines(answer: BaseHTTPResponse) -> Iterable[bytes]:
    rest = b""
    for piece in answer.stream(PIECE):
        *lines, rest = (rest + piece).split(b"\n")
        yield from filter(None, (line.strip() for line in lines))
    if rest.strip():
        yield rest
