"""The control room."""

from collections.abc import Callable
from typing import Any

from django.utils import timezone
from playwright.sync_api import Page, expect

from accounts.models import User
from orchestrator.models import Hub, Placement
from pubs.models import Bot, Status
from tests.browser.conftest import Console, look_again
from tests.browser.swarm import StagedSwarm
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
        page.get_by_role("button", name="Run").click()

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
