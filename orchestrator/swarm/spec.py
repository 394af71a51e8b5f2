"""What a pub is in Docker's words: its labels, its service, and the containers that help it."""

from typing import Any
from uuid import UUID

from django.conf import settings

from orchestrator.swarm import PubService, service_name

SECOND = 10**9  # Docker counts in nanoseconds
STOP_SECONDS = 30  # less than 45: swarmkit starts the next task after a minute, stopped or not
USER = "1000:1000"
PIDS = 200
INIT_MEMORY = 256 * 2**20
# The image's own check: it runs so often, and fails once the last sign of life is older than that.
CHECK_SECONDS = 2
SIGN_OF_LIFE_SECONDS = 10
LOGS = {"Type": "json-file", "Config": {"max-size": "5m", "max-file": "2"}}
SCRATCH = "/tmp"  # noqa: S108  (inside a container whose root is read-only)
DATA = "/data"  # where a pub has its volume

# Our labels.
DEPLOYMENT = "buttcloud.deployment"
BOT = "buttcloud.bot"
DIGEST = "buttcloud.digest"
HUB = "buttcloud.hub"


def hub_label() -> str:
    """With which the manager marks a node: of our deployment, so that several can share an engine."""
    return f"{HUB}.{settings.DEPLOYMENT}"


def labels(bot_id: UUID) -> dict[str, str]:
    return {DEPLOYMENT: settings.DEPLOYMENT, BOT: str(bot_id)}


def uuid_or_none(written: str | None) -> UUID | None:
    """What a label says; None for what nobody of us wrote."""
    try:
        return UUID(written) if written else None
    except ValueError:
        return None


def init_spec(bot_id: UUID, image: str) -> dict[str, Any]:
    """A container that makes the identity on the volume, prints it and ends: nothing with this identity runs yet."""
    return {
        "Image": image,
        "Cmd": ["init"],
        "Labels": labels(bot_id),
        "User": USER,
        "HostConfig": {
            "NetworkMode": "none",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "Memory": INIT_MEMORY,
            "PidsLimit": PIDS,
            "LogConfig": LOGS,
            "SecurityOpt": ["no-new-privileges"],
            "Mounts": [{"Type": "volume", "Source": service_name(bot_id), "Target": DATA}],
            "Tmpfs": {SCRATCH: ""},
        },
    }


def copy_spec(bot_id: UUID, image: str) -> dict[str, Any]:
    """A container that is never started: through it the volume is read and written."""
    mount = {"Type": "volume", "Source": service_name(bot_id), "Target": DATA, "VolumeOptions": {"NoCopy": True}}
    return {
        "Image": image,
        "Cmd": ["true"],
        "Labels": labels(bot_id),
        "HostConfig": {"NetworkMode": "none", "Mounts": [mount]},
    }


def retries() -> int:
    """How often the check of health fails before Docker calls a pub unhealthy, and Swarm ends and starts it."""
    return max(1, round((settings.PUB_SILENCE_SECONDS - SIGN_OF_LIFE_SECONDS) / CHECK_SECONDS))


def service_spec(pub: PubService) -> dict[str, Any]:
    """The pub service in Docker's words: one copy, ever, on the hub that has its volume."""
    environment = {
        "PUB_ID": pub.ssb_id,
        "PUB_HOST": pub.host,
        "PUB_EXTERNAL_PORT": pub.port,
        "PUB_NAME": pub.name,
        "PUB_SHS": pub.network_key,
        "PUB_MIN_SEQ": pub.min_seq or "",
        # On one machine the address may be a private one, and then it must be usable in invites.
        "PUB_ALLOW_PRIVATE": "1" if settings.PUB_ALLOW_PRIVATE else "",
    }
    return {
        "Name": service_name(pub.bot_id),
        "Labels": labels(pub.bot_id),
        "Mode": {"Replicated": {"Replicas": 1}},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": pub.image,
                "Labels": labels(pub.bot_id),
                "Env": [f"{name}={value}" for name, value in environment.items() if value],
                "Mounts": [
                    {
                        "Type": "volume",
                        "Source": service_name(pub.bot_id),
                        "Target": DATA,
                        "VolumeOptions": {"Labels": labels(pub.bot_id)},
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
                # All else about the check is said by the image.
                "Healthcheck": {"Retries": retries()},
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
