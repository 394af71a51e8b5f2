"""Prints what the next pass would do; changes nothing."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from orchestrator.reconcile import make_plan, observe
from orchestrator.swarm import SwarmError


class Command(BaseCommand):
    help = "Prints what the next pass would do and why; changes nothing."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            world = observe()
        except SwarmError as error:
            raise CommandError(str(error)) from error
        wanted = sum(bot.is_wanted for bot in world.bots)
        places = sum(hub.places for hub in world.hubs)
        taken = sum(bot.pk in world.placements and not bot.deleted_at for bot in world.bots)
        self.stdout.write(
            f"{wanted} wanted of {len(world.bots)} bots, {len(world.sight.services)} services, "
            f"{taken} of {places} places taken on {len(world.hubs)} hubs."
        )
        names = {bot.pk: bot.name for bot in world.bots}
        actions = make_plan(world)
        for action in actions:
            name = names.get(getattr(action, "bot", None), "")  # type: ignore[arg-type]
            self.stdout.write(f"  {action}" + (f"  # {name}" if name else ""))
        if not actions:
            self.stdout.write("Nothing to do: the swarm is as it should be.")
