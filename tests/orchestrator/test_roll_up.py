"""Samples become coarser as they grow old."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from orchestrator import jobs, rollup
from orchestrator.models import turn
from pubs.history import COLUMNS
from pubs.models import METRICS, Bot, StatsSample
from tests.support.make import Maker
from tests.support.sample import sample

NOON = datetime(2026, 12, 3, 12, 0, tzinfo=UTC)
MIDNIGHT = NOON.replace(hour=0)


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.set(NOON)

    def set(self, now: datetime) -> None:
        self.now = now
        self.monkeypatch.setattr(rollup.timezone, "now", lambda: now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Noon on 3 December 2026, until it is set otherwise."""
    return Clock(monkeypatch)


def samples(bot: Bot, since: datetime, values: list[float], step: int = 10) -> None:
    rows = (sample(bot, since + timedelta(seconds=step * i), value, step=step) for i, value in enumerate(values))
    StatsSample.objects.bulk_create(rows)


def rolled(step: int, *columns: str) -> list[tuple[Any, ...]]:
    return list(StatsSample.objects.filter(step=step).order_by("at", "bot_id").values_list(*columns))


def roll_all() -> None:
    """As if each step were due."""
    cache.clear()
    rollup.run()


def test_a_minute_is_made_of_its_samples(make: Maker, clock: Clock) -> None:
    samples(make.bot(), NOON - timedelta(minutes=1), [1, 2, 3, 4, 5, 9])
    rollup.run()
    assert rolled(60, "at", "count", "cpu_min", "cpu", "cpu_max") == [(NOON - timedelta(minutes=1), 6, 1, 4, 9)]


def test_a_mean_weighs_what_has_more_samples_more(make: Maker, clock: Clock) -> None:
    bot, quarter = make.bot(), NOON - timedelta(minutes=15)
    sample(bot, quarter, 10, step=60, count=6).save()
    sample(bot, quarter + timedelta(minutes=1), 40, step=60, count=3).save()
    rollup.run()
    assert rolled(900, "count", "memory_min", "memory", "memory_max") == [(9, 10, 20, 40)]


def test_a_day_is_a_day_in_utc(make: Maker, clock: Clock) -> None:
    samples(make.bot(), MIDNIGHT - timedelta(minutes=30), [1, 2, 5, 6], step=900)
    rollup.run()
    assert rolled(86400, "at", "rx_rate") == [(MIDNIGHT - timedelta(days=1), 1.5), (MIDNIGHT, 5.5)]


def test_each_pub_has_its_own_rows(make: Maker, clock: Clock) -> None:
    one, two = make.bot(), make.bot()
    samples(one, NOON - timedelta(minutes=1), [1, 3])
    samples(two, NOON - timedelta(minutes=1), [5, 7])
    rollup.run()
    assert set(rolled(60, "bot_id", "cpu")) == {(one.pk, 2), (two.pk, 6)}


def test_a_disk_of_unknown_size_weighs_nothing(make: Maker, clock: Clock) -> None:
    one, two = make.bot(), make.bot()
    unknown = {"disk_min": None, "disk": None, "disk_max": None}
    for bot, last in ((one, {}), (two, unknown)):
        sample(bot, NOON, 7, **unknown).save()
        sample(bot, NOON + timedelta(seconds=10), 7, **last).save()
    clock.set(NOON + timedelta(minutes=1))
    roll_all()
    for step in (60, 900, 86400):
        assert set(rolled(step, "bot_id", "count", "disk_min", "disk", "disk_max")) == {
            (one.pk, 2, 7, 7, 7),
            (two.pk, 2, None, None, None),
        }


@pytest.fixture
def bot(make: Maker) -> Bot:
    return make.bot()


@given(st.lists(st.one_of(st.none(), st.integers(0, 10**6)), min_size=1, max_size=400))
@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_roll_up_of_roll_ups_is_that_of_the_samples(bot: Bot, clock: Clock, values: list[int | None]) -> None:
    """And where no sample was, nothing is made up."""
    StatsSample.objects.all().delete()
    begin = NOON - timedelta(hours=1, minutes=10)
    seen = [(begin + timedelta(seconds=10 * i), value) for i, value in enumerate(values) if value is not None]
    StatsSample.objects.bulk_create(sample(bot, at, value) for at, value in seen)
    roll_all()
    for step in (60, 900, 86400):
        expected = []
        for start, group in groupby(seen, key=lambda each: each[0].timestamp() // step * step):
            inside = [value for _, value in group]
            mean = pytest.approx(sum(inside) / len(inside))
            expected.append((datetime.fromtimestamp(start, UTC), len(inside), min(inside), mean, max(inside)))
        assert rolled(step, "at", "count", "cpu_min", "cpu", "cpu_max") == expected


def test_each_figure_has_its_lowest_mean_and_highest(make: Maker, clock: Clock) -> None:
    """None is taken for another."""
    bot = make.bot()
    for factor in (1, 3):
        values = {column: factor * (10 + i) for i, column in enumerate(COLUMNS)}
        StatsSample.objects.create(bot=bot, step=10, at=NOON - timedelta(seconds=10 * factor), **values)
    rollup.run()
    row = StatsSample.objects.get(step=60)
    for metric in METRICS:
        low, mean, high = (10 + COLUMNS.index(f"{metric}{part}") for part in ("_min", "", "_max"))
        assert (getattr(row, f"{metric}_min"), getattr(row, metric)) == (low, 2 * mean)
        assert getattr(row, f"{metric}_max") == 3 * high


def test_twice_is_as_once(make: Maker, clock: Clock) -> None:
    samples(make.bot(), NOON - timedelta(hours=1), [float(i % 7) for i in range(360)])
    roll_all()
    before = [rolled(step, "bot_id", "at", "count", *COLUMNS) for step in (10, 60, 900, 86400)]
    roll_all()
    assert [rolled(step, "bot_id", "at", "count", *COLUMNS) for step in (10, 60, 900, 86400)] == before
    assert [len(rows) for rows in before] == [360, 60, 4, 1]


def test_the_newest_bucket_grows_with_its_samples(make: Maker, clock: Clock) -> None:
    bot = make.bot()
    samples(bot, NOON, [1, 1])
    clock.set(NOON + timedelta(seconds=20))
    rollup.run()
    samples(bot, NOON + timedelta(seconds=20), [4])
    clock.set(NOON + timedelta(seconds=30))
    rollup.run()
    assert rolled(60, "at", "count", "cpu") == [(NOON, 3, 2)]


def test_a_sample_that_comes_late_is_counted(make: Maker, clock: Clock) -> None:
    bot = make.bot()
    samples(bot, NOON, [1, 1, 1, 1, 1])
    sample(bot, NOON + timedelta(minutes=1), 1).save()
    clock.set(NOON + timedelta(seconds=65))
    rollup.run()
    sample(bot, NOON + timedelta(seconds=50), 7).save()
    rollup.run()
    assert rolled(60, "at", "count", "cpu")[0] == (NOON, 6, 2)


def test_what_a_beat_missed_is_caught_up(make: Maker, clock: Clock) -> None:
    bot = make.bot()
    samples(bot, NOON - timedelta(hours=4), [1] * 6)
    clock.set(NOON - timedelta(hours=4) + timedelta(minutes=1))
    roll_all()
    samples(bot, NOON - timedelta(minutes=45), [1] * 6 * 45)
    clock.set(NOON)
    roll_all()
    assert len(rolled(60, "at")) == 46
    assert rolled(900, "count") == [(6,)] + [(90,)] * 3
    assert rolled(86400, "count") == [(6 * 46,)]


def test_rows_go_only_when_they_are_in_coarser_ones(make: Maker, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    samples(make.bot(), NOON - timedelta(days=3), [1] * 12)
    rolls = rollup._roll
    monkeypatch.setattr(rollup, "_roll", fail_at(86400, rolls))
    with pytest.raises(ConnectionError):
        roll_all()
    assert len(rolled(10, "at")) == 12
    monkeypatch.setattr(rollup, "_roll", rolls)
    roll_all()
    assert rolled(10, "at") == rolled(60, "at") == []
    assert rolled(900, "count") == rolled(86400, "count") == [(12,)]


def fail_at(length: int, rolls: Callable[..., None]) -> Callable[..., None]:
    def roll(step: rollup.Step, now: datetime) -> None:
        if step.length == length:
            raise ConnectionError("the database is away")
        rolls(step, now)

    return roll


def test_a_bucket_never_loses_what_its_finer_rows_told(make: Maker, clock: Clock) -> None:
    """Those of a pub that has stopped go one by one, and its newest bucket is looked at all the time."""
    samples(make.bot(), NOON, [1, 2, 3, 4, 5, 9])
    clock.set(NOON + timedelta(minutes=1))
    rollup.run()
    clock.set(NOON + rollup.KEPT[10] + timedelta(seconds=35))
    rollup.run()
    rollup.run()
    assert rolled(10, "cpu") == [(5,), (9,)]
    assert rolled(60, "count", "cpu_min", "cpu", "cpu_max") == [(6, 1, 4, 9)]


@pytest.mark.parametrize(("step", "kept"), rollup.KEPT.items())
def test_rows_are_kept_as_long_as_a_page_shows_them(make: Maker, clock: Clock, step: int, kept: timedelta) -> None:
    bot, oldest = make.bot(), NOON - kept
    for at in (oldest - timedelta(seconds=1), oldest):
        sample(bot, at, step=step).save()
    cache.set_many({f"orchestrator.rolled.{coarse.length}": 1 for coarse in rollup.STEPS})
    rollup.run()
    assert rolled(step, "at") == [(oldest,)]


def test_much_that_is_old_goes_in_chunks(make: Maker, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollup, "CHUNK", 10)
    monkeypatch.setattr(rollup, "CHUNKS", 3)
    samples(make.bot(), NOON - timedelta(hours=3), [1] * 36)
    rollup.run()
    assert [at for (at,) in rolled(10, "at")] == [NOON - timedelta(hours=3, seconds=-10 * i) for i in range(30, 36)]
    rollup.run()
    assert rolled(10, "at") == []


def test_a_coarse_step_that_hardly_changes_is_made_seldom(make: Maker, clock: Clock) -> None:
    bot = make.bot()
    samples(bot, NOON - timedelta(minutes=2), [1] * 6)
    rollup.run()
    samples(bot, NOON - timedelta(minutes=1), [1] * 6)
    rollup.run()
    assert [rolled(step, "count") for step in (60, 900, 86400)] == [[(6,), (6,)], [(6,)], [(6,)]]
    roll_all()
    assert rolled(86400, "count") == [(12,)]


def test_a_sample_of_the_future_keeps_nothing_from_being_rolled(make: Maker, clock: Clock) -> None:
    """Some clock was wrong."""
    bot = make.bot()
    samples(bot, NOON + timedelta(days=300), [1])
    sample(bot, NOON + timedelta(days=300), step=60).save()
    samples(bot, NOON - timedelta(minutes=1), [3])
    rollup.run()
    assert rolled(60, "cpu") == [(3,), (1,)]


def test_more_pubs_need_no_more_queries(make: Maker, clock: Clock) -> None:
    def count() -> int:
        StatsSample.objects.all().delete()
        for each in Bot.objects.all():
            samples(each, NOON - timedelta(minutes=2), [1] * 12)
        cache.clear()
        with CaptureQueriesContext(
            connection,
        ) as asked:
            rollup.run()
        return len(asked)

    make.bot()
    few = count()
    for _ in range(7):
        make.bot()
    assert count() == few


def test_nothing_is_rolled_while_another_worker_does(make: Maker, clock: Clock) -> None:
    samples(make.bot(), NOON - timedelta(minutes=1), [1])
    with turn("roll up", 60):
        jobs.roll_up()
        assert rolled(60, "at") == []
    jobs.roll_up()
    assert len(rolled(60, "at")) == 1


def test_two_at_once_double_nothing(transactional_db: None, make: Maker, clock: Clock) -> None:
    """As when a worker stood still for longer than its turn."""
    bots = [make.bot() for _ in range(3)]
    for bot in bots:
        samples(bot, NOON - timedelta(minutes=30), [1, 2, 3] * 60)
    failed: list[Exception] = []

    def roll() -> None:
        try:
            rollup.run()
        except Exception as error:
            failed.append(error)
        finally:
            connection.close()

    both = [threading.Thread(target=roll) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert failed == []
    assert rolled(60, "count", "cpu") == [(6, 2)] * 30 * 3
    assert rolled(86400, "count", "cpu") == [(180, 2)] * 3
