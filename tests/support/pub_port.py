"""The port of a pub, without the pub: the server's half of Scuttlebutt's handshake, and those that get it wrong."""

import asyncio
import hmac
import threading
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256

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

from orchestrator.handshake import our_network

NONCE = bytes(24)
Serve = Callable[["PubPort", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class PubPort:
    """Who listens, on which network, and what it saw."""

    key: SigningKey = field(default_factory=SigningKey.generate)
    network: bytes = field(default_factory=our_network)
    address: str = ""
    met: list[bytes] = field(default_factory=list)  # whom it shook hands with
    parted: list[bool] = field(default_factory=list)  # whether they said goodbye
    open: int = 0  # connections now
    most: int = 0  # at once

    @property
    def ssb_id(self) -> str:
        return f"@{b64encode(bytes(self.key.verify_key)).decode()}.ed25519"


async def honest(port: PubPort, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As a pub does, which hangs up on whatever it does not like."""
    hello = await reader.readexactly(64)
    mac, theirs = hello[:32], hello[32:]
    if mac != authenticator(theirs, port.network):
        return
    secret = random(32)
    ours = crypto_scalarmult_base(secret)
    writer.write(authenticator(ours, port.network) + ours)
    shared_ab = crypto_scalarmult(secret, theirs)
    shared_aB = crypto_scalarmult(crypto_sign_ed25519_sk_to_curve25519(port.key._signing_key), theirs)
    box = SecretBox(sha256(port.network + shared_ab + shared_aB).digest())
    try:
        proof = box.decrypt(await reader.readexactly(112), NONCE)
    except CryptoError:
        return
    client = proof[64:]
    VerifyKey(client).verify(
        port.network + bytes(port.key.verify_key) + sha256(shared_ab).digest(), signature=proof[:64]
    )
    shared_Ab = crypto_scalarmult(secret, crypto_sign_ed25519_pk_to_curve25519(client))
    key = sha256(port.network + shared_ab + shared_aB + shared_Ab).digest()
    signature = port.key.sign(port.network + proof + sha256(shared_ab).digest()).signature
    writer.write(SecretBox(key).encrypt(signature, NONCE).ciphertext)
    port.met.append(client)
    goodbye = await reader.readexactly(34)
    hers = SecretBox(sha256(sha256(key).digest() + bytes(port.key.verify_key)).digest())
    port.parted.append(hers.decrypt(goodbye, authenticator(ours, port.network)[:24]) == bytes(18))


async def silent(port: PubPort, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes the connection, and says nothing."""
    await reader.read()


async def web_server(port: PubPort, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Another program has the port."""
    writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".ljust(200))


async def impostor(port: PubPort, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Knows the network, and claims to be whoever is asked for."""
    await reader.readexactly(64)
    ours = crypto_scalarmult_base(random(32))
    writer.write(authenticator(ours, port.network) + ours)
    await reader.readexactly(112)
    writer.write(random(80))


def authenticator(message: bytes, key: bytes) -> bytes:
    return hmac.digest(key, message, "sha512")[:32]


@contextmanager
def listening(serve: Serve = honest, port: PubPort | None = None) -> Iterator[PubPort]:
    """A port of this machine, for as long as the block lasts."""
    port = port or PubPort()
    loop = asyncio.new_event_loop()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port.open += 1
        port.most = max(port.most, port.open)
        try:
            await serve(port, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            port.open -= 1
            writer.close()

    server = loop.run_until_complete(asyncio.start_server(answer, "127.0.0.1", 0))
    port.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(_end(server))
        loop.close()


async def _end(server: asyncio.Server) -> None:
    server.close()
    waiting = asyncio.all_tasks() - {asyncio.current_task()}
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await server.wait_closed()
