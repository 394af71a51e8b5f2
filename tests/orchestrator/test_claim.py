"""What is worked on is nobody else's: its claim is renewed as long as the work goes on, and a lost one is noticed."""

import threading
from datetime import timedelta
from typing import Any, Self

import pytest
from django.db import InterfaceError, OperationalError
from django.utils import timezone

from orchestrator.models import Claim, ClaimLost, Turn, turn
from tests.support.wait import until

MINUTE = timedelta(minutes=1)


class Row:
    """A row whose database is away for the first writes. `is_heard`: they are done, but the answer never comes."""

    model = Turn

    def __init__(self, *errors: Exception, is_heard: bool = False) -> None:
        self.errors, self.is_heard, self.until = list(errors), is_heard, None
        self.writes = 0
        self.asked: dict[str, Any] = {}

    def filter(self, *only: Any, **columns: Any) -> Self:
        self.asked = columns
        return self

    def update(self, until: Any) -> int:
        is_ours = self.until is None or self.until in self.asked.get("until__in", [self.until])
        error = self.errors.pop(0) if self.errors and self.until else None
        if is_ours and (self.is_heard or not error):
            self.until = until
        if error:
            raise error
        self.writes += 1
        return int(is_ours)


def claimed(row: Any, length: timedelta = MINUTE) -> Claim:
    claim = Claim(row, "until", length)
    assert claim.begin()
    return claim


def test_a_claim_outlives_a_database_that_is_away_for_a_moment() -> None:
    row = Row(OperationalError("server closed the connection"), InterfaceError("connection already closed"))
    with claimed(row, timedelta(milliseconds=60)).kept():
        until("it is renewed again and again", lambda: row.writes > 3)


def test_a_renewal_to_which_no_answer_came_loses_nothing() -> None:
    row = Row(OperationalError("server closed the connection"), is_heard=True)
    claim = claimed(row)
    with pytest.raises(OperationalError):
        claim.renew()
    claim.renew()
    assert claim.write(until=None) == 1


@pytest.mark.django_db
def test_a_claim_that_somebody_else_has_by_now_is_neither_renewed_nor_ended() -> None:
    Turn.objects.create(name="it")
    claim = claimed(Turn.objects.filter(name="it"))
    later = timezone.now() + 5 * MINUTE
    Turn.objects.update(until=later)
    with pytest.raises(ClaimLost):
        claim.renew()
    claim.end()
    assert Turn.objects.get().until == later


@pytest.mark.django_db
def test_one_that_ran_out_and_that_nobody_took_is_ours_again() -> None:
    Turn.objects.create(name="it")
    claim = claimed(Turn.objects.filter(name="it"), -MINUTE)
    claim.renew()
    claim.end()
    with turn("it", 60) as ours:
        assert ours


def test_the_work_never_sees_a_renewal_half_done() -> None:
    """The row says so already, and the claim does not know it yet."""
    written, go_on, row = threading.Event(), threading.Event(), Row()
    claim = claimed(row)
    update = row.update

    def slow(until: Any) -> int:
        row.update = update  # type: ignore[method-assign]
        done = update(until)
        written.set()
        assert go_on.wait(30)
        return done

    row.update = slow  # type: ignore[method-assign]
    keeper = threading.Thread(target=claim.renew)
    keeper.start()
    assert written.wait(30)
    threading.Timer(0.2, go_on.set).start()
    assert claim.write(until=None) == 1
    keeper.join()
