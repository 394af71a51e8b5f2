"""One list of all that happened to a pub, the newest first, a page at a time."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.test import Client
from rest_framework.test import APIClient

from accounts.models import User
from pubs.models import Bot, Command, Event, PaymentChange, StatusChange
from pubs.timeline import KINDS, read
from tests.support.make import Maker

NOON = datetime(2026, 12, 3, 12, tzinfo=UTC)
Queries = Any


@pytest.fixture
def bot(make: Maker) -> Bot:
    return make.bot(paid=True)


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def changed(bot: Bot, new: str, minutes: float, old: str = "none", reason: str = "") -> None:
    row = StatusChange.objects.create(bot=bot, old=old, new=new, reason=reason)
    StatusChange.objects.filter(pk=row.pk).update(at=at(minutes))


def paid(bot: Bot, old: str, new: str, minutes: float, **more: Any) -> None:
    row = PaymentChange.objects.create(bot=bot, old=old, new=new, **more)
    PaymentChange.objects.filter(pk=row.pk).update(at=at(minutes))


def asked(bot: Bot, by: User | None, minutes: float, name: str = "create_invite", **more: Any) -> Command:
    row = Command.objects.create(bot=bot, by=by, name=name, **more)
    Command.objects.filter(pk=row.pk).update(created=at(minutes))
    return row


def some_of_all(bot: Bot) -> None:
    Event.note(bot.pk, Event.Kind.PLACED, at=at(0), hub="hub-7")
    changed(bot, "up", 1)
    asked(bot, bot.owner, 2, state="done", result={"invite": "secret-invite"})
    Event.note(bot.pk, Event.Kind.CRASHED, "It was ended from outside.", at=at(3), exit_code=137)
    changed(bot, "down", 4, old="up", reason="It crashed.")
    paid(bot, "paid", "grace", 5, words="The last payment failed.")


def whats(bot: Bot, **more: Any) -> list[str]:
    return [line.what for line in read(bot, **more)]


def test_the_timeline_tells_all_that_happened_the_newest_first(bot: Bot) -> None:
    some_of_all(bot)
    lines = [(line.kind, line.was, line.what, line.words) for line in read(bot)]
    assert lines == [
        ("payment", "", "payment failed", "The last payment failed."),
        ("status", "up", "not answering", "It crashed."),
        ("crashes", "", "crashed", "It was ended from outside. Exit code 137."),
        ("commands", "", "Create invite", "Done"),
        ("status", "not running", "up", ""),
        ("machine", "", "got its place on a machine", ""),
    ]


def test_money_given_back_is_told_in_its_own_words_alone(bot: Bot) -> None:
    paid(bot, "paid", "paid", 0, words="€9 was given back.")
    assert [(line.what, line.words) for line in read(bot)] == [("€9 was given back.", "")]


def test_who_asked_is_you_or_our_staff_or_nobody(bot: Bot, make: Maker) -> None:
    for minutes, by in enumerate([None, make.user("staff", is_staff=True), bot.owner]):
        asked(bot, by, minutes)
    assert [line.who for line in read(bot)] == ["you", "our staff", ""]


def test_a_command_that_failed_says_why_and_leads_to_its_answer(bot: Bot) -> None:
    command = asked(bot, bot.owner, 0, state="failed", error="It holds its feed back.")
    [line] = read(bot)
    assert (line.words, line.tone) == ("Failed: It holds its feed back.", "bad")
    assert line.url.endswith(f"/commands/{command.pk}/")


def test_a_trouble_is_one_line_that_says_whether_it_is_over(bot: Bot) -> None:
    times = {"began": at(3), "back_at": at(3), "last_at": at(3)}
    bot.troubles.create(kind="memory", words="It used 1 GB of its 1 GB.", ended=at(9), **times)
    bot.troubles.create(kind="unknown", **times | {"began": at(5)})
    bot.troubles.create(kind="down", **times)  # the status tells it
    assert [(line.kind, line.what, line.words, line.tone) for line in read(bot)] == [
        ("troubles", "its machine is out of sight", "Not over yet.", "bad"),
        (
            "troubles",
            "its memory is nearly full",
            "It used 1 GB of its 1 GB. Over since 3 December 2026, 12:09 UTC.",
            "off",
        ),
    ]


def test_a_kind_alone_and_all_kinds_together_are_the_same_lines(bot: Bot) -> None:
    some_of_all(bot)
    assert {line for kind in KINDS for line in read(bot, kind=kind)} == set(read(bot))
    assert {line.kind for line in read(bot, kind="crashes")} == {"crashes"}


def pages(bot: Bot, limit: int, kind: str = "") -> list[Any]:
    """All lines, a page after the other."""
    found, before = [], None
    while page := read(bot, before, limit, kind):
        assert len(page) <= limit
        found, before = [*found, *page], page[-1].cursor
    return found


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_page_after_page_gives_each_line_once_though_many_are_of_one_moment(bot: Bot, limit: int) -> None:
    for minutes in (0, 0, 0, 1):
        changed(bot, "up", minutes)
        paid(bot, "paid", "grace", minutes)
        asked(bot, bot.owner, minutes)
        Event.note(bot.pk, Event.Kind.CRASHED, at=at(minutes))
        Event.note(bot.pk, Event.Kind.MOVED, at=at(minutes))
    lines = pages(bot, limit)
    assert len(lines) == len(set(lines)) == 20
    assert lines == read(bot, limit=20)


def test_a_moment_begins_a_page_too(bot: Bot) -> None:
    some_of_all(bot)
    assert whats(bot, before=at(1).isoformat()) == ["got its place on a machine"]


@pytest.mark.parametrize(
    "nonsense",
    ["yesterday", "2026-12-03", "2026-12-03T12:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"]
    + [f"2026-12-03T12:00:00Z_{end}" for end in ("a_b", "0", "0_x", "4_7", f"0_{UUID(int=1)}", "9_1")],
)
def test_what_is_no_place_in_the_timeline_is_refused(bot: Bot, nonsense: str) -> None:
    with pytest.raises(ValueError):
        read(bot, before=nonsense)


def test_a_page_takes_as_many_queries_for_much_as_for_little(
    bot: Bot, django_assert_num_queries: Queries, django_assert_max_num_queries: Queries
) -> None:
    for minutes in range(40):
        some_of_all(bot)
        changed(bot, "up", minutes)
    with django_assert_num_queries(6):
        assert len(read(bot, at(30).isoformat(), limit=25)) == 25


# --- the page --------------------------------------------------------------------------------------------------------
def page(client: Client, bot: Bot, **query: str) -> Any:
    client.force_login(bot.owner)
    return client.get(f"/pubs/{bot.pk}/timeline/", query)


def test_the_page_has_a_heading_for_each_day_and_leads_to_what_is_older(client: Client, bot: Bot) -> None:
    for day in range(52):
        changed(bot, "up", -day * 24 * 60, reason=f"Day {day}.")
    text = page(client, bot).text
    assert "3 December 2026" in text and "2 December 2026" in text
    assert "Day 49." in text and "Day 50." not in text
    [older] = re.findall(r'rel="next" href="([^"]+)"', text)
    text = client.get(f"/pubs/{bot.pk}/timeline/{unescape(older)}").text
    assert "Day 50." in text and "Day 51." in text and "Day 49." not in text and "Older" not in text


def test_the_page_shows_one_kind_when_it_is_asked_for(client: Client, bot: Bot) -> None:
    some_of_all(bot)
    text = page(client, bot, kind="payment").text
    assert "payment failed" in text and "It crashed." not in text


def test_the_page_tells_neither_an_answer_nor_the_name_of_a_machine(client: Client, bot: Bot) -> None:
    some_of_all(bot)
    text = page(client, bot).text
    assert "secret-invite" not in text and "hub-7" not in text


@pytest.mark.parametrize("query", [{"kind": "backups"}, {"before": "yesterday"}])
def test_a_page_that_is_none_is_not_found(client: Client, bot: Bot, query: dict[str, str]) -> None:
    assert page(client, bot, **query).status_code == 404


def test_the_timeline_of_another_customer_is_not_found(client: Client, bot: Bot, make: Maker) -> None:
    client.force_login(make.user("bob"))
    assert client.get(f"/pubs/{bot.pk}/timeline/").status_code == 404


def test_the_pubs_own_page_shows_the_newest_ten_and_leads_to_all(client: Client, bot: Bot) -> None:
    for minutes in range(12):
        changed(bot, "up", minutes, reason=f"Line {minutes}.")
    client.force_login(bot.owner)
    text = client.get(bot.get_absolute_url()).text
    assert "Line 11." in text and "Line 2." in text and "Line 1." not in text
    assert f'href="/pubs/{bot.pk}/timeline/"' in text


# --- the API ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def api(bot: Bot) -> APIClient:
    client = APIClient()
    client.force_authenticate(bot.owner)
    return client


def test_the_api_gives_the_same_lines_page_after_page(api: APIClient, bot: Bot) -> None:
    for minutes in range(60):
        changed(bot, "up", minutes)
    first = api.get(f"/api/v1/pubs/{bot.pk}/timeline/").json()
    rest = api.get(first["next"]).json()
    assert (len(first["results"]), len(rest["results"]), rest["next"]) == (50, 10, None)
    assert first["results"][0] == {
        "at": "2026-12-03T12:59:00Z",
        "kind": "status",
        "what": "up",
        "was": "not running",
        "words": "",
        "who": "",
    }


def test_the_api_gives_one_kind(api: APIClient, bot: Bot) -> None:
    some_of_all(bot)
    answer = api.get(f"/api/v1/pubs/{bot.pk}/timeline/", {"kind": "crashes"}).json()
    assert [line["what"] for line in answer["results"]] == ["crashed"]


@pytest.mark.parametrize("query", [{"kind": "backups"}, {"before": "yesterday"}])
def test_the_api_refuses_what_it_does_not_know(api: APIClient, bot: Bot, query: dict[str, str]) -> None:
    answer = api.get(f"/api/v1/pubs/{bot.pk}/timeline/", query)
    assert answer.status_code == 400 and list(answer.json()) == list(query)


def test_the_api_knows_no_timeline_of_others(api: APIClient, bot: Bot, make: Maker) -> None:
    for pk in (make.bot(make.user("bob")).pk, uuid4()):
        assert api.get(f"/api/v1/pubs/{pk}/timeline/").status_code == 404


def test_the_page_stays_in_no_cache(client: Client, bot: Bot) -> None:
    client.force_login(bot.owner)
    assert "no-store" in client.get(f"/pubs/{bot.pk}/timeline/")["Cache-Control"]
