"""What a pub used over time, on its page."""

import math
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from accounts.models import User
from pubs.history import RANGES
from pubs.models import METRICS, Bot, Checkup, StatsSample
from tests.support.make import Maker

MB = 1024**2
CHECKS = (Path(__file__).parent / "checks.js").read_text()
# Column by column of a chart's pixels: whether its line or its band is there.
DRAWN = """chart => {
  const { width, height } = chart;
  const pixels = chart.getContext('2d').getImageData(0, 0, width, height).data;
  const left = Math.round(width * 0.1), right = Math.round(width * 0.96);
  const isBlue = at => pixels[at + 3] > 30 && pixels[at + 2] - pixels[at] > 60;
  const columns = Array.from({ length: right - left }, (_, x) => x + left);
  return columns.map(x => Array.from({ length: height }, (_, y) => 4 * (y * width + x)).some(isBlue));
}"""


def live_through(bot: Bot, name: str) -> None:
    """A range full of figures that rise and fall, but for a tenth in its middle."""
    step = RANGES[name].step
    slots = int(RANGES[name].length.total_seconds()) // step
    last = int(timezone.now().timestamp()) // step
    rows = []
    for back in range(slots):
        part = 1 - back / slots
        if 0.45 < part < 0.55:
            continue
        wave = 1.3 + math.sin(part * 20)
        figures = (9 * wave, 150 * MB * wave, 3e3 * wave, 9e3 * wave, 2e2 * wave, 3e4 * wave, 11, part * 8e9)
        means = dict(zip(METRICS, figures, strict=True))
        values = {}
        for metric, mean in means.items():
            spread = 0 if metric in ("pids", "disk") else 0.4
            values |= {f"{metric}_min": mean * (1 - spread), metric: mean, f"{metric}_max": mean * (1 + spread)}
        at = datetime.fromtimestamp((last - back) * step, UTC)
        rows.append(StatsSample(bot=bot, step=step, at=at, count=step // 10, **values))
    StatsSample.objects.bulk_create(rows)
    Checkup.objects.update_or_create(bot=bot, defaults={"disk": 8400 * MB})


@pytest.fixture
def bot(alice: User, make: Maker) -> Bot:
    return make.bot(alice, name="Harbour Garden", paid=True, rung="paid")


def open_history(page: Page, bot: Bot, name: str) -> None:
    live_through(bot, name)
    page.goto(f"{bot.get_absolute_url()}history/?range={name}")
    expect(page.locator("#past")).to_have_attribute("data-drawn", "")


def test_a_gap_is_not_bridged_and_the_cursor_says_its_figures(page: Page, bot: Bot) -> None:
    open_history(page, bot, "24h")
    expect(page.locator("[data-metrics] canvas")).to_have_count(6)
    drawn = page.locator("[data-metrics=cpu] canvas").evaluate(DRAWN)
    middle = len(drawn) // 2
    assert not any(drawn[middle - 5 : middle + 5])
    assert sum(drawn) > 0.8 * len(drawn)

    chart, readout = page.locator("[data-metrics=cpu] .u-over"), page.locator(".past .readout").first
    chart.hover(position={"x": 40, "y": 40})
    expect(readout).to_contain_text(" % (")
    # All charts tell the same moment.
    moments = page.locator(".past .readout time").all_inner_texts()
    assert len(moments) == 6 and len(set(moments)) == 1 and moments[0]
    box = chart.bounding_box()
    assert box
    chart.hover(position={"x": box["width"] / 2, "y": 40})
    expect(readout).to_contain_text("not measured")


@pytest.mark.parametrize(("width", "scheme", "name"), [(1280, "light", "1y"), (390, "dark", "7d")])
def test_a_history_is_for_everybody_on_desktop_and_phone(
    page: Page, bot: Bot, width: int, scheme: str, name: str
) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 900})
    open_history(page, bot, name)
    assert page.evaluate(CHECKS) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if album := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{album}/history-{name}-{width}.png", full_page=True)


def test_without_its_figures_a_page_says_so(page: Page, bot: Bot) -> None:
    live_through(bot, "1h")
    page.route("**/api/v1/**", lambda route: route.fulfill(status=204))
    page.goto(f"{bot.get_absolute_url()}history/?range=1h")
    expect(page.locator("#not-drawn")).to_be_visible()
    expect(page.locator(".extents").first).to_be_visible()
