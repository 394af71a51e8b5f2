"""The payment on pages, after `{% load payment %}`.

`{{ bot|payment_words }}` is a sentence or two, `{{ bot|payment_dates }}` the dates that matter with their labels.
`{{ bot|pays_by }}` is the page that gets the pub running, "checkout" or "portal", and "" where none does.

Prices are written as the visitor's browser wishes: `{% price_from as price %}` is what the least costs,
`{% sizes_for_sale as sizes %}` is all there is, and `{% price_of bot as price %}` is what is paid for a bot. Without
any price they are empty, and the page says so. A piece that is drawn without a request takes the wish of the browser
from `accept_language` in its context. `{{ bot|usual_offer }}` is the key of what is chosen beforehand.

`{% terms as terms %}` are the promises that settings make: `terms.grace.days` and `terms.kept.days`.
"""

from babel import Locale
from django import template
from django.template import Context

from billing import paid, prices
from billing.money import locale_of
from billing.words import dates, words
from pubs.models import Bot

register = template.Library()
register.filter("payment_words", words)
register.filter("payment_dates", dates)
register.filter("pays_by", paid.pays_by)
register.filter("usual_offer", prices.usual)
register.simple_tag(paid.terms, name="terms")


def _locale(context: Context) -> Locale:
    request = context.get("request")
    return locale_of(request.headers.get("Accept-Language", "") if request else context.get("accept_language") or "")


@register.simple_tag(takes_context=True)
def price_from(context: Context) -> str:
    return prices.price_from(_locale(context))


@register.simple_tag(takes_context=True)
def sizes_for_sale(context: Context) -> list[prices.Size]:
    return prices.sizes(_locale(context))


@register.simple_tag(takes_context=True)
def price_of(context: Context, bot: Bot) -> str:
    return prices.price_of(bot, _locale(context))
