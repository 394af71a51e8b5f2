"""What an owner chooses for a pub."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from mailer.models import Hook
from pubs.models import Bot, Notices
from tests.browser.conftest import Console
from tests.support.site import running_worker
from tests.support.wait import until


@pytest.fixture
def news() -> Iterator[str]:
    """The address of a program that takes what is posted."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_owner_chooses_what_to_be_told(page: Page, running_pub: Bot) -> None:
    page.goto(running_pub.get_absolute_url())
    page.get_by_role("link", name="Settings").click()
    page.get_by_label("Mail when its memory is nearly full").uncheck()
    page.get_by_label("Webhook when something happens with its payment").uncheck()
    page.locator("#notices").get_by_role("button", name="Save").click()
    expect(page.get_by_text("That is what we tell you now.")).to_be_visible()
    expect(page.get_by_label("Mail when its memory is nearly full")).not_to_be_checked()
    expect(page.get_by_label("Webhook when its memory is nearly full")).to_be_checked()
    notices = Notices.objects.get(bot=running_pub)
    assert (notices.no_mail, notices.no_hook) == (["memory"], ["payment"])


def test_an_owner_gives_a_webhook_and_tests_it(page: Page, running_pub: Bot, news: str, console: Console) -> None:
    console.expected.add(422)
    page.goto(f"{running_pub.get_absolute_url()}settings/")
    hook = page.locator("#hook")
    hook.get_by_label("Address").fill("ftp://news.example/")
    hook.get_by_role("button", name="Save").click()
    expect(hook.get_by_text("Give an address that begins with https://.")).to_be_visible()
    hook.get_by_label("Address").fill(news)
    hook.get_by_role("button", name="Save").click()
    expect(hook.get_by_text(Notices.objects.get(bot=running_pub).hook_secret)).to_be_visible()
    with running_worker("hooks"):
        hook.get_by_role("button", name="Send a test").click()
        until("the test to be taken", lambda: Hook.objects.exclude(sent_at=None).exists(), 10, 0.02)
    page.reload()
    expect(hook.get_by_text("taken")).to_be_visible()


def test_an_owner_opens_the_status_page(page: Page, running_pub: Bot) -> None:
    page.goto(f"{running_pub.get_absolute_url()}settings/")
    page.get_by_role("button", name="Open it").click()
    page.get_by_role("link", name="its status page").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Harbour Garden")
