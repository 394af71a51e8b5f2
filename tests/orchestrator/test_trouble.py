"""Troubles: when something is one, when it is over, and that each of both is told once, whoever dies meanwhile."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.cache import cache
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from mailer import messages
from mailer.jobs import HOOKS_KEPT
from mailer.models import Hook, Message
from orchestrator import jobs, tell, troubles
from orchestrator.models import Hub, Placement
from orchestrator.reconcile import run_here
from orchestrator.troubles import CALM, DAMPING, FLAPS_CALM, LASTS_AGAIN, Fact, Kind, News, State, decide, news
from pubs.live import LogLine
from pubs.models import Bot, Checkup, Notices, PaymentChange, StatsSample, StatusChange, Trouble
from tests.support.make import Maker

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
BOT = UUID(int=1)
KEY = (BOT, Kind.DOWN)
MINUTE = timedelta(minutes=1)
LASTS = timedelta(seconds=60)
LOOK = timedelta(seconds=20)
# What a look finds: it is so, it is not, nobody can say, it is not to run.
AWAY = "away"
Found = bool | None | str


class Life:
    """One trouble over time, and what its owner was told of it, as troubles.py and tell.py keep both."""

    def __init__(self, lasts: timedelta = LASTS) -> None:
        self.now, self.lasts = START, lasts
        self.rows: dict[int, State] = {}
        self.told: list[tuple[News, datetime]] = []
        self.since: datetime | None = None

    def look(self, found: Found, level: int = 0, is_teller_there: bool = True) -> None:
        self.now += LOOK
        if found is not True:
            self.since = None
        elif self.since is None:
            self.since = self.now
        fact = Fact(found, self.since or self.now, self.lasts, level) if not isinstance(found, str) else None
        facts = {KEY: fact} if fact else {}
        known = [row for row in self.rows.values() if row.told or not row.ended or self.now - row.ended < DAMPING]
        for row in decide(facts, known, self.now):
            pk = row.pk or len(self.rows) + 1
            self.rows[pk] = replace(row, pk=pk)
        if is_teller_there:
            self.tell()

    def tell(self) -> None:
        for pk, row in self.rows.items():
            if what := news(row, self.now):
                self.told.append((what, self.now))
                flaps = row.told_flaps or what is News.FLAPS
                self.rows[pk] = replace(row, told=what is not News.OVER, told_level=row.level, told_flaps=flaps)

    def go_on(self, found: Found, minutes: float, **more: Any) -> None:
        for _ in range(round(minutes * MINUTE / LOOK)):
            self.look(found, **more)

    @property
    def said(self) -> list[News]:
        return [what for what, _ in self.told]

    @property
    def open(self) -> list[State]:
        return [row for row in self.rows.values() if row.ended is None]


# --- deciding: stories -----------------------------------------------------------------------------------------------
def test_a_trouble_is_told_once_when_it_lasts_and_once_when_it_is_over() -> None:
    life = Life()
    life.go_on(True, 30)
    life.go_on(False, 30)
    assert life.said == [News.BEGAN, News.OVER]
    assert life.told[0][1] - START >= LASTS


def test_what_does_not_last_is_no_trouble() -> None:
    life = Life()
    for _ in range(10):
        life.go_on(True, 2 / 3)
        life.go_on(False, 1)
    assert life.rows == {} and life.said == []


def test_it_is_over_only_when_it_stayed_away_for_a_while() -> None:
    life = Life()
    life.go_on(True, 5)
    life.go_on(False, 2 / 3)
    assert life.open and life.said == [News.BEGAN]
    life.go_on(True, 5)
    life.go_on(False, 2)
    assert not life.open and life.said == [News.BEGAN, News.OVER]


def test_one_that_comes_back_soon_is_the_same_and_no_new_mail() -> None:
    life = Life()
    life.go_on(True, 3)
    life.go_on(False, 10)
    life.go_on(True, 3)
    life.go_on(False, 3)
    assert life.said == [News.BEGAN, News.OVER]
    assert [row.times for row in life.rows.values()] == [2]


def test_one_that_comes_back_soon_and_lasts_is_told_again() -> None:
    life = Life()
    life.go_on(True, 3)
    life.go_on(False, 10)
    life.go_on(True, LASTS_AGAIN / MINUTE + 3)
    life.go_on(False, 3)
    assert life.said == [News.BEGAN, News.OVER] * 2


def test_one_that_comes_back_much_later_is_a_new_one() -> None:
    life = Life()
    life.go_on(True, 3)
    life.go_on(False, DAMPING / MINUTE + 3)
    life.go_on(True, 3)
    assert life.said == [News.BEGAN, News.OVER, News.BEGAN] and len(life.rows) == 2


def test_one_that_comes_and_goes_is_told_so_once_and_is_over_when_it_stayed_away_for_long() -> None:
    life = Life()
    for _ in range(20):
        life.go_on(True, 3)
        life.go_on(False, 5)
    assert life.said == [News.BEGAN, News.OVER, News.FLAPS]
    life.go_on(False, FLAPS_CALM / MINUTE)
    assert life.said == [News.BEGAN, News.OVER, News.FLAPS, News.OVER]


def test_while_nobody_can_say_all_stays_as_it_is() -> None:
    life = Life()
    life.go_on(None, 60)
    assert life.rows == {}
    life.go_on(True, 3)
    life.go_on(None, 120)
    assert life.open and life.said == [News.BEGAN]
    life.go_on(False, 3)
    assert life.said == [News.BEGAN, News.OVER]


def test_a_stop_ends_it_in_silence_and_what_comes_after_the_next_start_is_new() -> None:
    life = Life()
    life.go_on(True, 3)
    life.go_on(AWAY, 3)
    assert not life.open and life.said == [News.BEGAN]
    life.go_on(True, 3)
    assert life.said == [News.BEGAN, News.BEGAN] and len(life.rows) == 2


def test_an_end_that_was_not_told_yet_is_told_though_its_owner_stops_it() -> None:
    life = Life()
    life.go_on(True, 3)
    life.go_on(False, 3, is_teller_there=False)
    life.go_on(AWAY, 3)
    assert life.said == [News.BEGAN, News.OVER]


def test_a_warning_that_rises_is_told_once_and_one_that_falls_back_is_not() -> None:
    life = Life(lasts=timedelta(0))
    for level in (80, 95, 80, 95):
        life.go_on(True, 2, level=level)
    assert life.said == [News.BEGAN, News.ROSE]


def test_what_began_and_ended_while_nobody_could_tell_it_is_never_told() -> None:
    life = Life()
    life.go_on(True, 5, is_teller_there=False)
    life.go_on(False, 5, is_teller_there=False)
    life.tell()
    assert life.said == []


def test_what_is_back_before_its_end_was_told_is_not_told_to_have_ended() -> None:
    life = Life()
    life.go_on(True, 3)
    life.go_on(False, 3, is_teller_there=False)
    life.go_on(True, 3, is_teller_there=False)
    life.tell()
    assert life.said == [News.BEGAN] and life.open[0].told


# --- deciding: properties --------------------------------------------------------------------------------------------
looks = st.lists(
    st.tuples(st.sampled_from([True, False, None, AWAY]), st.integers(1, 60), st.booleans()), min_size=1, max_size=25
)


def live(story: list[tuple[Found, int, bool]]) -> Life:
    life = Life()
    for found, times, is_teller_there in story:
        for _ in range(times):
            life.look(found, is_teller_there=is_teller_there)
            assert len(life.open) <= 1
            assert all(row.times == 1 or row.back_at >= row.began for row in life.rows.values())
    return life


@given(looks)
def test_beginning_and_end_are_told_in_turn(story: list[tuple[Found, int, bool]]) -> None:
    knows = False
    for what in [each for each in live(story).said if each is not News.FLAPS]:
        if what is News.OVER:
            knows = False
        else:
            assert not knows or AWAY in [found for found, _, _ in story]
            knows = True


@given(looks)
def test_nobody_gets_more_than_a_handful_of_mails_in_an_hour(story: list[tuple[Found, int, bool]]) -> None:
    without_stops = [(False if found == AWAY else found, times, there) for found, times, there in story]
    told = [at for _, at in live(without_stops).told]
    assert all(sum(at <= other < at + DAMPING for other in told) <= 6 for at in told)


@given(looks)
def test_in_the_end_the_owner_knows_how_it_is(story: list[tuple[Found, int, bool]]) -> None:
    life = live(story)
    life.go_on(True, 30)
    assert [row.told for row in life.open] == [True]
    life.go_on(False, 40)
    assert not life.open and not any(row.told for row in life.rows.values())


@given(looks)
def test_a_look_that_finds_the_same_again_changes_nothing_but_its_time(story: list[tuple[Found, int, bool]]) -> None:
    life = live(story)
    rows = list(life.rows.values())
    facts = {KEY: Fact(True, START, LASTS)}
    first = {row.pk: row for row in rows} | {row.pk: row for row in decide(facts, rows, life.now)}
    assert decide(facts, first.values(), life.now) == []


# --- looking ---------------------------------------------------------------------------------------------------------
class Pubs:
    """Pubs of which the rows say what a pass would have found."""

    def __init__(self, make: Maker) -> None:
        self.make = make
        self.hub = Hub.objects.create(name="hub-1", state="ready")

    def up(self, **fields: Any) -> Bot:
        now = timezone.now()
        days = {"wanted_since": now - timedelta(days=2), "changed_at": now - timedelta(days=1), "seen_at": now}
        bot = self.make.bot(paid=True, told_up=True, status="up", ssb_id=f"@{uuid4().hex}", **fields)
        Bot.objects.filter(pk=bot.pk).update(**days)
        change = StatusChange.objects.create(bot=bot, old="none", new="up")
        StatusChange.objects.filter(pk=change.pk).update(at=now - timedelta(days=1))
        number = Placement.objects.count()
        Placement.objects.create(bot=bot, hub=self.hub, port=29000 + number, label=f"p{number}", places=bot.memory_gb)
        return bot

    @staticmethod
    def become(bot: Bot, status: str, minutes: float = 5) -> None:
        Bot.objects.filter(pk=bot.pk).update(status=status, changed_at=timezone.now() - minutes * MINUTE)

    @staticmethod
    def pass_by(minutes: float) -> None:
        """As if all troubles had been noted earlier."""
        for row in Trouble.objects.all():
            for column in ("began", "back_at", "last_at", "calm_since", "ended"):
                if at := getattr(row, column):
                    setattr(row, column, at - minutes * MINUTE)
            row.save()


@pytest.fixture
def pubs(make: Maker) -> Pubs:
    return Pubs(make)


def look() -> None:
    cache.clear()
    troubles.look(ask=run_here)


def over() -> None:
    """Two looks with the time between them that makes what is away be over."""
    look()
    Pubs.pass_by(CALM / MINUTE)
    look()


def subjects() -> list[str]:
    return [message.subject for message in Message.objects.order_by("pk") if "customer" in message.to]


def test_a_pub_that_is_down_is_told_with_since_and_reason_and_where_to_choose(pubs: Pubs) -> None:
    bot = pubs.up(name="Harbour")
    pubs.become(bot, "down")
    Bot.objects.update(reason="It stopped answering. It starts again by itself.")
    look()
    look()
    (mail,) = Message.objects.all()
    assert mail.subject == "“Harbour” is down"
    assert "has not answered since" in mail.text and "It stopped answering." in mail.text
    assert bot.get_absolute_url() in mail.text and f"{bot.get_absolute_url()}settings/" in mail.text
    pubs.become(bot, "up", minutes=0)
    over()
    assert subjects() == ["“Harbour” is down", "“Harbour” is up again"]


@pytest.mark.parametrize(
    "columns",
    [
        {"switched_on": False},
        {"paid": False},
        {"deleted_at": START},
        {"moving": True},
        {"wanted_since": None},
    ],
)
def test_what_is_not_to_run_or_moves_is_no_trouble(pubs: Pubs, columns: dict[str, Any]) -> None:
    bot = pubs.up()
    pubs.become(bot, "none")
    Bot.objects.update(**columns)
    look()
    assert not Trouble.objects.exists()


def test_a_pub_that_its_owner_stops_while_it_is_down_is_heard_of_no_more(pubs: Pubs) -> None:
    bot = pubs.up(name="Harbour")
    pubs.become(bot, "down")
    look()
    Bot.objects.update(switched_on=False, status="none")
    over()
    assert subjects() == ["“Harbour” is down"] and not Trouble.objects.filter(ended=None).exists()


def test_rows_that_no_pass_has_looked_at_lately_say_nothing(pubs: Pubs) -> None:
    bot = pubs.up()
    pubs.become(bot, "down")
    Bot.objects.update(seen_at=timezone.now() - 10 * MINUTE)
    look()
    assert not Trouble.objects.exists()


def test_a_first_start_may_take_its_time_and_is_told_when_it_never_ends(pubs: Pubs) -> None:
    bot = pubs.up(name="Harbour")
    pubs.become(bot, "none", minutes=10)
    StatusChange.objects.all().delete()
    Bot.objects.update(wanted_since=timezone.now() - 10 * MINUTE)
    look()
    assert not Trouble.objects.exists()
    pubs.become(bot, "none", minutes=20)
    Bot.objects.update(wanted_since=timezone.now() - 20 * MINUTE)
    look()
    assert subjects() == ["“Harbour” is down"]


def test_a_pub_out_of_sight_is_unknown_and_not_down(pubs: Pubs) -> None:
    pubs.up(name="Harbour")
    Bot.objects.update(status="down", unknown_since=timezone.now() - 3 * MINUTE)
    look()
    assert subjects() == ["“Harbour” is out of our sight"]
    Bot.objects.update(status="up", unknown_since=None)
    over()
    assert subjects()[1:] == ["“Harbour” is in our sight again"]
    assert "and is up" in Message.objects.get(subject__contains="in our sight again").text


def memory(bot: Bot, percent: float, samples: int = 30) -> None:
    StatsSample.objects.all().delete()
    now = timezone.now()
    used = percent / 100 * bot.memory_gb * 1024**3
    zero = {
        f"{metric}{part}": 0
        for metric in ("cpu", "rx_rate", "tx_rate", "read_rate", "write_rate", "pids")
        for part in ("_min", "", "_max")
    }
    StatsSample.objects.bulk_create(
        StatsSample(
            bot=bot,
            step=10,
            at=now - timedelta(seconds=10 * each + 1),
            memory=used,
            memory_min=used,
            memory_max=used,
            **zero,
        )
        for each in range(samples)
    )


def test_memory_is_told_at_90_percent_over_five_minutes_and_over_below_80(pubs: Pubs) -> None:
    bot = pubs.up(name="Harbour", memory_gb=2)
    memory(bot, 89)
    look()
    assert subjects() == []
    memory(bot, 96, samples=12)
    look()
    assert subjects() == [], "two minutes are no five"
    memory(bot, 96)
    look()
    assert subjects() == ["“Harbour” is short of memory"]
    assert "1.9 GB of its 2 GB" in Message.objects.get().text and "96 %" in Message.objects.get().text
    memory(bot, 85)
    over()
    assert len(subjects()) == 1
    memory(bot, 79)
    over()
    assert subjects()[1:] == ["“Harbour” has memory enough again"]


def test_disk_is_told_at_80_and_at_95_percent_once_each_and_over_below_75(pubs: Pubs) -> None:
    bot = pubs.up(name="Harbour")
    Checkup.objects.create(bot=bot)
    for percent in (79, 81, 84, 79, 95.5, 82, 96):
        Checkup.objects.update(disk=round(percent / 100 * 10 * 1024**3))
        over()
    assert subjects() == ["“Harbour” has filled 80 % of its disk", "“Harbour” has filled 95 % of its disk"]
    assert "It takes 9.5 GB of 10 GB." in Message.objects.first().text  # type: ignore[union-attr]
    Checkup.objects.update(disk=1024)
    over()
    assert subjects()[2:] == ["“Harbour” has room on its disk again"]


def rest(bot: Bot, rests: int, until: datetime | None) -> None:
    Placement.objects.filter(bot=bot).update(crash_rests=rests, crash_rest_until=until)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the engine gives of a pub's log, once."""
    there = ["it broke & fell"]

    def read(bot_id: Any, count: int) -> list[LogLine]:
        at = "2026-12-03T12:00:00.000+00:00"
        return [LogLine(key="1.0", number=0, at=at, text=there.pop(), is_error=True)] if there else []

    monkeypatch.setattr("orchestrator.logs.read", read)
    return there


def test_a_crash_loop_is_told_to_owner_and_staff_with_the_last_lines_and_takes_the_place_of_down(
    pubs: Pubs, make: Maker, lines: list[str]
) -> None:
    make.user("stella", is_staff=True)
    bot = pubs.up(name="Harbour")
    pubs.become(bot, "down")
    look()
    rest(bot, 1, timezone.now() + 10 * MINUTE)
    look()
    to_owner, to_staff = Message.objects.order_by("pk")[1:]
    assert to_owner.subject == "“Harbour” crashes again and again" and to_staff.subject.startswith("Please look at pub")
    assert all("it broke & fell" in mail.text and "broke &amp; fell" in mail.html for mail in (to_owner, to_staff))
    rest(bot, 1, None)
    over()
    assert len(subjects()) == 3, "while it is tried again nobody can say"
    rest(bot, 0, None)
    pubs.become(bot, "up")
    over()
    assert subjects()[3:] == ["“Harbour” runs well again"]


def test_a_pub_that_rested_and_was_stopped_and_started_is_told_when_it_is_down(pubs: Pubs, lines: list[str]) -> None:
    bot = pubs.up(name="Harbour")
    rest(bot, 1, timezone.now() + 10 * MINUTE)
    look()
    Bot.objects.update(switched_on=False)
    rest(bot, 1, None)
    look()
    Bot.objects.update(switched_on=True, wanted_since=timezone.now() - 20 * MINUTE)
    pubs.become(bot, "down", minutes=16)
    look()
    assert subjects() == ["“Harbour” crashes again and again", "“Harbour” is down"]
    rest(bot, 2, timezone.now() + 20 * MINUTE)
    look()
    assert subjects()[2:] == ["“Harbour” crashes again and again"]
    assert [each.kind for each in Trouble.objects.filter(ended=None)] == [Kind.CRASH_LOOP]


def test_the_last_lines_are_kept_before_a_pub_that_rests_is_taken_down(
    pubs: Pubs, make: Maker, lines: list[str]
) -> None:
    bot = pubs.up()
    rest(bot, 1, timezone.now() + 10 * MINUTE)
    jobs.ensure_pub_down(str(bot.pk))
    assert lines == []
    troubles.look(ask=run_here)
    assert "it broke & fell" in Message.objects.get().text


def test_a_look_takes_the_same_number_of_queries_for_2_pubs_and_for_20(pubs: Pubs) -> None:
    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as seen:
            troubles.look(ask=lambda *job: None)
        return len(seen)

    def all_down() -> list[int]:
        counts = []
        for status in ("down", "up"):
            Bot.objects.update(status=status, changed_at=timezone.now() - 5 * MINUTE)
            counts.append(queries())
        Trouble.objects.all().delete()
        return counts

    for _ in range(2):
        memory(pubs.up(), 95)
    few = all_down()
    for _ in range(18):
        pubs.up()
    assert all_down() == few


# --- telling ---------------------------------------------------------------------------------------------------------
def test_an_owner_chooses_what_to_be_mailed_about_and_staff_hear_of_a_crash_loop_all_the_same(
    pubs: Pubs, make: Maker, lines: list[str]
) -> None:
    make.user("stella", is_staff=True)
    bot = pubs.up(name="Harbour")
    Notices.of(bot).choose(["down"], [])
    rest(bot, 1, timezone.now() + 10 * MINUTE)
    look()
    assert subjects() == [f"Please look at pub {bot.pk}"]
    rest(bot, 0, None)
    pubs.become(bot, "down")
    look()
    assert subjects()[1:] == ["“Harbour” is down"]


def test_a_worker_killed_between_the_row_and_the_mail_leaves_both_to_the_next(
    pubs: Pubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    pubs.become(pubs.up(name="Harbour"), "down")

    def killed(**mail: Any) -> None:
        raise SystemExit("killed")

    with monkeypatch.context() as broken:
        broken.setattr(messages, "trouble_began", killed)
        with pytest.raises(SystemExit):
            look()
    assert not Trouble.objects.get().told and not Message.objects.exists()
    look()
    assert Trouble.objects.get().told and subjects() == ["“Harbour” is down"]


def test_a_mail_that_was_never_asked_for_is_asked_for_by_the_next_look(pubs: Pubs) -> None:
    pubs.become(pubs.up(name="Harbour"), "down")
    troubles.look(ask=lambda *job: None)
    assert subjects() == []
    look()
    assert subjects() == ["“Harbour” is down"]


def test_a_look_and_a_telling_that_come_too_late_change_nothing(pubs: Pubs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker told it between our reading and our writing."""
    bot = pubs.up(name="Harbour")
    pubs.become(bot, "down")
    troubles.look(ask=lambda *job: None)
    row = Trouble.objects.get()
    really = tell.news

    def meanwhile(state: State, now: datetime) -> News | None:
        monkeypatch.setattr(tell, "news", really)
        tell.trouble(row.pk)
        return really(state, now)

    monkeypatch.setattr(tell, "news", meanwhile)
    tell.trouble(row.pk)
    assert subjects() == ["“Harbour” is down"]


@pytest.mark.django_db(transaction=True)
def test_two_workers_at_once_write_one_trouble_and_tell_it_once(pubs: Pubs) -> None:
    for number in range(5):
        pubs.become(pubs.up(name=f"Pub {number}"), "down")

    def work(_: int) -> None:
        try:
            troubles.look(ask=run_here)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as workers:
        list(workers.map(work, range(4)))
    assert Trouble.objects.count() == 5 and sorted(subjects()) == [f"“Pub {number}” is down" for number in range(5)]


def test_the_job_looks_asks_and_tells(
    pubs: Pubs, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    pubs.become(pubs.up(name="Harbour"), "down")
    asked: list[tuple[str, Any]] = []
    monkeypatch.setattr("celery.current_app.send_task", lambda task, args: asked.append((task, args)))
    with django_capture_on_commit_callbacks(execute=True):
        jobs.look_for_troubles()
    assert asked == [("orchestrator.tell_trouble", (Trouble.objects.get().pk,))]
    with django_capture_on_commit_callbacks(execute=True):
        jobs.tell_trouble(*asked[0][1])
    assert subjects() == ["“Harbour” is down"]


# --- webhooks --------------------------------------------------------------------------------------------------------
def events() -> list[tuple[str, str]]:
    bodies = [json.loads(hook.body) for hook in Hook.objects.order_by("pk")]
    return [(body["event"], body["kind"]) for body in bodies]


def test_what_is_told_is_posted_too_whatever_is_mailed(pubs: Pubs) -> None:
    bot = pubs.up(name="Harbour")
    notices = Notices.of(bot)
    notices.choose([], ["down"])
    notices.post_to("http://127.0.0.1:9/news")
    pubs.become(bot, "down")
    look()
    pubs.become(bot, "up", minutes=0)
    over()
    assert events() == [("trouble.began", "down"), ("trouble.ended", "down")] and subjects() == []


def test_a_change_of_the_payment_is_posted_once_and_only_what_came_after_the_address(pubs: Pubs) -> None:
    bot = pubs.up(name="Harbour")
    PaymentChange.objects.create(bot=bot, old="new", new="paid")
    Notices.of(bot).post_to("http://127.0.0.1:9/news")
    PaymentChange.objects.create(bot=bot, old="paid", new="grace", words="The card was declined.")
    PaymentChange.objects.create(bot=pubs.up(), old="paid", new="grace")
    tell.payments()
    tell.payments()
    assert events() == [("payment.changed", "grace")]
    assert "The card was declined." in Hook.objects.get().body


def test_a_change_of_the_payment_that_nobody_posted_for_days_is_posted_then(pubs: Pubs) -> None:
    bot = pubs.up(name="Harbour")
    Notices.of(bot).post_to("http://127.0.0.1:9/news")
    now = timezone.now()
    Notices.objects.update(hook_since=now - timedelta(days=30))
    for new, days in (("paid", 15), ("grace", 3)):
        change = PaymentChange.objects.create(bot=bot, old="new", new=new)
        PaymentChange.objects.filter(pk=change.pk).update(at=now - timedelta(days=days))
    tell.payments()
    assert events() == [("payment.changed", "grace")]
    assert tell.PAYMENTS_LOOK < HOOKS_KEPT, "or it is posted again when its hook is forgotten"


def test_what_no_webhook_is_wished_for_is_not_posted_nor_afterwards(pubs: Pubs) -> None:
    bot = pubs.up(name="Harbour")
    notices = Notices.of(bot)
    notices.post_to("http://127.0.0.1:9/news")
    notices.choose(["down"], ["memory"])
    pubs.become(bot, "down")
    PaymentChange.objects.create(bot=bot, old="paid", new="grace")
    look()
    tell.payments()
    assert events() == [] and subjects() == ["“Harbour” is down"]
    notices.choose([], ["down", "payment"])
    tell.payments()
    assert events() == []
    PaymentChange.objects.create(bot=bot, old="grace", new="paid")
    tell.payments()
    assert events() == [("payment.changed", "paid")]
