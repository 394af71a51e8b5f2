"""Pages for every screen, every eye and every hand.

checks.js holds the rules that we can check by ourselves. For more, `npm pack axe-core`, unpack it, and name its
`axe.min.js` in AXE: then axe looks at every page as well.
"""

import os
from datetime import timedelta
from pathlib import Path

import pytest
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import BrowserContext, Page, expect

from accounts.models import User
from mailer.models import Hook
from pubs.models import Bot, Command, Event, Notices
from tests.browser.conftest import Console
from tests.browser.swarm import INVITE, StagedSwarm
from tests.support.make import Maker

CHECKS = (Path(__file__).parent / "checks.js").read_text()
AXE = os.environ.get("AXE")
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
PUBLIC = [
    "/",
    "/accounts/signup/",
    "/accounts/login/",
    "/accounts/login/code/",
    "/accounts/password/reset/",
    "/status/",
    "/nowhere/",
]
OF_A_CUSTOMER = [
    "/",
    "/pubs/",
    "/pubs/new/",
    "/account/",
    "/accounts/email/",
    "/accounts/password/set/",
    "/accounts/logout/",
]
# What makes a page scroll sideways, as HTML, or null.
TOO_WIDE = """() => document.documentElement.scrollWidth <= innerWidth ? null : "page " +
    [...document.querySelectorAll("body *")].filter((element) => element.getBoundingClientRect().right > innerWidth)
    .map((element) => element.outerHTML.slice(0, 120)).join(" ")"""
IS_OUTLINED = "getComputedStyle(document.activeElement).outlineStyle !== 'none'"


@pytest.fixture
def crowded(running_pub: Bot, make: Maker, staged: StagedSwarm) -> list[str]:
    """Addresses of pages that hold the longest words there can be."""
    unpaid = make.bot(running_pub.owner, name="W" * 64)
    Bot.objects.filter(pk=running_pub.pk).update(
        status_public=True, name="Donaudampfschifffahrtsgesellschaftskapitänskajütentürschlüssel"
    )
    rows = [{"id": f"@{'M' * 43}=.ed25519", "name": "W" * 64, "created": 0, "uses": 10000}]
    answers = [
        ("create_invite", {"note": "W" * 200}, {"invite": INVITE * 2, "uses": 3}),
        ("members", {}, rows),
        ("status", {}, {"uptime": 12, "memory": {"rss": 60_000_000, "heapUsed": 30_000_000}, "peers": rows}),
    ]
    for name, args, result in answers:
        asked = Command.objects.create(bot=running_pub, name=name, args=args, result=result, state="done")
    Command.objects.create(bot=running_pub, name="follow", args={"id": "W" * 60}, state="failed", error="W" * 300)
    notices = Notices.of(running_pub)
    notices.post_to(f"https://news.example/{'w' * 300}")
    notices.post("k", "test", kind="", since=timezone.now(), words="This is a test.")
    Hook.objects.update(tries=3, error="W" * 300)
    Event.note(running_pub.pk, "crashed", "W" * 300)
    staged.write(running_pub.pk, "W" * 3000)
    pub = running_pub.get_absolute_url()
    result = reverse("pubs:command_result", args=[running_pub.pk, asked.pk])
    pages = [pub + page for page in ("", "history/", "logs/", "timeline/", "settings/", "delete/")]
    return [*pages, f"/status/{running_pub.pk}/", result, unpaid.get_absolute_url()]


def look_at(page: Page, addresses: list[str]) -> str:
    """What is wrong with these pages, on a phone and a desktop, by day and by night."""
    wrong = []
    for address in addresses:
        page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        page.goto(address)
        page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
            found = [*page.evaluate(CHECKS), *(axe(page) if AXE else [])]
            wrong += [f"{address} ({scheme}): {what}" for what in found]
        for size in (PHONE, DESKTOP):
            page.set_viewport_size(size)  # type: ignore[arg-type]
            if culprits := page.evaluate(TOO_WIDE):
                wrong.append(f"{address}: scrolls sideways at {size['width']} px: {culprits}")
    return "\n".join(wrong)


def axe(page: Page) -> list[str]:
    page.evaluate(Path(str(AXE)).read_text())
    found = page.evaluate("axe.run()")["violations"]
    return [f"axe: {rule['help']}: {node['html'][:120]}" for rule in found for node in rule["nodes"]]


def test_pages_for_everybody_are_right_for_every_screen_and_eye(page: Page, console: Console) -> None:
    console.expected.add(404)
    assert look_at(page, PUBLIC) == ""


def test_pages_of_a_customer_are_right_for_every_screen_and_eye(page: Page, crowded: list[str]) -> None:
    assert look_at(page, OF_A_CUSTOMER + crowded) == ""


def test_a_refused_form_is_right_for_every_eye(page: Page, alice: User, console: Console) -> None:
    console.expected.add(422)
    page.goto("/pubs/new/")
    page.get_by_label("Name of your pub").fill(" ")
    page.locator("main form").evaluate("form => form.noValidate = true")
    page.get_by_role("button", name="Create it").click()
    expect(page.locator(".errorlist")).to_be_visible()
    assert page.evaluate(CHECKS) == []
    described = page.get_by_label("Name of your pub").get_attribute("aria-describedby") or ""
    assert page.locator(".errorlist").get_attribute("id") in described.split()


def test_keys_alone_lead_to_the_pay_button(page: Page, alice: User, make: Maker) -> None:
    page.goto(make.bot(alice).get_absolute_url())
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    for _ in range(8):  # past the tabs and the sizes
        page.keyboard.press("Tab")
        assert page.evaluate(IS_OUTLINED), page.evaluate("document.activeElement.outerHTML")
        if page.evaluate("document.activeElement.id") == "pay":
            break
    expect(page.locator("#pay")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Subscribe")


def test_focus_moves_on_when_its_button_goes(page: Page, running_pub: Bot) -> None:
    page.goto(running_pub.get_absolute_url())
    expect(page.locator("#link")).to_have_text("live")
    page.locator("#stop").focus()
    # Another tab stops the pub.
    other = page.context.new_page()
    other.goto(running_pub.get_absolute_url())
    other.locator("#stop").click()
    expect(page.locator(".badge.when-fresh")).to_have_text("stopped")
    expect(page.locator("#start")).to_be_focused()


def test_focus_never_moves_to_a_button_that_is_folded_away(page: Page, running_pub: Bot) -> None:
    until = timezone.now() + timedelta(days=30)
    Bot.objects.update(rung="comped", comped_until=until, runs_until=until)
    page.goto(running_pub.get_absolute_url())
    expect(page.locator("#link")).to_have_text("live")
    expect(page.locator("#pay")).to_be_hidden()
    page.locator("#stop").focus()
    other = page.context.new_page()
    other.goto(running_pub.get_absolute_url())
    other.locator("#stop").click()
    expect(page.locator("#start")).to_be_focused()


def test_a_script_that_the_policy_forbids_is_heard(page: Page, context: BrowserContext, console: Console) -> None:
    page.goto("/")
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {textContent: 'evil = 1'}))")
    page.wait_for_timeout(50)
    assert "Content Security Policy" in console.errors.pop()
