"""Is my pub working? What is known of it as questions and answers in words, each with what to do when it is not so.

The page, its JSON, the public page and the badge all say what stands here. Nothing is asked of the pub for it: what
was found lately stands in the bot's row and in its Checkup.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Literal

from django.conf import settings
from django.utils import timezone
from django.utils.formats import date_format

from pubs import disk, live
from pubs.models import Bot, Checkup, Status
from pubs.shown import is_stale, shown
from pubs.units import age

# A pub is tried each minute and asked each five; what is older than this says little about now.
FRESH = timedelta(seconds=60)
TRY_HOLDS = timedelta(minutes=4)
ANSWER_HOLDS = timedelta(minutes=15)
# One that was reached a moment ago may just be busy, or start again.
FORGIVEN = timedelta(minutes=3)
# In a pub that people use, somebody says something each day.
QUIET = timedelta(days=2)

State = Literal["good", "bad", "unknown", "off"]
WRITE_TO_US = "If it stays so for ten minutes, restart it; if that does not help, write to us."
UPDATE = "We bring it up to date by ourselves: there is nothing for you to do."
INVITE = "Invite people: each who joins follows it, and it follows them back."


@dataclass(frozen=True)
class Answer:
    """One question about a pub, and what we know. `todo` says what its owner may do, where there is something."""

    name: str
    question: str
    state: State
    words: str
    todo: str = ""
    at: datetime | None = None  # when that was found


@dataclass(frozen=True)
class Verdict:
    """All answers in one sentence."""

    state: State
    words: str


def answers(bot: Bot, ahead: disk.Outlook | None = None) -> list[Answer]:
    """What is known of a pub that should run. One that is stopped or unpaid is asked nothing.

    `ahead`: the outlook for its disk, where somebody has it already.
    """
    return list(_answers(bot, ahead)) if bot.is_wanted else []


def verdict(bot: Bot, found: list[Answer] | None = None) -> Verdict:
    """`found`: the bot's answers, where somebody has them already."""
    if not _runs(bot):
        look = shown(bot)
        return Verdict("bad" if look.tone == "bad" else "off", look.meaning)
    given = {answer.name: answer for answer in (answers(bot) if found is None else found)}
    running, reachable = given["running"].state, given["reachable"].state
    if running == "unknown":
        return Verdict("unknown", "We can't see your pub right now, so we don't know whether it works.")
    if running == "off":
        return Verdict("off", "Your pub is on its way up.")
    if running == "bad":
        return Verdict("bad", "Your pub does not work right now.")
    if reachable == "bad":
        return Verdict("bad", "Your pub runs, but nobody can reach it.")
    if reachable == "unknown":
        return Verdict("unknown", "Your pub runs. We don't know yet whether people can reach it.")
    open_questions = [answer.question for answer in given.values() if answer.state == "bad"]
    if open_questions:
        return Verdict("good", f"Your pub works, but look at this: {' '.join(open_questions)}")
    return Verdict("good", "Your pub works: it runs, and people can reach it.")


def look_closer(bot: Bot) -> None:
    """Somebody looks: have a worker see how it answers, unless that is known to be so just now."""
    tried_at = _checkup(bot).tried_at
    if _runs(bot) and (tried_at is None or timezone.now() - tried_at > FRESH):
        live.look_closer(bot.pk)


def _runs(bot: Bot) -> bool:
    return bot.is_wanted and bot.status != Status.NONE and bot.lost_at is None and not bot.moving


def _checkup(bot: Bot) -> Checkup:
    """One that was never looked at has no row yet."""
    return getattr(bot, "checkup", None) or Checkup(bot_id=bot.pk)


def _answers(bot: Bot, ahead: disk.Outlook | None) -> Iterator[Answer]:
    checkup = _checkup(bot)
    yield _running(bot)
    if not _runs(bot) and checkup.answered_at is None:
        return
    yield _reachable(bot, checkup)
    yield _said("messages", "Do messages reach it?", bot, _messages)
    yield _said("feed", "Can it publish?", bot, _feed)
    yield _said("peers", "Who is connected to it?", bot, _peers)
    yield _said("followers", "Who follows it?", bot, _followers)
    yield _said("version", "Is its software up to date?", bot, _version)
    yield _said("disk", "Is there room on its disk?", bot, lambda _: _disk(ahead or disk.outlook(bot)))


def _running(bot: Bot) -> Answer:
    ask = ("running", "Does it run?")
    look = shown(bot)
    if not _runs(bot):
        return Answer(*ask, "bad" if look.tone == "bad" else "off", bot.reason or look.meaning, at=bot.seen_at)
    if is_stale(bot):
        words = f"We can't see its machine right now. It was {look.word} when we last saw it."
        return Answer(*ask, "unknown", words, "It probably goes on running, and we keep looking.", bot.seen_at)
    if bot.status == Status.UP:
        return Answer(*ask, "good", f"Yes, since {_moment(bot.changed_at)}.", at=bot.seen_at)
    if look.tone == "busy":
        return Answer(*ask, "off", look.meaning, at=bot.seen_at)
    return Answer(*ask, "bad", bot.reason or "It does not pass its health check.", WRITE_TO_US, bot.seen_at)


def _reachable(bot: Bot, checkup: Checkup) -> Answer:
    ask = ("reachable", "Can people reach it?")
    last = f" We last reached it {_ago(checkup.reached_at)}." if checkup.reached_at else ""
    if not _runs(bot):
        return Answer(*ask, "off", f"Not before it runs.{last}", at=checkup.tried_at)
    if checkup.tried_at is None or timezone.now() - checkup.tried_at > TRY_HOLDS:
        return Answer(
            *ask, "unknown", "We have not tried to reach it lately. We do so each minute.", at=checkup.tried_at
        )
    if not checkup.unreached:
        took = f"answered in {checkup.handshake_ms or 0:.0f} ms, and proved that it is your pub"
        words = f"Yes. We greeted it at {bot.address} as an app does: it {took}."
        return Answer(*ask, "good", words, at=checkup.tried_at)
    if checkup.reached_at and checkup.tried_at - checkup.reached_at < FORGIVEN:
        words = f"Not at our last try: {checkup.unreached} We reached it {_ago(checkup.reached_at)}."
        return Answer(
            *ask, "unknown", words, "It may be busy, or starting again. We try again each minute.", checkup.tried_at
        )
    return Answer(*ask, "bad", f"No: {checkup.unreached}{last}", WRITE_TO_US, checkup.tried_at)


# What it says of itself: state, words, and what its owner may do.
Said = tuple[State, str, str]


def _said(name: str, question: str, bot: Bot, read: Callable[[Checkup], Said]) -> Answer:
    """An answer that the pub gave itself. One that is too old to count is shown with its age, and without a colour."""
    checkup = _checkup(bot)
    at, why = checkup.answered_at, checkup.unanswered
    if at is None:
        return Answer(name, question, "unknown", f"It has not told us yet.{f' {why}' if why else ''}")
    state, words, todo = read(checkup)
    if timezone.now() - at > ANSWER_HOLDS or not _runs(bot):
        return Answer(name, question, "unknown", f"{words} That was {_ago(at)}.{f' {why}' if why else ''}", at=at)
    return Answer(name, question, state, words, todo, at)


def _messages(checkup: Checkup) -> Said:
    if checkup.messages is None:
        return "unknown", "Its software is too old to say so.", UPDATE
    if checkup.synced_at is None:
        if not checkup.members:
            return "off", "It has no members yet, so there is nothing to fetch.", INVITE
        return "off", "Nothing has come in since it started.", "That is normal until one of its members connects."
    holds = _count(checkup.messages, "message")
    words = f"The last message of somebody else came in {_ago(checkup.synced_at)}. It holds {holds}."
    if timezone.now() - checkup.synced_at > QUIET:
        return "off", words, "If its members write, their apps may have lost it: a new invite connects them again."
    return "good", words, ""


def _feed(checkup: Checkup) -> Said:
    length = _count(checkup.sequence or 0, "message")
    if checkup.restoring:
        words = f"Not now: it gets its own messages back from others, and has {length}. It says nothing new before."
        return "bad", words, "Ask somebody who follows it to connect: their app gives them back."
    return "good", f"Yes. It has published {length} of its own.", ""


def _peers(checkup: Checkup) -> Said:
    if checkup.peers:
        return "good", f"{_count(checkup.peers, 'peer')} just now.", ""
    return "off", "Nobody just now.", "Apps connect while people use them, so that is normal for a small pub."


def _followers(checkup: Checkup) -> Said:
    words = f"{_count(checkup.followers or 0, 'follower')}, and it follows {checkup.members or 0}."
    return ("good", words, "") if checkup.followers else ("off", words, INVITE)


def _disk(ahead: disk.Outlook) -> Said:
    return "unknown" if ahead.size is None else "bad" if ahead.todo else "good", ahead.words, ahead.todo


def _version(checkup: Checkup) -> Said:
    """Never bad: a pass gives it the image of this installation, which may be another than the one beside this code."""
    if checkup.version == newest_version():
        return "good", f"Yes: it runs version {checkup.version}.", ""
    runs = f"It runs version {checkup.version}" if checkup.version else "It does not say which version it runs"
    return "off", f"{runs}. Ours is {newest_version()}.", UPDATE


@cache
def newest_version() -> str:
    """Of the pub image that belongs to this code."""
    return json.loads((settings.BASE_DIR / "pub_image" / "package.json").read_text())["version"]


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}".replace(",", "\u202f")


def _ago(at: datetime) -> str:
    """Words are drawn anew each 20 seconds, and no age in them may be wrong between."""
    return "less than a minute ago" if timezone.now() - at < timedelta(minutes=1) else age(at)


def _moment(at: datetime) -> str:
    return f"{date_format(at, 'j F, H:i')} UTC"
