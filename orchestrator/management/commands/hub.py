"""Staff's deeds on one hub."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from orchestrator import staff

HELP = {
    "drain": "move what is on it to other hubs, then have its machine destroyed",
    "uncordon": "call a drain off",
    "destroy": "have the machine of an empty hub destroyed",
    "fence": "give your word that the machine of a lost hub is off for good",
}


class Command(BaseCommand):
    help = "Drain, uncordon, destroy or fence a hub; `hubs` lists them. docs/hubs.md says what follows."

    def add_arguments(self, parser: CommandParser) -> None:
        deeds = parser.add_subparsers(dest="deed", required=True, metavar="drain|uncordon|destroy|fence")
        for deed, words in HELP.items():
            deeds.add_parser(deed, help=words, description=words).add_argument(
                "name", help="the hub's name, like hub-2"
            )
        deeds.choices["fence"].add_argument(
            "--yes-the-machine-is-off", metavar="NAME", help="the hub's name once more, in place of typing it"
        )

    def handle(self, *args: Any, deed: str, name: str, **options: Any) -> None:
        try:
            hub = staff.find(name)
            if deed == "fence":
                self.take_their_word(hub, options["yes_the_machine_is_off"])
            self.stdout.write(staff.DEEDS[deed](hub))
        except staff.NotNow as error:
            raise CommandError(str(error)) from error

    def take_their_word(self, hub: staff.Hub, typed: str | None) -> None:
        """Nobody fences by a slip: the hub's name is typed after what it means was read."""
        means = staff.before_fence(hub)
        if typed is None:
            self.stdout.write(means)
            try:
                typed = input(f"Type {hub} to fence it: ")
            except EOFError:
                typed = ""
        if typed.strip() != hub.name:
            raise CommandError(f"That is not “{hub}”: nothing was done.")
