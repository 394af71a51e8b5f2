"""What a pub used over time: read, on its page, as a table and through the API."""

import csv
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rest_framework.test import APIClient

from pubs import history
from pubs.models import METRICS, Bot, StatsSample
from tests.support.make import Maker
from tests.support.sample import sample

NOW = datetime(2026, 12, 3, 14, 5, 33, tzinfo=UTC)
LENGTHS = {"1h": 360, "24h": 1440, "7d": 672, "30d": 2880, "1y": 365}
BAD = ["2h", "", "24H", "1y ", "' OR 1=1"]


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> datetime:
    monkeypatch.setattr(history.timezone, "now", lambda: NOW)
    return NOW


@pytest.fixture
def bot(make: Maker) -> Bot:
    return make.bot(name="Harbour Garden")


def floored(step: int) -> datetime:
    return datetime.fromtimestamp(NOW.timestamp() // step * step, UTC)


def keep(bot: Bot, slots: dict[int, float], name: str = "24h", **other: Any) -> None:
    """A value for some slots, counted back from the newest, which is 0."""
    step = history.RANGES[name].step
    last = floored(step)
    StatsSample.objects.bulk_create(
        sample(bot, last - timedelta(seconds=step * back), value, step=step, **other) for back, value in slots.items()
    )


# --- read ---
@pytest.mark.parametrize("name", history.RANGES)
def test_a_range_has_a_slot_for_each_step_up_to_now(bot: Bot, name: str, django_assert_num_queries: Any) -> None:
    keep(bot, {0: 1, LENGTHS[name] - 1: 2, LENGTHS[name]: 3, -1: 4}, name)
    with django_assert_num_queries(1):
        found = history.read(bot, name)
    step = found.range.step
    assert len(found.times) == len(found.counts) == LENGTHS[name]
    assert datetime.fromtimestamp(found.times[-1], UTC) == floored(step)
    assert {later - sooner for sooner, later in zip(found.times, found.times[1:], strict=False)} == {step}
    assert all(len(column) == LENGTHS[name] for column in found.columns.values())
    assert [value for value in found.columns["cpu"] if value is not None] == [2, 1]


def test_a_range_reads_its_own_step_and_pub(bot: Bot, make: Maker) -> None:
    keep(bot, {3: 7}, "24h")
    keep(bot, {3: 8}, "1h")
    keep(make.bot(), {3: 9}, "24h")
    assert [value for value in history.read(bot, "24h").columns["memory"] if value is not None] == [7]


@given(st.dictionaries(st.integers(0, 359), st.floats(0, 1e9)))
@hypothesis_settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_gap_stays_a_gap(bot: Bot, slots: dict[int, float]) -> None:
    StatsSample.objects.all().delete()
    keep(bot, slots, "1h")
    found = history.read(bot, "1h")
    expected = [slots.get(359 - slot) for slot in range(360)]
    for column in found.columns.values():
        assert [value is None for value in column] == [value is None for value in expected]
    assert found.columns["cpu"] == expected
    assert found.is_empty == (not slots)


def test_each_figure_stands_in_its_own_column(bot: Bot) -> None:
    values = {column: 10.0 + i for i, column in enumerate(history.COLUMNS)}
    StatsSample.objects.create(bot=bot, step=60, at=floored(60), count=6, **values)
    found = history.read(bot, "24h")
    assert {column: found.columns[column][-1] for column in values} == values
    assert found.metric("disk").max[-1] == values["disk_max"]


def test_extents_weigh_what_has_more_samples_more(bot: Bot) -> None:
    keep(bot, {1: 10}, count=6, cpu_min=4, cpu_max=30)
    keep(bot, {0: 40}, count=3, cpu_min=39, cpu_max=90)
    assert history.read(bot, "24h").extents["cpu"] == (4, 20, 90)


def test_a_disk_of_unknown_size_has_no_extent(bot: Bot) -> None:
    keep(bot, {1: 1}, disk_min=None, disk=None, disk_max=None)
    extents = history.read(bot, "24h").extents
    assert extents["disk"] is None
    assert extents["cpu"] == (1, 1, 1)


# --- the page ---
def test_a_page_tells_lowest_mean_and_highest_without_script(client: Client, bot: Bot) -> None:
    keep(bot, {1: 1024, 5: 3072}, cpu_min=1.2, cpu=3.4, cpu_max=56.7)
    client.force_login(bot.owner)
    page = client.get(reverse("pubs:history", args=[bot.pk])).content.decode()
    assert '<th scope="row">Used</th><td>1.2 %</td><td>3.4 %</td><td>56.7 %</td>' in page
    assert '<th scope="row">Out</th><td>1 kB/s</td><td>2 kB/s</td><td>3 kB/s</td>' in page
    assert "It may use 1 GB." in page and "It may use 10 GB." in page
    assert 'href="?range=24h" aria-current="page"' in page
    assert f'data-url="{reverse("api-history", args=[bot.pk])}?range=24h"' in page


@pytest.mark.parametrize("name", history.RANGES)
def test_each_range_has_its_link_and_page(client: Client, bot: Bot, name: str) -> None:
    keep(bot, {2: 1}, name)
    client.force_login(bot.owner)
    page = client.get(reverse("pubs:history", args=[bot.pk]), {"range": name}).content.decode()
    assert f'href="?range={name}" aria-current="page">{history.RANGES[name].title.capitalize()}</a>' in page
    assert f"highest value of each {history.RANGES[name].each}." in page
    assert ("midnight UTC" in page) == (name == "1y")


def test_of_a_pub_that_never_ran_a_page_says_so(client: Client, bot: Bot) -> None:
    client.force_login(bot.owner)
    page = client.get(reverse("pubs:history", args=[bot.pk])).content.decode()
    assert "Nothing was measured in the last 24 hours." in page
    assert "data-metrics" not in page


def test_the_numbers_of_a_page_need_few_queries(client: Client, bot: Bot, django_assert_max_num_queries: Any) -> None:
    keep(bot, dict.fromkeys(range(672), 1), "7d")
    client.force_login(bot.owner)
    with django_assert_max_num_queries(6):  # session, user, bot, samples, checkup, days
        client.get(reverse("pubs:history", args=[bot.pk]), {"range": "7d"})


# --- the table ---
def table(client: Client, bot: Bot, name: str) -> list[dict[str, str]]:
    answer = client.get(reverse("pubs:history_csv", args=[bot.pk]), {"range": name})
    assert answer.status_code == 200
    return list(csv.DictReader(StringIO(answer.content.decode())))


def test_a_table_says_its_units_and_times(client: Client, bot: Bot) -> None:
    keep(bot, {0: 2048}, "1h", cpu_max=12.5)
    client.force_login(bot.owner)
    rows = table(client, bot, "1h")
    assert len(rows) == 360
    newest = rows[-1]
    assert newest["time_utc"] == "2026-12-03T14:05:30+00:00"
    assert (newest["seconds"], newest["samples"], newest["cpu_max_percent"]) == ("10", "1", "12.5")
    assert float(newest["rx_rate_mean_bytes_per_second"]) == float(newest["disk_min_bytes"]) == 2048
    assert len(newest) == 3 + 3 * len(METRICS)


def test_a_gap_in_a_table_is_empty_cells(client: Client, bot: Bot) -> None:
    keep(bot, {0: 1, 2: 1}, "7d")
    client.force_login(bot.owner)
    gap = table(client, bot, "7d")[-2]
    assert (gap.pop("time_utc"), gap.pop("seconds")) == ("2026-12-03T13:45:00+00:00", "900")
    assert set(gap.values()) == {""}


def test_a_table_is_a_file_with_a_name(client: Client, make: Maker) -> None:
    client.force_login(make.user())
    names = {}
    for bot in (make.bot(name='Ada\'s "pub", with; café'), make.bot(name="日本")):
        answer = client.get(reverse("pubs:history_csv", args=[bot.pk]), {"range": "30d"})
        names[bot.name] = answer["Content-Disposition"]
        assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert list(names.values()) == [
        'attachment; filename="adas-pub-with-cafe-30d.csv"',
        'attachment; filename="pub-30d.csv"',
    ]


# --- the API ---
def ask(owner: Any, bot: Bot, **query: str) -> Any:
    api = APIClient()
    api.force_authenticate(owner)
    return api.get(f"/api/v1/pubs/{bot.pk}/history/", query)


def test_the_api_gives_columns_with_null_in_gaps(bot: Bot) -> None:
    keep(bot, {0: 5, 2: 7}, "30d", tx_rate_max=11)
    told = ask(bot.owner, bot, range="30d").json()
    assert (told["range"], told["step"], len(told["times"])) == ("30d", 900, 2880)
    assert told["times"][-1] == int(floored(900).timestamp())
    assert set(told["metrics"]) == set(METRICS)
    assert {part: values[-3:] for part, values in told["metrics"]["tx_rate"].items()} == {
        "min": [7, None, 5],
        "mean": [7, None, 5],
        "max": [11, None, 11],
    }


def test_the_api_gives_a_day_if_nothing_is_said(bot: Bot) -> None:
    assert ask(bot.owner, bot).json()["range"] == "24h"


@pytest.mark.parametrize("name", BAD)
def test_a_range_that_is_none_is_refused_with_those_there_are(client: Client, bot: Bot, name: str) -> None:
    answer = ask(bot.owner, bot, range=name)
    assert (answer.status_code, answer.json()) == (400, {"range": ["Choose one of 1h, 24h, 7d, 30d, 1y."]})
    client.force_login(bot.owner)
    for view in ("history", "history_csv"):
        assert client.get(reverse(f"pubs:{view}", args=[bot.pk]), {"range": name}).status_code == 400


# --- whose it is ---
def test_the_history_of_another_is_not_found(client: Client, make: Maker, bot: Bot) -> None:
    bob = make.user("bob")
    client.force_login(bob)
    for view in ("history", "history_csv"):
        assert client.get(reverse(f"pubs:{view}", args=[bot.pk])).status_code == 404
    assert ask(bob, bot).status_code == 404


def test_nobody_reads_a_history(client: Client, bot: Bot) -> None:
    for view in ("history", "history_csv"):
        address = reverse(f"pubs:{view}", args=[bot.pk])
        answer = client.get(address)
        assert (answer.status_code, answer["Location"]) == (302, f"{reverse('account_login')}?next={address}")
    assert APIClient().get(f"/api/v1/pubs/{bot.pk}/history/").status_code == 401


def test_the_history_of_a_deleted_pub_is_not_found(client: Client, bot: Bot) -> None:
    bot.delete_softly()
    client.force_login(bot.owner)
    assert client.get(reverse("pubs:history", args=[bot.pk])).status_code == 404
    assert ask(bot.owner, bot).status_code == 404
