"""What an owner chooses to be told, on the page of settings and by the API."""

import re
from html import unescape
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from mailer.models import TRIES_MAX, Hook
from pubs.models import Bot, Notices
from tests.support.make import Maker

URL = "https://news.example/pub"


@pytest.fixture
def bot(make: Maker) -> Bot:
    return make.bot(name="Harbour")


@pytest.fixture
def owner(client: Client, bot: Bot) -> Client:
    client.force_login(bot.owner)
    return client


def page(owner: Client, bot: Bot) -> str:
    return unescape(owner.get(reverse("pubs:settings", args=[bot.pk])).content.decode())


def post(owner: Client, bot: Bot, form: str, **data: Any) -> int:
    return owner.post(reverse(f"pubs:{form}", args=[bot.pk]), data).status_code


def notices(bot: Bot) -> Notices:
    return Notices.objects.get(bot=bot)


# --- what to be told -------------------------------------------------------------------------------------------------
def checked(owner: Client, bot: Bot, by: str) -> list[str]:
    return re.findall(rf'name="{by}" value="(\w+)"[^>]* checked>', page(owner, bot))


def test_all_is_told_until_somebody_says_no(owner: Client, bot: Bot) -> None:
    assert (len(checked(owner, bot, "mail")), len(checked(owner, bot, "hook"))) == (5, 6)
    assert post(owner, bot, "notices", mail=["down", "disk"], hook=["memory", "payment"]) == 302
    assert sorted(notices(bot).no_mail) == ["crash_loop", "memory", "unknown"]
    assert sorted(notices(bot).no_hook) == ["crash_loop", "disk", "down", "unknown"]
    assert (checked(owner, bot, "mail"), checked(owner, bot, "hook")) == (["down", "disk"], ["memory", "payment"])


def test_nothing_chosen_is_a_choice_too(owner: Client, bot: Bot) -> None:
    assert post(owner, bot, "notices") == 302
    assert (len(notices(bot).no_mail), len(notices(bot).no_hook)) == (5, 6)


@pytest.mark.parametrize("wish", [{"mail": ["backup"]}, {"hook": ["backup"]}, {"mail": ["payment"]}])
def test_a_kind_that_there_is_not_is_refused_and_what_was_chosen_stays_to_be_mended(
    owner: Client, bot: Bot, wish: dict[str, list[str]]
) -> None:
    answer = owner.post(reverse("pubs:notices", args=[bot.pk]), {"hook": ["disk"], **wish})
    assert answer.status_code == 422 and "errorlist" in answer.content.decode()
    assert answer.content.decode().count(" checked") == ("hook" not in wish)
    assert notices(bot).no_mail == []


def test_the_page_says_that_mails_about_payment_always_come(owner: Client, bot: Bot) -> None:
    assert "Mails about your payment always come" in page(owner, bot)


# --- webhook ---------------------------------------------------------------------------------------------------------
def test_an_address_is_kept_and_its_secret_shown(owner: Client, bot: Bot) -> None:
    assert "Secret" not in page(owner, bot)
    assert post(owner, bot, "hook", url=URL) == 302
    assert (notices(bot).hook_url, len(notices(bot).hook_secret) > 30) == (URL, True)
    assert notices(bot).hook_secret in page(owner, bot)
    assert post(owner, bot, "hook", url="") == 302
    assert (notices(bot).hook_url, notices(bot).hook_since) == ("", None)


@pytest.mark.parametrize(
    "url",
    [
        "news.example",
        "ftp://news.example/",
        "https://me:word@news.example/",
        "https://news.example/a b",
        "https://news example/",
        "https://news|example/",
        "https://news..example/",
        "x" * 501,
    ],
)
def test_an_address_that_does_not_do_is_refused_at_its_field_and_kept_to_be_mended(
    owner: Client, bot: Bot, url: str
) -> None:
    post(owner, bot, "hook", url=URL)
    answer = owner.post(reverse("pubs:hook", args=[bot.pk]), {"url": url})
    said = answer.content.decode()
    assert answer.status_code == 422 and 'aria-invalid="true"' in said and f'value="{url}"' in said
    assert notices(bot).hook_url == URL


def test_in_production_an_address_of_ours_is_refused(owner: Client, bot: Bot, settings: Any) -> None:
    settings.HOOK_ALLOW_PRIVATE = False
    answer = owner.post(reverse("pubs:hook", args=[bot.pk]), {"url": "https://169.254.169.254/latest/meta-data/"})
    assert answer.status_code == 422 and "not on the public internet" in answer.content.decode()


def test_a_new_secret_is_another_one_and_what_waits_is_signed_with_it(owner: Client, bot: Bot) -> None:
    post(owner, bot, "hook", url=URL)
    old = notices(bot).hook_secret
    post(owner, bot, "hook_test")
    sent = Hook.objects.create(key="sent", about=str(bot.pk), url=URL, body="{}", sent_at=timezone.now())
    assert post(owner, bot, "hook_secret") == 302
    assert notices(bot).hook_secret != old
    assert {each.pk: each.secret for each in Hook.objects.all()} == {
        sent.pk: "",
        Hook.objects.get(event="test").pk: notices(bot).hook_secret,
    }


def test_what_waits_for_another_address_is_dropped(owner: Client, bot: Bot) -> None:
    post(owner, bot, "hook", url=URL)
    post(owner, bot, "hook_test")
    post(owner, bot, "hook", url=URL + "/new")
    assert not Hook.objects.exists()


def test_the_same_address_again_drops_nothing(owner: Client, bot: Bot) -> None:
    post(owner, bot, "hook", url=URL)
    since = notices(bot).hook_since
    post(owner, bot, "hook_test")
    post(owner, bot, "hook", url=URL)
    assert Hook.objects.count() == 1 and notices(bot).hook_since == since


def test_a_test_is_posted_but_not_many_at_once_nor_to_nowhere(owner: Client, bot: Bot) -> None:
    post(owner, bot, "hook_test")
    assert not Hook.objects.exists() and "Give an address first." in page(owner, bot)
    post(owner, bot, "hook", url=URL)
    post(owner, bot, "hook_test")
    post(owner, bot, "hook_test")
    assert Hook.objects.get().event == "test"
    cache.clear()
    post(owner, bot, "hook_test")
    assert Hook.objects.count() == 2


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        ({}, "on its way"),
        ({"sent_at": timezone.now()}, "taken"),
        ({"tries": 2, "error": "It answered with status 500."}, "tried again later"),
        ({"tries": TRIES_MAX, "error": "It answered with status 500."}, "given up"),
    ],
)
def test_how_the_last_deliveries_went_is_shown(owner: Client, bot: Bot, columns: dict[str, Any], word: str) -> None:
    post(owner, bot, "hook", url=URL)
    post(owner, bot, "hook_test")
    Hook.objects.update(**columns)
    shown = page(owner, bot)
    assert f">{word}<" in shown and columns.get("error", "") in shown


def test_deliveries_of_another_pub_are_not_shown(owner: Client, bot: Bot, make: Maker) -> None:
    other = make.bot(make.user("bob"))
    Notices.of(other).post_to(URL)
    Notices.of(other).post("k", "test", kind="", since=timezone.now(), words="Secret news.")
    assert "Last deliveries" not in page(owner, bot)


# --- public ----------------------------------------------------------------------------------------------------------
def test_the_status_page_is_opened_and_closed(owner: Client, bot: Bot) -> None:
    address = reverse("status:pub", args=[bot.pk])
    assert owner.get(address).status_code == 404 and address not in page(owner, bot)
    post(owner, bot, "public", public="on")
    cache.clear()
    assert owner.get(address).status_code == 200 and address in page(owner, bot)
    post(owner, bot, "public")
    bot.refresh_from_db()
    assert not bot.status_public


# --- API -------------------------------------------------------------------------------------------------------------
@pytest.fixture
def api(bot: Bot) -> APIClient:
    client = APIClient()
    client.force_authenticate(bot.owner)
    return client


def address(bot: Bot) -> str:
    return f"/api/v1/pubs/{bot.pk}/notices/"


def test_the_api_says_and_takes_the_same(api: APIClient, bot: Bot) -> None:
    said = api.get(address(bot)).json()
    assert said["mail"] == dict.fromkeys(["down", "unknown", "crash_loop", "memory", "disk"], True)
    assert said["hook"] == {**said["mail"], "payment": True}
    assert (said["hook_url"], said["deliveries"]) == ("", [])
    said = api.patch(address(bot), {"mail": {"memory": False}, "hook_url": URL}, format="json").json()
    assert (said["mail"]["memory"], said["mail"]["down"], said["hook_url"]) == (False, True, URL)
    assert notices(bot).no_mail == ["memory"]
    api.patch(address(bot), {"mail": {"memory": True}}, format="json")
    assert (notices(bot).no_mail, notices(bot).hook_url) == ([], URL)
    said = api.patch(address(bot), {"hook": {"payment": False, "disk": False}}, format="json").json()
    assert (said["hook"]["payment"], said["hook"]["down"]) == (False, True)
    assert (notices(bot).no_hook, notices(bot).no_mail) == (["disk", "payment"], [])


def test_the_api_shows_how_deliveries_went(api: APIClient, bot: Bot) -> None:
    api.patch(address(bot), {"hook_url": URL}, format="json")
    notices(bot).post("k", "test", kind="", since=timezone.now(), words="This is a test.")
    [delivery] = api.get(address(bot)).json()["deliveries"]
    assert (delivery["id"], delivery["event"], delivery["sent_at"], delivery["tries"]) == ("k", "test", None, 0)
    assert "secret" not in delivery


@pytest.mark.parametrize(
    "wish",
    [
        {"hook_url": "nowhere"},
        {"hook_url": None},
        {"hook_url": "https://news.\nexample/"},
        {"hook": {"down": "perhaps"}},
        {"mail": ["down"]},
    ],
)
def test_the_api_refuses_what_does_not_do_and_changes_nothing(api: APIClient, bot: Bot, wish: dict[str, Any]) -> None:
    answer = api.patch(address(bot), {"mail": {"disk": False}, **wish}, format="json")
    assert answer.status_code == 400 and list(answer.json()) == list(wish)
    assert (Notices.of(bot).no_mail, Notices.of(bot).hook_url) == ([], "")


def test_notices_of_a_strangers_pub_are_not_there(api: APIClient, make: Maker) -> None:
    theirs = make.bot(make.user("bob"))
    assert api.get(address(theirs)).status_code == 404
    assert api.patch(address(theirs), {"hook_url": URL}, format="json").status_code == 404
    assert not Notices.objects.exists()
