"""From a stranger to the owner of a running pub."""

import pytest
from playwright.sync_api import Page, expect

from accounts.models import User
from pubs.models import Bot
from tests.browser.conftest import Console, join, look_again, name_pub
from tests.browser.swarm import StagedSwarm


def test_a_stranger_joins_pays_and_sees_the_pub_come_up_by_itself(
    page: Page, staged: StagedSwarm, console: Console
) -> None:
    staged.healthy = False
    join(page)
    name_pub(page, "Harbour Garden")
    expect(page.get_by_role("heading", level=1)).to_have_text("Harbour Garden")
    expect(page.locator("[aria-current=step]")).to_contain_text("Paid")

    page.get_by_role("button", name="Pay and start").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Subscribe")
    page.get_by_label("Card number").fill("4000 0000 0000 0002")
    console.expected.add(402)
    page.get_by_role("button", name="Subscribe").click()
    expect(page.get_by_role("alert")).to_contain_text("declined")
    page.get_by_label("Card number").fill("4242 4242 4242 4242")
    page.get_by_role("button", name="Subscribe").click()

    expect(page.get_by_role("status").get_by_text("Thank you!")).to_be_visible()
    expect(page.locator(".badge.when-fresh")).to_have_text("starting")
    expect(page.locator("[aria-current=step]")).to_contain_text("Answering")
    expect(page.locator(".steps .done")).to_have_count(5)
    page.evaluate("window.sameDocument = true")
    staged.healthy = True
    look_again()
    expect(page.locator(".badge.when-fresh")).to_have_text("up")
    expect(page.locator("#announce")).to_have_text("Harbour Garden: up")
    expect(page.get_by_role("button", name="Copy the address")).to_be_visible()
    assert page.evaluate("window.sameDocument"), "it took a reload"
    assert Bot.objects.get().is_wanted


def test_who_turns_back_on_the_payment_page_can_pay_later(page: Page, alice: User) -> None:
    page.goto("/pubs/new/")
    name_pub(page, "Harbour Garden")
    page.get_by_role("button", name="Pay and start").click()
    page.get_by_role("link", name="Back").click()
    expect(page.locator(".badge.when-fresh")).to_have_text("not paid yet")
    expect(page.get_by_role("button", name="Pay and start")).to_be_visible()


@pytest.mark.browser_context_args(java_script_enabled=False)
def test_all_of_it_works_without_javascript(page: Page) -> None:
    join(page)
    name_pub(page, "Harbour Garden")
    page.get_by_role("button", name="Pay and start").click()
    page.get_by_role("button", name="Subscribe").click()
    badge = page.locator(".badge.when-fresh")
    reload_until(page, "up")
    page.get_by_role("button", name="Stop").click()
    reload_until(page, "stopped")
    page.get_by_role("button", name="Start").click()
    reload_until(page, "up")
    expect(badge).to_be_visible()


def reload_until(page: Page, word: str) -> None:
    for _ in range(20):
        if page.locator(".badge.when-fresh").inner_text() == word:
            return
        page.wait_for_timeout(100)
        page.get_by_role("link", name="Reload for new figures").click()
    raise AssertionError(f"the pub never became {word}")
