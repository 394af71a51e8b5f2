"""What can be bought: the sizes of a pub, by the month or the year.

Settings say what should be for sale (`Wish`), set_up.py makes it so in Stripe, and pages show what dj-stripe mirrors
of that (`Offer`): what is shown is what Stripe charges.
"""

from dataclasses import dataclass
from typing import Literal

from django.conf import settings
from djstripe.models import Price

from billing.gateway.door import note

type Interval = Literal["month", "year"]


@dataclass(frozen=True)
class Wish:
    """A price as settings want it; `amount` is in the smallest unit of PRICE_CURRENCY."""

    memory_gb: int
    interval: Interval
    amount: int

    @property
    def lookup_key(self) -> str:
        """By this name we find the price in Stripe, whatever it costs by then."""
        return f"pub-{self.interval}ly-{self.memory_gb}gb"

    @property
    def product_id(self) -> str:
        """A product a size: Stripe's portal lets nobody choose between two monthly prices of one product."""
        return f"buttcloud-pub-{self.memory_gb}gb"


@dataclass(frozen=True)
class Offer:
    """A price of Stripe that can be bought now, as the mirror has it; `amount` is in the currency's smallest unit."""

    lookup_key: str
    price_id: str
    product_id: str
    memory_gb: int
    interval: Interval
    amount: int
    currency: str


def wishes() -> list[Wish]:
    """Smallest first, the monthly ones before the yearly ones."""
    amounts: list[tuple[Interval, tuple[int, ...]]] = [
        ("month", settings.PRICES_MONTHLY),
        ("year", settings.PRICES_YEARLY),
    ]
    return [
        Wish(size, interval, amount)
        for interval, of_sizes in amounts
        for size, amount in zip(settings.PUB_SIZES, of_sizes, strict=True)
    ]


def offers() -> list[Offer]:
    """What the mirror has of our prices, in the order of `wishes`; empty until `stripe_setup` has run."""
    wanted = {wish.lookup_key: wish for wish in wishes()}
    found = Price.objects.filter(lookup_key__in=wanted, active=True, livemode=settings.STRIPE_LIVE_MODE)
    by_key = {price.lookup_key: _offer(price) for price in found}
    return [offer for key, wish in wanted.items() if (offer := by_key.get(key)) and _is_for(offer, wish)]


def offer_of(price_id: str) -> Offer | None:
    """What somebody pays, be it for sale or not any more; None if the mirror can't say it in a few words."""
    price = Price.objects.filter(id=price_id).first() if price_id else None
    return price and _offer(price)


def _offer(price: Price) -> Offer | None:
    data = price.stripe_data
    every = data.get("recurring") or {}
    if data.get("unit_amount") is None or every.get("interval_count") != 1:
        return None
    size = note(data, "memory_gb")
    return Offer(
        lookup_key=price.lookup_key or "",
        price_id=price.id,
        product_id=data["product"],
        memory_gb=int(size) if size.isdecimal() else 0,
        interval=every["interval"],
        amount=data["unit_amount"],
        currency=price.currency,
    )


def _is_for(offer: Offer, wish: Wish) -> bool:
    """Whether it sells what its key says: somebody can give the key to another price in Stripe."""
    return (offer.memory_gb, offer.interval) == (wish.memory_gb, wish.interval)
