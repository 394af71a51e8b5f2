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

from dataclasses import dataclass, replace
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
    words: str  # what its owner reads; words.py adds what follows from it, with the dates
    runs: bool = False  # for as long as Stripe says so
    grace: bool = False  # runs for the time of grace
    owes: bool = False  # an invoice is open
    ended: bool = False  # nothing can come after it; all others are alive, and one bot has one
    started: bool = True  # something was bought with it, so that there is something to keep


# Stripe's words for a subscription, all of them: https://docs.stripe.com/api/subscriptions/object
MEANINGS = {
    "trialing": Meaning("runs", "In its trial, nothing is charged.", runs=True),
    "active": Meaning("runs", "Paid.", runs=True),
    "past_due": Meaning("runs for the time of grace, then stops", "The last payment failed.", grace=True, owes=True),
    "unpaid": Meaning("stops, unless staff extend its grace", "The last payment failed at each try.", owes=True),
    "paused": Meaning("stops", "The subscription is paused: write to us, and we look into it."),
    "canceled": Meaning("stops; staff can extend its grace if it owed", "The subscription has ended.", ended=True),
    "incomplete": Meaning("waits", "The first payment is not finished.", started=False),
    "incomplete_expired": Meaning("waits", "The first payment was not finished in time.", ended=True, started=False),
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
    # Stripe takes its time with a renewal, and its word for it can be lost: how often it is looked for.
    renewal: timedelta = timedelta(hours=3)
    # How soon a subscription that should have ended is looked at again.
    insist: timedelta = timedelta(minutes=10)


@dataclass(frozen=True)
class Facts:
    """What is known of a bot's payment; nothing here changes by time alone. A subscription always has its `until`."""

    status: str = ""  # Stripe's word for the subscription that counts; nothing if there never was one
    until: datetime | None = None  # the end of the period, or when the subscription ended or will
    ends: bool = False  # cancelled: nothing is charged after `until`
    unpaid_since: datetime | None = None  # since when an invoice is open, or was when the subscription ended
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
    """When it stops or stopped, and from when on the time of keeping counts: never before that."""

    stops: datetime
    kept_from: datetime


type _Steps = list[tuple[datetime, Step, datetime]]


def stand(facts: Facts, now: datetime, terms: Terms) -> Standing:
    """On which rung a bot stands at a moment, and what follows from it. KeyError for a word that Stripe never said."""
    end = _end(facts, terms)
    if end is None:
        standing = _new(facts, now, terms)
    elif now < end.stops:
        standing = _running(facts, end.stops, now, terms)
    else:
        standing = _stopped(facts, end, now, terms)
    return replace(standing, due_at=now + terms.insist) if must_end(facts, standing.rung) else standing


def must_end(facts: Facts, rung: Rung) -> bool:
    """Whether its subscription lives although nothing may be charged for it any more.

    One whose first payment is on its way is how a pub that is over comes back.
    """
    if facts.status not in ALIVE:
        return False
    return bool(facts.deleted_at) or (rung == Rung.OVER and MEANINGS[facts.status].started)


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
    if meaning.runs:
        end = facts.until if facts.ends and facts.until else FOR_EVER
        return _End(end, end)
    since = facts.unpaid_since or facts.until
    if since is None:
        return None
    if not (meaning.owes or facts.unpaid_since):
        return _End(ALWAYS, since)
    promised = max(since + terms.grace, facts.grace_until or ALWAYS)
    if meaning.grace:
        return _End(min(facts.until, promised) if facts.ends and facts.until else promised, promised)
    # Stripe has given up, maybe before the time of grace was over, and the pub stops. It is kept no shorter for that,
    # and staff's word holds.
    return _End(facts.grace_until or ALWAYS, promised)


def _new(facts: Facts, now: datetime, terms: Terms) -> Standing:
    asked = None if facts.deleted_at else facts.asked_at
    steps: _Steps = [(asked + terms.remind_after, Step.PAY_REMINDER, asked)] if asked else []
    return _on(Rung.NEW, now, steps)


def _running(facts: Facts, stops: datetime, now: datetime, terms: Terms) -> Standing:
    if stops == FOR_EVER:
        return Standing(Rung.PAID, runs=True, due_at=_renewal_looked_for(facts.until or ALWAYS, now, terms))
    paid = _end_of_subscription(facts, terms)
    steps: _Steps
    if paid is None or paid.stops <= now:
        rung, steps = Rung.COMPED, [(ALWAYS, Step.COMPED, stops), (stops - terms.comp_ends, Step.COMP_ENDS, stops)]
    elif MEANINGS[facts.status].runs:
        rung, steps = Rung.ENDING, [(ALWAYS, Step.CANCELLED, stops)]
    else:
        rung = Rung.GRACE
        steps = [(ALWAYS, Step.PAYMENT_FAILED, stops), (stops - terms.stops_soon, Step.STOPS_SOON, stops)]
    # A rung can end before the pub stops: it may be comped for longer than a grace.
    ends = min(paid.stops, stops) if paid and paid.stops > now else stops
    return _on(rung, now, steps, ends, runs_until=stops)


def _renewal_looked_for(until: datetime, now: datetime, terms: Terms) -> datetime:
    """The next look after the end of the period, and again until Stripe's word of the renewal is there."""
    looks = max(1, (now - until) // terms.renewal + 1)
    return until + looks * terms.renewal


def _stopped(facts: Facts, end: _End, now: datetime, terms: Terms) -> Standing:
    goes = end.kept_from + terms.kept
    if facts.deleted_at:
        # There is nothing to tell of what was no longer kept when it was thrown away.
        steps: _Steps = [(facts.deleted_at, Step.DELETED, goes)] if facts.deleted_at < goes else []
        return _on(Rung.KEPT if now < goes else Rung.OVER, now, steps, goes, kept_until=goes)
    waits = _waits_for_payment(facts, now)
    warnings = [(terms.goes_soon, Step.GOES_SOON), (terms.goes_now, Step.GOES_NOW)]
    steps = [
        (ALWAYS, Step.SUSPENDED if waits else Step.ENDED, goes),
        *((goes - before, step, goes) for before, step in warnings if before < terms.kept),
        (goes, Step.OVER, goes),
    ]
    if now >= goes:
        return _on(Rung.OVER, now, steps, kept_until=goes)
    # What waits and is cancelled too is only kept from the end of its period on.
    ends = facts.until if waits and facts.ends else None
    return _on(Rung.SUSPENDED if waits else Rung.KEPT, now, steps, ends, kept_until=goes)


def _waits_for_payment(facts: Facts, now: datetime) -> bool:
    """Whether its subscription lives and goes on once it is paid, so that no other one is needed."""
    has_ended = facts.ends and facts.until is not None and facts.until <= now
    return facts.status in ALIVE and MEANINGS[facts.status].started and not has_ended


def _on(
    rung: Rung,
    now: datetime,
    steps: _Steps,
    ends: datetime | None = None,
    runs_until: datetime | None = None,
    kept_until: datetime | None = None,
) -> Standing:
    """A standing with the newest of the steps that is due, and with the next moment that changes something.

    Steps come in the order of their moments; `ends` is when the rung itself is over, where no step says so.
    """
    due = [(step, about) for at, step, about in steps if at <= now]
    step, about = due[-1] if due else (None, None)
    moments = [at for at, _, _ in steps] + ([ends] if ends else [])
    due_at = min((at for at in moments if at > now), default=None)
    return Standing(rung, runs_until is not None, runs_until, kept_until, step, about, due_at)
