"""How full a pub's disk is, and when it will be full."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from pubs import disk
from pubs.models import Bot, Checkup, StatsSample
from tests.support.make import Maker
from tests.support.sample import sample

MB = 1024**2
GB = 1024**3
FIRST = datetime(2026, 11, 1, tzinfo=UTC)


def days(*sizes: float) -> list[tuple[datetime, float]]:
    return [(FIRST + timedelta(days=i), size) for i, size in enumerate(sizes)]


def look(size: float | None, *sizes: float, limit: int = 10 * GB, is_largest: bool = False) -> disk.Outlook:
    return disk.look_ahead(None if size is None else int(size), limit, days(*sizes), is_largest)


def test_a_pub_that_grows_says_when_it_is_full() -> None:
    outlook = look(6 * GB, *(2 * GB + 100 * MB * day for day in range(28)))
    assert outlook.growth_per_day == pytest.approx(100 * MB)
    assert outlook.full_in == timedelta(days=4 * GB / (100 * MB))
    assert outlook.words == "It takes 6 GB of 10 GB. It grows by 100 MB a day, and is full in about 40 days."


@pytest.mark.parametrize(
    ("ahead", "words"),
    [
        (0.4, "within a day or two"),
        (2, "in about 2 days"),
        (14.4, "in about 14 days"),
        (38, "in about 40 days"),
        (88, "in about 90 days"),
        (91, "in about 3 months"),
        (600, "in about 20 months"),
    ],
)
def test_a_forecast_is_no_more_exact_than_it_can_be(ahead: float, words: str) -> None:
    assert disk.time_words(timedelta(days=ahead)) == words


@pytest.mark.parametrize("sizes", [[GB] * 28, [GB - MB * day for day in range(28)]])
def test_a_pub_that_does_not_grow_is_never_full(sizes: list[float]) -> None:
    outlook = look(GB, *sizes)
    assert (outlook.full_in, outlook.words) == (None, "It takes 1 GB of 10 GB. It is not growing.")


def test_a_pub_that_hardly_grows_lasts_for_years() -> None:
    outlook = look(GB, *(GB + MB * day for day in range(28)))
    assert outlook.full_in is None
    assert "so slowly that it lasts for years" in outlook.words


@pytest.mark.parametrize("known", range(disk.DAYS_NEEDED))
def test_of_a_new_pub_it_is_too_early_to_say(known: int) -> None:
    outlook = look(GB, *(GB * day for day in range(known)))
    assert (outlook.growth_per_day, outlook.full_in) == (None, None)
    assert "too early to say" in outlook.words


def test_a_size_that_is_not_known_is_not_made_up() -> None:
    outlook = look(None, GB, GB, GB)
    assert (outlook.size, outlook.percent, outlook.level, outlook.todo) == (None, None, 0, "")
    assert "not known yet" in outlook.words


grown = st.lists(st.floats(1, 50 * MB), min_size=4, max_size=28)


@given(grown, st.data())
def test_tidying_up_is_no_growth_backwards(steps: list[float], data: st.DataObject) -> None:
    """But for the day itself, the volume grows as it did before."""
    sizes = [5 * GB + sum(steps[:i]) for i in range(len(steps))]
    at = data.draw(st.integers(1, len(sizes) - 1))
    freed = data.draw(st.floats(0.1, 0.9)) * sizes[at]
    tidied = [size - freed * (i >= at) for i, size in enumerate(sizes)]
    usual, after = disk.growth_per_day(days(*sizes)), disk.growth_per_day(days(*tidied))
    assert usual and after
    assert after == pytest.approx(usual, abs=max(steps))
    assert after >= 0


@given(st.floats(1, 100 * MB), st.floats(0, 10 * GB), st.integers(3, 28))
def test_a_steady_growth_is_found(growth: float, start: float, count: int) -> None:
    found = disk.growth_per_day(days(*(start + growth * i for i in range(count))))
    assert found == pytest.approx(growth, rel=0.01, abs=1)


def test_the_leap_of_a_first_day_does_not_bend_a_forecast() -> None:
    """A pub first fetches all that its people ever wrote."""
    sizes = [10 * MB, *(800 * MB + 10 * MB * day for day in range(9))]
    assert disk.growth_per_day(days(*sizes)) == pytest.approx(10 * MB, rel=0.5)


def test_days_without_samples_count_as_time() -> None:
    points = [point for point in days(*(GB + 10 * MB * day for day in range(20))) if not 5 < point[0].day < 15]
    assert disk.growth_per_day(points) == pytest.approx(10 * MB)


@pytest.mark.parametrize(
    ("percent", "level", "todo"),
    [(79.9, 0, ""), (80, 80, "Choose a larger size before it is full"), (95, 95, "Choose a larger size now")],
)
def test_from_80_and_95_percent_on_it_says_what_to_do(percent: float, level: int, todo: str) -> None:
    outlook = look(percent * 10**6, limit=10**8)
    assert outlook.level == level
    assert outlook.todo.startswith(todo)
    assert bool(outlook.todo) == bool(todo)


@pytest.mark.parametrize(("used", "is_told"), [(6, False), (7.5, True)])
def test_what_will_be_full_within_a_week_is_told_below_80_percent_too(used: float, is_told: bool) -> None:
    outlook = look(used * GB, *(GB + 400 * MB * day for day in range(9)))
    assert outlook.level == 0 and outlook.full_in
    assert bool(outlook.todo) is is_told is (outlook.full_in <= disk.SOON)


def test_the_largest_size_has_no_larger_one() -> None:
    assert look(9 * GB, is_largest=True).todo.startswith("It has the largest size")


def test_a_full_disk_is_full_and_not_full_again() -> None:
    outlook = look(11 * GB, *(GB * day for day in range(11)))
    assert (outlook.full_in, outlook.percent) == (None, pytest.approx(110))
    assert outlook.words == "It takes 11 GB of 10 GB. That is all that its size entitles it to."


def test_the_quota_goes_by_the_size_that_is_paid_for(make: Maker, settings: Any) -> None:
    settings.PUB_DISK_GB = 5
    assert disk.quota(make.bot(memory_gb=1)) == 5 * GB
    assert disk.quota(make.bot(memory_gb=4)) == 20 * GB


def grow(bot: Bot) -> None:
    """A day's row for each of 30 days, with 100 MB more each."""
    today = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    sizes = {today - timedelta(days=30 - day): 2 * GB + 100 * MB * day for day in range(31)}
    # Today has only begun, and a mean of its beginning says nothing yet.
    sizes[today] = 0
    StatsSample.objects.bulk_create(
        sample(bot, at, 1, step=86400, disk_min=size, disk=size, disk_max=size) for at, size in sizes.items()
    )
    Checkup.objects.create(bot=bot, disk=6 * GB)


def test_an_outlook_reads_the_days_that_are_complete(make: Maker, django_assert_num_queries: Any) -> None:
    bot, other = make.bot(), make.bot()
    grow(bot)
    sample(other, timezone.now() - timedelta(days=2), 7, step=86400).save()
    seen = Bot.objects.get(pk=bot.pk)
    with django_assert_num_queries(2):
        outlook = disk.outlook(seen)
    assert (outlook.size, outlook.quota) == (6 * GB, 10 * GB)
    assert outlook.growth_per_day == pytest.approx(100 * MB)
    assert disk.outlook(other).size is None


def test_today_is_no_day_yet(make: Maker) -> None:
    bot = make.bot()
    grow(bot)
    StatsSample.objects.filter(at__lt=timezone.now() - timedelta(days=disk.DAYS_NEEDED)).delete()
    assert bot.samples.count() == disk.DAYS_NEEDED
    assert disk.outlook(bot).growth_per_day is None


def test_a_page_says_the_outlook_and_what_to_do(client: Client, make: Maker) -> None:
    bot = make.bot()
    grow(bot)
    Checkup.objects.update(disk=int(9.6 * GB), answered_at=timezone.now() - timedelta(days=3))
    client.force_login(make.user())
    page = client.get(reverse("pubs:history", args=[bot.pk])).content.decode()
    assert "It takes 9.6 GB of 10 GB. It grows by 100 MB a day, and is full in about 4 days." in page
    assert 'value="96">96 %</meter>' in page
    assert re.search('Measured <span data-age="[^"]+">3 days ago</span>', page)
    assert '<p class="note bad">Choose a larger size now' in page


def test_the_page_of_a_pub_looks_once_how_its_disk_grows(client: Client, make: Maker) -> None:
    bot = make.bot(paid=True, status="up")
    grow(bot)
    Checkup.objects.update(answered_at=timezone.now())
    client.force_login(bot.owner)
    with CaptureQueriesContext(connection) as queries:
        page = client.get(bot.get_absolute_url()).content.decode()
    assert page.count("It takes 6 GB of 10 GB.") == 2  # in the panel and beside the meter
    for table in ("pubs_statssample", "pubs_checkup"):
        assert len([query for query in queries if f'FROM "{table}"' in query["sql"]]) == 1


def test_of_a_disk_of_unknown_size_a_page_draws_nothing(client: Client, make: Maker) -> None:
    client.force_login(make.user())
    page = client.get(reverse("pubs:history", args=[make.bot().pk])).content.decode()
    assert "Its size is not known yet" in page
    assert "<meter" not in page
