"""Machines of an OpenStack cloud, through openstacksdk: Nova for the machines, Neutron for their ports and addresses.

What keeps a machine from being paid for twice, though any answer may be lost and any request may arrive late:

1. Look first. A machine is ours by its metadata, which Nova writes in the row that is the machine, compared here: Nova
   drops a search for metadata from anybody but an administrator, and then shows every machine there is.
2. The claim. Before the machine, a port is made whose MAC is a hash of the token. A network has each MAC once, and a
   port serves one machine, so the cloud itself refuses the second, late request. The port goes last.
3. No request is made again by the HTTP layer. An unknown outcome is `Unavailable`, and the next call begins at 1.
4. Twins, should there be any, are settled as soon as one of them runs.

Needed besides: one caller a token at a time, which is the jobs' business.
"""

import base64
import hashlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

import openstack
import requests
from django.conf import settings
from keystoneauth1.exceptions import ClientException, HttpError
from openstack.compute.v2.server import Server
from openstack.connection import Connection
from openstack.exceptions import ConfigException, DuplicateResource, HttpException, NotFoundException, SDKException
from openstack.network.v2.port import Port

from orchestrator.machines import Machine, MachineError, Power, Refused, Unavailable

log = logging.getLogger(__name__)

DEPLOYMENT_KEY = "buttcloud.deployment"
HUB_KEY = "buttcloud.hub"
USER_DATA_MAX = 65535  # bytes in base64; Nova's own limit
# 4xx that say nothing about the machine: our access has ended, time-out, conflict (with a late twin, mostly), too many
# requests.
DOUBTFUL = (401, 403, 408, 409, 429)
POWER = {
    "BUILD": Power.BUILDING,
    "ERROR": Power.FAILED,
    "DELETED": Power.GOING,
    "SOFT_DELETED": Power.GOING,
    "PAUSED": Power.STOPPED,
    "SHELVED": Power.STOPPED,
    "SHELVED_OFFLOADED": Power.STOPPED,
    "SHUTOFF": Power.STOPPED,
    "SUSPENDED": Power.STOPPED,
}
# The library would make a POST again too, and so take an answer that came late for one more machine.
ONCE: dict[str, Any] = {
    f"{service}_{kind}_retries": 0 for service in ("compute", "network") for kind in ("connect", "status_code")
}
# Of twins, the first of these is shown.
BEST_FIRST = (Power.RUNNING, Power.BUILDING, Power.STOPPED, Power.FAILED, Power.GOING)


@contextmanager
def _cloud_errors() -> Iterator[None]:
    """What goes wrong with the cloud, as `Refused` when it said no for certain, or else as `Unavailable`."""
    try:
        yield
    except DuplicateResource as error:
        raise Refused(str(error)) from error
    except (HttpException, HttpError) as error:
        status = error.status_code if isinstance(error, HttpException) else error.http_status
        # Neutron says 409 when a quota is used up, and Nova 403.
        certain = 400 <= (status or 0) < 500 and (status not in DOUBTFUL or "uota" in str(error))
        raise (Refused if certain else Unavailable)(f"OpenStack: {error}") from error
    except (SDKException, ClientException, requests.RequestException) as error:
        raise Unavailable(f"OpenStack does not answer: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Unavailable(f"OpenStack's answer can't be understood: {error!r}") from error


class OpenStackMachines:
    # Seconds for one request. The library's own default is to wait for ever.
    timeout = 30

    def __init__(self) -> None:
        # A connection is not made for many threads: each has its own.
        self._local = threading.local()

    # --- the driver ---

    def list(self) -> list[Machine]:
        seen: dict[UUID, Machine] = {}
        for server in self._servers():
            try:
                machine = _machine(server)
            except (AttributeError, KeyError, TypeError, ValueError):
                # `is_gone` and `destroy` count it all the same.
                log.exception("the cloud shows machine %s in a way that can't be understood", server.id)
                continue
            # Of twins, the best is the first.
            twin = seen.get(machine.token)
            seen[machine.token] = replace(twin, has_twin=True) if twin else machine
        return list(seen.values())

    def create(self, token: UUID, name: str, user_data: Callable[[], str]) -> None:
        if servers := self._servers(token):
            self._settle(token, servers)
            return
        words = user_data()  # who gives none wants no machine, so that nothing is made for one
        port_id = self._claim(token, name)
        self._give_public_address(token, port_id)
        try:
            self._make(self._wanted(token, name, port_id, words))
        except MachineError:
            # The port may be taken because a request that was given up came through after all.
            if not self._servers(token):
                raise

    @_cloud_errors()
    def is_gone(self, token: UUID) -> bool:
        """Its claim is there, and free. Without one this may be another project, where there was never a machine."""
        ports = self._ours("ports", token)
        return bool(ports) and not any(map(_is_held, ports)) and not self._servers(token)

    def destroy(self, token: UUID) -> bool:
        if servers := self._servers(token):
            self._delete(servers)
            return False
        return self._release(token)

    # --- machines ---

    @_cloud_errors()
    def _servers(self, token: UUID | None = None) -> Sequence[Server]:
        """Ours, or those with this token; the best and oldest first."""
        everything = list(self._cloud.compute.servers())
        # Without its metadata, for the part of the cloud that it is in does not answer.
        if any(server.status == "UNKNOWN" for server in everything):
            raise Unavailable("OpenStack can't reach all of its machines just now: some are shown without their marks.")
        ours = [server for server in everything if _token(server)]
        asked = [server for server in ours if token in (None, _token(server))]
        return sorted(asked, key=lambda server: (BEST_FIRST.index(_power(server)), server.created_at or "", server.id))

    @_cloud_errors()
    def _settle(self, token: UUID, servers: Sequence[Server]) -> None:
        """Of twins, the one that got the port stays: only once it runs, for until then it may lose the port again."""
        if len(servers) == 1:
            return
        holders = [port.device_id for port in self._ours("ports", token)]
        if any(server.id in holders and _power(server) is Power.RUNNING for server in servers):
            self._delete([server for server in servers if server.id not in holders])

    @_cloud_errors()
    def _delete(self, servers: Sequence[Server]) -> None:
        for server in servers:
            if _power(server) is not Power.GOING:
                self._cloud.compute.delete_server(server)

    @_cloud_errors()
    def _make(self, wanted: dict[str, Any]) -> None:
        self._cloud.compute.create_server(**wanted)

    def _wanted(self, token: UUID, name: str, port_id: str, user_data: str) -> dict[str, Any]:
        encoded = base64.b64encode(user_data.encode()).decode()
        if len(encoded) > USER_DATA_MAX:
            raise Refused(f"What the machine must read at its first start is too long for Nova: {len(encoded)} bytes.")
        key = {"key_name": settings.OPENSTACK_KEY} if settings.OPENSTACK_KEY else {}
        return key | {
            "name": name,
            "flavor_id": self._id("OPENSTACK_FLAVOR", "compute", "flavor"),
            "image_id": self._id("OPENSTACK_IMAGE", "image", "image"),
            "networks": [{"port": port_id}],
            "user_data": encoded,
            "config_drive": True,
            "metadata": {DEPLOYMENT_KEY: settings.DEPLOYMENT, HUB_KEY: str(token)},
        }

    # --- the port that is the claim, and its public address ---

    @_cloud_errors()
    def _claim(self, token: UUID, name: str) -> str:
        """The port's id. It is made if there is none; the network refuses a second one."""
        for port in self._ours("ports", token):
            return port.id
        port = self._cloud.network.create_port(
            network_id=self._id("OPENSTACK_NETWORK", "network", "network"),
            security_groups=[self._id("OPENSTACK_SECURITY_GROUP", "network", "security_group")],
            mac_address=_mac(token),
            name=name,
            description=_mark(token),
        )
        return port.id

    @_cloud_errors()
    def _give_public_address(self, token: UUID, port_id: str) -> None:
        """Before there is a machine, for Nova shows later ones only after a minute. A port takes no second one."""
        if settings.OPENSTACK_FLOATING_NETWORK and not self._ours("ips", token):
            network_id = self._id("OPENSTACK_FLOATING_NETWORK", "network", "network")
            self._cloud.network.create_ip(floating_network_id=network_id, port_id=port_id, description=_mark(token))

    @_cloud_errors()
    def _release(self, token: UUID) -> bool:
        """Address and port go last: the port is what keeps a late request from making a machine. Whether they went."""
        ports = self._ours("ports", token)
        # A machine that was being built is no longer listed while Nova still works on it; then it holds the port.
        if any(map(_is_held, ports)):
            return False
        # Clouds without floating addresses do not know the question.
        for address in self._ours("ips", token) if settings.OPENSTACK_FLOATING_NETWORK else ():
            self._cloud.network.delete_ip(address)
        for port in ports:
            self._cloud.network.delete_port(port)
        return True

    def _ours(self, things: str, token: UUID) -> Sequence[Any]:
        """Of these things of the network, those with the token's mark, which is compared here too."""
        mark = _mark(token)
        return [thing for thing in getattr(self._cloud.network, things)(description=mark) if thing.description == mark]

    # --- the cloud ---

    @_cloud_errors()
    def _id(self, setting: str, service: str, kind: str) -> str:
        """The id of what the setting names. Asked each time, for an image may be made anew under its name."""
        name = getattr(settings, setting)
        try:
            return getattr(getattr(self._cloud, service), f"find_{kind}")(name, ignore_missing=False).id
        except NotFoundException as error:
            raise Refused(f"The cloud has no {name!r}: look at the setting {setting}.") from error

    @property
    def _cloud(self) -> Connection:
        if not hasattr(self._local, "cloud"):
            try:
                self._local.cloud = openstack.connect(
                    cloud=settings.OPENSTACK_CLOUD, app_name="buttcloud", api_timeout=self.timeout, **ONCE
                )
            except (ConfigException, ClientException) as error:
                message = "The access to OpenStack is not set up (OPENSTACK_CLOUD, clouds.yaml)"
                raise Refused(f"{message}: {error}") from error
        return self._local.cloud


def _token(server: Server) -> UUID | None:
    """The token of a machine of our deployment; None for any other."""
    marks = server.metadata or {}
    if marks.get(DEPLOYMENT_KEY) != settings.DEPLOYMENT:
        return None
    try:
        return UUID(marks.get(HUB_KEY))
    except (TypeError, ValueError):
        # Made by hand with our mark: a stranger, which needs a token to be one.
        return uuid5(NAMESPACE_OID, server.id)


def _power(server: Server) -> Power:
    if server.task_state in ("deleting", "soft-deleting"):
        return Power.GOING
    return POWER.get(server.status or "BUILD", Power.RUNNING)


def _is_held(port: Port) -> bool:
    """By a machine, or by one that Nova is still at work on."""
    return bool(port.device_id or port.device_owner)


def _machine(server: Server) -> Machine:
    token = _token(server)
    assert token
    addresses = [address for network in (server.addresses or {}).values() for address in network]
    private, floating = (
        next((a["addr"] for a in addresses if a.get("OS-EXT-IPS:type") == kind), "") for kind in ("fixed", "floating")
    )
    return Machine(
        token=token,
        name=server.name,
        power=_power(server),
        address=private,
        public_address=floating if settings.OPENSTACK_FLOATING_NETWORK else private,
        created=datetime.fromisoformat(server.created_at) if server.created_at else None,
        fault=(server.fault or {}).get("message", ""),
    )


def _mark(token: UUID) -> str:
    return f"buttcloud {settings.DEPLOYMENT} {token}"


def _mac(token: UUID) -> str:
    """Ours alone: locally administered, for one machine."""
    digest = hashlib.sha256(_mark(token).encode()).hexdigest()
    return ":".join(["0e", *(digest[i : i + 2] for i in range(0, 10, 2))])
