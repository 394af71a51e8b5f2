"""All that happened to a pub in one list, the newest first: status, crashes, moves, payment, commands and troubles."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import Q, QuerySet
from django.urls import reverse
from django.utils.dateparse import parse_datetime
from django.utils.formats import date_format

from pubs.catalogue import CATALOGUE
from pubs.models import Bot, Command, Event, PaymentChange, Rung, Status, StatusChange, Trouble
from pubs.shown import PAYMENT_WORDS

# On a page of it, and on the pub's own page.
PAGE = 50
NEWEST = 10


@dataclass(frozen=True)
class Line:
    """What happened: what became of it, from what, more about it in words, and who did it if it was a person."""

    at: datetime
    kind: str
    cursor: str  # what `read` takes to go on after it
    what: str
    tone: str  # a CSS class
    icon: str
    was: str = ""
    words: str = ""
    who: str = ""
    url: str = ""

    @property
    def day(self) -> date:
        return self.at.date()


STATUS_LOOKS = {Status.UP: ("good", "✓"), Status.DOWN: ("bad", "!"), Status.NONE: ("off", "–")}
PAYMENT_TONES = {Rung.PAID: "good", Rung.COMPED: "good", Rung.GRACE: "bad", Rung.SUSPENDED: "bad"}
EVENT_LOOKS = {
    Event.Kind.PLACED: ("busy", "•"),
    Event.Kind.MOVED: ("busy", "→"),
    Event.Kind.RESTARTED: ("busy", "↻"),
    Event.Kind.CRASHED: ("bad", "×"),
    Event.Kind.RESTS: ("bad", "×"),
    Event.Kind.RESUMED: ("busy", "↻"),
}
COMMAND_TONES = {
    Command.State.QUEUED: "busy",
    Command.State.RUNNING: "busy",
    Command.State.DONE: "good",
}
# The others are told by status and crashes.
TROUBLES = (Trouble.Kind.UNKNOWN, Trouble.Kind.MEMORY, Trouble.Kind.DISK)
CRASHES = (Event.Kind.CRASHED, Event.Kind.RESTS, Event.Kind.RESUMED)


def _status(change: StatusChange, bot: Bot) -> dict[str, str]:
    tone, icon = STATUS_LOOKS[Status(change.new)]
    was, became = change.get_old_display(), change.get_new_display()
    return {"what": became, "was": was, "words": change.reason, "tone": tone, "icon": icon}


def _payment(change: PaymentChange, bot: Bot) -> dict[str, str]:
    """Money given back and the like leave the rung as it is: then the words say it all."""
    looks = {"tone": PAYMENT_TONES.get(Rung(change.new), "off"), "icon": "¤", "who": _who(change.by_id, bot)}
    if change.old == change.new and change.words:
        return {**looks, "what": change.words, "tone": "off"}
    return {**looks, "what": PAYMENT_WORDS[Rung(change.new)], "words": change.words}


def _event(event: Event, bot: Bot) -> dict[str, str]:
    tone, icon = EVENT_LOOKS[Event.Kind(event.kind)]
    code = event.details.get("exit_code")
    words = event.words if code is None else f"{event.words} Exit code {code}."
    return {"what": event.get_kind_display(), "words": words, "tone": tone, "icon": icon}


def _command(command: Command, bot: Bot) -> dict[str, str]:
    """Its answer may hold an invite or the like: that is on its own page."""
    entry = CATALOGUE.get(command.name)
    return {
        "what": entry.title if entry else command.name,
        "words": f"{command.get_state_display()}: {command.error}" if command.error else command.get_state_display(),
        "tone": COMMAND_TONES.get(Command.State(command.state), "bad"),
        "icon": "›",
        "who": _who(command.by_id, bot),
        "url": reverse("pubs:command_result", args=[bot.pk, command.pk]),
    }


def _trouble(trouble: Trouble, bot: Bot) -> dict[str, str]:
    """One line for both its ends."""
    over = f"Over since {date_format(trouble.ended, 'j F Y, H:i')} UTC." if trouble.ended else "Not over yet."
    tone = "off" if trouble.ended else "bad"
    return {"what": trouble.get_kind_display(), "words": f"{trouble.words} {over}".strip(), "tone": tone, "icon": "!"}


def _who(by: int | None, bot: Bot) -> str:
    return "" if by is None else "you" if by == bot.owner_id else "our staff"


class Source(NamedTuple):
    label: str
    rows: Callable[[Bot], QuerySet[Any]]
    line: Callable[[Any, Bot], dict[str, str]]
    at: str = "at"
    pk: Callable[[str], Any] = int


# By kind of line.
SOURCES = {
    "status": Source("Status", lambda bot: bot.status_changes.all(), _status),
    "crashes": Source("Crashes", lambda bot: bot.events.filter(kind__in=CRASHES), _event),
    "machine": Source("Machine and restarts", lambda bot: bot.events.exclude(kind__in=CRASHES), _event),
    "payment": Source("Payment", lambda bot: bot.payment_changes.all(), _payment),
    "commands": Source("Commands", lambda bot: bot.commands.defer("result", "args"), _command, at="created", pk=UUID),
    "troubles": Source("Troubles", lambda bot: bot.troubles.filter(kind__in=TROUBLES), _trouble, at="began"),
}
KINDS = {kind: source.label for kind, source in SOURCES.items()}


class Place(NamedTuple):
    """Where a line stands, greater for newer ones. Of lines of one moment the sources and then the ids decide."""

    at: datetime
    rank: int  # of its source
    pk: Any

    @property
    def cursor(self) -> str:
        return f"{self.at.isoformat()}_{self.rank}_{self.pk}"

    @classmethod
    def of(cls, cursor: str) -> "Place":
        """ValueError if it is none. A moment alone is older than all lines of that moment."""
        at, _, rest = cursor.partition("_")
        rank, _, pk = rest.partition("_")
        moment, sources = parse_datetime(at), list(SOURCES.values())
        # Near its ends the calendar has no room for other zones.
        if moment is None or moment.tzinfo is None or not 1000 <= moment.year < 9999:
            raise ValueError("This is no place in the timeline, nor a time with its zone.")
        if not rest:
            return cls(moment, -1, None)
        if not rank.isdecimal() or int(rank) >= len(sources):
            raise ValueError("This is no place in the timeline.")
        return cls(moment, int(rank), sources[int(rank)].pk(pk))

    def older(self, rank: int, at: str) -> Q:
        """Of the source with this rank and column of time, those that stand behind it."""
        if rank < self.rank:
            return Q(**{f"{at}__lte": self.at})
        same = Q(**{at: self.at, "pk__lt": self.pk}) if rank == self.rank else Q(pk__in=[])
        return Q(**{f"{at}__lt": self.at}) | same


def read(bot: Bot, before: str | None = None, limit: int = PAGE, kind: str = "") -> list[Line]:
    """The newest lines, of this kind or of all. `before` is a line's cursor, or a moment: then those behind it.
    ValueError if it is neither.
    """
    place = Place.of(before) if before else None
    found: list[tuple[Place, Line]] = []
    for rank, (name, source) in enumerate(SOURCES.items()):
        if kind in ("", name):
            rows = source.rows(bot).order_by(f"-{source.at}", "-pk")
            for row in (rows.filter(place.older(rank, source.at)) if place else rows)[:limit]:
                here = Place(getattr(row, source.at), rank, row.pk)
                found.append((here, Line(at=here.at, kind=name, cursor=here.cursor, **source.line(row, bot))))
    found.sort(key=lambda each: each[0], reverse=True)
    return [line for _, line in found[:limit]]


def newest(bot: Bot) -> list[Line]:
    """For the pub's own page."""
    return read(bot, limit=NEWEST)
