"""What templates can't say by themselves: ages, sizes, QR codes, a command's answer in plain words."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import segno
from django import template
from django.conf import settings
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from pubs import disk
from pubs import shown as looks
from pubs.catalogue import CATALOGUE
from pubs.models import Command
from pubs.timeline import newest
from pubs.units import age, size

register = template.Library()
register.filter("shown", looks.shown)
register.filter("is_stale", looks.is_stale)
register.filter("timeline", newest)
register.filter("age", age)
register.filter("size", size)
register.filter("outlook", disk.outlook)

# Keys of the pub's answers, by what their values are.
TIMES = frozenset({"created", "lastUsed", "revoked", "since", "synced"})
SIZES = frozenset(
    {
        "rss",
        "heapUsed",
        "external",
        "arrayBuffers",
        "heapLimit",
        "blobs",
        "db",
        "total",
        "bytes",
        "volumeFree",
        "volumeSize",
    }
)


# What of a pub's status is about its program, or about a disk that it shares with others.
INTERNALS = ("memory", "loopDelayMs", "indexed", "volumeFree", "volumeSize")


@register.simple_tag
def contact() -> str:
    """The address that customers write to."""
    return settings.CONTACT_EMAIL


@register.simple_tag
def server_time() -> str:
    """For pages to count ages by our clock, whatever the visitor's own says."""
    return timezone.now().isoformat()


@register.filter
def qr(text: str) -> str:
    """A QR code as the address of an image."""
    return segno.make(text, error="m").svg_data_uri(scale=4, border=3, dark="#10202c", light="#ffffff")


@register.filter
def marked(text: str, sought: str) -> SafeString:
    """The text with what was sought in it marked. `mark` in logs.js does the same."""
    pieces = re.split(f"({re.escape(sought)})", text, flags=re.IGNORECASE) if sought else [text]
    hits = (format_html("<mark>{}</mark>", piece) if number % 2 else piece for number, piece in enumerate(pieces))
    return format_html_join("", "{}", ((hit,) for hit in hits))


@register.filter
def title(command: Command) -> str:
    entry = CATALOGUE.get(command.name)
    return entry.title if entry else command.name


@register.filter
def label(key: str) -> str:
    """A key of an answer as a word: lastUsed is Last used."""
    return re.sub(r"(?<=[a-z])([A-Z])|_", lambda found: f" {(found[1] or '').lower()}", str(key)).capitalize()


@register.filter
def for_people(answer: dict[str, Any]) -> list[str]:
    """The keys of an answer that say something to an owner. API and terminal give all."""
    return [key for key, value in answer.items() if value is not None and key not in INTERNALS]


@register.filter
def shape(value: Any) -> str:
    """How an answer is best shown: as pairs, a list of pairs, a list or a text."""
    if isinstance(value, dict):
        return "pairs"
    if isinstance(value, list):
        return "rows" if value and all(isinstance(row, dict) for row in value) else "list"
    return "text"


@register.filter
def cell(row: dict[str, Any], key: str) -> Any:
    """One value of an answer in plain words; pairs and lists stay as they are."""
    value = row.get(key)
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _number(key, value)
    return value


def _number(key: str, value: float) -> str:
    if key in TIMES:
        return f"{datetime.fromtimestamp(value / 1000, UTC):%-d %b %Y, %H:%M} UTC"
    if key in SIZES:
        return size(value)
    return str(timedelta(seconds=int(value))) if key == "uptime" else str(value)
