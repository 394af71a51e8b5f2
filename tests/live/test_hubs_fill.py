"""Bots come and go, and with them the machines that they need: the whole loop, on machines that really run."""

import io
from typing import Any

import pytest
from django.core.management import call_command

from orchestrator.models import Hub
from tests.support.lab.lab import Lab
from tests.support.lab.loop import (
    all_up,
    end_keep_time,
    fill,
    home,
    identity,
    nothing_to_do,
    one_pass,
    passes_until,
    time_passes,
)
from tests.support.make import Maker

pytestmark = pytest.mark.django_db(transaction=True)


def test_31_bots_get_3_hubs_and_when_16_have_left_2_hubs_go_and_nothing_restarts(
    lab: Lab, make: Maker, settings: Any
) -> None:
    settings.MAX_HUBS = 3
    bots = [make.bot(paid=True) for _ in range(31)]
    passes_until("all are up", lambda: all_up(bots))
    passes_until("nothing is left to do", nothing_to_do)
    assert sorted(fill().values()) == [1, 15, 15] and len(lab.machines) == 1 + 3
    before = lab.containers()
    assert {bot: len(ids) for bot, ids in before.items()} == {str(bot.pk): 1 for bot in bots}

    stays = next(name for name, count in fill().items() if count == 15)
    leaving = [bot for bot in bots if home(bot).hub.name != stays]
    after = {bot: ids for bot, ids in before.items() if bot not in {str(bot.pk) for bot in leaving}}
    for bot in leaving:
        bot.delete_softly()
    passes_until("their services are gone", lambda: lab.containers() == after)
    time_passes(31)
    one_pass()
    assert len(lab.machines) == 1 + 3  # for their volumes

    end_keep_time(lab, leaving)
    passes_until("their hubs are seen to be empty", lambda: Hub.objects.exclude(emptied_at=None).count() == 2)
    assert len(lab.machines) == 1 + 3  # for who may come next
    time_passes(31)
    passes_until("two hubs are gone", lambda: fill() == {stays: 15})
    assert len(lab.machines) == 1 + 1
    assert lab.containers() == after


def test_consolidate_says_which_drain_saves_which_machine_and_starts_nothing(
    lab: Lab, make: Maker, settings: Any
) -> None:
    settings.MAX_HUBS, settings.HUB_PLACES = 2, 2
    bots = [make.bot(paid=True) for _ in range(3)]
    passes_until("all are up", lambda: all_up(bots))
    [leaves, _] = [bot for bot in bots if fill()[home(bot).hub.name] == 2]
    leaves.delete_softly()
    passes_until("its service is gone", lambda: len(lab.containers()) == 2)
    end_keep_time(lab, [leaves])
    before = lab.containers(), fill()
    said = io.StringIO()
    call_command("plan", consolidate=True, stdout=said)
    passes_until("nothing is left to do", nothing_to_do)
    assert "manage.py hub drain hub-" in said.getvalue()
    assert (lab.containers(), fill()) == before


def test_140_pubs_at_once_all_answer_on_their_ports(
    lab: Lab, make: Maker, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The swarm's own routing mesh ends at 128 ports."""
    settings.MAX_HUBS, settings.HUB_PLACES = 3, 47
    monkeypatch.setenv("LAB_MACHINE_GB", "64")
    bots = [make.bot(paid=True) for _ in range(140)]
    passes_until("all are up", lambda: all_up(bots), seconds=480)
    for bot in bots:
        bot.refresh_from_db()
    assert {bot.pk: identity(lab, bot) for bot in bots} == {bot.pk: bot.ssb_id for bot in bots}
    assert len({bot.ssb_id for bot in bots}) == 140 and sorted(fill().values()) == [46, 47, 47]
