"""The real swarm: through its manager, and where only the engine of a node can do it, through that one.

What Swarm does and does not was measured; the reasons stand beside the lines that they explain. A spec is read, changed
and written back whole: docker-py's own Service.update() adds defaults that restart a pub at a change of a label.
"""

import asyncio
import json
import logging
import os
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson
from django.conf import settings
from urllib3 import BaseHTTPResponse

from orchestrator.swarm import (
    Glance,
    JoinTicket,
    LogLine,
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
from orchestrator.swarm.client import ANSWER_SECONDS, PIECE, Client, engine_at, engine_on
from orchestrator.swarm.glance import TASK, glances
from orchestrator.swarm.logs import logs
from orchestrator.swarm.sample import Reading, reading, sample
from orchestrator.swarm.spec import (
    BOT,
    DEPLOYMENT,
    DIGEST,
    HUB,
    SECOND,
    hub_label,
    init_spec,
    labels,
    service_spec,
    uuid_or_none,
)
from orchestrator.swarm.volume import copy_volume
from pubs.live import Stats

log = logging.getLogger(__name__)

Dict = dict[str, Any]  # one of Docker's

SOCKET = "unix:///var/run/docker.sock"
OUTPUT_MAX = 2**20  # bytes of a program's output that are kept
# Swarm answers so, with status 500, to a change of what was changed since it was read.
STALE = "update out of sequence"
CHANGE_TRIES = 8
PING_SECONDS = 3
PINGS_SECONDS = 5  # for all engines together
PINGS_AT_ONCE = 200
IMAGE_SECONDS = 240
# States of a task that runs nothing any more. One whose node is gone for good is "orphaned".
ENDED = ("complete", "shutdown", "failed", "rejected", "orphaned")
# More names make no address that Docker reads.
NAMES_MAX = 200


class EngineSwarm:
    def __init__(self, url: str = "") -> None:
        self.manager = engine_at(url or os.environ.get("DOCKER_HOST") or SOCKET)
        self._node_here = ""
        self._nodes_elsewhere: set[str] = set()
        self._streamed: dict[str, Reading] = {}  # container → the last of its stream, as long as there is one

    # --- which engine ------------------------------------------------------------------------------------------------
    def _here(self, anew: bool = False) -> str:
        """The node of the engine that we talk to. Kept, for Docker takes 20 ms to say it, half of a whole look."""
        if anew or not self._node_here:
            info = self.manager.call("GET", "/info")["Swarm"]
            if not info.get("ControlAvailable"):
                raise SwarmError(
                    "This Docker engine is no swarm manager: run `docker swarm init` (`make run` does it)."
                )
            self._node_here = info["NodeID"]
        return self._node_here

    def _is_here(self, node_id: str) -> bool:
        if node_id in self._nodes_elsewhere:
            return False
        # What is kept may be of a swarm that this machine has left.
        if node_id == self._here() or node_id == self._here(anew=True):
            return True
        self._nodes_elsewhere.add(node_id)
        return False

    def _engine(self, node_id: str) -> Client:
        """The node's own engine: the manager can neither run programs nor see volumes on another node."""
        if self._is_here(node_id):
            return self.manager
        node = self.manager.call("GET", f"/nodes/{node_id}", ok=(404,))
        if node is None:
            raise Unreachable(f"The swarm has no node {node_id}, and so nobody knows what runs there.")
        if not (address := node["Status"].get("Addr")):
            raise Unreachable(f"The swarm does not know yet where node {node_id} is.")
        return engine_on(address)

    # --- observing ---------------------------------------------------------------------------------------------------
    def look(self) -> Sight:
        here = self._here()
        # One that has only just joined has said nothing of itself yet.
        nodes = [node for node in self.manager.list("/nodes", {}) if "Hostname" in node["Description"]]
        if all(node["ID"] != here for node in nodes):
            here = self._here(anew=True)
        seen = tuple(_node(node, here) for node in nodes)
        ours = {"label": [f"{DEPLOYMENT}={settings.DEPLOYMENT}"]}
        services = self.manager.list("/services", ours, status="true")
        complaints = self._complaints(services, {node.id for node in seen if node.ready})
        pubs = (_service(service, complaints) for service in services)
        return Sight(at=datetime.now(UTC), nodes=seen, services=tuple(pub for pub in pubs if pub))

    def _complaints(self, services: list[Dict], ready: set[str]) -> dict[str, str]:
        """Service id → why it does not run. Asked only for those that do not though their node is there.

        The newest task may be on its start and have nothing to say while the one before it says why it ended.
        """
        names = [s["Spec"]["Name"] for s in services if not _is_healthy(s) and _pinned_to(s["Spec"]) in ready]
        if not names:
            return {}
        tasks = self.manager.list("/tasks", {"service": names} if len(names) <= NAMES_MAX else {})
        tasks.sort(key=lambda task: task["CreatedAt"])
        states = {task["ServiceID"]: task["Status"]["State"] for task in tasks}
        errors = {task["ServiceID"]: task["Status"]["Err"] for task in tasks if task["Status"].get("Err")}
        return states | errors

    # --- the swarm and its nodes -------------------------------------------------------------------------------------
    def _change(self, path: str, change: Callable[[Dict], bool], **params: Any) -> bool:
        """Read a spec, have it changed, write it back; once more if somebody was faster. False if nothing changed."""
        for tries_left in reversed(range(CHANGE_TRIES)):
            read = self.manager.call("GET", path)
            if not change(read["Spec"]):
                return False
            try:
                self.manager.call("POST", f"{path}/update", read["Spec"], version=read["Version"]["Index"], **params)
                return True
            except SwarmError as error:
                if STALE not in str(error) or not tries_left:
                    raise
        return False

    def mark_node(self, node_id: str, hub: UUID) -> None:
        def mark(spec: Dict) -> bool:
            marks = spec.setdefault("Labels", {})
            changed = marks.get(hub_label()) != str(hub)
            marks[hub_label()] = str(hub)
            return changed

        self._change(f"/nodes/{node_id}", mark)

    def remove_node(self, node_id: str) -> None:
        self.manager.call("DELETE", f"/nodes/{node_id}", ok=(404,), force="true")

    def engines(self, node_ids: Iterable[str]) -> dict[str, str]:
        asked = list(node_ids)
        if not asked:
            return {}
        addresses = {node["ID"]: node["Status"].get("Addr", "") for node in self.manager.list("/nodes", {})}
        threads = ThreadPoolExecutor(min(len(asked), PINGS_AT_ONCE), "ping")
        pings = {threads.submit(self._ping, node_id, addresses.get(node_id)): node_id for node_id in asked}
        done, _ = wait(pings, PINGS_SECONDS)
        threads.shutdown(wait=False, cancel_futures=True)
        late = f"The engine did not answer within {PINGS_SECONDS} seconds."
        return {node_id: ping.result() if ping in done else late for ping, node_id in pings.items()}

    def _ping(self, node_id: str, address: str | None) -> str:
        """ "" or why it does not answer."""
        if address is None:
            return "The swarm has no such node."
        try:
            engine = self.manager if self._is_here(node_id) else engine_on(address)
            engine.ping(PING_SECONDS)
        except SwarmError as error:
            return str(error)
        return ""

    def has_image(self, node_id: str, image: str) -> bool:
        return _has_image(self._engine(node_id), image)

    def have_image(self, node_id: str, image: str) -> None:
        engine = self._engine(node_id)
        if _has_image(engine, image):
            return
        if not image.startswith("sha256:"):
            engine.progress("/images/create", seconds=IMAGE_SECONDS, fromImage=image)
        elif _has_image(self.manager, image):
            with self.manager.stream("GET", f"/images/{image}/get") as tar:
                engine.progress("/images/load", tar.stream(PIECE), seconds=IMAGE_SECONDS, quiet="true")
        if not _has_image(engine, image):
            raise SwarmError(f"No such image: {image}")

    def join_ticket(self) -> JoinTicket:
        token = self.manager.call("GET", "/swarm")["JoinTokens"]["Worker"]
        managers = [manager["Addr"] for manager in self.manager.call("GET", "/info")["Swarm"]["RemoteManagers"]]
        if any(address.startswith("127.") for address in managers):
            raise SwarmError(
                "The swarm's manager says that it is at 127.0.0.1, where no other machine finds it: make the swarm "
                "with `docker swarm init --advertise-addr ADDRESS`, its address on the private network."
            )
        return JoinTicket(token, managers)

    def rotate_join_token(self) -> None:
        self._change("/swarm", lambda spec: True, rotateWorkerToken="true")

    def tune(self) -> None:
        def tuned(spec: Dict) -> bool:
            before = json.dumps(spec, sort_keys=True)
            # The one that runs counts too: with 1, what a crash left would be gone half a second later.
            spec.setdefault("Orchestration", {})["TaskHistoryRetentionLimit"] = 2
            spec.setdefault("Dispatcher", {})["HeartbeatPeriod"] = settings.NODE_HEARTBEAT_SECONDS * SECOND
            return json.dumps(spec, sort_keys=True) != before

        self._change("/swarm", tuned)

    # --- pubs --------------------------------------------------------------------------------------------------------
    def make_identity(self, bot_id: UUID, node_id: str, image: str) -> str:
        engine, name = self._engine(node_id), service_name(bot_id)
        engine.call("POST", "/volumes/create", {"Name": name, "Labels": labels(bot_id)})
        container = f"/containers/{name}-init"
        # One that a killed worker left: the identity is on the volume or not, asking again finds out.
        engine.call("DELETE", container, ok=(404,), force="true")
        engine.call("POST", "/containers/create", init_spec(bot_id, image), name=f"{name}-init")
        try:
            engine.call("POST", f"{container}/start")
            exit_code = engine.call("POST", f"{container}/wait")["StatusCode"]
            with engine.stream("GET", f"{container}/logs", stdout="true", stderr="true") as answer:
                out, err = _read(answer)
        finally:
            engine.call("DELETE", container, ok=(404, 409), force="true")
        if exit_code:
            said = (out + err).decode(errors="replace").strip()[-300:]
            raise SwarmError(f"The identity could not be made (exit code {exit_code}): {said}")
        return json.loads(out.splitlines()[-1])["id"]

    def is_stopped(self, bot_id: UUID, node_id: str) -> bool:
        its = {"label": [f"{BOT}={bot_id}"]}
        # First the tasks: one that is assigned has no container yet, and it has none at all once it has ended.
        if any(task["Status"]["State"] not in ENDED for task in self.manager.list("/tasks", its)):
            return False
        return not any(map(_may_run, self._engine(node_id).list("/containers/json", its, all="true")))

    def copy_volume(
        self, bot_id: UUID, source: str, target: str, image: str, still_ours: Callable[[], None] = lambda: None
    ) -> None:
        if source == target:
            raise SwarmError("A volume is not copied onto itself.")
        copy_volume(bot_id, self._engine(source), self._engine(target), image, still_ours)

    def digest(self, pub: PubService) -> str:
        return _digest(pub, settings.DEPLOYMENT, settings.PUB_ALLOW_PRIVATE, settings.PUB_SILENCE_SECONDS)

    def put_service(self, pub: PubService) -> bool:
        wish = service_spec(pub)
        # A label of the service, not of its containers: changing it alone restarts nothing.
        wish["Labels"][DIGEST] = self.digest(pub)

        def change(spec: Dict) -> bool:
            if spec["Labels"].get(DIGEST) == wish["Labels"][DIGEST]:
                return False
            if _pinned_to(spec) != pub.node_id:
                raise SwarmError("The service is pinned to another hub than its volume: a person must look at it.")
            spec.clear()
            spec.update(wish)
            return True

        path = f"/services/{wish['Name']}"
        if self.manager.call("GET", path, ok=(404,)):
            return self._change(path, change)
        # 409: another worker was faster with the same name, and so with the same service.
        self.manager.call("POST", "/services/create", wish, ok=(409,))
        return True

    def remove_service(self, bot_id: UUID) -> None:
        self.manager.call("DELETE", f"/services/{service_name(bot_id)}", ok=(404,))

    # --- a running pub -----------------------------------------------------------------------------------------------
    def _container(self, service: str) -> tuple[Client, str]:
        tasks = self.manager.list("/tasks", {"service": [service], "desired-state": ["running"]})
        running = [task for task in tasks if task["Status"]["State"] == "running"]
        if not running:
            raise NotRunning("The pub is not running just now.")
        newest = max(running, key=lambda task: task["Status"]["Timestamp"])
        return self._engine(newest["NodeID"]), newest["Status"]["ContainerStatus"]["ContainerID"]

    def run(self, service: str, argv: list[str], timeout: float) -> Output:
        engine, container = self._container(service)
        # The engine can't end a program that it started, so the limit goes along.
        wish = {"Cmd": ["timeout", "-k", "1", f"{timeout:g}", *argv], "AttachStdout": True, "AttachStderr": True}
        started = engine.call("POST", f"/containers/{container}/exec", wish, ok=(404, 409))
        if started is None:
            raise NotRunning("The pub stopped while it was asked.")
        program = f"/exec/{started['Id']}"
        begin = {"Detach": False, "Tty": False}
        try:
            with engine.stream("POST", f"{program}/start", begin, seconds=timeout + ANSWER_SECONDS) as answer:
                out, err = _read(answer)
        except Unreachable:
            raise
        except SwarmError as error:
            raise NotRunning(str(error)) from error
        code = engine.call("GET", f"{program}/json")["ExitCode"]
        return Output(code, out.decode(errors="replace"), err.decode(errors="replace"))

    async def stats(self, bot_id: UUID, node_id: str) -> AsyncIterator[Stats]:
        engine = await asyncio.to_thread(self._engine, node_id)
        its = json.dumps({"label": [f"{BOT}={bot_id}", TASK]})
        async with engine.talk(silence=None) as talk:
            running = await talk.get("/containers/json", filters=its)
            if not running:
                raise NotRunning("The pub is not running just now.")
            container, before = running[0]["Id"], None
            try:
                async with talk.stream(f"/containers/{container}/stats", stream="true") as samples:
                    async for line in samples:
                        if (now := reading(orjson.loads(line))) is None:
                            return
                        # Of one moment alone there are no rates.
                        if before:
                            yield sample(now, before)
                        self._streamed[container] = before = now
            finally:
                self._streamed.pop(container, None)

    async def glances(self, node_id: str, seconds: float) -> AsyncIterator[Glance]:
        engine = await asyncio.to_thread(self._engine, node_id)
        async with aclosing(glances(engine, node_id, seconds, self._streamed)) as seen:  # type: ignore[type-var]
            async for glance in seen:
                yield glance

    async def logs(self, bot_id: UUID, node_id: str, tail: int, follow: bool = False) -> AsyncIterator[LogLine]:
        engine = await asyncio.to_thread(self._engine, node_id)
        async with aclosing(logs(engine, bot_id, tail, follow)) as lines:  # type: ignore[type-var]
            async for line in lines:
                yield line


def _has_image(engine: Client, image: str) -> bool:
    return engine.call("GET", f"/images/{image}/json", ok=(404,)) is not None


def _read(answer: BaseHTTPResponse) -> tuple[bytes, bytes]:
    """What a program printed, up to OUTPUT_MAX bytes each; the rest is read and dropped, so that it can end.

    Docker sends frames: a byte for stdout (1) or stderr (2), three of nothing, four of size, and the piece.
    """
    said = {1: bytearray(), 2: bytearray()}
    while len(head := answer.read(8)) == 8:
        channel, size = struct.unpack(">BxxxL", head)
        piece = answer.read(size)
        said[channel] += piece[: OUTPUT_MAX - len(said[channel])]
    return bytes(said[1]), bytes(said[2])


@lru_cache(maxsize=20_000)
def _digest(pub: PubService, *settings_in_spec: object) -> str:
    """Kept, for each pass needs that of every pub, and it takes longer than all else that is done for one."""
    return digest_of(service_spec(replace(pub, name="")))


# --- Docker's dicts into ours ----------------------------------------------------------------------------------------
def _node(node: Dict, here: str) -> Node:
    return Node(
        id=node["ID"],
        name=node["Description"]["Hostname"],
        address=node["Status"].get("Addr", ""),
        ready=node["Status"]["State"] == "ready" and node["Spec"]["Availability"] == "active",
        memory=node["Description"]["Resources"]["MemoryBytes"],
        hub=uuid_or_none((node["Spec"].get("Labels") or {}).get(hub_label())),
        claims=uuid_or_none((node["Description"]["Engine"].get("Labels") or {}).get(HUB)),
        is_manager_here=node["ID"] == here,
    )


def _service(service: Dict, complaints: dict[str, str]) -> Service | None:
    """None for something that bears our mark and is no pub: it is told about, and stops nothing."""
    spec = service["Spec"]
    bot_id, node_id = uuid_or_none(spec["Labels"].get(BOT)), _pinned_to(spec)
    if bot_id is None or not node_id:
        log.error("service %s bears our label and is no pub of ours: remove it", spec["Name"])
        return None
    return Service(
        bot_id=bot_id,
        node_id=node_id,
        digest=spec["Labels"].get(DIGEST, ""),
        healthy=_is_healthy(service),
        complaint=complaints.get(service["ID"], ""),
    )


def _is_healthy(service: Dict) -> bool:
    # With a health check Swarm counts a task as running only once it is healthy.
    return service["ServiceStatus"]["RunningTasks"] >= 1


def _pinned_to(spec: Dict) -> str:
    constraints = spec["TaskTemplate"].get("Placement", {}).get("Constraints") or [""]
    return constraints[0].removeprefix("node.id==")


def _may_run(container: Dict) -> bool:
    """Whether this container of a bot runs or may do so in a moment, as one that a task has just made."""
    if container["State"] == "created":
        return TASK in container["Labels"]
    return container["State"] not in ("exited", "dead")
