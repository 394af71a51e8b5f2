"""What owners are mailed about money: each step and date once, whatever wavers, however often it is asked."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.urls import reverse
from django.utils import timezone

from billing import paid
from billing.gateway import Reading
from mailer.models import Message
from pubs.models import Bot
from tests.support.make import Maker

START = datetime(2026, 11, 22, 14, 5, tzinfo=UTC)
DAY = timedelta(days=1)


class Owner:
    """The owner of a pub whose days pass as the test wishes."""

    def __init__(self, bot: Bot, patch: pytest.MonkeyPatch) -> None:
        self.bot, self.now = bot, START
        patch.setattr(timezone, "now", lambda: self.now)

    def hear(self, status: str, days: float = 0, **facts: Any) -> None:
        """So many days after the start, Stripe says this; the period began with the start."""
        self.now = max(self.now, START + days * DAY)
        said = {"until": START + 30 * DAY, "ends": False, "created": START, "price_id": "", "memory_gb": 1} | facts
        paid.record(Reading(self.bot.pk, "sub_1", status, seen_at=self.now, **said))

    def mails(self) -> list[str]:
        """The steps of which mails were written, the oldest first."""
        return [key.split(":")[0] for key in Message.objects.order_by("pk").values_list("key", flat=True)]

    def newest(self) -> Message:
        return Message.objects.latest("pk")


@pytest.fixture
def owner(make: Maker, monkeypatch: pytest.MonkeyPatch) -> Owner:
    return Owner(make.bot(name="Harbour"), monkeypatch)


def test_each_step_of_a_failed_payment_is_mailed_once_with_its_dates(owner: Owner) -> None:
    owner.hear("active")
    for days in (0, 0.1, 5, 10.9, 11, 12, 13.9, 14, 20, 59, 60, 70, 71, 73, 74, 80):
        owner.hear("past_due", days, unpaid_since=START)
    assert owner.mails() == ["payment_failed", "stops_soon", "suspended", "goes_soon", "goes_now", "over"]
    failed = Message.objects.earliest("pk")
    assert failed.to == owner.bot.owner.email and "“Harbour”" in failed.subject
    assert "6 December 2026, 14:05 UTC" in failed.text and "4 February 2027, 14:05 UTC" in failed.text


def test_a_payment_that_failed_and_was_made_good_is_one_mail(owner: Owner) -> None:
    for status in ("active", "past_due", "past_due", "active", "active"):
        owner.hear(status, unpaid_since=START if status == "past_due" else None)
    assert owner.mails() == ["payment_failed"]


def test_words_that_come_out_of_order_are_mailed_once(owner: Owner) -> None:
    for status in ("past_due", "active", "past_due", "active", "past_due"):
        owner.hear(status, unpaid_since=START if status == "past_due" else None)
    assert owner.mails() == ["payment_failed"]


def test_a_date_that_wavers_by_seconds_is_no_news(owner: Owner) -> None:
    for seconds in (0, 4, 0, 90):
        owner.hear("past_due", unpaid_since=START + timedelta(seconds=seconds))
    assert owner.mails() == ["payment_failed"]


def test_a_date_that_wavers_over_the_full_hour_is_no_news(owner: Owner) -> None:
    for seconds in (0, 2, 0):
        owner.hear("past_due", unpaid_since=START + timedelta(minutes=54, seconds=59 + seconds))
    assert owner.mails() == ["payment_failed"]


def test_a_date_that_moves_by_hours_is_news(owner: Owner) -> None:
    for hours in (0, 1):
        owner.hear("past_due", unpaid_since=START + timedelta(hours=hours))
    assert owner.mails() == ["payment_failed", "payment_failed"]


def test_a_grace_that_staff_extend_is_told_anew_and_the_same_one_again_is_not(owner: Owner, make: Maker) -> None:
    owner.hear("past_due", unpaid_since=START)
    for _ in range(2):
        paid.extend_grace(owner.bot.pk, START + 20 * DAY, "You wrote to us.", make.user("staff"))
    assert owner.mails() == ["payment_failed", "payment_failed"]
    assert "12 December 2026, 14:05 UTC" in owner.newest().text


def test_the_next_failure_is_told_of_too(owner: Owner) -> None:
    owner.hear("past_due", unpaid_since=START)
    owner.hear("active", 1)
    owner.hear("past_due", 30, unpaid_since=START + 30 * DAY, until=START + 60 * DAY)
    assert owner.mails() == ["payment_failed", "payment_failed"]


def test_what_the_outbox_has_forgotten_is_not_told_again(owner: Owner) -> None:
    owner.hear("active", ends=True, until=START + 300 * DAY)
    Message.objects.all().delete()
    owner.hear("active", 100, ends=True, until=START + 300 * DAY)
    assert owner.mails() == []


def test_when_stripe_gives_up_the_mail_says_why_and_until_when_it_is_kept(owner: Owner) -> None:
    owner.hear("past_due", unpaid_since=START)
    owner.hear("unpaid", 8, unpaid_since=START)
    assert owner.mails() == ["payment_failed", "suspended"]
    assert "at each try" in owner.newest().text and "4 February 2027, 14:05 UTC" in owner.newest().text


def test_a_failed_payment_leads_to_the_card_and_a_cancellation_to_the_portal(owner: Owner) -> None:
    page = settings.SITE_URL + owner.bot.get_absolute_url()
    portal = settings.SITE_URL + reverse("billing:portal", args=[owner.bot.pk])
    for days in (0, 11, 14):
        owner.hear("past_due", days, unpaid_since=START)
        assert f"\n{portal}?flow=card\n" in owner.newest().text and f"\n{page}\n" in owner.newest().text
        assert f'href="{portal}?flow=card"' in owner.newest().html and f'href="{page}"' in owner.newest().html
    owner.hear("past_due", 60, unpaid_since=START)
    assert f"\n{portal}\n" in owner.newest().text and f"\n{page}\n" in owner.newest().text
    owner.hear("active", 60, ends=True, until=START + 90 * DAY)
    assert f"\n{portal}\n" in owner.newest().text and f"\n{page}\n" in owner.newest().text
    owner.hear("canceled", 90, until=START + 90 * DAY)
    assert f"\n{page}\n" in owner.newest().text and portal not in owner.newest().text
    assert owner.mails() == ["payment_failed", "stops_soon", "suspended", "goes_soon", "cancelled", "ended"]


def test_no_card_is_asked_for_a_subscription_that_ended_in_its_grace(owner: Owner, make: Maker) -> None:
    owner.hear("past_due", unpaid_since=START)
    owner.hear("canceled", 8, unpaid_since=START)
    paid.extend_grace(owner.bot.pk, START + 20 * DAY, "You wrote to us.", make.user("staff"))
    assert owner.mails()[-1] == "payment_failed"
    assert "Pay again on its page" in owner.newest().text and "card," not in owner.newest().text


def test_the_owner_of_a_paused_subscription_reads_whom_to_write_to_at_each_step(owner: Owner) -> None:
    for days in (1, 46, 57):
        owner.hear("paused", days, until=START)
        mail = owner.newest()
        assert settings.CONTACT_EMAIL in mail.text and f'href="mailto:{settings.CONTACT_EMAIL}"' in mail.html
        assert "portal" not in mail.text and "Pay before" not in mail.text
    assert owner.mails() == ["suspended", "goes_soon", "goes_now"]


def test_the_owner_of_a_lost_pub_is_promised_no_start_before_it_is_restored(owner: Owner) -> None:
    Bot.objects.update(lost_at=START)
    for days in (0, 0.1, 14, 14.1):
        owner.hear("past_due", days, unpaid_since=START)
        assert "does not run before we have restored it" in owner.newest().text
        assert "another card" not in owner.newest().text
    assert owner.mails() == ["lost payment_failed", "lost suspended"]
    Bot.objects.update(lost_at=None)
    for days in (15, 15.1):
        owner.hear("past_due", days, unpaid_since=START)
    assert owner.mails() == ["lost payment_failed", "lost suspended", "suspended"]


def test_the_owner_of_a_lost_pub_is_reminded_of_its_payment_once(owner: Owner) -> None:
    Bot.objects.update(lost_at=START, asked_at=START)
    for days in (2, 3):
        owner.hear("incomplete", days)
    assert owner.mails() == ["lost pay_reminder"]


def test_what_was_told_before_a_pub_was_lost_is_not_told_again(owner: Owner) -> None:
    owner.hear("past_due", unpaid_since=START)
    Bot.objects.update(lost_at=START)
    owner.hear("past_due", 1, unpaid_since=START)
    assert owner.mails() == ["payment_failed"]


def test_the_mail_of_an_end_says_which_payment_failed(owner: Owner) -> None:
    owner.hear("past_due", unpaid_since=START)
    owner.hear("canceled", 8, unpaid_since=START)
    assert "The payment of 22 November 2026 failed, and the subscription has ended." in owner.newest().text


def test_a_cancellation_tells_the_end_and_the_time_of_keeping(owner: Owner) -> None:
    owner.hear("active")
    owner.hear("active", 2, ends=True)
    assert owner.mails() == ["cancelled"]
    assert "22 December 2026, 14:05 UTC" in owner.newest().text
    assert "20 February 2027, 14:05 UTC" in owner.newest().text
    owner.hear("canceled", 30)
    assert owner.mails() == ["cancelled", "ended"]


def test_a_comp_and_its_end_are_told(owner: Owner, make: Maker) -> None:
    staff = make.user("staff")
    paid.comp(owner.bot.pk, START + 30 * DAY, "For your help.", staff)
    owner.now = START + 25 * DAY
    paid.comp(owner.bot.pk, START + 30 * DAY, "For your help.", staff)
    assert owner.mails() == ["comped", "comp_ends"]


def test_a_payment_page_that_was_left_is_told_of_once_for_ever(owner: Owner) -> None:
    for days in (0, 5):
        Bot.objects.update(asked_at=START + days * DAY)
        owner.hear("incomplete", days + 2)
    assert owner.mails() == ["pay_reminder"]


def test_the_owner_of_a_deleted_pub_gets_one_mail_and_no_other(owner: Owner) -> None:
    owner.hear("active")
    Bot.objects.update(deleted_at=START + DAY)
    for days, status in ((1, "active"), (2, "past_due"), (3, "unpaid"), (4, "canceled"), (90, "canceled")):
        owner.hear(status, days, unpaid_since=START)
    assert owner.mails() == ["deleted"]
    assert "22 January 2027, 14:05 UTC" in owner.newest().text, "60 days from its deletion"


def test_who_deletes_what_never_ran_is_not_written_to(owner: Owner) -> None:
    Bot.objects.update(deleted_at=START, asked_at=START - DAY)
    owner.hear("incomplete", 2)
    assert owner.mails() == []
