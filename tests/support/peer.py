"""A second real Scuttlebutt peer, in a container, that knows nothing but an invite."""

import json
import subprocess
from dataclasses import dataclass
from typing import Self

from django.conf import settings


@dataclass(frozen=True)
class Peer:
    id: str
    followed: bool

    @classmethod
    def accept(cls, invite: str, seconds: int = 60) -> Self:
        """What became of a new peer that accepted the invite and waited to be followed back."""
        script = settings.BASE_DIR / "pub_image" / "peer.js"
        ran = subprocess.run(
            ["docker", "run", "--rm", "--network", "host", "--entrypoint", "node"]
            + ["--env", f"PUB_SHS={settings.PUB_SHS}", "--volume", f"{script}:/app/peer.js:ro"]
            + [settings.PUB_IMAGE, "/app/peer.js", invite, str(seconds)],
            capture_output=True,
            text=True,
            timeout=seconds + 30,
        )
        said = {line["step"]: line for line in map(json.loads, ran.stdout.splitlines())}
        return cls(said.get("accepted", {}).get("id", ""), ran.returncode == 0 and "followed" in said)
