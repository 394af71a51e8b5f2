"""Prints what the next pass would do; changes nothing."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from orchestrator.planner import savings
from orchestrator.reconcile import actual, limits, make_plan
from orchestrator.record import see_hubs
from orchestrator.sentences import Sentences
from orchestrator.swarm import SwarmError
from orchestrator.world import World, observe


class Command(BaseCommand):
    help = "Prints what the next pass would do and why; changes nothing."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--consolidate", action="store_true", help="which drains would save which machines; none starts by itself"
        )

    def handle(self, *args: Any, consolidate: bool, **options: Any) -> None:
        try:
            world = observe()
        except SwarmError as error:
            raise CommandError(str(error)) from error
        see_hubs(world)
        for line in could_be_saved(world) if consolidate else would_be_done(world):
            self.stdout.write(line)


def would_be_done(world: World) -> list[str]:
    wanted = sum(bot.is_wanted for bot in world.bots)
    places = sum(hub.places for hub in world.hubs)
    taken = sum(home.places for home in world.placements.values() if not home.lost_at)
    return [
        f"{wanted} wanted of {len(world.bots)} bots, {len(world.sight.services)} services, "
        f"{taken} of {places} places taken on {len(world.hubs)} hubs.",
        *(f"  {line}" for line in Sentences(world).of(make_plan(world))),
    ]


def could_be_saved(world: World) -> list[str]:
    sentences = Sentences(world)
    found = savings(actual(world), limits())
    return [line for saving in found for line in sentences.of_saving(saving)] or ["No drain would save a machine."]
