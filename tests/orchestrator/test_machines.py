"""What every machine driver promises, on each cloud that there is to test on."""

from uuid import UUID, uuid4

import pytest

from orchestrator.machines import Machine, Power, Refused, Unavailable
from tests.orchestrator.conftest import Cloud
from tests.support.wait import until

USER_DATA = "#cloud-config\nruncmd: [[hub-join]]\n"


def make(cloud: Cloud, name: str = "hub-1") -> UUID:
    token = uuid4()
    cloud.machines.create(token, name, lambda: USER_DATA)
    return token


def shown(cloud: Cloud, token: UUID, power: Power) -> Machine:
    """The machine, once the cloud shows it so."""

    def look() -> Machine | None:
        return next((m for m in cloud.machines.list() if (m.token, m.power) == (token, power)), None)

    machine = until(f"{token} is {power}", look, every=0.5)
    assert machine
    return machine


def destroy(cloud: Cloud, token: UUID) -> None:
    until(f"{token} is gone", lambda: cloud.machines.destroy(token), every=0.5)


def not_wanted() -> str:
    raise AssertionError("no machine was to be made")


def test_a_cloud_without_machines_of_ours_shows_none(cloud: Cloud) -> None:
    assert cloud.machines.list() == []


def test_a_machine_runs_in_time_with_its_token_name_and_addresses(cloud: Cloud) -> None:
    token = make(cloud, "hub-7")
    machine = shown(cloud, token, Power.RUNNING)
    assert machine.name == "hub-7" and machine.address.startswith("10.77.") and machine.public_address
    assert machine.created and not machine.fault


def test_a_machine_reads_what_it_was_given_for_its_first_start(cloud: Cloud) -> None:
    assert cloud.user_data(make(cloud)) == USER_DATA


def test_asking_again_makes_no_second_machine(cloud: Cloud) -> None:
    token = make(cloud)
    cloud.machines.create(token, "hub-1", not_wanted)
    shown(cloud, token, Power.RUNNING)
    cloud.machines.create(token, "hub-1", not_wanted)
    assert cloud.paid_for(token) == 1 and len(cloud.machines.list()) == 1


def test_destroying_ends_with_nothing_left_and_may_be_asked_again(cloud: Cloud) -> None:
    token = make(cloud)
    assert not cloud.machines.destroy(token), "nobody knows yet that it is gone"
    destroy(cloud, token)
    assert cloud.machines.destroy(token)
    assert cloud.machines.list() == [] and cloud.paid_for(token) == 0


def test_a_machine_is_gone_only_once_the_cloud_has_it_no_more(cloud: Cloud) -> None:
    token = make(cloud)
    assert not cloud.machines.is_gone(token)
    shown(cloud, token, Power.RUNNING)
    assert not cloud.machines.is_gone(token)
    cloud.lose(token)
    until("it is gone", lambda: cloud.machines.is_gone(token), every=0.5)


def test_destroying_one_machine_leaves_the_other(cloud: Cloud) -> None:
    one, other = make(cloud, "hub-1"), make(cloud, "hub-2")
    destroy(cloud, one)
    assert [machine.token for machine in cloud.machines.list()] == [other]
    shown(cloud, other, Power.RUNNING)


def test_a_used_up_quota_is_a_refusal_and_makes_nothing(cloud: Cloud) -> None:
    cloud.use_up_the_quota()
    with pytest.raises(Refused, match="(?i)quota"):
        make(cloud)
    assert cloud.machines.list() == []


def test_a_machine_that_finds_no_host_is_shown_with_its_fault_until_it_is_destroyed(cloud: Cloud) -> None:
    cloud.fill_all_hosts()
    token = make(cloud)
    assert "No valid host" in shown(cloud, token, Power.FAILED).fault
    cloud.machines.create(token, "hub-1", not_wanted)
    assert cloud.paid_for(token) == 1
    destroy(cloud, token)
    assert cloud.machines.list() == []


def test_a_lost_answer_leaves_one_machine(cloud: Cloud) -> None:
    cloud.lose_the_answer()
    token = uuid4()
    try:
        cloud.machines.create(token, "hub-1", lambda: USER_DATA)
    except Unavailable:
        cloud.machines.create(token, "hub-1", not_wanted)
    assert [machine.token for machine in cloud.machines.list()] == [token]
    assert cloud.paid_for(token) == 1


def test_a_silent_cloud_is_not_an_empty_one(cloud: Cloud) -> None:
    token = make(cloud)
    cloud.fall_silent()
    with pytest.raises(Unavailable):
        cloud.machines.list()
    with pytest.raises(Unavailable):
        cloud.machines.is_gone(token)
    with pytest.raises(Unavailable):
        cloud.machines.destroy(token)
    with pytest.raises(Unavailable):
        cloud.machines.create(token, "hub-1", not_wanted)
