"""The door to one engine: a Unix socket, or mutual TLS to the engine of another machine.

docker-py carries what threads ask and aiohttp what asyncio asks; the words are those of Docker's own API, without the
defaults that docker-py's helpers put in.
"""

import asyncio
import json
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property, lru_cache
from typing import Any

import aiohttp
import docker
import orjson
from django.conf import settings
from docker.errors import DockerException
from docker.tls import TLSConfig
from urllib3 import BaseHTTPResponse
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
SESSIONS = 20  # kept open for each engine
KEPT_SECONDS = 60  # a connection of asyncio that nothing is asked through
SILENCE_SECONDS = 8
PIECE = 2**18  # bytes of a stream that are held in memory

Files = tuple[str, ...]  # an authority's certificate, our own, and the key to it; or none


class Client:
    """One engine. Threads may share it."""

    def __init__(self, url: str, files: Files = ()) -> None:
        self.url, self.files = url, files
        self._api = ""
        self._idle: deque[docker.APIClient] = deque(maxlen=SESSIONS)

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
        # urllib3 lets what is sent take no longer than a connection may take to come about, and a disk may be slow.
        kind, connect = ("data", seconds) if isinstance(body, Iterator) else ("json", CONNECT_SECONDS)
        wish = {"params": params, kind: body, "timeout": (connect, seconds)}
        with self._one_answer(method, f"/v{self.api}{path}", **wish) as answer:
            if answer.status >= 400 and answer.status not in ok:
                raise SwarmError(_message(answer))
            yield answer

    @contextmanager
    def _one_answer(self, method: str, path: str, **wish: Any) -> Iterator[BaseHTTPResponse]:
        try:
            with self._session() as session:
                address = session.base_url + path
                with session.request(method, address, stream=True, allow_redirects=False, **wish) as answer:
                    yield answer.raw
        except (DockerException, HTTPError, OSError) as error:
            raise self.silent(error) from error

    @contextmanager
    def _session(self) -> Iterator[docker.APIClient]:
        """One that nobody else has meanwhile: a session of requests is not made for many threads."""
        try:
            session = self._idle.pop()
        except IndexError:
            session = _session_with(self.url, self.files)
        try:
            yield session
        finally:
            self._idle.append(session)

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
            for line in answer:
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
        with self._one_answer("GET", "/_ping", timeout=(min(CONNECT_SECONDS, seconds), seconds)) as answer:
            answer.read()
            if answer.status != 200:
                raise Unreachable(f"The Docker engine at {self.url} is not ready: it answered {answer.status}.")
            return tuple(int(part) for part in answer.headers["Api-Version"].split("."))

    # --- for asyncio -------------------------------------------------------------------------------------------------
    @asynccontextmanager
    async def talk(self, at_once: int = 1, silence: float | None = SILENCE_SECONDS) -> AsyncIterator["Talk"]:
        """Connections that are kept open until the block ends. `silence`: the longest that is borne; None: any."""
        # In a thread, for both may have to be asked for first: of the engine, and of the disk.
        api, tls = await asyncio.to_thread(lambda: (self.api, self._tls))
        limit = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=silence)
        address = "http://docker" if self.url.startswith("unix://") else self.url.replace("tcp://", "http://")
        if self.files:
            address = address.replace("http://", "https://")
        async with aiohttp.ClientSession(connector=self._connector(at_once, tls), timeout=limit) as session:
            yield Talk(self, session, f"{address}/v{api}")

    @cached_property
    def _tls(self) -> ssl.SSLContext | bool:
        """One for all talks: aiohttp only reads it."""
        return _context(self.files) if self.files else True

    def _connector(self, at_once: int, tls: ssl.SSLContext | bool) -> aiohttp.BaseConnector:
        if self.url.startswith("unix://"):
            path = self.url.removeprefix("unix://")
            return aiohttp.UnixConnector(path, limit=at_once, keepalive_timeout=KEPT_SECONDS)
        return aiohttp.TCPConnector(
            limit=at_once,
            keepalive_timeout=KEPT_SECONDS,
            ssl=tls,
            socket_factory=_socket,
        )

    def silent(self, error: BaseException) -> Unreachable:
        self._api = ""  # it may come back as another version
        return Unreachable(f"The Docker engine at {self.url} does not answer: {_why(error)}")


class Talk:
    """Questions to one engine from an event loop."""

    def __init__(self, client: Client, session: aiohttp.ClientSession, address: str) -> None:
        self._client, self._session, self._address = client, session, address

    @asynccontextmanager
    async def stream(self, path: str, **params: str) -> AsyncIterator[aiohttp.StreamReader]:
        """The answer, unread. NotRunning if there is no such container."""
        try:
            async with self._session.get(self._address + path, params=params) as answer:
                if answer.status >= 400:
                    said = _words(answer.status, await answer.read())
                    raise (NotRunning if answer.status == 404 else SwarmError)(said)
                yield answer.content
        except (OSError, aiohttp.ClientError) as error:
            raise self._client.silent(error) from error

    async def get(self, path: str, **params: str) -> Any:
        """The decoded answer."""
        async with self.stream(path, **params) as answer:
            return orjson.loads(await answer.read())


@lru_cache(maxsize=10)
def engine_at(url: str) -> Client:
    """The engine that an operator named: by its socket, or in plain by tcp://."""
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
def _over_tls(url: str, files: Files, stamp: tuple[int, ...]) -> Client:
    _context(files)  # so that what is wrong with them is said at once
    return Client(url, files)


def _session_with(url: str, files: Files) -> docker.APIClient:
    tls = bool(files) and TLSConfig(ca_cert=files[0], client_cert=files[1:], verify=True)
    # It asks for no version if it is given one; our addresses name the one that is spoken.
    # One pool, or docker-py keeps a connection to a Unix socket for each address that was asked there.
    session = docker.APIClient(url, version="1.41", tls=tls, num_pools=1)
    session.trust_env = False  # or REQUESTS_CA_BUNDLE would replace our authority
    session.headers["Accept-Encoding"] = "identity"  # or volumes would come compressed
    options = session.get_adapter(session.base_url).poolmanager.connection_pool_kw
    options |= {"socket_options": SOCKET_OPTIONS} | ({"ssl_context": _context(files)} if files else {})
    return session


def _context(files: Files) -> ssl.SSLContext:
    """Not to be shared: urllib3 writes to that of a session."""
    ca, certificate, key = files
    try:
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(certificate, key)
    except OSError as error:
        raise Unreachable(f"The certificates of ENGINE_TLS are of no use: {error}") from error
    return context


def _socket(address: Any) -> socket.socket:
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    for level, option, value in SOCKET_OPTIONS:
        made.setsockopt(level, option, value)
    return made


def _why(error: BaseException) -> str:
    """The system's own words, at the root of what docker-py, requests and urllib3 made of them."""
    while isinstance(deeper := error.__cause__ or error.__context__, (HTTPError, OSError)):
        error = deeper
    return str(error)


def _message(answer: BaseHTTPResponse) -> str:
    return _words(answer.status, answer.read())


def _words(status: int, said: bytes) -> str:
    try:
        return str(json.loads(said)["message"])
    except (ValueError, KeyError, TypeError):
        return f"Docker answered {status}: {said.decode(errors='replace')[:200]}"
