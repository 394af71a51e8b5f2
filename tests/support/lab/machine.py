"""One machine: what runs in it believes to be alone on a computer.

It is a set of namespaces. Their first process is tini, and to kill it is to pull the plug; what the machine mounted
vanishes with it. Its folder is its disk, which outlives a power-off.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import docker

from tests.support.wait import until

CGROUPS = Path("/sys/fs/cgroup")
# Folders of this computer that a machine sees, and writes to on its own disk alone.
OWN_FOLDERS = ("etc", "usr/local", "var/log")

# Not `ip netns exec`: it takes the cgroup mounts away, and Docker needs them.
INIT = """set -e
cd {disk}
hostname {name}
mount --bind run /run
mkdir -p /run/lock /run/cgroups
mount --rbind /sys/fs/cgroup /run/cgroups
mount -t sysfs sysfs /sys
mount --rbind /run/cgroups /sys/fs/cgroup
umount -l /run/cgroups
mount --bind meminfo /proc/meminfo
for folder in {own_folders}; do
    mkdir -p "own/$folder" "work/$folder"
    mount -t overlay overlay -o "lowerdir=/$folder,upperdir=own/$folder,workdir=work/$folder" "/$folder"
done
exec tini -s -- sleep infinity
"""

# As much of systemd as a machine's first start asks for. The unit's own words count, but for what only systemd gives.
SYSTEMCTL = """#!/bin/bash
case "$*" in
    *restart*docker* | *start*docker*) ;;
    *) exit 0 ;;
esac
if [ -f /run/docker.pid ] && kill "$(cat /run/docker.pid)" 2>/dev/null; then
    while kill -0 "$(cat /run/docker.pid 2>/dev/null)" 2>/dev/null; do sleep 0.1; done
fi
unit=$(cat /etc/systemd/system/docker.service.d/*.conf 2>/dev/null | sed -n 's/^ExecStart=[^ ]* //p')
unit=${{unit//fd:\\/\\//unix:\\/\\/\\/run\\/docker.sock}}
unit=${{unit//--containerd=\\/run\\/containerd\\/containerd.sock/}}
DOCKER_SERVICE_PREFER_OFFLINE_IMAGE=1 setsid dockerd $unit {flags} >>{disk}/dockerd.log 2>&1 </dev/null &
for _ in $(seq 900); do
    docker --host unix:///run/docker.sock version >/dev/null 2>&1 && exit 0
    kill -0 $! || break
    sleep 0.1
done
tail -n 5 {disk}/dockerd.log >&2
exit 1
"""


def run(*command: object, check: bool = True) -> str:
    """What the command prints; its complaint becomes the error's."""
    ran = subprocess.run([str(word) for word in command], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if check and ran.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {ran.stderr.strip() or ran.stdout.strip()}")
    return ran.stdout.strip()


class Machine:
    def __init__(self, disk: Path) -> None:
        self.disk = disk
        facts = json.loads((disk / "machine.json").read_text())
        self.name: str = facts["name"]
        self.address: str = facts["address"]
        self.memory: int = facts["memory"]  # bytes that it seems to have
        # Names of what belongs to it on this computer; an interface's has at most 15 characters.
        self.network = f"{facts['lab']}-{self.address.rpartition('.')[2]}"
        self.switch = f"{facts['lab']}-switch"
        self.cgroup = f"{facts['lab']}/{self.address.rpartition('.')[2]}"

    def __repr__(self) -> str:
        return f"<machine {self.name}>"

    # --- power ---------------------------------------------------------------------------------------------------
    @property
    def pid(self) -> int | None:
        """Of its first process, while it is on."""
        try:
            pid = int((self.disk / "pid").read_text())
            return pid if Path(f"/proc/{pid}/comm").read_text() == "tini\n" and not _is_dead(pid) else None
        except (OSError, ValueError):
            return None

    def boot(self) -> None:
        """Power on; the engine is started by `start_engine`."""
        if not (Path("/run/netns") / self.network).exists():
            self._plug_in()
        self._write_disk()
        with (self.disk / "machine.log").open("ab") as log:
            outside = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.network}", "unshare", "--mount", "--propagation", "private"]
                + [
                    "--uts",
                    "--ipc",
                    "--pid",
                    "--fork",
                    "--kill-child=SIGKILL",
                    "--mount-proc",
                    "sh",
                    self.disk / "init",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

        def first_process() -> int | None:
            assert outside.poll() is None, (self.disk / "machine.log").read_text()[-500:]
            children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children").read_text().split()
            return next((int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text() == "tini\n"), None)

        (self.disk / "pid").write_text(str(until(f"{self} is on", first_process, every=0.02)))

    def _plug_in(self) -> None:
        run("ip", "netns", "add", self.network)
        wire = ("type", "veth", "peer", "name", "eth0", "netns", self.network)
        run("ip", "link", "add", self.network, "netns", self.switch, *wire)
        run("ip", "-n", self.switch, "link", "set", self.network, "master", "bridge", "up")
        run("ip", "-n", self.network, "link", "set", "lo", "up")
        run("ip", "-n", self.network, "addr", "add", f"{self.address}/24", "dev", "eth0")
        run("ip", "-n", self.network, "link", "set", "eth0", "up")

    def _write_disk(self) -> None:
        run("rm", "-rf", self.disk / "run")
        for folder in ("run", "bin", "docker"):
            (self.disk / folder).mkdir(exist_ok=True)
        kilobytes = {
            "MemTotal": self.memory // 1024,
            "MemFree": self.memory // 1280,
            "MemAvailable": self.memory // 1280,
        }
        lines = [line.partition(":") for line in Path("/proc/meminfo").read_text().splitlines()]
        (self.disk / "meminfo").write_text(
            "".join(
                f"{name}: {kilobytes[name]} kB\n" if name in kilobytes else f"{name}:{rest}\n"
                for name, _, rest in lines
            )
        )
        (self.disk / "init").write_text(INIT.format(disk=self.disk, name=self.name, own_folders=" ".join(OWN_FOLDERS)))
        flags = f"--data-root {self.disk}/docker --cgroup-parent /{self.cgroup} --exec-opt native.cgroupdriver=cgroupfs"
        flags += " --userland-proxy=false --shutdown-timeout 5"
        systemctl = self.disk / "bin" / "systemctl"
        systemctl.write_text(SYSTEMCTL.format(disk=self.disk, flags=flags))
        systemctl.chmod(0o755)

    def power_off(self) -> None:
        """Pull the plug."""
        if pid := self.pid:
            os.kill(pid, signal.SIGKILL)
            until(f"{self} is off", lambda: _is_dead(pid), every=0.02)
        until(f"the cgroups of {self} are gone", self._remove_cgroups, every=0.05)

    def _remove_cgroups(self) -> bool:
        for top in self._cgroups():
            for folder, _, _ in os.walk(top, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError:
                    return False  # its processes are still ending
        return True

    def _cgroups(self) -> list[Path]:
        """Its folder below each hierarchy of cgroup v1, or the one of v2."""
        tops = [CGROUPS] if (CGROUPS / "cgroup.controllers").exists() else CGROUPS.iterdir()
        return [top / self.cgroup for top in tops if (top / self.cgroup).is_dir()]

    def destroy(self) -> None:
        self._end_first_start()
        self.power_off()
        run("ip", "netns", "delete", self.network, check=False)  # its cable goes with it
        run("rm", "-rf", self.disk)

    def _end_first_start(self) -> None:
        """The cloud's own process may still build it."""
        try:
            pid = int((self.disk / "first_start.pid").read_text())
            if self.disk.name in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGKILL)
                until("its first start has ended", lambda: _is_dead(pid), every=0.02)
        except (OSError, ValueError):
            pass  # there was none, or it has ended

    # --- inside --------------------------------------------------------------------------------------------------
    def inside(self, *command: object) -> str:
        """Run a command in the machine."""
        path = f"PATH={self.disk}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        clean = ("env", "-i", path, "HOME=/root", "LANG=C.UTF-8")
        return run("nsenter", "-t", self.pid, "-m", "-n", "-p", "-u", "-i", "--", *clean, *command)

    def start_engine(self) -> None:
        """As its unit says; returns when the engine answers. One whose manager is away answers after some 20 s."""
        self.inside("systemctl", "start", "docker")

    def kill_engine(self) -> None:
        """kill -9 of dockerd, and of its containerd with it. The containers run on until the engine starts again."""
        pids = [pid for pid, name in self._processes() if name == "dockerd"]
        assert pids, f"{self} has no engine to kill"
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        until(f"the engine of {self} is dead", lambda: all(map(_is_dead, pids)), every=0.02)

    def _processes(self) -> Iterator[tuple[int, str]]:
        """Those of the machine itself, not of its containers."""
        here = os.readlink(f"/proc/{self.pid}/ns/mnt")
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(folder / "ns/mnt") == here:
                    yield int(folder.name), (folder / "comm").read_text().strip()
            except OSError:
                pass  # it ended meanwhile

    @property
    def url(self) -> str:
        """Its engine, for this computer's root."""
        return f"unix://{self.disk}/run/docker.sock"

    @cached_property
    def engine(self) -> docker.DockerClient:
        return docker.DockerClient(base_url=self.url, version="1.41", timeout=120)

    # --- cable ---------------------------------------------------------------------------------------------------
    def cut(self) -> None:
        run("ip", "-n", self.switch, "link", "set", self.network, "down")

    def heal(self) -> None:
        run("ip", "-n", self.switch, "link", "set", self.network, "up")

    # --- truth ---------------------------------------------------------------------------------------------------
    def running(self) -> dict[str, dict[str, str]]:
        """Id and labels of each container of a service that has a process, also behind a dead engine or a cut cable."""
        tops = [top for top in self._cgroups() if "pids" in top.parts or (CGROUPS / "cgroup.controllers").exists()]
        found = {}
        for container in [folder.name for top in tops for folder in _inside(top) if _has_process(folder)]:
            with suppress(OSError):  # gone meanwhile, so it is not running
                found[container] = _labels(self.disk / "docker/containers" / container / "config.v2.json")
        return {container: labels for container, labels in found.items() if "com.docker.swarm.service.name" in labels}


@cache
def _labels(config: Path) -> dict[str, str]:
    """Of a container, which never change; as its engine keeps them on disk."""
    kept: dict[str, Any] = json.loads(config.read_text())
    return kept["Config"]["Labels"] or {}


def _inside(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []  # its machine lost power meanwhile


def _has_process(cgroup: Path) -> bool:
    try:
        return bool((cgroup / "cgroup.procs").read_text())
    except OSError:
        return False


def _is_dead(pid: int) -> bool:
    """A zombie is dead enough: somebody else has to fetch it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
