"""How a pub is, for anybody, where its owner wishes so; and how the whole service is."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from billing.models import Sweep
from mailer.models import Message
from orchestrator import signs
from orchestrator.models import Hub
from pubs.models import Bot, Checkup, Status, StatusChange
from pubs.views.public import uptime
from tests.support.make import Maker

pytestmark = pytest.mark.django_db
NOW = timezone.now()


def ago(**past: float) -> datetime:
    return NOW - timedelta(**past)


@pytest.fixture
def bot(make: Maker) -> Bot:
    """Up and reached, and its owner shows it."""
    bot = make.bot(
        name="The <Crab> & 'Co' 🦀",
        paid=True,
        status=Status.UP,
        seen_at=timezone.now(),
        address="pub.example:24000",
        ssb_id="@AAAA.ed25519",
        status_public=True,
    )
    now = timezone.now()
    Checkup.objects.create(
        bot=bot, tried_at=now, reached_at=now, answered_at=now, peers=2718281, followers=3141592, disk=2**33
    )
    changed(bot, ago(days=3), Status.NONE, Status.UP)
    return bot


def changed(bot: Bot, at: datetime, old: str, new: str) -> None:
    change = StatusChange.objects.create(bot=bot, old=old, new=new)
    StatusChange.objects.filter(pk=change.pk).update(at=at)


def addresses(bot: Bot) -> Iterator[str]:
    for rest in ("/", ".json", "/badge.svg"):
        yield f"/status/{bot.pk}{rest}"


def texts(client: Client, bot: Bot) -> dict[str, str]:
    cache.clear()
    return {address: client.get(address).content.decode() for address in addresses(bot)}


# --- one pub ---------------------------------------------------------------------------------------------------------
def test_anybody_sees_how_a_shown_pub_is(client: Client, bot: Bot) -> None:
    page = client.get(f"/status/{bot.pk}/").content.decode()
    assert "The &lt;Crab&gt; &amp; &#x27;Co&#x27; 🦀" in page
    assert "pub.example:24000" in page and "@AAAA.ed25519" in page and "100 %" in page
    found = json.loads(client.get(f"/status/{bot.pk}.json").content)
    assert found.pop("at")
    assert found == {
        "name": "The <Crab> & 'Co' 🦀",
        "address": "pub.example:24000",
        "id": "@AAAA.ed25519",
        "status": "up",
        "words": "It runs, and people can reach it.",
        "uptime": {"24h": 100.0, "168h": 100.0, "720h": 100.0},
    }


@pytest.mark.parametrize("columns", [{"status_public": False}, {"deleted_at": NOW}])
def test_one_that_its_owner_does_not_show_is_not_found_at_once(
    client: Client, bot: Bot, columns: dict[str, Any]
) -> None:
    assert {client.get(address).status_code for address in addresses(bot)} == {200}
    Bot.objects.filter(pk=bot.pk).update(**columns)
    assert {client.get(address).status_code for address in addresses(bot)} == {404}


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        ({}, "up"),
        ({"status": Status.DOWN}, "down"),
        ({"status": Status.NONE, "switched_on": False}, "down"),
        ({"status": Status.NONE, "paid": False}, "down"),
        ({"unknown_since": NOW}, "unknown"),
    ],
)
def test_all_say_the_same_word(client: Client, bot: Bot, columns: dict[str, Any], word: str) -> None:
    Bot.objects.filter(pk=bot.pk).update(started_at=ago(days=3), **columns)
    page, found, badge = texts(client, bot).values()
    assert f">{word}</span>" in page
    assert json.loads(found)["status"] == word
    assert badge_texts(badge)[-1] == word


def test_nothing_private_is_shown(client: Client, bot: Bot) -> None:
    owner = bot.owner
    Bot.objects.filter(pk=bot.pk).update(paid=False, status=Status.NONE, reason="private words", rung="suspended")
    for text in texts(client, bot).values():
        for secret in (owner.email, "2718281", "3141592", "8 GB", "private words", "paid", "payment", "disk", "member"):
            assert secret not in text


def badge_texts(badge: str) -> list[str | None]:
    return [text.text for text in ET.fromstring(badge).iter("{http://www.w3.org/2000/svg}text")]


def test_the_badge_is_a_picture_with_the_name_in_it(client: Client, bot: Bot) -> None:
    answer = client.get(f"/status/{bot.pk}/badge.svg")
    assert answer["Content-Type"] == "image/svg+xml"
    assert badge_texts(answer.content.decode()) == ["The <Crab> & 'Co' 🦀", "up"]
    # What our own policy forbids would not be drawn where the badge is opened by itself.
    assert b"style=" not in answer.content and b"<script" not in answer.content


def test_a_long_name_is_cut_on_the_badge_and_a_wide_one_has_room(client: Client, bot: Bot) -> None:
    def width(name: str) -> int:
        Bot.objects.filter(pk=bot.pk).update(name=name)
        badge = texts(client, bot)[f"/status/{bot.pk}/badge.svg"]
        return int(ET.fromstring(badge).attrib["width"])

    assert width("m" * 64) == width("m" * 32)
    assert width("桶" * 8) > width("m" * 8)


def test_a_glance_costs_one_look_up_and_a_picture_may_be_kept_for_a_moment(client: Client, bot: Bot) -> None:
    for address in addresses(bot):
        client.get(address)
    for address in addresses(bot):
        with CaptureQueriesContext(connection) as queries:
            answer = client.get(address)
        assert len(queries) == 1, address
        if not address.endswith("/"):
            assert {"public", "max-age=20"} == set(answer["Cache-Control"].split(", "))
            assert "Cookie" not in answer.get("Vary", "")


def test_scripts_of_other_sites_may_read_the_json(client: Client, bot: Bot) -> None:
    assert client.get(f"/status/{bot.pk}.json")["Access-Control-Allow-Origin"] == "*"


# --- uptime ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def new(make: Maker) -> Bot:
    return make.bot(status=Status.UP)


def test_an_hour_down_is_an_hour_less(new: Bot) -> None:
    changed(new, ago(days=90), Status.NONE, Status.UP)
    changed(new, ago(hours=6), Status.UP, Status.DOWN)
    changed(new, ago(hours=5), Status.DOWN, Status.UP)
    assert uptime(new, NOW) == {"24 hours": 95.83, "7 days": 99.4, "30 days": 99.86}


def test_what_is_before_its_first_day_up_does_not_count(new: Bot) -> None:
    changed(new, ago(hours=4), Status.NONE, Status.UP)
    changed(new, ago(hours=1), Status.UP, Status.DOWN)
    assert set(uptime(new, NOW).values()) == {75.0}


def test_one_that_was_never_up_has_no_uptime(new: Bot) -> None:
    changed(new, ago(hours=4), Status.NONE, Status.DOWN)
    assert set(uptime(new, NOW).values()) == {None}


@pytest.mark.parametrize(("status", "percent"), [(Status.UP, 100.0), (Status.DOWN, 0.0), (Status.NONE, 0.0)])
def test_without_a_change_it_is_what_it_is(new: Bot, status: str, percent: float) -> None:
    changed(new, ago(days=90), Status.NONE, Status.UP)
    new.status = status
    assert set(uptime(new, NOW).values()) == {percent}


def test_how_a_span_began_is_read_from_its_first_change(new: Bot) -> None:
    changed(new, ago(days=90), Status.NONE, Status.UP)
    changed(new, ago(days=60), Status.UP, Status.DOWN)
    changed(new, ago(hours=12), Status.DOWN, Status.UP)
    assert uptime(new, NOW)["24 hours"] == 50.0


# --- the whole service -----------------------------------------------------------------------------------------------
@pytest.fixture
def well(make: Maker) -> None:
    """All is well."""
    signs.note_pass(0.1, 20, 0)
    Sweep.objects.create(kind=Sweep.Kind.EVENTS, started=NOW, read_until=timezone.now())
    now = timezone.now()
    Hub.objects.create(name="hub", state=Hub.State.READY, seen_at=now, answered_at=now)
    for _ in range(19):
        make.bot(paid=True, status=Status.UP)
    make.bot(name="Secret place", paid=True, status=Status.DOWN, wanted_since=ago(hours=1))


def parts(client: Client) -> dict[str, tuple[str, str]]:
    cache.delete("service_status")
    found = json.loads(client.get("/status.json").content)
    return {"all": (found["state"], found["words"])} | {
        part["name"]: (part["state"], part["words"]) for part in found["parts"]
    }


def test_a_service_that_is_well_says_so(client: Client, well: None) -> None:
    found = parts(client)
    assert {state for state, _ in found.values()} == {"good"}
    assert found["pubs"][1] == "95 % of those that should be up are up."
    assert found["all"][1] == "All is well."
    page = client.get("/status/").content.decode()
    assert "All is well." in page and "All are in our sight." in page


def test_nothing_of_a_customer_is_on_it(client: Client, well: None) -> None:
    for address in ("/status/", "/status.json"):
        text = client.get(address).content.decode()
        assert "Secret" not in text and "customer.example" not in text and "Pub 1" not in text


def test_too_many_pubs_down_is_not_well(client: Client, well: None) -> None:
    Bot.objects.filter(name="Pub 1").update(status=Status.DOWN, wanted_since=ago(hours=1))
    assert parts(client)["pubs"] == ("bad", "90 % of those that should be up are up.")
    assert parts(client)["all"] == ("bad", "Not all is well: pubs.")


def test_pubs_out_of_sight_are_said_and_stopped_ones_do_not_count(client: Client, well: None) -> None:
    Bot.objects.filter(name="Pub 1").update(unknown_since=NOW)
    Bot.objects.filter(name="Secret place").update(switched_on=False)
    assert parts(client)["pubs"] == (
        "unknown",
        "100 % of those that should be up are up. We can't see 5.26 %, which probably run on.",
    )
    Bot.objects.update(unknown_since=NOW)
    assert parts(client)["pubs"] == ("unknown", "We can't see 100 %, which probably run on.")


def test_what_is_out_of_sight_changes_nothing_where_it_can_not(client: Client, well: None, make: Maker) -> None:
    for _ in range(21):
        make.bot(paid=True, status=Status.UP)
    Bot.objects.filter(name="Pub 1").update(unknown_since=NOW)
    assert parts(client)["pubs"][0] == "good"
    Bot.objects.exclude(name="Pub 1").update(status=Status.DOWN, wanted_since=ago(hours=1))
    assert parts(client)["pubs"][0] == "bad"


@pytest.mark.parametrize("lately", ["wanted_since", "started_at", ""])
def test_a_pub_that_just_starts_is_no_trouble_of_the_service(
    client: Client, well: None, make: Maker, lately: str
) -> None:
    since = {"wanted_since": ago(hours=1), lately: timezone.now()} if lately else {"wanted_since": None}
    make.bot(paid=True, **since)
    assert parts(client)["pubs"] == ("good", "95 % of those that should be up are up.")


def test_an_old_look_says_nothing_about_the_pubs(client: Client, well: None) -> None:
    cache.set(signs.PASS_KEY, signs.LastPass(timezone.now() - timedelta(minutes=7), 0.1, 20, 0))
    found = parts(client)
    assert found["looks"] == ("bad", "We last looked at all pubs 7 min ago.")
    assert found["pubs"][0] == "unknown"


def test_a_hub_out_of_sight_is_said(client: Client, well: None) -> None:
    Hub.objects.create(name="away", state=Hub.State.READY, answered_at=ago(minutes=9))
    Hub.objects.create(name="gone", state=Hub.State.GONE)
    state, words = parts(client)["machines"]
    assert state == "bad" and words.startswith("1 of 2 ")


def test_payments_and_mail_that_are_late_are_said(client: Client, well: None) -> None:
    Sweep.objects.update(read_until=timezone.now() - timedelta(hours=2))
    late = Message.objects.create(key="late", to="x@customer.example", subject="Hi", text="Hi")
    Message.objects.filter(pk=late.pk).update(created=timezone.now() - timedelta(minutes=12))
    found = parts(client)
    assert found["payments"] == ("bad", "We read Stripe's news 2 h ago.")
    assert found["mail"] == ("bad", "It is late: what waits longest was written 12 min ago.")


def test_an_address_that_takes_no_mail_is_not_our_queue(client: Client, well: None) -> None:
    bounced = Message.objects.create(key="bounced", to="x@customer.example", subject="Hi", text="Hi", tries=3)
    Message.objects.filter(pk=bounced.pk).update(created=timezone.now() - timedelta(hours=12))
    assert parts(client)["mail"][0] == "good"


def test_a_service_that_has_seen_nothing_yet_claims_nothing(client: Client) -> None:
    found = parts(client)
    assert found["all"] == ("unknown", "We don't know everything right now.")
    assert found["looks"][0] == found["payments"][0] == "unknown"


def test_every_page_leads_to_it(client: Client) -> None:
    assert 'href="/status/"' in client.get("/").content.decode()


def test_many_visitors_ask_the_database_once(client: Client, well: None) -> None:
    client.get("/status/")
    with CaptureQueriesContext(connection) as queries:
        client.get("/status/")
        client.get("/status.json")
    assert len(queries) == 0
