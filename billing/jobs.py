"""What workers do about money. Each may run twice, in any order, and be killed anywhere: the next run goes on."""

import logging
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

from celery import shared_task
from django.db.models import F, Q
from django.utils import timezone

from billing import gateway, paid
from billing.gateway import Unreachable
from pubs.models import Bot

log = logging.getLogger("billing")

# A payment page is open for a day at most; one that was paid in its last minute is still found.
CHECKOUTS_SINCE = timedelta(hours=26)
# Events tell of changes at once. This heals lost ones.
LOOK_EVERY = timedelta(hours=1)
LOOK_AT_CHECKOUT_EVERY = timedelta(minutes=5)
LOOKS_A_RUN = 100


@shared_task(name="billing.look_again")
def look_again(bot_id: str) -> None:
    paid.look(UUID(bot_id))


@shared_task(name="billing.sweep")
def sweep() -> None:
    """Look at Stripe for every bot whose paid columns may be wrong: a webhook can be lost, and a job too."""
    # Out of reach is logged already, and the next run is in a minute.
    with suppress(Unreachable):
        for bot_id in dict.fromkeys([*_unseen_payments(), *_pages_of_deleted(), *_due()]):
            _look(bot_id)


def _look(bot_id: UUID) -> None:
    try:
        paid.look(bot_id)
    except Unreachable:
        raise
    except Exception:
        # One subscription that we can't read must not hide all others.
        log.exception("The subscription of bot %s could not be read", bot_id)


def _unseen_payments() -> Iterable[UUID]:
    """Bots for which a payment page was completed, while we hold another subscription or none."""
    checkouts = [each for each in gateway.checkouts("complete", CHECKOUTS_SINCE) if each.bot_id]
    lately = timezone.now() - LOOK_AT_CHECKOUT_EVERY
    bots = (
        Bot.objects.filter(pk__in={each.bot_id for each in checkouts})
        .exclude(subscription_id__in=[each.subscription_id for each in checkouts])
        .exclude(paid_seen_at__gt=lately)
    )
    return bots.values_list("pk", flat=True)[:LOOKS_A_RUN]


def _pages_of_deleted() -> Iterable[UUID]:
    """Deleted bots for which a payment page is still open: a look closes it."""
    about = {each.bot_id for each in gateway.checkouts("open", CHECKOUTS_SINCE) if each.bot_id}
    return Bot.objects.filter(pk__in=about, deleted_at__isnull=False).values_list("pk", flat=True)[:LOOKS_A_RUN]


def _due() -> Iterable[UUID]:
    """Bots with a live subscription: not looked at for an hour, or deleted by their owner, which ends it."""
    not_lately = Q(paid_seen_at=None) | Q(paid_seen_at__lt=timezone.now() - LOOK_EVERY)
    bots = Bot.objects.filter(not_lately | Q(deleted_at__isnull=False), paid_status__in=paid.ALIVE)
    ordered = bots.order_by(F("deleted_at").asc(nulls_last=True), "paid_seen_at")
    return ordered.values_list("pk", flat=True)[:LOOKS_A_RUN]
