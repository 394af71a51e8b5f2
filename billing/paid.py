"""Whether a pub may run, said by its subscription, by staff and by the clock: the only place that writes what billing
owns of a bot. What it all means is in ladder.py.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from accounts.models import User
from billing import alarms, gateway, ladder, letters
from billing.gateway import OWES, PaymentTrouble, Reading, Refunded, Refused, Renewal, Unreachable
from billing.ladder import ALIVE, MEANINGS, Facts, Rung, Terms, stand
from billing.money import money
from billing.words import words as how_it_stands
from pubs import live
from pubs.models import Bot, PaymentChange

log = logging.getLogger("billing")

# How long a bot rests that could not be read, or whose subscription could not be ended.
REST = timedelta(minutes=10)
# Nobody reads these on a page, and they move no pub.
UNSHOWN = {"paid_seen_at", "due_at", "told_payment"}
SOLD_TWICE = "A second subscription was made for this pub. It is ended."
OUTLIVED = "An old subscription of this pub is ended: a newer one has taken its place."
AFTER_DELETION = "It was paid after the pub was deleted."
PAID_AT_ITS_END = "It was paid in the moment in which its subscription was ended. Give the money back, or comp the pub."

ALREADY_PAID = "This pub has a subscription already. Card, invoices and cancellation are behind “Payment and invoices”."


class NotNeeded(Exception):
    """The pub has its subscription: another one would charge its owner twice. The message is for people."""


def terms() -> Terms:
    return Terms(grace=timedelta(days=settings.GRACE_DAYS), kept=timedelta(days=settings.KEPT_DAYS))


# --- Paying --------------------------------------------------------------------------------------------------------
def may_check_out(bot: Bot) -> bool:
    """Whether a new subscription is the way to pay. For one that lives the portal is: there the card can be changed."""
    return bot.paid_status not in ALIVE or not MEANINGS[bot.paid_status].started


def pays_by(bot: Bot) -> Literal["checkout", "portal", ""]:
    """Which of Stripe's pages puts the payment right; none when nothing is owed.

    One that is comped may be paid for already, so that it runs on after it. One whose hub is lost can't run by it, and
    for a paused subscription Stripe's pages have nothing: that is for staff.
    """
    if bot.rung in (Rung.PAID, Rung.ENDING) or bot.lost_at or bot.paid_status == "paused":
        return ""
    return "checkout" if may_check_out(bot) else "portal"


def start_checkout(bot: Bot, offer: str) -> str:
    """The address of the page where the offer with this lookup key is paid.

    Raises NotNeeded or PaymentTrouble, whose words are for people.
    """
    # A payment in another tab may be seconds old, and its event on the way: Stripe knows, our row may not.
    look(bot.pk)
    bot.refresh_from_db()
    if not may_check_out(bot):
        raise NotNeeded(ALREADY_PAID)
    page = gateway.open_checkout(bot, offer)
    _change(bot.pk, asked_at=timezone.now())
    return page


# --- Looking -------------------------------------------------------------------------------------------------------
def record(reading: Reading) -> None:
    """Write down what was read of one subscription.

    One that is not the one we hold decides nothing by itself, nor one that has ended while we hold none: a newer one
    may be paid. Nor does one that must end, or that another card may pay. Then a job looks at all.
    """
    with transaction.atomic():
        bot = Bot.objects.select_for_update().filter(pk=reading.bot_id).first()
        if bot is None:
            return
        if bot.subscription_id != reading.subscription_id and (bot.subscription_id or reading.status not in ALIVE):
            live.look_at_payment(bot.pk)
            return
        _write(bot, reading)
        if must_end(bot) or reading.status in OWES:
            live.look_at_payment(bot.pk)


def must_end(bot: Bot) -> bool:
    """Whether its subscription lives although nothing may be charged for it any more."""
    return ladder.must_end(facts_of(bot), Rung(bot.rung))


def look(bot_id: UUID) -> bool:
    """Read all of a bot's subscriptions from Stripe, end those that must not be, and write down the one that counts.

    What that one owes is charged to a better card, if there is one. Without a subscription, the clock and staff's word
    alone say how it stands. The answer is whether anything was new.
    """
    bot = Bot.objects.select_related("owner").filter(pk=bot_id).first()
    if bot is None:
        return False
    if bot.deleted_at:
        gateway.close_checkouts(bot)
    asked_at = timezone.now()
    chosen, surplus = choose(gateway.subscriptions_of(bot))
    if chosen is None:
        return _record_none(bot_id, asked_at)
    for extra in surplus:
        _end_surplus(bot, extra, chosen)
    # Before anything is written: nobody is told of a pub that stops whose payment only waits for us.
    if _may_collect(bot, chosen) and gateway.collect(chosen.subscription_id):
        chosen = gateway.read_subscription(chosen.subscription_id) or chosen
    is_new = _record_chosen(bot_id, gateway.with_invoices(chosen))
    bot.refresh_from_db()
    if must_end(bot):
        _end_for_good(bot, chosen)
    return is_new or bool(surplus)


def choose(readings: list[Reading]) -> tuple[Reading | None, list[Reading]]:
    """The subscription that counts, and the live ones beside it.

    It is the oldest one that is paid, or else the oldest one that can still be; then the newest one that ended. One
    whose first payment is not finished counts only if there is no other, and is no surplus while nothing is paid.
    """
    ordered = sorted(readings, key=lambda each: (each.created, each.subscription_id))
    alive = [each for each in ordered if each.status in ALIVE and MEANINGS[each.status].started]
    alive.sort(key=lambda each: (not MEANINGS[each.status].runs, not MEANINGS[each.status].grace))
    begun = [each for each in ordered if each.status in ALIVE and not MEANINGS[each.status].started]
    if alive:
        return alive[0], alive[1:] + begun
    ended = [each for each in ordered if MEANINGS[each.status].started]
    rest = ended or begun or ordered
    return (rest[-1] if rest else None), []


def _may_collect(bot: Bot, chosen: Reading) -> bool:
    """Whether what is owed may be charged: not for a bot that is deleted or over."""
    is_over = ladder.must_end(replace(facts_of(bot), status=chosen.status), Rung(bot.rung))
    return chosen.status in OWES and not is_over


def _end_surplus(bot: Bot, extra: Reading, chosen: Reading) -> None:
    """End a subscription beside the one that counts, and give back what it charged if it was made after that one.

    The money goes first: whatever breaks off in between, the next look finds the subscription alive and goes on. An old
    one whose payments failed charged for time in which the pub ran: that stays paid. One that was begun and left, or is
    paused, is nobody's concern.
    """
    meaning = MEANINGS[extra.status]
    sold_twice = (extra.created, extra.subscription_id) > (chosen.created, chosen.subscription_id)
    went_back = ""
    if sold_twice:
        went_back = _give_back(bot, lambda: gateway.refund_newest(extra.subscription_id, "duplicate"))
    ids = f"It has two subscriptions: {extra.subscription_id} is cancelled, {chosen.subscription_id} stays."
    if meaning.runs or meaning.owes:
        with transaction.atomic():
            if remark(bot.pk, SOLD_TWICE if sold_twice else OUTLIVED, key=f"second:{extra.subscription_id}"):
                alarms.about_bot(bot, f"second:{extra.subscription_id}", f"{ids} {went_back}".strip())
    gateway.cancel(extra.subscription_id)


def _end_for_good(bot: Bot, chosen: Reading) -> None:
    """End the subscription of a bot that is deleted or over. What was charged after the deletion goes back first."""
    if bot.deleted_at:
        for each in gateway.paid_invoices(bot, since=bot.deleted_at):
            _give_back_late(bot, each.id)
    gateway.cancel(chosen.subscription_id)
    if after := gateway.read_subscription(chosen.subscription_id):
        _record_chosen(bot.pk, after)
    for each in gateway.paid_invoices(bot, since=chosen.seen_at):
        if each.left:
            alarms.about_bot(bot, f"late:{each.id}", PAID_AT_ITS_END)


def _give_back_late(bot: Bot, invoice_id: str) -> None:
    went_back = _give_back(bot, lambda: gateway.refund(invoice_id, "requested_by_customer", AFTER_DELETION))
    alarms.about_bot(bot, f"late:{invoice_id}", f"It was paid after it was deleted. {went_back}")


def _give_back(bot: Bot, give: Callable[[], Refunded | None]) -> str:
    """What became of it, for staff. A refusal must not keep a subscription alive, which would charge again."""
    try:
        back = give()
    except Unreachable:
        raise
    except Refused as refusal:
        return f"What it charged could not be given back: {refusal}"
    except PaymentTrouble:
        return "What it charged could not be given back: what Stripe said is in the log."
    if back is None:
        return "It charged nothing."
    remark(bot.pk, given_back(back.amount, back.currency), key=back.id)
    return f"{money(back.amount, back.currency)} is given back."


def given_back(amount: int, currency: str) -> str:
    return f"{money(amount, currency)} was given back to the card that paid it."


# --- When to look ------------------------------------------------------------------------------------------------
def touched(kind: str, users: Iterable[int | None]) -> Q:
    """The bots for which an event about the customers of these users means something."""
    theirs = Q(owner_id__in=users)
    return theirs if kind == "customer.deleted" else theirs & Q(paid_status__in=OWES)


def take_due(most: int) -> list[UUID]:
    """Bots that are to be looked at now. Each is due again after a rest, unless the look at it says when.

    A deleted one is looked at once in any case, for its job can be lost: that ends its subscription and closes its
    payment page.
    """
    now = timezone.now()
    not_looked_at = Q(paid_seen_at=None) | Q(paid_seen_at__lt=F("deleted_at"))
    not_resting = Q(due_at=None) | Q(due_at__gt=now + REST)
    due = Q(due_at__lte=now) | Q(deleted_at__isnull=False) & not_looked_at & not_resting
    bots = list(Bot.objects.filter(due).order_by("due_at").values_list("pk", flat=True)[:most])
    if bots:
        Bot.objects.filter(pk__in=bots).update(due_at=now + REST)
    return bots


def look_later(bot_id: UUID) -> None:
    """Have one that can't be read now looked at after a rest."""
    Bot.objects.filter(pk=bot_id).update(due_at=timezone.now() + REST)


def look_soon(bots: Iterable[UUID]) -> None:
    """Have these looked at by the next run."""
    Bot.objects.filter(pk__in=bots).update(due_at=timezone.now())


# --- Writing -------------------------------------------------------------------------------------------------------
def _record_chosen(bot_id: UUID, reading: Reading) -> bool:
    with transaction.atomic():
        return _write(Bot.objects.select_for_update().get(pk=bot_id), reading)


def _record_none(bot_id: UUID, asked_at: datetime) -> bool:
    """Stripe has no subscription for the bot. If we hold one, this is another Stripe account, or one that was wiped:
    to stop everybody's pub for that would be the worse mistake.
    """
    with transaction.atomic():
        bot = Bot.objects.select_for_update().get(pk=bot_id)
        if bot.paid_seen_at and asked_at < bot.paid_seen_at:
            return False
        if bot.subscription_id:
            log.error("Stripe knows no subscription %s of bot %s", bot.subscription_id, bot.pk)
        return _set(bot, paid_seen_at=asked_at)


def _write(bot: Bot, reading: Reading) -> bool:
    """Set what Stripe says in a locked row, unless it was read later than this. Whether anything was new."""
    if bot.paid_seen_at and reading.seen_at < bot.paid_seen_at:
        if reading.subscription_id != bot.subscription_id:
            # Who read later may have read the other one alone.
            live.look_at_payment(bot.pk)
        return False
    return _set(
        bot,
        paid_status=reading.status,
        paid_until=reading.until,
        paid_ends=reading.ends,
        subscription_id=reading.subscription_id,
        price_id=reading.price_id,
        unpaid_since=reading.unpaid_since,
        retry_at=reading.retry_at,
        # A price that is not of ours says nothing of the size.
        memory_gb=reading.memory_gb or bot.memory_gb,
        paid_seen_at=reading.seen_at,
    )


def _change(bot_id: UUID, **columns: Any) -> None:
    """Set facts that are not Stripe's, or none, and what follows from all of them now."""
    with transaction.atomic():
        _set(Bot.objects.select_for_update().get(pk=bot_id), **columns)


def comp(bot_id: UUID, until: datetime | None, words: str, by: User) -> None:
    """Staff let a bot run until a moment, paid or not; None takes it back: then it ends now, if it has not ended."""
    with transaction.atomic():
        bot = Bot.objects.select_for_update().get(pk=bot_id)
        if until is None and bot.comped_until:
            until = min(bot.comped_until, timezone.now())
        _set(bot, words, by, comped_until=until)


def extend_grace(bot_id: UUID, until: datetime, words: str, by: User) -> None:
    """Staff give a bot whose payment failed time until a moment."""
    with transaction.atomic():
        _set(Bot.objects.select_for_update().get(pk=bot_id), words, by, grace_until=until)


def remark(bot_id: UUID, words: str, key: str, by: User | None = None) -> bool:
    """Write into the history what changes no rung, such as money given back: once for a key. Whether it was new.

    An event can tell of it before staff's own words are written: theirs then stand in its place.
    """
    with transaction.atomic():
        bot = Bot.objects.select_for_update().get(pk=bot_id)
        told = {"bot": bot, "old": bot.rung, "new": bot.rung, "words": words, "by": by}
        change, is_new = PaymentChange.objects.get_or_create(key=key, defaults=told)
        if by and not is_new:
            change.words, change.by = words, by
            change.save(update_fields=["words", "by"])
        live.changed(bot_id)
    return is_new


def note_renewal(renewal: Renewal) -> None:
    """A payment that changes no rung has its line too, by whichever way its event comes first."""
    if Bot.objects.filter(pk=renewal.bot_id).exists():
        words = f"{money(renewal.amount, renewal.currency)} was paid."
        remark(renewal.bot_id, words, key=renewal.invoice_id)


def facts_of(bot: Bot) -> Facts:
    return Facts(
        status=bot.paid_status,
        until=bot.paid_until,
        ends=bot.paid_ends,
        unpaid_since=bot.unpaid_since,
        grace_until=bot.grace_until,
        comped_until=bot.comped_until,
        asked_at=bot.asked_at,
        deleted_at=bot.deleted_at,
    )


def _set(bot: Bot, words: str = "", by: User | None = None, **facts: Any) -> bool:
    """Write facts into a locked row, with the standing that follows; tell who must know what changed.

    The history says it in staff's words, or else in those that its owner reads. Whether anything was new.
    """
    follows = ("paid", "rung", "runs_until", "kept_until", "due_at", "told_payment")
    before = {name: getattr(bot, name) for name in (*facts, *follows)}
    for name, value in facts.items():
        setattr(bot, name, value)
    standing = stand(facts_of(bot), timezone.now(), terms())
    bot.paid, bot.rung, bot.due_at = standing.runs, standing.rung, standing.due_at
    bot.runs_until, bot.kept_until = standing.runs_until, standing.kept_until
    bot.told_payment = letters.write(bot, standing)
    changed = {name for name, was in before.items() if getattr(bot, name) != was}
    if changed:
        bot.save(update_fields=changed)
    if changed - UNSHOWN:
        live.changed(bot.pk)
        live.nudge()
    if "rung" in changed or by:
        told = words or how_it_stands(bot)
        PaymentChange.objects.create(bot=bot, old=before["rung"], new=bot.rung, words=told, by=by)
    return bool(changed - UNSHOWN)
