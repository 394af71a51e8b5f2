"""A zone of a name server that takes dynamic updates (RFC 2136) and transfers (AXFR, IXFR), both under one TSIG key.

Each name of ours holds an address record, and a TXT record that says which deployment wrote it. So several deployments
and other people's records share a zone, and a change of ours demands that the name is still ours, or nobody's.
"""

import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from itertools import batched
from threading import Lock
from time import monotonic

import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.tsig
import dns.update
import dns.xfr
import dns.zone
from django.conf import settings

from orchestrator.dns import NamesError

SECONDS = 5.0  # for one exchange, connecting included
# A copy of the zone may go wrong unseen, if the server was set back to an older state in between.
COPY_SECONDS = 600.0
# A message holds 64 KiB. A name with its mark and its prerequisite takes 500 bytes at most: 63 letters, five times.
NAMES_A_MESSAGE = 100

REMEDIES = {
    dns.rcode.NOTAUTH: "It does not serve this zone, or not under this key: check DNS_ZONE and DNS_KEY_NAME.",
    dns.rcode.REFUSED: "It must allow updates and transfers of the zone under the key DNS_KEY_NAME.",
    dns.rcode.NOTZONE: "PUB_DOMAIN does not lie in the zone: check DNS_ZONE.",
}
MISMATCHES = (dns.rcode.YXDOMAIN, dns.rcode.YXRRSET, dns.rcode.NXDOMAIN, dns.rcode.NXRRSET)

# (server, zone) → a copy of the zone, and when it was begun.
_copies: dict[tuple[str, str], tuple[dns.zone.Zone, float]] = {}
_one_look = Lock()


class ZoneNames:
    def records(self) -> dict[str, str]:
        mark = dns.rdataset.from_text("IN", "TXT", settings.DNS_TTL, _mark())
        with _whole_zone() as zone:
            return {
                name.to_text(omit_final_dot=True): _address(node)
                for name, node in zone.items()
                # Our mark and no other text beside it, which is what a change will demand.
                if node.get_rdataset(mark.rdclass, mark.rdtype) == mark
            }

    def sync(self, wanted: Mapping[str, str]) -> None:
        seen = self.records()
        asked = {host: _plain(address) for host, address in wanted.items()}
        changes = [host for host in {**seen, **asked} if asked.get(host) not in ("", seen.get(host))]
        taken = []
        for some in batched(changes, NAMES_A_MESSAGE):
            taken += list(_send(some, seen, asked))
        _complain(taken, {address for host, address in wanted.items() if address and not asked[host]})


def _complain(taken: Collection[str], wrong: Collection[str]) -> None:
    """NamesError about what could not be written, once all the rest is."""
    troubles = []
    if taken:
        troubles.append(
            f"The name server holds other people's records under {', '.join(sorted(taken))}: remove them there."
        )
    if wrong:
        troubles.append(f"A record needs the hub's IP address, which this is not: {', '.join(sorted(wrong))}.")
    if troubles:
        raise NamesError(" ".join(troubles))


def _plain(address: str) -> str:
    """The one way to write an IP address; "" for what is none."""
    try:
        return str(ip_address(address))
    except ValueError:
        return ""


def _send(hosts: Sequence[str], seen: Mapping[str, str], wanted: Mapping[str, str]) -> Iterator[str]:
    """Send the changes in one message, or in halves where one is turned down; yields the hosts that are not ours."""
    update = dns.update.UpdateMessage(_zone_name(), keyring=_key())
    for host in hosts:
        _add(update, dns.name.from_text(host), host in seen, wanted.get(host))
    with _errors_in_words():
        where, port = _server()
        rcode = dns.query.tcp(update, where, SECONDS, port).rcode()
    if rcode in MISMATCHES and len(hosts) > 1:
        half = len(hosts) // 2
        yield from _send(hosts[:half], seen, wanted)
        yield from _send(hosts[half:], seen, wanted)
    elif rcode in MISMATCHES:
        yield hosts[0]
    elif rcode != dns.rcode.NOERROR:
        raise _refusal(rcode)


def _add(update: dns.update.UpdateMessage, name: dns.name.Name, ours: bool, address: str | None) -> None:
    """One name's change. The server makes all changes of a message or none."""
    if ours:
        update.present(name, "TXT", _mark())
        update.delete(name, "A")
        update.delete(name, "AAAA")
    else:
        update.absent(name)
        update.add(name, settings.DNS_TTL, "TXT", _mark())
    if address:
        update.add(name, settings.DNS_TTL, "A" if ip_address(address).version == 4 else "AAAA", address)
    elif ours:
        update.delete(name, "TXT")


def _address(node: dns.node.Node) -> str:
    """The one address with the TTL that we give; "" for anything else, which makes it be written again."""
    found = [
        (_plain(address.to_text()), rdataset.ttl)
        for kind in (dns.rdatatype.A, dns.rdatatype.AAAA)
        for rdataset in [node.get_rdataset(dns.rdataclass.IN, kind)]
        if rdataset is not None
        for address in rdataset
    ]
    return found[0][0] if len(found) == 1 and found[0][1] == settings.DNS_TTL else ""


def _mark() -> str:
    return f'"buttcloud deployment={settings.DEPLOYMENT}"'


def _zone_name() -> dns.name.Name:
    return dns.name.from_text(settings.DNS_ZONE)


def _key() -> dns.tsig.Key:
    return dns.tsig.Key(settings.DNS_KEY_NAME, settings.DNS_KEY, dns.tsig.HMAC_SHA256)


def _server() -> tuple[str, int]:
    """IP address and port of the name server."""
    host, _, port = settings.DNS_SERVER.rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    return str(found[0][4][0]), int(port)


@contextmanager
def _whole_zone() -> Iterator[dns.zone.Zone]:
    """All of the zone as it is now. What changed since the last look is all that travels (IXFR), if the server can."""
    place = (settings.DNS_SERVER, settings.DNS_ZONE)
    with _one_look:
        zone, begun = _copies.pop(place, (None, 0.0))
        if zone is None or monotonic() - begun > COPY_SECONDS:
            zone, begun = dns.zone.Zone(_zone_name(), relativize=False), monotonic()
        with _errors_in_words():
            query, _ = dns.xfr.make_query(zone, keyring=_key())
            where, port = _server()
            dns.query.inbound_xfr(where, zone, query, port, timeout=SECONDS, lifetime=4 * SECONDS)
        # Only a copy that came through whole serves the next look.
        _copies[place] = zone, begun
        yield zone


@contextmanager
def _errors_in_words() -> Iterator[None]:
    """Whatever the exchange with the name server raises, as a NamesError."""
    server = settings.DNS_SERVER
    try:
        yield
    except (dns.tsig.PeerBadKey, dns.tsig.PeerBadSignature) as error:
        raise NamesError(
            f"The name server {server} refuses our key: check DNS_KEY_NAME and DNS_KEY, "
            "and that this key may update and transfer the zone."
        ) from error
    except dns.tsig.PeerBadTime as error:
        raise NamesError(f"The name server {server} refuses our clock: set both machines' clocks right.") from error
    except dns.xfr.TransferError as error:
        raise _refusal(error.rcode) from error
    except (dns.exception.Timeout, OSError, EOFError) as error:
        raise NamesError(
            f"The name server {server} does not answer ({error or 'it hung up'}): check DNS_SERVER."
        ) from error
    except dns.exception.DNSException as error:
        raise NamesError(f"The name server {server} gives no answer that makes sense: {error}") from error


def _refusal(rcode: dns.rcode.Rcode) -> NamesError:
    said = f"The name server {settings.DNS_SERVER} refuses zone {settings.DNS_ZONE} ({dns.rcode.to_text(rcode)})."
    return NamesError(f"{said} {REMEDIES.get(rcode, 'Its log says why.')}")
