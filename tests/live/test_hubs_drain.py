"""Staff drain a hub: its real pubs move with all that they are, and then its machine goes."""

from typing import Any

import pytest
from django.core.management import call_command

from orchestrator.models import Hub
from orchestrator.swarm import service_name
from pubs.models import Bot
from tests.support.lab.lab import Lab
from tests.support.lab.loop import all_up, asked, feed_length, home, machine_of, nothing_to_do, passes_until
from tests.support.make import Maker

pytestmark = pytest.mark.django_db(transaction=True)


def test_three_pubs_of_a_drained_hub_keep_volume_identity_feed_port_and_address(
    lab: Lab, make: Maker, real_pub: str, settings: Any
) -> None:
    settings.PUB_IMAGE, settings.MAX_HUBS, settings.SPARE_PLACES = real_pub, 2, 15
    bots = [make.bot(paid=True, name=f"Shell & 'Sea' {number}") for number in range(3)]
    passes_until("they are up, and a hub is empty", lambda: all_up(bots) and nothing_to_do(), seconds=300)
    old = home(bots[0]).hub
    assert {home(bot).hub for bot in bots} == {old}
    # Its name was published at its first start: a feed that a fork would show in.
    lengths = {bot.pk: feed_length(bot) for bot in bots}
    before = {bot.pk: (bot.ssb_id, bot.address, home(bot).port) for bot in Bot.objects.all()}

    call_command("hub", "drain", old.name)
    with lab.watched() as most:
        passes_until("its machine is gone", lambda: Hub.objects.get(pk=old.pk).state == Hub.State.GONE, seconds=300)
        passes_until("all are up", lambda: all_up(bots) and nothing_to_do())
    assert lab.machine(old.token) is None
    assert most == {str(bot.pk): 1 for bot in bots}
    assert {bot.pk: (bot.ssb_id, bot.address, home(bot).port) for bot in Bot.objects.all()} == before
    for bot in Bot.objects.all():
        assert home(bot).hub != old and machine_of(lab, home(bot).hub).engine.volumes.get(service_name(bot.pk))
        assert asked(bot, "whoami")["id"] == bot.ssb_id
        head = asked(bot, "feed.head")
        assert head["sequence"] == lengths[bot.pk] == home(bot).min_seq and not head["guarded"]
