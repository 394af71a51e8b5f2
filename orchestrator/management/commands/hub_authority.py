"""Makes what workers and the engines of hubs know each other by."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from orchestrator import authority
from orchestrator.machines import MachineError


class Command(BaseCommand):
    help = "Makes the hubs' certificate authority and our client certificate in ENGINE_TLS, if they are not there."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            made = authority.make()
        except (MachineError, OSError) as error:
            raise CommandError(str(error)) from error
        for file in made:
            self.stdout.write(f"made {file}")
        if not made:
            self.stdout.write(f"{settings.ENGINE_TLS} has all of it: nothing is changed.")
