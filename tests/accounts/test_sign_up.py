from collections.abc import Callable

import pytest
from django.core.cache import cache
from django.db import IntegrityError
from django.test import Client

from accounts.forms import SignupForm
from accounts.models import User
from mailer.models import Message
from tests.accounts.conftest import send_all

pytestmark = pytest.mark.django_db
NEW = {"name": "Ada Ünlü", "email": "Ada@Customer.example"}
CodeFor = Callable[[str], str]


def test_somebody_new_types_the_code_and_is_asked_to_name_a_pub(client: Client, code_for: CodeFor) -> None:
    answer = client.post("/accounts/signup/", NEW)
    assert answer.url == "/accounts/confirm-email/"
    assert "ada@customer.example" in client.get(answer.url).content.decode()

    answer = client.post(answer.url, {"code": code_for("ada@customer.example")})

    assert answer.url == "/pubs/new/"
    ada = User.objects.get(email="ada@customer.example")
    assert ada.name == "Ada Ünlü"
    assert not ada.has_usable_password()
    assert client.session["_auth_user_id"] == str(ada.pk)


def test_nobody_is_signed_in_before_the_code_is_typed(client: Client) -> None:
    client.post("/accounts/signup/", NEW)
    assert client.get("/account/").status_code == 302


def test_a_wrong_code_is_refused_and_three_are_the_end(client: Client, code_for: CodeFor) -> None:
    client.post("/accounts/signup/", NEW)
    right = code_for("ada@customer.example")
    answers = [client.post("/accounts/confirm-email/", {"code": "BBBB-BBBB"}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 302]
    assert client.post("/accounts/confirm-email/", {"code": right}).url == "/accounts/login/"
    assert "_auth_user_id" not in client.session


def test_another_code_can_be_asked_for_but_not_at_once(client: Client, code_for: CodeFor) -> None:
    client.post("/accounts/signup/", NEW)
    assert "Send another code" in client.get("/accounts/confirm-email/").content.decode()
    assert client.post("/accounts/confirm-email/", {"action": "resend"}).status_code == 429
    assert Message.objects.filter(to="ada@customer.example").count() == 1
    cache.clear()  # as time does
    client.post("/accounts/confirm-email/", {"action": "resend"})
    assert client.post("/accounts/confirm-email/", {"code": code_for("ada@customer.example")}).url == "/pubs/new/"


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "two\nlines", "bell\x07", "hid\u202eden"])
def test_a_name_must_be_short_and_visible(client: Client, name: str) -> None:
    answer = client.post("/accounts/signup/", {**NEW, "name": name})
    assert answer.status_code == 200
    assert "name" in answer.context["form"].errors
    assert not User.objects.exists()


def test_a_second_account_for_one_mailbox_looks_the_same_and_makes_none(client: Client, alice: User) -> None:
    answer = client.post("/accounts/signup/", {"name": "Mallory", "email": "ALICE@customer.example"})
    assert answer.url == "/accounts/confirm-email/"
    assert User.objects.count() == 1
    mail = Message.objects.get()
    assert mail.to == alice.email
    assert "/accounts/login/" in mail.text
    assert "code" not in mail.text.lower()


def test_the_database_lets_an_address_be_had_once_however_it_is_typed(alice: User) -> None:
    with pytest.raises(IntegrityError):
        User.objects.create(email=alice.email.upper())


def test_the_slower_of_two_sign_ups_answers_as_if_the_address_had_been_taken(
    client: Client, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SignupForm, "validate_unique_email", lambda self, email: email)
    answer = client.post("/accounts/signup/", {"name": "Alice", "email": alice.email})
    assert answer.url == "/accounts/confirm-email/"
    assert User.objects.count() == 1


def test_the_mail_with_the_code_carries_no_words_of_a_stranger(client: Client) -> None:
    client.post("/accounts/signup/", {**NEW, "name": "Win at casino.example"})
    mail = Message.objects.get()
    assert "casino" not in mail.subject + mail.text + mail.html


def test_a_code_is_in_the_mail_but_not_in_its_subject_and_forgotten_once_sent(
    client: Client, code_for: CodeFor, mailoutbox: list
) -> None:
    client.post("/accounts/signup/", NEW)
    code = code_for("ada@customer.example")
    assert code not in Message.objects.get().subject

    send_all()

    sent = mailoutbox[0]
    assert sent.subject == "Your code to join buttcloud"
    assert code in sent.body
    assert code in sent.alternatives[0].content
    row = Message.objects.get()
    assert (row.text, row.html) == ("", "")


def test_the_welcome_comes_once_and_after_the_address_is_confirmed(client: Client, code_for: CodeFor) -> None:
    client.post("/accounts/signup/", NEW)
    assert not Message.objects.filter(key__startswith="welcome:").exists()
    client.post("/accounts/confirm-email/", {"code": code_for("ada@customer.example")})
    welcome = Message.objects.get(key__startswith="welcome:")
    assert welcome.to == "ada@customer.example"
    assert "Ada Ünlü" in welcome.text
    assert "/pubs/new/" in welcome.text


def test_who_broke_off_signs_in_later_by_code_and_is_welcomed_then(client: Client, code_for: CodeFor) -> None:
    client.post("/accounts/signup/", NEW)
    later = Client()
    later.post("/accounts/login/", {"login": "ada@customer.example"})
    later.post("/accounts/login/code/confirm/", {"code": code_for("ada@customer.example")})
    assert later.session["_auth_user_id"]
    assert Message.objects.filter(key__startswith="welcome:").count() == 1


def test_many_sign_ups_from_one_address_are_stopped_on_our_own_page(client: Client) -> None:
    answers = [client.post("/accounts/signup/", {"name": "A", "email": f"a{n}@customer.example"}) for n in range(21)]
    assert answers[-1].status_code == 429
    assert "That was too often" in answers[-1].content.decode()
