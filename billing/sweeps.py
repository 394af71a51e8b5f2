"""Comparing ourselves with Stripe, in case its webhooks or our jobs were lost: with what happened there lately, all the
time, and with all that it charges for, each night.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import takewhile
from uuid import UUID

from django.core.cache import cache
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone
from djstripe.models import Event

from billing import alarms, gateway, money_back, paid
from billing.gateway import CUSTOMER_EVENTS, OWES, Happening, Missing, Reading, Unreachable
from billing.ladder import ALIVE, MEANINGS
from billing.models import Sweep
from pubs.models import Bot

log = logging.getLogger("billing")

LIMIT = 9 * 60  # seconds that a run may take, less than from one `compare_at_night` to the next
LOOKS_A_RUN = 100
# Once so many looks in a row failed, it is Stripe that is away, not one object of its that it can't show.
IN_A_ROW = 3
# Stripe tells moments in whole seconds, and its clock is not ours.
CLOCKS_DIFFER = timedelta(seconds=5)
# So long one event may come to light after another that is younger. Then, too, its webhook should have come.
OVERLAP = timedelta(seconds=60)
# Stripe forgets events after 30 days.
FORGOTTEN = timedelta(days=29)
# Events that were not read for so long wait for a person.
LATE = timedelta(hours=1)
KEPT = timedelta(days=90)
WORDS_KEPT = 100


def look_at(bots: list[UUID]) -> None:
    """Look at each. One that can't be read hides no other: it rests, and staff are told.

    With Stripe out of reach, all that are left wait for the next run, and nobody is suspended meanwhile. Those for
    which it had no answer come last in that run, so that they hold up nobody.
    """
    unanswered: list[UUID] = []
    in_a_row = 0
    for number, bot_id in enumerate(bots):
        try:
            paid.look(bot_id)
            in_a_row = 0
        except Unreachable:
            unanswered.append(bot_id)
            in_a_row += 1
            if in_a_row == IN_A_ROW:
                paid.look_soon(bots[number + 1 :])
                break
        except Exception as error:
            in_a_row = 0
            log.exception("The payment of bot %s could not be looked at", bot_id)
            paid.look_later(bot_id)
            words = f"How it is paid could not be looked at: {type(error).__name__}: {error}"
            alarms.about_bot(Bot.objects.get(pk=bot_id), f"unread:{bot_id}:{timezone.now():%Y-%m-%d}", words)
    paid.look_soon(unanswered)


@contextmanager
def alone(run: Sweep.Kind) -> Iterator[bool]:
    """Whether no other run of this kind is on its way. One that is killed keeps others off as long as it might run."""
    key = f"billing.sweep.{run}"
    free = cache.add(key, 1, LIMIT)
    try:
        yield free
    finally:
        if free:
            cache.delete(key)


# --- What happened lately --------------------------------------------------------------------------------------------
def read_events() -> None:
    """Look again at whatever Stripe's newest events tell of, unless it was read after them.

    How far they were read is kept a page at a time, and moves on only after what they tell of was looked at. Where they
    can't be followed, all is compared. Staff are told if they can't be read for long.
    """
    with alone(Sweep.Kind.EVENTS) as free:
        if not free:
            return
        now = timezone.now()
        run = _run_of_events(now)
        try:
            _follow(run, now)
        finally:
            _tell_if_late(run, now)


def _follow(run: Sweep, now: datetime) -> None:
    if not run.cursor or run.read_until is None or now - run.read_until > FORGOTTEN:
        return _begin(run, now)
    looked = 0
    try:
        for page in gateway.events_after(run.cursor):
            looked += _read(run, page, now)
            run.save()
            if looked >= LOOKS_A_RUN:
                return None
    except Missing:
        log.warning("Stripe knows no event %s any more", run.cursor)
        return _begin(run, now)
    run.read_until, run.finished = now, timezone.now()
    run.save()


def _tell_if_late(run: Sweep, now: datetime) -> None:
    if run.read_until and now - run.read_until > LATE:
        words = f"They were last read to their end at {run.read_until:%H:%M} UTC on {run.read_until:%Y-%m-%d}."
        page = reverse("admin:billing_sweep_changelist")
        alarms.tell(f"late:{now:%Y-%m-%d}", "Stripe's list of events", words, page)


def _run_of_events(now: datetime) -> Sweep:
    last = Sweep.objects.filter(kind=Sweep.Kind.EVENTS).first()
    if last and not last.differences:
        return last
    run = Sweep(kind=Sweep.Kind.EVENTS, started=now)
    if last:
        run.cursor, run.read_until = last.cursor, last.read_until
    return run


def _begin(run: Sweep, now: datetime) -> None:
    newest = gateway.newest_event()
    if newest and not compare_all():
        return
    run.cursor, run.read_until, run.finished = newest, now, timezone.now()
    run.save()


def _read(run: Sweep, page: list[Happening], now: datetime) -> int:
    """Look at what a page of events tells of, oldest first. How many bots that were."""
    stale = _read_before(page)
    look_at(stale)
    for each in page:
        _hear(each)
    settled = list(takewhile(lambda each: not now - OVERLAP < each.at < now + OVERLAP, page))
    if settled:
        run.cursor = settled[-1].id
        run.looked += len(settled)
        _note_lost(run, settled)
    return len(stale)


def _hear(told: Happening) -> None:
    """One that can't be read must not hold up all that come after it, nor for long one that Stripe can't show."""
    try:
        money_back.hear(told.type, told.subject)
        if told.renewal:
            paid.note_renewal(told.renewal)
    except Exception as error:
        if isinstance(error, Unreachable) and timezone.now() - told.at < LATE:
            raise
        log.exception("What event %s tells of could not be read", told.id)
        words = f"{told.subject}, of which {told.type} tells, could not be read. Look at it in Stripe's dashboard."
        alarms.tell(f"unheard:{told.id}", "refunds and disputes", words, reverse("admin:billing_sweep_changelist"))


def _read_before(page: list[Happening]) -> list[UUID]:
    """The bots that were not read since these events."""
    told = {each.bot_id: each.at for each in page if each.bot_id}
    users = {each.user_id: each.at for each in page if each.user_id}
    meant = Q(pk__in=told)
    for kind in CUSTOMER_EVENTS:
        meant |= paid.touched(kind, {each.user_id for each in page if each.user_id and each.type == kind})
    found = Bot.objects.filter(meant).values_list("pk", "owner_id", "paid_seen_at")
    return [
        bot_id
        for bot_id, owner_id, seen_at in found
        if seen_at is None or seen_at < max(filter(None, (told.get(bot_id), users.get(owner_id)))) + CLOCKS_DIFFER
    ]


def _note_lost(run: Sweep, settled: list[Happening]) -> None:
    """Note the events that no webhook brought us, or that we did not take in."""
    heard = set(Event.objects.filter(id__in=[each.id for each in settled]).values_list("id", flat=True))
    lost = [f"{each.id}, {each.type}" for each in settled if each.id not in heard]
    if lost:
        _note(run, lost)
        run.save()
        words = (
            f"{len(lost)} of them did not reach us, such as {lost[0]}. What they told of was looked at all the same."
        )
        alarms.tell(f"webhooks:{run.started:%Y-%m-%d}", "Stripe's webhooks", words, _page(run))


# --- All that is charged for -----------------------------------------------------------------------------------------
def compare_all() -> Sweep | None:
    """Compare all live subscriptions with our rows, a page of them at a time, and have each that differs looked at.

    None where another run is on its way: a second one would only take Stripe's time.
    """
    with alone(Sweep.Kind.ALL) as free:
        return _compare_all(Sweep.objects.create(kind=Sweep.Kind.ALL, started=timezone.now())) if free else None


def _compare_all(run: Sweep) -> Sweep:
    seen: set[str] = set()
    try:
        for page, unread in gateway.live_subscriptions():
            _compare(run, page)
            _note_unread(run, unread)
            seen |= {each.subscription_id for each in page} | set(unread)
    except Unreachable:
        run.words = f"Stripe went out of reach after {run.looked} subscriptions.\n{run.words}"
        run.save()
        raise
    _compare_rest(run, seen)
    run.finished = timezone.now()
    run.save()
    _report(run)
    _clear_old()
    look_at(paid.take_due(LOOKS_A_RUN))
    return run


def _compare(run: Sweep, page: list[Reading]) -> None:
    rows = Bot.objects.in_bulk({each.bot_id for each in page})
    differs = [(each, words) for each in page if (words := difference(rows.get(each.bot_id), each))]
    run.looked += len(page)
    _heal(run, [each.bot_id for each, _ in differs], [words for _, words in differs])
    # Another card differs in no column of ours.
    paid.look_soon(each.bot_id for each in page if each.status in OWES)


def _note_unread(run: Sweep, unread: list[str]) -> None:
    """One that can't be read hides no other, and is told each night."""
    run.looked += len(unread)
    if unread:
        _note(run, [f"{each} could not be read: the log says why." for each in unread])


def difference(bot: Bot | None, reading: Reading) -> str:
    """What a row has otherwise than Stripe, in words for staff; nothing if it is the same, or was read later."""
    if bot is None:
        return f"{reading.subscription_id} is charged for a pub that we do not have: {reading.bot_id}."
    if bot.paid_seen_at and bot.paid_seen_at > reading.seen_at:
        return ""
    about = f"{bot.name} ({bot.pk})"
    if bot.subscription_id != reading.subscription_id:
        if bot.subscription_id and _is_begun(reading):
            # Its owner may be paying just now, or have given it up: what has not started counts beside no other.
            return ""
        held = bot.subscription_id or "none"
        return f"{about}: Stripe has {reading.subscription_id}, {reading.status}; we hold {held}."
    pairs = {
        "status": (bot.paid_status, reading.status),
        "until": (bot.paid_until, reading.until),
        "cancelled": (bot.paid_ends, reading.ends),
        "price": (bot.price_id, reading.price_id),
        "memory": (bot.memory_gb, reading.memory_gb or bot.memory_gb),
    }
    said = [f"{name} is {theirs}, not {ours}" for name, (ours, theirs) in pairs.items() if ours != theirs]
    if said:
        return f"{about}: at Stripe {', '.join(said)}."
    return f"{about}: {reading.subscription_id} lives, though nothing may be charged." if paid.must_end(bot) else ""


def _is_begun(reading: Reading) -> bool:
    return reading.status in MEANINGS and not MEANINGS[reading.status].started


def _compare_rest(run: Sweep, seen: set[str]) -> None:
    """Rows with a live subscription that Stripe did not list."""
    alive = Bot.objects.filter(paid_status__in=ALIVE).exclude(paid_seen_at__gt=run.started)
    rows = alive.values_list("pk", "name", "subscription_id").iterator(chunk_size=2000)
    gone = [row for row in rows if row[2] not in seen]
    words = [f"{name} ({bot_id}): Stripe lists no {held} any more." for bot_id, name, held in gone]
    _heal(run, [bot_id for bot_id, _, _ in gone], words)


def _heal(run: Sweep, bots: Iterable[UUID], words: list[str]) -> None:
    if words:
        _note(run, words)
        paid.look_soon(bots)


def _report(run: Sweep) -> None:
    if run.differences:
        words = f"{run.differences} of {run.looked} were not as we held them. They are looked at again now."
        alarms.tell(f"sweep:{run.pk}", "the subscriptions at Stripe", words, _page(run))


def _note(run: Sweep, words: list[str]) -> None:
    """Count the differences, and keep the words of the first ones."""
    room = max(0, WORDS_KEPT - run.differences)
    run.differences += len(words)
    run.words = "\n".join(filter(None, [run.words, *words[:room]]))


def _page(run: Sweep) -> str:
    return reverse("admin:billing_sweep_change", args=[run.pk])


def _clear_old() -> None:
    old = timezone.now() - KEPT
    Sweep.objects.filter(Q(finished__lt=old) | Q(finished=None, started__lt=old)).delete()
