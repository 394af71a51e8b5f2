"""Is my pub working? What is known of it, in words that its owner understands."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.template.loader import render_to_string
from django.utils import timezone
from rest_framework.test import APIClient

from pubs import disk, working
from pubs.models import Bot, Checkup, Status
from pubs.working import Answer, answers, newest_version, verdict
from tests.support.make import Maker
from tests.support.sample import sample

pytestmark = pytest.mark.django_db
GB = 1024**3


def ago(**past: float) -> Any:
    return timezone.now() - timedelta(**past)


@pytest.fixture
def bot(make: Maker) -> Bot:
    """Up for an hour."""
    return make.bot(
        paid=True,
        status=Status.UP,
        seen_at=ago(seconds=5),
        changed_at=ago(hours=1),
        started_at=ago(hours=1),
        address="pub.example:24000",
        ssb_id="@x.ed25519",
    )


WELL = {
    "handshake_ms": 41.3,
    "sequence": 12,
    "messages": 3400,
    "peers": 3,
    "followers": 7,
    "members": 5,
    "disk": GB,
}


def check(bot: Bot, **columns: Any) -> Bot:
    """What the newest looks found: all well, but for these columns."""
    times = {name: ago(seconds=20) for name in ("tried_at", "reached_at", "asked_at", "answered_at")}
    values = {**times, "synced_at": ago(minutes=4), "version": newest_version(), **WELL, **columns}
    Checkup.objects.update_or_create(bot=bot, defaults=values)
    return Bot.objects.get(pk=bot.pk)


def answer(bot: Bot, name: str) -> Answer:
    return {each.name: each for each in answers(bot)}[name]


def test_a_pub_that_works_says_so_and_asks_nothing_of_its_owner(bot: Bot) -> None:
    bot = check(bot)
    assert verdict(bot) == working.Verdict("good", "Your pub works: it runs, and people can reach it.")
    assert {each.state for each in answers(bot)} == {"good"}
    assert not any(each.todo for each in answers(bot))
    names = ["running", "reachable", "messages", "feed", "peers", "followers", "version", "disk"]
    assert [each.name for each in answers(bot)] == names
    assert all(each.at for each in answers(bot))


def test_the_words_give_the_numbers_with_their_units_and_ages(bot: Bot) -> None:
    bot = check(bot)
    said = {each.name: each.words for each in answers(bot)}
    assert "in 41 ms" in said["reachable"] and "pub.example:24000" in said["reachable"]
    assert said["messages"] == "The last message of somebody else came in 4 min ago. It holds 3\u202f400 messages."
    assert "12 messages" in said["feed"]
    assert said["peers"] == "3 peers just now."
    assert said["followers"] == "7 followers, and it follows 5."
    assert newest_version() in said["version"]
    assert "1 GB of 10 GB" in said["disk"]


@pytest.mark.parametrize(
    ("columns", "state"),
    [
        ({"switched_on": False, "status": Status.NONE}, "off"),
        ({"paid": False, "status": Status.NONE}, "off"),
        ({"switched_on": False}, "off"),
    ],
)
def test_a_pub_that_should_not_run_is_asked_nothing_and_the_verdict_says_why(
    bot: Bot, columns: dict[str, Any], state: str
) -> None:
    Bot.objects.filter(pk=bot.pk).update(**columns)
    bot = check(bot)
    assert answers(bot) == []
    assert verdict(bot).state == state and verdict(bot).words


@pytest.mark.parametrize(
    ("columns", "state"),
    [
        ({"rests_until": ago(minutes=-10), "reason": "It crashed six times, and rests."}, "bad"),
        ({"lost_at": timezone.now(), "reason": "The machine that it lived on is lost."}, "bad"),
        ({"moving": True}, "off"),
    ],
)
def test_a_pub_that_can_not_run_says_why_and_what_was_known_of_it(
    bot: Bot, columns: dict[str, Any], state: str
) -> None:
    Bot.objects.filter(pk=bot.pk).update(status=Status.NONE, **columns)
    bot = check(bot)
    running, reachable, *said = answers(bot)
    assert (running.state, running.words) == (state, columns.get("reason", verdict(bot).words))
    assert (reachable.state, verdict(bot).state) == ("off", state)
    assert {each.state for each in said} == {"unknown"} and all("ago." in each.words and each.at for each in said)
    assert "Is my pub working?" in draw(bot)


def test_of_a_pub_that_never_ran_nothing_is_known(bot: Bot) -> None:
    Bot.objects.filter(pk=bot.pk).update(status=Status.NONE, started_at=None)
    assert [each.name for each in answers(Bot.objects.get())] == ["running"]


def test_a_pub_out_of_sight_is_unknown_and_not_down(bot: Bot) -> None:
    Bot.objects.filter(pk=bot.pk).update(unknown_since=ago(minutes=5), seen_at=ago(minutes=5))
    bot = check(bot)
    assert answer(bot, "running").state == "unknown" and "It was up" in answer(bot, "running").words
    assert verdict(bot).state == "unknown"


def test_a_pub_that_fails_its_health_check_says_why_and_what_to_do(bot: Bot) -> None:
    reason = "It ended with an error, and starts again."
    Bot.objects.filter(pk=bot.pk).update(status=Status.DOWN, reason=reason)
    bot = check(bot)
    assert answer(bot, "running") == Answer(
        "running", "Does it run?", "bad", reason, working.WRITE_TO_US, at=bot.seen_at
    )
    assert verdict(bot).state == "bad"


def test_a_pub_that_just_starts_is_neither_good_nor_bad(bot: Bot) -> None:
    Bot.objects.filter(pk=bot.pk).update(status=Status.DOWN, started_at=ago(seconds=5))
    bot = check(bot)
    assert answer(bot, "running").state == "off" and verdict(bot).state == "off"


def test_one_that_nobody_can_reach_is_bad_although_it_runs(bot: Bot) -> None:
    bot = check(bot, unreached="nobody listens at its address.", reached_at=ago(hours=2))
    found = answer(bot, "reachable")
    assert found.state == "bad" and found.todo
    assert found.words == "No: nobody listens at its address. We last reached it 2 h ago."
    assert verdict(bot).words == "Your pub runs, but nobody can reach it."


def test_one_failed_try_is_not_yet_bad(bot: Bot) -> None:
    bot = check(bot, unreached="there was no answer in time.", reached_at=ago(seconds=80))
    assert answer(bot, "reachable").state == "unknown"
    assert verdict(bot).state == "unknown"


def test_one_that_was_not_tried_lately_is_unknown(bot: Bot) -> None:
    assert answer(bot, "reachable").state == "unknown"
    assert answer(check(bot, tried_at=ago(minutes=10)), "reachable").state == "unknown"


def test_what_it_said_long_ago_is_shown_with_its_age_and_without_colour(bot: Bot) -> None:
    bot = check(bot, answered_at=ago(hours=3), unanswered="It was too busy to answer.")
    found = answer(bot, "followers")
    assert found.state == "unknown"
    assert found.words == "7 followers, and it follows 5. That was 3 h ago. It was too busy to answer."


@pytest.mark.parametrize("name", ["messages", "feed", "peers", "followers", "version", "disk"])
def test_nothing_that_is_old_stays_green(bot: Bot, name: str) -> None:
    found = answer(check(bot, answered_at=ago(days=3)), name)
    assert found.state == "unknown" and "That was 3 days ago." in found.words and found.at


def test_no_age_in_words_is_wrong_before_they_are_drawn_again(bot: Bot) -> None:
    assert "came in less than a minute ago." in answer(check(bot, synced_at=ago(seconds=12)), "messages").words


def test_one_that_has_said_nothing_yet_is_unknown(bot: Bot) -> None:
    bot = check(bot, answered_at=None, unanswered="It was starting or stopped when we asked it.")
    assert answer(bot, "peers").words == "It has not told us yet. It was starting or stopped when we asked it."
    assert answer(bot, "peers").state == "unknown"
    assert verdict(bot).state == "good"


def test_a_pub_without_members_is_told_to_invite_some(bot: Bot) -> None:
    bot = check(bot, synced_at=None, members=0, followers=0, peers=0)
    assert "no members yet" in answer(bot, "messages").words
    for name in ("messages", "followers"):
        assert answer(bot, name).state == "off" and "Invite people" in answer(bot, name).todo
    assert answer(bot, "peers").words == "Nobody just now."


def test_a_quiet_pub_is_told_what_that_means(bot: Bot) -> None:
    bot = check(bot, synced_at=ago(days=5))
    found = answer(bot, "messages")
    assert found.state == "off" and "5 days ago" in found.words and "new invite" in found.todo


def test_a_pub_that_gets_its_feed_back_says_so(bot: Bot) -> None:
    bot = check(bot, restoring=True, sequence=1)
    found = answer(bot, "feed")
    assert found.state == "bad" and "1 message." in found.words and "says nothing new before" in found.words
    assert verdict(bot).words == "Your pub works, but look at this: Can it publish?"


@pytest.mark.parametrize("version", ["0.0.9", "99.0.0", ""])
def test_another_version_is_told_and_leaves_nothing_to_do_for_its_owner(bot: Bot, version: str) -> None:
    bot = check(bot, version=version)
    found = answer(bot, "version")
    assert (found.state, found.todo) == ("off", working.UPDATE) and version in found.words
    assert verdict(bot).words == "Your pub works: it runs, and people can reach it."


def test_a_full_disk_comes_with_its_forecast_and_what_to_do(bot: Bot) -> None:
    bot = check(bot, disk=9.9 * GB)
    assert answer(bot, "disk").state == "bad" and answer(bot, "disk").todo


def draw(bot: Bot) -> str:
    return render_to_string("pubs/_working.html", {"bot": bot, "disk": disk.outlook(bot)})


def test_the_piece_of_the_page_says_each_answer_its_age_and_what_to_do(bot: Bot) -> None:
    bot = check(bot, version="0.0.9", disk=9.9 * GB)
    html = draw(bot)
    for each in answers(bot):
        assert each.question in html
    assert working.UPDATE in html and answer(bot, "disk").todo in html
    assert html.count("data-age=") == 8
    assert "something is wrong" in html


def test_programs_read_the_same(bot: Bot) -> None:
    bot = check(bot)
    client = APIClient()
    client.force_authenticate(bot.owner)
    given = client.get(f"/api/v1/pubs/{bot.pk}/working/")
    found = json.loads(given.content)
    assert (found["state"], found["words"]) == ("good", verdict(bot).words)
    assert [each["name"] for each in found["answers"]] == [each.name for each in answers(bot)]
    assert found["answers"][1]["at"].startswith(f"{bot.checkup.tried_at:%Y-%m-%dT%H:%M}")


def test_nobody_else_reads_it(bot: Bot, make: Maker) -> None:
    client = APIClient()
    assert client.get(f"/api/v1/pubs/{bot.pk}/working/").status_code == 401
    client.force_authenticate(make.user("bob"))
    assert client.get(f"/api/v1/pubs/{bot.pk}/working/").status_code == 404


def test_the_json_has_the_disk_in_numbers(bot: Bot, settings: Any) -> None:
    settings.PUB_DISK_GB = 10
    client = APIClient()
    client.force_authenticate(bot.owner)

    def said() -> dict[str, Any]:
        return client.get(f"/api/v1/pubs/{bot.pk}/working/").json()["disk"]

    unknown = said()
    assert (unknown["size"], unknown["quota"], unknown["full_in_days"]) == (None, 10 * GB, None)
    assert unknown["measured_at"] is None
    check(bot, disk=4 * GB)
    today = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    for days in range(1, 5):
        sample(bot, today - timedelta(days=days), step=86400, disk=(5 - days) * GB).save()
    assert (said()["size"], said()["percent"], said()["growth_per_day"], said()["full_in_days"]) == (4 * GB, 40, GB, 6)
    assert said()["measured_at"]
