from collections.abc import Callable

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import User
from mailer.models import Message
from tests.accounts.conftest import PASSWORD

pytestmark = pytest.mark.django_db
CodeFor = Callable[[str], str]
CONFIRM = "/accounts/login/code/confirm/"


def is_in(client: Client) -> bool:
    return "_auth_user_id" in client.session


def test_a_mailed_code_signs_in_and_leads_to_the_pubs(client: Client, alice: User, code_for: CodeFor) -> None:
    answer = client.post("/accounts/login/", {"login": "Alice@CUSTOMER.example"})
    assert answer.url == CONFIRM
    assert client.post(CONFIRM, {"code": code_for(alice.email)}).url == "/pubs/"
    assert is_in(client)


def test_sign_in_leads_to_the_page_that_asked_for_it(client: Client, alice: User, code_for: CodeFor) -> None:
    asked = client.get("/account/")
    assert asked.url == "/accounts/login/?next=/account/"
    assert 'value="/account/"' in client.get(asked.url).content.decode()
    answer = client.post("/accounts/login/", {"login": alice.email, "next": "/account/"})
    assert client.post(answer.url, {"code": code_for(alice.email), "next": "/account/"}).url == "/account/"


def test_sign_in_never_leads_to_another_site(client: Client, with_password: User) -> None:
    fields = {"login": with_password.email, "password": PASSWORD, "next": "https://evil.example/"}
    assert client.post("/accounts/login/", fields).url == "/pubs/"


def test_a_wrong_code_does_not_sign_in(client: Client, alice: User) -> None:
    client.post("/accounts/login/", {"login": alice.email})
    assert "Incorrect code" in client.post(CONFIRM, {"code": "BBBB-BBBB"}).content.decode()
    assert not is_in(client)


def test_the_code_of_one_browser_is_of_no_use_in_another(client: Client, alice: User, code_for: CodeFor) -> None:
    client.post("/accounts/login/", {"login": alice.email})
    stranger = Client()
    stranger.post(CONFIRM, {"code": code_for(alice.email)})
    assert not is_in(stranger)


def test_a_code_is_good_for_ten_minutes(
    client: Client, alice: User, code_for: CodeFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.post("/accounts/login/", {"login": alice.email})
    assert "good for 10 minutes" in Message.objects.get().text
    now = timezone.now().timestamp()
    monkeypatch.setattr("time.time", lambda: now + 601)
    client.post(CONFIRM, {"code": code_for(alice.email)})
    assert not is_in(client)


def test_an_unknown_address_looks_the_same_and_is_told_by_mail(client: Client) -> None:
    answer = client.post("/accounts/login/", {"login": "nobody@customer.example"})
    assert answer.url == CONFIRM
    assert client.get(CONFIRM).status_code == 200
    mail = Message.objects.get()
    assert mail.to == "nobody@customer.example"
    assert "/accounts/signup/" in mail.text


def test_who_set_a_password_may_sign_in_with_it(client: Client, with_password: User) -> None:
    answer = client.post("/accounts/login/", {"login": "ALICE@customer.example", "password": PASSWORD})
    assert answer.url == "/pubs/"
    assert is_in(client)
    assert not Message.objects.exists()


def test_a_wrong_password_is_refused_and_the_fold_stays_open(client: Client, with_password: User) -> None:
    page = client.post("/accounts/login/", {"login": with_password.email, "password": "wrong"}).content.decode()
    assert "not correct" in page
    assert "<details open>" in page
    assert not is_in(client)


def test_a_password_can_be_guessed_five_times(client: Client, with_password: User) -> None:
    for _ in range(5):
        client.post("/accounts/login/", {"login": with_password.email, "password": "wrong"})
    page = client.post("/accounts/login/", {"login": with_password.email, "password": PASSWORD}).content.decode()
    assert "Too many failed" in page
    assert not is_in(client)


def test_codes_for_one_mailbox_are_limited(client: Client, alice: User) -> None:
    answers = [Client().post("/accounts/login/", {"login": alice.email}) for _ in range(4)]
    assert answers[-1].status_code in (200, 429)
    assert Message.objects.count() == 3


def test_a_closed_account_stays_out(client: Client, with_password: User) -> None:
    User.objects.update(is_active=False)
    client.post("/accounts/login/", {"login": with_password.email, "password": PASSWORD})
    assert not is_in(client)
    assert "This account is closed" in client.get("/accounts/inactive/").content.decode()


def test_staff_sign_in_where_everybody_does(client: Client) -> None:
    staff = User.objects.create_superuser("Root@localhost", PASSWORD)
    answer = client.get("/admin/", follow=True)
    assert answer.redirect_chain[-1][0] == "/accounts/login/?next=%2Fadmin%2F"
    answer = client.post("/accounts/login/", {"login": staff.email, "password": PASSWORD, "next": "/admin/"})
    assert answer.url == "/admin/"
    assert client.get("/admin/").status_code == 200


def test_a_customer_has_no_business_in_the_admin(signed_in: Client) -> None:
    assert signed_in.get("/admin/login/").status_code == 403
    assert signed_in.get("/admin/accounts/user/").status_code == 302


def test_signing_out_needs_a_post(signed_in: Client) -> None:
    assert "Your pubs go on running" in signed_in.get("/accounts/logout/").content.decode()
    assert is_in(signed_in)
    assert signed_in.post("/accounts/logout/").url == "/"
    assert not is_in(signed_in)
