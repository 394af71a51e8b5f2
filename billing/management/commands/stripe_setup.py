from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing import gateway


class Command(BaseCommand):
    help = "Make products, prices, the portal and the webhook endpoint in Stripe. Safe to run again."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            for line in gateway.set_up():
                self.stdout.write(line)
        except gateway.PaymentTrouble as trouble:
            raise CommandError(f"Stripe could not be set up: {trouble.__cause__ or trouble}") from trouble
