"""The ladder: what a bot's payment means for its pub, at any moment. Pure: no Django, no Stripe, no clock.

`stand` takes the facts as they are known and says on which rung the bot stands, until when, and what its owner must be
told by now. Whoever calls it again with the same facts gets the same answer, so that nothing depends on how often or in
which order Stripe's events come, nor on whether a job ran when it should have.

    new ─ pays ─► paid ─ cancels ─► ending ─ the period ends ─► kept ─ 60 days ─► over
                   │ ▲                                            ▲
       a card fails│ │paid again                                  │ Stripe or staff end it
                   ▼ │                                            │
                 grace ─ 14 days, or Stripe gives up ─► suspended ┴─ 60 days ─► over
    comped by staff: runs without a payment until a date, then kept
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

ALWAYS = datetime.min.replace(tzinfo=UTC)
FOR_EVER = datetime.max.replace(tzinfo=UTC)


class Rung(StrEnum):
    NEW = "new"  # never paid
    PAID = "paid"
    ENDING = "ending"  # cancelled: runs to the end of its period
    COMPED = "comped"  # staff let it run without a payment
    GRACE = "grace"  # a payment failed: it runs on while Stripe tries again
    SUSPENDED = "suspended"  # stopped for want of a payment; its subscription lives
    KEPT = "kept"  # nothing is paid any more; all of it is kept
    OVER = "over"  # the time of keeping is over


class Step(StrEnum):
    """What the owner must be told, once for each date."""

    PAY_REMINDER = "pay_reminder"  # opened the payment page and left it
    CANCELLED = "cancelled"
    COMPED = "comped"
    COMP_ENDS = "comp_ends"
    PAYMENT_FAILED = "payment_failed"
    STOPS_SOON = "stops_soon"
    SUSPENDED = "suspended"
    ENDED = "ended"
    GOES_SOON = "goes_soon"  # the first of two before its data may go
    GOES_NOW = "goes_now"  # the second
    OVER = "over"
    DELETED = "deleted"  # by its owner


@dataclass(frozen=True)
class Meaning:
    """What one of Stripe's words for a subscription means for the pub, and what its owner reads."""

    pub: str  # what the pub does
    words: str  # what its owner reads; dates are added where there are any
    runs: bool = False  # for as long as Stripe says so
    grace: bool = False  # runs for the time of grace
    ended: bool = False  # nothing can come after it; all others are alive, and one bot has one
    started: bool = True  # something was bought with it, so that there is something to keep


# Stripe's words for a subscription, all of them: https://docs.stripe.com/api/subscriptions/object
MEANINGS = {
    "trialing": Meaning("runs", "In its trial.", runs=True),
    "active": Meaning("runs", "Paid.", runs=True),
    "past_due": Meaning("runs for the time of grace, then stops", "The last payment failed.", grace=True),
    "unpaid": Meaning("stops, unless staff extend its grace", "The payments failed."),
    "paused": Meaning("stops", "Its subscription is paused."),
    "canceled": Meaning("stops", "Its subscription has ended.", ended=True),
    "incomplete": Meaning("waits", "The first payment is not finished.", started=False),
    "incomplete_expired": Meaning("waits", "The first payment was never finished.", ended=True, started=False),
}
ALIVE = [status for status, meaning in MEANINGS.items() if not meaning.ended]


@dataclass(frozen=True)
class Terms:
    """The promises that settings make."""

    grace: timedelta = timedelta(days=14)
    kept: timedelta = timedelta(days=60)
    remind_after: timedelta = timedelta(hours=24)
    # How long before its end each warning is due.
    stops_soon: timedelta = timedelta(days=3)
    comp_ends: timedelta = timedelta(days=7)
    goes_soon: timedelta = timedelta(days=14)
    goes_now: timedelta = timedelta(days=3)
    # Stripe takes its time with a renewal, and its word for it can be lost.
    renewal: timedelta = timedelta(hours=3)


@dataclass(frozen=True)
class Facts:
    """What is known of a bot's payment; nothing here changes by time alone."""

    status: str = ""  # Stripe's word for the subscription that counts; nothing if there never was one
    until: datetime | None = None  # the end of the period, or when the subscription ended or will
    ends: bool = False  # cancelled: nothing is charged after `until`
    unpaid_since: datetime | None = None  # since when an invoice is open
    grace_until: datetime | None = None  # staff's word
    comped_until: datetime | None = None  # staff's word
    asked_at: datetime | None = None  # when its owner last opened the payment page
    deleted_at: datetime | None = None


@dataclass(frozen=True)
class Standing:
    rung: Rung
    runs: bool
    # It stops then unless something happens; None if nothing is known to stop it, or if it does not run.
    runs_until: datetime | None = None
    # Its data is kept at least until then; None while it runs.
    kept_until: datetime | None = None
    # The newest thing that its owner must be told, if any, and the date that it is about.
    step: Step | None = None
    step_about: datetime | None = None
    # When to look again, though nothing happens: never in the past.
    due_at: datetime | None = None


@dataclass(frozen=True)
class _End:
    """When it stops or stopped, and from when on the time of keeping counts."""

    stops: datetime
    kept_from: datetime


type _Told = tuple[Step | None, datetime | None, datetime | None]


def stand(facts: Facts, now: datetime, terms: Terms) -> Standing:
    """On which rung a bot stands at a moment, and what follows from it. KeyError for a word that Stripe never said."""
    end = _end(facts, terms)
    if end is None:
        return _new(facts, now, terms)
    if now < end.stops:
        return _running(facts, end.stops, now, terms)
    return _stopped(facts, end, now, terms)


def _end(facts: Facts, terms: Terms) -> _End | None:
    """The last moment that anything lets it run, be it FOR_EVER; None if nothing ever did."""
    ends = [end for end in (_end_of_subscription(facts, terms), _end_of_comp(facts)) if end]
    if not ends:
        return None
    stops, kept_from = max(end.stops for end in ends), max(end.kept_from for end in ends)
    if facts.deleted_at:
        # What its owner threw away while it ran is kept from then on; what had ended before, from its end.
        return _End(min(stops, facts.deleted_at), min(kept_from, facts.deleted_at))
    return _End(stops, kept_from)


def _end_of_comp(facts: Facts) -> _End | None:
    return _End(facts.comped_until, facts.comped_until) if facts.comped_until else None


def _end_of_subscription(facts: Facts, terms: Terms) -> _End | None:
    meaning = MEANINGS[facts.status] if facts.status else None
    if meaning is None or not meaning.started:
        return None
    until = facts.until or ALWAYS
    if meaning.runs:
        end = until if facts.ends else FOR_EVER
        return _End(end, end)
    promised = _grace_end(facts, terms)
    if meaning.grace:
        end = min(until, promised) if facts.ends else promised
        return _End(end, end)
    if facts.status == "unpaid":
        # Stripe has given up before the grace was over, and the pub stops. It is kept no shorter for that.
        return _End(facts.grace_until or ALWAYS, promised)
    # Ended or paused. One that was ended for want of a payment may have been out of grace before.
    end = min(until, promised) if facts.unpaid_since else until
    return _End(end, end)


def _grace_end(facts: Facts, terms: Terms) -> datetime:
    promised = (facts.unpaid_since or facts.until or ALWAYS) + terms.grace
    return max(promised, facts.grace_until or ALWAYS)


def _new(facts: Facts, now: datetime, terms: Terms) -> Standing:
    reminder = facts.asked_at + terms.remind_after if facts.asked_at and not facts.deleted_at else FOR_EVER
    step, about, due_at = _steps(now, (reminder, Step.PAY_REMINDER, facts.asked_at))
    return Standing(Rung.NEW, runs=False, step=step, step_about=about, due_at=due_at)


def _running(facts: Facts, stops: datetime, now: datetime, terms: Terms) -> Standing:
    if stops == FOR_EVER:
        renewed = (facts.until or ALWAYS) + terms.renewal
        return Standing(Rung.PAID, runs=True, due_at=renewed if renewed > now else None)
    paid = _end_of_subscription(facts, terms)
    if paid is None or paid.stops <= now:
        rung, steps = Rung.COMPED, [(ALWAYS, Step.COMPED, stops), (stops - terms.comp_ends, Step.COMP_ENDS, stops)]
    elif MEANINGS[facts.status].runs:
        rung, steps = Rung.ENDING, [(ALWAYS, Step.CANCELLED, stops)]
    else:
        rung, steps = (
            Rung.GRACE,
            [(ALWAYS, Step.PAYMENT_FAILED, stops), (stops - terms.stops_soon, Step.STOPS_SOON, stops)],
        )
    # A rung can end before the pub stops: a comp may begin where a grace ends.
    over = paid.stops if paid and paid.stops > now else stops
    step, about, due_at = _steps(now, *steps)
    return Standing(rung, True, stops, None, step, about, min(due_at or over, over))


def _stopped(facts: Facts, end: _End, now: datetime, terms: Terms) -> Standing:
    goes = end.kept_from + terms.kept
    waits = not facts.deleted_at and not facts.ends and facts.status in ALIVE and MEANINGS[facts.status].started
    if facts.deleted_at:
        steps = [(ALWAYS, Step.DELETED, goes)]
    else:
        steps = [
            (ALWAYS, Step.SUSPENDED if waits else Step.ENDED, goes),
            (goes - terms.goes_soon, Step.GOES_SOON, goes),
            (goes - terms.goes_now, Step.GOES_NOW, goes),
            (goes, Step.OVER, goes),
        ]
    step, about, due_at = _steps(now, *steps)
    if now >= goes:
        return Standing(Rung.OVER, False, None, goes, step, about)
    return Standing(Rung.SUSPENDED if waits else Rung.KEPT, False, None, goes, step, about, due_at or goes)


def _steps(now: datetime, *steps: tuple[datetime, Step, datetime | None]) -> _Told:
    """Of steps in the order of their moments: the newest that is due, what date it is about, and the next moment."""
    due = [(step, about) for at, step, about in steps if at <= now]
    step, about = due[-1] if due else (None, None)
    return step, about, min((at for at, _, _ in steps if now < at < FOR_EVER), default=None)
