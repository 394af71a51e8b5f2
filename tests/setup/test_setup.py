"""The set-up scripts, run for real in a copy of the project on a machine made of a few tools and fakes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = (
    "awk bash cat chmod cut date df dirname env find flock grep head mkdir mktemp mv readlink rm rmdir sed sha256sum "
    "sleep sort tail timeout touch tr"
)
DOCKER = """
echo "$@" >> "$HOME/docker.calls"
case "$1 $2" in
    "info "*) [ -n "${INFO:-}" ] || { echo "${ENGINE_ERROR:-Cannot connect to the Docker daemon}" >&2; exit 1; }
        echo "FACTS|20.10.24|$INFO|/nowhere" ;;
    "image inspect") grep -qsx "${@: -1}" "$HOME/images" && echo sha256:c0ffee ;;
    "pull "*) echo "no such host" >&2; exit 1 ;;
    "build "*) [ -z "${BUILD_ERROR:-}" ] || { echo "$BUILD_ERROR"; exit 1; }
        echo "$@" | sed 's/.*--tag \\([^ ]*\\) .*/\\1/' >> "$HOME/images" ;;
esac
"""
INACTIVE, MANAGER, WORKER = "inactive|false", "active|true", "active|false"


class Machine:
    """A project folder, a PATH with little on it, and a home: what a set-up script sees. The user is not root."""

    def __init__(self, folder: Path) -> None:
        self.project, self.bin, self.home = folder / "project", folder / "bin", folder / "home"
        for made in (self.project / "pub_image", self.bin, self.home):
            made.mkdir(parents=True)
        shutil.copytree(ROOT / "scripts", self.project / "scripts")
        (self.project / "requirements.lock").write_text("")
        (self.project / "pub_image" / "Dockerfile").write_text("FROM scratch\n")
        for tool in TOOLS.split():
            if found := shutil.which(tool):
                (self.bin / tool).symlink_to(found)
        self.has("id", 'case "$1" in -u) echo 1000 ;; *) echo alice ;; esac')

    def has(self, command: str, script: str) -> None:
        fake = self.bin / command
        fake.unlink(missing_ok=True)
        fake.write_text(f"#!{shutil.which('bash')}\n{script}\n")
        fake.chmod(0o755)

    def start(self, *command: str, **env: str) -> subprocess.Popen[str]:
        only = {"PATH": str(self.bin), "HOME": str(self.home), **env}
        output = subprocess.PIPE
        return subprocess.Popen(
            command,
            cwd=self.project,
            env=only,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            text=True,
            # Where tests run in the background Ctrl-C is ignored, and a shell can't hear what it was told to ignore.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *command: str, **env: str) -> tuple[int, str, str]:
        with self.start(*command, **env) as process:
            out, err = process.communicate(timeout=30)
        return process.returncode, out, err

    def set_up(self, what: str, **env: str) -> tuple[int, str, str]:
        return self.run("bash", "scripts/setup.sh", what, **env)

    def call(self, script: str, **env: str) -> str:
        """What a line of shell prints when it may use the functions of the scripts."""
        sources = "; ".join(f". scripts/{name}.sh" for name in ("lib", "python", "engine", "image"))
        status, out, err = self.run("bash", "-uc", f"{sources}; {script}", **env)
        assert status == 0, err
        return out.strip()

    @property
    def docker_calls(self) -> list[str]:
        calls = self.home / "docker.calls"
        return calls.read_text().splitlines() if calls.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def docker(machine: Machine) -> Iterator[Machine]:
    machine.has("docker", DOCKER)
    yield machine


# --- Python ---


def test_pythons_that_are_too_old_or_do_not_run_are_passed_over(machine: Machine) -> None:
    machine.has("python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127")
    machine.has("python3", "[ \"$1\" = -c ] || echo 'Python 3.9.2'")
    kept_by_pyenv = machine.home / ".pyenv/versions/3.13.0/bin/python"
    kept_by_pyenv.parent.mkdir(parents=True)
    kept_by_pyenv.symlink_to(sys.executable)
    assert os.path.realpath(machine.call("search_python")) == os.path.realpath(sys.executable)


def test_a_virtual_environment_is_seen_through_since_it_may_be_thrown_away(machine: Machine) -> None:
    machine.has("python3.13", f'exec {sys.executable} "$@"')
    found = machine.call("search_python")
    assert found == sys._base_executable  # type: ignore[attr-defined]
    assert Path(sys.prefix) not in Path(found).parents or sys.prefix == sys.base_prefix


def test_the_python_that_is_asked_for_comes_first(machine: Machine) -> None:
    asked = machine.home / "mine"
    asked.write_text(f'#!/bin/sh\n[ -z "$2" ] || echo {asked}\n')
    asked.chmod(0o755)
    machine.has("python3.13", "echo /not/this/one")
    assert machine.call("search_python", PYTHON=str(asked)) == str(asked)


def test_without_a_python_the_error_says_how_to_get_one(machine: Machine) -> None:
    machine.has("python3", "exit 0")
    status, _, err = machine.set_up("python")
    assert status == 1
    assert err.startswith("error: No Python 3.12 or newer was found.")
    assert "apt-get install python3 python3-venv" in err


def test_a_python_without_venv_names_the_package(machine: Machine) -> None:
    machine.has(
        "python3",
        'case "$2" in *ensurepip*) exit 1 ;; *base_exec*) echo "$0" ;; *%d.%d.%d*) echo 3.13.5 ;; *) echo 3.13 ;; esac',
    )
    status, _, err = machine.set_up("python")
    assert status == 1
    assert "sudo apt-get install python3.13-venv" in err


@pytest.mark.parametrize(
    ("stamp", "usable"),
    [("unfinished", False), ("100a 3.13.0 /moved/away", False), ("an older lock 3.13.0 {root}", True), ("", True)],
)
def test_a_venv_is_kept_unless_it_was_cut_off_or_moved(machine: Machine, stamp: str, usable: bool) -> None:
    (machine.project / ".venv/bin").mkdir(parents=True)
    (machine.project / ".venv/bin/python").symlink_to(sys.executable)
    (machine.project / ".venv/buttcloud.stamp").write_text(stamp.format(root=machine.project))
    assert machine.call("venv_is_usable && echo kept || echo 'thrown away'") == ("kept" if usable else "thrown away")


def test_a_changed_lock_is_installed_and_an_unchanged_one_is_not(machine: Machine) -> None:
    python = machine.project / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(
        '#!/bin/sh\ncase "$*" in *version_info*) echo 3.13.0 ;; *install*) echo installed >> "$HOME/pip" ;; esac\n'
    )
    python.chmod(0o755)
    for _ in range(2):
        assert machine.set_up("python")[0] == 0
    assert (machine.home / "pip").read_text() == "installed\n"
    (machine.project / "requirements.lock").write_text("# one more\n")
    assert machine.set_up("python")[0] == 0
    assert (machine.home / "pip").read_text() == "installed\ninstalled\n"


# --- Engine and swarm ---


def test_without_docker_the_error_says_how_to_get_it(machine: Machine) -> None:
    status, _, err = machine.set_up("engine")
    assert status == 1
    assert "sudo apt-get install docker" in err
    if not Path("/var/run/docker.sock").is_socket():
        assert err.startswith("error: No Docker engine was found.")
        assert "usermod -aG docker alice" in err


def test_a_refused_socket_leads_to_the_docker_group(docker: Machine) -> None:
    status, _, err = docker.set_up(
        "engine", ENGINE_ERROR="permission denied while trying to connect to the Docker daemon socket"
    )
    assert status == 1
    assert err.splitlines() == [
        "error: You may not talk to the Docker engine.",
        "       Join its group and log in anew: sudo usermod -aG docker alice",
    ]


def test_an_engine_that_is_off_is_named_with_its_remedy(docker: Machine) -> None:
    docker.has("dockerd", "exit 1")
    status, _, err = docker.set_up("engine")
    assert status == 1
    assert "The Docker engine does not run." in err and "sudo systemctl start docker" in err


def test_an_engine_elsewhere_that_is_silent_is_named(docker: Machine) -> None:
    status, _, err = docker.set_up("engine", DOCKER_HOST="tcp://far.example:2376")
    assert status == 1
    assert "DOCKER_HOST=tcp://far.example:2376 does not answer" in err


def test_another_engine_of_the_docker_command_is_not_taken_silently(docker: Machine) -> None:
    docker.has("docker", 'echo "unix:///home/alice/desktop.sock"')
    status, _, err = docker.set_up("engine", DOCKER_CONTEXT="desktop")
    assert status == 1
    assert "export DOCKER_HOST=unix:///home/alice/desktop.sock" in err


def test_an_engine_without_a_swarm_becomes_one_on_loopback_alone(docker: Machine) -> None:
    status, out, _ = docker.set_up("engine", INFO=INACTIVE)
    assert status == 0
    assert "docker swarm leave --force undoes it" in out
    [made] = [call for call in docker.docker_calls if call.startswith("swarm")]
    assert "--advertise-addr 127.0.0.1 --listen-addr 127.0.0.1:2377" in made


def test_a_manager_is_used_as_it_is(docker: Machine) -> None:
    assert docker.set_up("engine", INFO=MANAGER)[0] == 0
    assert not [call for call in docker.docker_calls if call.startswith("swarm")]


def test_a_worker_of_another_swarm_is_refused(docker: Machine) -> None:
    status, _, err = docker.set_up("engine", INFO=WORKER)
    assert status == 1
    assert "worker of another swarm" in err


# --- Image ---


def test_the_image_is_built_once_and_again_only_when_pub_image_changes(docker: Machine) -> None:
    (docker.home / "images").write_text("node:20-bookworm-slim\n")
    for _ in range(2):
        assert docker.set_up("image", INFO=MANAGER)[0] == 0
    (docker.project / "README.md").write_text("another thing changed")
    assert docker.set_up("image", INFO=MANAGER)[0] == 0
    builds = [call for call in docker.docker_calls if call.startswith("build")]
    assert len(builds) == 1
    assert (docker.project / "var/pub_image").read_text() == "sha256:c0ffee\n"
    (docker.project / "pub_image/Dockerfile").write_text("FROM scratch\nUSER node\n")
    assert docker.set_up("image", INFO=MANAGER)[0] == 0
    builds = [call for call in docker.docker_calls if call.startswith("build")]
    assert len(set(builds)) == 2


def test_without_a_registry_only_root_on_debian_can_make_a_base_image(docker: Machine) -> None:
    status, out, err = docker.set_up("image", INFO=MANAGER)
    assert status == 1
    assert "No container registry answers" in out
    assert "sudo scripts/setup.sh image" in err


def test_a_failed_build_shows_the_end_of_its_log(docker: Machine) -> None:
    (docker.home / "images").write_text("local/node:20-bookworm-slim\n")
    status, _, err = docker.set_up("image", INFO=MANAGER, BUILD_ERROR="npm ERR! network")
    assert status == 1
    assert "| npm ERR! network" in err
    assert not (docker.project / "var/pub_image").exists()


# --- All of it ---


def test_a_full_disk_is_one_sentence(docker: Machine) -> None:
    docker.has("df", "echo 'Filesystem 1024-blocks Used Available'; echo 'disk 9 9 51200'")
    status, _, err = docker.set_up("engine", INFO=MANAGER)
    assert status == 1
    assert "has only 50 MB free, and this needs 200 MB." in err


def test_a_folder_of_somebody_else_is_one_sentence(machine: Machine) -> None:
    status, _, err = machine.set_up("python", BUTTCLOUD_VAR="/proc/nobody/var")
    assert status == 1
    assert err.startswith("error: You may not write in")


def test_an_unknown_word_is_answered_with_those_it_knows(machine: Machine) -> None:
    status, _, err = machine.set_up("everything")
    assert status == 1
    assert "It knows: python, engine, image, run, test." in err


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_set_up_stops_what_it_started(machine: Machine, sent: signal.Signals, status: int) -> None:
    pid_file = machine.home / "pid"
    process = machine.start(
        "bash", "-uc", f". scripts/lib.sh; long_step \"Sleeping\" sleep sh -c 'echo $$ > {pid_file}; exec sleep 60'"
    )
    machine.has("sh", 'exec bash "$@"')
    wait_for(pid_file)
    process.send_signal(sent)
    _, err = process.communicate(timeout=30)
    assert process.returncode == status
    assert "Run the command again to go on." in err
    assert not Path(f"/proc/{pid_file.read_text().strip()}").exists()


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 30
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < deadline, f"{file} did not appear"
        time.sleep(0.02)


def test_cleaning_keeps_what_is_precious_when_nobody_can_be_asked(machine: Machine) -> None:
    var = machine.project / "var"
    var.mkdir()
    (var / "db.sqlite3").write_text("precious")
    status, out, _ = machine.run("bash", "scripts/clean.sh")
    assert status == 0
    assert "YES=1 answers yes" in out
    assert (var / "db.sqlite3").exists()
    assert machine.run("bash", "scripts/clean.sh", YES="1")[0] == 0
    assert not var.exists()
