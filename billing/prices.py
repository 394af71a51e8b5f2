"""What a pub costs, in words for people. The amounts are those of the mirror: nothing here makes one up."""

from dataclasses import dataclass

from babel import Locale

from billing import gateway
from billing.gateway import Offer
from billing.money import money
from pubs.models import Bot


@dataclass(frozen=True)
class ForSale:
    """An offer as a page shows it. Of one by the year: what a month of it comes to, and what it saves, if it does."""

    lookup_key: str
    words: str
    a_month: str = ""
    saved: str = ""


@dataclass(frozen=True)
class Size:
    """A size of a pub, and in which ways it can be paid."""

    memory_gb: int
    ways: list[ForSale]


def words(offer: Offer, locale: Locale) -> str:
    """€9 a month"""
    return f"{money(offer.amount, offer.currency, locale)} a {offer.interval}"


def sizes(locale: Locale) -> list[Size]:
    """All that can be bought, smallest first; empty as long as nothing can."""
    offers = gateway.offers()
    return [
        Size(size, [_for_sale(each, offers, locale) for each in offers if each.memory_gb == size])
        for size in sorted({each.memory_gb for each in offers})
    ]


def _for_sale(offer: Offer, offers: list[Offer], locale: Locale) -> ForSale:
    def say(amount: int) -> str:
        return money(amount, offer.currency, locale)

    yearly = offer.interval == "year"
    saved = _saved(offer, offers) if yearly else 0
    return ForSale(
        lookup_key=offer.lookup_key,
        words=words(offer, locale),
        a_month=say(round(offer.amount / 12)) if yearly else "",
        saved=say(saved) if saved > 0 else "",
    )


def _saved(yearly: Offer, offers: list[Offer]) -> int:
    """How much less it is than twelve months of the same."""
    same = (yearly.memory_gb, "month", yearly.currency)
    monthly = [each.amount for each in offers if (each.memory_gb, each.interval, each.currency) == same]
    return monthly[0] * 12 - yearly.amount if monthly else 0


def price_from(locale: Locale) -> str:
    """What the least costs: the first offer, which is the smallest size by the month. Nothing if nothing is sold."""
    offers = gateway.offers()
    return words(offers[0], locale) if offers else ""


def price_of(bot: Bot, locale: Locale) -> str:
    """What its owner pays for a bot; nothing if they never paid."""
    offer = gateway.offer_of(bot.price_id)
    return words(offer, locale) if offer else ""


def usual(bot: Bot) -> str:
    """The key of the offer that is chosen beforehand: like what was paid before, or else the first."""
    offers, before = gateway.offers(), gateway.offer_of(bot.price_id)
    like = [
        each for each in offers if before and (each.memory_gb, each.interval) == (before.memory_gb, before.interval)
    ]
    return (like or offers)[0].lookup_key if offers else ""
