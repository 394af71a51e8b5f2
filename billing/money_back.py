"""Money that goes back: what a pub's history says of refunds and disputes, and what staff are told.

Neither stops a pub by itself, not even a dispute that is lost: staff decide that, for a customer may have mistaken our
name on the card's statement, or been paid back for a bad day.
"""

from django.db import transaction
from django.utils.formats import date_format

from billing import alarms, gateway, paid
from billing.gateway import DISPUTE_EVENTS, REFUND_EVENTS, Dispute, GivenBack
from billing.money import money
from pubs.models import Bot


def hear(kind: str, subject: str) -> None:
    """An event told of something with this id: see what became of it. What was said before is not said again."""
    if kind in REFUND_EVENTS and (back := gateway.read_refund(subject)):
        _say_refund(back)
    elif kind in DISPUTE_EVENTS and (dispute := gateway.read_dispute(subject)):
        _say_dispute(dispute)


def _say_refund(back: GivenBack) -> None:
    bot = Bot.objects.filter(pk=back.bot_id).first()
    if bot is None:
        return
    amount = money(back.amount, back.currency)
    with transaction.atomic():
        if back.failed:
            if paid.remark(bot.pk, f"The bank refused {amount} that we gave back.", key=f"{back.id}:failed"):
                alarms.about_bot(bot, f"{back.id}:failed", f"{amount} could not be given back: {back.page}")
        elif paid.remark(bot.pk, paid.given_back(back.amount, back.currency), key=back.id) and not back.is_ours:
            alarms.about_bot(bot, back.id, f"{amount} was given back in Stripe's dashboard: {back.page}")


def _say_dispute(dispute: Dispute) -> None:
    bot = Bot.objects.filter(pk=dispute.bot_id).first()
    if bot is None:
        return
    amount = money(dispute.amount, dispute.currency)
    stage = dispute.status if dispute.is_closed else "open"
    words = _how_it_ended(dispute, amount) if dispute.is_closed else f"A payment of {amount} is disputed at its bank."
    with transaction.atomic():
        if paid.remark(bot.pk, words, key=f"{dispute.id}:{stage}"):
            more = "" if dispute.is_closed else _what_to_answer(dispute)
            alarms.about_bot(bot, f"{dispute.id}:{stage}", f"{words} {more}{dispute.page}")


def _how_it_ended(dispute: Dispute, amount: str) -> str:
    if dispute.status == "lost":
        return f"The dispute about {amount} is over: the bank gave it back to its customer."
    return f"The dispute about {amount} is over: the payment stands."


def _what_to_answer(dispute: Dispute) -> str:
    reason = dispute.reason.replace("_", " ")
    end = f"by {date_format(dispute.answer_by, 'j F Y, H:i')} UTC" if dispute.answer_by else "if you like"
    return f"The reason is “{reason}”. Answer {end}: "
