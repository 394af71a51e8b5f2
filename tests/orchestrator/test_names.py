"""A pub's host name for life, and a name server that does not answer."""

import re
import socket
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from orchestrator import dns
from orchestrator.dns import NamesError, host_of, label_of, rfc2136

ID = UUID("0a1b2c3d-0000-4000-8000-000000000000")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("The Crab 🦀", "the-crab-0a1b2c"),
        ("Ünïcode_Pub", "unicode-pub-0a1b2c"),
        ("Привет", "pub-0a1b2c"),
        ("xn--80ak6aa92e", "xn-80ak6aa92e-0a1b2c"),
    ],
)
def test_a_label_holds_what_plain_letters_the_name_has(name: str, label: str) -> None:
    assert label_of(name, ID) == label


@hypothesis_settings(deadline=None)
@given(st.text(st.sampled_from("aB9-_ .é🦀"), max_size=80))
def test_every_name_gives_a_label_that_a_name_server_takes(name: str) -> None:
    assert re.fullmatch(r"(?=.{1,63}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?", label_of(name, ID))


def test_namesakes_have_their_own_labels() -> None:
    assert label_of("crab", uuid4()) != label_of("crab", uuid4())


def test_each_pub_has_its_own_host_only_under_a_domain(settings: Any) -> None:
    settings.PUB_HOST = "pubs.example"
    assert host_of("crab-0a1b2c") == "pubs.example"
    settings.PUB_DOMAIN = "pubs.example.org"
    assert host_of("crab-0a1b2c") == "crab-0a1b2c.pubs.example.org"


def test_without_a_name_server_there_is_nothing_to_do() -> None:
    dns.sync({"crab.pubs.example": "192.0.2.1"})
    assert dns.connect().records() == {}


@pytest.fixture
def port(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A port that somebody holds and never answers on: connecting there is all that one can do."""
    monkeypatch.setattr(rfc2136, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.DNS, settings.DNS_ZONE = "orchestrator.dns.rfc2136.ZoneNames", "pubs.example"
        settings.DNS_KEY_NAME, settings.DNS_KEY = "ours", "c2VjcmV0"
        settings.DNS_SERVER = f"127.0.0.1:{silent.getsockname()[1]}"
        yield silent.getsockname()[1]


def test_a_name_server_that_says_nothing_is_not_waited_for(port: int) -> None:
    with pytest.raises(NamesError, match=f"127.0.0.1:{port} does not answer.*check DNS_SERVER"):
        dns.sync({})


def test_a_name_server_that_is_not_there_is_named(port: int, settings: Any) -> None:
    settings.DNS_SERVER = "127.0.0.1:1"
    with pytest.raises(NamesError, match="127.0.0.1:1 does not answer.*check DNS_SERVER"):
        dns.sync({})
