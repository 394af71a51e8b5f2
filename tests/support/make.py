"""Rows for tests: alice owns things, bob is another customer."""

from typing import Any

from accounts.models import User
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
