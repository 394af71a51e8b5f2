"""Webhooks: news posted as JSON to an address that somebody else chose. docs/monitor.md says how they are read.

Whoever names the address could mean a machine of ours. So its name is looked up once, only public addresses are called,
redirects are not followed, and an answer is read no further than its first lines.
"""

import hashlib
import hmac
import http.client
import ipaddress
import json
import re
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from threading import Timer
from typing import Any
from urllib.parse import SplitResult, urlsplit

from celery import current_app
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.encoding import iri_to_uri

from mailer.models import Hook

SECONDS = 10
ANSWER_MAX = 1024  # bytes that are read of an answer
SIGNATURE = "Buttcloud-Signature"
# Public by number, and yet the cloud's own service for its machines (Azure).
OF_CLOUDS = frozenset({ipaddress.ip_address("168.63.129.16")})
NAME = re.compile(r"[A-Za-z0-9._-]+")
NAT64 = ipaddress.ip_network("64:ff9b::/96")
# All of IPv6 that is given out to the public; some older forms outside it still count as global.
GIVEN_OUT = ipaddress.ip_network("2000::/3")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class HookError(Exception):
    """It was not delivered; says why, in words for who gave the address."""


# --- into the outbox -------------------------------------------------------------------------------------------------
def post(*, key: str, about: str, event: str, url: str, secret: str, body: dict[str, Any]) -> Hook:
    """Put it into the outbox and have it sent after commit; a key that is known already changes nothing."""
    values = {"about": about, "event": event, "url": url, "secret": secret, "body": json.dumps(body)}
    hook, is_new = Hook.objects.get_or_create(key=key, defaults=values)
    if is_new:
        # With the broker away it waits for the sweep.
        transaction.on_commit(lambda: _queue(hook.pk), robust=True)
    return hook


def forget(about: str) -> None:
    """What has not been sent has no address any more: another one was given."""
    Hook.objects.filter(about=about, sent_at=None).delete()


def sign_anew(about: str, secret: str) -> None:
    """What has not been sent is signed with another secret."""
    Hook.objects.filter(about=about, sent_at=None).update(secret=secret)


def _queue(hook_id: int) -> None:
    current_app.send_task("mailer.post_hook", args=[hook_id])


# --- out of it -------------------------------------------------------------------------------------------------------
def sign(secret: str, body: str, at: int) -> str:
    """The time is signed too, so that nobody can send an old one again unnoticed."""
    digest = hmac.new(secret.encode(), f"{at}.{body}".encode(), hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def check_url(url: str) -> SplitResult:
    """ValidationError for an address that we would never post to, as far as its text shows."""
    if " " in url or not url.isprintable():
        raise ValidationError("An address has no spaces in it, nor line breaks or the like.")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValidationError("This is no address that we can read.") from error
    if parts.scheme not in ("https", "http") or not host:
        raise ValidationError("Give an address that begins with https://.")
    if parts.scheme == "http" and not settings.HOOK_ALLOW_PRIVATE:
        raise ValidationError("It must begin with https://, so that nobody reads along.")
    if parts.username is not None:
        raise ValidationError("Leave name and password out of the address: what we post is signed.")
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        if not _may_be_name(host):
            raise ValidationError(f"{host} is no name of a machine.") from None
        return parts
    if not may_dial(literal):
        raise ValidationError("This address is not on the public internet.")
    return parts


def _may_be_name(host: str) -> bool:
    try:
        return NAME.fullmatch(host.encode("idna").decode()) is not None
    except UnicodeError:
        return False


def may_dial(address: Address) -> bool:
    """Whether it is anybody's but ours: no private, loopback, link-local or multicast one, however it is written."""
    if settings.HOOK_ALLOW_PRIVATE:
        return True
    is_given_out = address.version == 4 or address in GIVEN_OUT or address in NAT64
    return is_given_out and all(
        each.is_global and not each.is_multicast and each not in OF_CLOUDS for each in (address, *_inside(address))
    )


def _inside(address: Address) -> list[Address]:
    """IPv4 addresses that an IPv6 address leads to."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    inside = [address.sixtofour, *(address.teredo or ())]
    if address in NAT64:
        inside.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [each for each in inside if each is not None]


def deliver(hook: Hook) -> None:
    """Post it. HookError unless it was taken: answered with 2xx in time."""
    try:
        url = check_url(hook.url)
    except ValidationError as error:
        raise HookError(error.messages[0]) from error
    until = time.monotonic() + SECONDS
    try:
        # Its second handle ends the connection whoever reads from the first one.
        with _dial(url, until) as peer, peer.dup() as handle:
            # Each read has its own limit; one byte at a time would never reach it.
            timer = Timer(max(0, until - time.monotonic()), _hang_up, [handle])
            timer.start()
            try:
                status = _ask(peer, url, hook)
            finally:
                timer.cancel()
    except (OSError, http.client.HTTPException) as error:
        raise HookError(_in_words(error, until)) from error
    if not 200 <= status < 300:
        more = " We follow no redirects: give the address that it leads to." if 300 <= status < 400 else ""
        raise HookError(f"It answered with status {status}.{more}")


def _dial(url: SplitResult, until: float) -> socket.socket:
    """A connection to an address that we have checked: the very one, so that the name can't mean another meanwhile."""
    assert url.hostname
    port = url.port or (443 if url.scheme == "https" else 80)
    found = _look_up(url.hostname, port, until)
    allowed = [each for each in found if may_dial(ipaddress.ip_address(each[4][0]))]
    if not allowed:
        raise HookError(f"The name {url.hostname} leads to an address that is not on the public internet.")
    refused: OSError | None = None
    for family, kind, protocol, _, address in allowed:
        peer = socket.socket(family, kind, protocol)
        try:
            peer.settimeout(max(0.1, until - time.monotonic()))
            peer.connect(address)
            return peer
        except OSError as error:
            peer.close()
            refused = error
    assert refused
    raise refused


def _look_up(host: str, port: int, until: float) -> list[Any]:
    """The resolver has its own idea of patience, and is left to itself when ours is over."""
    resolver = ThreadPoolExecutor(1)
    try:
        return resolver.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM).result(until - time.monotonic())
    except UnicodeError as error:
        raise HookError(f"{host} is no name of a machine.") from error
    finally:
        resolver.shutdown(wait=False)


def _ask(peer: socket.socket, url: SplitResult, hook: Hook) -> int:
    """The status of its answer."""
    assert url.hostname
    connection = http.client.HTTPConnection(url.hostname, url.port)
    connection.sock = _encrypted().wrap_socket(peer, server_hostname=url.hostname) if url.scheme == "https" else peer
    try:
        body = hook.body.encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "buttcloud",
            "Connection": "close",
            SIGNATURE: sign(hook.secret, hook.body, int(time.time())),
        }
        target = iri_to_uri((url.path or "/") + (f"?{url.query}" if url.query else ""))
        connection.request("POST", target, body=body, headers=headers)
        answer = connection.getresponse()
        answer.read(ANSWER_MAX)
        return answer.status
    finally:
        connection.close()


@cache
def _encrypted() -> ssl.SSLContext:
    return ssl.create_default_context()


def _hang_up(handle: socket.socket) -> None:
    with suppress(OSError):
        handle.shutdown(socket.SHUT_RDWR)


def _in_words(error: Exception, until: float) -> str:
    if isinstance(error, TimeoutError) or time.monotonic() >= until:
        return f"It did not answer within {SECONDS} seconds."
    match error:
        case socket.gaierror():
            return "Its name is not known: nothing is found under it."
        case ssl.SSLCertVerificationError():
            return f"Its certificate is not good: {error.verify_message}."
        case ssl.SSLError():
            return "It does not speak TLS as it should."
        case ConnectionRefusedError():
            return "Nothing listens there: the connection was refused."
        case http.client.HTTPException() | ConnectionError():
            return "It broke the connection off, or answered with something that is not HTTP."
    return f"It can't be reached: {error.args[-1] if error.args else error}."
