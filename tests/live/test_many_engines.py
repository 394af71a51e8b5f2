"""What only the engine of a node can do, on real engines of other machines, reached by certificate."""

import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any
from uuid import UUID, uuid4

import docker
import pytest
from django.conf import settings

from orchestrator import machines, swarm
from orchestrator.swarm import NotRunning, PubService, SwarmError, Unreachable, service_name, volume
from orchestrator.swarm.engine import EngineSwarm
from tests.support.lab.lab import Lab
from tests.support.lab.machine import Machine
from tests.support.wait import until


@pytest.fixture
def real(lab: Lab) -> EngineSwarm:
    connected = swarm.connect()
    assert isinstance(connected, EngineSwarm)
    return connected


@pytest.fixture
def hub(lab: Lab, real: EngineSwarm) -> Callable[[], tuple[str, Machine]]:
    """One more machine in the swarm, with the pub image: its node's id, and itself."""

    def make() -> tuple[str, Machine]:
        token = uuid4()
        machines.connect().create(token, f"hub-{token.hex[:4]}", lambda: "")
        node = until(
            "it is in the swarm",
            lambda: next((n.id for n in real.look().nodes if n.claims == token), ""),
            seconds=180,  # a whole machine, and a busy computer
        )
        until("its engine answers", lambda: real.engines([node]) == {node: ""})
        real.have_image(node, settings.PUB_IMAGE)
        machine = lab.machine(token)
        assert machine
        return node, machine

    return make


Hub = Callable[[], tuple[str, Machine]]


def start(real: EngineSwarm, bot: UUID, node: str) -> PubService:
    ssb_id = real.make_identity(bot, node, settings.PUB_IMAGE)
    pub = PubService(bot, ssb_id, node, 29000, "127.0.0.1", settings.PUB_IMAGE, 2**28, 0)
    assert real.put_service(pub)
    until(
        "the pub runs", lambda: [service.healthy for service in real.look().services] == [True], seconds=180, every=0.5
    )
    return pub


def inside(machine: Machine, bot: UUID, script: str) -> str:
    """What a shell says that sees the bot's volume at /data."""
    return machine.engine.containers.run(
        settings.PUB_IMAGE,
        ["-c", script],
        entrypoint="sh",
        user="0:0",
        remove=True,
        volumes={service_name(bot): {"bind": "/data", "mode": "rw"}},
    ).decode()


def fill(real: EngineSwarm, machine: Machine, bot: UUID, node: str) -> str:
    """A volume with an identity and all that a file system knows; its listing."""
    real.make_identity(bot, node, settings.PUB_IMAGE)
    inside(
        machine,
        bot,
        "cd /data; mkdir -p empty deep/er; head -c 5000000 /dev/urandom >deep/er/blob; echo \"it's ü\" >'an odd näme';"
        "ln -s deep/er/blob link; ln deep/er/blob twin; touch -t 200001010000 old; chmod 600 old; chmod 2750 empty;"
        "chown 1000:1000 deep old; chown 7:8 deep/er/blob; chmod 700 /data; chown 1000:1000 /data",
    )
    return listing(machine, bot)


def listing(machine: Machine, bot: UUID) -> str:
    """Rights, owners, sizes, times and content."""
    return inside(
        machine,
        bot,
        "cd /data; busybox stat -c '%a %u %g' .; busybox ls -lAnR .;"
        "busybox find . -type f -print0 | sort -z | xargs -0 busybox md5sum",
    )


def volumes(machine: Machine) -> list[str]:
    return [each.name for each in machine.engine.volumes.list()]


def test_an_engine_that_is_cut_off_is_named_and_delays_no_other(real: EngineSwarm, hub: Hub) -> None:
    [here] = [node.id for node in real.look().nodes if node.is_manager_here]
    (near, _), (far, machine) = hub(), hub()
    until("all answer", lambda: set(real.engines([here, near, far]).values()) == {""})
    machine.cut()

    def only_it_is_missed() -> bool:
        answers = real.engines([here, near, far])
        assert answers[far], "it is cut off"
        return (answers[here], answers[near]) == ("", "") and machine.address in answers[far]

    until("only it is missed", only_it_is_missed)
    with pytest.raises(Unreachable, match=machine.address):
        real.is_stopped(uuid4(), far)
    machine.heal()
    until("it is back", lambda: real.engines([far]) == {far: ""})


def test_an_engine_that_is_killed_is_named(real: EngineSwarm, hub: Hub) -> None:
    node, machine = hub()
    machine.kill_engine()
    assert machine.address in real.engines([node])[node]
    machine.start_engine()
    until("it answers", lambda: real.engines([node]) == {node: ""})


def test_another_authority_is_trusted_by_neither_side(lab: Lab, real: EngineSwarm, hub: Hub, settings: Any) -> None:
    node, _ = hub()
    stranger = Lab(lab.folder / "stranger")
    stranger.folder.mkdir()
    stranger._make_authority()
    settings.ENGINE_TLS = stranger.tls
    until("it is not trusted", lambda: "certificate" in real.engines([node])[node].lower())
    # The right authority, and a certificate of the wrong one.
    (stranger.tls / "ca.pem").write_bytes((lab.tls / "ca.pem").read_bytes())
    assert real.engines([node])[node] != ""
    (stranger.tls / "key.pem").unlink()
    assert "no key.pem" in real.engines([node])[node]


def test_an_image_comes_with_the_same_id_and_a_missing_one_is_said(real: EngineSwarm, hub: Hub) -> None:
    node, machine = hub()
    assert machine.engine.images.get(settings.PUB_IMAGE).id == settings.PUB_IMAGE
    real.have_image(node, settings.PUB_IMAGE)
    with pytest.raises(SwarmError, match="No such image"):
        real.have_image(node, "sha256:" + "0" * 64)


async def test_a_pub_on_another_machine_is_asked_and_measured_there(real: EngineSwarm, hub: Hub) -> None:
    node, machine = hub()
    pub = start(real, uuid4(), node)
    said = real.run(service_name(pub.bot_id), ["pubctl", "whoami"], timeout=10)
    assert said.exit_code == 0 and pub.ssb_id in said.stdout
    async with aclosing(real.stats(pub.bot_id, node)) as samples:  # type: ignore[type-var]
        first = await anext(samples)
        second = await anext(samples)
    assert first["seq"] < second["seq"] and second["memory_limit"] == 2**28
    machine.cut()
    with pytest.raises((Unreachable, NotRunning)):
        real.run(service_name(pub.bot_id), ["pubctl", "whoami"], timeout=1)
    # After a while the swarm itself calls it stopped.
    with pytest.raises((Unreachable, NotRunning)):
        await anext(real.stats(pub.bot_id, node))
    machine.heal()


def test_a_pub_is_stopped_when_its_own_engine_says_so(real: EngineSwarm, hub: Hub) -> None:
    node, _ = hub()
    bot = uuid4()
    assert real.is_stopped(bot, node)
    start(real, bot, node)
    assert not real.is_stopped(bot, node)
    real.remove_service(bot)
    until("its engine has stopped it", lambda: real.is_stopped(bot, node))


def test_a_volume_moves_whole_and_with_it_the_identity(real: EngineSwarm, hub: Hub) -> None:
    (source, first), (target, second) = hub(), hub()
    bot = uuid4()
    ssb_id = real.make_identity(bot, source, settings.PUB_IMAGE)
    before = fill(real, first, bot, source)
    # What an earlier life left on the target, another identity even, and what a killed worker did.
    assert real.make_identity(bot, target, settings.PUB_IMAGE) != ssb_id
    second.engine.containers.create(
        settings.PUB_IMAGE, name=f"{service_name(bot)}-copy", volumes={service_name(bot): {"bind": "/data"}}
    )
    for _ in range(2):
        real.copy_volume(bot, source, target, settings.PUB_IMAGE)
        assert listing(second, bot) == before == listing(first, bot)
    assert real.make_identity(bot, target, settings.PUB_IMAGE) == ssb_id
    assert second.engine.volumes.get(service_name(bot)).attrs["Labels"]["buttcloud.bot"] == str(bot)
    for machine in (first, second):
        assert machine.engine.containers.list(all=True) == []


def test_a_copy_that_differs_is_thrown_away(real: EngineSwarm, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    (source, first), (target, second) = hub(), hub()
    bot = uuid4()
    before = fill(real, first, bot, source)
    checked = volume.checked
    monkeypatch.setattr(volume, "checked", lambda *args: (piece.replace(b"it's", b"its!") for piece in checked(*args)))
    with pytest.raises(SwarmError, match="differs"):
        real.copy_volume(bot, source, target, settings.PUB_IMAGE)
    assert service_name(bot) not in volumes(second) and listing(first, bot) == before


def test_a_volume_that_is_not_there_is_not_made_by_copying_it(real: EngineSwarm, hub: Hub) -> None:
    (source, first), (target, second) = hub(), hub()
    with pytest.raises(SwarmError, match="no such volume"):
        real.copy_volume(uuid4(), source, target, settings.PUB_IMAGE)
    assert volumes(first) == volumes(second) == []
    with pytest.raises(SwarmError, match="itself"):
        real.copy_volume(uuid4(), source, source, settings.PUB_IMAGE)


def test_a_volume_in_use_is_not_replaced(real: EngineSwarm, hub: Hub) -> None:
    (source, first), (target, second) = hub(), hub()
    bot = uuid4()
    fill(real, first, bot, source)
    start(real, bot, target)
    feed = inside(second, bot, "cat /data/feed")
    with pytest.raises(SwarmError, match="in use"):
        real.copy_volume(bot, source, target, settings.PUB_IMAGE)
    assert feed in inside(second, bot, "cat /data/feed")


def test_a_target_that_is_lost_midway_is_said_and_the_source_is_whole(
    real: EngineSwarm, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source, first), (target, second) = hub(), hub()
    bot = uuid4()
    before = fill(real, first, bot, source)
    checked = volume.checked

    def lost_midway(stream: Any, checksum: volume.Checksum) -> Iterator[bytes]:
        for number, piece in enumerate(checked(stream, checksum)):
            if number == 3:
                second.kill_engine()
            yield piece

    monkeypatch.setattr(volume, "checked", lost_midway)
    with pytest.raises(Unreachable):
        real.copy_volume(bot, source, target, settings.PUB_IMAGE)
    monkeypatch.undo()
    second.start_engine()
    real.copy_volume(bot, source, target, settings.PUB_IMAGE)
    assert listing(second, bot) == before == listing(first, bot)


def test_many_who_change_a_node_at_once_lose_nothing(lab: Lab, real: EngineSwarm, hub: Hub) -> None:
    node, _ = hub()
    marks = {f"mark-{number}": "x" for number in range(6)}

    def mark(name: str) -> None:
        real._change(f"/nodes/{node}", lambda spec: spec["Labels"].update({name: "x"}) is None)

    threads = [threading.Thread(target=mark, args=[name]) for name in marks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    token = uuid4()
    real.mark_node(node, token)
    assert marks.items() <= lab.manager.engine.nodes.get(node).attrs["Spec"]["Labels"].items()
    assert [seen.hub for seen in real.look().nodes if seen.id == node] == [token]


def test_a_node_is_forgotten_once_and_for_all(real: EngineSwarm, hub: Hub) -> None:
    node, _ = hub()
    real.remove_node(node)
    real.remove_node(node)
    assert node not in [seen.id for seen in real.look().nodes]
    with pytest.raises(Unreachable, match="no node"):
        real.is_stopped(uuid4(), node)


def test_a_join_token_is_good_until_it_is_rotated(lab: Lab, real: EngineSwarm, hub: Hub) -> None:
    hub()
    before = real.join_ticket()
    assert before.managers == [f"{lab.manager.address}:2377"]
    real.rotate_join_token()
    assert real.join_ticket().token != before.token
    assert all(node.ready for node in real.look().nodes), "those who are in stay in"


def test_a_swarm_is_tuned_once(lab: Lab, real: EngineSwarm, settings: Any) -> None:
    settings.NODE_HEARTBEAT_SECONDS = 3
    real.tune()
    tuned = swarm_of(lab.manager.engine)
    assert tuned["Spec"]["Dispatcher"]["HeartbeatPeriod"] == 3 * 10**9
    assert tuned["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"] == 2
    real.tune()
    assert swarm_of(lab.manager.engine)["Version"] == tuned["Version"]


def swarm_of(engine: docker.DockerClient) -> dict[str, dict[str, object]]:
    return dict(engine.api.inspect_swarm())
