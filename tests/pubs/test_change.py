"""Start, stop, restart, rename, delete: each writes its own column, tells open pages, and asks for a pass."""

from html import unescape
from typing import Any
from uuid import UUID

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks

from pubs import live
from pubs.models import NAME_TAKEN, WAITS_FOR_RESTORE, Bot
from tests.support.make import Maker


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Who was told: pubs whose pages look again, and "pass" for the orchestrator."""
    log: list[object] = []
    monkeypatch.setattr(live, "changed", log.append)
    monkeypatch.setattr(live, "nudge", lambda: log.append("pass"))
    return log


def post(client: Client, bot: Bot, deed: str, /, **data: Any) -> int:
    client.force_login(bot.owner)
    status = client.post(reverse(f"pubs:{deed}", args=[bot.pk]), data).status_code
    bot.refresh_from_db()
    return status


def test_stop_switches_off_and_tells(client: Client, make: Maker, told: list[UUID | str]) -> None:
    bot = make.bot(paid=True)
    assert post(client, bot, "stop") == 302
    assert (bot.switched_on, told) == (False, [bot.pk, "pass"])


def test_start_switches_on_and_tells(client: Client, make: Maker, told: list[UUID | str]) -> None:
    bot = make.bot(paid=True, switched_on=False)
    assert post(client, bot, "start") == 302
    assert (bot.switched_on, told) == (True, [bot.pk, "pass"])


def test_each_restart_counts_one(client: Client, make: Maker, told: list[UUID | str]) -> None:
    bot = make.bot(paid=True)
    post(client, bot, "restart")
    post(client, bot, "restart")
    assert (bot.restarts, told) == (2, [bot.pk, "pass"] * 2)


@pytest.mark.parametrize("deed", ["start", "stop", "restart"])
def test_a_pub_that_waits_for_a_restore_says_so_instead(
    client: Client, make: Maker, told: list[UUID | str], deed: str
) -> None:
    bot = make.bot(paid=True, lost_at=timezone.now())
    assert post(client, bot, deed) == 302
    assert WAITS_FOR_RESTORE in unescape(client.get(bot.get_absolute_url()).content.decode())
    assert (bot.switched_on, bot.restarts, told) == (True, 0, [])


def test_a_deed_leaves_the_columns_of_others_alone(make: Maker) -> None:
    bot = make.bot()
    Bot.objects.filter(pk=bot.pk).update(paid=True, status="up", reason="seen by others meanwhile")
    bot.stop()
    bot.rename("Other")
    fresh = Bot.objects.get(pk=bot.pk)
    assert (fresh.paid, fresh.status, fresh.reason) == (True, "up", "seen by others meanwhile")


def test_nobody_is_told_before_the_commit(
    make: Maker, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    with django_capture_on_commit_callbacks() as later:
        make.bot().stop()
    assert len(later) == 2


def test_rename_keeps_a_tidy_name(client: Client, make: Maker, told: list[UUID | str]) -> None:
    bot = make.bot(name="Harbour")
    assert post(client, bot, "rename", name="  Lagoon ") == 302
    assert (bot.name, told) == ("Lagoon", [bot.pk, "pass"])


def test_who_renames_a_pub_reads_what_that_does_not_change(client: Client, make: Maker) -> None:
    bot = make.bot()
    client.force_login(bot.owner)
    page = client.get(reverse("pubs:settings", args=[bot.pk])).content.decode()
    assert "This renames it here, for you. To change what people see" in page
    assert "publishes it when it first starts" not in page


def test_rename_to_the_same_name_is_fine(client: Client, make: Maker) -> None:
    assert post(client, make.bot(name="Harbour"), "rename", name="Harbour") == 302


@pytest.mark.parametrize("name", ["", "x" * 65, "nul\x00", "Taken"])
def test_rename_to_a_name_that_does_not_do_changes_nothing(client: Client, make: Maker, name: str) -> None:
    make.bot(name="Taken")
    bot = make.bot(name="Harbour")
    assert post(client, bot, "rename", name=name) == 422
    assert bot.name == "Harbour"


def test_a_refused_rename_keeps_the_old_name_in_the_title_and_says_why(client: Client, make: Maker) -> None:
    make.bot(name="Taken")
    bot = make.bot(name="Harbour")
    client.force_login(bot.owner)
    page = client.post(reverse("pubs:rename", args=[bot.pk]), {"name": "Taken"}).content.decode()
    assert "<title>Settings of Harbour ·" in page
    assert NAME_TAKEN in page


def test_a_name_that_two_requests_take_at_once_is_refused_in_words(
    make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.bot(name="Harbour")
    bot = make.bot(name="Lagoon")
    monkeypatch.setattr(Bot, "full_clean", lambda self: None)  # the other request came after our look
    with pytest.raises(Exception, match="already have a pub"):
        bot.rename("Harbour")
    assert (bot.name, Bot.objects.get(pk=bot.pk).name) == ("Lagoon", "Lagoon")


def test_delete_asks_first(client: Client, make: Maker) -> None:
    bot = make.bot(name="Harbour")
    client.force_login(bot.owner)
    page = client.get(reverse("pubs:delete", args=[bot.pk])).content.decode()
    bot.refresh_from_db()
    assert "subscription is cancelled" in page
    assert bot.deleted_at is None


def test_delete_with_another_name_deletes_nothing(client: Client, make: Maker) -> None:
    bot = make.bot(name="Harbour")
    assert post(client, bot, "delete", name="harbour") == 422
    assert bot.deleted_at is None


def test_delete_with_its_name_hides_it_and_keeps_the_row(client: Client, make: Maker, told: list[UUID | str]) -> None:
    bot = make.bot(name="Harbour", paid=True)
    assert post(client, bot, "delete", name="Harbour") == 302
    assert bot.deleted_at is not None
    assert (bot.is_wanted, told) == (False, [bot.pk, "pass"])
    assert list(bot.owner.bots.alive()) == []
