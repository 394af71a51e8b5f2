"""The swarm's twin is no kinder than the swarm."""

from uuid import UUID, uuid4

import pytest

from orchestrator.swarm import JoinTicket, NotRunning, PubService, SwarmError, Unreachable, service_name
from orchestrator.swarm.memory import MemorySwarm, SlowToStop, SpoilsCopies, Volume

IMAGE = "sha256:pub"


def pub_of(swarm: MemorySwarm, bot: UUID, node: str, port: int = 29000) -> PubService:
    swarm.have_image(node, IMAGE)
    ssb_id = swarm.make_identity(bot, node, IMAGE)
    return PubService(bot, ssb_id, node, port, "127.0.0.1", IMAGE, 2**30, 0)


def is_healthy(swarm: MemorySwarm, bot: UUID) -> bool:
    return next(service.healthy for service in swarm.look().services if service.bot_id == bot)


def move(swarm: MemorySwarm, pub: PubService, target: str) -> PubService:
    moved = PubService(pub.bot_id, pub.ssb_id, target, pub.port, pub.host, IMAGE, pub.memory, 0, min_seq=3)
    swarm.have_image(target, IMAGE)
    swarm.put_service(moved)
    return moved


def test_a_node_that_joined_is_seen_with_what_it_claims() -> None:
    swarm, token = MemorySwarm(), uuid4()
    node = swarm.add_node(claims=token, address="10.0.0.7")
    [here, seen] = swarm.look().nodes
    assert here.is_manager_here and not seen.is_manager_here
    assert (seen.id, seen.claims, seen.hub, seen.address, seen.ready) == (node, token, None, "10.0.0.7", True)
    swarm.mark_node(node, token)
    assert swarm.look().nodes[1].hub == token


def test_a_pub_needs_its_image_on_its_node() -> None:
    swarm, bot = MemorySwarm(), uuid4()
    node = swarm.add_node()
    with pytest.raises(SwarmError, match="No such image"):
        swarm.make_identity(bot, node, IMAGE)
    swarm.put_service(PubService(bot, "@x", node, 29000, "127.0.0.1", IMAGE, 2**30, 0))
    assert "No such image" in swarm.look().services[0].complaint
    swarm.have_image(node, IMAGE)
    assert is_healthy(swarm, bot)


def test_a_pub_without_its_volume_is_not_the_same_pub() -> None:
    swarm, bot = MemorySwarm(), uuid4()
    first, second = swarm.add_node(), swarm.add_node()
    pub = pub_of(swarm, bot, first)
    move(swarm, pub, second)
    assert not is_healthy(swarm, bot)
    swarm.remove_service(bot)
    swarm.copy_volume(bot, first, second, IMAGE)
    move(swarm, pub, second)
    assert is_healthy(swarm, bot)


def test_a_copy_that_was_spoilt_leaves_nothing_on_the_target() -> None:
    swarm, bot = SpoilsCopies(), uuid4()
    first, second = swarm.add_node(), swarm.add_node()
    pub_of(swarm, bot, first)
    with pytest.raises(SwarmError, match="differs"):
        swarm.copy_volume(bot, first, second, IMAGE)
    assert bot in swarm.nodes[first].volumes and bot not in swarm.nodes[second].volumes


def test_a_volume_in_use_is_not_copied() -> None:
    swarm, bot = MemorySwarm(), uuid4()
    first, second = swarm.add_node(), swarm.add_node()
    swarm.put_service(pub_of(swarm, bot, first))
    with pytest.raises(SwarmError, match="in use"):
        swarm.copy_volume(bot, first, second, IMAGE)


def test_a_pub_is_stopped_once_its_own_engine_says_so() -> None:
    swarm, bot = SlowToStop(), uuid4()
    node = swarm.add_node()
    swarm.put_service(pub_of(swarm, bot, node))
    swarm.remove_service(bot)
    assert not swarm.look().services and not swarm.is_stopped(bot, node)
    swarm.nodes[node].containers.clear()
    assert swarm.is_stopped(bot, node)


def test_what_is_cut_off_runs_on_until_it_is_back() -> None:
    swarm, bot = MemorySwarm(), uuid4()
    node = swarm.add_node()
    swarm.put_service(pub_of(swarm, bot, node))
    swarm.cut(node)
    assert "does not answer" in swarm.engines([node])[node]
    assert not swarm.look().nodes[1].ready
    swarm.remove_service(bot)
    with pytest.raises(Unreachable):
        swarm.is_stopped(bot, node)
    assert swarm.running_on(bot) == [node]
    swarm.heal(node)
    assert swarm.is_stopped(bot, node) and swarm.running_on(bot) == []


def test_a_node_that_is_forgotten_while_it_lives_runs_its_pubs_on() -> None:
    swarm, bot = MemorySwarm(), uuid4()
    first, second = swarm.add_node(), swarm.add_node()
    pub = pub_of(swarm, bot, first)
    swarm.put_service(pub)
    swarm.cut(first)
    swarm.remove_node(first)
    swarm.remove_service(bot)
    move(swarm, pub, second)
    swarm.heal(first)
    assert swarm.running_on(bot) == [first, second]


def test_a_machine_that_is_gone_took_its_volumes_along() -> None:
    swarm, bot = MemorySwarm(), uuid4()
    node = swarm.add_node()
    swarm.put_service(pub_of(swarm, bot, node))
    swarm.drop_node(node)
    assert swarm.running_on(bot) == [] and not swarm.nodes[node].volumes
    assert not is_healthy(swarm, bot), "the swarm still has its service"


def test_a_service_never_changes_its_node() -> None:
    swarm, bot = MemorySwarm(), uuid4()
    first, second = swarm.add_node(), swarm.add_node()
    pub = pub_of(swarm, bot, first)
    swarm.put_service(pub)
    with pytest.raises(SwarmError, match="pinned"):
        move(swarm, pub, second)


def test_a_silent_engine_can_be_asked_nothing() -> None:
    swarm, bot = MemorySwarm(), uuid4()
    node = swarm.add_node()
    swarm.put_service(pub_of(swarm, bot, node))
    swarm.nodes[node].answers = False
    with pytest.raises(Unreachable):
        swarm.run(service_name(bot), ["pubctl", "whoami"], 5)
    assert is_healthy(swarm, bot), "the manager sees it all the same"


def test_a_stopped_pub_can_be_asked_nothing() -> None:
    with pytest.raises(NotRunning):
        MemorySwarm().run(service_name(uuid4()), ["pubctl", "whoami"], 5)


def test_a_pub_says_how_long_its_feed_is() -> None:
    swarm, bot = MemorySwarm(), uuid4()
    node = swarm.add_node()
    pub = pub_of(swarm, bot, node)
    swarm.put_service(pub)
    swarm.nodes[node].volumes[bot] = Volume(pub.ssb_id, 7)
    assert '"sequence": 7' in swarm.run(service_name(bot), ["pubctl", "status"], 5).stdout


def test_a_rotated_join_token_is_another_one() -> None:
    swarm = MemorySwarm()
    before = swarm.join_ticket()
    swarm.rotate_join_token()
    assert swarm.join_ticket() != before and before == JoinTicket("SWMTKN-1", ["127.0.0.1:2377"])
