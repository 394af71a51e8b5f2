"""Ask a pub: with script a piece comes back, without it a page that looks again."""

from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoCaptureOnCommitCallbacks

from pubs.catalogue import CATALOGUE, QUEUE_MAX
from pubs.models import Bot, Command
from tests.support.make import Maker

BY_SCRIPT = {"X-Requested-With": "fetch"}
INVITE = "pub.example:8008:@x=.ed25519~seed="


def post(client: Client, bot: Bot, headers: Any = None, **data: Any) -> HttpResponse:
    client.force_login(bot.owner)
    return client.post(reverse("pubs:command", args=[bot.pk]), data, headers=headers)  # type: ignore[return-value]


def test_a_command_becomes_a_row_and_leads_to_its_answer(client: Client, make: Maker) -> None:
    bot = make.bot(paid=True, status="up")
    answer = post(client, bot, name="create_invite", **{"create_invite-uses": "5", "create_invite-note": "fair"})
    command = bot.commands.get()
    assert (command.name, command.args, command.by) == ("create_invite", {"uses": 5, "note": "fair"}, bot.owner)
    assert (answer.status_code, answer["Location"]) == (302, reverse("pubs:command_result", args=[bot.pk, command.pk]))


def test_a_worker_is_asked_after_the_commit(
    client: Client, make: Maker, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    bot = make.bot()
    client.force_login(bot.owner)
    with django_capture_on_commit_callbacks() as later:
        client.post(reverse("pubs:command", args=[bot.pk]), {"name": "whoami"})
    assert len(later) == 1


def test_a_script_gets_the_row_as_a_piece(client: Client, make: Maker) -> None:
    bot = make.bot()
    answer = post(client, bot, BY_SCRIPT, name="whoami")
    assert answer.status_code == 201
    assert answer.content.decode().strip().startswith(f'<li id="command-{bot.commands.get().pk}"')


def test_a_wrong_argument_comes_back_with_its_reason(client: Client, make: Maker) -> None:
    bot = make.bot()
    answer = post(client, bot, name="follow", **{"follow-id": "me"})
    assert answer.status_code == 422
    assert "This is not a Scuttlebutt id" in answer.content.decode()
    assert not bot.commands.exists()


def test_a_script_gets_only_the_form_with_the_reason(client: Client, make: Maker) -> None:
    answer = post(client, make.bot(), BY_SCRIPT, name="follow", **{"follow-id": "me"})
    text = answer.content.decode().strip()
    assert answer.status_code == 422
    assert text.startswith("<details")
    assert " open" in text.split(">")[0]
    assert 'value="me"' in text


def test_an_unknown_command_is_404(client: Client, make: Maker) -> None:
    bot = make.bot()
    assert post(client, bot, name="rm").status_code == 404
    assert post(client, bot).status_code == 404


def test_a_full_queue_is_told_and_takes_no_more(client: Client, make: Maker) -> None:
    bot = make.bot()
    for _ in range(QUEUE_MAX):
        bot.commands.create(name="whoami")
    answer = post(client, bot, name="whoami")
    assert answer.status_code == 422
    assert "commands still wait" in answer.content.decode()
    assert bot.commands.count() == QUEUE_MAX


def test_every_command_of_the_catalogue_is_on_the_page(client: Client, make: Maker) -> None:
    bot = make.bot(paid=True, status="up")
    client.force_login(bot.owner)
    page = client.get(bot.get_absolute_url()).content.decode()
    for entry in CATALOGUE.values():
        assert (f'id="ask-{entry.name}"' in page) == entry.on_page


@pytest.mark.parametrize("state", ["queued", "running"])
def test_an_unfinished_answer_looks_again_without_script(client: Client, make: Maker, state: str) -> None:
    assert '<noscript><meta http-equiv="refresh"' in show(client, make, state=state)


def test_a_finished_answer_looks_no_more(client: Client, make: Maker) -> None:
    assert "http-equiv" not in show(client, make, state="done", result={"id": "@x"})


def test_an_invite_comes_with_copy_and_qr(client: Client, make: Maker) -> None:
    page = show(client, make, name="create_invite", state="done", result={"invite": INVITE, "uses": 1})
    assert f'data-copy="{INVITE}"' in page
    assert 'src="data:image/svg+xml' in page


def test_a_failure_is_told(client: Client, make: Maker) -> None:
    assert "The pub did not answer." in show(client, make, state="failed", error="The pub did not answer.")


@pytest.mark.parametrize(
    "result",
    [{"a": {"b": [1]}}, [{"id": "@x", "since": None}], [], ["@x"], "text", 5, None, [1, {"a": 2}], {"invite": ""}],
)
def test_an_answer_of_any_shape_is_shown(client: Client, make: Maker, result: Any) -> None:
    assert "done" in show(client, make, state="done", result=result)


def test_what_a_pub_answers_is_shown_and_never_run(client: Client, make: Maker) -> None:
    evil = "<img src=x onerror=alert(1)>"
    for result in ({evil: evil}, [{"id": evil, evil: evil}], [evil], evil, {"invite": evil}):
        assert "<img src=x" not in show(client, make, state="done", result=result)


def show(client: Client, make: Maker, **columns: Any) -> str:
    bot = make.bot()
    command = Command.objects.create(bot=bot, **{"name": "whoami", **columns})
    client.force_login(bot.owner)
    return client.get(reverse("pubs:command_result", args=[bot.pk, command.pk])).content.decode()
