"""Staff find their way between our rows and Stripe's, and do what an owner can't."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.formats import date_format
from djstripe.models import Customer as StripeCustomer
from djstripe.models import Event, Invoice, Subscription
from pytest_django import Settings

from billing import gateway
from billing.models import Sweep
from pubs import live
from pubs.models import Bot, PaymentChange
from tests.billing.conftest import Customer
from tests.support.local_stripe import RunningLocalStripe
from tests.support.make import Maker

BOTS = "/admin/pubs/bot/"
DEEDS = ["look_at_stripe", "comp", "end_comp", "extend_grace", "give_back", "end_subscription"]
WHY = "Thank you for your patience."


def act(client: Client, deed: str, *bots: Bot, **fields: str) -> str:
    data = {"action": deed, "_selected_action": [str(bot.pk) for bot in bots], **fields}
    return client.post(BOTS, data, follow=True).content.decode()


def until(days: float) -> str:
    """As the form's field has it: in UTC, by the minute."""
    return f"{datetime.now(UTC) + timedelta(days=days):%Y-%m-%dT%H:%M}"


def found(client: Client, query: str) -> set[str]:
    return {bot.name for bot in client.get(f"{BOTS}?{query}").context["cl"].result_list}


def at_stripe(customer: Customer, stripe: RunningLocalStripe) -> Any:
    return stripe.client.v1.subscriptions.retrieve(customer.see().subscription_id)


@pytest.fixture
def in_grace(make: Maker) -> Bot:
    """A payment failed four days ago."""
    since = timezone.now() - timedelta(days=4)
    ends = since + timedelta(days=14)
    facts = {"paid_status": "past_due", "paid_until": since + timedelta(days=31), "unpaid_since": since}
    return make.bot(name="Harbour", paid=True, rung="grace", runs_until=ends, subscription_id="sub_1", **facts)


# --- the way between our rows and Stripe's ----------------------------------------------------------------------------
@pytest.mark.usefixtures("site")
def test_staff_see_subscriptions_customers_invoices_and_events(
    alice: Customer, stripe: RunningLocalStripe, admin_client: Client
) -> None:
    alice.pay()
    stripe.settle()
    bot_page = reverse("admin:pubs_bot_change", args=[alice.bot.pk])
    user_page = reverse("admin:accounts_user_change", args=[alice.bot.owner.pk])
    about = alice.see().subscription_id
    subscription = f"/admin/djstripe/subscription/{about.replace('_', '_5F')}/change/?_to_field=id"
    invoices = f"/admin/djstripe/invoice/?stripe_data__icontains={about}"
    for model, in_list, on_page in (
        (Subscription, [bot_page], [bot_page, invoices]),
        (StripeCustomer, [bot_page, user_page], [bot_page, user_page]),
        (Invoice, [bot_page], [bot_page, subscription]),
        (Event, [], []),
    ):
        name = model._meta.model_name
        shown = admin_client.get(reverse(f"admin:djstripe_{name}_changelist")).content.decode()
        assert all(link in shown for link in in_list), name
        one = model.objects.first()
        assert one is not None
        page = admin_client.get(reverse(f"admin:djstripe_{name}_change", args=[one.pk]))
        assert page.status_code == 200, name
        assert all(link in page.content.decode() for link in on_page), name
        assert settings.STRIPE_SECRET_KEY not in page.content.decode(), "a key is nobody's business"
        assert b'name="_save"' not in page.content, "what Stripe knows is changed at Stripe"
    ours = admin_client.get(bot_page).content.decode()
    assert subscription in ours and invoices in ours
    assert admin_client.get(invoices).context["cl"].result_count == 1
    assert found(admin_client, f"q={StripeCustomer.objects.get().id}") == {alice.bot.name}


@pytest.mark.parametrize(("live_mode", "mode"), [(False, "test/"), (True, "")])
def test_only_the_real_stripe_has_a_dashboard(
    admin_client: Client, make: Maker, settings: Settings, live_mode: bool, mode: str
) -> None:
    bot = make.bot(subscription_id="sub_1")
    customer = StripeCustomer.objects.create(id="cus_1", livemode=False, stripe_data={})
    said = {"metadata": {}, "status": "active"}
    row = Subscription.objects.create(id="sub_1", livemode=False, customer=customer, stripe_data=said)
    pages = [f"{BOTS}{bot.pk}/change/", reverse("admin:djstripe_subscription_change", args=[row.pk])]
    for page in pages:
        assert "dashboard.stripe.com" not in admin_client.get(page).content.decode()
    settings.STRIPE_API_HOST, settings.STRIPE_LIVE_MODE = "https://api.stripe.com", live_mode
    for page in pages:
        assert f"https://dashboard.stripe.com/{mode}subscriptions/sub_1" in admin_client.get(page).content.decode()


def test_staff_are_shown_only_the_tables_that_help(admin_client: Client) -> None:
    front = admin_client.get(reverse("admin:index")).content.decode()
    for shown in ("subscription", "customer", "invoice", "event", "price", "product"):
        assert f"/admin/djstripe/{shown}/" in front
    for hidden in ("apikey", "webhookendpoint", "coupon", "account"):
        assert f"/admin/djstripe/{hidden}/" not in front
    assert "/admin/billing/sweep/" in front and "/admin/pubs/paymentchange/" in front


def test_no_back_door_ends_a_subscription(alice: Customer, stripe: RunningLocalStripe, make: Maker) -> None:
    alice.come_back(alice.pay())
    row = Subscription.sync_from_stripe_data(at_stripe(alice, stripe))
    staff = Client()
    staff.force_login(make.user("staff", is_staff=True))
    with pytest.raises(NoReverseMatch):
        reverse("admin:djstripe_custom_action", args=["_cancel", "subscription"])
    for name in ("_cancel", "_resync_instances"):
        staff.post(f"/admin/djstripe/subscription/action/{name}/subscription/", {"_selected_action": row.pk})
    admin = Client()
    admin.force_login(make.user("admin", is_staff=True, is_superuser=True))
    assert 'name="action"' not in admin.get(reverse("admin:djstripe_subscription_changelist")).content.decode()
    assert at_stripe(alice, stripe)["status"] == "active"


def test_pubs_are_found_by_where_they_stand(admin_client: Client, make: Maker) -> None:
    now = timezone.now()
    soon, late = now + timedelta(days=6), now + timedelta(days=8)
    make.bot(name="Paid", rung="paid", paid_status="active")
    make.bot(name="Ending", rung="ending", runs_until=late)
    make.bot(name="Grace", rung="grace", runs_until=soon)
    make.bot(name="Comped", rung="comped", runs_until=soon, comped_until=soon)
    make.bot(name="Comped once", rung="kept", kept_until=soon, comped_until=now - timedelta(days=54))
    make.bot(name="Over", rung="over", kept_until=now - timedelta(days=1))
    make.bot(name="Deleted", rung="kept", kept_until=late, deleted_at=now, paid_status="active")
    make.bot(name="Ended", rung="kept", kept_until=late, deleted_at=now, paid_status="canceled")
    assert found(admin_client, "rung__exact=kept") == {"Comped once", "Deleted", "Ended"}
    assert found(admin_client, "soon=yes") == {"Grace", "Comped", "Comped once"}
    assert found(admin_client, "comped=yes") == {"Comped"}
    assert found(admin_client, "charged=yes") == {"Deleted"}
    counted = admin_client.get(f"{BOTS}?_facets=True").content.decode()
    assert "ended, and kept (3)" in counted
    page = admin_client.get(BOTS).content.decode()
    for word, moment in (("runs", soon), ("kept", late)):
        assert f'{word} until <span class="nowrap">{moment:%-d %b %Y}</span>' in page


def test_comparisons_with_stripe_are_read_and_not_written(admin_client: Client) -> None:
    now = timezone.now()
    Sweep.objects.create(kind="all", started=now, finished=now, looked=250)
    row = Sweep.objects.create(kind="all", started=now, finished=now, looked=250, differences=1, words="sub_1: status")
    sweeps = "/admin/billing/sweep/"
    assert list(admin_client.get(f"{sweeps}?different=yes").context["cl"].result_list) == [row]
    page = admin_client.get(f"{sweeps}{row.pk}/change/").content.decode()
    assert "sub_1: status" in page and 'name="_save"' not in page
    assert admin_client.get(f"{sweeps}add/").status_code == 403


# --- comp -------------------------------------------------------------------------------------------------------------
def test_staff_comp_a_pub_until_a_moment(admin_client: Client, admin_user: Any, make: Maker) -> None:
    bot = make.bot(name="Harbour")
    form = act(admin_client, "comp", bot)
    assert "Comp Harbour?" in form and "Until (UTC)" in form and "The owner reads these words" in form
    assert not Bot.objects.filter(paid=True).exists(), "nothing happens before the form is sent"
    moment = until(30)
    said = act(admin_client, "comp", bot, until=moment, words=WHY)
    bot.refresh_from_db()
    assert (bot.paid, bot.rung) == (True, "comped")
    assert bot.runs_until == datetime.fromisoformat(f"{moment}+00:00")
    assert f"{bot.runs_until:%-d %B %Y, %H:%M} UTC" in said
    change = PaymentChange.objects.filter(bot=bot, by=admin_user).get()
    assert (change.new, change.words) == ("comped", WHY)
    entry = LogEntry.objects.get()
    assert (entry.user, entry.object_id) == (admin_user, str(bot.pk)) and WHY in entry.get_change_message()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"until": until(-1), "words": WHY}, "That is past."),
        ({"until": until(9999), "words": WHY}, "That is too far away"),
        ({"until": "soon", "words": WHY}, "Enter a valid date"),
        ({"until": until(1), "words": " "}, "This field is required."),
        ({"words": WHY}, "This field is required."),
        ({"until": until(1), "words": "x" * 301}, "at most 300 characters"),
    ],
)
def test_a_form_that_is_wrong_says_why_and_does_nothing(
    admin_client: Client, make: Maker, fields: dict[str, str], said: str
) -> None:
    page = act(admin_client, "comp", make.bot(), **fields)
    assert said in page and "errorlist" in page
    assert not Bot.objects.filter(paid=True).exists() and not LogEntry.objects.exists()


def test_a_comp_is_taken_back(admin_client: Client, make: Maker) -> None:
    bot = make.bot(name="Harbour")
    assert "Harbour is not comped" in act(admin_client, "end_comp", bot)
    act(admin_client, "comp", bot, until=until(30), words=WHY)
    assert "Without that it is: ended, and kept." in act(admin_client, "end_comp", bot)
    assert "The comp has ended." in act(admin_client, "end_comp", bot, words="It was a mistake.")
    bot.refresh_from_db()
    assert not bot.paid and bot.rung != "comped"
    assert PaymentChange.objects.filter(bot=bot, words="It was a mistake.").exists()


def test_what_its_owner_deleted_is_not_comped(admin_client: Client, make: Maker) -> None:
    bot = make.bot(deleted_at=timezone.now() - timedelta(days=1))
    assert "was deleted by its owner" in act(admin_client, "comp", bot, until=until(30), words=WHY)
    bot.refresh_from_db()
    assert not bot.paid


# --- grace ------------------------------------------------------------------------------------------------------------
def test_staff_extend_a_grace(admin_client: Client, in_grace: Bot) -> None:
    moment = until(30)
    assert "The grace lasts until" in act(admin_client, "extend_grace", in_grace, until=moment, words=WHY)
    in_grace.refresh_from_db()
    assert in_grace.paid and in_grace.runs_until == datetime.fromisoformat(f"{moment}+00:00")
    assert PaymentChange.objects.get(words=WHY).new == "grace"


def test_a_suspended_pub_runs_again_in_an_extended_grace(admin_client: Client, in_grace: Bot) -> None:
    since = timezone.now() - timedelta(days=20)
    Bot.objects.update(paid=False, rung="suspended", runs_until=None, unpaid_since=since)
    act(admin_client, "extend_grace", in_grace, until=until(5), words=WHY)
    in_grace.refresh_from_db()
    assert (in_grace.paid, in_grace.rung) == (True, "grace")


@pytest.mark.parametrize(("days", "said"), [(3, "That gives nothing: it runs until"), (91, "That is too far away")])
def test_a_grace_is_extended_not_shortened_and_not_for_ever(
    admin_client: Client, in_grace: Bot, days: int, said: str
) -> None:
    assert said in act(admin_client, "extend_grace", in_grace, until=until(days), words=WHY)
    in_grace.refresh_from_db()
    assert in_grace.grace_until is None


def test_the_list_of_pubs_says_each_rung_in_a_word(admin_client: Client, make: Maker) -> None:
    make.bot(rung="ending", paid=True)
    listed = admin_client.get(reverse("admin:pubs_bot_changelist")).content.decode()
    assert '<td class="field-short_rung">ending</td>' in listed


def test_a_grace_that_staff_gave_is_not_shortened(admin_client: Client, in_grace: Bot) -> None:
    act(admin_client, "extend_grace", in_grace, until=until(30), words=WHY)
    said = act(admin_client, "extend_grace", in_grace, until=until(20), words=WHY)
    assert "That gives nothing: it runs until" in said
    in_grace.refresh_from_db()
    assert in_grace.runs_until and in_grace.runs_until > timezone.now() + timedelta(days=29)


@pytest.mark.parametrize("status", ["active", "trialing", "paused", "incomplete", ""])
def test_there_is_no_grace_to_extend_where_no_payment_failed(admin_client: Client, make: Maker, status: str) -> None:
    bot = make.bot(paid_status=status, paid_until=timezone.now() + timedelta(days=3))
    assert "has no grace to extend" in act(admin_client, "extend_grace", bot, until=until(5), words=WHY)
    bot.refresh_from_db()
    assert bot.grace_until is None and not PaymentChange.objects.exists()


# --- what its owner was told ---------------------------------------------------------------------------------------
def test_a_deed_that_takes_back_what_its_owner_was_told_says_so(admin_client: Client, make: Maker) -> None:
    period_end = timezone.now() + timedelta(days=20)
    ending = {"rung": "ending", "paid_status": "active", "paid_ends": True, "paid_until": period_end}
    comped = {"rung": "comped", "comped_until": period_end}
    kept = date_format(period_end + timedelta(days=60), "j F Y, H:i")
    told = f"and no longer until {kept} UTC, as its owner was told"
    for deed, facts in (("end_subscription", ending), ("end_comp", comped)):
        bot = make.bot(paid=True, runs_until=period_end, subscription_id="sub_1", **facts)
        assert told in act(admin_client, deed, bot), deed
        bot.refresh_from_db()
        assert bot.paid, "the form is only shown"
    assert "takes back what its owner was told" in act(admin_client, "comp", bot)


def test_a_deed_that_takes_nothing_back_says_only_until_when_all_is_kept(admin_client: Client, make: Maker) -> None:
    bot = make.bot(paid=True, rung="paid", paid_status="active", paid_until=timezone.now() + timedelta(days=20))
    shown = act(admin_client, "end_subscription", bot)
    assert "Its data is kept until" in shown and "no longer until" not in shown
    assert "takes back" not in act(admin_client, "comp", bot)


# --- Stripe -----------------------------------------------------------------------------------------------------------
def test_staff_look_at_stripe_at_once(admin_client: Client, alice: Customer) -> None:
    alice.pay()
    assert not alice.see().paid, "no webhook came"
    said = act(admin_client, "look_at_stripe", alice.bot)
    assert alice.see().paid and f"Stripe says “active”. {alice.bot.name}: paid." in said


def test_staff_look_at_stripe_for_many_pubs_by_jobs(
    admin_client: Client, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(live, "look_at_payment", asked.append)
    one, two = make.bot(), make.bot()
    assert "Stripe is asked about 2 pubs now." in act(admin_client, "look_at_stripe", one, two)
    assert asked == [one.pk, two.pk]


def test_staff_end_a_subscription(admin_client: Client, alice: Customer, stripe: RunningLocalStripe) -> None:
    assert "has no subscription that could end" in act(admin_client, "end_subscription", alice.bot)
    alice.come_back(alice.pay())
    assert "nothing is given back" in act(admin_client, "end_subscription", alice.see())
    assert "The subscription has ended." in act(admin_client, "end_subscription", alice.see(), words=WHY)
    assert at_stripe(alice, stripe)["status"] == "canceled"
    assert (alice.see().paid, alice.bot.rung) == (False, "kept")
    assert PaymentChange.objects.filter(words__contains=WHY).count() == 1


@pytest.mark.parametrize("deed", ["look_at_stripe", "end_subscription", "give_back"])
def test_staff_are_told_when_stripe_is_away_and_nothing_is_half_done(
    admin_client: Client, alice: Customer, stripe: RunningLocalStripe, deed: str
) -> None:
    alice.come_back(alice.pay())
    before = Bot.objects.values().get()
    seen = PaymentChange.objects.count()
    stripe.stop()
    assert "Stripe can&#x27;t be reached just now." in act(admin_client, deed, alice.see(), words=WHY)
    assert Bot.objects.values().get() == before
    assert PaymentChange.objects.count() == seen and not LogEntry.objects.exists()


@pytest.mark.parametrize("deed", ["look_at_stripe", "end_subscription", "give_back"])
def test_staff_are_told_apart_that_stripe_refuses(
    admin_client: Client, alice: Customer, monkeypatch: pytest.MonkeyPatch, deed: str
) -> None:
    alice.come_back(alice.pay())

    def refuse(*_: object) -> None:
        raise gateway.PaymentTrouble(gateway.OUR_FAULT)

    for asked in ("subscriptions_of", "cancel", "paid_invoices"):
        monkeypatch.setattr(gateway, asked, refuse)
    assert "Stripe refuses: what it said is in the log." in act(admin_client, deed, alice.see(), words=WHY)
    assert not LogEntry.objects.exists()


# --- who may ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def log_in(make: Maker) -> Callable[..., Client]:
    def give(*rights: str, is_staff: bool = True) -> Client:
        user = make.user("somebody")
        user.is_staff = is_staff
        user.save()
        user.user_permissions.set(Permission.objects.filter(codename__in=rights))
        client = Client()
        client.force_login(user)
        return client

    return give


@pytest.mark.parametrize("deed", DEEDS)
def test_who_may_not_change_pubs_does_no_deed(
    log_in: Callable[..., Client], in_grace: Bot, monkeypatch: pytest.MonkeyPatch, deed: str
) -> None:
    monkeypatch.setattr(gateway, "cancel", None)  # asking Stripe anything would break
    monkeypatch.setattr(gateway, "subscriptions_of", None)
    monkeypatch.setattr(gateway, "paid_invoices", None)
    before = Bot.objects.values().get()
    for rights, is_staff in (["change_bot"], False), ([], True), (["view_bot"], True):
        shown = act(log_in(*rights, is_staff=is_staff), deed, in_grace, until=until(30), words=WHY)
        assert f'value="{deed}"' not in shown and 'name="words"' not in shown
    assert Bot.objects.values().get() == before
    assert not LogEntry.objects.exists() and not PaymentChange.objects.exists()


def test_who_may_change_pubs_does_deeds(log_in: Callable[..., Client], in_grace: Bot) -> None:
    client = log_in("view_bot", "change_bot")
    assert "Comped until" in act(client, "comp", in_grace, until=until(30), words=WHY)


@pytest.mark.parametrize("deed", DEEDS)
def test_a_deed_is_posted_with_a_token(admin_user: Any, in_grace: Bot, deed: str) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    fields = {"action": deed, "_selected_action": str(in_grace.pk), "until": until(30), "words": WHY}
    assert client.post(BOTS, fields).status_code == 403
    client.get(BOTS, fields)
    assert not LogEntry.objects.exists() and not PaymentChange.objects.exists()


@pytest.mark.parametrize("deed", DEEDS[1:])
def test_a_deed_is_for_one_pub_at_a_time(admin_client: Client, make: Maker, deed: str) -> None:
    page = act(admin_client, deed, make.bot(), make.bot(), until=until(30), words=WHY)
    assert "Choose one bot: this goes one by one." in page
    assert not PaymentChange.objects.exists()


def test_a_name_in_a_form_is_text(admin_client: Client, make: Maker) -> None:
    page = act(admin_client, "comp", make.bot(name="<b>Harbour</b>"), words="<i>x</i>")
    assert "&lt;b&gt;Harbour" in page and not re.search("<b>Harbour|<i>x", page)
