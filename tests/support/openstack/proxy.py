"""A proxy in front of one server of the lab that passes everything on, and spoils what it is told to.

with spoiling(lab.url["nova"]) as proxy:
    proxy.spoil("POST", "/servers", lose_answer)
"""

import http.client
import http.server
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

PASSED_ON_ANEW = {"connection", "content-length", "date", "host", "server", "transfer-encoding"}


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""


Pass = Callable[[], Answer]
Mishap = Callable[[Pass], Answer | None]


def lose_answer(pass_on: Pass) -> None:
    """It was done, and nobody is told."""
    pass_on()


def gateway_error(pass_on: Pass) -> Answer:
    """Nothing was done, but who knows."""
    return Answer(502)


def nonsense(pass_on: Pass) -> Answer:
    """Good news in no language that we know."""
    return Answer(200, [("Content-Type", "application/json")], b"{}")


def late(arrives: threading.Event) -> Mishap:
    """The request is on its way until then."""

    def mishap(pass_on: Pass) -> Answer:
        arrives.wait()
        return pass_on()

    return mishap


class Proxy(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.mishaps: list[tuple[str, str, Mishap]] = []
        self.answers: list[tuple[str, str, int]] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def spoil(self, method: str, end: str, mishap: Mishap, times: int = 1) -> None:
        """What happens to the next requests of this method whose path ends so."""
        self.mishaps += [(method, end, mishap)] * times

    def answered(self, method: str, end: str) -> list[int]:
        """The statuses of the answers to such requests, whoever still heard them; 0 for one that was lost."""
        return [status for asked, path, status in self.answers if asked == method and path.endswith(end)]

    def take_mishap(self, method: str, path: str) -> Mishap | None:
        for mishap in self.mishaps:
            if mishap[0] == method and path.endswith(mishap[1]):
                self.mishaps.remove(mishap)
                return mishap[2]
        return None

    def handle_error(self, *args: object) -> None:
        """A caller that has hung up is what we are here for."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *args: object) -> None:
        pass

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        mishap = self.server.take_mishap(self.command, path)
        answer = mishap(lambda: self.pass_on(body)) if mishap else self.pass_on(body)
        self.server.answers.append((self.command, path, answer.status if answer else 0))
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def pass_on(self, body: bytes) -> Answer:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=120)
        connection.request(self.command, self.path, body or None, dict(self._kept(self.headers.items())))
        response = connection.getresponse()
        answer = Answer(response.status, list(self._kept(response.getheaders())), response.read())
        connection.close()
        return answer

    @staticmethod
    def _kept(headers: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        return ((name, value) for name, value in headers if name.lower() not in PASSED_ON_ANEW)

    do_GET = do_POST = do_DELETE = do_PUT = do_HEAD = handle_request


@contextmanager
def spoiling(upstream: str) -> Iterator[Proxy]:
    with Proxy(upstream) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield proxy
        proxy.shutdown()
