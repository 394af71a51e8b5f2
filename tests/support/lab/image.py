"""A pub of a few hundred kilobytes of memory, for tests where only its life counts and not what it says to peers.

Its identity lies on its volume and is checked like a real one's; its feed has one line for each start.
"""

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from tests.support.lab.machine import Machine

PUB = rb"""#!/bin/sh
case "$1" in
    init)
        [ -s /data/secret ] || head -c 32 /dev/urandom | base64 >/data/secret.new
        [ -s /data/secret ] || mv /data/secret.new /data/secret
        echo "{\"id\":\"@$(cat /data/secret).ed25519\"}" ;;
    start)
        [ "@$(cat /data/secret).ed25519" = "$PUB_ID" ] || { echo 'wrong or empty volume'; exit 78; }
        echo start >>/data/feed
        nc -ll -p 8008 -e echo "$PUB_ID" &
        trap 'kill $!; exit 0' TERM
        wait ;;
    *) exec "$@" ;;
esac
"""
PUBCTL = rb"""#!/bin/sh
case "$1" in
    whoami) result="\"id\":\"$PUB_ID\"" ;;
    feed.head) result="\"sequence\":$(wc -l </data/feed)" ;;
    *) echo '{"id":1,"ok":false,"error":{"code":"UNKNOWN","message":"a small pub knows little"}}'; exit 1 ;;
esac
echo "{\"id\":1,\"ok\":true,\"result\":{$result}}"
"""
APPLETS = "sh cat base64 cp echo head mv nc rm sleep tar timeout touch wc"


def make_small_pub(machine: Machine) -> str:
    """The image's id; it is on the machine's engine afterwards."""
    api = machine.engine.api
    api.import_image_from_data(
        _root_folder(), "small-pub", "lab", changes=['ENTRYPOINT ["/bin/pub"]', 'CMD ["start"]', "USER 1000:1000"]
    )
    return str(machine.engine.images.get("small-pub:lab").id)


def _root_folder() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, mode, owner in (("bin", 0o755, 0), ("tmp", 0o1777, 0), ("data", 0o700, 1000)):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode, folder.uid, folder.gid = tarfile.DIRTYPE, mode, owner, owner
            tar.addfile(folder)
        busybox = Path(shutil.which("busybox") or "").read_bytes()
        for name, body in (("busybox", busybox), ("pub", PUB), ("pubctl", PUBCTL)):
            program = tarfile.TarInfo(f"bin/{name}")
            program.size, program.mode = len(body), 0o755
            tar.addfile(program, io.BytesIO(body))
        for name in APPLETS.split():
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return packed.getvalue()


def bring(image: str, machine: Machine) -> None:
    """An image of this computer's engine onto a machine's."""
    with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as save:
        load = subprocess.run(
            ["docker", "--host", machine.url, "load", "--quiet"],
            stdin=save.stdout,
            capture_output=True,
            env=os.environ | {"DOCKER_CONTEXT": ""},
            text=True,
        )
    if load.returncode or save.returncode:
        raise RuntimeError(f"{image} did not reach {machine}: {load.stderr}")
