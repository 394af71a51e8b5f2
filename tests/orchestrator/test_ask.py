"""Asking for jobs: a pass comes several times a second, and a job that starts a pub may wait and work for many."""

from typing import NoReturn

import pytest
from celery import current_app

from orchestrator import jobs
from orchestrator.reconcile import queue

pytestmark = pytest.mark.django_db(transaction=True)
TROUBLE = 7


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    tasks: list[str] = []
    monkeypatch.setattr(current_app, "send_task", lambda task, args: tasks.append(task))
    return tasks


def ask() -> None:
    queue("orchestrator.tell_trouble", TROUBLE)


def test_a_job_that_waits_or_is_worked_on_is_not_asked_for_again(
    sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.tell.trouble", lambda trouble: ask())
    ask()
    ask()
    jobs.tell_trouble(TROUBLE)
    assert len(sent) == 1
    ask()
    assert len(sent) == 2


def test_a_job_that_broke_may_be_asked_for_again(sent: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(trouble: object) -> NoReturn:
        raise RuntimeError("broken")

    monkeypatch.setattr("orchestrator.tell.trouble", break_down)
    ask()
    with pytest.raises(RuntimeError):
        jobs.tell_trouble(TROUBLE)
    ask()
    assert len(sent) == 2
