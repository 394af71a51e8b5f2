"""Rows for tests: alice owns things, bob is another customer."""

from typing import Any

from django.conf import settings
from djstripe.models import Price, Product

from accounts.models import User
from billing.gateway.prices import wishes
from pubs.models import Bot


class Maker:
    def __init__(self) -> None:
        self.bots = 0

    def user(self, name: str = "alice", **fields: Any) -> User:
        email = f"{name}@customer.example"
        return User.objects.filter(email=email).first() or User.objects.create_user(email, name=name.title(), **fields)

    def bot(self, owner: User | None = None, **fields: Any) -> Bot:
        self.bots += 1
        return Bot.objects.create(owner=owner or self.user(), name=fields.pop("name", f"Pub {self.bots}"), **fields)

    def prices(self) -> None:
        """What settings want to be for sale, as if Stripe had it and dj-stripe mirrored it."""
        product = Product.objects.create(id="prod_pub", livemode=False, name="Pub", active=True, stripe_data={})
        for wish in wishes():
            data = {
                "unit_amount": wish.amount,
                "recurring": {"interval": wish.interval, "interval_count": 1},
                "metadata": {"memory_gb": str(wish.memory_gb)},
                "product": product.id,
            }
            Price.objects.create(
                id=f"price_{wish.lookup_key}",
                livemode=False,
                active=True,
                currency=settings.PRICE_CURRENCY,
                product=product,
                lookup_key=wish.lookup_key,
                stripe_data=data,
            )
