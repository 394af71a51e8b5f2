"""The look-up is the permission: what is not yours does not exist for you."""

from uuid import uuid4

import pytest
from django.test import Client
from django.urls import reverse

from tests.support.make import Maker

READ = ["pub", "delete", "settings"]
CHOOSE = ["notices", "hook", "hook_secret", "hook_test", "public"]
WRITE = ["start", "stop", "restart", "rename", "delete", "command", *CHOOSE]


@pytest.mark.parametrize("name", READ)
def test_nobody_is_asked_to_sign_in(client: Client, make: Maker, name: str) -> None:
    address = reverse(f"pubs:{name}", args=[make.bot().pk])
    answer = client.get(address)
    assert (answer.status_code, answer["Location"]) == (302, f"{reverse('account_login')}?next={address}")


@pytest.mark.parametrize("name", WRITE)
def test_nobody_changes_nothing(client: Client, make: Maker, name: str) -> None:
    bot = make.bot()
    answer = client.post(reverse(f"pubs:{name}", args=[bot.pk]), {"name": "whoami"})
    bot.refresh_from_db()
    assert (answer.status_code, bot.name, bot.restarts, bot.deleted_at) == (302, "Pub 1", 0, None)


@pytest.mark.parametrize("name", ["list", "new"])
def test_nobody_has_no_pubs(client: Client, make: Maker, name: str) -> None:
    assert client.get(reverse(f"pubs:{name}")).status_code == 302


@pytest.mark.parametrize("name", READ)
def test_a_stranger_gets_404_to_read(client: Client, make: Maker, name: str) -> None:
    client.force_login(make.user("bob"))
    assert client.get(reverse(f"pubs:{name}", args=[make.bot().pk])).status_code == 404


@pytest.mark.parametrize("name", WRITE)
def test_a_stranger_gets_404_and_changes_nothing(client: Client, make: Maker, name: str) -> None:
    bot = make.bot(switched_on=name != "start")
    client.force_login(make.user("bob"))
    data = {"name": bot.name if name == "delete" else "whoami"}
    answer = client.post(reverse(f"pubs:{name}", args=[bot.pk]), data)
    before = (bot.name, bot.switched_on, bot.restarts, bot.deleted_at)
    bot.refresh_from_db()
    assert answer.status_code == 404
    assert (bot.name, bot.switched_on, bot.restarts, bot.deleted_at) == before
    assert not bot.commands.exists()


def test_a_stranger_does_not_see_an_answer(client: Client, make: Maker) -> None:
    bot = make.bot()
    command = bot.commands.create(name="whoami", state="done", result={"id": "secret"})
    client.force_login(make.user("bob"))
    assert client.get(reverse("pubs:command_result", args=[bot.pk, command.pk])).status_code == 404


def test_an_answer_is_not_found_under_another_pub_of_mine(client: Client, make: Maker) -> None:
    theirs = make.bot(make.user("bob")).commands.create(name="whoami", state="done")
    client.force_login(make.user())
    assert client.get(reverse("pubs:command_result", args=[make.bot().pk, theirs.pk])).status_code == 404


def test_a_list_shows_only_my_own(client: Client, make: Maker) -> None:
    make.bot(name="Mine")
    make.bot(make.user("bob"), name="Theirs")
    client.force_login(make.user())
    page = client.get(reverse("pubs:list")).content.decode()
    assert "Mine" in page
    assert "Theirs" not in page


@pytest.mark.parametrize("name", ["start", "stop", "restart", "rename", "command", *CHOOSE])
def test_a_link_changes_nothing(client: Client, make: Maker, name: str) -> None:
    client.force_login(make.user())
    assert client.get(reverse(f"pubs:{name}", args=[make.bot().pk])).status_code == 405


@pytest.mark.parametrize("name", WRITE)
def test_a_form_of_another_site_changes_nothing(make: Maker, name: str) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(make.user())
    assert strict.post(reverse(f"pubs:{name}", args=[make.bot().pk]), {"name": "whoami"}).status_code == 403


def test_a_pub_that_never_was_is_404(client: Client, make: Maker) -> None:
    client.force_login(make.user())
    assert client.get(reverse("pubs:pub", args=[uuid4()])).status_code == 404


@pytest.mark.parametrize("name", READ)
def test_a_deleted_pub_is_404(client: Client, make: Maker, name: str) -> None:
    bot = make.bot()
    bot.delete_softly()
    client.force_login(make.user())
    assert client.get(reverse(f"pubs:{name}", args=[bot.pk])).status_code == 404
