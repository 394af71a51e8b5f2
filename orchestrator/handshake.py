"""Scuttlebutt's secret handshake, the client's half: whether a pub answers at its address as people's apps ask it.

A port that is open says little: a stranger's program may listen there. Whoever ends this handshake has proved to have
the secret of the identity that was asked for, and to speak on the same network. The bytes are those of the protocol
guide (https://ssbc.github.io/scuttlebutt-protocol-guide/#handshake), whose names are kept here.
"""

import asyncio
import hmac
import socket
import time
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from hashlib import sha256

from django.conf import settings
from django.utils.crypto import salted_hmac
from nacl.bindings import (
    crypto_scalarmult,
    crypto_scalarmult_base,
    crypto_sign_ed25519_pk_to_curve25519,
    crypto_sign_ed25519_sk_to_curve25519,
)
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from nacl.signing import SigningKey, VerifyKey
from nacl.utils import random

MAIN_NETWORK = b64decode("1KHLiKZvAvjbY1ziZEHMXawbCEIM6qwjCDm3VYRan/s=")
HELLO_BYTES, ACCEPT_BYTES = 64, 80
# Each box has a key of its own, so that the nonce may be the same for all.
NONCE = bytes(SecretBox.NONCE_SIZE)
# The head of an encrypted packet that says that none follows.
GOODBYE = bytes(18)
# A pub that takes in a lot of messages may need seconds for its next answer.
ANSWER_SECONDS = 8.0
CLOSE_SECONDS = 2.0


class Refused(Exception):
    """There was no handshake; the words say why, for the owner of the pub."""


NO_NAME = "its name leads to no machine."
NOBODY = "nobody listens at its address."
SILENT = "there was no answer in time. It may be very busy."
WRONG_NETWORK = "what answers at its address speaks on another network, or is no Scuttlebutt pub at all."
WRONG_IDENTITY = "somebody else answers at its address, and could not prove to be your pub."


class Client:
    """The client's side, bytes in and bytes out: say `hello()`, then answer what the server says with what follows."""

    def __init__(self, network: bytes, server: bytes, me: SigningKey, ephemeral: bytes | None = None) -> None:
        """`server`: the identity that is to be proved; `ephemeral`: a fresh secret, unless a test knows better."""
        self.network, self.server, self.me = network, server, me
        self.ephemeral = ephemeral or random(32)

    def hello(self) -> bytes:
        public = crypto_scalarmult_base(self.ephemeral)
        return _authenticator(public, self.network) + public

    def authenticate(self, hello: bytes) -> bytes:
        """Our proof, after the server's hello: nobody but the server can read who we are."""
        self.server_mac, theirs = hello[:32], hello[32:]
        if not hmac.compare_digest(self.server_mac, _authenticator(theirs, self.network)):
            raise Refused(WRONG_NETWORK)
        try:
            self.shared_ab = crypto_scalarmult(self.ephemeral, theirs)
            self.shared_aB = crypto_scalarmult(self.ephemeral, crypto_sign_ed25519_pk_to_curve25519(self.server))
            self.shared_Ab = crypto_scalarmult(crypto_sign_ed25519_sk_to_curve25519(_secret(self.me)), theirs)
        except (CryptoError, RuntimeError) as error:  # a point that gives no secret
            raise Refused(WRONG_IDENTITY) from error
        hashed = sha256(self.shared_ab).digest()
        self.proof = self.me.sign(self.network + self.server + hashed).signature + bytes(self.me.verify_key)
        key = sha256(self.network + self.shared_ab + self.shared_aB).digest()
        return SecretBox(key).encrypt(self.proof, NONCE).ciphertext

    def verify(self, accept: bytes) -> None:
        """The server's proof. Refused if it is not the one that we asked for."""
        secret = sha256(self.network + self.shared_ab + self.shared_aB + self.shared_Ab).digest()
        hashed = sha256(self.shared_ab).digest()
        try:
            signature = SecretBox(secret).decrypt(accept, NONCE)
            VerifyKey(self.server).verify(self.network + self.proof + hashed, signature)
        except CryptoError as error:
            raise Refused(WRONG_IDENTITY) from error
        self.sending_key = sha256(sha256(secret).digest() + self.server).digest()

    def goodbye(self) -> bytes:
        """The end of the encrypted stream that would begin now."""
        return SecretBox(self.sending_key).encrypt(GOODBYE, self.server_mac[: len(NONCE)]).ciphertext


def _authenticator(message: bytes, key: bytes) -> bytes:
    """NaCl's crypto_auth."""
    return hmac.digest(key, message, "sha512")[:32]


def _secret(key: SigningKey) -> bytes:
    """An Ed25519 secret as libsodium keeps it: the seed, and the public key behind it."""
    return bytes(key) + bytes(key.verify_key)


def our_key() -> SigningKey:
    """Who we are to the pubs: always the same, so that one that is asked each minute meets one stranger in all."""
    return SigningKey(salted_hmac("orchestrator.handshake", "", algorithm="sha256").digest())


def our_network() -> bytes:
    return b64decode(settings.PUB_SHS) if settings.PUB_SHS else MAIN_NETWORK


def public_key(ssb_id: str) -> bytes:
    """The key in an identity like @...=.ed25519."""
    return b64decode(ssb_id.removeprefix("@").removesuffix(".ed25519"))


async def shake_hands(address: str, ssb_id: str) -> float:
    """Meet the pub at host:port, and part at once: the milliseconds until it had proved who it is, or Refused."""
    client = Client(our_network(), public_key(ssb_id), our_key())
    began = time.monotonic()
    try:
        async with asyncio.timeout(ANSWER_SECONDS) as patience, _connected(address) as (reader, writer):
            writer.write(client.hello())
            writer.write(client.authenticate(await _read(reader, HELLO_BYTES, WRONG_NETWORK)))
            client.verify(await _read(reader, ACCEPT_BYTES, WRONG_IDENTITY))
            took = (time.monotonic() - began) * 1000
            patience.reschedule(None)
            await _part(client, reader, writer)
            return took
    except TimeoutError as error:
        raise Refused(SILENT) from error


@asynccontextmanager
async def _connected(address: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = address.rpartition(":")
    try:
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except socket.gaierror as error:
        raise Refused(NO_NAME) from error
    except TimeoutError:
        raise
    except OSError as error:
        raise Refused(NOBODY) from error
    try:
        yield reader, writer
    finally:
        writer.close()


async def _read(reader: asyncio.StreamReader, count: int, hung_up: str) -> bytes:
    """What the server says. One that does not like what it heard hangs up without a word."""
    try:
        return await reader.readexactly(count)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise Refused(hung_up) from error


async def _part(client: Client, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say goodbye, and wait for the pub to close: one that is cut off may write an error into its log."""
    with suppress(OSError):
        writer.write(client.goodbye())
        writer.write_eof()
        async with asyncio.timeout(CLOSE_SECONDS):
            while await reader.read(4096):
                pass
