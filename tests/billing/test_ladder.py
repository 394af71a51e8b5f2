"""The ladder by itself: which rung, until when, what the owner is told, and when to look again."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from billing.ladder import ALIVE, FOR_EVER, MEANINGS, Facts, Rung, Standing, Step, Terms, must_end, stand

NOW = datetime(2026, 11, 22, 14, 5, tzinfo=UTC)
TERMS = Terms()
DAY = timedelta(days=1)
RUNNING = {Rung.PAID, Rung.ENDING, Rung.GRACE, Rung.COMPED}
# From top to bottom; those beside each other stand on one height.
HEIGHTS = [{Rung.PAID}, {Rung.ENDING, Rung.GRACE}, {Rung.COMPED}, {Rung.SUSPENDED, Rung.KEPT}, {Rung.OVER}]


def standing(now: datetime = NOW, terms: Terms = TERMS, **facts: Any) -> Standing:
    return stand(Facts(**facts), now, terms)


def life(facts: Facts, start: datetime = NOW) -> list[tuple[datetime, Standing]]:
    """Each look from due_at to due_at, until nothing is due any more or it is paid for ever."""
    looks = [(start, stand(facts, start, TERMS))]
    while (due_at := looks[-1][1].due_at) and looks[-1][1].rung != Rung.PAID and not must_end(facts, looks[-1][1].rung):
        looks.append((due_at, stand(facts, due_at, TERMS)))
    return looks


def steps(facts: Facts, start: datetime = NOW) -> list[tuple[Step | None, timedelta]]:
    """What the owner is told, and how long after the start."""
    told: list[tuple[Step | None, timedelta]] = []
    for at, look in life(facts, start):
        if look.step and look.step not in [step for step, _ in told]:
            told.append((look.step, at - start))
    return told


# --- Each rung and each of Stripe's words ----------------------------------------------------------------------------
def test_stripes_eight_words_have_a_meaning_each() -> None:
    assert set(MEANINGS) == {
        *("trialing", "active", "past_due", "unpaid", "canceled", "incomplete", "incomplete_expired", "paused")
    }
    assert all(meaning.words.endswith(".") and meaning.pub for meaning in MEANINGS.values())


@pytest.mark.parametrize(
    ("status", "rung"),
    [
        ("", Rung.NEW),
        ("incomplete", Rung.NEW),
        ("incomplete_expired", Rung.NEW),
        ("trialing", Rung.PAID),
        ("active", Rung.PAID),
        ("past_due", Rung.GRACE),
        ("unpaid", Rung.SUSPENDED),
        ("paused", Rung.SUSPENDED),
        ("canceled", Rung.KEPT),
    ],
)
def test_each_word_of_stripe_leads_to_its_rung(status: str, rung: Rung) -> None:
    owes = {"unpaid_since": NOW - DAY} if status in ("past_due", "unpaid") else {}
    seen = standing(status=status, until=NOW - DAY if status == "canceled" else NOW + 20 * DAY, **owes)
    assert seen.rung == rung and seen.runs is (rung in RUNNING)


def test_a_word_that_stripe_never_said_is_refused() -> None:
    with pytest.raises(KeyError):
        standing(status="asleep", until=NOW)


def test_a_paid_pub_has_no_end_and_is_looked_at_until_its_renewal_is_known() -> None:
    until = NOW + 10 * DAY
    seen = standing(status="active", until=until)
    assert (seen.runs_until, seen.kept_until, seen.step) == (None, None, None)
    assert seen.due_at == until + TERMS.renewal
    late = standing(until + TERMS.renewal, status="active", until=until)
    assert late.runs and late.due_at == until + 2 * TERMS.renewal, "Stripe's word may be lost, and the pub runs on"


def test_a_cancelled_pub_runs_to_the_end_of_its_period_and_is_then_kept_60_days() -> None:
    facts = Facts(status="active", until=NOW + 20 * DAY, ends=True)
    seen = stand(facts, NOW, TERMS)
    assert (seen.rung, seen.runs_until, seen.due_at) == (Rung.ENDING, NOW + 20 * DAY, NOW + 20 * DAY)
    ended = stand(facts, NOW + 20 * DAY, TERMS)
    assert (ended.rung, ended.runs, ended.kept_until) == (Rung.KEPT, False, NOW + 80 * DAY)


def test_the_steps_of_a_cancelled_pub() -> None:
    assert steps(Facts(status="active", until=NOW + 20 * DAY, ends=True)) == [
        (Step.CANCELLED, 0 * DAY),
        (Step.ENDED, 20 * DAY),
        (Step.GOES_SOON, 66 * DAY),
        (Step.GOES_NOW, 77 * DAY),
        (Step.OVER, 80 * DAY),
    ]


def test_the_steps_of_a_pub_whose_payment_failed() -> None:
    assert steps(Facts(status="past_due", until=NOW + 30 * DAY, unpaid_since=NOW)) == [
        (Step.PAYMENT_FAILED, 0 * DAY),
        (Step.STOPS_SOON, 11 * DAY),
        (Step.SUSPENDED, 14 * DAY),
        (Step.GOES_SOON, 60 * DAY),
        (Step.GOES_NOW, 71 * DAY),
        (Step.OVER, 74 * DAY),
    ]


def test_the_steps_of_a_comped_pub() -> None:
    assert steps(Facts(comped_until=NOW + 30 * DAY)) == [
        (Step.COMPED, 0 * DAY),
        (Step.COMP_ENDS, 23 * DAY),
        (Step.ENDED, 30 * DAY),
        (Step.GOES_SOON, 76 * DAY),
        (Step.GOES_NOW, 87 * DAY),
        (Step.OVER, 90 * DAY),
    ]


def test_short_terms_warn_of_nothing_before_it_stopped() -> None:
    short = replace(TERMS, kept=2 * DAY)
    assert standing(NOW + DAY, short, status="canceled", until=NOW).step == Step.ENDED
    assert standing(NOW + 2 * DAY, short, status="canceled", until=NOW).step == Step.OVER


def test_a_payment_page_that_was_left_is_told_of_after_a_day() -> None:
    assert standing(asked_at=NOW).step is None
    assert standing(asked_at=NOW).due_at == NOW + DAY
    seen = standing(NOW + DAY, asked_at=NOW)
    assert (seen.rung, seen.step, seen.due_at) == (Rung.NEW, Step.PAY_REMINDER, None)
    assert standing(NOW + DAY, asked_at=NOW, status="incomplete", until=NOW).step == Step.PAY_REMINDER
    assert standing(NOW + DAY, asked_at=NOW, status="active", until=NOW + 30 * DAY).step is None


# --- One with another ------------------------------------------------------------------------------------------------
def test_stripe_giving_up_stops_the_pub_but_keeps_it_no_shorter() -> None:
    owed = {"unpaid_since": NOW, "until": NOW + 8 * DAY}
    given_up = [standing(NOW + 8 * DAY, status=status, **owed) for status in ("unpaid", "canceled")]
    waited = standing(NOW + 14 * DAY, status="past_due", **owed)
    assert not any(seen.runs for seen in given_up)
    assert {seen.kept_until for seen in [*given_up, waited]} == {NOW + 74 * DAY}


@pytest.mark.parametrize("status", ["past_due", "unpaid", "canceled"])
def test_a_grace_that_staff_extended_holds_whatever_stripe_says(status: str) -> None:
    grace_until = NOW + 25 * DAY
    facts = Facts(status=status, until=NOW + 8 * DAY, unpaid_since=NOW, grace_until=grace_until)
    seen = stand(facts, NOW + 20 * DAY, TERMS)
    assert (seen.rung, seen.runs_until, seen.step) == (Rung.GRACE, grace_until, Step.PAYMENT_FAILED)
    assert stand(facts, grace_until, TERMS).kept_until == grace_until + TERMS.kept


def test_an_extended_grace_lets_nobody_run_who_owes_nothing() -> None:
    assert not standing(status="canceled", until=NOW - DAY, grace_until=NOW + DAY).runs
    assert not standing(status="paused", until=NOW - DAY, grace_until=NOW + DAY).runs


def test_a_paused_subscription_stops_the_pub_at_once() -> None:
    seen = standing(status="paused", until=NOW + 20 * DAY)
    assert (seen.rung, seen.step) == (Rung.SUSPENDED, Step.SUSPENDED)


def test_a_cancelled_one_whose_payment_failed_ends_with_its_period() -> None:
    facts = Facts(status="past_due", until=NOW + 5 * DAY, ends=True, unpaid_since=NOW)
    assert stand(facts, NOW, TERMS).runs_until == NOW + 5 * DAY
    assert stand(facts, NOW + 5 * DAY, TERMS).rung == Rung.KEPT, "nothing is charged any more"


def test_one_that_is_stopped_and_cancelled_waits_to_the_end_of_its_period() -> None:
    facts = Facts(status="unpaid", until=NOW + 5 * DAY, ends=True, unpaid_since=NOW)
    seen = stand(facts, NOW, TERMS)
    assert (seen.rung, seen.due_at) == (Rung.SUSPENDED, NOW + 5 * DAY)
    ended = stand(facts, NOW + 5 * DAY, TERMS)
    assert (ended.rung, ended.step, ended.kept_until) == (Rung.KEPT, Step.ENDED, seen.kept_until)


def test_a_comp_carries_on_where_a_grace_ends() -> None:
    facts = Facts(status="past_due", until=NOW + 30 * DAY, unpaid_since=NOW, comped_until=NOW + 40 * DAY)
    rungs = [(at - NOW, seen.rung, seen.runs_until) for at, seen in life(facts)]
    assert (0 * DAY, Rung.GRACE, NOW + 40 * DAY) in rungs
    assert (14 * DAY, Rung.COMPED, NOW + 40 * DAY) in rungs
    assert (40 * DAY, Rung.SUSPENDED, None) in rungs


def test_a_comp_that_is_shorter_than_what_is_paid_changes_nothing() -> None:
    paid = {"status": "active", "until": NOW + 20 * DAY}
    assert standing(**paid, comped_until=NOW + DAY) == standing(**paid)
    ending = {**paid, "ends": True}
    assert standing(**ending, comped_until=NOW + DAY) == standing(**ending)


def test_what_its_owner_deleted_stops_and_is_kept_from_then_on() -> None:
    for facts in ({"status": "active", "until": NOW + 20 * DAY}, {"comped_until": NOW + 20 * DAY}):
        seen = standing(deleted_at=NOW, **facts)
        assert (seen.rung, seen.runs, seen.kept_until) == (Rung.KEPT, False, NOW + 60 * DAY)
        assert (seen.step, seen.step_about) == (Step.DELETED, NOW + 60 * DAY)


def test_deleting_makes_nothing_be_kept_for_longer() -> None:
    ended = {"status": "canceled", "until": NOW - 50 * DAY}
    assert standing(deleted_at=NOW, **ended).kept_until == NOW + 10 * DAY


def test_nobody_is_told_of_the_end_of_what_was_never_there_or_gone_already() -> None:
    assert standing(deleted_at=NOW, asked_at=NOW - DAY).step is None
    assert standing(deleted_at=NOW, status="canceled", until=NOW - 90 * DAY).step is None


@pytest.mark.parametrize("status", ALIVE)
def test_a_subscription_that_lives_on_without_a_pub_is_looked_at_until_it_has_ended(status: str) -> None:
    lives = standing(status=status, until=NOW + 20 * DAY, deleted_at=NOW - DAY)
    assert lives.due_at == NOW + TERMS.insist
    assert must_end(Facts(status=status, deleted_at=NOW), Rung.KEPT)
    assert not must_end(Facts(status="canceled", deleted_at=NOW), Rung.KEPT)


@pytest.mark.parametrize("over", [{"comped_until": NOW - 61 * DAY}, {"comped_until": NOW - 300 * DAY}])
def test_a_pub_that_is_over_may_be_paid_for_while_the_bank_asks_its_owner(over: dict[str, datetime]) -> None:
    facts = Facts(status="incomplete", until=NOW + 30 * DAY, **over)
    seen = stand(facts, NOW, TERMS)
    assert seen.rung == Rung.OVER and not must_end(facts, seen.rung)
    assert seen.due_at is None, "Stripe lets it expire by itself"
    assert must_end(replace(facts, deleted_at=NOW), Rung.OVER)


def test_what_is_no_longer_kept_is_charged_no_more() -> None:
    facts = Facts(status="past_due", until=NOW - 60 * DAY, unpaid_since=NOW - 90 * DAY)
    seen = stand(facts, NOW, TERMS)
    assert seen.rung == Rung.OVER and must_end(facts, seen.rung) and seen.due_at == NOW + TERMS.insist


# --- Whatever the facts ----------------------------------------------------------------------------------------------
MOMENTS = st.integers(-150 * 24, 150 * 24).map(lambda hours: NOW + timedelta(hours=hours))
MAYBE = st.none() | MOMENTS
UNHURRIED = hypothesis_settings(deadline=None)
FACTS = st.builds(
    Facts,
    status=st.sampled_from(["", *MEANINGS]),
    until=MOMENTS,
    ends=st.booleans(),
    unpaid_since=MAYBE,
    grace_until=MAYBE,
    comped_until=MAYBE,
    asked_at=MAYBE,
    deleted_at=st.none() | st.none() | MOMENTS,
)
LATER = st.integers(1, 200 * 24).map(lambda hours: timedelta(hours=hours))


def height(rung: Rung) -> int:
    return next(number for number, rungs in enumerate(HEIGHTS) if rung in rungs)


@UNHURRIED
@given(FACTS, MOMENTS)
def test_it_runs_before_its_end_and_is_kept_after_it(facts: Facts, now: datetime) -> None:
    seen = stand(facts, now, TERMS)
    assert seen.runs is (seen.rung in RUNNING)
    assert seen.runs_until is None or (seen.runs and now < seen.runs_until < FOR_EVER)
    assert (seen.runs_until is None) is (not seen.runs or seen.rung == Rung.PAID)
    assert (seen.kept_until is None) is (seen.runs or seen.rung == Rung.NEW)
    if seen.kept_until:
        assert (now < seen.kept_until) is (seen.rung != Rung.OVER)
    assert (seen.step is None) is (seen.step_about is None)


@UNHURRIED
@given(FACTS, MOMENTS)
def test_it_is_looked_at_again_and_never_in_the_past(facts: Facts, now: datetime) -> None:
    seen = stand(facts, now, TERMS)
    if seen.due_at is None:
        assert seen.rung in (Rung.NEW, Rung.OVER)
    else:
        assert seen.due_at > now


@UNHURRIED
@given(FACTS, MOMENTS, LATER)
def test_nothing_changes_before_the_next_look(facts: Facts, now: datetime, later: timedelta) -> None:
    """So whoever looks from due_at to due_at meets each rung and each step."""
    seen = stand(facts, now, TERMS)
    then = now + later
    if seen.due_at:
        then = min(then, seen.due_at - timedelta(seconds=1))
    assert replace(stand(facts, then, TERMS), due_at=None) == replace(seen, due_at=None)


@UNHURRIED
@given(FACTS, MOMENTS, LATER)
def test_time_alone_only_leads_down(facts: Facts, now: datetime, later: timedelta) -> None:
    first, then = stand(facts, now, TERMS), stand(facts, now + later, TERMS)
    assert (first.rung == Rung.NEW) is (then.rung == Rung.NEW)
    if first.rung != Rung.NEW:
        assert height(first.rung) <= height(then.rung)


@UNHURRIED
@given(FACTS, MOMENTS, LATER)
def test_time_alone_moves_no_date(facts: Facts, now: datetime, later: timedelta) -> None:
    first, then = stand(facts, now, TERMS), stand(facts, now + later, TERMS)
    if first.runs and then.runs:
        assert first.runs_until == then.runs_until
    if first.kept_until:
        assert first.kept_until == then.kept_until
    if first.runs_until and then.kept_until:
        assert then.kept_until >= first.runs_until + TERMS.kept


@UNHURRIED
@given(FACTS)
def test_each_step_is_told_in_order_and_once(facts: Facts) -> None:
    assume(not must_end(facts, Rung.NEW))
    order = list(Step)
    told = [look.step for _, look in life(facts, NOW - 150 * DAY) if look.step]
    changes = [(old, new) for old, new in pairwise(told) if old != new]
    # A comp may follow a grace, and is told of after it; all else comes in the order of the steps.
    later = [order.index(old) < order.index(new) for old, new in changes if new not in (Step.COMPED, Step.COMP_ENDS)]
    assert all(later) and len(set(told)) == len(changes) + bool(told)


@UNHURRIED
@given(FACTS, MOMENTS, LATER, st.sampled_from(["grace_until", "comped_until"]))
def test_a_longer_grace_or_comp_ends_nothing_earlier(facts: Facts, now: datetime, more: timedelta, which: str) -> None:
    granted = getattr(facts, which) or now
    less, longer = stand(facts, now, TERMS), stand(replace(facts, **{which: granted + more}), now, TERMS)
    assert longer.runs or not less.runs
    if less.runs_until and longer.runs_until:
        assert longer.runs_until >= less.runs_until
    if less.kept_until and longer.kept_until:
        assert longer.kept_until >= less.kept_until


@UNHURRIED
@given(FACTS, MOMENTS)
def test_stripe_giving_up_breaks_no_promise_to_keep(facts: Facts, now: datetime) -> None:
    owed = replace(facts, status="past_due", ends=False, unpaid_since=facts.unpaid_since or now, deleted_at=None)
    seen = stand(owed, now, TERMS)
    promised = seen.runs_until + TERMS.kept if seen.runs_until else seen.kept_until
    assert promised
    for status in ("unpaid", "canceled", "paused"):
        after = stand(replace(owed, status=status), now, TERMS)
        assert after.kept_until is None or after.kept_until >= promised
        assert after.runs or not (owed.grace_until and now < owed.grace_until), "staff's word holds"


@UNHURRIED
@given(FACTS, MOMENTS)
def test_what_is_deleted_never_runs_and_is_told_of_at_most_once(facts: Facts, now: datetime) -> None:
    seen = stand(replace(facts, deleted_at=now), now, TERMS)
    assert not seen.runs and seen.step in (None, Step.DELETED)
