"""Passes of the orchestrator by hand: for staff when no worker runs, and for tests."""

import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from orchestrator.jobs import CLAIM_SECONDS
from orchestrator.models import turn
from orchestrator.reconcile import run_here, run_pass
from orchestrator.sentences import Sentences
from orchestrator.swarm import SwarmError


class Command(BaseCommand):
    help = "Makes a pass of the orchestrator every 15 seconds, or one with --once, and does its jobs in this process."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="one pass, then end")

    def handle(self, *args: Any, once: bool, **options: Any) -> None:
        self._pass()
        while not once:
            time.sleep(15)
            self._pass()

    def _pass(self) -> None:
        try:
            with turn("pass", CLAIM_SECONDS) as ours:
                if not ours:
                    raise CommandError("A worker makes a pass just now: try again in a moment.")
                done = run_pass(ask=run_here)
        except SwarmError as error:
            raise CommandError(str(error)) from error
        for line in Sentences(done.world).of(done.actions):
            self.stdout.write(line)
