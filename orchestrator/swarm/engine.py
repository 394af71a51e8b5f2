"""The real swarm, through its manager's engine.

What Swarm does and does not was measured; the reasons stand beside the lines that they explain. Requests go through one
door, `_call`, because docker-py's own Service.update() adds defaults that restart a pub at a change of a label.
"""

import asyncio
import json
import logging
import os
import struct
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import aiodocker
import docker
import docker.errors
import requests
import urllib3
from django.conf import settings

from orchestrator.swarm import (
    Node,
    NotRunning,
    Output,
    PubService,
    Service,
    Sight,
    SwarmError,
    Unreachable,
    digest_of,
    service_name,
)
from pubs.live import Stats

log = logging.getLogger(__name__)

OUTPUT_MAX = 2**20  # bytes of a program's output that are kept
SECOND = 10**9  # Docker counts in nanoseconds
STOP_SECONDS = 30  # less than 45: swarmkit starts the next task after a minute, stopped or not
SOCKET = "unix:///var/run/docker.sock"
USER = "1000:1000"
PIDS = 200
INIT_MEMORY = 256 * 2**20
LOGS = {"Type": "json-file", "Config": {"max-size": "5m", "max-file": "2"}}
SCRATCH = "/tmp"  # noqa: S108  (inside a container whose root is read-only)


def label(name: str) -> str:
    return f"buttcloud.{name}"


class EngineSwarm:
    def __init__(self, url: str = "") -> None:
        self.url = url or os.environ.get("DOCKER_HOST") or SOCKET
        # A requests session is not made for many threads: each has its own.
        self._local = threading.local()
        self._node_here = ""

    # --- one door ------------------------------------------------------------------------------------------------
    @property
    def _api(self) -> docker.APIClient:
        if not hasattr(self._local, "api"):
            try:
                self._local.api = docker.APIClient(base_url=self.url, version="auto", timeout=60)
            except docker.errors.DockerException as error:
                raise Unreachable(f"The Docker engine at {self.url} does not answer: {error}") from error
        return self._local.api

    def _ask(self, method: str, path: str, body: Any = None, stream: bool = False, **params: Any) -> requests.Response:
        api = self._api
        address = f"{api.base_url}/v{api.api_version}{path}"
        try:
            return api.request(method, address, json=body, params=params, stream=stream, timeout=60)
        except requests.RequestException as error:
            raise Unreachable(f"The Docker engine at {self.url} does not answer: {error}") from error

    def _call(self, method: str, path: str, body: Any = None, ok: tuple[int, ...] = (), **params: Any) -> Any:
        """The decoded answer, or None for a status in `ok`, which is good news (there already, gone already)."""
        answer = self._ask(method, path, body, **params)
        if answer.status_code in ok:
            return None
        if not answer.ok:
            raise SwarmError(_message(answer))
        return answer.json() if answer.content else None

    def _list(self, path: str, filters: dict[str, list[str]], **params: Any) -> list[dict[str, Any]]:
        # 404: tasks of a service that is gone.
        return self._call("GET", path, ok=(404,), filters=json.dumps(filters), **params) or []

    # --- observing -----------------------------------------------------------------------------------------------
    def look(self) -> Sight:
        here = self._here()
        ours = {"label": [f"{label('deployment')}={settings.DEPLOYMENT}"]}
        services = [service for service in self._list("/services", ours, status="true") if _is_pub(service)]
        complaints = self._complaints([s["Spec"]["Name"] for s in services if not _is_healthy(s)])
        nodes = self._list("/nodes", {})
        if all(node["ID"] != here for node in nodes):
            here = self._here(anew=True)
        return Sight(
            at=datetime.now(UTC),
            nodes=tuple(_node(node, here) for node in nodes),
            services=tuple(_service(s, complaints.get(s["ID"], "")) for s in services),
        )

    def _here(self, anew: bool = False) -> str:
        """The node of the engine that we talk to. Kept, for Docker takes 20 ms to say it, half of a whole look."""
        if anew or not self._node_here:
            info = self._call("GET", "/info")["Swarm"]
            if not info.get("ControlAvailable"):
                raise SwarmError(
                    "This Docker engine is no swarm manager: run `docker swarm init` (`make run` does it)."
                )
            self._node_here = info["NodeID"]
        return self._node_here

    def _complaints(self, names: list[str]) -> dict[str, str]:
        """Service id → why it does not run. Asked only for those that do not.

        The newest task may be on its start and have nothing to say while the one before it says why it ended.
        """
        if not names:
            return {}
        tasks = sorted(self._list("/tasks", {"service": names}), key=lambda task: task["CreatedAt"])
        states = {task["ServiceID"]: task["Status"]["State"] for task in tasks}
        errors = {task["ServiceID"]: task["Status"]["Err"] for task in tasks if task["Status"].get("Err")}
        return states | errors

    # --- doing ---------------------------------------------------------------------------------------------------
    def mark_node(self, node_id: str, hub: UUID) -> None:
        node = self._call("GET", f"/nodes/{node_id}")
        spec = node["Spec"]
        spec.setdefault("Labels", {})[_hub_label()] = str(hub)
        self._call("POST", f"/nodes/{node_id}/update", spec, version=node["Version"]["Index"])

    def make_identity(self, bot_id: UUID, node_id: str, image: str) -> str:
        self._check_here(node_id)
        name = service_name(bot_id)
        self._call("POST", "/volumes/create", {"Name": name, "Labels": _labels(bot_id)})
        container = f"{name}-init"
        # One that a killed worker left: the identity is on the volume or not, asking again finds out.
        self._call("DELETE", f"/containers/{container}", ok=(404,), force="true")
        self._call("POST", "/containers/create", _init_spec(bot_id, image), name=container)
        try:
            self._call("POST", f"/containers/{container}/start")
            exit_code = self._call("POST", f"/containers/{container}/wait")["StatusCode"]
            said = self._api.logs(container, stdout=True, stderr=True).decode()
        except docker.errors.DockerException as error:
            raise SwarmError(f"The identity could not be made: {error}") from error
        finally:
            self._call("DELETE", f"/containers/{container}", ok=(404, 409), force="true")
        if exit_code:
            raise SwarmError(f"The identity could not be made (exit code {exit_code}): {said.strip()[-300:]}")
        return json.loads(said.strip().splitlines()[-1])["id"]

    def digest(self, pub: PubService) -> str:
        return digest_of(service_spec(replace(pub, name="")))

    def put_service(self, pub: PubService) -> bool:
        digest = self.digest(pub)
        spec = service_spec(pub)
        # A label of the service, not of its containers: changing it alone restarts nothing.
        spec["Labels"][label("digest")] = digest
        existing = self._call("GET", f"/services/{spec['Name']}", ok=(404,))
        if existing is None:
            # 409: another worker was faster with the same name, and so with the same service.
            self._call("POST", "/services/create", spec, ok=(409,))
            return True
        if existing["Spec"]["Labels"].get(label("digest")) == digest:
            return False
        if _pinned_to(existing) != pub.node_id:
            raise SwarmError("The service is pinned to another hub than its volume: a person must look at it.")
        self._call("POST", f"/services/{existing['ID']}/update", spec, version=existing["Version"]["Index"])
        return True

    def remove_service(self, bot_id: UUID) -> None:
        self._call("DELETE", f"/services/{service_name(bot_id)}", ok=(404,))

    # --- a running pub -------------------------------------------------------------------------------------------
    def _container(self, service: str) -> str:
        tasks = self._list("/tasks", {"service": [service], "desired-state": ["running"]})
        running = [task for task in tasks if task["Status"]["State"] == "running"]
        if not running:
            raise NotRunning("The pub is not running just now.")
        newest = max(running, key=lambda task: task["Status"]["Timestamp"])
        self._check_here(newest["NodeID"])
        return newest["Status"]["ContainerStatus"]["ContainerID"]

    def _check_here(self, node_id: str) -> None:
        """Swarm's manager can neither stream stats nor run programs on another node; only its own engine can."""
        # What is kept may be of a swarm that this machine has left.
        if node_id != self._here() and node_id != self._here(anew=True):
            raise Unreachable("The pub lives on a machine whose engine is not connected.")

    def run(self, service: str, argv: list[str], timeout: float) -> Output:
        container = self._container(service)
        # The engine can't end a program that it started, so the limit goes along.
        wish = {"Cmd": ["timeout", "-k", "1", f"{timeout:g}", *argv], "AttachStdout": True, "AttachStderr": True}
        started = self._call("POST", f"/containers/{container}/exec", wish, ok=(404, 409))
        if started is None:
            raise NotRunning("The pub stopped while it was asked.")
        program = f"/exec/{started['Id']}"
        with self._ask("POST", f"{program}/start", {"Detach": False, "Tty": False}, stream=True) as answer:
            if not answer.ok:
                raise NotRunning(_message(answer))
            out, err = _read(answer.raw)
        code = self._call("GET", f"{program}/json")["ExitCode"]
        return Output(code, out.decode(errors="replace"), err.decode(errors="replace"))

    async def stats(self, service: str) -> AsyncIterator[Stats]:
        container = await asyncio.to_thread(self._container, service)
        engine = aiodocker.Docker(url=self.url)
        stream = engine.containers.container(container).stats(stream=True)
        before: dict[str, Any] | None = None
        try:
            seq = 0
            async for raw in stream:
                if not raw.get("memory_stats"):
                    return  # the last words of a container that ended
                yield _sample(raw, before, seq)
                before, seq = raw, seq + 1
        except aiodocker.DockerError as error:
            raise NotRunning(error.message) from error
        except (OSError, aiodocker.exceptions.DockerContainerError) as error:
            raise Unreachable(str(error)) from error
        finally:
            await stream.aclose()  # type: ignore[attr-defined]
            await engine.close()


def _read(stream: urllib3.BaseHTTPResponse) -> tuple[bytes, bytes]:
    """What a program printed, up to OUTPUT_MAX bytes each; the rest is read and dropped, so that it can end.

    Docker sends frames: a byte for stdout (1) or stderr (2), three of nothing, four of size, and the piece.
    """
    said = {1: bytearray(), 2: bytearray()}
    try:
        while len(head := stream.read(8)) == 8:
            channel, size = struct.unpack(">BxxxL", head)
            piece = stream.read(size)
            said[channel] += piece[: OUTPUT_MAX - len(said[channel])]
    except (urllib3.exceptions.HTTPError, KeyError, OSError) as error:
        raise Unreachable(f"The Docker engine broke off its answer: {error}") from error
    return bytes(said[1]), bytes(said[2])


# --- Docker's dicts into ours ----------------------------------------------------------------------------------------
def _message(answer: requests.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError):
        return f"Docker answered {answer.status_code}: {answer.text[:200]}"


def _hub_label() -> str:
    """Of our deployment, so that several can share an engine."""
    return label(f"hub.{settings.DEPLOYMENT}")


def _node(node: dict[str, Any], here: str) -> Node:
    return Node(
        id=node["ID"],
        name=node["Description"]["Hostname"],
        address=node["Status"].get("Addr", ""),
        ready=node["Status"]["State"] == "ready" and node["Spec"]["Availability"] == "active",
        memory=node["Description"]["Resources"]["MemoryBytes"],
        hub=_uuid((node["Spec"].get("Labels") or {}).get(_hub_label())),
        claims=_uuid((node["Description"]["Engine"].get("Labels") or {}).get(label("hub"))),
        is_manager_here=node["ID"] == here,
    )


def _uuid(written: str | None) -> UUID | None:
    """None for what nobody of us wrote."""
    try:
        return UUID(written) if written else None
    except ValueError:
        return None


def _is_pub(service: dict[str, Any]) -> bool:
    """Something that bears our mark and is no pub is told about, and stops nothing."""
    if _uuid(service["Spec"]["Labels"].get(label("bot"))) and _pinned_to(service):
        return True
    log.error("service %s bears our label and is no pub of ours: remove it", service["Spec"]["Name"])
    return False


def _is_healthy(service: dict[str, Any]) -> bool:
    # With a health check Swarm counts a task as running only once it is healthy.
    return service["ServiceStatus"]["RunningTasks"] >= 1


def _pinned_to(service: dict[str, Any]) -> str:
    constraints = service["Spec"]["TaskTemplate"].get("Placement", {}).get("Constraints") or [""]
    return constraints[0].removeprefix("node.id==")


def _service(service: dict[str, Any], complaint: str) -> Service:
    labels = service["Spec"]["Labels"]
    return Service(
        bot_id=UUID(labels[label("bot")]),
        node_id=_pinned_to(service),
        digest=labels.get(label("digest"), ""),
        healthy=_is_healthy(service),
        complaint=complaint,
    )


def _sample(raw: dict[str, Any], before: dict[str, Any] | None, seq: int) -> Stats:
    """The figures of `docker stats`, on cgroup v1 and v2."""
    memory = raw["memory_stats"]
    details = memory.get("stats") or {}
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    totals, earlier = _totals(raw), _totals(before or raw)
    # The first sample has nothing before it: its rates are 0.
    seconds = _seconds_between(before or raw, raw) or 1.0
    rates = {name: max(0.0, (totals[name] - earlier[name]) / seconds) for name in totals}
    return Stats(
        at=raw["read"],
        seq=seq,
        cpu=_cpu(raw),
        memory=max(0, memory.get("usage", 0) - cache),
        memory_limit=memory.get("limit", 0),
        pids=(raw.get("pids_stats") or {}).get("current", 0),
        net_rx=totals["net_rx"],
        net_tx=totals["net_tx"],
        disk_read=totals["disk_read"],
        disk_write=totals["disk_write"],
        rx_rate=rates["net_rx"],
        tx_rate=rates["net_tx"],
        read_rate=rates["disk_read"],
        write_rate=rates["disk_write"],
    )


def _totals(raw: dict[str, Any]) -> dict[str, int]:
    networks = (raw.get("networks") or {}).values()
    disk = (raw.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []
    return {
        "net_rx": sum(network["rx_bytes"] for network in networks),
        "net_tx": sum(network["tx_bytes"] for network in networks),
        "disk_read": sum(entry["value"] for entry in disk if entry["op"].lower() == "read"),
        "disk_write": sum(entry["value"] for entry in disk if entry["op"].lower() == "write"),
    }


def _cpu(raw: dict[str, Any]) -> float:
    """Percent of one core, over the last second. The first sample has nothing before it: 0."""
    now, then = raw["cpu_stats"], raw["precpu_stats"]
    if "system_cpu_usage" not in then or "system_cpu_usage" not in now:
        return 0.0
    used = now["cpu_usage"]["total_usage"] - then["cpu_usage"]["total_usage"]
    passed = now["system_cpu_usage"] - then["system_cpu_usage"]
    cores = now.get("online_cpus") or len(now["cpu_usage"].get("percpu_usage") or [0])
    return round(used / passed * cores * 100, 2) if passed > 0 else 0.0


def _seconds_between(before: dict[str, Any], now: dict[str, Any]) -> float:
    return (_time(now["read"]) - _time(before["read"])).total_seconds()


def _time(written: str) -> datetime:
    # Docker writes nanoseconds and leaves out zeros at the end.
    return datetime.fromisoformat(f"{written[:19]}.{written[20:].rstrip('Z').ljust(6, '0')[:6]}+00:00")


# --- ours into Docker's ----------------------------------------------------------------------------------------------
def _labels(bot_id: UUID) -> dict[str, str]:
    return {label("deployment"): settings.DEPLOYMENT, label("bot"): str(bot_id)}


def _init_spec(bot_id: UUID, image: str) -> dict[str, Any]:
    """A container that makes the identity on the volume, prints it and ends: nothing with this identity runs yet."""
    return {
        "Image": image,
        "Cmd": ["init"],
        "Labels": _labels(bot_id),
        "User": USER,
        "HostConfig": {
            "NetworkMode": "none",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "Memory": INIT_MEMORY,
            "PidsLimit": PIDS,
            "LogConfig": LOGS,
            "SecurityOpt": ["no-new-privileges"],
            "Mounts": [{"Type": "volume", "Source": service_name(bot_id), "Target": "/data"}],
            "Tmpfs": {SCRATCH: ""},
        },
    }


def service_spec(pub: PubService) -> dict[str, Any]:
    """The pub service in Docker's words: one copy, ever, on the hub that has its volume."""
    environment = {
        "PUB_ID": pub.ssb_id,
        "PUB_HOST": pub.host,
        "PUB_EXTERNAL_PORT": pub.port,
        "PUB_NAME": pub.name,
        "PUB_SHS": pub.network_key,
        # On one machine the address may be a private one, and then it must be usable in invites.
        "PUB_ALLOW_PRIVATE": "1" if settings.PUB_ALLOW_PRIVATE else "",
    }
    return {
        "Name": service_name(pub.bot_id),
        "Labels": _labels(pub.bot_id),
        "Mode": {"Replicated": {"Replicas": 1}},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": pub.image,
                "Labels": _labels(pub.bot_id),
                "Env": [f"{name}={value}" for name, value in environment.items() if value],
                "Mounts": [
                    {
                        "Type": "volume",
                        "Source": service_name(pub.bot_id),
                        "Target": "/data",
                        "VolumeOptions": {"Labels": _labels(pub.bot_id)},
                    },
                    {"Type": "tmpfs", "Target": SCRATCH},
                ],
                "ReadOnly": True,
                "User": USER,
                "CapabilityDrop": ["ALL"],
                # Engines before 25 know no such privilege of a service and ignore it; with all capabilities dropped
                # and no setuid file that the pub's user could gain from, little is left to it.
                "Privileges": {"NoNewPrivileges": True},
                "StopGracePeriod": STOP_SECONDS * SECOND,
            },
            "Resources": {
                "Limits": {"MemoryBytes": pub.memory, "Pids": PIDS},
                "Reservations": {"MemoryBytes": pub.memory},
            },
            # The identity must never start where its volume is not.
            "Placement": {"Constraints": [f"node.id=={pub.node_id}"]},
            "RestartPolicy": {"Condition": "any", "Delay": 5 * SECOND},
            "LogDriver": {"Name": LOGS["Type"], "Options": LOGS["Config"]},
            "ForceUpdate": pub.restarts,
        },
        # Never start-first: two servers with one identity fork its feed.
        "UpdateConfig": {"Parallelism": 1, "Order": "stop-first", "FailureAction": "pause"},
        # A host-mode port keeps a second copy off the node, and does not end at 128 as the routing mesh does.
        "EndpointSpec": {
            "Mode": "dnsrr",
            "Ports": [{"Protocol": "tcp", "TargetPort": 8008, "PublishedPort": pub.port, "PublishMode": "host"}],
        },
    }
