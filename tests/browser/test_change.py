"""What owners do with their pubs, and nobody else."""

import pytest
from playwright.sync_api import Page, expect

from accounts.models import User
from pubs.models import Bot
from tests.browser.conftest import Console, went_through
from tests.browser.swarm import StagedSwarm
from tests.support.make import Maker
from tests.support.wait import until


def test_an_owner_stops_and_starts_a_pub(page: Page, running_pub: Bot) -> None:
    page.goto(running_pub.get_absolute_url())
    badge = page.locator(".badge.when-fresh")
    page.get_by_role("button", name="Stop").click()
    expect(badge).to_have_text("stopped")
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    page.get_by_role("button", name="Start").click()
    expect(badge).to_have_text("up")
    page.get_by_text("What happened so far").click()
    expect(page.locator(".timeline li")).to_have_count(4)
    assert went_through(running_pub) == ["up", "none", "up"]


def test_an_owner_restarts_a_pub(page: Page, running_pub: Bot, staged: StagedSwarm) -> None:
    page.goto(running_pub.get_absolute_url())
    page.get_by_role("button", name="Restart").click()
    expect(page.get_by_text("Your pub restarts. Nothing in it is lost.")).to_be_visible()
    until("the pub to be restarted", lambda: staged.restarted == [running_pub.pk], 10, 0.02)


def test_an_owner_renames_a_pub(page: Page, running_pub: Bot, make: Maker, console: Console) -> None:
    console.expected.add(422)
    make.bot(running_pub.owner, name="Taken")
    page.goto(running_pub.get_absolute_url())
    page.get_by_role("link", name="Settings").click()
    name = page.get_by_label("Name of your pub")
    name.fill("Taken")
    page.get_by_role("button", name="Rename").click()
    expect(page.get_by_text("You already have a pub with this name.")).to_be_visible()
    name.fill("Café Größe 漁港")
    page.get_by_role("button", name="Rename").click()
    page.get_by_role("link", name="Overview").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Café Größe 漁港")


def test_deleting_asks_for_the_name(page: Page, running_pub: Bot, staged: StagedSwarm, console: Console) -> None:
    console.expected.add(422)
    page.goto(f"{running_pub.get_absolute_url()}settings/")
    page.get_by_role("link", name="Delete…").click()
    confirm = page.get_by_label("Type its name to confirm")
    confirm.fill("Harbor Garden")
    page.get_by_role("button", name="Delete it").click()
    expect(page.get_by_text("That is not its name.")).to_be_visible()
    assert running_pub.pk in staged.services
    confirm.fill("Harbour Garden")
    page.get_by_role("button", name="Delete it").click()
    expect(page.get_by_text("“Harbour Garden” is deleted.")).to_be_visible()
    expect(page.get_by_role("heading", name="You have no pub yet")).to_be_visible()
    until("the pub to be gone", lambda: running_pub.pk not in staged.services, 10, 0.02)


def test_another_customers_pub_is_not_there(page: Page, alice: User, make: Maker, console: Console) -> None:
    console.expected.add(404)
    bobs = make.bot(make.user("bob"), paid=True)
    for address in ("", "delete/"):
        answer = page.goto(bobs.get_absolute_url() + address)
        assert answer and answer.status == 404
    expect(page.get_by_role("heading", level=1)).to_be_visible()


def test_a_pub_that_is_given_away_is_no_longer_watched(
    page: Page, running_pub: Bot, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pubs.live.WATCH_SECONDS", 3)
    page.goto(running_pub.get_absolute_url())
    expect(page.locator("#link")).to_have_text("live")
    Bot.objects.filter(pk=running_pub.pk).update(owner=make.user("bob"))
    expect(page.locator("#link")).to_have_text("not yours any more: reload")
