"""The lab: a switch that no firewall of this computer hears of, the swarm's manager, and as many hubs as are asked for.

All that is known about it lies in its folder, so that any process, also a worker that a test kills, finds it again.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from time import monotonic
from uuid import UUID, uuid4

from tests.support.lab.machine import CGROUPS, Machine, run

# Below it the folder of each lab. Short, for the path of a socket has at most 108 characters.
ROOM = Path("/var/tmp")
# 198.18.0.0/15 is set aside for benchmarks of networks (RFC 2544): nobody else has it.
NETWORK = "198.18"
GB = 1024**3
HEARTBEAT_SECONDS = 2
PROGRAMS = ("dockerd", "docker", "containerd", "ip", "iptables", "nsenter", "unshare", "tini", "busybox", "openssl")
EC_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def why_not() -> str:
    """Why this computer can hold no lab, or ""."""
    if os.geteuid():
        return "only root can make machines of namespaces"
    if missing := [program for program in PROGRAMS if not shutil.which(program)]:
        return f"the lab needs {', '.join(missing)} (`make test` installs it as root on Debian)"
    return ""


class Lab:
    def __init__(self, folder: Path) -> None:
        """One that is there already: see `open_lab`."""
        self.folder = folder
        self.name = folder.name
        self.subnet = f"{NETWORK}.{self.name.removeprefix('bclab')}"
        self.tls = folder / "tls"
        self.address = f"{self.subnet}.1"  # this computer's own, on the lab's switch

    # --- the room ------------------------------------------------------------------------------------------------
    def build(self) -> None:
        """The switch, the certificates, and a manager with a swarm of its own."""
        switch = f"{self.name}-switch"
        run("ip", "netns", "add", switch)
        run("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", switch, "link", "set", "bridge", "up")
        run("ip", "link", "add", self.name, "type", "veth", "peer", "name", "computer", "netns", switch)
        run("ip", "-n", switch, "link", "set", "computer", "master", "bridge", "up")
        run("ip", "addr", "add", f"{self.address}/24", "dev", self.name)
        run("ip", "link", "set", self.name, "up")
        self._make_authority()
        (self.folder / "machines").mkdir()
        self.order("manager", "manager")
        self.manager.boot()
        self.manager.start_engine()
        address = self.manager.address
        # A short heartbeat, so that tests need not wait long for a loss to be noticed.
        self.manager.engine.swarm.init(
            address,
            listen_addr=f"{address}:2377",
            task_history_retention_limit=2,
            dispatcher_heartbeat_period=HEARTBEAT_SECONDS * 10**9,
        )

    def close(self) -> None:
        """Nothing of the lab is left."""
        for machine in self.machines:
            machine.destroy()
        run("ip", "link", "delete", self.name, check=False)
        run("ip", "netns", "delete", f"{self.name}-switch", check=False)
        for folder in [CGROUPS / self.name, *CGROUPS.glob(f"*/{self.name}")]:
            if folder.is_dir():
                folder.rmdir()
        run("umount", "--lazy", self.folder)
        self.folder.rmdir()
        run("umount", "/run/netns", check=False)  # left by `ip netns`; others that use it keep it

    def _make_authority(self) -> None:
        self.tls.mkdir(mode=0o700)
        ca = ("-keyout", self.tls / "ca-key.pem", "-out", self.tls / "ca.pem", "-subj", "/CN=lab")
        run("openssl", "req", "-x509", *EC_KEY, *ca, "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        self.certify(self.tls, "extendedKeyUsage=clientAuth")

    def certify(self, folder: Path, *extensions: str) -> None:
        """A key and its certificate in the folder."""
        own = ("-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-subj", f"/CN={folder.name}")
        more = [word for extension in extensions for word in ("-addext", extension)]
        signed = ("-CA", self.tls / "ca.pem", "-CAkey", self.tls / "ca-key.pem")
        run("openssl", "req", "-x509", *EC_KEY, *own, *signed, "-addext", "basicConstraints=critical,CA:FALSE", *more)

    # --- machines ------------------------------------------------------------------------------------------------
    @property
    def manager(self) -> Machine:
        return Machine(self.folder / "machines" / "manager")

    @property
    def machines(self) -> list[Machine]:
        """The manager too."""
        found = []
        for disk in sorted((self.folder / "machines").glob("[!.]*")):
            with suppress(FileNotFoundError):  # destroyed meanwhile
                found.append(Machine(disk))
        return found

    def machine(self, token: UUID) -> Machine | None:
        disk = self.folder / "machines" / str(token)
        return Machine(disk) if disk.exists() else None

    def order(self, key: str, name: str, user_data: str = "") -> bool:
        """A machine's disk, made in one step: False if there is one by this key. It is off."""
        disk = self.folder / "machines" / f".{uuid4()}"
        (disk / "tls").mkdir(parents=True)
        address = f"{self.subnet}.{self._free_number()}"
        memory = int(os.environ.get("LAB_MACHINE_GB", "16")) * GB
        facts = {"lab": self.name, "name": name, "address": address, "memory": memory}
        (disk / "machine.json").write_text(json.dumps(facts))
        (disk / "user-data").write_text(user_data)
        try:
            disk.rename(self.folder / "machines" / key)
        except OSError:
            run("rm", "-rf", disk)
            return False
        return True

    def _free_number(self) -> int:
        """Of an address that no machine had before."""
        for number in range(2, 255):
            try:
                (self.folder / "addresses" / str(number)).mkdir(parents=True)
            except FileExistsError:
                continue
            return number
        raise RuntimeError("The lab has no address left.")

    # --- truth ---------------------------------------------------------------------------------------------------
    def containers(self) -> dict[str, set[str]]:
        """Of each bot the containers that have a process now, on whatever machine."""
        found: dict[str, set[str]] = {}
        for machine in self.machines:
            for container, labels in machine.running().items():
                found.setdefault(labels["buttcloud.bot"], set()).add(container)
        return found

    def copies(self) -> Counter[str]:
        """Of each bot how many."""
        return Counter({bot: len(containers) for bot, containers in self.containers().items()})

    @contextmanager
    def watched(self) -> Iterator[Counter[str]]:
        """Of each bot the most containers that were ever seen at one moment of the block.

        A watch that broke off, or that slept, has seen nothing worth counting, and fails the block.
        """
        most: Counter[str] = Counter()
        over = Event()

        def watch() -> int:
            looks = 0
            while not (looks and over.wait(0.05)):
                most.update(self.copies() - most)  # so that each becomes the larger of both
                looks += 1
            return looks

        began = monotonic()
        with ThreadPoolExecutor(1, "watch") as threads:
            watching = threads.submit(watch)
            try:
                yield most
            finally:
                over.set()
        looks, seconds = watching.result(), monotonic() - began
        assert looks > seconds / 2, f"in {seconds:.0f} s there were only {looks} looks at what runs"

    def empty(self) -> None:
        """No service is left, and no machine but the manager."""
        engine = self.manager.engine
        for service in engine.services.list():
            service.remove()
        for machine in self.machines:
            if machine.disk.name != "manager":
                machine.destroy()
        for node in engine.nodes.list():
            if node.attrs["Spec"]["Role"] == "worker":
                node.remove(force=True)


def open_lab() -> Lab:
    """A new lab, beside those of others; one whose owner was killed is cleared away."""
    for folder in ROOM.glob("bclab*"):
        owner = folder / "owner"
        if owner.exists() and not Path(f"/proc/{owner.read_text()}").exists():
            Lab(folder).close()
    for number in range(256):
        folder = ROOM / f"bclab{number}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        # In memory: disks of tests are thrown away, and engines wait for each write to a real one.
        run("mount", "-t", "tmpfs", "-o", "mode=700", folder.name, folder)
        (folder / "owner").write_text(str(os.getpid()))
        return Lab(folder)
    raise RuntimeError("There is no room for one more lab.")
