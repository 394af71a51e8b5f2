"""The control room: staff see everything, change nothing by hand, and do a few deeds for owners."""

import re
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from djstripe.models import Customer, Event

from accounts.models import User
from orchestrator.models import Hub, Placement
from pubs import live
from pubs.admin import NEWEST
from pubs.catalogue import ask
from pubs.models import Bot, PaymentChange, StatusChange
from tests.support.make import Maker

BOTS = "/admin/pubs/bot/"


@pytest.fixture
def staff(make: Maker) -> Client:
    client = Client()
    client.force_login(make.user("staff", is_staff=True, is_superuser=True))
    return client


@pytest.fixture
def hub(db: None) -> Hub:
    return Hub.objects.create(name="hub-1", state="ready", places=15)


def fill(make: Maker, hub: Hub, bots: int) -> None:
    """Bots of several owners, with a history."""
    for number in range(bots):
        bot = make.bot(make.user(f"customer{number}"), paid=True, subscription_id=f"sub_{number}")
        Placement.objects.create(bot=bot, hub=hub, port=24000 + Placement.objects.count(), label=bot.pk.hex)
        for _ in range(NEWEST + 2):
            StatusChange.objects.create(bot=bot, old="down", new="up")
            PaymentChange.objects.create(bot=bot, old="new", new="paid", by=bot.owner)
            ask(bot, bot.owner, "whoami", {})


@pytest.mark.parametrize(
    "where",
    [
        "pubs/bot",
        "pubs/statuschange",
        "pubs/paymentchange",
        "pubs/command",
        "orchestrator/hub",
        "orchestrator/placement",
    ],
)
def test_a_list_asks_the_database_as_often_for_many_rows(
    staff: Client, make: Maker, hub: Hub, where: str, django_assert_max_num_queries: Any
) -> None:
    fill(make, hub, 8)
    make.bot()  # one without a placement
    with django_assert_max_num_queries(12):
        assert staff.get(f"/admin/{where}/").status_code == 200


def test_the_list_shows_where_each_bot_lives(staff: Client, make: Maker, hub: Hub) -> None:
    fill(make, hub, 1)
    page = staff.get(BOTS).content.decode()
    assert "hub-1" in page and "24000" in page and "customer0@customer.example" in page


def test_a_bots_page_shows_its_last_days_and_leads_to_its_money(
    staff: Client, make: Maker, hub: Hub, django_assert_max_num_queries: Any
) -> None:
    fill(make, hub, 1)
    bot = Bot.objects.get()
    with django_assert_max_num_queries(17):
        answer = staff.get(f"{BOTS}{bot.pk}/change/")
    page = answer.content.decode()
    rows = [formset.formset.initial_form_count() for formset in answer.context["inline_admin_formsets"]]
    assert rows == [NEWEST, NEWEST, NEWEST]
    assert "/admin/djstripe/subscription/sub_5F0/change/?_to_field=id" in page
    assert f"/admin/djstripe/customer/?subscriber__id__exact={bot.owner_id}" in page


def test_the_links_to_the_money_lead_somewhere(staff: Client, make: Maker) -> None:
    owner = make.user("alice")
    assert staff.get(f"/admin/djstripe/customer/?subscriber__id__exact={owner.pk}").status_code == 200
    # No such subscription here: the admin says so and goes home, where a bad address would be an error.
    answer = staff.get("/admin/djstripe/subscription/sub_5F0/change/?_to_field=id")
    assert (answer.status_code, answer["Location"]) == (302, reverse("admin:index"))


@pytest.mark.parametrize("query", ["status__exact=up", "rung__exact=paid", "switched_on__exact=0"])
def test_the_plain_filters_work(staff: Client, make: Maker, query: str) -> None:
    make.bot()
    assert staff.get(f"{BOTS}?{query}").context["cl"].result_count == 0


def test_trouble_is_shown_in_dockers_words_and_filtered(staff: Client, make: Maker, hub: Hub) -> None:
    fill(make, hub, 2)
    make.bot()  # without a placement there is none
    placement = Placement.objects.first()
    assert placement
    Placement.objects.filter(pk=placement.pk).update(trouble="no space left on device")
    for where, found in ((BOTS, placement.bot), ("/admin/orchestrator/placement/", placement)):
        assert list(staff.get(f"{where}?trouble=yes").context["cl"].result_list) == [found]
        assert found not in staff.get(f"{where}?trouble=no").context["cl"].result_list
        assert "no space left on device" in staff.get(f"{where}{found.pk}/change/").content.decode()


def test_a_bot_leads_to_its_hub_and_placement_and_a_hub_to_its_placements(staff: Client, make: Maker, hub: Hub) -> None:
    fill(make, hub, 2)
    Placement.objects.create(bot=make.bot(), hub=Hub.objects.create(name="hub-2"), port=25000, label="one")
    bot = Bot.objects.filter(placement__hub=hub)[0]
    to_hub = f"/admin/orchestrator/hub/{hub.pk}/change/"
    to_placement = f"/admin/orchestrator/placement/{bot.placement.pk}/change/"
    to_placements = f"/admin/orchestrator/placement/?hub__id__exact={hub.pk}"
    for page in (BOTS, f"{BOTS}{bot.pk}/change/"):
        text = staff.get(page).content.decode()
        assert f'<a href="{to_hub}">hub-1</a>' in text
        assert f'<a href="{to_placement}">24000</a>' in text
    for page in ("/admin/orchestrator/hub/", to_hub):
        assert f'<a href="{to_placements}">2 of 15</a>' in staff.get(page).content.decode()
    assert f"/admin/pubs/bot/{bot.pk}/change/" in staff.get(to_placement).content.decode()
    assert staff.get(to_placements).context["cl"].result_count == 2


def test_bot_and_owner_lead_to_the_events_of_their_customer(staff: Client, make: Maker) -> None:
    alice = make.user("alice")
    for customer, user in (("cus_alice", alice), ("cus_bob", make.user("bob"))):
        Customer.objects.create(id=customer, livemode=False, subscriber=user, stripe_data={})
        about = {"object": {"object": "invoice", "customer": customer}}
        Event.objects.create(id=f"evt_{customer}", livemode=False, type="invoice.paid", data=about, stripe_data={})
    events = "/admin/djstripe/event/?data__icontains=cus_alice"
    for page in (f"{BOTS}{make.bot(alice).pk}/change/", f"/admin/accounts/user/{alice.pk}/change/"):
        text = staff.get(page).content.decode()
        assert f'<a href="{events}">events of cus_alice</a>' in text
        assert f'<a href="/admin/djstripe/customer/?subscriber__id__exact={alice.pk}">customer</a>' in text
    assert [event.id for event in staff.get(events).context["cl"].result_list] == ["evt_cus_alice"]


def test_the_filters_for_wanted_and_deleted_tell_both_sorts_apart(staff: Client, make: Maker) -> None:
    make.bot(name="Wanted", paid=True)
    make.bot(name="Unpaid")
    make.bot(name="Gone", paid=True, deleted_at=timezone.now())

    def names(query: str) -> set[str]:
        return {bot.name for bot in staff.get(f"{BOTS}?{query}").context["cl"].result_list}

    assert names("wanted=yes") == {"Wanted"}
    assert names("wanted=no") == {"Unpaid", "Gone"}
    assert names("deleted=yes") == {"Gone"}
    assert names("") == {"Wanted", "Unpaid", "Gone"}


def test_what_is_out_of_sight_or_lost_is_not_shown_as_up_and_is_filtered(staff: Client, make: Maker) -> None:
    unknown = make.bot(name="Unknown", status="up", unknown_since=timezone.now())
    lost = make.bot(name="Lost", status="up", lost_at=timezone.now())
    moving = make.bot(name="Moving", moving=True)
    page = staff.get(BOTS).content.decode()
    for said in ("unknown, was up", "lost with its hub", "not running, moving"):
        assert f'<td class="field-condition">{said}</td>' in page
    assert list(staff.get(f"{BOTS}?unknown=yes").context["cl"].result_list) == [unknown]
    assert list(staff.get(f"{BOTS}?lost=yes").context["cl"].result_list) == [lost]
    assert "2 GB" not in staff.get(f"{BOTS}{moving.pk}/change/").content.decode()
    Bot.objects.filter(pk=moving.pk).update(memory_gb=2)
    assert "2 GB" in staff.get(f"{BOTS}{moving.pk}/change/").content.decode()


def test_a_bot_is_found_by_anything_that_staff_may_know(staff: Client, make: Maker) -> None:
    ssb_id = "@" + "C" * 43 + "=.ed25519"
    bot = make.bot(make.user("alice"), name="Harbour", ssb_id=ssb_id, address="pub.example:24001")
    make.bot(make.user("bob"), name="Other")
    for words in ("harbour", "alice@", ssb_id, str(bot.pk), str(bot.pk)[:8], "pub.example:24001"):
        assert list(staff.get(BOTS, {"q": words}).context["cl"].result_list) == [bot], words


def act(staff: Client, action: str, *bots: Bot) -> str:
    data = {"action": action, "_selected_action": [str(bot.pk) for bot in bots]}
    return staff.post(BOTS, data, follow=True).content.decode()


def test_staff_stop_start_and_restart(staff: Client, make: Maker) -> None:
    bot, gone, lost = make.bot(), make.bot(deleted_at=timezone.now()), make.bot(lost_at=timezone.now())
    assert "Switched off: 1 of 3 pubs." in act(staff, "stop", bot, gone, lost)
    bot.refresh_from_db()
    assert not bot.switched_on
    act(staff, "start", bot)
    act(staff, "restart", bot)
    bot.refresh_from_db()
    assert (bot.switched_on, bot.restarts) == (True, 1)


def test_the_page_of_a_pub_has_all_deeds_as_buttons_and_comes_back_after_one(staff: Client, make: Maker) -> None:
    page = f"{BOTS}{make.bot().pk}/change/"
    form = re.search(r'<form class="deeds".*?</form>', staff.get(page).content.decode(), re.DOTALL)
    assert form
    fields = dict(re.findall(r'name="(page_of|_selected_action)" value="([^"]+)"', form[0]))
    assert 'name="action" value="stop"' in form[0] and "Refund…" in form[0]
    answer = staff.post(BOTS, {**fields, "action": "stop"}, follow=True)
    assert answer.redirect_chain == [(page, 302)] and "Switched off: 1 of 1 pubs." in answer.content.decode()


def test_look_again_nudges_the_orchestrator(staff: Client, make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    nudges: list[int] = []
    monkeypatch.setattr(live, "nudge", lambda: nudges.append(1))
    act(staff, "look_again", make.bot())
    assert nudges == [1]


def test_nothing_is_edited_added_or_deleted_by_hand(staff: Client, make: Maker) -> None:
    bot = make.bot()
    assert staff.get(f"{BOTS}add/").status_code == 403
    assert staff.post(f"{BOTS}{bot.pk}/change/", {"name": "x", "paid": "on"}).status_code == 403
    assert staff.post(f"{BOTS}{bot.pk}/delete/", {"post": "yes"}).status_code == 403
    bot.refresh_from_db()
    assert not bot.paid


def test_a_bot_that_was_never_placed_or_paid_has_a_page(staff: Client, make: Maker) -> None:
    assert staff.get(f"{BOTS}{make.bot().pk}/change/").status_code == 200


@pytest.mark.parametrize("where", ["", "pubs/bot/", "pubs/command/", "orchestrator/hub/"])
def test_customers_and_nobody_stay_outside(make: Maker, where: str) -> None:
    customer = Client()
    customer.force_login(make.user("alice"))
    assert customer.get(f"/admin/{where}").status_code in (302, 403)
    assert Client().get(f"/admin/{where}").status_code == 302


def test_staff_who_may_only_look_get_no_deeds(make: Maker) -> None:
    looker: User = make.user("looker", is_staff=True)
    looker.user_permissions.add(Permission.objects.get(codename="view_bot"))
    client, bot = Client(), make.bot()
    client.force_login(looker)
    assert client.get(BOTS).status_code == 200
    assert 'name="action"' not in client.get(f"{BOTS}{bot.pk}/change/").content.decode()
    act(client, "stop", bot)
    bot.refresh_from_db()
    assert bot.switched_on
