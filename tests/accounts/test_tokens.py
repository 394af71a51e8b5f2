import re

import pytest
from django.test import Client
from django.utils import timezone
from knox.auth import TokenAuthentication
from knox.models import AuthToken
from rest_framework.exceptions import AuthenticationFailed

from accounts.forms import TOKENS_MAX
from accounts.models import User
from tests.accounts.conftest import PASSWORD

pytestmark = pytest.mark.django_db


def make(client: Client, good_for: str = "30") -> str:
    """Make a token as the page does, and read it off the page."""
    answer = client.post("/account/tokens/", {"good_for": good_for})
    found = re.search(r'<input id="token"[^>]* value="([^"]+)"', answer.content.decode())
    assert found
    return found[1]


def owner(word: str) -> User:
    return TokenAuthentication().authenticate_credentials(word.encode())[0]


def test_a_token_is_shown_once_and_works(signed_in: Client, alice: User) -> None:
    word = make(signed_in)
    assert owner(word) == alice
    page = signed_in.get("/account/").content.decode()
    assert word not in page
    assert word[:8] in page


def test_the_page_with_the_token_is_kept_nowhere(signed_in: Client) -> None:
    answer = signed_in.post("/account/tokens/", {"good_for": "30"})
    assert "no-store" in answer["Cache-Control"]


@pytest.mark.parametrize(("good_for", "days"), [("30", 30), ("90", 90), ("365", 365)])
def test_a_token_ends_when_it_was_said_to(signed_in: Client, good_for: str, days: int) -> None:
    make(signed_in, good_for)
    left = AuthToken.objects.get().expiry - timezone.now()
    assert days - 1 <= left.days <= days


def test_a_token_may_be_without_end(signed_in: Client) -> None:
    make(signed_in, "never")
    assert AuthToken.objects.get().expiry is None


def test_another_length_of_time_is_refused(signed_in: Client) -> None:
    assert signed_in.post("/account/tokens/", {"good_for": "100000"}).status_code == 200
    assert not AuthToken.objects.exists()


def test_a_revoked_token_works_no_more(signed_in: Client) -> None:
    word = make(signed_in)
    key = AuthToken.objects.get().token_key
    assert signed_in.post(f"/account/tokens/{key}/revoke/").url == "/account/"
    with pytest.raises(AuthenticationFailed):
        owner(word)


def test_a_stranger_gets_404_for_the_token_of_somebody_else(signed_in: Client, client: Client) -> None:
    make(signed_in)
    key = AuthToken.objects.get().token_key
    stranger = Client()
    stranger.force_login(User.objects.create_user("bob@customer.example"))
    assert stranger.post(f"/account/tokens/{key}/revoke/").status_code == 404
    assert stranger.get("/account/").content.decode().count(key) == 0
    assert AuthToken.objects.count() == 1


def test_nobody_makes_no_token(client: Client) -> None:
    assert client.post("/account/tokens/", {"good_for": "30"}).url.startswith("/accounts/login/")
    assert not AuthToken.objects.exists()


def test_a_link_makes_and_revokes_nothing(signed_in: Client) -> None:
    make(signed_in)
    key = AuthToken.objects.get().token_key
    assert signed_in.get("/account/tokens/").status_code == 405
    assert signed_in.get(f"/account/tokens/{key}/revoke/").status_code == 405
    assert AuthToken.objects.count() == 1


def test_there_is_an_end_to_the_number_of_tokens(signed_in: Client, alice: User) -> None:
    for _ in range(TOKENS_MAX):
        AuthToken.objects.create(user=alice)
    page = signed_in.post("/account/tokens/", {"good_for": "30"}).content.decode()
    assert "Revoke one first" in page
    assert AuthToken.objects.count() == TOKENS_MAX


def test_who_has_a_password_gives_it_again_before_a_token_is_made(client: Client, with_password: User) -> None:
    client.force_login(with_password)
    answer = client.post("/account/tokens/", {"good_for": "30"})
    assert answer.url.startswith("/accounts/reauthenticate/")
    assert not AuthToken.objects.exists()
    answer = client.post(answer.url, {"password": PASSWORD, "next": "/account/tokens/"})
    assert "shown only this once" in answer.content.decode()
    assert AuthToken.objects.count() == 1
