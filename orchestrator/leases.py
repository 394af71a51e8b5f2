"""Broadcasters divide the hubs among them: each hub is watched by one of them, and never by two.

A lease is two columns of the hub's row. It is claimed by a conditional update and ends by the database's clock, so that
those of the machines need not agree; and who holds it lets go MARGIN before, by a clock that nobody sets.
"""

import math
import random
import socket
from collections.abc import Collection
from datetime import timedelta
from uuid import uuid4

from django.db.models import BooleanField, DateTimeField, ExpressionWrapper, Q
from django.db.models.functions import Now

from orchestrator.models import CARRYING, Broadcaster, Hub

LEASE = timedelta(seconds=15)
MARGIN = timedelta(seconds=3)
RENEW_SECONDS = 4.5


def _from_now(length: timedelta) -> ExpressionWrapper:
    return ExpressionWrapper(Now() + length, output_field=DateTimeField())


def _whether(condition: Q) -> ExpressionWrapper:
    return ExpressionWrapper(condition, output_field=BooleanField())


FREE = Q(watched_until=None) | Q(watched_until__lt=Now())
ALIVE = Q(seen_at__gt=_from_now(-LEASE))
# What a broadcaster that was killed has left behind.
LEFT = Q(seen_at__lt=_from_now(-timedelta(minutes=1)))


class Leases:
    """Those of one broadcaster."""

    def __init__(self) -> None:
        self.id = uuid4()

    def renew(self, streams: int) -> dict[int, str]:
        """Hub → node, of all that are ours from now on for a LEASE: what we had, as far as it is our fair share, and
        what is free. A handful of queries, however many there are.
        """
        alive = self._show_life(streams)
        watchable = Hub.objects.filter(state__in=CARRYING).exclude(node_id="")
        hubs = list(watchable.annotate(is_free=_whether(FREE)).values_list("pk", "node_id", "watched_by", "is_free"))
        share = math.ceil(len(hubs) / alive)
        ours = [pk for pk, _, holder, _ in hubs if holder == self.id][:share]
        free = [pk for pk, _, holder, is_free in hubs if is_free and holder != self.id]
        # Two who come at the same time should not wish for the same ones.
        wished = {*ours, *random.sample(free, min(len(free), share - len(ours)))}
        held = wished
        if self._claim(wished) < len(wished):
            held = wished & set(Hub.objects.filter(watched_by=self.id).values_list("pk", flat=True))
        return {pk: node_id for pk, node_id, *_ in hubs if pk in held}

    def _claim(self, hubs: Collection[int]) -> int:
        """How many of them are ours now. Of two who try it at once, the second finds that it is not free."""
        claimable = Hub.objects.filter(Q(watched_by=self.id) | FREE, pk__in=hubs)
        return claimable.update(watched_by=self.id, watched_until=_from_now(LEASE)) if hubs else 0

    def _show_life(self, streams: int) -> int:
        """How many broadcasters are alive, with us."""
        if not Broadcaster.objects.filter(pk=self.id).update(seen_at=Now(), streams=streams):
            Broadcaster.objects.create(pk=self.id, host=socket.gethostname(), seen_at=Now(), streams=streams)
        others = Broadcaster.objects.exclude(pk=self.id).annotate(is_alive=_whether(ALIVE), is_left=_whether(LEFT))
        states = list(others.values_list("pk", "is_alive", "is_left"))
        if left := [pk for pk, _, is_left in states if is_left]:
            Broadcaster.objects.filter(LEFT, pk__in=left).delete()
        return 1 + sum(is_alive for _, is_alive, _ in states)

    def release(self, but: Collection[int] = ()) -> None:
        """Hubs that we watch no longer are free at once, for whoever comes first."""
        Hub.objects.filter(watched_by=self.id).exclude(pk__in=but).update(watched_by=None, watched_until=None)

    def end(self) -> None:
        self.release()
        Broadcaster.objects.filter(pk=self.id).delete()
