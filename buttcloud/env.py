"""How settings are read: from the environment, or from the file that NAME_FILE names (Docker's way with secrets)."""

import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured


def text(name: str, default: str = "") -> str:
    """The variable NAME, or else the stripped content of the file NAME_FILE, or else the default."""
    if file := os.environ.get(f"{name}_FILE"):
        try:
            return Path(file).read_text().strip()
        except OSError as error:
            raise ImproperlyConfigured(f"{name}_FILE={file} can't be read: {error.strerror}.") from error
    return os.environ.get(name, default)


def flag(name: str, default: bool) -> bool:
    value = text(name, str(default)).lower()
    if value not in ("1", "true", "yes", "on", "0", "false", "no", "off", ""):
        raise ImproperlyConfigured(f"{name} must be true or false, not {value!r}.")
    return value in ("1", "true", "yes", "on")


def number(name: str, default: int) -> int:
    value = text(name, str(default))
    try:
        return int(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be a whole number, not {value!r}.") from None


def numbers(name: str, default: Sequence[int], count: int) -> tuple[int, ...]:
    """So many whole numbers above zero, written with commas: `900, 1700, 3200`."""
    values = words(name, ",".join(map(str, default)))
    if len(values) != count or not all(value.isdecimal() and int(value) for value in values):
        raise ImproperlyConfigured(f"{name} must be {count} whole numbers, with commas between, not {values}.")
    return tuple(map(int, values))


def words(name: str, default: str = "") -> list[str]:
    """A list written with commas: `a.example, b.example`."""
    return [word.strip() for word in text(name, default).split(",") if word.strip()]


def kept_secret(file: Path, make: Callable[[], str]) -> str:
    """A secret made at the first start and kept in a file that only its owner reads, whole or not at all."""
    try:
        if file.exists() and (kept := file.read_text().strip()):
            return kept
        return _keep(file, make())
    except OSError as error:
        raise ImproperlyConfigured(
            f"{file} can't be read or written: {error.strerror}. Make room there; give it to whoever runs this."
        ) from error


def _keep(file: Path, secret: str) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(secret)
    half.replace(file)
    return secret


def random_word() -> str:
    return secrets.token_urlsafe(32)
