"""What the pages say: status in words, never green when unseen; figures; answers."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.template.loader import render_to_string
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks

from pubs import live
from pubs.models import Bot, Status
from pubs.shown import is_stale, shown
from pubs.templatetags import pubs_extras as extras
from tests.support.make import Maker

NOW = timezone.now
LATER = datetime(2100, 12, 3, 14, 5, tzinfo=UTC)
ENDS = {"runs_until": LATER}
ACTIVE = {"paid_status": "active", "subscription_id": "sub_1"}
SAMPLE: live.Stats = {
    "at": NOW().isoformat(), "seq": 1, "cpu": 7.26, "memory": 120 * 1024**2, "memory_limit": 1024**3, "net_rx": 1,
    "net_tx": 2, "disk_read": 3, "disk_write": 4, "rx_rate": 2048.0, "tx_rate": 0.0, "read_rate": 0.0,
    "write_rate": 0.0, "pids": 23,
}  # fmt: skip


def page(client: Client, bot: Bot) -> str:
    client.force_login(bot.owner)
    return client.get(bot.get_absolute_url()).content.decode()


@pytest.mark.parametrize(
    ("word", "columns"),
    [
        ("not paid yet", {}),
        ("starting", {"paid": True}),
        ("starting", {"paid": True, "status": "down"}),
        ("up", {"paid": True, "status": "up"}),
        ("up", {"paid": True, "status": "up", "moving": True}),
        ("moving", {"paid": True, "moving": True}),
        ("lost", {"paid": True, "lost_at": NOW()}),
        ("lost", {"paid": True, "lost_at": NOW(), "switched_on": False}),
        ("stopping", {"paid": True, "status": "up", "switched_on": False}),
        ("stopped", {"paid": True, "switched_on": False}),
        ("lost", {"lost_at": NOW(), "rung": "suspended"}),
        ("up", {"paid": True, "status": "up", "rung": "grace"}),
        ("stopping", {"status": "up", "rung": "kept"}),
        ("ended", {"rung": "kept"}),
        ("ended", {"rung": "over"}),
        ("payment failed", {"rung": "suspended", "paid_status": "unpaid"}),
        ("payment failed", {"rung": "suspended", "paid_status": "past_due"}),
        ("paused", {"rung": "suspended", "paid_status": "paused"}),
        ("not paid yet", {"paid_status": "incomplete"}),
    ],
)
def test_wish_and_sight_make_one_word(make: Maker, word: str, columns: dict[str, Any]) -> None:
    assert shown(make.bot(**columns)).word == word


@pytest.mark.parametrize(
    ("word", "ago"),
    [
        ("down", timedelta(days=1)),  # it was up since then
        ("starting", timedelta(minutes=-1)),  # that was before this start
        ("starting", None),  # nobody knows of a start
    ],
)
def test_a_pub_is_down_only_if_it_was_up_since_its_last_start(make: Maker, word: str, ago: timedelta | None) -> None:
    bot = make.bot(paid=True, status="down", started_at=None if ago is None else NOW() - ago)
    bot.status_changes.create(old="down", new="up")
    assert shown(bot).word == word


def test_a_pub_unseen_for_a_minute_is_unknown_and_never_green(client: Client, make: Maker) -> None:
    bot = make.bot(paid=True, status="up", seen_at=NOW() - timedelta(seconds=61))
    assert is_stale(bot)
    assert "data-stale" in page(client, bot)
    cards = client.get(reverse("pubs:list")).content.decode()
    assert "badge unknown" in cards
    assert "badge good" not in cards


def test_a_pub_on_a_machine_out_of_sight_is_unknown_since_then(client: Client, make: Maker) -> None:
    since = NOW() - timedelta(seconds=30)
    bot = make.bot(paid=True, status="up", seen_at=since, unknown_since=since)
    assert is_stale(bot)
    text = page(client, bot)
    assert "What you ask of it now is done when we see it again." in text
    assert "data-stale" in text and f"out of our sight since {since:%-d %B, %H:%M} UTC" in text
    cards = client.get(reverse("pubs:list")).content.decode()
    assert "badge unknown" in cards and f"since {since:%-d %B, %H:%M} UTC" in cards


def test_a_pub_that_waits_for_a_restore_says_so_and_shows_no_steps(client: Client, make: Maker) -> None:
    text = page(client, make.bot(paid=True, lost_at=NOW(), reason="Waiting until it is restored from a backup."))
    assert "restored from a backup" in text and "Steps to a running pub" not in text


@pytest.mark.parametrize("switched_on", [True, False])
def test_a_pub_that_waits_for_a_restore_offers_nothing_that_would_do_nothing(
    client: Client, make: Maker, switched_on: bool
) -> None:
    text = page(client, make.bot(paid=True, lost_at=NOW(), switched_on=switched_on))
    assert not [name for name in ("start", "stop", "restart") if f'<button id="{name}"' in text]


def test_a_pub_just_seen_is_not_stale(client: Client, make: Maker) -> None:
    bot = make.bot(paid=True, status="up", seen_at=NOW() - timedelta(seconds=4))
    text = page(client, bot)
    assert "data-stale" not in text
    assert "4 s ago" in text or "5 s ago" in text


def test_an_unpaid_pub_has_nothing_to_see_and_is_never_unknown(make: Maker) -> None:
    assert not is_stale(make.bot(seen_at=NOW() - timedelta(days=3)))


def test_the_steps_show_where_it_is_and_why_it_waits(client: Client, make: Maker) -> None:
    text = page(client, make.bot(paid=True, reason="Waiting for room."))
    assert 'class="current" aria-current="step">Room found' in text
    assert "Waiting for room." in text


@pytest.mark.parametrize(
    ("words", "columns"),
    [
        ("The next payment is on 3 December 2100.", {"paid": True, "rung": "paid", "paid_until": LATER, **ACTIVE}),
        ("Your pub runs until 3 December 2100, 14:05 UTC.", {"paid": True, "rung": "ending", **ENDS, **ACTIVE}),
        ("Your pub runs on until 3 December 2100, 14:05 UTC at the latest.", {"paid": True, "rung": "grace", **ENDS}),
        ("without a payment until 3 December 2100, 14:05 UTC.", {"paid": True, "rung": "comped", **ENDS}),
        ("kept until 3 December 2100, 14:05 UTC at least.", {"rung": "suspended", "kept_until": LATER}),
        ("kept until 3 December 2100, 14:05 UTC at least.", {"rung": "kept", "kept_until": LATER}),
        ("and no longer promise to keep it.", {"rung": "over", "kept_until": NOW()}),
    ],
)
def test_the_payment_is_said_in_words_and_dates(
    client: Client, make: Maker, words: str, columns: dict[str, Any]
) -> None:
    text = page(client, make.bot(**columns))
    assert words in text
    if words.endswith("UTC."):
        assert f'<time datetime="{LATER.isoformat()}">3 Dec 2100, 14:05 UTC</time>' in text


def test_a_failed_payment_is_a_plain_notice_with_the_way_to_put_it_right(client: Client, make: Maker) -> None:
    owed = {"paid": True, "status": "up", "rung": "grace", "paid_status": "past_due", "subscription_id": "sub_1"}
    bot = make.bot(**owed, **ENDS)
    text = page(client, bot)
    assert '<p class="note bad">The last payment failed. Your pub runs on until 3 December 2100' in text
    assert '<button id="pay" class="big" form="portal-form">Put the payment right</button>' in text
    assert "it stops on 3 December 2100" in client.get(reverse("pubs:list")).content.decode()


@pytest.mark.parametrize("rung", ["paid", "ending"])
def test_what_is_paid_for_offers_no_payment(client: Client, make: Maker, rung: str) -> None:
    make.prices()
    assert 'id="pay"' not in page(client, make.bot(paid=True, rung=rung, **ACTIVE, **ENDS))


@pytest.mark.parametrize("rung", ["suspended", "kept", "over"])
def test_an_unpaid_pub_on_a_lost_machine_offers_no_payment(client: Client, make: Maker, rung: str) -> None:
    make.prices()
    assert 'id="pay"' not in page(client, make.bot(lost_at=NOW(), rung=rung, paid_status="canceled"))


def test_a_comped_pub_can_be_paid_for_so_that_it_runs_on(client: Client, make: Maker) -> None:
    make.prices()
    text = page(client, make.bot(paid=True, status="up", rung="comped", comped_until=LATER, **ENDS))
    assert "Pay, so that it runs on after 3 December 2100" in text
    assert '<button id="pay" class="big" form="checkout-form">Pay</button>' in text


def test_one_that_rests_after_crashes_says_so_and_when_it_is_tried_again(client: Client, make: Maker) -> None:
    bot = make.bot(paid=True, rests_until=LATER, reason="It is tried again at 14:05 UTC.")
    assert shown(bot).word == "resting"
    text = page(client, bot)
    assert "It is tried again at 14:05 UTC." in text and 'id="restart"' in text and 'class="steps"' not in text


@pytest.mark.parametrize(
    ("rung", "paid_status", "started", "leads_to", "words"),
    [
        ("new", "", False, "checkout", "Pay and start"),
        ("new", "incomplete", False, "checkout", "Pay and start"),
        ("kept", "canceled", True, "checkout", "Pay and start again"),
        ("over", "canceled", True, "checkout", "Pay and start again"),
        ("suspended", "unpaid", True, "portal", "Put the payment right"),
    ],
)
def test_the_main_button_leads_to_the_page_that_gets_the_pub_running(
    client: Client, make: Maker, rung: str, paid_status: str, started: bool, leads_to: str, words: str
) -> None:
    make.prices()
    subscription = "sub_1" if paid_status else ""
    identity = "@a=.ed25519" if started else ""
    bot = make.bot(rung=rung, paid_status=paid_status, subscription_id=subscription, ssb_id=identity)
    assert f'<button id="pay" class="big" form="{leads_to}-form">{words}</button>' in page(client, bot)


def test_a_paused_pub_offers_an_address_to_write_to_and_no_button_that_can_not_work(
    client: Client, make: Maker, settings: Any
) -> None:
    make.prices()
    settings.CONTACT_EMAIL = "help@pubs.example"
    bot = make.bot(rung="suspended", paid_status="paused", subscription_id="sub_1")
    text = page(client, bot)
    assert 'id="pay"' not in text and '<a href="mailto:help@pubs.example">Write to us</a> to have' in text
    assert "Next: write to us." in client.get(reverse("pubs:list")).content.decode()


def test_a_cancelled_pub_can_be_kept_and_no_other(client: Client, make: Maker) -> None:
    keep = '<button id="keep" class="quiet small" form="portal-form">Keep it</button>'
    assert keep in page(client, make.bot(paid=True, rung="ending", **ACTIVE, **ENDS))
    assert keep not in page(client, make.bot(paid=True, rung="paid", **ACTIVE))


def test_a_first_payment_that_is_not_finished_shows_no_price_as_if_it_were_paid(client: Client, make: Maker) -> None:
    make.prices()
    bought = {"price_id": "price_pub-monthly-1gb", "subscription_id": "sub_1"}
    assert "1 GB for €9 a month." in page(client, make.bot(paid=True, rung="paid", paid_status="active", **bought))
    begun = page(client, make.bot(paid_status="incomplete", **bought))
    assert "The first payment is not finished." in begun and "1 GB for €9" not in begun


def test_the_landing_page_states_the_ladder(client: Client, db: None, settings: Any) -> None:
    settings.GRACE_DAYS, settings.KEPT_DAYS = 11, 1
    text = client.get("/").content.decode()
    assert "it runs on for up to 11 days while we try again" in text
    assert "everything in it is kept for 1 day: pay again in that time" in text


def test_only_a_subscriber_gets_to_the_portal(client: Client, make: Maker) -> None:
    assert 'form="portal-form"' not in page(client, make.bot())
    assert 'form="portal-form"' in page(client, make.bot(subscription_id="sub_1"))


def test_newest_figures_are_on_the_page_without_script(client: Client, make: Maker) -> None:
    bot = make.bot(paid=True, status="up")
    live.remember_stats({bot.pk: SAMPLE})
    text = page(client, bot)
    assert all(figure in text for figure in ("7.3 %", "120 MB", "1 GB", "2 kB/s", ">23<"))


def test_the_page_comes_although_nobody_can_be_told_that_somebody_looks(
    client: Client,
    make: Maker,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    tried: list[object] = []

    def fail(*message: object) -> None:
        tried.append(message)
        raise ConnectionError("no layer")

    monkeypatch.setattr(live, "_send", fail)
    with django_capture_on_commit_callbacks(execute=True):
        assert "Pub 1" in page(client, make.bot())
    assert tried


@pytest.mark.parametrize(
    ("loads_again", "columns"),
    [
        (True, {"paid": True}),  # starting
        (True, {"paid": True, "status": "up", "switched_on": False}),  # stopping
        (False, {"paid": True, "status": "up"}),
        (False, {"paid": True, "switched_on": False}),
        (False, {}),
    ],
)
def test_without_script_a_page_loads_again_only_while_its_pub_starts_or_stops(
    client: Client, make: Maker, loads_again: bool, columns: dict[str, Any]
) -> None:
    text = page(client, make.bot(**columns))
    assert ('<noscript><meta http-equiv="refresh"' in text) is loads_again
    assert "Reload for new figures" in text


def test_a_refused_form_stays_as_it_was_typed(client: Client, make: Maker) -> None:
    bot = make.bot(paid=True)
    client.force_login(bot.owner)
    asked = {"name": "create_invite", "create_invite-uses": "many"}
    text = client.post(reverse("pubs:command", args=[bot.pk]), asked).content.decode()
    assert 'value="many"' in text
    assert 'http-equiv="refresh"' not in text
    assert f'<a href="{bot.get_absolute_url()}">Reload' in text, "the form's own address takes no plain look"


def test_labels_have_no_colon(client: Client, make: Maker) -> None:
    text = page(client, make.bot()) + client.get(reverse("pubs:new")).content.decode()
    assert ">Name of your pub</label>" in text
    assert ":</label>" not in text


def test_our_script_gets_the_piece_that_the_websocket_draws(client: Client, make: Maker) -> None:
    bot = make.bot()
    client.force_login(bot.owner)
    answer = client.get(bot.get_absolute_url(), headers={"X-Requested-With": "fetch"})
    assert answer.content.decode().strip().startswith('<section id="pub"')
    assert "X-Requested-With" in answer["Vary"]


def test_the_piece_needs_no_request_and_so_no_csrf_token(make: Maker) -> None:
    piece = render_to_string("pubs/_pub.html", {"bot": make.bot(paid=True, status="up"), "user": make.user()})
    assert 'form="stop-form"' in piece
    assert "<form" not in piece


def test_no_page_has_script_or_style_in_its_lines(client: Client, make: Maker) -> None:
    for text in (page(client, make.bot(paid=True, status="up")), client.get("/").content.decode()):
        assert "<style" not in text
        assert " style=" not in text
        assert " onclick=" not in text
        assert "<script>" not in text


def test_who_is_signed_in_goes_straight_to_a_name(client: Client, make: Maker) -> None:
    client.force_login(make.user())
    text = client.get("/").content.decode()
    assert reverse("pubs:new") in text
    assert reverse("account_signup") not in text


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (None, "0 B"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 kB"),
        (1536, "1.5 kB"),
        (1024**3, "1 GB"),
        (5e15, "4656613 GB"),
    ],
)
def test_sizes_have_units(count: float | None, words: str) -> None:
    assert extras.size(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s ago"), (59, "59 s ago"), (60, "1 min ago"), (7200, "2 h ago"), (200000, "2 days ago")],
)
def test_ages_have_one_unit(seconds: int, words: str) -> None:
    assert extras.age(NOW() - timedelta(seconds=seconds)) == words


@pytest.mark.parametrize("status", [400, 403, 404, 500])
def test_an_error_page_needs_nothing(status: int) -> None:
    assert "buttcloud" in render_to_string(f"{status}.html")


def test_an_address_that_is_not_there_gets_our_own_page(client: Client, make: Maker) -> None:
    answer = client.get("/nothing-here/")
    assert answer.status_code == 404
    assert "There is nothing here" in answer.content.decode()


def test_what_does_not_answer_long_after_its_start_is_down(client: Client, make: Maker) -> None:
    start = {"paid": True, "status": Status.DOWN, "seen_at": NOW()}
    assert 'data-word="starting"' in page(client, make.bot(**start, started_at=NOW()))
    assert 'data-word="down"' in page(client, make.bot(**start, started_at=NOW() - timedelta(minutes=5)))


def test_every_page_says_where_to_write_to(client: Client, make: Maker, settings: Any) -> None:
    settings.CONTACT_EMAIL = "help@pubs.example"
    assert "mailto:help@pubs.example" in client.get("/").content.decode()
