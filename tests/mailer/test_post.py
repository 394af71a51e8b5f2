"""Webhooks: posted once, signed, tried again, and never to a machine of ours."""

import hashlib
import hmac
import ipaddress
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from django.conf import settings as django_settings
from django.core.exceptions import ValidationError
from django.utils import timezone

from mailer import hooks, jobs
from mailer.models import TRIES_MAX, Hook

pytestmark = pytest.mark.django_db
SECRET = "our secret"


class Receiver:
    """Somebody's program that takes what is posted, and answers as it is told."""

    def __init__(self) -> None:
        self.taken: list[tuple[dict[str, str], bytes]] = []
        self.status, self.headers = 204, dict[str, str]()
        self.body = b""
        self.answer: Callable[[BaseHTTPRequestHandler], None] = self.answer_plainly
        self.over = Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.taken.append((dict(self.headers), body))
                receiver.answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/news?for=me"

    def answer_plainly(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(self.status)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(self.body)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    there = Receiver()
    thread = Thread(target=there.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield there
    there.over.set()
    there.server.shutdown()
    thread.join()
    there.server.server_close()


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ids of the webhooks that were queued."""
    ids: list[int] = []
    monkeypatch.setattr("mailer.hooks._queue", ids.append)
    monkeypatch.setattr("mailer.jobs.post_hook.apply_async", lambda args, **options: ids.append(args[0]))
    return ids


@pytest.fixture
def posted(queued: list[int], receiver: Receiver) -> Callable[..., Hook]:
    def post(key: str = "k:1", url: str = "") -> Hook:
        body = {"id": key, "words": "“Tea & Rum” is down"}
        return hooks.post(
            key=key, about="pub", event="trouble.began", url=url or receiver.url, secret=SECRET, body=body
        )

    return post


Post = Callable[..., Hook]


def again(hook: Hook) -> Hook:
    hook.refresh_from_db()
    return hook


def tried(hook: Hook) -> str:
    """What its owner reads after one try."""
    jobs.post_hook(hook.pk)
    assert again(hook).sent_at is None
    return hook.error


def test_it_is_posted_as_json_once_and_its_secret_forgotten(posted: Post, receiver: Receiver) -> None:
    hook = posted()
    jobs.post_hook(hook.pk)
    jobs.post_hook(hook.pk)
    [(headers, body)] = receiver.taken
    assert json.loads(body) == {"id": "k:1", "words": "“Tea & Rum” is down"}
    assert headers["Content-Type"] == "application/json"
    assert again(hook).sent_at and (hook.error, hook.secret) == ("", "")


def test_an_address_with_other_letters_is_posted_to_as_browsers_do(posted: Post, receiver: Receiver) -> None:
    hook = posted(url=f"{receiver.url.partition('?')[0]}/käse%20?für=mich")
    path: list[str] = []
    receiver.answer = lambda handler: (path.append(handler.path), receiver.answer_plainly(handler))[1]
    jobs.post_hook(hook.pk)
    assert again(hook).sent_at and path == ["/news/k%C3%A4se%20?f%C3%BCr=mich"]


def test_the_same_cause_is_posted_once(posted: Post) -> None:
    assert posted().pk == posted().pk and Hook.objects.count() == 1


def test_the_signature_can_be_checked_with_the_secret_and_the_time_alone(posted: Post, receiver: Receiver) -> None:
    """As docs/monitor.md says it."""
    jobs.post_hook(posted().pk)
    [(headers, body)] = receiver.taken
    parts = dict(part.split("=") for part in headers["Buttcloud-Signature"].split(","))
    expected = hmac.new(SECRET.encode(), parts["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert hmac.compare_digest(parts["v1"], expected)
    assert abs(int(parts["t"]) - timezone.now().timestamp()) < 60


def test_one_in_other_hands_is_left_alone_and_taken_over_once_its_worker_must_be_dead(
    posted: Post, receiver: Receiver
) -> None:
    hook = posted()
    Hook.objects.update(claimed_until=timezone.now() + timedelta(seconds=90))
    jobs.post_hook(hook.pk)
    assert receiver.taken == []
    Hook.objects.update(claimed_until=timezone.now() - timedelta(seconds=1))
    jobs.post_hook(hook.pk)
    assert len(receiver.taken) == 1


@pytest.mark.parametrize("status", [400, 404, 410, 500, 503])
def test_what_is_refused_is_tried_again_later_and_its_owner_reads_why(
    posted: Post, receiver: Receiver, status: int
) -> None:
    receiver.status = status
    hook = posted()
    assert tried(hook) == f"It answered with status {status}."
    assert hook.claimed_until and hook.claimed_until > timezone.now() + timedelta(seconds=50)
    assert hook.secret == SECRET
    receiver.status = 200
    Hook.objects.update(claimed_until=None)
    jobs.post_hook(hook.pk)
    assert again(hook).sent_at and hook.error == ""


def test_after_twelve_tries_it_is_given_up_and_stays_to_be_seen(
    posted: Post, receiver: Receiver, queued: list[int]
) -> None:
    receiver.status = 500
    hook = posted()
    queued.clear()
    for _ in range(TRIES_MAX + 3):
        Hook.objects.update(claimed_until=None)
        jobs.post_hook(hook.pk)
    jobs.sweep()
    assert (len(receiver.taken), queued, again(hook).is_given_up) == (TRIES_MAX, [], True)


def test_the_sweep_queues_what_is_due_and_forgets_what_is_old(posted: Post, queued: list[int]) -> None:
    lost, old = posted("lost"), posted("old")
    Hook.objects.filter(pk=posted("claimed").pk).update(claimed_until=timezone.now() + timedelta(seconds=60))
    Hook.objects.filter(pk=posted("sent").pk).update(sent_at=timezone.now())
    Hook.objects.filter(pk=old.pk).update(created=timezone.now() - timedelta(days=31), tries=TRIES_MAX)
    queued.clear()
    jobs.sweep()
    assert queued == [lost.pk] and not Hook.objects.filter(pk=old.pk).exists()


def test_a_redirect_is_not_followed(posted: Post, receiver: Receiver) -> None:
    receiver.status, receiver.headers = 307, {"Location": receiver.url.replace("news", "elsewhere")}
    assert "follow no redirects" in tried(posted())
    assert len(receiver.taken) == 1


def test_a_big_answer_is_not_read_to_its_end(posted: Post, receiver: Receiver) -> None:
    sent = 0

    def flood(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(2000):
                sent += handler.wfile.write(b"x" * 65536)
        except OSError:
            pass

    receiver.answer = flood
    hook = posted()
    jobs.post_hook(hook.pk)
    assert again(hook).sent_at and sent < 64 * 1024**2


@contextmanager
def within(seconds: float) -> Iterator[None]:
    begin = monotonic()
    yield
    assert monotonic() - begin < seconds


def test_a_server_that_does_not_answer_is_left_after_its_time(
    posted: Post, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "SECONDS", 0.3)
    receiver.answer = lambda handler: receiver.over.wait(10) and None
    with within(2):
        assert tried(posted()).startswith("It did not answer within")


def test_a_server_that_answers_byte_by_byte_is_left_after_its_time(
    posted: Post, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "SECONDS", 0.4)

    def drip(handler: BaseHTTPRequestHandler) -> None:
        try:
            while not receiver.over.wait(0.05):
                handler.wfile.write(b"H")
                handler.wfile.flush()
        except OSError:
            pass

    receiver.answer = drip
    with within(2):
        assert tried(posted()).startswith("It did not answer within")


def test_a_name_server_that_does_not_answer_is_left_after_its_time(
    posted: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "SECONDS", 0.2)
    asked = Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: asked.wait(5))
    try:
        with within(2):
            assert tried(posted(url="http://news.example/")).startswith("It did not answer within")
    finally:
        asked.set()


def test_what_is_wrong_with_an_address_is_said_in_words(posted: Post, receiver: Receiver) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        assert tried(posted("1", f"http://127.0.0.1:{port}/")) == "Nothing listens there: the connection was refused."
    assert tried(posted("2", receiver.url.replace("http:", "https:"))) == "It does not speak TLS as it should."
    receiver.answer = lambda handler: handler.wfile.write(b"SSH-2.0-nothing\r\n\r\n") and None
    assert "not HTTP" in tried(posted("3"))


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """One for localhost that nobody has signed but itself, with its key."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "us")])
    now = timezone.now()
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = tmp_path / "both.pem"
    file.write_bytes(private + made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return file


def test_over_tls_the_name_must_be_proved(
    posted: Post, receiver: Receiver, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    receiver.server.socket = context.wrap_socket(receiver.server.socket, server_side=True)
    port = receiver.server.server_port
    assert tried(posted("1", f"https://localhost:{port}/")).startswith("Its certificate is not good: self-signed")
    trusting = ssl.create_default_context(cafile=certificate)
    monkeypatch.setattr(hooks, "_encrypted", lambda: trusting)
    assert tried(posted("2", f"https://127.0.0.1:{port}/")).startswith(
        "Its certificate is not good: IP address mismatch"
    )
    hook = posted("3", f"https://localhost:{port}/")
    jobs.post_hook(hook.pk)
    assert again(hook).sent_at and len(receiver.taken) == 1


PRIVATE = [
    *("127.0.0.1", "10.0.0.8", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200", "0.0.0.0"),
    *("224.0.0.1", "255.255.255.255", "168.63.129.16", "::1", "::", "fe80::1", "fd00:ec2::254", "ff02::1"),
    *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::10.0.0.8", "2002:7f00:1::", "2001:db8::1"),
    *("fec0::1", "::127.0.0.1", "::ffff:0:7f00:1", "::ffff:9.9.9.9", "64:ff9b:1::10.0.0.8"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_of_ours_is_refused_however_it_is_written(settings: django_settings, address: str) -> None:
    settings.HOOK_ALLOW_PRIVATE = False
    assert not hooks.may_dial(ipaddress.ip_address(address))
    with pytest.raises(ValidationError, match="not on the public internet"):
        hooks.check_url(f"https://[{address}]/" if ":" in address else f"https://{address}/")


@pytest.mark.parametrize("address", ["9.9.9.9", "2620:fe::fe", "64:ff9b::9.9.9.9"])
def test_a_public_address_is_allowed(settings: django_settings, address: str) -> None:
    settings.HOOK_ALLOW_PRIVATE = False
    assert hooks.may_dial(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://news.example/", "https://"),
        ("ftp://news.example/", "https://"),
        ("news.example", "https://"),
        ("https://", "https://"),
        ("https://me:secret@news.example/", "name and password"),
        ("https://news.example:port/", "can read"),
        ("https://[::1", "can read"),
    ],
)
def test_an_address_that_we_never_post_to_is_refused_in_words(settings: django_settings, url: str, words: str) -> None:
    settings.HOOK_ALLOW_PRIVATE = False
    with pytest.raises(ValidationError, match=words):
        hooks.check_url(url)


def test_a_name_that_leads_to_us_is_found_out_before_anything_is_sent(
    posted: Post, receiver: Receiver, settings: django_settings
) -> None:
    settings.HOOK_ALLOW_PRIVATE = False
    port = receiver.server.server_port
    assert "not on the public internet" in tried(posted(url=f"https://localhost:{port}/"))
    assert "https://" in tried(posted("2"))
    assert receiver.taken == []


def test_a_name_is_looked_up_once_so_that_it_can_mean_nothing_else_meanwhile(
    posted: Post, receiver: Receiver, settings: django_settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: public when it is checked, ours when it is called."""
    settings.HOOK_ALLOW_PRIVATE = False
    called: list[Any] = []
    answers = [[(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("9.9.9.9", 443))], [("127.0.0.1",)]]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: answers.pop(0))

    def connect(peer: socket.socket, address: Any) -> None:
        called.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", connect)
    tried(posted(url="https://news.example/"))
    assert called == [("9.9.9.9", 443)] and len(answers) == 1


def test_another_address_or_secret_drops_what_waits(posted: Post, queued: list[int]) -> None:
    waiting, sent = posted("waiting"), posted("sent")
    Hook.objects.filter(pk=sent.pk).update(sent_at=timezone.now())
    hooks.forget("pub")
    assert list(Hook.objects.values_list("key", flat=True)) == ["sent"]
    jobs.post_hook(waiting.pk)


def test_mails_and_webhooks_wait_in_queues_of_their_own() -> None:
    from buttcloud.celery import app

    queues = {name: app.amqp.router.route({}, name)["queue"].name for name in ("mailer.send", "mailer.post_hook")}
    assert queues == {"mailer.send": "mailer", "mailer.post_hook": "hooks"}
