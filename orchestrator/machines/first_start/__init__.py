"""What a fresh machine does at its first start, so that it becomes a hub: a cloud-config for cloud-init.

Whoever is on the machine, and the cloud's staff, can read it for the life of the machine. So it holds nothing that
lasts: the invitation is good for one key, for some minutes, and is worth nothing once the machine has joined.
"""

import json
import shlex
from pathlib import Path
from uuid import UUID

from django.conf import settings

HERE = Path(__file__).parent
PROGRAMS = Path("/usr/local/sbin")


def cloud_config(token: UUID, name: str, url: str, invitation: str, authority: str) -> str:
    """For the hub with this token. `url` is where it enrols, `authority` our certificate authority's certificate."""
    config = {
        "hostname": name,
        "manage_etc_hosts": True,
        "ssh_pwauth": False,
        "package_update": bool(settings.HUB_PACKAGES),
        "packages": settings.HUB_PACKAGES,
        # cloud-init writes files before it installs packages: Docker's first start sees its settings.
        "write_files": [
            _file("/etc/docker/daemon.json", json.dumps(daemon_settings(token), indent=1)),
            _file("/etc/buttcloud/hub.env", _env({"URL": url, "ENGINE_PORT": str(settings.ENGINE_PORT)})),
            _file("/etc/buttcloud/ca.pem", authority),
            # As the header that curl sends, so that it stands in no list of processes.
            _file("/etc/buttcloud/invitation", f"Authorization: Bearer {invitation}\n", "0600"),
            _file("/etc/systemd/system/metadata-guard.service", (HERE / "metadata-guard.service").read_text()),
            _program("metadata-guard"),
            _program("hub-join"),
        ],
        "runcmd": [[str(PROGRAMS / "hub-join")]],
    }
    # JSON is YAML, and leaves no doubt about quotes.
    return "#cloud-config\n" + json.dumps(config, indent=1) + "\n"


def daemon_settings(token: UUID) -> dict[str, object]:
    """Docker's own settings. No live-restore: an engine with it refuses to join a swarm."""
    return {
        # By this claim the swarm's manager finds the node; the mark that counts is given there.
        "labels": [f"buttcloud.hub={token}"],
        "log-driver": "local",
        "log-opts": {"max-size": "10m", "max-file": "3"},
        "no-new-privileges": True,
        "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 65536, "Hard": 65536}},
    }


def _env(values: dict[str, str]) -> str:
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())


def _program(name: str) -> dict[str, str]:
    return _file(str(PROGRAMS / name), (HERE / name).read_text(), "0755")


def _file(path: str, content: str, permissions: str = "0644") -> dict[str, str]:
    return {"path": path, "content": content, "permissions": permissions}
