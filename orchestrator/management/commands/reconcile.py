"""Passes of the orchestrator by hand: for staff when no worker runs, and for tests."""

import time
from typing import Any

from celery import current_app
from django.core.management.base import BaseCommand, CommandError, CommandParser

from orchestrator.reconcile import run_pass
from orchestrator.swarm import SwarmError


class Command(BaseCommand):
    help = "Makes a pass of the orchestrator every 15 seconds, or one with --once. Its jobs go to the swarm queue."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="one pass, then end")
        parser.add_argument("--here", action="store_true", help="run the jobs in this process instead of queueing them")

    def handle(self, *args: Any, once: bool, here: bool, **options: Any) -> None:
        if here:
            current_app.conf.task_always_eager = True
        while True:
            try:
                run_pass()
            except SwarmError as error:
                raise CommandError(str(error)) from error
            if once:
                return
            time.sleep(15)
