import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.mail.backends.locmem import EmailBackend
from django.utils import timezone

from accounts.models import User
from mailer import jobs
from mailer.models import TRIES_MAX, Message

pytestmark = pytest.mark.django_db
Post = Callable[..., Message]


class BrokenBackend(EmailBackend):
    def send_messages(self, messages: list[Any]) -> int:
        raise ConnectionRefusedError("The provider is away.")


@pytest.fixture
def provider_away(settings: django_settings) -> None:
    settings.EMAIL_BACKEND = f"{__name__}.BrokenBackend"


def again(mail: Message) -> Message:
    mail.refresh_from_db()
    return mail


def test_a_mail_goes_out_with_text_html_and_sender(posted: Post, mailoutbox: list[Any]) -> None:
    mail = posted()
    jobs.send(mail.pk)
    [sent] = mailoutbox
    assert (sent.to, sent.subject, sent.body) == (["ada@customer.example"], "Hello", "Hi.")
    assert sent.alternatives[0] == ("<p>Hi.</p>", "text/html")
    assert sent.from_email == "buttcloud <hello@pubs.example>"
    assert again(mail).sent_at
    assert mail.text == "Hi."


def test_a_job_that_runs_twice_sends_once(posted: Post, mailoutbox: list[Any]) -> None:
    mail = posted()
    jobs.send(mail.pk)
    jobs.send(mail.pk)
    assert len(mailoutbox) == 1


def test_a_mail_in_other_hands_is_left_alone_until_the_claim_runs_out(posted: Post, mailoutbox: list[Any]) -> None:
    mail = posted()
    Message.objects.update(claimed_until=timezone.now() + timedelta(seconds=90))
    jobs.send(mail.pk)
    assert mailoutbox == []
    Message.objects.update(claimed_until=timezone.now() - timedelta(seconds=1))
    jobs.send(mail.pk)
    assert len(mailoutbox) == 1


def test_a_mail_is_claimed_while_it_is_sent(posted: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    mail = posted()
    seen = []
    monkeypatch.setattr(EmailBackend, "send_messages", lambda self, messages: seen.append(again(mail).claimed_until))
    jobs.send(mail.pk)
    assert timezone.now() + timedelta(seconds=110) < seen[0] < timezone.now() + timedelta(seconds=121)


def test_a_double_can_be_recognised(posted: Post, mailoutbox: list[Any]) -> None:
    """Killed between the provider's yes and our note: the claim runs out, and the mail goes out again."""
    mail = posted()
    jobs.send(mail.pk)
    Message.objects.update(sent_at=None, claimed_until=timezone.now())
    jobs.send(mail.pk)
    first, second = (sent.message()["Message-ID"] for sent in mailoutbox)
    assert first == second
    assert first.endswith("@pubs.example>")
    assert jobs.header("k:2") != first


def test_a_code_is_forgotten_once_it_is_sent(posted: Post, mailoutbox: list[Any]) -> None:
    mail = posted(text="ABCD-EFGH", forget=True)
    jobs.send(mail.pk)
    assert "ABCD-EFGH" in mailoutbox[0].body
    assert again(mail).text == mail.html == ""


def test_a_failure_is_noted_and_the_mail_tried_again_later(posted: Post, provider_away: None) -> None:
    mail = posted()
    jobs.send(mail.pk)
    assert again(mail).sent_at is None
    assert mail.tries == 1
    assert mail.error == "ConnectionRefusedError: The provider is away."
    assert mail.claimed_until and mail.claimed_until > timezone.now() + timedelta(seconds=55)


def test_waits_double_up_to_six_hours() -> None:
    assert [jobs.wait(tries).total_seconds() for tries in (1, 2, 3, 10, 11, 12)] == [60, 120, 240, 21600, 21600, 21600]


def test_after_twelve_tries_it_is_given_up_and_stays_visible(
    posted: Post, queued: list[int], provider_away: None
) -> None:
    mail = posted()
    for _ in range(TRIES_MAX + 3):
        Message.objects.update(claimed_until=None)
        jobs.send(mail.pk)
    assert again(mail).tries == TRIES_MAX
    Message.objects.update(claimed_until=None)
    jobs.sweep()
    assert queued == []
    assert Message.objects.get().error


def test_an_error_is_gone_once_the_mail_is_sent(posted: Post, mailoutbox: list[Any]) -> None:
    mail = posted()
    Message.objects.update(error="Away.", tries=3)
    jobs.send(mail.pk)
    assert again(mail).error == ""


def test_the_sweep_queues_what_is_due_and_only_that(posted: Post, queued: list[int]) -> None:
    lost = posted(key="lost")
    killed = posted(key="killed")
    Message.objects.filter(pk=killed.pk).update(claimed_until=timezone.now() - timedelta(seconds=1))
    Message.objects.filter(pk=posted(key="claimed").pk).update(claimed_until=timezone.now() + timedelta(seconds=60))
    Message.objects.filter(pk=posted(key="sent").pk).update(sent_at=timezone.now())
    jobs.sweep()
    assert queued == [lost.pk, killed.pk]


def test_the_sweep_asks_as_often_however_many_wait(
    posted: Post, queued: list[int], django_assert_num_queries: Any
) -> None:
    for number in range(20):
        posted(key=f"k:{number}")
    with django_assert_num_queries(5):
        jobs.sweep()
    assert len(queued) == 20


def test_mails_sent_long_ago_are_deleted(posted: Post) -> None:
    for days in (89, 91):
        mail = posted(key=f"{days}")
        Message.objects.filter(pk=mail.pk).update(sent_at=timezone.now() - timedelta(days=days))
    jobs.sweep()
    assert [mail.key for mail in Message.objects.all()] == ["89"]


def test_a_code_that_could_not_be_sent_for_an_hour_is_forgotten(posted: Post, queued: list[int]) -> None:
    code = posted(key="code", text="ABCD-EFGH", forget=True)
    news = posted(key="news")
    Message.objects.update(created=timezone.now() - timedelta(minutes=61))
    jobs.sweep()
    assert again(code).text == ""
    assert "no longer good" in code.error
    assert queued == [news.pk]


def test_staff_see_what_was_given_up_and_send_it_again(posted: Post, client: Any, queued: list[int]) -> None:
    mail = posted()
    posted(key="other", subject="Other")
    Message.objects.filter(pk=mail.pk).update(tries=TRIES_MAX, error="Away.")
    client.force_login(User.objects.create_superuser("root@localhost"))
    page = client.get("/admin/mailer/message/", {"sent": "given_up"}).content.decode()
    assert "Away." in page
    assert "Other" not in page
    client.post("/admin/mailer/message/", {"action": "send_again", "_selected_action": [mail.pk]})
    jobs.sweep()
    assert mail.pk in queued
    assert (again(mail).tries, mail.error, mail.claimed_until) == (0, "", None)


def test_what_was_sent_is_not_sent_again_by_staff(posted: Post, client: Any, queued: list[int]) -> None:
    mail = posted()
    Message.objects.update(sent_at=timezone.now())
    client.force_login(User.objects.create_superuser("root@localhost"))
    client.post("/admin/mailer/message/", {"action": "send_again", "_selected_action": [mail.pk]})
    jobs.sweep()
    assert queued == []


def test_staff_read_mails_but_no_codes_and_write_none(posted: Post, client: Any) -> None:
    news = posted(text="Your pub is up.")
    code = posted(key="code", text="ABCD-EFGH", html="<p>ABCD-EFGH</p>", forget=True)
    client.force_login(User.objects.create_superuser("root@localhost"))
    assert "Your pub is up." in client.get(f"/admin/mailer/message/{news.pk}/change/").content.decode()
    assert "ABCD-EFGH" not in client.get(f"/admin/mailer/message/{code.pk}/change/").content.decode()
    assert client.get("/admin/mailer/message/add/").status_code == 403
    client.post(f"/admin/mailer/message/{news.pk}/change/", {"text": "Forged.", "to": "x@customer.example"})
    assert again(news).text == "Your pub is up."


@pytest.fixture
def sendgrid() -> Iterator[tuple[str, list[Any]]]:
    """Something that takes mails as SendGrid does: its address, and what it was given."""
    taken: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            taken.append((self.path, self.headers["Authorization"], body))
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v3/", taken
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.filterwarnings("ignore::anymail.exceptions.AnymailNotSupportedWarning")
def test_a_provider_is_chosen_by_setting_alone(
    posted: Post, sendgrid: tuple[str, list[Any]], settings: django_settings
) -> None:
    address, taken = sendgrid
    settings.EMAIL_BACKEND = "anymail.backends.sendgrid.EmailBackend"
    settings.ANYMAIL = {"SENDGRID_API_KEY": "SG.key", "SENDGRID_API_URL": address}
    mail = posted(subject="“Café 🏴‍☠️” is up")
    jobs.send(mail.pk)
    [(path, key, body)] = taken
    assert (path, key) == ("/v3/mail/send", "Bearer SG.key")
    assert body["personalizations"][0]["to"] == [{"email": "ada@customer.example"}]
    assert body["from"] == {"email": "hello@pubs.example", "name": "buttcloud"}
    assert body["subject"] == "“Café 🏴‍☠️” is up"
    assert body["content"] == [{"type": "text/plain", "value": "Hi."}, {"type": "text/html", "value": "<p>Hi.</p>"}]
    assert again(mail).sent_at
