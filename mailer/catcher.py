"""Mail for a machine that sends none: each mail becomes a file, and a small page on its own port shows them.

The mails hold sign-in codes. So the files are their owner's alone, and the page answers only to a browser that calls
it by a loopback name.
"""

import asyncio
import json
import os
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage as ParsedMail
from http import HTTPStatus
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.template.loader import render_to_string

from mailer.loopback import REFUSAL, is_loopback

# Lists show this many; older mails stay in the folder.
SHOWN = 100
MAIL_ID = re.compile(r"\d{8}T\d{12}-[0-9a-f]{8}")
PAGE_CSP = "default-src 'none'; style-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'"
# A mail's own page runs no script, loads nothing from outside and counts as a foreign origin.
MAIL_CSP = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; "
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
)

Scope = dict[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


class CatchingBackend(BaseEmailBackend):
    """Writes each mail to settings.MAIL_DIR, whole or not at all."""

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        folder = Path(settings.MAIL_DIR)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for message in email_messages:
            keep(folder, message.message().as_bytes())
        return len(email_messages)


def keep(folder: Path, mail: bytes) -> None:
    """Write the mail under a name that sorts by time; a reader never sees half of it."""
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}"
    half = folder / f".{name}"
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(mail)
    half.rename(folder / f"{name}.eml")


@dataclass(frozen=True)
class Mail:
    id: str
    to: str
    subject: str
    at: datetime
    text: str
    html: str
    headers: list[tuple[str, str]]


def read(folder: Path, mail_id: str) -> Mail | None:
    """The mail with this id, or None. Ids are checked, since they come from the address line."""
    if not MAIL_ID.fullmatch(mail_id):
        return None
    try:
        parsed = message_from_bytes((folder / f"{mail_id}.eml").read_bytes(), policy=policy.default)
    except FileNotFoundError:
        return None
    return Mail(
        id=mail_id,
        to=str(parsed["To"] or ""),
        subject=str(parsed["Subject"] or ""),
        at=datetime.strptime(mail_id.partition("-")[0], "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC),
        text=_part(parsed, "plain"),
        html=_part(parsed, "html"),
        headers=[(name, str(value)) for name, value in parsed.items()],
    )


def newest(folder: Path) -> list[Mail]:
    """The newest mails, newest first."""
    ids = sorted((file.stem for file in folder.glob("*.eml")), reverse=True)[:SHOWN]
    return [mail for mail_id in ids if (mail := read(folder, mail_id))]


def make_app(mail_dir: Path) -> App:
    """The ASGI app that shows the mails in mail_dir: `/`, `/mails/<id>/`, and `/api/mails` for programs."""

    async def app(scope: Scope, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        if scope["type"] != "http":
            raise ValueError("The mail page speaks HTTP only.")
        answer = await asyncio.to_thread(_answer, Path(mail_dir), scope)
        headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})

    return app


@dataclass(frozen=True)
class Answer:
    status: HTTPStatus
    kind: str
    body: bytes
    csp: str = PAGE_CSP

    @property
    def headers(self) -> dict[str, str]:
        return {
            "content-type": f"{self.kind}; charset=utf-8",
            "content-length": str(len(self.body)),
            "content-security-policy": self.csp,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-store",
        }


def _answer(folder: Path, scope: Scope) -> Answer:
    host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
    if not is_loopback(host):
        return _sentence(HTTPStatus.FORBIDDEN, REFUSAL)
    if scope["method"] not in ("GET", "HEAD"):
        return _sentence(HTTPStatus.METHOD_NOT_ALLOWED, "This page is only for reading.")
    match scope["path"].strip("/").split("/"):
        case [""]:
            return _page("list.html", mails=newest(folder))
        case ["style.css"]:
            return Answer(HTTPStatus.OK, "text/css", render_to_string("mailer/catcher/style.css").encode())
        case ["api", "mails"]:
            listed = [_listed(mail) for mail in newest(folder)]
            return Answer(HTTPStatus.OK, "application/json", json.dumps(listed).encode())
        case ["mails", mail_id] if mail := read(folder, mail_id):
            return _page("mail.html", mail=mail)
        case ["mails", mail_id, "html"] if mail := read(folder, mail_id):
            return Answer(HTTPStatus.OK, "text/html", mail.html.encode(), MAIL_CSP)
    return _sentence(HTTPStatus.NOT_FOUND, "There is no such mail.")


def _listed(mail: Mail) -> dict[str, str]:
    return {"id": mail.id, "to": mail.to, "subject": mail.subject, "at": mail.at.isoformat(), "text": mail.text}


def _page(template: str, **values: Any) -> Answer:
    return Answer(HTTPStatus.OK, "text/html", render_to_string(f"mailer/catcher/{template}", values).encode())


def _sentence(status: HTTPStatus, sentence: str) -> Answer:
    return Answer(status, "text/plain", f"{sentence}\n".encode())


def _part(parsed: ParsedMail, kind: str) -> str:
    part = parsed.get_body((kind,))
    return str(part.get_content()) if part else ""
