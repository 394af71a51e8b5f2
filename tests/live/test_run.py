"""A pub in a real swarm, through the loop and the engine adapter."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import docker
import pytest
from django.conf import settings
from django.test import override_settings
from pytest_django import DjangoDbBlocker

from accounts.models import User
from orchestrator import jobs, swarm
from orchestrator.handshake import Refused, shake_hands
from orchestrator.models import Hub, Placement, Turn
from orchestrator.reconcile import run_here, run_pass, service_of
from orchestrator.swarm import NotRunning, SwarmError, service_name
from orchestrator.swarm.engine import EngineSwarm
from pubs import catalogue
from pubs.models import Bot, Checkup, Command, Status
from pubs.working import newest_version
from tests.support.make import Maker
from tests.support.peer import Peer
from tests.support.wait import until

pytestmark = pytest.mark.django_db


def fresh(bot: Bot) -> Bot:
    return Bot.objects.get(pk=bot.pk)


def pass_until(bot: Bot, status: str) -> Bot:
    def look() -> bool:
        run_pass(ask=run_here)
        return fresh(bot).status == status

    until(f"{bot} is {status}", look)
    return fresh(bot)


@pytest.fixture
def running(make: Maker, real_swarm: EngineSwarm, engine: docker.DockerClient) -> Iterator[Bot]:
    """A bot that is up, gone again after the test."""
    bot = make.bot(name="Shell & 'Sea' 🐚", paid=True)
    yield pass_until(bot, Status.UP)
    real_swarm.remove_service(bot.pk)
    until("its container is gone", lambda: not containers(engine, bot))


@pytest.fixture(scope="module")
def shared_pub(django_db_setup: None, django_db_blocker: DjangoDbBlocker, engine: docker.DockerClient) -> Iterator[Bot]:
    """A bot that is up as long as the tests of this module run: for those that leave it as it is."""
    engine_swarm = override_settings(SWARM="orchestrator.swarm.engine.EngineSwarm")
    with django_db_blocker.unblock(), engine_swarm:
        swarm._connect.cache_clear()
        bot = pass_until(Maker().bot(name="Harbour Garden", paid=True), Status.UP)
    yield bot
    with django_db_blocker.unblock(), engine_swarm:
        swarm._connect.cache_clear()
        EngineSwarm().remove_service(bot.pk)
        until("its container is gone", lambda: not containers(engine, bot))
        for model in (Placement, Bot, Hub, Turn, User):
            model.objects.all().delete()


@pytest.fixture
def shared(shared_pub: Bot, db: None, real_swarm: EngineSwarm) -> Bot:
    return fresh(shared_pub)


def containers(engine: docker.DockerClient, bot: Bot) -> list[docker.models.containers.Container]:
    return engine.containers.list(filters={"label": f"buttcloud.bot={bot.pk}"}, ignore_removed=True)


def ask(bot: Bot, name: str, /, **args: object) -> Command:
    command = catalogue.ask(bot, bot.owner, name, args)
    jobs.run_command(str(command.pk))
    command.refresh_from_db()
    return command


def test_a_paid_bot_runs_with_the_identity_that_was_stored_before(shared: Bot) -> None:
    answer = ask(shared, "whoami")
    assert (answer.state, answer.result) == (Command.State.DONE, {"id": shared.ssb_id})


def test_the_container_is_hardened_and_limited(shared: Bot, engine: docker.DockerClient) -> None:
    [container] = containers(engine, shared)
    host, config = container.attrs["HostConfig"], container.attrs["Config"]
    assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and config["User"] == "1000:1000"
    assert (host["Memory"], host["PidsLimit"]) == (2**30, 200)
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "5m", "max-file": "2"}}
    assert config["Image"].startswith("sha256:")
    status = container.exec_run(["grep", "-E", "^(CapEff|Uid)", "/proc/1/status"]).output.decode()
    assert "CapEff:\t0000000000000000" in status and "Uid:\t1000" in status


def test_the_service_is_one_pinned_copy_that_stops_before_it_starts(shared: Bot, engine: docker.DockerClient) -> None:
    spec = engine.services.get(service_name(shared.pk)).attrs["Spec"]
    node = shared.placement.hub.node_id
    assert spec["Mode"] == {"Replicated": {"Replicas": 1}}
    assert spec["TaskTemplate"]["Placement"]["Constraints"] == [f"node.id=={node}"]
    assert spec["UpdateConfig"]["Order"] == "stop-first"
    assert spec["TaskTemplate"]["Resources"]["Reservations"]["MemoryBytes"] == 2**30
    assert spec["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"] <= 45 * 10**9
    assert [port["PublishMode"] for port in spec["EndpointSpec"]["Ports"]] == ["host"]
    assert f"PUB_ID={shared.ssb_id}" in spec["TaskTemplate"]["ContainerSpec"]["Env"]


def test_making_the_identity_again_gives_the_same_one(shared: Bot, real_swarm: EngineSwarm) -> None:
    placement = Placement.objects.select_related("hub").get(bot=shared)
    image = service_of(shared, placement).image
    assert real_swarm.make_identity(shared.pk, placement.hub.node_id, image) == shared.ssb_id


def test_an_invite_is_accepted_by_a_second_real_peer_and_the_pub_follows_it(running: Bot) -> None:
    invite = ask(running, "create_invite", uses=1, note="for a friend").result["invite"]
    peer = Peer.accept(invite)
    assert peer.followed
    assert peer.id in [member["id"] for member in ask(running, "members").result]
    jobs.check_pub(str(running.pk))
    found = Checkup.objects.get(bot=running)
    assert (found.members, found.followers) == (1, 1)
    assert found.synced_at is not None and found.messages is not None and found.messages > (found.sequence or 0)


def test_a_handshake_from_outside_meets_the_pub_and_leaves_no_trace(
    running: Bot, engine: docker.DockerClient, settings: Any
) -> None:
    def why_not(ssb_id: str) -> str:
        with pytest.raises(Refused) as refused:
            asyncio.run(shake_hands(running.address, ssb_id))
        return str(refused.value)

    [container] = containers(engine, running)
    jobs.check_pub(str(running.pk))
    for _ in range(5):
        asyncio.run(shake_hands(running.address, running.ssb_id))
    jobs.check_pub(str(running.pk))
    found = Checkup.objects.get(bot=running)
    assert found.unreached == found.unanswered == ""
    assert (found.peers, found.members, found.followers) == (0, 0, 0)
    assert (found.version, found.sequence) == (newest_version(), 1)
    assert found.disk and found.synced_at is None
    log = [json.loads(line)["event"] for line in container.logs().decode().splitlines()]
    assert set(log) <= {"listening", "profile-set"}
    assert "somebody else answers" in why_not("@1KHLiKZvAvjbY1ziZEHMXawbCEIM6qwjCDm3VYRan/s=.ed25519")
    settings.PUB_SHS = ""
    assert "another network" in why_not(running.ssb_id)


def test_a_used_up_invite_is_refused(shared: Bot) -> None:
    invite = ask(shared, "create_invite", uses=1).result["invite"]
    assert Peer.accept(invite).followed
    assert not Peer.accept(invite, seconds=15).followed


def test_a_profile_is_published_in_any_script(shared: Bot) -> None:
    assert ask(shared, "set_profile", name='بحر "sea" 🐚', description="<b>no</b>\nline").state == Command.State.DONE


def test_stop_keeps_the_volume_and_start_gives_the_same_pub_back(running: Bot, engine: docker.DockerClient) -> None:
    running.stop()
    pass_until(running, Status.NONE)
    until("the container is gone", lambda: not containers(engine, running))
    assert engine.volumes.get(service_name(running.pk))
    running.start()
    again = pass_until(running, Status.UP)
    assert (again.ssb_id, again.address) == (running.ssb_id, running.address)
    assert ask(again, "whoami").result == {"id": running.ssb_id}


def test_restart_replaces_the_container_and_keeps_the_identity(running: Bot, engine: docker.DockerClient) -> None:
    [before] = containers(engine, running)
    running.restart()

    def replaced() -> bool:
        run_pass(ask=run_here)
        now = containers(engine, running)
        return len(now) == 1 and now[0].id != before.id and fresh(running).status == Status.UP

    until("a new container answers", replaced)
    assert ask(running, "whoami").result == {"id": running.ssb_id}


def test_a_killed_pub_comes_back_by_itself(running: Bot, engine: docker.DockerClient) -> None:
    [container] = containers(engine, running)
    container.kill()
    pass_until(running, Status.DOWN)
    assert "starts again" in fresh(running).reason or fresh(running).reason == ""
    pass_until(running, Status.UP)


def test_a_second_run_on_the_same_volume_is_refused(shared: Bot, engine: docker.DockerClient) -> None:
    """Whatever we get wrong, the lock on the volume keeps one identity from running twice."""
    second = engine.containers.create(
        shared.placement and service_image(engine, shared),
        labels={"buttcloud.deployment": "none"},
        environment={"PUB_ID": shared.ssb_id},
        volumes={service_name(shared.pk): {"bind": "/data"}},
        network_mode="none",
    )
    try:
        second.start()
        assert second.wait()["StatusCode"] == 75
    finally:
        second.remove(force=True)


def service_image(engine: docker.DockerClient, bot: Bot) -> str:
    spec = engine.services.get(service_name(bot.pk)).attrs["Spec"]
    return spec["TaskTemplate"]["ContainerSpec"]["Image"]


def test_an_empty_volume_never_becomes_a_new_identity(
    make: Maker, real_swarm: EngineSwarm, engine: docker.DockerClient
) -> None:
    """As after a volume was lost: the bot has an id, the volume has none."""
    bot = make.bot(paid=True, ssb_id="@" + "A" * 43 + "=.ed25519")

    def refused() -> bool:
        run_pass(ask=run_here)
        return "does not hold its identity" in fresh(bot).reason

    try:
        until("the reason says so", refused)
        assert fresh(bot).status == Status.DOWN
    finally:
        real_swarm.remove_service(bot.pk)


def test_a_job_that_runs_twice_makes_one_service(shared: Bot, engine: docker.DockerClient) -> None:
    version = engine.services.get(service_name(shared.pk)).attrs["Version"]
    jobs.ensure_pub_up(str(shared.pk))
    jobs.ensure_pub_up(str(shared.pk))
    assert engine.services.get(service_name(shared.pk)).attrs["Version"] == version


async def test_the_stats_are_those_of_docker(
    home: tuple[UUID, str], real_swarm: EngineSwarm, engine: docker.DockerClient
) -> None:
    bot_id, node_id = home
    samples = real_swarm.stats(bot_id, node_id)
    ours = [await anext(samples) for _ in range(3)]
    await samples.aclose()  # type: ignore[attr-defined]
    tasks = engine.services.get(service_name(bot_id)).tasks()
    [task] = [task for task in tasks if task["Status"]["State"] == "running"]
    theirs = engine.containers.get(task["Status"]["ContainerStatus"]["ContainerID"]).stats(stream=False)
    newest = ours[-1]
    assert newest["memory_limit"] == theirs["memory_stats"]["limit"] == 2**30
    assert 0.5 < newest["memory"] / theirs["memory_stats"]["usage"] <= 1.5
    assert newest["pids"] > 0 and newest["cpu"] >= 0
    assert ours[0]["seq"] < ours[1]["seq"] < newest["seq"]


@pytest.fixture
def home(shared: Bot) -> tuple[UUID, str]:
    return shared.pk, shared.placement.hub.node_id


def test_a_program_that_does_not_end_is_ended(shared: Bot, real_swarm: EngineSwarm) -> None:
    assert real_swarm.run(service_name(shared.pk), ["sleep", "60"], timeout=1).exit_code == 124


def test_an_argument_is_never_seen_by_a_shell(shared: Bot, real_swarm: EngineSwarm) -> None:
    wild = '"; touch /tmp/pwned; $(id) `id` \n --flag'
    said = real_swarm.run(service_name(shared.pk), ["printf", "%s", wild], timeout=5)
    assert said.stdout == wild


def test_a_pub_that_does_not_run_can_be_asked_nothing(real_swarm: EngineSwarm, make: Maker) -> None:
    with pytest.raises(NotRunning):
        real_swarm.run(service_name(make.bot().pk), ["true"], timeout=5)


def test_a_missing_image_is_said_in_words(make: Maker, real_swarm: EngineSwarm) -> None:
    node = real_swarm.look().nodes[0].id
    with pytest.raises(SwarmError, match="No such image"):
        real_swarm.make_identity(make.bot().pk, node, "sha256:" + "0" * 64)


def test_the_plan_of_a_swarm_that_is_right_is_empty(shared: Bot, capsys: pytest.CaptureFixture[str]) -> None:
    from django.core.management import call_command

    call_command("plan")
    assert "Nothing to do" in capsys.readouterr().out


def test_the_status_tells_how_the_pub_is(shared: Bot) -> None:
    status = ask(shared, "status").result
    assert status["sequence"] >= 0 and status["id"] == shared.ssb_id


def test_fifty_megabytes_of_output_are_cut_and_end(shared: Bot, real_swarm: EngineSwarm) -> None:
    said = real_swarm.run(service_name(shared.pk), ["head", "-c", "50000000", "/dev/zero"], timeout=20)
    assert said.exit_code == 0 and len(said.stdout) == 2**20


def test_a_stranger_with_our_label_stops_no_look(real_swarm: EngineSwarm, engine: docker.DockerClient) -> None:
    stranger = engine.services.create(
        settings.PUB_IMAGE,
        name=f"{settings.DEPLOYMENT}-stranger",
        labels={"buttcloud.deployment": settings.DEPLOYMENT},
        mode=docker.types.ServiceMode("replicated", 0),
    )
    try:
        assert stranger.name not in [service_name(service.bot_id) for service in real_swarm.look().services]
    finally:
        stranger.remove()
