"""What an owner asks of a pub on its page."""

import pytest
from playwright.sync_api import Page, expect

from pubs.models import Bot, Command
from tests.browser.conftest import Console
from tests.browser.swarm import INVITE, StagedSwarm, answer

NOT_AN_ID = "somebody"


def test_an_invite_appears_by_itself_with_its_picture_and_a_copy_button(page: Page, running_pub: Bot) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(running_pub.get_absolute_url())
    ask = page.locator("#ask-create_invite")
    ask.get_by_label("Uses").fill("3")
    ask.get_by_label("Note").fill("for the choir")
    ask.get_by_role("button", name="Create invite").click()
    given = page.locator("#answers .answer[data-finished]")
    expect(given).to_contain_text(INVITE)
    expect(given).to_contain_text("It works 3 times")
    code = given.get_by_alt_text("The invite as a QR code")
    expect(code).to_be_visible()
    assert code.evaluate("image => image.naturalWidth") > 100
    given.get_by_role("button", name="Copy the invite").click()
    expect(given.get_by_role("button", name="Copy the invite")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == INVITE
    expect(ask.get_by_label("Note")).to_have_value("")
    assert Command.objects.get().args == {"uses": 3, "note": "for the choir"}


def test_an_answer_comes_into_the_list_that_screen_readers_read_out(page: Page, running_pub: Bot) -> None:
    page.goto(running_pub.get_absolute_url())
    page.locator("#ask-whoami").get_by_role("button").click()
    expect(page.locator("#answers .answer")).to_have_count(1)
    expect(page.locator("#answers .answer[data-finished]")).to_contain_text(running_pub.ssb_id)
    expect(page.locator("#answers")).to_have_attribute("aria-live", "polite")


def test_a_refused_form_says_why_and_takes_the_focus(page: Page, running_pub: Bot, console: Console) -> None:
    console.expected.add(422)
    page.goto(running_pub.get_absolute_url())
    page.locator("#ask-follow summary").click()
    page.locator("#ask-follow").get_by_label("Id").fill(NOT_AN_ID)
    page.locator("#ask-follow").get_by_role("button", name="Follow").click()
    field = page.locator("#ask-follow").get_by_label("Id")
    expect(page.locator("#ask-follow .errorlist")).to_contain_text("This is not a Scuttlebutt id")
    expect(field).to_have_value(NOT_AN_ID)
    expect(field).to_be_focused()
    assert not Command.objects.exists()


def test_what_the_pub_says_is_text_and_never_markup(page: Page, running_pub: Bot, staged: StagedSwarm) -> None:
    spiteful = "<img src=x onerror=\"document.title='broken into'\"><script>document.title='broken into'</script>"
    staged.answers["members"] = lambda argv: answer([{"id": spiteful, "name": spiteful}])
    page.goto(running_pub.get_absolute_url())
    page.locator("#ask-members").get_by_role("button").click()
    expect(page.locator("#answers .answer[data-finished]")).to_contain_text("<script>")
    expect(page.locator("#answers img")).to_have_count(0)
    expect(page).to_have_title("Harbour Garden · buttcloud")


@pytest.mark.browser_context_args(java_script_enabled=False)
def test_an_invite_is_had_without_javascript(page: Page, running_pub: Bot) -> None:
    page.goto(running_pub.get_absolute_url())
    page.locator("#ask-create_invite").get_by_role("button", name="Create invite").click()
    page.wait_for_url("**/commands/*/")
    # The page asks for itself again every two seconds until it has the answer.
    expect(page.locator("#answers")).to_contain_text(INVITE)
    expect(page.get_by_alt_text("The invite as a QR code")).to_be_visible()
    expect(page.get_by_role("button", name="Copy the invite")).to_be_hidden()


@pytest.mark.browser_context_args(java_script_enabled=False)
def test_a_form_refused_without_javascript_keeps_what_was_typed(page: Page, running_pub: Bot, console: Console) -> None:
    console.expected.add(422)
    page.goto(running_pub.get_absolute_url())
    page.locator("#ask-follow summary").click()
    page.locator("#ask-follow").get_by_label("Id").fill(NOT_AN_ID)
    page.locator("#ask-follow").get_by_role("button", name="Follow").click()
    expect(page.locator("#ask-follow .errorlist")).to_contain_text("This is not a Scuttlebutt id")
    expect(page.locator("#ask-follow").get_by_label("Id")).to_have_value(NOT_AN_ID)
