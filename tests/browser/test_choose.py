"""Choose a size and a way to pay, by key alone, while the page draws itself again."""

from threading import Thread

from playwright.sync_api import Page, expect

from accounts.models import User
from pubs import live
from pubs.models import Bot
from tests.support.make import Maker
from tests.support.wait import until


def test_what_was_chosen_by_key_stays_chosen_when_the_page_draws_itself_again(
    page: Page, alice: User, make: Maker
) -> None:
    bot = make.bot(alice, name="Harbour Garden")
    page.goto(bot.get_absolute_url())
    expect(page.locator("#link")).to_have_text("live", timeout=10_000)
    page.locator("#offer-pub-monthly-1gb").focus()
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    chosen = page.get_by_role("radio", name="2 GB for €170 a year")
    expect(chosen).to_be_checked()
    Bot.objects.filter(pk=bot.pk).update(name="Harbour Garden II")
    # Elsewhere, as a worker would: Playwright keeps a loop in this thread.
    worker = Thread(target=live.changed, args=[bot.pk])
    worker.start()
    worker.join()
    expect(page.get_by_role("heading", name="Harbour Garden II")).to_be_visible()
    expect(chosen).to_be_checked()
    expect(chosen).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/c/pay/**")
    expect(page.locator("body")).to_contain_text("Pub 2 GB")
    page.get_by_role("button", name="Subscribe").click()
    page.wait_for_url(f"**{bot.get_absolute_url()}")
    until("the size that was bought", lambda: Bot.objects.filter(pk=bot.pk, memory_gb=2, paid=True).exists(), 10, 0.05)


def test_another_size_is_chosen_in_the_portal_which_leads_back(page: Page, alice: User, make: Maker) -> None:
    bot = make.bot(alice, name="Harbour Garden")
    page.goto(bot.get_absolute_url())
    page.get_by_role("button", name="Pay and start").click()
    page.get_by_role("button", name="Subscribe").click()
    page.get_by_role("button", name="Change its size").click()
    page.get_by_label("Pub 4 GB").first.check()
    page.get_by_role("button", name="Go on").click()
    page.get_by_role("button", name="Confirm").click()
    page.wait_for_url(f"**{bot.get_absolute_url()}")
    expect(page.get_by_text("4 GB for €32 a month")).to_be_visible()
