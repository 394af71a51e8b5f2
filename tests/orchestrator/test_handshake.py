"""Shaking hands with a pub from outside: with those that answer, and with those that do not."""

import asyncio
import socket
from base64 import b64encode
from typing import Any

import pytest
from django.test import override_settings
from nacl.secret import SecretBox
from nacl.signing import SigningKey

from orchestrator import handshake
from orchestrator.handshake import Client, Refused, shake_hands
from tests.support.pub_port import PubPort, Serve, honest, impostor, listening, silent, web_server

# The first handshake of the vectors that the makers of the protocol publish (auditdrivencrypto/test-secret-handshake).
NETWORK = bytes.fromhex("291356d28154da68e8a9ee4fed71497c0a67d121a41b544d7a6157e76e0df5bc")
SERVER = bytes.fromhex("ecc1b58727f3f12b3194881a9ecb9de0b28ce7b207230d8e930fe1bce75e256c")
ME = SigningKey(bytes.fromhex("2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90"))
EPHEMERAL = bytes.fromhex("3886cd3e87ce98aa0e68da9ad04fb5b7b9089cc8a6705bc83cb507e69419a95b")
HELLO = (
    "9e0986a9df0d04dc9884a58aa9f68cbd1690d0140a602d1ad4ba5599c4205596"
    "0b6ea52868f0cbbac2deba8bb0fc1a1251d5aa80bc4fa85d8143571abc458752"
)
SERVER_HELLO = bytes.fromhex(
    "a7efd4c608bf19b20ceccee3af33d2df9fdc6dec05f11a383259875f9cf2e995"
    "7924d8b4cc7ddc4c5414cdafa1da6bbe1d6f5051644b8e5bec8feacde708b343"
)
AUTHENTICATION = (
    "ae275d3a4d2dcaf857e67b101b46d30c5970229afd4f0e109dd48313e2b797546e8654269461247e4a328ca91f69343a2ab4168dbb8cd101"
    "07131663ccb5b3d6a33295fa6b9575eac28a42ea7e40764cd9e0c24a99da19b484dfbe3f2e5d8bf50aa5dc80238c54bd212dc91bce3be8f0"
)
ACCEPT = bytes.fromhex(
    "e65dda80039b9a18f021663c387afc259bf41543f4daae6b1a9e80e499b83eb7cd6af630647a472b"
    "c05351a4a98bab741664dd3082a183f3fc5c9ebaf735cd0c58230a269518059ff7289fcf5c205928"
)
SENDING_KEY = "4f7153c9c56be7e6ff516e421c229351aebd23422a21d32ae8f0131cc2814722"


def shake(port: PubPort, ssb_id: str = "") -> float:
    return asyncio.run(shake_hands(port.address, ssb_id or port.ssb_id))


def why_not(port: PubPort, ssb_id: str = "") -> str:
    with pytest.raises(Refused) as refused:
        shake(port, ssb_id)
    return str(refused.value)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "ANSWER_SECONDS", 0.2)


def test_all_bytes_are_those_of_the_published_vectors() -> None:
    client = Client(NETWORK, SERVER, ME, EPHEMERAL)
    assert client.hello().hex() == HELLO
    assert client.authenticate(SERVER_HELLO).hex() == AUTHENTICATION
    client.verify(ACCEPT)
    assert client.sending_key.hex() == SENDING_KEY


@pytest.mark.parametrize("place", [0, 31, 79])
def test_an_acceptance_that_was_tampered_with_is_refused(place: int) -> None:
    client = Client(NETWORK, SERVER, ME, EPHEMERAL)
    client.authenticate(SERVER_HELLO)
    with pytest.raises(Refused, match="somebody else answers"):
        client.verify(ACCEPT[:place] + bytes([ACCEPT[place] ^ 1]) + ACCEPT[place + 1 :])


def test_an_acceptance_that_signs_something_else_is_refused() -> None:
    secret = bytes.fromhex("586be0361a71ef5e8ad574dd686de72d2e74f1b548bcdec7390bc727001977e3")  # of the same vector
    signature = SecretBox(secret).decrypt(ACCEPT, bytes(24))
    forged = SecretBox(secret).encrypt(bytes([signature[0] ^ 1]) + signature[1:], bytes(24)).ciphertext
    client = Client(NETWORK, SERVER, ME, EPHEMERAL)
    client.authenticate(SERVER_HELLO)
    with pytest.raises(Refused, match="somebody else answers"):
        client.verify(forged)


def test_an_answer_of_another_network_is_refused() -> None:
    client = Client(handshake.MAIN_NETWORK, SERVER, ME, EPHEMERAL)
    with pytest.raises(Refused, match="another network"):
        client.authenticate(SERVER_HELLO)


def test_each_handshake_has_a_fresh_secret() -> None:
    assert Client(NETWORK, SERVER, ME).hello() != Client(NETWORK, SERVER, ME).hello()


def test_a_pub_is_met_and_parted_from_politely() -> None:
    with listening() as port:
        assert 0 < shake(port) < handshake.ANSWER_SECONDS * 1000
    assert port.parted == [True]


def test_we_are_always_the_same_stranger_and_another_one_with_another_secret() -> None:
    with listening() as port:
        shake(port)
        shake(port)
        with override_settings(SECRET_KEY="another"):
            shake(port)
    first, second, third = port.met
    assert first == second != third


def test_pubs_of_our_own_network_are_met_there(settings: Any) -> None:
    ours = bytes(range(32))
    settings.PUB_SHS = b64encode(ours).decode()
    with listening(port=PubPort(network=ours)) as port:
        shake(port)
    settings.PUB_SHS = ""
    with listening(port=PubPort(network=handshake.MAIN_NETWORK)) as port:
        shake(port)
    with listening(port=PubPort(network=ours)) as elsewhere:
        assert "another network" in why_not(elsewhere)


def test_another_identity_at_the_address_is_somebody_else() -> None:
    with listening() as port:
        assert "somebody else answers" in why_not(port, ssb_id=PubPort().ssb_id)


@pytest.mark.parametrize(
    ("serve", "words"),
    [(impostor, "somebody else answers"), (web_server, "no Scuttlebutt pub"), (silent, "no answer in time")],
)
def test_whoever_does_not_prove_to_be_the_pub_is_told_in_words(serve: Serve, words: str, impatient: None) -> None:
    with listening(serve) as port:
        assert words in why_not(port)


def test_an_identity_that_is_no_point_of_the_curve_breaks_nothing() -> None:
    with listening() as port:
        assert "somebody else answers" in why_not(port, ssb_id=f"@{b64encode(bytes([2] * 32)).decode()}.ed25519")


def test_an_empty_port_and_an_unknown_name_are_told_apart() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = PubPort(address=f"127.0.0.1:{unused.getsockname()[1]}")
        assert "nobody listens" in why_not(nobody)
    assert "leads to no machine" in why_not(PubPort(address="pub.invalid:8008"))


def test_a_pub_that_does_not_close_is_left_after_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "CLOSE_SECONDS", 0.1)

    async def clings(port: PubPort, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await honest(port, reader, writer)
        await reader.read()
        await asyncio.sleep(30)

    with listening(clings) as port:
        assert shake(port) < 1000
