"""Our own certificate authority: what the engines of the hubs and the workers know each other by.

It lives in settings.ENGINE_TLS: `ca.pem`, which each hub gets; `cert.pem` and `key.pem`, with which workers and the
broadcaster come to the engines; and `ca-key.pem`, which only the workers that sign for new hubs need.
"""

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from django.conf import settings

from orchestrator.machines import MachineError

# dockerd takes no revocation list: a stolen key means a new authority, and a shorter life would protect nobody.
OUR_DAYS = 3650
# dockerd reads its certificate only when it starts, and its start restarts the hub's pubs: so it is not renewed while
# the hub runs, but lasts longer than a machine should. Staff are told before it ends, and drain the hub.
HUB_DAYS = 825
# A new machine's clock may be behind ours.
CLOCKS_DIFFER = timedelta(hours=1)
# What a key may be for; a certificate says yes or no to each.
USES = [
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
]


class AuthorityMissing(MachineError):
    """There is no authority, or not all of it is here."""


def make() -> list[Path]:
    """Make what is missing of the authority and of our client certificate; gives the files that were made.

    Nothing is ever overwritten. Raises AuthorityMissing where only the authority's certificate is there: a new key
    would not fit it.
    """
    folder: Path = settings.ENGINE_TLS
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    before = set(folder.iterdir())
    if (folder / "ca.pem").exists() and not (folder / "ca-key.pem").exists():
        raise AuthorityMissing(
            f"{folder} has ca.pem without its key, ca-key.pem: bring the key, or empty the folder to begin anew, with "
            "an authority that no hub of today knows."
        )
    if not (folder / "ca.pem").exists():
        ca_key = _kept_key(folder / "ca-key.pem")
        _write(folder / "ca.pem", _pem(_authority(ca_key)))
    if not (folder / "cert.pem").exists():
        key = _kept_key(folder / "key.pem")
        client = _certificate(key.public_key(), "orchestrator", OUR_DAYS, ExtendedKeyUsageOID.CLIENT_AUTH)
        _write(folder / "cert.pem", _pem(client))
    return sorted(set(folder.iterdir()) - before)


def certificate() -> str:
    """The authority's own certificate (PEM). Raises AuthorityMissing."""
    return _read("ca.pem").decode()


def sign(request: str, name: str, address: str) -> tuple[str, datetime]:
    """A certificate (PEM) for a hub's engine at `address`, and when it ends.

    Of the request only its key is taken: what it says about itself is the machine's own word. Raises AuthorityMissing.
    """
    signed = _certificate(public_key(request), name, HUB_DAYS, ExtendedKeyUsageOID.SERVER_AUTH, address)
    return _pem(signed).decode(), signed.not_valid_after_utc


def public_key(request: str) -> ec.EllipticCurvePublicKey:
    """The key of a certificate request (PEM) that was made by whoever has its private half. ValueError for others."""
    try:
        asked = x509.load_pem_x509_csr(request.encode())
        key = asked.public_key()
        if isinstance(key, ec.EllipticCurvePublicKey) and asked.is_signature_valid:
            return key
    except (UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise ValueError(str(error)) from error
    raise ValueError("The request needs an elliptic curve key, and its signature.")


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    usage = dict.fromkeys(USES, False) | {"key_cert_sign": True, "crl_sign": True}
    ours = _name("hub authority")
    return (
        _builder(key.public_key(), ours, ours, OUR_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .sign(key, hashes.SHA256())
    )


def _certificate(
    key: ec.EllipticCurvePublicKey, name: str, days: int, use: x509.ObjectIdentifier, address: str = ""
) -> x509.Certificate:
    ca_key, ca = _load_key(_read("ca-key.pem")), x509.load_pem_x509_certificate(_read("ca.pem"))
    usage = dict.fromkeys(USES, False) | {"digital_signature": True}
    builder = (
        _builder(key, _name(name), ca.subject, days)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
    )
    if address:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(ca_key, hashes.SHA256())


def _builder(
    key: ec.EllipticCurvePublicKey, subject: x509.Name, issuer: x509.Name, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS_DIFFER)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, settings.DEPLOYMENT),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _read(name: str) -> bytes:
    file: Path = settings.ENGINE_TLS / name
    try:
        return file.read_bytes()
    except OSError as error:
        raise AuthorityMissing(
            f"{file} can't be read ({error.strerror}): `manage.py hub_authority` makes the hubs' certificate authority."
        ) from error


def _kept_key(file: Path) -> ec.EllipticCurvePrivateKey:
    """The key in the file; a new one if there is none."""
    if file.exists():
        return _load_key(file.read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    plain = serialization.NoEncryption()
    _write(file, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return key


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _write(file: Path, content: bytes) -> None:
    """A new file that only its owner reads, whole or not at all; FileExistsError if there is one."""
    half = file.with_name(f".{file.name}.{os.getpid()}")
    half.unlink(missing_ok=True)
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(content)
    os.link(half, file)
    half.unlink()
