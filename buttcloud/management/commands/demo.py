"""Walks through the running service as a customer's browser would: `make demo`.

It speaks HTTP and websockets only and never looks into the database. The one thing besides is the second peer: a real
Scuttlebutt client with an identity of its own, in a container, that gets nothing but the invite.
"""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from html import unescape
from typing import Any
from urllib.parse import urljoin
from uuid import uuid4

import requests
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

MAILS = f"http://localhost:{settings.MAIL_PORT}/api/mails"
CARD = "4242 4242 4242 4242"
OFFER = "pub-monthly-1gb"
PATIENCE = 120  # seconds for any one step; on a new machine the first pub takes longest
COMMANDS_NOT_ANSWERED = ("queued", "running")


class Command(BaseCommand):
    help = "Joins, pays, runs, watches and commands a pub on the running service, with the time of each step."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--keep", action="store_true", help="leave the pub running, to look at it")

    def handle(self, *args: Any, keep: bool, **options: Any) -> None:
        self.began = self.stepped = time.monotonic()
        visitor = Visitor(settings.SITE_URL)
        try:
            self._walk(visitor, keep)
        except requests.ConnectionError as error:
            raise CommandError(f"{settings.SITE_URL} does not answer: start it with `make run` first.") from error
        except (requests.RequestException, WebSocketException, TimeoutError, OSError) as error:
            raise CommandError(f"The connection broke: {error}") from error
        self.stdout.write(f"\nAll of it happened, in {time.monotonic() - self.began:.1f} s.")

    def _step(self, what: str) -> None:
        now = time.monotonic()
        self.stdout.write(f"{now - self.stepped:7.2f} s  {what}")
        self.stdout.flush()
        self.stepped = now

    def _walk(self, visitor: "Visitor", keep: bool) -> None:
        email = f"demo-{uuid4().hex[:8]}@customer.example"
        visitor.send("/accounts/signup/", name="Demo", email=email)
        self._step(f"signed up as {email}")
        landed = visitor.send(visitor.at, code=read_code(email))
        self._step("read the code in the mail and typed it in")
        if "/pubs/new" not in landed.url:
            raise CommandError(f"After signing up I am at {landed.url} instead of naming my pub.")
        name = f"Demo pub {time.strftime('%H:%M:%S')} 🐚"
        pub = visitor.send(landed.url, name=name).url
        self._step(f"named a pub: {pub}")
        with visitor.listen(pub) as socket:
            self._pay(visitor, pub)
            self._wait_until_up(socket)
            self._watch(socket)
            pub_id = self._ask(visitor, pub, "whoami")["id"]
            invite = self._ask(visitor, pub, "create_invite", uses=1, note="demo")["invite"]
            peer = self._second_peer(invite)
            self._see_follow(visitor, pub, pub_id, peer)
        if keep:
            return self._step(f"the pub goes on: sign in as {email} with the code that is mailed")
        visitor.send(urljoin(pub, "delete/"), name=name)
        self._step("deleted the pub, which ends its subscription; --keep leaves it")

    def _pay(self, visitor: "Visitor", pub: str) -> None:
        checkout = visitor.send(urljoin(pub, f"/billing/pubs/{pub_uuid(pub)}/checkout/"), form_at=pub, offer=OFFER)
        self._step(f"went to the payment page: {checkout.url.split('?')[0]}")
        back = visitor.send(checkout.url, form_at=None, number=CARD, exp="12 / 32", cvc="123")
        if pub_uuid(pub) not in back.url:
            raise CommandError(f"Paying led to {back.url} and not back to the pub: {first_words(back.text)}")
        self._step("paid with the test card")

    def _wait_until_up(self, socket: ClientConnection) -> None:
        seen: list[str] = []
        for message in messages(socket, "pub"):
            now = steps_done(message["html"])
            for name in now:
                if name not in seen:
                    seen.append(name)
                    self._step(f"  step: {name}")
            if re.search(r'data-status="up"', message["html"]):
                return self._step("the pub is up")

    def _watch(self, socket: ClientConnection) -> None:
        for number, stats in enumerate(messages(socket, "stats"), 1):
            memory, limit = stats["memory"] / 2**20, stats["memory_limit"] / 2**20
            self._step(
                f"live stats: {stats['cpu']:.1f} % of a core, {memory:.0f} of {limit:.0f} MB, {stats['pids']} processes"
            )
            if number == 3:
                return

    def _ask(self, visitor: "Visitor", pub: str, name: str, **fields: Any) -> Any:
        """The result of a command that is asked on the page and whose answer is read as the page's script does."""
        named = {f"{name}-{field}": value for field, value in fields.items()}
        asked = visitor.send(urljoin(pub, "commands/"), form_at=pub, **{"name": name, **named})
        answer = f"{settings.SITE_URL}/api/v1/pubs/{pub_uuid(pub)}/commands/{pub_uuid(asked.url, 1)}/"
        deadline = time.monotonic() + PATIENCE
        while (row := visitor.session.get(answer, timeout=20).json())["state"] in COMMANDS_NOT_ANSWERED:
            if time.monotonic() > deadline:
                raise CommandError(f"{name} got no answer within {PATIENCE} s.")
            time.sleep(0.05)
        if row["state"] != "done":
            raise CommandError(f"{name} ended as {row['state']}: {row['error']}")
        self._step(f"{name}: {json.dumps(row['result'], ensure_ascii=False)[:150]}")
        return row["result"]

    def _second_peer(self, invite: str) -> str:
        """The id of a new peer that accepted the invite and saw that the pub follows it."""
        script = settings.BASE_DIR / "pub_image" / "peer.js"
        container = ["docker", "run", "--rm", "--network", "host", "--entrypoint", "node"]
        container += ["-e", f"PUB_SHS={settings.PUB_SHS}"] if settings.PUB_SHS else []
        container += ["-v", f"{script}:/app/peer.js:ro", settings.PUB_IMAGE, "/app/peer.js", invite, "60"]
        ran = subprocess.run(container, capture_output=True, text=True, timeout=PATIENCE)
        said = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
        if ran.returncode:
            raise CommandError(f"The second peer failed: {said[-1:] or ran.stderr.strip()[-300:]}")
        peer = next(line["id"] for line in said if line["step"] == "accepted")
        self._step(f"a second peer accepted the invite: {peer}")
        return peer

    def _see_follow(self, visitor: "Visitor", pub: str, pub_id: str, peer: str) -> None:
        members = self._ask(visitor, pub, "members")
        if peer not in json.dumps(members):
            raise CommandError(f"{pub_id} does not follow {peer} back.")
        self._step("the pub follows the second peer back")


class Visitor:
    """A browser without eyes: cookies, forms with their hidden fields, redirects."""

    def __init__(self, site: str) -> None:
        self.session = requests.Session()
        self.session.trust_env = False
        self.site = self.at = site

    def send(self, address: str, form_at: str | None = "", **fields: Any) -> requests.Response:
        """Open the page of a form ("" for the form's own address, None for none) and submit the form to `address`."""
        address = urljoin(self.site, address)
        if form_at is not None:
            page = self.session.get(urljoin(self.site, form_at or address), timeout=60)
            page.raise_for_status()
            if token := re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text):
                fields["csrfmiddlewaretoken"] = token[1]
        answer = self.session.post(address, fields, headers={"Referer": address}, timeout=60)
        self.at = answer.url
        if answer.status_code >= 400:
            raise CommandError(f"{address} answered {answer.status_code}: {first_words(answer.text)}")
        return answer

    def listen(self, pub: str) -> ClientConnection:
        """The live page's websocket."""
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.session.cookies)
        return connect(
            f"{self.site.replace('http', 'ws', 1)}/ws/pubs/{pub_uuid(pub)}/",
            additional_headers={"Cookie": cookies},
            origin=Origin(self.site),
        )


def read_code(email: str) -> str:
    """The sign-in code from the newest mail to this address."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for mail in requests.get(MAILS, timeout=20).json():
            if email in mail["to"] and (
                code := re.search(r"^\s*([A-Z0-9]{3,4}-?[A-Z0-9]{3,4})\s*$", mail["text"], re.M)
            ):
                return code[1]
        time.sleep(0.1)
    raise CommandError(f"No mail with a code came to {email} within {PATIENCE} s.")


def messages(socket: ClientConnection, kind: str) -> Iterator[dict[str, Any]]:
    deadline = time.monotonic() + PATIENCE
    said = ""
    while (left := deadline - time.monotonic()) > 0:
        try:
            message = json.loads(socket.recv(timeout=left))
        except TimeoutError:
            break
        if message["kind"] == kind:
            yield message
        if message["kind"] == "pub":
            said = " ".join(re.findall(r'class="note todo">([^<]+)<', message["html"]))
    raise CommandError(f"Waited {PATIENCE} s for the page to say more. It says: {said or 'nothing'}")


def steps_done(html: str) -> list[str]:
    return [unescape(name) for name in re.findall(r'<li class="done">([^<]+)<', html)]


def pub_uuid(address: str, place: int = 0) -> str:
    return re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", address)[place]


def first_words(html: str) -> str:
    """What a page says, for an error message."""
    alerts = re.findall(r'(?s)role="alert"[^>]*>(.*?)<|class="error[^"]*"[^>]*>(.*?)<', html)
    said = " ".join(part for pair in alerts for part in pair).strip() or re.sub(
        r"(?s)<style.*?</style>|<[^>]+>", " ", html
    )
    return " ".join(unescape(said).split())[:200]
