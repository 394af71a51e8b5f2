"""Commands over the API: asked from the catalogue, read until they are done."""

from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts.models import User
from pubs.catalogue import CATALOGUE, QUEUE_MAX, ask
from pubs.models import Bot, Command
from tests.support.make import Maker

SOMEBODY = "@" + "A" * 43 + "=.ed25519"


@pytest.fixture
def alice(make: Maker) -> User:
    return make.user("alice")


@pytest.fixture
def bot(make: Maker, alice: User) -> Bot:
    return make.bot(alice, paid=True, status="up")


@pytest.fixture
def api(alice: User) -> APIClient:
    client = APIClient()
    client.force_login(alice)
    return client


def commands(bot: Bot) -> str:
    return f"/api/v1/pubs/{bot.pk}/commands/"


def test_asking_answers_with_the_row_to_read_again(api: APIClient, bot: Bot, alice: User) -> None:
    answer = api.post(commands(bot), {"name": "create_invite", "args": {"uses": 3}}, format="json")
    assert answer.status_code == 201
    asked = answer.json()
    assert (asked["state"], asked["args"], asked["result"]) == ("queued", {"uses": 3}, None)
    assert asked["created"]
    row = bot.commands.get()
    assert (str(row.pk), row.by) == (asked["id"], alice)
    Command.objects.update(state="done", result={"invite": "x"})
    read = api.get(f"{commands(bot)}{asked['id']}/").json()
    assert (read["state"], read["result"]) == ("done", {"invite": "x"})


def test_a_command_without_arguments_needs_none(api: APIClient, bot: Bot) -> None:
    assert api.post(commands(bot), {"name": "whoami"}, format="json").json()["args"] == {}


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, ["name"]),
        ({"name": "post", "args": {"text": "x"}}, ["name"]),
        ({"name": "invite.create"}, ["name"]),
        ({"name": "--help"}, ["name"]),
        ({"name": ["whoami"]}, ["name"]),
        ({"name": "follow"}, ["args", "id"]),
        ({"name": "follow", "args": {"id": "$(reboot)"}}, ["args", "id"]),
        ({"name": "follow", "args": {"id": [SOMEBODY]}}, ["args", "id"]),
        ({"name": "follow", "args": {"id": SOMEBODY, "--x": 1}}, ["non_field_errors"]),
        ({"name": "follow", "args": SOMEBODY}, ["args"]),
        ({"name": "follow", "args": [SOMEBODY]}, ["args"]),
        ({"name": "follow", "args": None}, ["args"]),
        ({"name": "create_invite", "args": {"uses": True}}, ["args", "uses"]),
        ({"name": "create_invite", "args": {"note": "a\nb"}}, ["args", "note"]),
        ({"name": "set_profile", "args": {"name": "x" * 65}}, ["args", "name"]),
    ],
)
def test_a_refusal_says_where_and_why(api: APIClient, bot: Bot, body: dict[str, Any], where: list[str]) -> None:
    answer = api.post(commands(bot), body, format="json")
    assert answer.status_code == 400
    told = answer.json()
    for key in where:
        told = told[key]
    assert isinstance(told[0], str) and told[0]
    assert not bot.commands.exists()


@pytest.mark.parametrize(
    "body",
    [
        '{"name": "\\ud800"}',
        '{"name": "whoami", "args": {"\\ud800": 1}}',
        '{"name": "create_invite", "args": {"note": "\\ud800"}}',
    ],
)
def test_half_a_surrogate_pair_is_refused_and_never_sent_back(api: APIClient, bot: Bot, body: str) -> None:
    assert api.post(commands(bot), body, content_type="application/json").status_code == 400


def test_nobody_sets_a_commands_state_or_result(api: APIClient, bot: Bot) -> None:
    answer = api.post(commands(bot), {"name": "whoami", "state": "done", "result": "x"}, format="json")
    assert (answer.json()["state"], answer.json()["result"]) == ("queued", None)


def test_a_command_is_neither_changed_nor_taken_back(api: APIClient, bot: Bot) -> None:
    where = f"{commands(bot)}{ask(bot, None, 'whoami', {}).pk}/"
    assert [getattr(api, verb)(where).status_code for verb in ("put", "patch", "delete")] == [405, 405, 405]


def test_too_many_at_once_are_refused_in_words(api: APIClient, bot: Bot) -> None:
    for _ in range(QUEUE_MAX):
        ask(bot, None, "whoami", {})
    answer = api.post(commands(bot), {"name": "whoami"}, format="json")
    assert answer.status_code == 400 and "Try again" in answer.json()["non_field_errors"][0]


def test_the_list_has_this_pubs_commands_newest_first(api: APIClient, bot: Bot, make: Maker) -> None:
    ask(make.bot(bot.owner), None, "peers", {})
    first, second = ask(bot, None, "whoami", {}), ask(bot, None, "status", {})
    Command.objects.filter(pk=first.pk).update(created="2020-01-01T00:00Z")
    found = api.get(commands(bot)).json()["results"]
    assert [command["id"] for command in found] == [str(second.pk), str(first.pk)]


def test_another_pubs_command_is_not_found_under_this_one(api: APIClient, bot: Bot, make: Maker) -> None:
    others = ask(make.bot(bot.owner), None, "whoami", {})
    assert api.get(f"{commands(bot)}{others.pk}/").status_code == 404


def test_another_customers_command_is_not_found(bot: Bot, make: Maker) -> None:
    command = ask(bot, None, "whoami", {})
    client = APIClient()
    client.force_login(make.user("bob"))
    assert client.get(f"{commands(bot)}{command.pk}/").status_code == 404
    assert APIClient().get(f"{commands(bot)}{command.pk}/").status_code == 401


def test_a_deleted_pub_takes_no_commands(api: APIClient, bot: Bot) -> None:
    bot.delete_softly()
    assert api.post(commands(bot), {"name": "whoami"}, format="json").status_code == 404


def test_the_catalogue_tells_all_that_a_program_needs(api: APIClient) -> None:
    listed = {entry["name"]: entry for entry in api.get("/api/v1/catalogue/").json()}
    assert list(listed) == list(CATALOGUE)
    uses, note = listed["create_invite"]["args"]
    assert (uses["name"], uses["type"], uses["min_value"], uses["max_value"]) == ("uses", "integer", 1, 10000)
    assert (note["type"], note["required"], note["max_length"]) == ("text", False, 200)
    assert listed["follow"]["changes"] and not listed["whoami"]["changes"]
    assert APIClient().get("/api/v1/catalogue/").status_code == 401
