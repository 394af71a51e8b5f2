import json
import stat
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.mail import EmailMultiAlternatives

from mailer import catcher


@pytest.fixture
def folder(tmp_path: Path, settings: django_settings) -> Path:
    settings.EMAIL_BACKEND = "mailer.catcher.CatchingBackend"
    settings.MAIL_DIR = tmp_path / "mail"
    return settings.MAIL_DIR


def mail(subject: str = "Hello", text: str = "Hi.", html: str = "<p>Hi <b>there</b>.</p>") -> None:
    message = EmailMultiAlternatives(subject, text, to=["ada@customer.example"])
    message.attach_alternative(html, "text/html")
    message.send()


class Answer:
    status: int
    headers: dict[str, str]
    text: str

    async def __call__(self, event: dict[str, Any]) -> None:
        if event["type"] == "http.response.start":
            self.status = event["status"]
            self.headers = {name.decode(): value.decode() for name, value in event["headers"]}
        else:
            self.text = event["body"].decode()


async def ask(folder: Path, path: str, host: str = "localhost:8002", method: str = "GET") -> Answer:
    answer = Answer()
    scope = {"type": "http", "method": method, "path": path, "headers": [(b"host", host.encode())]}
    await catcher.make_app(folder)(scope, None, answer)  # type: ignore[arg-type]
    return answer


async def test_a_mail_is_listed_and_read(folder: Path) -> None:
    mail("Grüße 🏴‍☠️", "Your code: ABCD")
    [listed] = json.loads((await ask(folder, "/api/mails")).text)
    assert listed["to"] == "ada@customer.example"
    assert listed["subject"] == "Grüße 🏴‍☠️"
    assert listed["text"].strip() == "Your code: ABCD"
    assert listed["at"].endswith("+00:00")
    page = await ask(folder, f"/mails/{listed['id']}/")
    assert "Your code: ABCD" in page.text
    assert "ada@customer.example" in page.text
    assert "Grüße" in (await ask(folder, "/")).text
    assert "<b>there</b>" in (await ask(folder, f"/mails/{listed['id']}/html")).text


async def test_the_newest_comes_first(folder: Path) -> None:
    for subject in ("first", "second", "third"):
        mail(subject)
    listed = json.loads((await ask(folder, "/api/mails")).text)
    assert [one["subject"] for one in listed] == ["third", "second", "first"]


async def test_before_the_first_mail_the_list_is_empty(folder: Path) -> None:
    assert json.loads((await ask(folder, "/api/mails")).text) == []
    assert "None yet" in (await ask(folder, "/")).text


def test_only_the_owner_reads_the_files(folder: Path) -> None:
    mail()
    [file] = folder.iterdir()
    assert file.suffix == ".eml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_a_mail_is_text_on_the_page(folder: Path) -> None:
    mail("<script>alert(1)</script>", "<img src=x onerror=alert(2)>")
    [one] = catcher.newest(folder)
    for path in ("/", f"/mails/{one.id}/"):
        page = (await ask(folder, path)).text
        assert "<script" not in page
        assert "<img" not in page


async def test_the_html_of_a_mail_is_locked_in(folder: Path) -> None:
    mail(html="<script>alert(1)</script>")
    [one] = catcher.newest(folder)
    csp = (await ask(folder, f"/mails/{one.id}/html")).headers["content-security-policy"]
    assert csp.startswith("sandbox ")
    assert "allow-scripts" not in csp
    assert "allow-same-origin" not in csp
    assert "default-src 'none'" in csp
    assert ' sandbox="' in (await ask(folder, f"/mails/{one.id}/")).text


@pytest.mark.parametrize(
    "path",
    [
        "/mails/../../secrets/x/",
        "/mails/..%2f..%2fsecrets/",
        "/mails/.20260101T000000000000-00000000/",
        "/mails/20260101T000000000000-00000000/",
        "/mails/20260101T000000000000-00000000\n/",
        "/mails//",
        "/etc/passwd",
        "/api/mails/x",
    ],
)
async def test_only_mails_can_be_read(folder: Path, path: str) -> None:
    mail()
    (folder.parent / "secrets").mkdir()
    (folder.parent / "secrets" / "x.eml").write_text("Subject: secret\n\nsecret")
    answer = await ask(folder, path)
    assert answer.status == 404
    assert "secret" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8002", "127.0.0.1:8002", "[::1]:8002"])
async def test_a_browser_on_this_machine_may_look(folder: Path, host: str) -> None:
    assert (await ask(folder, "/", host)).status == 200


@pytest.mark.parametrize(
    "host", ["", "evil.example", "localhost.evil.example:8002", "127.0.0.1.evil.example", "evil@localhost"]
)
async def test_another_name_that_points_here_sees_nothing(folder: Path, host: str) -> None:
    mail("Your code")
    answer = await ask(folder, "/api/mails", host)
    assert answer.status == 403
    assert "Your code" not in answer.text


async def test_the_page_is_only_for_reading(folder: Path) -> None:
    assert (await ask(folder, "/", method="POST")).status == 405
    head = await ask(folder, "/", method="HEAD")
    assert (head.status, head.text) == (200, "")


async def test_the_pages_bring_their_style_and_no_script(folder: Path) -> None:
    style = await ask(folder, "/style.css")
    assert style.headers["content-type"].startswith("text/css")
    page = await ask(folder, "/")
    assert 'href="/style.css"' in page.text
    assert "script-src" not in page.headers["content-security-policy"]
    assert " style=" not in page.text


@pytest.mark.parametrize("mail_id", ["../secrets/x", "/tmp/x", "x", "20260101T000000000000-00000000\n"])
def test_an_id_never_leads_out_of_the_folder(folder: Path, mail_id: str) -> None:
    folder.mkdir()
    (folder.parent / "secrets").mkdir()
    for file in (folder.parent / "secrets" / "x.eml", folder / "x.eml"):
        file.write_text("Subject: secret\n\nsecret")
    assert catcher.read(folder, mail_id) is None
