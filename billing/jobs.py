"""What workers do about money. Each may run twice, in any order, and be killed anywhere: the next run goes on.

That Stripe is out of reach is logged by the gateway, and what was asked for is found again: here it is no error.
"""

from contextlib import suppress
from datetime import timedelta
from uuid import UUID

from celery import shared_task
from django.db.models import Q
from django.utils import timezone

from billing import money_back, paid, sweeps
from billing.gateway import Unreachable
from billing.ladder import Rung
from billing.models import Sweep
from pubs.models import Bot

WAITING = (Rung.NEW, Rung.GRACE, Rung.SUSPENDED, Rung.KEPT)
# Who signs in again within it has not paid in between.
SEEN_LATELY = timedelta(seconds=20)
# All is compared after this hour (UTC), when few are awake.
NIGHT = 3


@shared_task(name="billing.look_again")
def look_again(bot_id: str) -> None:
    sweeps.look_at([UUID(bot_id)])


@shared_task(name="billing.look_at_waiting", time_limit=sweeps.LIMIT)
def look_at_waiting(user_id: int) -> None:
    """An owner has signed in whose pub waits for a payment: it may have come without our being told."""
    lately = Q(paid_seen_at__gt=timezone.now() - SEEN_LATELY)
    never_went_to_pay = Q(asked_at=None, subscription_id="")
    waiting = Bot.objects.alive().filter(owner_id=user_id, rung__in=WAITING).exclude(lately).exclude(never_went_to_pay)
    sweeps.look_at(list(waiting.values_list("pk", flat=True)[: sweeps.LOOKS_A_RUN]))


@shared_task(name="billing.hear_of_money")
def hear_of_money(kind: str, subject: str) -> None:
    """A refund or a dispute."""
    with suppress(Unreachable):
        money_back.hear(kind, subject)


@shared_task(name="billing.look_at_due", time_limit=sweeps.LIMIT)
def look_at_due() -> None:
    """The clock says that something changes for these bots: Stripe is asked first, for they may have paid."""
    sweeps.look_at(paid.take_due(sweeps.LOOKS_A_RUN))


@shared_task(name="billing.read_events", time_limit=sweeps.LIMIT)
def read_events() -> None:
    with suppress(Unreachable):
        sweeps.read_events()


@shared_task(name="billing.compare_all", time_limit=sweeps.LIMIT)
def compare_all() -> None:
    with suppress(Unreachable):
        sweeps.compare_all()


@shared_task(name="billing.compare_at_night", time_limit=sweeps.LIMIT)
def compare_at_night() -> None:
    """Compare all once a night; what broke off is done again by the next run."""
    now = timezone.now()
    night = now.replace(hour=NIGHT, minute=0, second=0, microsecond=0)
    night -= timedelta(days=1) if now < night else timedelta()
    if not Sweep.objects.filter(kind=Sweep.Kind.ALL, started__gte=night, finished__isnull=False).exists():
        compare_all()
