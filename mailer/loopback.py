"""Pages that only this machine may see: a browser must call them by a loopback name.

Another site can make its own name point here (DNS rebinding), but not change the Host that the browser sends.
"""

import re

LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.IGNORECASE)
REFUSAL = "Open this page by the name localhost."


def is_loopback(host: str) -> bool:
    """Whether a Host header, with its port or without, names this machine for itself."""
    return LOOPBACK.fullmatch(host) is not None
