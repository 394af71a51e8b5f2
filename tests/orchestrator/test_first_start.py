"""What a fresh machine does at its first start: the very script, with stand-ins for what would change this machine."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.conf import LazySettings

from orchestrator import enrol, machines
from orchestrator.machines import first_start
from orchestrator.machines.memory import MemoryMachines
from orchestrator.models import Enrolment, Hub
from orchestrator.swarm.memory import MemorySwarm
from tests.support.machine import FreshMachine
from tests.support.site import RunningSite
from tests.support.wait import until

SCRIPTS = [first_start.HERE / "hub-join", first_start.HERE / "metadata-guard"]

# The engine lets in whoever has the token in the file `good`, and is in a swarm once it has let itself in.
DOCKER = """#!/bin/bash
echo "docker $*" >>"$HUB_ROOT/calls"
case "$*" in
    "info --format {{.Swarm.LocalNodeState}}") cat "$HUB_ROOT/state" 2>/dev/null || echo inactive ;;
    "swarm join --token $(cat "$HUB_ROOT/good") --advertise-addr "*) echo active >"$HUB_ROOT/state" ;;
    "swarm join "*) echo "A valid join token is necessary to join this cluster" >&2; exit 1 ;;
esac
"""
SYSTEMCTL = """#!/bin/bash
echo "systemctl $*" >>"$HUB_ROOT/calls"
[ -z "${SYSTEMCTL_FAILS:-}" ] || { echo "Job for docker.service failed." >&2; exit 1; }
"""


@pytest.fixture
def site() -> Iterator[RunningSite]:
    with RunningSite() as site:
        yield site


@pytest.fixture
def hub(transactional_db: None, settings: LazySettings, site: RunningSite) -> Hub:
    settings.MACHINES = "orchestrator.machines.memory.MemoryMachines"
    settings.ENROL_URL = site.url
    hub = Hub.objects.create(name="hub-1", state=Hub.State.BOOTING)
    machines.connect().create(hub.token, hub.name, lambda: enrol.user_data(hub))
    return hub


@pytest.fixture
def cloud(hub: Hub) -> MemoryMachines:
    connected = machines.connect()
    assert isinstance(connected, MemoryMachines)
    return connected


class Booted:
    """A machine whose files cloud-init has written below `root`, where its script runs."""

    def __init__(self, user_data: str, root: Path, memory_swarm: MemorySwarm) -> None:
        self.root = root
        self.config = FreshMachine(user_data, root / "unused").config
        for file in self.config["write_files"]:
            written = self.path(file["path"])
            written.parent.mkdir(parents=True, exist_ok=True)
            written.write_text(file["content"])
            written.chmod(int(file["permissions"], 8))
        for name, program in [("docker", DOCKER), ("dockerd", ""), ("systemctl", SYSTEMCTL)]:
            stand_in = self.path(f"/bin/{name}")
            stand_in.parent.mkdir(exist_ok=True)
            stand_in.write_text(program)
            stand_in.chmod(0o755)
        self.let_in_with(memory_swarm.join_ticket().token)

    def path(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def read(self, path: str) -> str:
        return self.path(path).read_text() if self.path(path).exists() else ""

    def let_in_with(self, token: str) -> None:
        self.path("good").write_text(token)

    def start(self, **more: str) -> subprocess.Popen[bytes]:
        [[command]] = self.config["runcmd"]
        path = f"{self.path('/bin')}:{os.environ['PATH']}"
        environment = {"PATH": path, "HUB_ROOT": str(self.root), **more}
        return subprocess.Popen([self.path(command)], env=environment, start_new_session=True)


@pytest.fixture
def booted(hub: Hub, cloud: MemoryMachines, memory_swarm: MemorySwarm, tmp_path: Path) -> Booted:
    return Booted(cloud.of(hub.token)[0].user_data, tmp_path, memory_swarm)


@pytest.fixture
def run(booted: Booted) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts the script; what still runs at the end of the test is ended."""
    started = []

    def start(**more: str) -> subprocess.Popen[bytes]:
        started.append(booted.start(**more))
        return started[-1]

    yield start
    for process in started:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """The script and what it runs, as if the machine's plug were pulled."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def finish(process: subprocess.Popen[bytes]) -> int:
    """The script's exit code, with a worker that answers meanwhile."""

    def look() -> bool:
        enrol.answer_requests()
        return process.poll() is not None

    until("the script ends", look, seconds=120)
    return process.returncode


Run = Callable[..., "subprocess.Popen[bytes]"]


def test_a_fresh_machine_joins_the_swarm(
    booted: Booted, hub: Hub, run: Run, cloud: MemoryMachines, memory_swarm: MemorySwarm
) -> None:
    assert finish(run()) == 0, booted.read("/var/log/hub-join.log")
    address, ticket = cloud.list()[0].address, memory_swarm.join_ticket()
    calls = booted.read("calls").splitlines()
    assert f"docker swarm join --token {ticket.token} --advertise-addr {address} {ticket.managers[0]}" in calls
    done = [call for call in calls if call.startswith("systemctl")]
    assert done == [
        "systemctl daemon-reload",
        "systemctl enable --now metadata-guard.service",
        "systemctl enable docker.service",
        "systemctl restart docker.service",
    ]
    # Other machines reach the engine on the private address alone, and only with a certificate of ours.
    drop_in = booted.read("/etc/systemd/system/docker.service.d/hub.conf").splitlines()
    assert drop_in[:2] == ["[Service]", "ExecStart="]
    words = drop_in[2].split()
    assert [words[place + 1] for place, word in enumerate(words) if word == "-H"] == ["fd://", f"tcp://{address}:2376"]
    assert "--tlsverify" in words
    for name in ["ca.pem", "cert.pem", "key.pem"]:
        [file] = [word.partition("=")[2] for word in words if word.endswith(name)]
        assert Path(file).read_text()
    assert booted.path("/etc/docker/tls/key.pem").stat().st_mode & 0o777 == 0o600


def test_what_let_a_machine_in_is_on_it_no_more(booted: Booted, run: Run, memory_swarm: MemorySwarm) -> None:
    invitation = booted.read("/etc/buttcloud/invitation").split()[-1]
    assert finish(run()) == 0
    left = [file.read_text() for folder in ["etc", "var"] for file in booted.path(folder).rglob("*") if file.is_file()]
    assert invitation not in "".join(left)
    assert memory_swarm.join_ticket().token not in "".join(left)


def test_the_script_may_be_run_again_once_the_machine_has_joined(booted: Booted, hub: Hub, run: Run) -> None:
    assert finish(run()) == 0
    enrol.close(hub)
    calls = len(booted.read("calls").splitlines())
    assert finish(run()) == 0
    assert booted.read("calls").splitlines()[calls:] == ["docker info --format {{.Swarm.LocalNodeState}}"]


def test_a_machine_whose_plug_was_pulled_goes_on_with_the_same_key(booted: Booted, run: Run) -> None:
    first = run()
    until("it has asked", lambda: Enrolment.objects.exclude(request="").exists(), seconds=120)
    end(first)
    key = booted.read("/etc/docker/tls/key.pem")
    assert key
    assert finish(run()) == 0, booted.read("/var/log/hub-join.log")
    assert booted.read("/etc/docker/tls/key.pem") == key


def test_a_machine_waits_for_a_site_that_is_away(booted: Booted, run: Run, site: RunningSite) -> None:
    with RunningSite() as other:
        elsewhere, url = other.port, other.url
    env = booted.path("/etc/buttcloud/hub.env")
    env.write_text(env.read_text().replace(site.url, url))
    started = run()
    until("it makes a key", lambda: booted.read("/etc/docker/tls/request.pem"), seconds=120)
    with RunningSite(elsewhere):
        assert finish(started) == 0, booted.read("/var/log/hub-join.log")


def test_a_machine_with_a_join_token_that_was_rotated_asks_for_the_new_one(
    booted: Booted, run: Run, memory_swarm: MemorySwarm
) -> None:
    old = memory_swarm.join_ticket().token
    booted.let_in_with("nobody for now")
    started = run()

    def was_refused() -> bool:
        enrol.answer_requests()
        return f"--token {old} " in booted.read("calls")

    until("it is refused", was_refused, seconds=120)
    memory_swarm.rotate_join_token()
    booted.let_in_with(memory_swarm.join_ticket().token)
    assert finish(started) == 0, booted.read("/var/log/hub-join.log")


def test_a_machine_that_fails_says_why(booted: Booted, hub: Hub, run: Run) -> None:
    booted.path("/var/log").mkdir(parents=True, exist_ok=True)
    booted.path("/var/log/cloud-init-output.log").write_text("Fetched 70 MB")
    assert finish(run(SYSTEMCTL_FAILS="1")) != 0
    told = Enrolment.objects.get(hub=hub).report
    assert "Fetched 70 MB" in told
    assert "Job for docker.service failed." in told
    enrol.answer_requests()
    hub.refresh_from_db()
    assert "Job for docker.service failed." in hub.reason


def test_a_refused_machine_gives_up(booted: Booted, hub: Hub, run: Run) -> None:
    enrol.close(hub)
    assert finish(run()) != 0
    assert "403" in booted.read("/var/log/hub-join.log")
    assert "swarm join" not in booted.read("calls")


def test_the_user_data_holds_nothing_that_lasts(booted: Booted, hub: Hub, memory_swarm: MemorySwarm) -> None:
    text = json.dumps(booted.config)
    assert memory_swarm.join_ticket().token not in text
    assert "PRIVATE KEY" not in text
    assert len(text) < 16_000  # the least that a cloud takes
    open_to_all = [file for file in booted.config["write_files"] if not file["permissions"].startswith("06")]
    invitation = booted.read("/etc/buttcloud/invitation").split()[-1]
    assert booted.path("/etc/buttcloud/invitation").stat().st_mode & 0o777 == 0o600
    assert invitation not in str([file for file in open_to_all if "invitation" not in file["path"]])


def test_docker_starts_with_the_hubs_token_and_without_live_restore(booted: Booted, hub: Hub) -> None:
    daemon = json.loads(booted.read("/etc/docker/daemon.json"))
    assert daemon["labels"] == [f"buttcloud.hub={hub.token}"]
    assert daemon["no-new-privileges"]
    assert "live-restore" not in daemon  # an engine with it refuses to join a swarm


def test_an_image_with_all_programs_needs_no_packages(settings: LazySettings, hub: Hub, tmp_path: Path) -> None:
    settings.HUB_PACKAGES = []
    config = FreshMachine(enrol.user_data(hub), tmp_path / "bare").config
    assert (config["packages"], config["package_update"]) == ([], False)


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="there is no shellcheck")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_the_scripts_are_sound(script: Path) -> None:
    checked = subprocess.run(["shellcheck", script], capture_output=True, text=True)
    assert not checked.returncode, checked.stdout


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("iptables"), reason="needs root and iptables")
def test_containers_are_kept_from_the_clouds_metadata() -> None:
    guard = first_start.HERE / "metadata-guard"
    twice = f"{guard} && {guard} && iptables -S && ip6tables -S"
    rules = subprocess.run(["unshare", "-n", "sh", "-c", twice], capture_output=True, text=True)
    assert not rules.returncode, rules.stderr
    lines = [line for line in rules.stdout.splitlines() if line.startswith("-A")]
    assert len(lines) == len(set(lines)) == 6
    assert "-A DOCKER-USER -d 169.254.169.254/32 -j DROP" in lines
    assert any(line.startswith("-A OUTPUT -d 169.254.169.254/32 -m owner ! --uid-owner 0 -j REJECT") for line in lines)
