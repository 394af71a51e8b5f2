"""The page and the file of what a pub wrote: what they say, what they find, and what they never show."""

import base64
import json
import random
import re
import secrets
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from orchestrator.logs import READ_SECONDS
from pubs import live, redact
from pubs.models import Bot
from pubs.views import logs
from tests.support.make import Maker

NOW = timezone.now


def line(text: str, number: int = 0, is_error: bool = False) -> live.LogLine:
    at = "2026-12-03T14:05:06.007+00:00"
    return live.LogLine(key=f"{10**18 + number}.0", number=number, at=at, text=text, is_error=is_error)


@pytest.fixture
def bot(make: Maker) -> Bot:
    return make.bot(name="Harbour <Garden>", paid=True, status="up", started_at=NOW())


@pytest.fixture
def owner(client: Client, bot: Bot) -> Client:
    client.force_login(bot.owner)
    return client


@pytest.fixture
def written(bot: Bot, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A worker that answers at once: with these lines."""

    def write(*lines: live.LogLine, trouble: str = "", ago: timedelta = timedelta()) -> None:
        def answer(bot_id: Any, count: int) -> None:
            live.remember_logs(bot_id, count, live.Logs(at=NOW() - ago, lines=list(lines[-count:]), trouble=trouble))

        monkeypatch.setattr(live, "ask_for_logs", answer)

    return write


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr(logs, "DOWNLOAD_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(logs, "LOOK_SECONDS", 0.01)


def page(client: Client, bot: Bot, **query: str) -> str:
    answer = client.get(reverse("pubs:logs", args=[bot.pk]), query)
    assert answer.status_code == 200
    return answer.content.decode()


def lines_in(html: str, hidden: bool = False) -> list[str]:
    rows = re.findall(r"<li data-key=\S+?(?: class=\"error\")?( hidden)?>.*?<span>(.*?)</span></li>", html)
    return [text for is_hidden, text in rows if bool(is_hidden) == hidden]


# --- the page --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["logs", "logs_download"])
def test_the_lines_are_the_owners_alone(client: Client, make: Maker, bot: Bot, name: str) -> None:
    address = reverse(f"pubs:{name}", args=[bot.pk])
    assert client.get(address).status_code == 302
    client.force_login(make.user("bob"))
    assert client.get(address).status_code == 404


def test_the_newest_lines_stand_last_with_their_time(owner: Client, bot: Bot, written: Callable[..., None]) -> None:
    written(line("one", 1), line("two", 2, is_error=True))
    html = page(owner, bot)
    assert lines_in(html) == ["one", "two"]
    assert html.count("3 Dec 14:05:06</time>") == 2
    assert html.count('class="error"') == 1 and html.count("<b>error</b>") == 1
    assert "Read 0 s ago" in html


def test_as_many_lines_are_shown_as_were_wished(owner: Client, bot: Bot, written: Callable[..., None]) -> None:
    written(*(line(f"line {number}", number) for number in range(1200)))
    assert lines_in(page(owner, bot)) == [f"line {number}" for number in range(1000, 1200)]
    assert len(lines_in(page(owner, bot, lines="1000"))) == 1000
    assert len(lines_in(page(owner, bot, lines="9999999"))) == 200


def test_what_a_pub_wrote_is_text_and_no_page(owner: Client, bot: Bot, written: Callable[..., None]) -> None:
    written(line('<script>alert("x")</script> & <b>'))
    html = page(owner, bot, q="<b>")
    assert lines_in(html) == ["&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; <mark>&lt;b&gt;</mark>"]
    assert "<script>alert" not in html


def test_what_is_sought_is_marked_in_any_case_and_the_rest_is_hidden(
    owner: Client, bot: Bot, written: Callable[..., None]
) -> None:
    written(line("Peer a.b joined, PEER"), line("nothing"), line("a peer"))
    html = page(owner, bot, q="peer")
    assert lines_in(html) == ["<mark>Peer</mark> a.b joined, <mark>PEER</mark>", "a <mark>peer</mark>"]
    assert lines_in(html, hidden=True) == ["nothing"]
    assert "2 of 3 lines" in html and 'value="peer"' in html
    # It is no pattern.
    assert lines_in(page(owner, bot, q="a.b")) == ["Peer <mark>a.b</mark> joined, PEER"]
    assert "0 of 3 lines: not found" in page(owner, bot, q="(((")


def test_all_lines_that_were_read_are_searched(owner: Client, bot: Bot, written: Callable[..., None]) -> None:
    written(line("herring", 1), *(line(f"line {number}", number) for number in range(2, 900)))
    assert lines_in(page(owner, bot, q="herring")) == ["<mark>herring</mark>"]


def test_a_worker_is_asked_once_however_many_wish_the_lines(
    owner: Client, bot: Bot, impatient: None, monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Any,
) -> None:  # fmt: skip
    asked: list[tuple[str, Any]] = []
    monkeypatch.setattr(live.current_app, "send_task", lambda name, **more: asked.append((name, more["args"])))
    with django_capture_on_commit_callbacks(execute=True):
        for _ in range(3):
            page(owner, bot)
    assert asked == [("orchestrator.read_logs", [str(bot.pk), 1000])]


def test_lines_that_are_not_here_in_time_are_promised(owner: Client, bot: Bot, impatient: None) -> None:
    html = page(owner, bot)
    assert "not here yet. Reload" in html and lines_in(html) == []


def test_while_newer_ones_are_on_their_way_known_lines_say_their_age(owner: Client, bot: Bot, impatient: None) -> None:
    at = NOW() - timedelta(minutes=4)
    live.remember_logs(bot.pk, 1000, live.Logs(at=at, lines=[line("old")], trouble=""))
    html = page(owner, bot)
    assert lines_in(html) == ["old"] and "Read 4 min ago" in html and "not here yet. Reload" in html


def test_a_machine_out_of_sight_is_said(owner: Client, bot: Bot, written: Callable[..., None]) -> None:
    written(line("old"), trouble="We can't reach the machine.", ago=timedelta(minutes=7))
    html = page(owner, bot)
    assert "We can&#x27;t reach the machine. We look for it" in html
    assert lines_in(html) == ["old"] and "Read 7 min ago" in html


def test_a_pub_that_never_started_has_no_lines_and_nobody_is_asked(owner: Client, bot: Bot, make: Maker) -> None:
    fresh = make.bot()
    assert "never started" in page(owner, fresh)
    assert not live.are_logs_asked_for(fresh.pk, 1000)


@pytest.mark.parametrize("name", ["logs", "logs_download"])
def test_a_request_that_nobody_answers_and_that_runs_out_does_not_say_that_there_is_nothing(
    owner: Client, bot: Bot, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(logs, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(live, "LOGS_ASKED", 0.05)
    said = owner.get(reverse(f"pubs:{name}", args=[bot.pk]), follow=True).content.decode()
    assert "not here yet" in said and "There is nothing" not in said


def test_no_request_runs_out_before_its_answer() -> None:
    assert live.LOGS_ASKED > READ_SECONDS + logs.DOWNLOAD_WAIT_SECONDS


def test_of_a_pub_that_was_stopped_the_last_lines_are_shown_as_such(
    owner: Client, bot: Bot, written: Callable[..., None]
) -> None:
    written(line("fatal: gone"))
    assert "does not run now" not in page(owner, bot)
    Bot.objects.update(status="none")
    html = page(owner, bot)
    assert "Your pub does not run now." in html and lines_in(html) == ["fatal: gone"]


def test_a_pub_that_wrote_nothing_says_so(owner: Client, bot: Bot, written: Callable[..., None]) -> None:
    written()
    assert "There is nothing that your pub wrote" in page(owner, bot)


# --- the file --------------------------------------------------------------------------------------------------------
def test_the_file_has_all_lines_as_text(owner: Client, bot: Bot, written: Callable[..., None]) -> None:
    written(*(line(f"<line {number}>", number) for number in range(12_000)))
    answer = owner.get(reverse("pubs:logs_download", args=[bot.pk]))
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    assert re.fullmatch(r'attachment; filename="harbour-garden-\d{8}-\d{4}\.log"', answer["Content-Disposition"])
    head, *lines = answer.content.decode().splitlines()
    assert head.startswith("# What Harbour <Garden> wrote") and len(lines) == 10_000
    assert lines[-1] == "2026-12-03 14:05:06.007  <line 11999>"


def test_a_file_that_can_not_be_made_leads_back_to_the_page(owner: Client, bot: Bot, impatient: None) -> None:
    answer = owner.get(reverse("pubs:logs_download", args=[bot.pk]), follow=True)
    assert answer.redirect_chain == [(reverse("pubs:logs", args=[bot.pk]), 302)]
    assert "not here yet" in answer.content.decode()


# --- never secrets ---------------------------------------------------------------------------------------------------
def key(length: int = 32) -> str:
    return base64.b64encode(secrets.token_bytes(length)).decode()


PUBLIC = f"@{key()}.ed25519"
MESSAGE = f"%{key()}.sha256"


def urlsafe(length: int) -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(length)).decode().rstrip("=")


# Each makes (the secret, a text with it).
SECRETS: dict[str, Callable[[], tuple[str, str]]] = {
    "an invite": lambda: (seed := key(), f"pub.example.org:8008:{PUBLIC}~{seed}"),
    "an address with an invite": lambda: (seed := key(), f"net:pub.example.org:8008~shs:{key()}:{seed}"),
    "a private key": lambda: (secret := key(64), f"{secret}.ed25519"),
    "a key file": lambda: (secret := key(64), f'{{"public":"{key()}","private":"{secret}","id":"{PUBLIC}"}}'),
    "a bare key": lambda: (secret := key(64), secret),
    "a bare seed": lambda: (secret := key(), secret),
    "a key in hex": lambda: (secret := secrets.token_hex(32), secret),
    "a key for addresses": lambda: (secret := urlsafe(48), secret),
    "a bearer token": lambda: (secret := urlsafe(9), f"Authorization: Bearer {secret}"),
    "a basic login": lambda: (secret := urlsafe(9), f"authorization=Basic {secret}"),
    "a password": lambda: (secret := urlsafe(9), f"password={secret}"),
    "a password with spaces": lambda: (secret := f"{urlsafe(6)} {urlsafe(6)}", f'"passphrase": "{secret}"'),
    "a password with quotes": lambda: (secret := urlsafe(9), f'"password": "a\\"{secret}"'),
    "a quoted quote": lambda: (secret := urlsafe(9), f'"{{\\"token\\":\\"a {secret}\\"}}"'),
    "an address with a password": lambda: (secret := urlsafe(9), f"redis://:{secret}@cache/0"),
    "a web token": lambda: (secret := urlsafe(24), f"eyJhbGciOiJIUzI1NiJ9.{urlsafe(12)}.{secret}"),
    "a PEM key": lambda: (
        secret := urlsafe(24),
        f"-----BEGIN PRIVATE KEY-----\\n{secret}\\n-----END PRIVATE KEY-----",
    ),
    "an e-mail address": lambda: (secret := f"{secrets.token_hex(6)}@example.org", secret),
    "a private blob": lambda: (secret := key(), f"&{key()}.sha256?unbox={secret}.boxs"),
}
AROUND = [
    "",
    " ",
    ", ",
    ": ",
    '"',
    "'",
    "(",
    "{",
    "[",
    "<",
    "=",
    "/",
    "|",
    "\t",
    "\n",
    "\x1b[31m",
    "\u202e",
    "é",
    "日本",
]


def disguised(random: random.Random, secret: str, text: str) -> str:
    """The text within others, some of it coloured, as JSON within a message, or with what nobody sees in the secret."""
    match random.randrange(5):
        case 0:
            cut = random.randrange(1, len(secret))
            text = text.replace(secret, secret[:cut] + random.choice(["\x1b[1m", "\u200b", "\x00"]) + secret[cut:])
        case 1:
            text = f'{{"t":"2026","event":"x","message":{json.dumps(text)},"more":1}}'
        case 2:
            text = f'{{"t":"2026","event":"x","deep":{{"er":[{json.dumps(text)}]}}}}'
    before = random.choice(["", "x", f"{PUBLIC} ", "peer 12 "]) + random.choice(AROUND)
    after = random.choice(["", "x", f"{PUBLIC} ", "peer 12 "])
    return f"{before}{text}{random.choice(AROUND)}{after}" if random.random() < 0.8 else text


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_never_comes_through_whatever_surrounds_it(kind: str) -> None:
    chance = random.Random(kind)
    for _ in range(400):
        secret, text = SECRETS[kind]()
        written = disguised(chance, secret, text)
        shown = redact.line(written)
        assert secret not in shown, (written, shown)
        assert not any(part in shown for part in secret.split() if len(part) >= 8), (written, shown)
        assert redact.HIDDEN in shown or "[e-mail]" in shown
        assert shown.isprintable()


def test_what_is_public_stays() -> None:
    address = f"net:pub.example.org:8008~shs:{key()}"
    uri = f"ssb:message/sha256/{urlsafe(32)}="
    for public in (PUBLIC, MESSAGE, f"&{key()}.sha256", address, uri, "https://example.org/a@b", "10.0.0.7:8008"):
        assert redact.line(f"at {public}, then") == f"at {public}, then"


def test_of_an_invite_its_address_stays() -> None:
    assert redact.line(f"made pub.example.org:8008:{PUBLIC}~{key()} for you") == (
        f"made pub.example.org:8008:{PUBLIC}~[hidden] for you"
    )


def test_what_our_pub_writes_is_readable() -> None:
    said = {"t": "2026-12-03T14:05:06.007Z", "event": "listening", "id": PUBLIC, "ms": 512, "node": "v20.20.2"}
    assert redact.line(json.dumps(said)) == f"listening id={PUBLIC} ms=512 node=v20.20.2"
    fatal = {
        "t": "2026-12-03T14:05:06.007Z",
        "event": "fatal",
        "message": "Error: no\n    at x (/app/src/server.js:3:1)",
    }
    assert redact.line(json.dumps(fatal)) == "fatal: Error: no     at x (/app/src/server.js:3:1)"
    assert redact.line('{"t": 1, "event": "invite-used", "who": "a b", "n": null}') == 'invite-used who="a b" n=null'


@pytest.mark.parametrize("text", ["{", '{"event": 1}', "[1]", "", '{"a": "b"}', "[" * 9000, "12"])
def test_what_is_not_our_pubs_json_stays_as_it_is(text: str) -> None:
    assert redact.line(text)[:2000] == text[:2000]


def test_a_long_line_is_cut_and_half_a_secret_with_it() -> None:
    assert redact.line("ab " * 1000) == ("ab " * 667)[:2000] + " … and 1000 characters more"
    for fill in range(redact.READ_MAX - 120, redact.READ_MAX):
        seed = key(64)
        shown = redact.line("a@b.example " * (fill // 12) + " " * (fill % 12) + seed + " end")
        assert not any(seed[at : at + 10] in shown for at in range(len(seed) - 10))


def test_a_hostile_line_takes_no_time() -> None:
    hostile = ["eyJ", "token", "token='", 'token\\"', "://", "@", "-----BEGIN PRIVATE KEY-----", "~shs:", "basic ",
               "\x1b", "\x1b]", '{"event":', "x" * 42 + "@", "secret ", "ssb:feed/" + "a" * 30, "a.", "a@"]  # fmt: skip
    began = time.process_time()
    for piece in hostile:
        redact.line((piece * 16_000)[: redact.READ_MAX])
    assert time.process_time() - began < len(hostile) * 0.1


@pytest.mark.parametrize(
    ("text", "is_error"),
    [("fatal: x", True), ("head-save-failed: x", True), ("listening ms=1", False), ("x-failedly", False)],
)
def test_the_pubs_own_failures_are_errors(text: str, is_error: bool) -> None:
    assert redact.tells_of_failure(text) == is_error
