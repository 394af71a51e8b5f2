"""What a pub does and did, on all its pages: figures that glide and never go back, lines, what happened."""

import re
from datetime import timedelta
from threading import Thread

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from orchestrator import collect
from orchestrator.swarm.memory import GB
from pubs import live
from pubs.models import Bot, Checkup, Event
from tests.browser.swarm import StagedSwarm, sample

# Each number of a frame that the page shows from now on.
WRITE_DOWN = """() => {
  window.shown = [];
  const write = () => shown.push(document.getElementById('stats').dataset.seq);
  new MutationObserver(write).observe(document.getElementById('stats'), { attributeFilter: ['data-seq'] });
}"""
PICTURE = "document.querySelector('[data-chart=network] canvas').toDataURL()"


def remember(bot: Bot) -> None:
    """Samples of the last minutes, as the broadcaster writes them."""
    for ago in range(60, 0, -10):
        at = timezone.now() - timedelta(seconds=ago)
        collect.write({bot.pk: sample(GB, ago, at)}, at)


def test_a_chart_glides_but_keeps_still_for_those_who_wish_so(
    page: Page, running_pub: Bot, staged: StagedSwarm
) -> None:
    staged.measured = False  # but for the first sample
    remember(running_pub)
    page.goto(running_pub.get_absolute_url())
    page.locator("#stats").scroll_into_view_if_needed()
    expect(page.locator("#stats")).to_have_attribute("data-seq", re.compile("[0-9]+"))
    before = page.evaluate(PICTURE)
    page.wait_for_function(f"before => {PICTURE} !== before", arg=before)
    page.emulate_media(reduced_motion="reduce")
    before = page.evaluate(PICTURE)
    page.wait_for_timeout(700)
    assert page.evaluate(PICTURE) == before


def test_a_reconnect_never_goes_back_in_time(page: Page, running_pub: Bot, staged: StagedSwarm) -> None:
    page.goto(running_pub.get_absolute_url())
    expect(page.locator("#stats-age")).to_have_text("New each second")
    staged.measured = False
    page.evaluate(WRITE_DOWN)
    page.context.set_offline(True)
    expect(page.locator("#link")).to_have_text("reconnecting…")
    old = sample(GB, 12, timezone.now() - timedelta(minutes=5))
    live.remember_stats({running_pub.pk: old})
    page.context.set_offline(False)
    expect(page.locator("#link")).to_have_text("live")
    before = page.locator("#stats").get_attribute("data-seq")
    staged.measured = True
    # What comes now comes after the old one.
    expect(page.locator("#stats")).not_to_have_attribute("data-seq", str(before))
    shown = page.evaluate("shown")
    assert shown == sorted(shown) and str(old["seq"]) not in shown


def test_lines_come_as_they_are_written_and_are_searched(page: Page, running_pub: Bot, staged: StagedSwarm) -> None:
    staged.write(running_pub.pk, "the gate opens")
    page.goto(f"{running_pub.get_absolute_url()}logs/")
    expect(page.locator("#lines")).to_contain_text("the gate opens")
    staged.write(running_pub.pk, "a boat comes in", is_error=True)
    expect(page.locator("#lines .error")).to_contain_text("a boat comes in")
    page.get_by_label("Search").fill("boat")
    expect(page.locator("#lines li").filter(visible=True)).to_have_count(1)
    expect(page.locator("#lines mark")).to_have_text("boat")
    expect(page.locator("#matches")).to_contain_text("1 of ")


@pytest.mark.browser_context_args(java_script_enabled=False)
def test_all_pages_of_a_pub_say_what_they_know_without_javascript(
    page: Page, running_pub: Bot, staged: StagedSwarm
) -> None:
    Event.note(running_pub.pk, "crashed", "It used more memory than it has.", exit_code=137)
    remember(running_pub)
    staged.write(running_pub.pk, "the gate opens")

    page.goto(running_pub.get_absolute_url())
    page.get_by_text("What happened so far").click()
    page.get_by_role("link", name="All that happened").click()
    expect(page.locator(".tabs [aria-current]")).to_have_text("Timeline")
    page.get_by_role("link", name="Crashes").click()
    expect(page.locator(".timeline li")).to_have_count(1)
    expect(page.locator(".timeline li")).to_contain_text("It used more memory than it has.")

    page.locator(".tabs").get_by_role("link", name="Logs").click()
    page.get_by_label("Search").fill("gate")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#lines mark")).to_have_text("gate")

    page.locator(".tabs").get_by_role("link", name="History").click()
    page.get_by_role("navigation", name="Time shown").get_by_role("link").first.click()
    expect(page.locator(".extents").first).to_contain_text("%")
    with page.expect_download() as begun:
        page.get_by_role("link", name="Download these figures").click()
    head, *rows = begun.value.path().read_text().splitlines()
    assert "cpu" in head and len(rows) == 360

    page.locator(".tabs").get_by_role("link", name="Settings").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Settings of Harbour Garden")


def test_a_check_up_takes_neither_focus_nor_selection_from_a_reader(page: Page, running_pub: Bot) -> None:
    page.goto(running_pub.get_absolute_url())
    expect(page.locator("#working-peers")).to_contain_text("2 peers just now.")
    page.locator("#working-peers p").first.evaluate(
        "words => getSelection().setBaseAndExtent(words.firstChild, 2, words.firstChild, 7)"
    )
    button = page.get_by_role("button", name="Copy the address")
    button.focus()
    page.locator("#history summary").evaluate("summary => summary.click()")
    Checkup.objects.update(peers=3, followers=77, handshake_ms=5)
    # Elsewhere, as a worker would: Playwright keeps a loop in this thread.
    worker = Thread(target=live.changed, args=[running_pub.pk])
    worker.start()
    worker.join()
    expect(page.locator("#working-peers")).to_contain_text("3 peers just now.")
    expect(page.locator("#working-followers")).to_contain_text("77 followers")
    assert page.evaluate("getSelection().toString()") == "peers"
    expect(button).to_be_focused()
    expect(page.locator("#history")).to_have_attribute("open", "")


def test_is_it_working_is_answered_while_the_page_is_open(page: Page, running_pub: Bot) -> None:
    page.goto(running_pub.get_absolute_url())
    working = page.locator("#working")
    expect(working).to_contain_text("Your pub works: it runs, and people can reach it.")
    expect(working.locator("#working-peers")).to_contain_text("2 peers just now.")
