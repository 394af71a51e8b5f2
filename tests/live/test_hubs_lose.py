"""Hubs that are lost from sight, and some of them for good: never two copies of a bot, and never another identity."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import call_command

from orchestrator.models import Hub
from pubs.models import Bot, Status
from tests.support.lab.lab import Lab
from tests.support.lab.loop import (
    all_up,
    asked,
    feed_length,
    home,
    machine_of,
    nothing_to_do,
    one_pass,
    passes_until,
    time_passes,
)
from tests.support.lab.machine import Machine
from tests.support.make import Maker

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def two(request: pytest.FixtureRequest, lab: Lab, make: Maker, settings: Any) -> list[Bot]:
    """Two bots that are up on one hub, and beside it a hub with room for them. Small pubs, or as the parameter says."""
    if hasattr(request, "param"):
        settings.PUB_IMAGE = request.getfixturevalue(request.param)
    settings.MAX_HUBS, settings.SPARE_PLACES = 2, 15
    bots = [make.bot(paid=True) for _ in range(2)]
    passes_until("they are up, and a hub is empty", lambda: all_up(bots) and len(ready()) == 2)
    assert home(bots[0]).hub == home(bots[1]).hub
    for bot in bots:
        bot.refresh_from_db()
    return bots


def ready() -> list[Hub]:
    return list(Hub.objects.filter(state=Hub.State.READY))


def fresh(bots: list[Bot]) -> list[Bot]:
    return list(Bot.objects.filter(pk__in=[bot.pk for bot in bots]))


def power_on(machine: Machine) -> None:
    machine.boot()
    machine.start_engine()


@pytest.mark.parametrize(
    ("two", "mishap", "repair"),
    [
        pytest.param("small_pub", Machine.kill_engine, Machine.start_engine, id="its engine is killed"),
        pytest.param("small_pub", Machine.cut, Machine.heal, id="its cable is cut"),
        pytest.param("real_pub", Machine.power_off, power_on, id="it loses power"),
    ],
    indirect=["two"],
)
def test_a_hub_that_comes_back_has_its_pubs_as_they_were_and_never_twice(
    lab: Lab, two: list[Bot], mishap: Callable[[Machine], None], repair: Callable[[Machine], None]
) -> None:
    hub = home(two[0]).hub
    machine = machine_of(lab, hub)
    lengths = [feed_length(bot) for bot in two]
    with lab.watched() as most:
        mishap(machine)
        passes_until("its pubs are unknown", lambda: all(bot.unknown_since for bot in fresh(two)))
        assert {bot.status for bot in fresh(two)} == {Status.UP}  # unknown is not down
        time_passes(60)
        for _ in range(3):
            one_pass()
        assert {home(bot).hub for bot in two} == {hub} and len(ready()) == 2
        repair(machine)
        passes_until("its pubs are known again", lambda: not any(bot.unknown_since for bot in fresh(two)))
        once = {str(bot.pk): 1 for bot in two}
        # A node that is back starts them anew, and for a moment the swarm still counts what it stopped.
        passes_until("each is up once", lambda: all_up(two) and nothing_to_do() and lab.copies() == once)
    assert most == once
    assert [asked(bot, "whoami")["id"] for bot in two] == [bot.ssb_id for bot in two]
    assert all(feed_length(bot) >= length for bot, length in zip(two, lengths, strict=True))
    assert {home(bot).hub for bot in two} == {hub}


def test_a_hub_whose_machine_the_cloud_does_not_have_is_fenced_and_its_pubs_wait_for_a_restore(
    lab: Lab, two: list[Bot]
) -> None:
    hub = home(two[0]).hub
    machine_of(lab, hub).destroy()
    passes_until("its pubs are unknown", lambda: all(bot.unknown_since for bot in fresh(two)))
    one_pass()
    assert not Hub.objects.exclude(fenced_at=None)  # it may be the cloud's slip
    time_passes(3)
    passes_until("it is fenced", lambda: Hub.objects.get(pk=hub.pk).state == Hub.State.GONE)
    passes_until("its pubs wait", lambda: all(bot.status == Status.NONE and bot.lost_at for bot in fresh(two)))
    passes_until("nothing is left to do", nothing_to_do)
    assert all(home(bot).lost_at and home(bot).hub == hub for bot in two)
    assert lab.copies() == {}


def test_a_hub_that_staff_say_is_off_is_fenced_and_its_machine_destroyed(lab: Lab, two: list[Bot]) -> None:
    hub = home(two[0]).hub
    machine = machine_of(lab, hub)
    machine.cut()
    passes_until("its pubs are unknown", lambda: all(bot.unknown_since for bot in fresh(two)))
    call_command("hub", "fence", hub.name, yes_the_machine_is_off=hub.name)
    passes_until("it is gone", lambda: Hub.objects.get(pk=hub.pk).state == Hub.State.GONE)
    assert not machine.disk.exists()
    assert all(bot.lost_at for bot in fresh(two)) and lab.copies() == {}
