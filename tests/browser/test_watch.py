"""A pub's page, live."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.utils import timezone
from playwright.sync_api import Locator, Page, expect

from accounts.models import User
from orchestrator import collect
from orchestrator.swarm.memory import GB
from pubs.models import Bot
from tests.browser.conftest import look_again
from tests.browser.swarm import StagedSwarm, sample
from tests.support.make import Maker
from tests.support.site import RunningSite
from tests.support.wait import until

# Counts the pixels of a canvas that something was drawn on.
INK = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.filter(Boolean).length"


def remember(bot: Bot) -> None:
    """Samples of the last minutes, as the broadcaster writes them."""
    for ago in range(240, 0, -10):
        at = timezone.now() - timedelta(seconds=ago)
        collect.write({bot.pk: sample(GB, ago, at)}, at)


def ink(chart: Locator) -> int:
    return int(chart.locator("canvas").evaluate(INK))


def test_figures_change_each_second_and_are_drawn(page: Page, running_pub: Bot) -> None:
    page.goto(running_pub.get_absolute_url())
    expect(page.locator("#link")).to_have_text("live")
    expect(page.locator("#stats-age")).to_have_text("New each second")
    expect(page.locator("[data-stat=memory_limit]")).to_have_text("1 GB")
    received = page.locator("#stats").get_attribute("data-at")
    for _ in range(3):
        page.wait_for_function("before => document.getElementById('stats').dataset.at !== before", arg=received)
        received = page.locator("#stats").get_attribute("data-at")
    charts = page.locator("[data-chart] canvas")
    expect(charts).to_have_count(5)
    assert all(ink(chart) for chart in page.locator("[data-chart]").all())


def test_charts_begin_with_the_last_minutes(page: Page, running_pub: Bot, staged: StagedSwarm) -> None:
    staged.measured = False
    page.goto(running_pub.get_absolute_url())
    expect(page.locator("#link")).to_have_text("live")
    chart = page.locator("[data-chart=network]")
    empty = ink(chart)
    remember(running_pub)
    page.reload()
    until("the chart to be drawn", lambda: ink(chart) > empty + 1000, 10)


def test_figures_that_stop_say_how_old_they_are(page: Page, running_pub: Bot, staged: StagedSwarm) -> None:
    page.goto(running_pub.get_absolute_url())
    expect(page.locator("#stats-age")).to_have_text("New each second")
    staged.measured = False
    expect(page.locator("#stats")).to_have_attribute("data-old", "", timeout=9000)
    expect(page.locator("#stats-age")).to_contain_text("s ago")
    staged.measured = True
    expect(page.locator("#stats-age")).to_have_text("New each second")


@pytest.mark.browser_context_args(java_script_enabled=False)
def test_the_newest_figures_are_there_without_javascript(page: Page, running_pub: Bot) -> None:
    page.goto(running_pub.get_absolute_url())
    for _ in range(30):
        if "MB" in page.locator("[data-stat=memory]").inner_text():
            break
        page.wait_for_timeout(100)
        page.reload()
    expect(page.locator("[data-stat=memory]")).to_contain_text("MB")
    expect(page.locator("#stats-age")).to_contain_text("s ago")
    expect(page.locator(".chart").first).to_be_hidden()


def test_a_page_comes_back_to_life_when_the_site_does(
    page: Page, running_pub: Bot, site: RunningSite, staged: StagedSwarm
) -> None:
    page.goto(running_pub.get_absolute_url())
    expect(page.locator("#link")).to_have_text("live")
    page.context.set_offline(True)
    expect(page.locator("#link")).to_have_text("reconnecting…")
    staged.healthy = False
    look_again()
    page.context.set_offline(False)
    expect(page.locator(".badge.when-fresh")).to_have_text("down")
    expect(page.locator("#link")).to_have_text("live")


def test_a_pub_is_shown_at_its_best_on_desktop_and_phone(
    page: Page, running_pub: Bot, staged: StagedSwarm, tmp_path: Path
) -> None:
    """The pictures of the README: SCREENSHOTS names the folder that keeps them."""
    album = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    remember(running_pub)
    until_paid = datetime(2027, 1, 1, tzinfo=UTC)
    Bot.objects.update(subscription_id="sub_1", paid_status="active", paid_until=until_paid)
    page.goto(running_pub.get_absolute_url())
    expect(page.locator("#stats-age")).to_have_text("New each second", timeout=9000)
    page.screenshot(path=album / "pub-desktop.png")
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(300)
    page.screenshot(path=album / "pub-phone.png")
    page.context.clear_cookies()
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto("/")
    page.screenshot(path=album / "landing.png")
    assert all(0 < picture.stat().st_size < 200_000 for picture in album.glob("*.png"))


def test_beside_a_pub_that_nobody_sees_nothing_is_green(
    page: Page, make: Maker, sign_in: Callable[[User], User]
) -> None:
    bot = make.bot(sign_in(make.user()), paid=True, status="up", seen_at=timezone.now())
    page.goto(bot.get_absolute_url())
    expect(page.locator("#link")).to_have_text("live")
    expect(page.locator(".badge.good").filter(visible=True)).to_have_count(2)
    Bot.objects.update(unknown_since=timezone.now())
    page.reload()
    expect(page.locator("#link")).to_have_text("live")
    expect(page.locator(".badge.good").filter(visible=True)).to_have_count(0)
