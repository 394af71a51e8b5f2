"""Pubs over the API: their owner does all, everybody else finds nothing."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone
from knox.models import AuthToken
from rest_framework.test import APIClient

from accounts.models import User
from pubs import live
from pubs.models import WAITS_FOR_RESTORE, Bot
from tests.support.make import Maker

PUBS = "/api/v1/pubs/"


def signed_in(user: User) -> APIClient:
    client = APIClient()
    client.force_login(user)
    return client


@pytest.fixture
def alice(make: Maker) -> User:
    return make.user("alice")


@pytest.fixture
def api(alice: User) -> APIClient:
    return signed_in(alice)


@pytest.fixture
def bot(make: Maker, alice: User) -> Bot:
    return make.bot(alice, name="Alice's pub")


@pytest.fixture
def nudges(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []
    monkeypatch.setattr(live, "nudge", lambda: asked.append("nudge"))
    return asked


def sample(**values: Any) -> live.Stats:
    numbers: dict[str, Any] = dict.fromkeys(live.Stats.__annotations__, 1)
    return {**numbers, "at": timezone.now().isoformat(), **values}  # type: ignore[typeddict-item]


def test_a_new_pub_is_named_and_waits_for_its_payment(api: APIClient, alice: User) -> None:
    answer = api.post(PUBS, {"name": "  Café 🦀 "}, format="json")
    assert answer.status_code == 201
    pub = answer.json()
    assert pub["name"] == "Café 🦀"
    assert (pub["status"], pub["paid"], pub["switched_on"]) == ("none", False, True)
    assert [step["name"] for step in pub["steps"] if step["current"]] == ["Paid"]
    assert alice.bots.get().pk.hex == pub["id"].replace("-", "")


@pytest.mark.parametrize("name", ["", "   ", "x" * 65, "a\nb", "a\0b", "\u200b", None, [], {"a": 1}])
def test_an_odd_name_is_refused_in_words(api: APIClient, name: Any) -> None:
    answer = api.post(PUBS, {"name": name}, format="json")
    assert answer.status_code == 400
    assert answer.json().get("name") or answer.json().get("detail")
    assert not Bot.objects.exists()


def test_the_same_name_twice_is_refused_in_words(api: APIClient, bot: Bot) -> None:
    answer = api.post(PUBS, {"name": bot.name}, format="json")
    assert (answer.status_code, list(answer.json())) == (400, ["name"])
    assert "already have a pub" in answer.json()["name"][0]


def test_what_others_write_is_not_the_owners_to_set(api: APIClient) -> None:
    wished = {"name": "Free", "paid": True, "status": "up", "paid_until": "2100-01-01", "owner": 1}
    pub = api.post(PUBS, wished, format="json").json()
    bot = Bot.objects.get(pk=pub["id"])
    assert (bot.paid, bot.status, bot.paid_until) == (False, "none", None)


def test_the_list_has_ones_own_pubs_that_are_not_deleted(api: APIClient, bot: Bot, make: Maker) -> None:
    make.bot(make.user("bob"))
    make.bot(bot.owner, deleted_at=timezone.now())
    assert [pub["id"] for pub in api.get(PUBS).json()["results"]] == [str(bot.pk)]


def test_the_list_asks_the_database_as_often_for_many_pubs(
    api: APIClient, make: Maker, alice: User, django_assert_max_num_queries: Any
) -> None:
    for _ in range(12):
        make.bot(alice)
    with django_assert_max_num_queries(4):
        assert api.get(PUBS).json()["count"] == 12


def test_reading_shows_wish_money_and_what_is_seen(api: APIClient, bot: Bot) -> None:
    until = timezone.now() + timedelta(days=30)
    Bot.objects.update(status="down", reason="It crashed.", paid=True, paid_status="active", paid_until=until)
    pub = api.get(f"{PUBS}{bot.pk}/").json()
    assert (pub["status"], pub["reason"], pub["paid"], pub["paid_status"]) == ("down", "It crashed.", True, "active")
    assert set(pub) == {
        *("id", "name", "created", "status", "changed_at", "seen_at", "reason", "address", "ssb_id", "switched_on"),
        *("rung", "runs_until", "kept_until", "rests_until", "status_public"),
        *("paid", "paid_status", "paid_until", "paid_ends", "steps", "unknown_since", "lost_at", "moving"),
    }


def test_renaming_changes_the_name_alone(api: APIClient, bot: Bot) -> None:
    answer = api.patch(f"{PUBS}{bot.pk}/", {"name": "Harbour", "paid": True}, format="json")
    assert (answer.status_code, answer.json()["name"], answer.json()["paid"]) == (200, "Harbour", False)
    bot.refresh_from_db()
    assert (bot.name, bot.paid) == ("Harbour", False)


def test_the_public_page_is_opened_and_closed(api: APIClient, bot: Bot) -> None:
    for wish in (True, False):
        said = api.patch(f"{PUBS}{bot.pk}/", {"status_public": wish}, format="json").json()
        bot.refresh_from_db()
        assert (said["status_public"], bot.status_public, bot.name) == (wish, wish, "Alice's pub")


def test_a_new_pub_may_be_public_from_the_start(api: APIClient) -> None:
    api.post(PUBS, {"name": "Harbour", "status_public": True}, format="json")
    assert Bot.objects.get(name="Harbour").status_public


def test_what_is_one_persons_stays_in_no_cache(api: APIClient, bot: Bot) -> None:
    for path in ("", "working/", "notices/", "timeline/", "history/", "commands/", "changes/", "payment/"):
        answer = api.get(f"{PUBS}{bot.pk}/{path}")
        assert answer.status_code == 200 and "no-store" in answer["Cache-Control"], path


def test_what_a_pub_wrote_is_read_for_whoever_asks(api: APIClient, bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    assert api.get(f"{PUBS}{bot.pk}/logs/").status_code == 404
    assert live.are_logs_asked_for(bot.pk, 1000)
    line = live.LogLine(key="1.0", number=0, at="2026-12-03T14:05:06.007+00:00", text="listening", is_error=False)
    live.remember_logs(bot.pk, 1000, live.Logs(at=timezone.now(), lines=[line], trouble=""))
    said = api.get(f"{PUBS}{bot.pk}/logs/").json()
    assert [each["text"] for each in said["lines"]] == ["listening"] and said["trouble"] == ""
    assert live.are_logs_asked_for(bot.pk, 1000)


def test_renaming_to_a_taken_or_odd_name_is_refused(api: APIClient, bot: Bot, make: Maker) -> None:
    make.bot(bot.owner, name="Taken")
    for name in ("Taken", "", "a\nb"):
        assert api.patch(f"{PUBS}{bot.pk}/", {"name": name}, format="json").status_code == 400
    bot.refresh_from_db()
    assert bot.name == "Alice's pub"


def test_a_pub_is_not_replaced_as_a_whole(api: APIClient, bot: Bot) -> None:
    assert api.put(f"{PUBS}{bot.pk}/", {"name": "x"}, format="json").status_code == 405


def test_stop_start_and_restart_are_wishes_that_nudge(api: APIClient, bot: Bot, nudges: list[str]) -> None:
    assert api.post(f"{PUBS}{bot.pk}/stop/").json()["switched_on"] is False
    assert api.post(f"{PUBS}{bot.pk}/start/").json()["switched_on"] is True
    assert api.post(f"{PUBS}{bot.pk}/restart/").status_code == 200
    bot.refresh_from_db()
    assert (bot.switched_on, bot.restarts, len(nudges)) == (True, 1, 3)


@pytest.mark.parametrize("wish", ["start", "stop", "restart"])
def test_a_pub_that_waits_for_a_restore_takes_no_wish(api: APIClient, bot: Bot, nudges: list[str], wish: str) -> None:
    Bot.objects.update(lost_at=timezone.now())
    refused = api.post(f"{PUBS}{bot.pk}/{wish}/")
    assert (refused.status_code, refused.json()) == (400, {"non_field_errors": [WAITS_FOR_RESTORE]})
    assert not nudges


def test_a_deleted_pub_is_gone_from_everywhere(api: APIClient, bot: Bot, nudges: list[str]) -> None:
    assert api.delete(f"{PUBS}{bot.pk}/").status_code == 204
    assert api.get(f"{PUBS}{bot.pk}/").status_code == 404
    assert api.post(f"{PUBS}{bot.pk}/start/").status_code == 404
    bot.refresh_from_db()
    assert bot.deleted_at is not None and nudges == ["nudge"]


def test_the_history_of_a_pub_comes_in_pages_the_newest_first(api: APIClient, bot: Bot, make: Maker) -> None:
    make.bot(bot.owner).status_changes.create(old="none", new="down", reason="another pub")
    bot.status_changes.create(old="none", new="down", reason="It starts.")
    for _ in range(60):
        bot.status_changes.create(old="down", new="up")
    first = api.get(f"{PUBS}{bot.pk}/changes/").json()
    assert first["count"] == 61
    assert {key: first["results"][0][key] for key in ("old", "new", "reason")} == {
        "old": "down",
        "new": "up",
        "reason": "",
    }
    last = api.get(first["next"]).json()["results"][-1]
    assert (last["old"], last["new"], last["reason"]) == ("none", "down", "It starts.")
    assert last["at"] <= first["results"][0]["at"]


def test_asking_for_stats_starts_the_measuring(api: APIClient, bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[Any] = []
    monkeypatch.setattr(live, "watch", watched.append)
    answer = api.get(f"{PUBS}{bot.pk}/stats/")
    assert answer.status_code == 404 and "ask again" in answer.json()["detail"]
    live.remember_stats({bot.pk: sample(cpu=2.5)})
    assert api.get(f"{PUBS}{bot.pk}/stats/").json()["cpu"] == 2.5
    assert watched == [bot.pk, bot.pk]


REQUESTS = [
    ("get", ""),
    ("patch", ""),
    ("delete", ""),
    ("post", "start/"),
    ("post", "stop/"),
    ("post", "restart/"),
    ("get", "stats/"),
    ("get", "changes/"),
    ("get", "commands/"),
    ("post", "commands/"),
    ("get", f"commands/{UUID(int=1)}/"),
    ("post", "checkout/"),
    ("post", "portal/"),
]


@pytest.mark.parametrize(("method", "rest"), REQUESTS)
def test_another_customer_finds_nothing_and_changes_nothing(make: Maker, bot: Bot, method: str, rest: str) -> None:
    before = Bot.objects.values().get()
    client = signed_in(make.user("bob"))
    answer = getattr(client, method)(f"{PUBS}{bot.pk}/{rest}", {"name": "whoami"}, format="json")
    assert answer.status_code == 404
    assert Bot.objects.values().get() == before and not bot.commands.exists()


@pytest.mark.parametrize(("method", "rest"), REQUESTS)
def test_nobody_gets_401_and_changes_nothing(bot: Bot, method: str, rest: str) -> None:
    before = Bot.objects.values().get()
    answer = getattr(APIClient(), method)(f"{PUBS}{bot.pk}/{rest}", {"name": "whoami"}, format="json")
    assert answer.status_code == 401
    assert Bot.objects.values().get() == before and not bot.commands.exists()


def test_nobody_lists_and_creates_nothing(db: None) -> None:
    assert APIClient().get(PUBS).status_code == 401
    assert APIClient().post(PUBS, {"name": "x"}, format="json").status_code == 401


def test_a_token_serves_like_a_session(alice: User, bot: Bot) -> None:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {AuthToken.objects.create(alice)[1]}")
    assert client.get(f"{PUBS}{bot.pk}/").status_code == 200
    client.credentials(HTTP_AUTHORIZATION="Token " + "0" * 64)
    assert client.get(f"{PUBS}{bot.pk}/").status_code == 401


def test_a_session_writes_only_with_its_csrf_token(alice: User, bot: Bot) -> None:
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(alice)
    assert client.post(f"{PUBS}{bot.pk}/stop/").status_code == 403
    bot.refresh_from_db()
    assert bot.switched_on


@pytest.mark.parametrize("where", ["not-a-uuid/", "00000000-0000-0000-0000-000000000000/", "1/"])
def test_an_address_that_leads_nowhere_is_404(api: APIClient, where: str) -> None:
    assert api.get(PUBS + where).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"name"',
        b"[" * 60_000,
        b'{"name": NaN}',
        b'{"name": "\\ud800"}',
        b"\xff\xfe",
        b'{"name": "' + b"x" * 100_000 + b'"}',
    ],
)
def test_a_body_that_is_no_good_json_is_refused_in_words(api: APIClient, body: bytes) -> None:
    answer = api.post(PUBS, body, content_type="application/json")
    assert answer.status_code == 400 and answer.json()


def test_a_body_of_10_mb_is_refused(api: APIClient) -> None:
    body = b'{"name": "' + b"x" * 10_000_000 + b'"}'
    assert api.post(PUBS, body, content_type="application/json").status_code == 400
    assert not Bot.objects.exists()
