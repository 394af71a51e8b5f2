"""What an owner reads about their payment: by rung and by Stripe's word, with every date that matters."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from billing import paid
from billing.ladder import MEANINGS
from billing.words import NOT_PAID, dates, moment, words
from pubs.models import Bot
from tests.support.make import Maker

DAY = timedelta(days=1)
NOW = datetime.fromisoformat("2026-11-22T14:05:00+00:00")
NEXT = NOW + 11 * DAY
SINCE = NOW - 2 * DAY
PAST_DUE = {"paid_status": "past_due", "paid_until": NEXT, "unpaid_since": SINCE}


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timezone, "now", lambda: NOW)


def stands(make: Maker, **facts: Any) -> Bot:
    """A bot of which these facts are known, with what follows from them."""
    bot = make.bot(**facts)
    paid._change(bot.pk)
    bot.refresh_from_db()
    return bot


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, NOT_PAID),
        ({"paid_status": "incomplete", "paid_until": NEXT}, "The first payment is not finished."),
        ({"paid_status": "incomplete_expired", "paid_until": NOW}, "The first payment was not finished in time."),
        ({"paid_status": "active", "paid_until": NEXT}, "Paid. The next payment is on 3 December 2026."),
        ({"paid_status": "active", "paid_until": SINCE}, "Paid."),
        (
            {"paid_status": "trialing", "paid_until": NEXT},
            "In its trial, nothing is charged. The first payment is on 3 December 2026.",
        ),
        (
            {"paid_status": "active", "paid_until": NEXT, "paid_ends": True},
            "The subscription is cancelled: nothing more is charged. Your pub runs until 3 December 2026, 14:05 UTC.",
        ),
        (
            PAST_DUE,
            "The last payment failed. Your pub runs on until 4 December 2026, 14:05 UTC at the latest.",
        ),
        (
            {**PAST_DUE, "retry_at": NOW + DAY},
            "The last payment failed. Your pub runs on until 4 December 2026, 14:05 UTC at the latest. We try the card"
            " again on 23 November 2026, 14:05 UTC.",
        ),
        (
            {**PAST_DUE, "paid_status": "unpaid"},
            "The last payment failed at each try. Your pub is stopped, and everything in it is kept until 2 February"
            " 2027, 14:05 UTC at least.",
        ),
        (
            {"paid_status": "paused", "paid_until": SINCE},
            "The subscription is paused: write to us, and we look into it. Your pub is stopped, and everything in it is"
            " kept until 19 January 2027, 14:05 UTC at least.",
        ),
        (
            {"paid_status": "canceled", "paid_until": SINCE},
            "The subscription has ended. Your pub is stopped, and everything in it is kept until 19 January 2027, 14:05"
            " UTC at least.",
        ),
        (
            {**PAST_DUE, "paid_status": "canceled"},
            "The payment of 20 November 2026 failed, and the subscription has ended. Your pub is stopped, and"
            " everything in it is kept until 2 February 2027, 14:05 UTC at least.",
        ),
        (
            {**PAST_DUE, "lost_at": NOW},
            "The last payment failed. Your pub does not run before we have restored it: a payment alone does not start"
            " it.",
        ),
        (
            {"paid_status": "active", "paid_until": NEXT, "lost_at": NOW},
            "Paid. The next payment is on 3 December 2026.",
        ),
        (
            {"paid_status": "active", "paid_until": SINCE, "paid_ends": True},
            "The subscription has ended. Your pub is stopped, and everything in it is kept until 19 January 2027, 14:05"
            " UTC at least.",
        ),
        (
            {"paid_status": "canceled", "paid_until": NOW - 100 * DAY},
            "The subscription has ended. We kept everything in your pub until 13 October 2026, 14:05 UTC, and no longer"
            " promise to keep it.",
        ),
        (
            {"comped_until": NEXT},
            "We let your pub run without a payment until 3 December 2026, 14:05 UTC.",
        ),
        (
            {"comped_until": SINCE},
            "The time that we let your pub run without a payment is over. Your pub is stopped, and everything in it is"
            " kept until 19 January 2027, 14:05 UTC at least.",
        ),
    ],
)
def test_the_owner_reads_how_it_stands(make: Maker, facts: dict[str, Any], said: str) -> None:
    assert words(stands(make, **facts)) == said


def test_no_word_of_stripe_leaves_the_owner_without_one(make: Maker) -> None:
    for status in MEANINGS:
        bot = stands(make, paid_status=status, paid_until=NEXT)
        assert words(bot).endswith(".") and status not in words(bot).split()


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        ({}, []),
        ({"paid_status": "active", "paid_until": NEXT}, [("Next payment", NEXT)]),
        ({"paid_status": "trialing", "paid_until": NEXT}, [("First payment", NEXT)]),
        (
            {"paid_status": "active", "paid_until": NEXT, "comped_until": NOW + 20 * DAY},
            [("Next payment", NEXT), ("Runs, paid or not, until", NOW + 20 * DAY)],
        ),
        (
            {"paid_status": "active", "paid_until": NEXT, "paid_ends": True},
            [("Runs until", NEXT), ("Then kept until", NEXT + 60 * DAY)],
        ),
        (
            {**PAST_DUE, "retry_at": NOW + DAY},
            [
                ("Payment failed", SINCE),
                ("We try the card again", NOW + DAY),
                ("Runs until", SINCE + 14 * DAY),
                ("Then kept until", SINCE + 74 * DAY),
            ],
        ),
        (
            {**PAST_DUE, "paid_status": "unpaid", "retry_at": SINCE},
            [("Payment failed", SINCE), ("Kept until", SINCE + 74 * DAY)],
        ),
        (
            {**PAST_DUE, "paid_status": "canceled"},
            [("Payment failed", SINCE), ("Kept until", SINCE + 74 * DAY)],
        ),
        (
            {**PAST_DUE, "retry_at": NOW + DAY, "comped_until": NOW + 20 * DAY},
            [
                ("Payment failed", SINCE),
                ("We try the card again", NOW + DAY),
                ("Runs, paid or not, until", NOW + 20 * DAY),
                ("Then kept until", NOW + 80 * DAY),
            ],
        ),
        ({"paid_status": "canceled", "paid_until": SINCE}, [("Kept until", SINCE + 60 * DAY)]),
        ({"paid_status": "canceled", "paid_until": NOW - 100 * DAY}, [("Was kept until", NOW - 40 * DAY)]),
        ({"comped_until": NEXT}, [("Runs, paid or not, until", NEXT), ("Then kept until", NEXT + 60 * DAY)]),
    ],
)
def test_every_date_that_matters_is_shown_in_its_order(
    make: Maker, facts: dict[str, Any], shown: list[tuple[str, datetime]]
) -> None:
    assert dates(stands(make, **facts)) == shown


def test_a_comp_for_ever_has_no_date_after_it(make: Maker) -> None:
    for_ever = datetime.fromisoformat("9999-12-31T00:00:00+00:00")
    assert dates(stands(make, comped_until=for_ever)) == [("Runs, paid or not, until", for_ever)]


def test_moments_are_said_in_utc() -> None:
    assert moment(datetime.fromisoformat("2026-12-03T01:05:00+02:00")) == "2 December 2026, 23:05 UTC"
