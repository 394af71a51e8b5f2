"""Name, address and password."""

from collections.abc import Callable

import pytest
from allauth.account.models import EmailAddress
from django.test import Client

from accounts.models import User
from mailer.models import Message
from tests.accounts.conftest import PASSWORD

pytestmark = pytest.mark.django_db
CodeFor = Callable[[str], str]
NEW_PASSWORD = "quite another secret"


def test_the_account_page_is_for_who_is_signed_in(client: Client) -> None:
    assert client.get("/account/").url == "/accounts/login/?next=/account/"
    assert client.post("/account/name/", {"name": "X"}).url.startswith("/accounts/login/")


def test_the_name_changes(signed_in: Client, alice: User) -> None:
    assert signed_in.post("/account/name/", {"name": "  Alice B.  "}).url == "/account/"
    alice.refresh_from_db()
    assert alice.name == "Alice B."


def test_a_name_with_a_line_break_is_refused_and_the_old_one_kept(signed_in: Client, alice: User) -> None:
    page = signed_in.post("/account/name/", {"name": "A\u2028B"}).content.decode()
    assert "no control characters" in page
    alice.refresh_from_db()
    assert alice.name == "Alice"


def test_a_name_is_text_on_the_page(signed_in: Client) -> None:
    signed_in.post("/account/name/", {"name": "<b>Al</b>"})
    page = signed_in.get("/account/").content.decode()
    assert "<b>Al</b>" not in page
    assert "&lt;b&gt;Al&lt;/b&gt;" in page


def test_the_new_address_takes_over_when_its_code_is_typed(signed_in: Client, alice: User, code_for: CodeFor) -> None:
    answer = signed_in.post("/accounts/email/", {"email": "New@customer.example", "action_add": "1"})
    assert answer.url == "/accounts/confirm-email/"
    alice.refresh_from_db()
    assert alice.email == "alice@customer.example"

    answer = signed_in.post(answer.url, {"code": code_for("new@customer.example")})

    assert answer.url == "/account/"
    alice.refresh_from_db()
    assert alice.email == "new@customer.example"
    told = Message.objects.get(subject="Your address was changed")
    assert told.to == "alice@customer.example"
    assert "to new@customer.example" in told.text


def test_a_change_of_address_is_no_reason_for_a_second_welcome(signed_in: Client, code_for: CodeFor) -> None:
    signed_in.post("/accounts/email/", {"email": "new@customer.example", "action_add": "1"})
    signed_in.post("/accounts/confirm-email/", {"code": code_for("new@customer.example")})
    assert not Message.objects.filter(key__startswith="welcome").exists()


@pytest.mark.parametrize("confirmed", [True, False])
def test_the_address_of_somebody_else_cannot_be_taken(
    signed_in: Client, alice: User, code_for: CodeFor, confirmed: bool
) -> None:
    """Even if they tell the code. An account that nobody confirmed yet has its address too."""
    bob = User.objects.create_user("bob@customer.example")
    EmailAddress.objects.create(user=bob, email=bob.email, verified=confirmed, primary=True)
    signed_in.post("/accounts/email/", {"email": bob.email, "action_add": "1"})
    answer = signed_in.post("/accounts/confirm-email/", {"code": code_for(bob.email)})
    assert "already registered" in answer.content.decode()
    alice.refresh_from_db()
    assert alice.email == "alice@customer.example"
    assert EmailAddress.objects.get(user=alice, primary=True).email == "alice@customer.example"


def test_a_password_can_be_set_later(signed_in: Client, alice: User) -> None:
    assert signed_in.get("/accounts/password/change/").url == "/accounts/password/set/"
    fields = {"password1": PASSWORD, "password2": PASSWORD}
    assert signed_in.post("/accounts/password/set/", fields).url == "/account/"
    alice.refresh_from_db()
    assert alice.check_password(PASSWORD)
    assert Message.objects.get().subject == "Your password was set"


def test_a_weak_password_is_refused(signed_in: Client, alice: User) -> None:
    page = signed_in.post("/accounts/password/set/", {"password1": "password12", "password2": "password12"})
    assert "too common" in page.content.decode()
    alice.refresh_from_db()
    assert not alice.has_usable_password()


def test_changing_the_password_needs_the_old_one(client: Client, with_password: User) -> None:
    client.force_login(with_password)
    fields = {"oldpassword": "wrong", "password1": NEW_PASSWORD, "password2": NEW_PASSWORD}
    assert "current password" in client.post("/accounts/password/change/", fields).content.decode()
    assert client.post("/accounts/password/change/", {**fields, "oldpassword": PASSWORD}).url == "/account/"
    with_password.refresh_from_db()
    assert with_password.check_password(NEW_PASSWORD)


def test_a_forgotten_password_is_replaced_by_code(client: Client, with_password: User, code_for: CodeFor) -> None:
    answer = client.post("/accounts/password/reset/", {"email": with_password.email})
    assert answer.url == "/accounts/password/reset/confirm/"
    answer = client.post(answer.url, {"code": code_for(with_password.email)})
    assert answer.url == "/accounts/password/reset/complete/"
    assert "Choose a new password" in client.get(answer.url).content.decode()
    answer = client.post(answer.url, {"password1": NEW_PASSWORD, "password2": NEW_PASSWORD})
    assert "Your password is changed" in client.get(answer.url).content.decode()
    with_password.refresh_from_db()
    assert with_password.check_password(NEW_PASSWORD)


def test_who_has_a_password_gives_it_again_before_the_address_changes(client: Client, with_password: User) -> None:
    client.force_login(with_password)
    answer = client.post("/accounts/email/", {"email": "new@customer.example", "action_add": "1"})
    assert answer.url.startswith("/accounts/reauthenticate/")
    assert "Is it you?" in client.get(answer.url).content.decode()
    assert not Message.objects.exists()
    answer = client.post(answer.url, {"password": PASSWORD, "next": "/accounts/email/"})
    assert Message.objects.get().to == "new@customer.example"
