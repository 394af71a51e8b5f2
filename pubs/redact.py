"""Lines that a pub wrote, fit to be read by people: in plain words, of bearable length, and without secrets.

A secret is known by its shape or by its name. What is public stays: the ids of feeds, messages and blobs, and the
addresses in which they stand.
"""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from pubs.live import LogLine

HIDDEN = "[hidden]"
LINE_MAX = 2000  # characters
# Of what is longer only so much is looked at. Where the cut falls there may be half a secret.
READ_MAX = 16_000

# What the pub's own events of failure are called.
FAILURE = re.compile(r"(?:fatal|[a-z-]+-failed|stop-forced)\b")

# Colours and the like, with which a terminal is told what to do. Only such as end in a letter with which no name of a
# secret begins: what only looks like one must not take that name apart.
ESCAPES = re.compile(r"\x1b(?:\[[0-9;]*[mKJHGhl]|\][^\x07\x1b]*\x07)")

KEY = r"[A-Za-z0-9+/]{43}="  # 32 bytes
NAMES = "private(?:key)?|secret|seed|pass(?:word|wd|phrase)|token|authori[sz]ation|api[-_]?key|access[-_]?key|cookie"
SECRETS: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    # An invite's seed: whoever has it may join. What stands before is the pub's address.
    (re.compile(rf"(\.ed25519~|~shs:{KEY}:)[^\s\"'\\]+"), rf"\1{HIDDEN}"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|$)"), HIDDEN),
    (re.compile(r"(?<=://)[^\s/@]{1,500}@"), f"{HIDDEN}@"),  # user and password in an address
    (re.compile(r"(bearer|basic)\s+[^\s\"',;]{6,}", re.I), rf"\1 {HIDDEN}"),
    # By name, with a value in quotes, in quotes within quotes, or up to the next space.
    (
        re.compile(
            rf"((?:{NAMES})\w{{0,20}}(?:\\*[\"'])?\s*[:=]\s*)"
            r"(?:(?P<quote>\\*[\"']).*?(?:(?<!\\)(?P=quote)|$)|[^\s,;\"']+)",
            re.I,
        ),
        rf"\1{HIDDEN}",
    ),
    # Whatever is nearly as long as a key of 32 bytes, but for ids: their first letter or address says what they are.
    (
        re.compile(
            rf"(?P<id>@{KEY}\.ed25519|[%&]{KEY}\.sha256|shs:{KEY}"
            r"|ssb:(?://)?(?:feed|message|blob)/[a-z0-9-]{1,30}/[\w-]{43}=)(?![\w+/=-])"
            r"|[A-Za-z0-9+/]{40,}={0,2}|[\w-]{40,}={0,2}"
        ),
        lambda found: found["id"] or HIDDEN,
    ),
    (re.compile(r"eyJ[\w-]*\.[\w-]+(?:\.[\w-]*)?"), HIDDEN),  # a JSON web token
    (re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+"), "[e-mail]"),
]


def as_text(lines: Iterable[LogLine]) -> str:
    """For files and mails, each with its time in UTC."""
    return "".join(f"{each['at'][:23].replace('T', ' ')}  {each['text']}\n" for each in lines)


def tells_of_failure(text: str) -> bool:
    """Whether it is an error, though it was not written as one: our pub writes all in one place."""
    return FAILURE.match(text) is not None


def line(text: str) -> str:
    """The line as people may read it."""
    if len(text) > READ_MAX:
        text = text[: text.rfind(" ", READ_MAX - LINE_MAX, READ_MAX) + 1 or READ_MAX - LINE_MAX]
    text = _plain(_readable(_plain(text)))
    for secret, instead in SECRETS:
        text = secret.sub(instead, text)
    if len(text) > LINE_MAX:
        return f"{text[:LINE_MAX]} … and {len(text) - LINE_MAX} characters more"
    return text


def _plain(text: str) -> str:
    """Without what is not seen: a secret must not hide behind it, nor a reader's browser or terminal obey it."""
    if text.isprintable():
        return text
    text = ESCAPES.sub("", text)
    return "".join(each if each.isprintable() else " " if each.isspace() else "" for each in text)


def _readable(text: str) -> str:
    """A pub writes JSON: the event first, then the rest. When it was, the engine says of each line."""
    try:
        said = json.loads(text) if text.startswith("{") else None
    except (ValueError, RecursionError):
        return text
    if not isinstance(said, dict) or not isinstance(said.get("event"), str):
        return text
    rest = [f"{name}={_value(value)}" for name, value in said.items() if name not in ("t", "event", "message")]
    words = [f"{said['event']}:", str(said["message"])] if said.get("message") else [said["event"]]
    return " ".join([*words, *rest])


def _value(value: Any) -> str:
    if isinstance(value, str) and not re.search(r"[\s\"',;]", value):
        return value
    return json.dumps(value, ensure_ascii=False)
