"""The settings for tests: an own deployment, own ports and own network key, so that nothing of a running `make run` is
ever touched.
"""

import base64
import hashlib
import os
import tempfile
from pathlib import Path

VAR = Path(os.environ.get("TEST_VAR") or tempfile.mkdtemp(prefix="buttcloud-test-"))
# What the set-up made is there.
SET_UP = Path(os.environ.get("BUTTCLOUD_VAR") or Path(__file__).parents[1] / "var")
built_image = SET_UP / "pub_image"
os.environ.update(
    BUTTCLOUD_VAR=str(VAR),
    DEPLOYMENT=f"test{os.getpid()}",
    PUB_PORTS="29000-29399",
    PUB_SHS=base64.b64encode(hashlib.sha256(VAR.name.encode()).digest()).decode(),
    PUB_HOST="127.0.0.1",
    SWARM="orchestrator.swarm.memory.MemorySwarm",
    LOG_LEVEL="WARNING",
    # Playwright keeps a loop running in the test's thread, and Django would refuse to read its database there.
    DJANGO_ALLOW_ASYNC_UNSAFE="true",
)
# Without a built image only the live tests can't run; they say so.
os.environ.setdefault("PUB_IMAGE", built_image.read_text().strip() if built_image.exists() else "sha256:none")

from buttcloud.settings import *  # noqa: E402, F403

# The test that looks at it sets it.
DRAINED_REST_MINUTES = 0

# Hashing slowly protects no test's password.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
