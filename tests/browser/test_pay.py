"""An owner at Stripe's pages and back: the bank asks, a card fails and is put right, the plan is changed."""

import re

import pytest
from playwright.sync_api import Page, expect

from accounts.models import User
from billing import gateway
from billing.ladder import Rung
from buttcloud.celery import app as celery_app
from mailer.models import Message
from pubs.models import Bot
from tests.browser.conftest import name_pub, read_code
from tests.support.local_stripe import DAY, RunningLocalStripe
from tests.support.make import Maker
from tests.support.wait import until


@pytest.fixture
def year_ago(stripe: RunningLocalStripe) -> None:
    """Stripe's clock is so far behind ours that a year bought now ended the day before yesterday."""
    stripe.app.store.clock_offset = -367 * DAY


def fill_card(page: Page, number: str) -> None:
    page.get_by_label("Card number").fill(number)


@pytest.mark.usefixtures("year_ago")
def test_a_year_is_paid_with_the_banks_consent_and_a_card_that_fails_is_put_right(
    page: Page, alice: User, stripe: RunningLocalStripe
) -> None:
    page.goto("/pubs/new/")
    name_pub(page, "Harbour Garden")
    page.locator("#offer-pub-yearly-2gb").check()
    page.get_by_role("button", name="Pay and start").click()
    expect(page.get_by_text("170.00 EUR").first).to_be_visible()
    fill_card(page, "4000 0025 0000 3155")
    page.get_by_role("button", name="Subscribe").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Your bank asks")
    page.get_by_role("button", name="Complete").click()
    expect(page.get_by_role("status").get_by_text("Thank you!")).to_be_visible()
    expect(page.locator(".badge.when-fresh")).to_have_text("up")
    assert Bot.objects.get().memory_gb == 2

    page.get_by_role("button", name="Payment and invoices").click()
    fill_card(page, "4000 0000 0000 0341")
    page.get_by_role("button", name="Use this card").click()
    page.get_by_role("link", name="Return").click()
    stripe.advance(366 * DAY)
    expect(page.locator(".state .note.bad")).to_contain_text("payment")
    expect(page.locator(".badge.when-fresh")).to_have_text("up")
    assert Bot.objects.get().rung == Rung.GRACE

    page.get_by_role("button", name="Put the payment right").click()
    fill_card(page, "4242 4242 4242 4242")
    page.get_by_role("button", name="Use this card").click()
    page.get_by_role("link", name="Return").click()
    expect(page.locator(".state .note.bad")).to_have_count(0)
    expect(page.get_by_role("button", name="Put the payment right")).to_have_count(0)
    assert Bot.objects.get().rung == Rung.PAID


def test_the_mail_of_a_failed_payment_leads_through_the_sign_in_to_a_new_card(
    page: Page, make: Maker, stripe: RunningLocalStripe
) -> None:
    bot = make.bot(make.user("alice"), switched_on=False)
    bot.owner.emailaddress_set.create(email=bot.owner.email, verified=True, primary=True)
    stripe.pay(gateway.open_checkout(bot, "pub-monthly-1gb"))
    until("the payment to be seen", lambda: Bot.objects.filter(pk=bot.pk, rung=Rung.PAID).exists(), 10, 0.02)
    stripe.app.store.get("subscription", Bot.objects.get().subscription_id)["status"] = "past_due"
    celery_app.send_task("billing.look_again", args=[str(bot.pk)])
    mail = until("the mail", Message.objects.filter(key__startswith="payment_failed:").first, 10, 0.02)
    [link] = re.findall(r"\S+\?flow=card", mail.text)

    page.goto(link)
    page.get_by_label("Email").fill(bot.owner.email)
    page.get_by_role("button", name="Continue").click()
    page.get_by_label("Code").fill(read_code(bot.owner.email))
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_label("Card number")).to_be_visible()
    expect(page.get_by_role("button", name="Use this card")).to_be_visible()


def test_the_plan_is_changed_in_the_portal_and_the_page_says_so(
    page: Page, alice: User, stripe: RunningLocalStripe
) -> None:
    page.goto("/pubs/new/")
    name_pub(page, "Harbour Garden")
    page.get_by_role("button", name="Pay and start").click()
    page.get_by_role("button", name="Subscribe").click()
    expect(page.locator(".badge.when-fresh")).to_have_text("up")
    page.get_by_role("button", name="Payment and invoices").click()
    page.get_by_role("link", name="Change plan").click()
    page.get_by_role("radio", name=re.compile("4 GB.*32.00 EUR per month")).check()
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_text("Due today")).to_be_visible()
    page.get_by_role("button", name="Confirm").click()
    page.get_by_role("link", name="Return").click()
    expect(page.locator(".badge.when-fresh")).to_have_text("up")
    assert Bot.objects.get().memory_gb == 4
