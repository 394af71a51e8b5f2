"""What we write to people: one function and one folder of templates a message.

Each takes plain values and a key. The key names the cause: the same key again is the same mail, which is written once.
Addresses of pages (`url`) are absolute. Names may hold any script; an empty `name` makes a greeting without one.
"""

import unicodedata
from datetime import datetime
from typing import Any

from celery import current_app
from django.db import transaction
from django.template import Context
from django.template.loader import get_template, render_to_string

from mailer.models import Message

SUBJECT_MAX = 200


def welcome(*, key: str, to: str, name: str, url: str) -> None:
    """The address is confirmed; `url` is where the first pub is named."""
    _write("welcome", key, to, name=name, url=url)


def pub_is_up(*, key: str, to: str, name: str = "", pub_name: str, url: str, address: str = "") -> None:
    """The pub answers for the first time. `address` is the host:port that peers reach."""
    _write("pub_is_up", key, to, name=name, pub_name=pub_name, url=url, address=address)


# What is written of a trouble: `title` and `what` go on after the pub's name, `words` have the figures, `todo` says
# what can be done, and `settings_url` is where its owner chooses what to be mailed about.


def trouble_began(
    *,
    key: str,
    to: str,
    name: str = "",
    pub_name: str,
    url: str,
    settings_url: str,
    title: str,
    what: str,
    words: str = "",
    todo: str = "",
    lines: str = "",
) -> None:
    """Something is wrong with the pub, or grew worse, or comes and goes. `lines` are the last that it wrote."""
    about = {"title": title, "what": what, "words": words, "todo": todo, "lines": lines}
    _write("trouble_began", key, to, name=name, pub_name=pub_name, url=url, settings_url=settings_url, **about)


def trouble_is_over(
    *,
    key: str,
    to: str,
    name: str = "",
    pub_name: str,
    url: str,
    settings_url: str,
    title: str,
    what: str,
    words: str = "",
) -> None:
    """What was wrong with the pub no longer is."""
    about = {"title": title, "what": what, "words": words}
    _write("trouble_is_over", key, to, name=name, pub_name=pub_name, url=url, settings_url=settings_url, **about)


def staff_alarm(*, key: str, to: str, name: str = "", subject: str, words: str, url: str, lines: str = "") -> None:
    """A person must look at something; `subject` names it, `url` is its page in the admin, and `lines` a pub's last."""
    _write("staff_alarm", key, to, name=name, subject=subject, words=words, url=url, lines=lines)


# What is written about money says until when the pub runs (`until`), until when its data is kept once it has stopped
# (`kept_until`) and when the card is tried again (`retry_at`). Where `url` is a page of Stripe's, `page` is the pub's.
# `contact` is the address to write to for what no page can do.


def pay_reminder(*, key: str, to: str, name: str = "", pub_name: str, url: str) -> None:
    """The pub has its name, and its payment page was opened and left."""
    _write("pay_reminder", key, to, name=name, pub_name=pub_name, url=url)


def cancelled(
    *, key: str, to: str, name: str = "", pub_name: str, url: str, page: str, until: datetime, kept_until: datetime
) -> None:
    """The subscription is cancelled, and the pub runs to its end."""
    _write("cancelled", key, to, name=name, pub_name=pub_name, url=url, page=page, until=until, kept_until=kept_until)


def comped(*, key: str, to: str, name: str = "", pub_name: str, url: str, until: datetime) -> None:
    """Staff let the pub run without a payment."""
    _write("comped", key, to, name=name, pub_name=pub_name, url=url, until=until)


def comp_ends(
    *,
    key: str,
    to: str,
    name: str = "",
    pub_name: str,
    url: str,
    until: datetime,
    kept_until: datetime,
    contact: str = "",
) -> None:
    """The time without a payment ends soon."""
    about = {"until": until, "kept_until": kept_until, "contact": contact}
    _write("comp_ends", key, to, name=name, pub_name=pub_name, url=url, **about)


def payment_failed(
    *,
    key: str,
    to: str,
    name: str = "",
    pub_name: str,
    url: str,
    until: datetime,
    kept_until: datetime,
    retry_at: datetime | None = None,
    page: str = "",
) -> None:
    """The card was declined at a renewal, and the pub runs on for now."""
    dates = {"until": until, "kept_until": kept_until, "retry_at": retry_at}
    _write("payment_failed", key, to, name=name, pub_name=pub_name, url=url, page=page, **dates)


def stops_soon(
    *,
    key: str,
    to: str,
    name: str = "",
    pub_name: str,
    url: str,
    until: datetime,
    kept_until: datetime,
    retry_at: datetime | None = None,
    page: str = "",
) -> None:
    """Still no payment, and the time that the pub runs on for is nearly over."""
    dates = {"until": until, "kept_until": kept_until, "retry_at": retry_at}
    _write("stops_soon", key, to, name=name, pub_name=pub_name, url=url, page=page, **dates)


def suspended(
    *, key: str, to: str, name: str = "", pub_name: str, url: str, page: str, reason: str, kept_until: datetime
) -> None:
    """The pub is stopped until its payment is put right. `reason` is in words for its owner."""
    about = {"reason": reason, "kept_until": kept_until}
    _write("suspended", key, to, name=name, pub_name=pub_name, url=url, page=page, **about)


def paused(*, key: str, to: str, name: str = "", pub_name: str, url: str, kept_until: datetime, contact: str) -> None:
    """The subscription is paused, and the pub stopped with it: only staff can put that right."""
    _write("paused", key, to, name=name, pub_name=pub_name, url=url, kept_until=kept_until, contact=contact)


def ended(*, key: str, to: str, name: str = "", pub_name: str, url: str, reason: str, kept_until: datetime) -> None:
    """Nothing is paid any more, and the pub is stopped. `reason` is in words for its owner."""
    _write("ended", key, to, name=name, pub_name=pub_name, url=url, reason=reason, kept_until=kept_until)


def goes_soon(
    *,
    key: str,
    to: str,
    name: str = "",
    pub_name: str,
    url: str,
    kept_until: datetime,
    page: str = "",
    contact: str = "",
) -> None:
    """The time that a stopped pub is kept for is nearly over."""
    about = {"page": page, "kept_until": kept_until, "contact": contact}
    _write("goes_soon", key, to, name=name, pub_name=pub_name, url=url, **about)


def over(*, key: str, to: str, name: str = "", pub_name: str, url: str, kept_until: datetime) -> None:
    """The time that a stopped pub was kept for is over."""
    _write("over", key, to, name=name, pub_name=pub_name, url=url, kept_until=kept_until)


def waits_for_restore(*, key: str, to: str, name: str = "", pub_name: str, url: str, words: str) -> None:
    """The machine of the pub is lost, so that nothing that is paid starts it. `words` say how the payment stands."""
    _write("waits_for_restore", key, to, name=name, pub_name=pub_name, url=url, words=words)


def deleted(*, key: str, to: str, name: str = "", pub_name: str, url: str, kept_until: datetime, contact: str) -> None:
    """Its owner deleted the pub, and can have it back from staff."""
    _write("deleted", key, to, name=name, pub_name=pub_name, url=url, kept_until=kept_until, contact=contact)


def post(*, key: str, to: str, subject: str, text: str, html: str = "", forget: bool = False) -> None:
    """Put a mail into the outbox and have it sent after commit; a key that is known already changes nothing."""
    body = {"to": to, "subject": one_line(subject), "text": text, "html": html, "forget": forget}
    message, is_new = Message.objects.get_or_create(key=key, defaults=body)
    if is_new:
        # Robust: with the broker away the mail waits for the sweep, and the page of its sender is none the worse.
        transaction.on_commit(lambda: _queue(message.pk), robust=True)


def plain(template: str, values: dict[str, Any]) -> str:
    """A template as plain text: Django would write `&amp;` for `&` there too."""
    return get_template(template).template.render(Context(values, autoescape=False)).strip()  # type: ignore[attr-defined]


def one_line(subject: str) -> str:
    """A subject that no name can break into a second header, at most 200 characters long."""
    printable = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in subject)
    line = " ".join(printable.split())
    return line if len(line) <= SUBJECT_MAX else line[: SUBJECT_MAX - 1] + "…"


def _write(message: str, key: str, to: str, **values: Any) -> None:
    folder = f"mailer/{message}"
    post(
        key=key,
        to=to,
        subject=plain(f"{folder}/subject.txt", values),
        text=plain(f"{folder}/body.txt", values) + "\n",
        html=render_to_string(f"{folder}/body.html", values),
    )


def _queue(message_id: int) -> None:
    current_app.send_task("mailer.send", args=[message_id])
