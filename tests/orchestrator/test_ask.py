"""Asking for jobs: a pass comes several times a second, and a job that starts a pub may wait and work for many."""

from typing import NoReturn

import pytest
from celery import current_app

from orchestrator import jobs
from orchestrator.reconcile import queue

pytestmark = pytest.mark.django_db(transaction=True)
BOT = "6a2f41a3-c54c-4be8-a2f4-1a3c54c4be80"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    tasks: list[str] = []
    monkeypatch.setattr(current_app, "send_task", lambda task, args: tasks.append(task))
    return tasks


def ask() -> None:
    queue("orchestrator.tell_owner", BOT)


def test_a_job_that_waits_or_is_worked_on_is_not_asked_for_again(
    sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.tell.owner", lambda bot: ask())
    ask()
    ask()
    jobs.tell_owner(BOT)
    assert len(sent) == 1
    ask()
    assert len(sent) == 2


def test_a_job_that_broke_may_be_asked_for_again(sent: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(bot: object) -> NoReturn:
        raise RuntimeError("broken")

    monkeypatch.setattr("orchestrator.tell.owner", break_down)
    ask()
    with pytest.raises(RuntimeError):
        jobs.tell_owner(BOT)
    ask()
    assert len(sent) == 2
