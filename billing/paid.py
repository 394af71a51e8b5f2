"""Whether a pub may run, said by its subscription, by staff and by the clock: the only place that writes what billing
owns of a bot. What it all means is in ladder.py.
"""

import logging
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from billing import gateway, letters
from billing.gateway import Reading
from billing.ladder import ALIVE, MEANINGS, Facts, Rung, Terms, stand
from pubs import live
from pubs.models import Bot, PaymentChange

log = logging.getLogger("billing")

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

    One that is comped may be paid for already, so that it runs on after it. One whose hub is lost can't run by it.
    """
    if bot.rung in (Rung.PAID, Rung.ENDING) or bot.lost_at:
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

    One that is not the one we hold decides nothing by itself, nor does one that must end: then a job looks at all.
    """
    with transaction.atomic():
        bot = Bot.objects.select_for_update().filter(pk=reading.bot_id).first()
        if bot is None:
            return
        if bot.subscription_id not in ("", reading.subscription_id):
            live.look_at_payment(bot.pk)
            return
        _write(bot, reading)
        if must_end(bot):
            live.look_at_payment(bot.pk)


def must_end(bot: Bot) -> bool:
    """Whether its subscription lives although nothing may be charged for it any more."""
    return bool(bot.deleted_at or bot.rung == Rung.OVER) and bot.paid_status in ALIVE


def look(bot_id: UUID) -> None:
    """Read all of a bot's subscriptions from Stripe, end those that must not be, and write down the one that counts.

    Without one, the clock and staff's word alone say how it stands.
    """
    bot = Bot.objects.select_related("owner").filter(pk=bot_id).first()
    if bot is None:
        return
    if bot.deleted_at:
        gateway.close_checkouts(bot)
    asked_at = timezone.now()
    chosen, surplus = choose(gateway.subscriptions_of(bot))
    for extra in surplus:
        _end_surplus(bot, extra, chosen)
    if chosen is None:
        _change(bot_id, **_unknown_to_stripe(bot, asked_at))
        return
    _record_all(bot_id, gateway.with_invoices(chosen))
    bot.refresh_from_db()
    if must_end(bot):
        _end_for_good(bot, chosen)


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


def _end_surplus(bot: Bot, extra: Reading, chosen: Reading | None) -> None:
    kept = chosen.subscription_id if chosen else ""
    log.error("Bot %s has two subscriptions: %s is cancelled, kept is %s", bot.pk, extra.subscription_id, kept)
    gateway.cancel(extra.subscription_id)


def _end_for_good(bot: Bot, chosen: Reading) -> None:
    # Stripe tells moments in whole seconds.
    if bot.deleted_at and chosen.created >= bot.deleted_at.replace(microsecond=0):
        log.error("Bot %s was paid after it was deleted: %s is cancelled", bot.pk, chosen.subscription_id)
    gateway.cancel(chosen.subscription_id)
    if after := gateway.read_subscription(chosen.subscription_id):
        _record_all(bot.pk, after)


def _unknown_to_stripe(bot: Bot, asked_at: Any) -> dict[str, Any]:
    """Another Stripe account, or one that was wiped. To stop everybody's pub for that would be the worse mistake."""
    if not bot.subscription_id:
        return {}
    log.error("Stripe knows no subscription %s of bot %s", bot.subscription_id, bot.pk)
    return {"paid_seen_at": asked_at}


# --- Writing -------------------------------------------------------------------------------------------------------
def _record_all(bot_id: UUID, reading: Reading) -> None:
    with transaction.atomic():
        _write(Bot.objects.select_for_update().get(pk=bot_id), reading)


def _write(bot: Bot, reading: Reading) -> None:
    """Set what Stripe says in a locked row, unless it was read later than this."""
    if bot.paid_seen_at and reading.seen_at < bot.paid_seen_at:
        return
    _set(
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


def comp(bot_id: UUID, until: Any, words: str, by: Any) -> None:
    """Staff let a bot run until a moment, paid or not; None takes it back."""
    _deed(bot_id, words, by, comped_until=until)


def extend_grace(bot_id: UUID, until: Any, words: str, by: Any) -> None:
    """Staff give a bot whose payment failed time until a moment; None takes it back."""
    _deed(bot_id, words, by, grace_until=until)


def _deed(bot_id: UUID, words: str, by: Any, **columns: Any) -> None:
    with transaction.atomic():
        bot = Bot.objects.select_for_update().get(pk=bot_id)
        old = bot.rung
        _set(bot, **columns)
        PaymentChange.objects.create(bot=bot, old=old, new=bot.rung, words=words, by=by)


def remark(bot_id: UUID, words: str, key: str, by: Any = None) -> bool:
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


def _set(bot: Bot, **columns: Any) -> None:
    """Write facts into a locked row, with the standing that follows; tell who must know what changed."""
    before = {name: getattr(bot, name) for name in (*columns, "paid", "rung", "runs_until", "kept_until")}
    for name, value in columns.items():
        setattr(bot, name, value)
    standing = stand(facts_of(bot), timezone.now(), terms())
    bot.paid, bot.rung, bot.due_at = standing.runs, standing.rung, standing.due_at
    bot.runs_until, bot.kept_until = standing.runs_until, standing.kept_until
    bot.save(update_fields=[*before, "due_at"])
    if any(getattr(bot, name) != was for name, was in before.items() if name != "paid_seen_at"):
        live.changed(bot.pk)
        live.nudge()
    if bot.rung != before["rung"]:
        PaymentChange.objects.create(bot=bot, old=before["rung"], new=bot.rung)
    letters.write(bot, standing)
