"""The control room."""

from playwright.sync_api import Page, expect

from accounts.models import User
from pubs.models import Bot, Status
from tests.browser.conftest import Console, look_again
from tests.support.make import Maker
from tests.support.site import RunningSite
from tests.support.wait import until

PASSWORD = "a long enough secret"


def test_staff_sign_in_with_a_password_and_switch_a_pub_off(page: Page, site: RunningSite, make: Maker) -> None:
    staff = User.objects.create_superuser("staff@buttcloud.example", PASSWORD, name="Staff")
    bot, other = make.bot(name="Harbour Garden", paid=True), make.bot(name="Unpaid Garden")
    look_again()
    until("the pub to run", lambda: Bot.objects.filter(pk=bot.pk, status=Status.UP).exists(), 10, 0.02)

    page.goto("/admin/")
    page.get_by_label("Email").fill(staff.email)
    page.get_by_text("Use a password instead").click()
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("link", name="Bots", exact=True).first.click()
    expect(page.get_by_role("link", name="Unpaid Garden")).to_be_visible()
    row = page.get_by_role("row", name="Harbour Garden")
    expect(row).to_contain_text("up")
    row.get_by_role("checkbox").check()
    page.get_by_label("Action:").select_option(label="Switch off")
    page.get_by_role("button", name="Run").click()

    expect(page.get_by_text("Switched off: 1 of 1 pubs.")).to_be_visible()
    until("the pub to stop", lambda: Bot.objects.filter(pk=bot.pk, status=Status.NONE).exists(), 10, 0.02)
    other.refresh_from_db()
    assert other.switched_on


def test_a_customer_has_no_way_into_the_control_room(page: Page, alice: User, console: Console) -> None:
    console.expected.add(403)
    answer = page.goto("/admin/pubs/bot/")
    assert answer and answer.status == 403
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    expect(page.get_by_role("table")).to_have_count(0)
