"""Every page of allauth stands in our own frame and keeps to the site's policy; the admin shows its people."""

import re
from collections.abc import Callable

import pytest
from allauth.account import urls as allauth_urls
from django.test import Client
from django.urls import reverse

from accounts.models import User
from pubs.models import Bot
from tests.accounts.conftest import PASSWORD

pytestmark = pytest.mark.django_db
# What lacks its own session state redirects; the tests of sign-up, sign-in and change see those pages.
NAMES = [pattern.name for pattern in allauth_urls.urlpatterns]
INLINE = re.compile(r"\s(style|on\w+)=|<style|<script(?![^>]*\ssrc=)", re.IGNORECASE)


def looks_right(page: str) -> bool:
    return (
        ":</label>" not in page
        and '<header class="top">' in page
        and page.count("<h1") == 1
        and not INLINE.search(page)
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_visitor_sees_our_own_pages(client: Client, name: str) -> None:
    answer = client.get(reverse(name))
    assert answer.status_code in (200, 302)
    assert answer.status_code == 302 or looks_right(answer.content.decode())


@pytest.mark.parametrize("name", NAMES)
def test_a_customer_sees_our_own_pages(client: Client, with_password: User, name: str) -> None:
    client.force_login(with_password)
    answer = client.get(reverse(name))
    assert answer.status_code in (200, 302)
    assert answer.status_code == 302 or looks_right(answer.content.decode())


def test_pages_that_need_a_code_on_its_way_are_ours_too(
    client: Client, with_password: User, code_for: Callable[[str], str]
) -> None:
    def page(path: str) -> str:
        answer = client.get(path)
        assert answer.status_code == 200, path
        return answer.content.decode()

    client.post("/accounts/login/", {"login": with_password.email})
    assert looks_right(page("/accounts/login/code/confirm/"))
    client.post("/accounts/logout/")
    client.post("/accounts/password/reset/", {"email": with_password.email})
    assert looks_right(page("/accounts/password/reset/confirm/"))
    client.post("/accounts/password/reset/confirm/", {"code": code_for(with_password.email)})
    assert looks_right(page("/accounts/password/reset/complete/"))
    fresh = Client()
    fresh.post("/accounts/signup/", {"name": "Ada", "email": "ada@customer.example"})
    assert looks_right(fresh.get("/accounts/confirm-email/").content.decode())


def test_the_account_page_and_a_new_token_are_ours(signed_in: Client) -> None:
    account = signed_in.get("/account/").content.decode()
    assert looks_right(account)
    assert ">Your name</label>" in account
    assert looks_right(signed_in.post("/account/tokens/", {"good_for": "30"}).content.decode())


def test_staff_find_people_and_their_pubs(client: Client, alice: User) -> None:
    Bot.objects.create(owner=alice, name="Harbour")
    client.force_login(User.objects.create_superuser("root@localhost", PASSWORD))
    page = client.get("/admin/accounts/user/", {"q": "alice"}).content.decode()
    assert alice.email in page
    assert f'href="{reverse("admin:pubs_bot_changelist")}?owner__id__exact={alice.pk}">1<' in page
    assert client.get(f"/admin/accounts/user/{alice.pk}/change/").status_code == 200


def test_staff_add_a_colleague_by_address(client: Client) -> None:
    client.force_login(User.objects.create_superuser("root@localhost", PASSWORD))
    fields = {"email": "Bob@Customer.example", "name": "Bob", "usable_password": "false"}
    assert client.post("/admin/accounts/user/add/", fields).status_code == 302
    assert User.objects.get(name="Bob").email == "bob@customer.example"
