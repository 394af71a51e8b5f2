"""Production refuses to start with what a stranger could guess, and says what to set."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

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


def load(environment: dict[str, str]) -> SimpleNamespace:
    """Our settings, read anew with nothing else in the environment."""
    only = {"BUTTCLOUD_VAR": str(settings.VAR / "other"), **environment}
    with patch.dict(os.environ, only, clear=True):
        return SimpleNamespace(**runpy.run_path(str(settings.BASE_DIR / "buttcloud" / "settings.py")))


def refusal(environment: dict[str, str]) -> str:
    """What they say when they refuse it."""
    with pytest.raises(ImproperlyConfigured) as refused:
        load(environment)
    return str(refused.value)


def start(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process with nothing else in its environment."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=settings.BASE_DIR,
        env={"PATH": os.environ["PATH"], "BUTTCLOUD_VAR": str(settings.VAR / "other"), **environment},
        capture_output=True,
        text=True,
    )


def test_complete_production_settings_are_taken() -> None:
    started = start("-c", "from buttcloud import settings; print(settings.MODE)", **COMPLETE)
    assert started.stdout == "production\n"


def test_a_process_ends_with_the_sentence_that_refuses_its_settings() -> None:
    half = {key: value for key, value in COMPLETE.items() if key != "SECRET_KEY"}
    refused = start("-c", "from buttcloud import settings", **half)
    assert refused.returncode and refused.stderr.splitlines()[-1].endswith(refusal(half))


@pytest.mark.parametrize("name", [name for name in COMPLETE if name != "MODE"])
def test_production_names_what_is_missing(name: str) -> None:
    assert name in refusal({key: value for key, value in COMPLETE.items() if key != name})


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
        assert refusal({**COMPLETE, name: value}), name


NAMED = {
    "PUB_DOMAIN": "Pubs.Example.",
    "DNS": "orchestrator.dns.rfc2136.ZoneNames",
    "DNS_SERVER": "192.0.2.53:53",
    "DNS_KEY_NAME": "ours",
    "DNS_KEY": "c2VjcmV0",
}


def test_production_with_names_of_their_own_for_pubs_needs_no_host_for_all() -> None:
    environment = {key: value for key, value in COMPLETE.items() if key != "PUB_HOST"}
    assert load({**environment, **NAMED}).DNS_ZONE == "pubs.example"


@pytest.mark.parametrize("name", NAMED)
def test_a_name_server_that_is_half_set_up_is_refused_by_name(name: str) -> None:
    assert name in refusal({key: value for key, value in NAMED.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"), [("DNS_SERVER", "192.0.2.53"), ("DNS_KEY", "not base64!"), ("DNS_ZONE", "other.example")]
)
def test_a_name_server_that_makes_no_sense_is_refused_by_name(name: str, value: str) -> None:
    assert name in refusal({**NAMED, name: value})


OPENSTACK = {
    "MACHINES": "orchestrator.machines.openstack.OpenStackMachines",
    "OPENSTACK_FLAVOR": "hub",
    "OPENSTACK_IMAGE": "debian-13",
    "OPENSTACK_NETWORK": "hubs",
    "OPENSTACK_SECURITY_GROUP": "hubs",
}


@pytest.mark.parametrize("name", [name for name in OPENSTACK if name != "MACHINES"])
def test_hubs_on_openstack_need_a_cloud_that_is_described_whole(name: str) -> None:
    assert load(OPENSTACK).OPENSTACK_CLOUD == "buttcloud"
    assert name in refusal({key: value for key, value in OPENSTACK.items() if key != name})


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("f" * 60 + "\n")
    environment = {key: value for key, value in COMPLETE.items() if key != "SECRET_KEY"}
    assert load({**environment, "SECRET_KEY_FILE": str(file)}).SECRET_KEY == "f" * 60


def test_a_file_that_is_not_there_is_named() -> None:
    assert "/nowhere" in refusal({**COMPLETE, "SECRET_KEY_FILE": "/nowhere"})


def test_embedded_makes_its_own_secret_once_for_its_owner_alone(tmp_path: Path) -> None:
    first, second = (load({"BUTTCLOUD_VAR": str(tmp_path)}).SECRET_KEY for _ in range(2))
    assert first == second and len(first) > 40
    assert (tmp_path / "secrets" / "secret_key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("name", "value"), [("SITE_PORT", "eighty"), ("DEBUG", "perhaps"), ("MODE", "half")])
def test_a_value_that_makes_no_sense_is_refused_by_name(name: str, value: str) -> None:
    assert name in refusal({name: value})


def test_a_deployment_has_a_name_that_docker_and_stripe_take() -> None:
    name = "d" * 22
    longest = load({"DEPLOYMENT": name})
    assert (name, f"{name}_user") == (longest.DEPLOYMENT, longest.DJSTRIPE_SUBSCRIBER_CUSTOMER_KEY)
    assert "DEPLOYMENT must have at most 22" in refusal({"DEPLOYMENT": "d" * 23})


def test_six_prices_are_named_by_two_settings() -> None:
    assert load({}).PRICES_MONTHLY == (900, 1700, 3200)
    named = {"PRICES_MONTHLY": "1000, 2000,3000", "PRICES_YEARLY": "10000,20000,30000", "PRICE_CURRENCY": "USD"}
    read = load(named)
    assert (read.PRICES_MONTHLY, read.PRICES_YEARLY) == ((1000, 2000, 3000), (10000, 20000, 30000))
    assert read.PRICE_CURRENCY == "usd"


@pytest.mark.parametrize("name", ["PRICES_MONTHLY", "PRICES_YEARLY"])
@pytest.mark.parametrize(
    "value", ["900", "900,1700", "900,1700,3200,6000", "9.00,17,32", "900,0,3200", "900,-1,3200", "a,b,c"]
)
def test_prices_that_make_no_sense_are_refused_by_name(name: str, value: str) -> None:
    assert name in refusal({name: value})


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = start("manage.py", "up", BUTTCLOUD_VAR=str(tmp_path / "file"))
    assert refused.returncode and "can't be read or written" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_fresh_machines_enrol_over_https_at_a_name_that_the_site_answers_to() -> None:
    elsewhere = load({**COMPLETE, "ENROL_URL": "https://inside.pubs.example:8443/"})
    assert elsewhere.ALLOWED_HOSTS == ["pubs.example", "inside.pubs.example"]
    assert "ENROL_URL" in refusal({**COMPLETE, "ENROL_URL": "http://inside.pubs.example"})


def test_each_setting_is_documented() -> None:
    source = (settings.BASE_DIR / "buttcloud" / "settings.py").read_text()
    read = set(re.findall(r'(?:env\.\w+|\bsecret)\(\s*"([A-Z_]+)"', source))
    documented = set(re.findall(r"`([A-Z_]+)`", (settings.BASE_DIR / "docs" / "configure.md").read_text()))
    assert len(read) > 50 and read - documented == set()
