"""The control room."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.utils import timezone
from playwright.sync_api import Page, expect

from accounts.models import User
from billing import gateway
from orchestrator.models import Hub, Placement
from pubs.models import Bot, Status
from tests.browser.conftest import Console, look_again
from tests.browser.swarm import StagedSwarm
from tests.support.local_stripe import RunningLocalStripe
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
    page.get_by_role("button", name="Run", exact=True).click()

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


def test_staff_drain_a_hub_and_fence_a_lost_one_by_typing_its_name(
    page: Page, sign_in: Callable[[User], User], make: Maker, settings: Any, staged: StagedSwarm
) -> None:
    settings.MACHINES = "orchestrator.machines.memory.MemoryMachines"
    sign_in(User.objects.create_superuser("staff@buttcloud.example", PASSWORD, name="Staff"))
    lost = Hub.objects.create(name="hub-1", state="ready", places=15, lost_at=timezone.now())
    Placement.objects.create(bot=make.bot(paid=True), hub=lost, port=29000, label="garden")
    empty = Hub.objects.create(name="hub-2", state="ready", places=15, answered_at=timezone.now())
    staged.mark_node(staged.add_node(claims=empty.token, address="10.77.0.2", name="hub-2"), empty.token)

    def act(hub: Hub, deed: str) -> None:
        page.goto("/admin/orchestrator/hub/")
        page.get_by_role("row", name=hub.name).get_by_role("checkbox").check()
        page.get_by_label("Action:").select_option(deed)
        page.get_by_role("button", name="Run", exact=True).click()

    act(empty, "fence")
    expect(page.get_by_text("Only a hub that is out of sight can be fenced.")).to_be_visible()
    act(lost, "fence")
    expect(page.get_by_role("heading", name="Fence hub-1?")).to_be_visible()
    expect(page.get_by_text("what was on it (1 pub) waits for a restore")).to_be_visible()
    page.get_by_label("Type hub-1 to go on:").fill("hub-2")
    page.get_by_role("button", name="Fence hub-1").click()
    expect(page.get_by_text("That is not “hub-1”: nothing was done.")).to_be_visible()
    page.get_by_label("Type hub-1 to go on:").fill("hub-1")
    page.get_by_role("button", name="Fence hub-1").click()
    expect(page.get_by_text("hub-1 is fenced: what was on it waits for a restore now")).to_be_visible()
    until("what was on it to be lost", lambda: Placement.objects.filter(lost_at__isnull=False).exists(), 20, 0.05)
    act(empty, "drain")
    expect(page.get_by_text("is being drained. It is empty")).to_be_visible()
    until("the empty hub to go", lambda: Hub.objects.filter(pk=empty.pk, state="gone").exists(), 20, 0.05)


def test_staff_comp_a_pub_and_give_its_payment_back(
    page: Page, sign_in: Callable[[User], User], make: Maker, stripe: RunningLocalStripe
) -> None:
    staff = sign_in(User.objects.create_superuser("staff@buttcloud.example", PASSWORD, name="Staff"))
    bot = make.bot(name="Harbour Garden")
    stripe.pay(gateway.open_checkout(bot, gateway.offers()[0].lookup_key))
    until("the payment to be seen", lambda: Bot.objects.filter(pk=bot.pk, paid=True).exists(), 10, 0.02)

    page.goto(f"/admin/pubs/bot/{bot.pk}/change/")
    page.get_by_role("button", name="Refund…").click()
    expect(page.get_by_role("heading", name="Give back a payment of Harbour Garden?")).to_be_visible()
    page.get_by_label("Amount").fill("10")
    page.get_by_label("Reason").fill("You were charged by mistake.")
    page.get_by_label("End the subscription now, too").check()
    page.get_by_role("button", name="Give back a payment of Harbour Garden").click()
    expect(page.get_by_text("It must be between nothing and €9, which was paid.")).to_be_visible()
    page.get_by_label("Amount").fill("4.50")
    page.get_by_role("button", name="Give back a payment of Harbour Garden").click()
    expect(page.get_by_text("€4.50 of invoice")).to_be_visible()
    expect(page.get_by_text("was given back to the card that paid it. You were charged by mistake.")).to_be_visible()
    assert [refund["amount"] for refund in stripe.app.store.all("refund")] == [450]
    until("the pub to stop", lambda: Bot.objects.filter(pk=bot.pk, paid=False).exists(), 10, 0.02)

    page.get_by_role("button", name="Comp until…").click()
    page.get_by_label("Until (UTC)").fill(f"{timezone.now() + timedelta(days=30):%Y-%m-%dT%H:%M}")
    page.get_by_label("Reason").fill("A month for your trouble.")
    page.get_by_role("button", name="Comp Harbour Garden").click()
    expect(page.get_by_text("Harbour Garden: comped by staff")).to_be_visible()
    expect(page.get_by_role("row", name="A month for your trouble.")).to_contain_text(staff.email)
    until("the pub to run", lambda: Bot.objects.filter(pk=bot.pk, status=Status.UP).exists(), 20, 0.05)
