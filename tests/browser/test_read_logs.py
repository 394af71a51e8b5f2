"""Reading what a pub writes, live: follow, search as you type, scroll up in peace; nothing of it is ever a page."""

import re

from playwright.sync_api import Page, expect

from pubs.models import Bot
from tests.browser.swarm import StagedSwarm
from tests.browser.test_access import CHECKS
from tests.support.wait import until


def test_lines_come_are_sought_and_wait_while_somebody_reads_further_up(
    page: Page, staged: StagedSwarm, running_pub: Bot
) -> None:
    for number in range(60):
        staged.write(running_pub.pk, f"line {number} of the beginning")
    staged.write(running_pub.pk, '{"event":"invite-used","by":"<img src=x onerror=alert(1)>"}', is_error=True)
    page.goto(f"/pubs/{running_pub.pk}/logs/")
    lines = page.locator("#lines li")
    expect(page.locator("#link")).to_have_text("live")
    expect(lines).to_have_count(61)
    expect(lines.last).to_be_in_viewport()
    expect(lines.last).to_have_class("error")

    staged.write(running_pub.pk, "here is a Herring")
    expect(lines.last).to_contain_text("here is a Herring")
    page.get_by_label("Search").fill("herring")
    expect(page.locator("#lines li:visible")).to_have_count(1)
    expect(page.locator("#lines mark")).to_have_text("Herring")
    expect(page.get_by_text("1 of 62 lines")).to_be_visible()
    page.get_by_label("Search").fill("")
    expect(page.locator("#lines li:visible")).to_have_count(62)

    page.locator("#lines").focus()
    page.keyboard.press("Home")
    expect(page.get_by_label("Follow")).not_to_be_checked()
    # The browser scrolls bit by bit, and would go on after the click.
    until("it is at the top", lambda: page.locator("#lines").evaluate("frame => frame.scrollTop") == 0)
    for number in range(3):
        staged.write(running_pub.pk, f"later {number}")
    more = page.get_by_role("button", name="3 new lines")
    expect(lines).to_have_count(62)
    more.click()
    expect(page.get_by_label("Follow")).to_be_checked()
    expect(lines.last).to_have_text(re.compile("later 2"))
    expect(lines.last).to_be_in_viewport()

    assert page.evaluate(CHECKS) == []

    # Nothing comes twice to a browser that comes back.
    page.reload()
    expect(page.locator("#link")).to_have_text("live")
    expect(lines).to_have_count(65)
