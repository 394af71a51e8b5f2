"""What an owner reads about the payment of their pub, on its page and in the API."""

from django.utils.formats import date_format

from billing.ladder import MEANINGS, Rung
from pubs.models import Bot

NOT_PAID = "Not paid yet."


def words(bot: Bot) -> str:
    """How it stands, in a sentence or two with the dates that matter."""
    if not bot.paid_status:
        return NOT_PAID
    said = MEANINGS[bot.paid_status].words
    if bot.rung == Rung.ENDING and bot.runs_until:
        return f"Cancelled: your pub runs until {date_format(bot.runs_until, 'j F Y')}."
    if bot.rung == Rung.PAID and bot.paid_until:
        return f"{said} The next payment is on {date_format(bot.paid_until, 'j F Y')}."
    return said
