"""The whole service as a stranger meets it: one process, real HTTP, local Stripe, real Swarm, a second real peer."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
import requests
from django.conf import settings

from tests.live.conftest import remove_all
from tests.support.wait import until

DEPLOYMENT = f"{settings.DEPLOYMENT}up"


def free_ports(count: int) -> list[int]:
    opened = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in opened]
    for server in opened:
        server.close()
    return ports


class Service:
    """`manage.py up` as a process of its own, with its own folder, ports and deployment."""

    def __init__(self, var: Path) -> None:
        site, stripe, mail = free_ports(3)
        self.url = f"http://localhost:{site}"
        self.log = var / "up.log"
        self.environment = {
            name: value for name, value in os.environ.items() if name not in ("DJANGO_SETTINGS_MODULE", "SWARM")
        } | {
            "BUTTCLOUD_VAR": str(var),
            "DEPLOYMENT": DEPLOYMENT,
            "PUB_PORTS": "29400-29499",
            "PUB_IMAGE": settings.PUB_IMAGE,
            "SITE_PORT": str(site),
            "STRIPE_PORT": str(stripe),
            "MAIL_PORT": str(mail),
        }
        self.process: subprocess.Popen[bytes] | None = None

    def manage(self, *arguments: str, timeout: int = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=settings.BASE_DIR,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def start(self) -> None:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "up"],
                cwd=settings.BASE_DIR,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until(f"the service to start: {self.log}", self._is_started, 120)

    def _is_started(self) -> bool:
        assert self.process and self.process.poll() is None, self.log.read_text()[-2000:]
        return "buttcloud runs." in self.log.read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def service(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("var"))
    running.start()
    yield running
    if running.process and running.process.poll() is None:
        running.stop()
    remove_all(engine, DEPLOYMENT)


def pubs(engine: docker.DockerClient) -> list[str]:
    ours = {"label": f"buttcloud.deployment={DEPLOYMENT}"}
    return sorted(container.id for container in engine.containers.list(filters=ours, ignore_removed=True))


def test_a_customer_joins_pays_runs_watches_and_commands(service: Service) -> None:
    walked = service.manage("demo", "--keep")
    assert walked.returncode == 0, walked.stdout + walked.stderr
    for step in ("the pub is up", "live stats", "whoami", "create_invite", "follows the second peer back"):
        assert step in walked.stdout


def test_a_deleted_pub_ends_its_subscription_by_itself(service: Service, engine: docker.DockerClient) -> None:
    before = pubs(engine)
    walked = service.manage("demo")
    assert walked.returncode == 0, walked.stdout + walked.stderr
    until("only the pub of the other demo is left", lambda: pubs(engine) == before)


def test_its_greeting_names_the_addresses_and_a_password(service: Service) -> None:
    greeting = service.log.read_text()
    assert f"{service.url}/admin/" in greeting and re.search(r"password \S{20,}", greeting)
    assert requests.get(service.url, timeout=20).status_code == 200


def test_what_went_wrong_inside_is_nothing(service: Service) -> None:
    assert not re.findall(r"ERROR|Traceback", service.log.read_text())


def test_a_second_instance_is_refused_in_one_sentence(service: Service) -> None:
    second = service.manage("up")
    assert second.returncode == 1
    assert "runs already" in second.stderr and "Traceback" not in second.stderr


def test_a_taken_port_is_one_sentence_with_the_remedy(service: Service, tmp_path: Path) -> None:
    other = Service(tmp_path)
    other.environment["SITE_PORT"] = service.environment["SITE_PORT"]
    refused = other.manage("up")
    assert refused.returncode == 1
    assert "is taken" in refused.stderr and "SITE_PORT=" in refused.stderr and "Traceback" not in refused.stderr


def test_an_engine_that_is_not_there_is_one_sentence(service: Service, tmp_path: Path) -> None:
    other = Service(tmp_path)
    other.environment["DOCKER_HOST"] = "unix:///nowhere.sock"
    refused = other.manage("up")
    assert refused.returncode == 1
    assert "does not answer" in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_clean_and_pubs_go_on_and_are_adopted(
    service: Service, engine: docker.DockerClient, number: int
) -> None:
    before = pubs(engine)
    assert before
    assert service.stop(number) == 0
    assert service.log.read_text().rstrip().endswith("Stopped.")
    assert pubs(engine) == before
    service.start()
    planned = service.manage("plan")
    assert "Nothing to do" in planned.stdout, planned.stdout + planned.stderr
    assert pubs(engine) == before
