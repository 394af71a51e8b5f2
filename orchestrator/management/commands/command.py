"""Ask something of a pub, from the terminal."""

import json
import time
from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from orchestrator import relay
from pubs.catalogue import CATALOGUE, ask
from pubs.models import Bot
from pubs.models import Command as Row

LOOK_EVERY = 0.2  # seconds


def in_words(error: ValidationError) -> str:
    """One line a field, and what concerns no field without a name before it."""
    fields = error.message_dict.items()
    return "\n".join(" ".join(words) if key == "__all__" else f"{key}: {' '.join(words)}" for key, words in fields)


def find_bot(word: str) -> Bot:
    """By id or by name. CommandError when there is none, or more than one of that name."""
    bots = Bot.objects.alive().select_related("owner")
    try:
        found = list(bots.filter(pk=UUID(word)))
    except ValueError:
        found = list(bots.filter(name=word))
    if not found:
        raise CommandError(f"There is no pub with the id or name “{word}”.")
    if len(found) > 1:
        choice = "\n".join(f"  {bot.pk}  of {bot.owner.email}" for bot in found)
        raise CommandError(f"{len(found)} pubs have the name “{word}”. Give the id of one of them:\n{choice}")
    return found[0]


def read_args(words: list[str]) -> dict[str, str]:
    pairs = [word.partition("=") for word in words]
    if odd := [key for key, equals, _ in pairs if not equals]:
        raise CommandError(f"Arguments are key=value, and “{odd[0]}” is not.")
    return {key: value for key, _, value in pairs}


class Command(BaseCommand):
    help = "Ask something of a pub and print the answer as JSON. Names and arguments: " + ", ".join(
        f"{entry.name}({', '.join(entry.form.base_fields)})" for entry in CATALOGUE.values()
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("bot", help="the pub's id or name")
        parser.add_argument("name", help="what to ask, like create_invite")
        parser.add_argument("arguments", nargs="*", metavar="key=value")
        parser.add_argument(
            "--by-worker",
            action="store_true",
            help="leave it to a worker, where this process reaches no engine",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        bot, given = find_bot(options["bot"]), read_args(options["arguments"])
        try:
            row = ask(bot, None, options["name"], given)
        except ValidationError as error:
            raise CommandError(in_words(error)) from error
        if not options["by_worker"]:
            relay.run(row.pk)
        # A worker may have been faster, or it is a worker's in the first place.
        self.wait(row)
        if row.state != row.State.DONE:
            raise CommandError(f"{row.get_state_display()}: {row.error or f'no worker has answered yet ({row.pk})'}")
        self.stdout.write(json.dumps(row.result, indent=2, ensure_ascii=False))

    def wait(self, row: Row) -> None:
        patience = time.monotonic() + CATALOGUE[row.name].limit_seconds + relay.ASK_AGAIN.seconds
        row.refresh_from_db()
        while not row.is_finished and time.monotonic() < patience:
            time.sleep(LOOK_EVERY)
            row.refresh_from_db()
