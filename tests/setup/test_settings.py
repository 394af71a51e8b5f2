"""Production refuses to start with what a stranger could guess, and says what to set."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

COMPLETE = {
    "MODE": "production",
    "SECRET_KEY": "k" * 60,
    "SITE_URL": "https://pubs.example",
    "MAIL_FROM": "buttcloud <hello@pubs.example>",
    "PUB_HOST": "pubs.example",
    "PUB_IMAGE": "sha256:" + "1" * 64,
    "DB_PASSWORD": "another word",
    "REDIS_URL": "redis://redis.example",
    "STRIPE_SECRET_KEY": "sk_live_" + "x" * 24,
}


def load(environment: dict[str, str], read: str = "MODE") -> subprocess.CompletedProcess[str]:
    """Our settings in a process of their own, with nothing else in the environment."""
    return subprocess.run(
        [sys.executable, "-c", f"from buttcloud import settings; print(settings.{read})"],
        cwd=settings.BASE_DIR,
        env={"PATH": os.environ["PATH"], "BUTTCLOUD_VAR": str(settings.VAR / "other"), **environment},
        capture_output=True,
        text=True,
    )


def test_complete_production_settings_are_taken() -> None:
    assert load(COMPLETE).stdout == "production\n"


@pytest.mark.parametrize("name", [name for name in COMPLETE if name != "MODE"])
def test_production_names_what_is_missing(name: str) -> None:
    refused = load({key: value for key, value in COMPLETE.items() if key != name})
    assert refused.returncode and name in refused.stderr.splitlines()[-1]


def test_production_refuses_weak_and_embedded_values() -> None:
    weak = {
        "SECRET_KEY": "short",
        "DEBUG": "1",
        "SITE_URL": "http://pubs.example",
        "PUB_HOST": "127.0.0.1",
        "PUB_IMAGE": "pub:latest",
        "DB_PASSWORD": "buttcloud",
        "ALLOWED_HOSTS": "*",
        "NODE_HEARTBEAT_SECONDS": "10",
        "REDIS_URL": "redis://redis.example/0",
        "STRIPE_SECRET_KEY": "sk_test_" + "local" * 5,
    }
    for name, value in weak.items():
        assert load({**COMPLETE, name: value}).returncode, name


NAMED = {
    "PUB_DOMAIN": "Pubs.Example.",
    "DNS": "orchestrator.dns.rfc2136.ZoneNames",
    "DNS_SERVER": "192.0.2.53:53",
    "DNS_KEY_NAME": "ours",
    "DNS_KEY": "c2VjcmV0",
}


def test_production_with_names_of_their_own_for_pubs_needs_no_host_for_all() -> None:
    environment = {key: value for key, value in COMPLETE.items() if key != "PUB_HOST"}
    assert load({**environment, **NAMED}, "DNS_ZONE").stdout == "pubs.example\n"


@pytest.mark.parametrize("name", NAMED)
def test_a_name_server_that_is_half_set_up_is_refused_by_name(name: str) -> None:
    refused = load({key: value for key, value in NAMED.items() if key != name})
    assert refused.returncode and name in refused.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "value"), [("DNS_SERVER", "192.0.2.53"), ("DNS_KEY", "not base64!"), ("DNS_ZONE", "other.example")]
)
def test_a_name_server_that_makes_no_sense_is_refused_by_name(name: str, value: str) -> None:
    assert name in load({**NAMED, name: value}).stderr.splitlines()[-1]


OPENSTACK = {
    "MACHINES": "orchestrator.machines.openstack.OpenStackMachines",
    "OPENSTACK_FLAVOR": "hub",
    "OPENSTACK_IMAGE": "debian-13",
    "OPENSTACK_NETWORK": "hubs",
    "OPENSTACK_SECURITY_GROUP": "hubs",
}


@pytest.mark.parametrize("name", [name for name in OPENSTACK if name != "MACHINES"])
def test_hubs_on_openstack_need_a_cloud_that_is_described_whole(name: str) -> None:
    assert load(OPENSTACK, "OPENSTACK_CLOUD").stdout == "buttcloud\n"
    refused = load({key: value for key, value in OPENSTACK.items() if key != name})
    assert refused.returncode and name in refused.stderr.splitlines()[-1]


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("f" * 60 + "\n")
    environment = {key: value for key, value in COMPLETE.items() if key != "SECRET_KEY"}
    read = load({**environment, "SECRET_KEY_FILE": str(file)}, "SECRET_KEY")
    assert read.stdout == "f" * 60 + "\n"


def test_a_file_that_is_not_there_is_named() -> None:
    assert "/nowhere" in load({**COMPLETE, "SECRET_KEY_FILE": "/nowhere"}).stderr.splitlines()[-1]


def test_embedded_makes_its_own_secret_once_for_its_owner_alone(tmp_path: Path) -> None:
    first, second = (load({"BUTTCLOUD_VAR": str(tmp_path)}, "SECRET_KEY").stdout for _ in range(2))
    assert first == second and len(first) > 40
    assert (tmp_path / "secrets" / "secret_key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("name", "value"), [("SITE_PORT", "eighty"), ("DEBUG", "perhaps"), ("MODE", "half")])
def test_a_value_that_makes_no_sense_is_refused_by_name(name: str, value: str) -> None:
    assert name in load({name: value}).stderr.splitlines()[-1]


def test_a_deployment_has_a_name_that_docker_and_stripe_take() -> None:
    read = "DEPLOYMENT, settings.DJSTRIPE_SUBSCRIBER_CUSTOMER_KEY"
    assert load({"DEPLOYMENT": "d" * 22}, read).stdout == f"{'d' * 22} {'d' * 22}_user\n"
    assert "DEPLOYMENT must have at most 22" in load({"DEPLOYMENT": "d" * 23}).stderr.splitlines()[-1]


def test_six_prices_are_named_by_two_settings() -> None:
    assert load({}, "PRICES_MONTHLY").stdout == "(900, 1700, 3200)\n"
    named = {"PRICES_MONTHLY": "1000, 2000,3000", "PRICES_YEARLY": "10000,20000,30000", "PRICE_CURRENCY": "USD"}
    read = load(named, "PRICES_MONTHLY, settings.PRICES_YEARLY, settings.PRICE_CURRENCY")
    assert read.stdout == "(1000, 2000, 3000) (10000, 20000, 30000) usd\n"


@pytest.mark.parametrize("name", ["PRICES_MONTHLY", "PRICES_YEARLY"])
@pytest.mark.parametrize(
    "value", ["900", "900,1700", "900,1700,3200,6000", "9.00,17,32", "900,0,3200", "900,-1,3200", "a,b,c"]
)
def test_prices_that_make_no_sense_are_refused_by_name(name: str, value: str) -> None:
    assert name in load({name: value}).stderr.splitlines()[-1]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = {"PATH": os.environ["PATH"], "BUTTCLOUD_VAR": str(tmp_path / "file")}
    refused = subprocess.run(
        [sys.executable, "manage.py", "up"], cwd=settings.BASE_DIR, env=environment, capture_output=True, text=True
    )
    assert refused.returncode and "can't be read or written" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_fresh_machines_enrol_over_https_at_a_name_that_the_site_answers_to() -> None:
    elsewhere = load({**COMPLETE, "ENROL_URL": "https://inside.pubs.example:8443/"}, "ALLOWED_HOSTS")
    assert elsewhere.stdout == "['pubs.example', 'inside.pubs.example']\n"
    refused = load({**COMPLETE, "ENROL_URL": "http://inside.pubs.example"})
    assert refused.returncode and "ENROL_URL" in refused.stderr.splitlines()[-1]
