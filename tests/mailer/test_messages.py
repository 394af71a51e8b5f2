from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.mail import EmailMessage
from django.db import transaction

from mailer import messages
from mailer.models import Message

pytestmark = pytest.mark.django_db
AT = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
TO: dict[str, Any] = {"key": "k", "to": "ada@customer.example", "name": "Ada & Bo", "url": "https://pubs.example/p/1/"}
PUB: dict[str, Any] = {**TO, "pub_name": "Tea & <b>Rum</b>"}
UNTIL = datetime(2026, 12, 6, 14, 5, tzinfo=UTC)
KEPT = {"kept_until": datetime(2027, 2, 4, 14, 5, tzinfo=UTC)}
DATES = {**KEPT, "until": UNTIL}
PAGE = {"page": "https://pubs.example/pubs/1/"}
CONTACT = {"contact": "help@pubs.example"}
TROUBLE = {
    "title": "is down",
    "what": "has not answered since 9:30 & <i>luck</i>.",
    "settings_url": "https://pubs.example/p/1/settings/",
}
ALL = [
    (messages.welcome, TO),
    (messages.pub_is_up, {**PUB, "address": "pubs.example:24001"}),
    (messages.trouble_began, {**PUB, **TROUBLE, "words": "No room & no <i>luck</i>."}),
    (messages.trouble_began, {**PUB, **TROUBLE, "todo": "Wait.", "lines": "12:00 crash & <i>luck</i>\n12:01 gone"}),
    (messages.trouble_is_over, {**PUB, **TROUBLE, "words": "No room & no <i>luck</i>."}),
    (messages.pay_reminder, PUB),
    (messages.cancelled, {**PUB, **DATES, **PAGE}),
    (messages.comped, {**PUB, "until": UNTIL}),
    (messages.comp_ends, {**PUB, **DATES}),
    (messages.comp_ends, {**PUB, **DATES, **CONTACT}),
    (messages.payment_failed, {**PUB, **DATES, **PAGE, "retry_at": AT}),
    (messages.stops_soon, {**PUB, **DATES, **PAGE, "retry_at": AT}),
    (messages.suspended, {**PUB, **KEPT, **PAGE, "reason": "No card & no <i>luck</i>."}),
    (messages.paused, {**PUB, **KEPT, **CONTACT}),
    (messages.ended, {**PUB, **KEPT, "reason": "No card & no <i>luck</i>."}),
    (messages.goes_soon, {**PUB, **KEPT}),
    (messages.goes_soon, {**PUB, **KEPT, **PAGE}),
    (messages.goes_soon, {**PUB, **KEPT, **CONTACT}),
    (messages.over, {**PUB, **KEPT}),
    (messages.waits_for_restore, {**PUB, "words": "No card & no <i>luck</i>."}),
    (messages.deleted, {**PUB, **KEPT, **CONTACT}),
]


def written(function: Any, values: dict[str, Any]) -> Message:
    function(**values)
    return Message.objects.get()


@pytest.mark.parametrize(("function", "values"), ALL)
def test_each_message_greets_and_says_where_to_go(queued: list[int], function: Any, values: dict[str, Any]) -> None:
    mail = written(function, values)
    assert mail.text.startswith("Hello Ada & Bo,")
    assert "https://pubs.example/p/1/" in mail.text
    assert 'href="https://pubs.example/p/1/"' in mail.html
    assert "\n" not in mail.subject
    assert "{" not in mail.subject + mail.text


@pytest.mark.parametrize(("function", "values"), ALL[1:])
def test_names_are_as_typed_in_text_and_escaped_in_html(
    queued: list[int], function: Any, values: dict[str, Any]
) -> None:
    mail = written(function, values)
    assert "“Tea & <b>Rum</b>”" in mail.subject
    assert "“Tea & <b>Rum</b>”" in mail.text
    assert "Tea &amp; &lt;b&gt;Rum&lt;/b&gt;" in mail.html
    assert "<b>Rum" not in mail.html
    assert "<i>luck" not in mail.html


@pytest.mark.parametrize(("function", "values"), ALL)
def test_somebody_without_a_name_is_greeted_without_one(
    queued: list[int], function: Any, values: dict[str, Any]
) -> None:
    mail = written(function, {**values, "name": ""})
    assert mail.text.startswith("Hello,")
    assert "<p>Hello,</p>" in mail.html


def test_what_is_not_known_is_not_mentioned(queued: list[int]) -> None:
    messages.pub_is_up(key="a", to="a@customer.example", pub_name="P", url="https://pubs.example/")
    [mail] = Message.objects.all()
    assert "None" not in mail.text + mail.html
    assert " at ." not in mail.text


@pytest.mark.parametrize(("function", "values"), [(each, values) for each, values in ALL if set(values) & {*DATES}])
def test_a_mail_about_money_says_each_date_with_its_hour(
    queued: list[int], function: Any, values: dict[str, Any]
) -> None:
    mail = written(function, values)
    for moment in (value for value in values.values() if isinstance(value, datetime)):
        for body in (mail.text, mail.html):
            assert f"{moment:%-d %B %Y, %H:%M} UTC" in body


def test_a_failed_payment_says_when_the_card_is_tried_again_if_it_is(queued: list[int]) -> None:
    assert "try the card again" not in written(messages.payment_failed, {**PUB, **DATES}).text
    messages.payment_failed(**{**PUB, **DATES, "retry_at": AT, "key": "another"})
    assert "try the card again on 22 November 2026, 09:30 UTC" in Message.objects.get(key="another").text


def test_what_is_over_is_told_truthfully(queued: list[int]) -> None:
    mail = written(messages.over, {**PUB, **KEPT})
    assert "no longer promise to keep" in mail.text and "is removed" not in mail.text


@pytest.mark.parametrize(("function", "values"), [each for each in ALL if "page" in each[1]])
def test_a_mail_that_leads_to_stripe_links_the_page_of_the_pub_too(
    queued: list[int], function: Any, values: dict[str, Any]
) -> None:
    mail = written(function, values)
    assert "\nhttps://pubs.example/pubs/1/\n" in mail.text and 'href="https://pubs.example/pubs/1/"' in mail.html


@pytest.mark.parametrize(("function", "values"), [each for each in ALL if "contact" in each[1]])
def test_where_no_page_helps_the_mail_says_whom_to_write_to(
    queued: list[int], function: Any, values: dict[str, Any]
) -> None:
    mail = written(function, values)
    assert "help@pubs.example" in mail.text and 'href="mailto:help@pubs.example"' in mail.html


@pytest.mark.parametrize("name", ["a\r\nBcc: all@customer.example", "a\u2028b", "a\x0bb", "tab\there"])
def test_no_name_can_add_a_header(queued: list[int], name: str) -> None:
    mail = written(messages.pub_is_up, {**PUB, "pub_name": name})
    sent = EmailMessage(mail.subject, mail.text, to=[mail.to]).message()
    assert "Bcc" not in sent
    assert sent["Subject"] == mail.subject


@pytest.mark.parametrize("name", ["مرحبا بالعالم", "🏴‍☠️ Café", "海の家", "W" * 64])
def test_names_of_any_script_arrive_as_they_are(queued: list[int], name: str) -> None:
    mail = written(messages.pub_is_up, {**PUB, "pub_name": name})
    assert name in mail.subject
    assert name in mail.text
    assert f"<bdi>{name}</bdi>" in mail.html


def test_a_long_subject_is_cut_and_says_so() -> None:
    line = messages.one_line("x" * 500)
    assert len(line) == 200
    assert line.endswith("…")


def test_the_same_key_twice_is_one_mail(queued: list[int], django_capture_on_commit_callbacks: Any) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        messages.welcome(**TO)
        messages.welcome(**{**TO, "name": "Somebody else"})
    mail = Message.objects.get()
    assert "Ada" in mail.text
    assert queued == [mail.pk]


def test_nothing_is_queued_before_commit(queued: list[int], django_capture_on_commit_callbacks: Any) -> None:
    with django_capture_on_commit_callbacks() as callbacks:
        messages.welcome(**TO)
    assert queued == []
    assert len(callbacks) == 1


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_is_neither_written_nor_queued(queued: list[int]) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        messages.welcome(**TO)
        raise RuntimeError
    assert not Message.objects.exists()
    assert queued == []


@pytest.mark.django_db(transaction=True)
def test_without_a_broker_the_mail_waits_in_the_outbox(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(message_id: int) -> None:
        raise ConnectionError

    monkeypatch.setattr("mailer.messages._queue", broken)
    messages.welcome(**TO)
    assert Message.objects.get().sent_at is None


def test_an_alarm_tells_staff_what_and_where(queued: list[int]) -> None:
    mail = written(messages.staff_alarm, {**TO, "subject": "hub-3", "words": "Its machine is <gone>."})
    assert (mail.subject, mail.to) == ("Please look at hub-3", TO["to"])
    assert "Its machine is <gone>." in mail.text and TO["url"] in mail.text
    assert "&lt;gone&gt;" in mail.html and f'href="{TO["url"]}"' in mail.html
