"""The local Stripe as an ASGI app: `make_app(state_file, base_url)`, for uvicorn on a loopback address."""

import asyncio
import contextlib
import json
import logging
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from mailer.loopback import REFUSAL, is_loopback

from .api import Api
from .money import Money
from .pages import Pages, message
from .store import API_VERSION, CorruptState, Problem, Store
from .webhooks import RETRY_DELAYS, Webhooks

__all__ = ["CorruptState", "LocalStripe", "make_app"]

log = logging.getLogger("billing.local_stripe")

BIGGEST_REQUEST = 1_000_000
LOOK_AT_THE_CLOCK_EVERY = 5.0
# Forms may lead anywhere: after a payment the customer is sent to the product's own address.
PAGE_HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "same-origin",
}


@dataclass(frozen=True)
class Answer:
    status: int
    body: str
    headers: dict[str, str]


class LocalStripe:
    """One local Stripe with all of its state, so that several can run side by side.

    Everything runs on the server's event loop and no request awaits between its first look at the store and
    its last write, so requests cannot disturb each other. Django must be set up: the pages use its templates.
    """

    def __init__(
        self,
        state_file: Path | None,
        base_url: str,
        retry_delays: tuple[float, ...] = RETRY_DELAYS,
        clock_offset: int = 0,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        # A page elsewhere must not press our buttons in somebody's browser.
        self.hosts = ("127.0.0.1", "localhost", urlsplit(base_url).hostname)
        self.store = Store(state_file, clock_offset)
        self.webhooks = Webhooks(self.store, retry_delays)
        self.money = Money(self.store, self.webhooks, self.base_url)
        self.api = Api(self.store, self.webhooks, self.money, self.base_url)
        self.pages = Pages(self.store, self.webhooks, self.money)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)

    # Life -----------------------------------------------------------------------------------------

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        await self.webhooks.start()
        clock = asyncio.create_task(self._watch_the_clock())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        clock.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await clock
        await self.webhooks.stop()
        self.store.save()
        await send({"type": "lifespan.shutdown.complete"})

    async def _watch_the_clock(self) -> None:
        """Renews and expires by itself what falls due while nobody asks."""
        while True:
            await asyncio.sleep(LOOK_AT_THE_CLOCK_EVERY)
            try:
                if self.money.catch_up():
                    self.store.save_soon()
                self.store.save_if_due()
            except OSError as error:
                log.error("the local Stripe cannot save its state: %s", error)

    # Requests -------------------------------------------------------------------------------------

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        body = await _read(receive)
        if body is None:
            return
        answer = self._answer(scope, body)
        headers = {**answer.headers, "request-id": f"req_{secrets.token_hex(7)}"}
        encoded = answer.body.encode()
        headers["content-length"] = str(len(encoded))
        raw = [(name.encode(), value.encode("utf-8")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else encoded})

    def _answer(self, scope: Any, body: bytes) -> Answer:
        path, method = scope["path"], scope["method"].replace("HEAD", "GET")
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        form = (body if method == "POST" else scope["query_string"]).decode("utf-8", "replace")
        is_api = path.startswith("/v1/")
        try:
            if len(body) > BIGGEST_REQUEST:
                raise Problem(400, "This request is too large.")
            if not is_loopback(headers.get("host", "")):
                raise Problem(403, REFUSAL)
            self.money.catch_up()
            answer = self._api(method, path, form, headers) if is_api else self._page(method, path, form, headers)
        except Problem as problem:
            answer = _refusal(problem, is_api)
        except Exception as error:
            log.exception("the local Stripe failed at %s %s", method, path)
            words = f"The local Stripe failed: {error!r}. Its log says more."
            answer = _refusal(Problem(500, words, kind="api_error"), is_api)
        return self._saved(answer, is_api) if method != "GET" else answer

    def _api(self, method: str, path: str, form: str, headers: dict[str, str]) -> Answer:
        reply = self.api.answer(method, path.removeprefix("/v1/"), form, headers)
        return _json(200, reply)

    def _page(self, method: str, path: str, form: str, headers: dict[str, str]) -> Answer:
        origin = headers.get("origin", self.base_url)
        if method == "POST" and urlsplit(origin).hostname not in self.hosts:
            raise Problem(403, f"This form was sent by {origin}, not by a page of {self.base_url}.")
        fields = dict(parse_qsl(form, keep_blank_values=True)) if method == "POST" else {}
        page = self.pages.answer(method, path, fields)
        moved = {"location": page.location} if page.location else {}
        return Answer(page.status, page.html, PAGE_HEADERS | moved)

    def _saved(self, answer: Answer, is_api: bool) -> Answer:
        """The answer once its changes are on disk. A refusal may have changed something: a declined invoice."""
        try:
            self.store.save_soon()
        except OSError as error:
            log.error("the local Stripe cannot save its state: %s", error)
            words = f"The local Stripe cannot write {self.store.state_file}: {error.strerror}."
            return _refusal(Problem(500, words, kind="api_error"), is_api)
        return answer


def make_app(
    state_file: Path | None,
    base_url: str,
    retry_delays: tuple[float, ...] = RETRY_DELAYS,
    clock_offset: int = 0,
) -> LocalStripe:
    """The app for uvicorn. `base_url` is where browsers find its pages: it begins the address of each page.

    Without a state file nothing outlives the process. Raises CorruptState with the remedy when the file
    cannot be read. `retry_delays` are the pauses in seconds between the tries of one webhook. `clock_offset` lets the
    clock of a new state begin that many seconds ahead of the machine's, or behind it.
    """
    return LocalStripe(state_file, base_url, retry_delays, clock_offset)


async def _read(receive: Any) -> bytes | None:
    """The request's body, cut off once it is too large, or None when the client has gone."""
    body = b""
    while True:
        part = await receive()
        if part["type"] == "http.disconnect":
            return None
        if len(body) <= BIGGEST_REQUEST:
            body += part.get("body", b"")
        if not part.get("more_body"):
            return body


def _json(status: int, body: dict[str, Any]) -> Answer:
    return Answer(status, json.dumps(body), {"content-type": "application/json", "stripe-version": API_VERSION})


def _refusal(problem: Problem, is_api: bool) -> Answer:
    if is_api:
        return _json(problem.status, problem.body)
    page = message(problem.status, "That did not work", problem.message)
    return Answer(page.status, page.html, PAGE_HEADERS)
