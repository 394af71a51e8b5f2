"""What Prometheus reads, who may read it, and that alerts and dashboard ask only for what is there."""

import json
import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
import yaml
from django.conf import settings as django_settings
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from billing.models import Sweep
from mailer.models import Message
from orchestrator import jobs, signs
from orchestrator.models import Enrolment, Hub, Placement
from tests.setup.test_settings import COMPLETE, load, refusal
from tests.support.make import Maker

TOKEN = "a token that nobody guesses"
OPS = django_settings.BASE_DIR / "docs" / "ops"
Labels = frozenset[tuple[str, str]]
Samples = dict[tuple[str, Labels], float]
MATCHERS = re.compile(r"(buttcloud_\w+)\s*(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~|=)"([^"]*)"')


@pytest.fixture(autouse=True)
def token(settings: Any) -> None:
    settings.METRICS_TOKEN = TOKEN


def ask(authorization: str | None = f"Bearer {TOKEN}") -> Any:
    headers = {"Authorization": authorization} if authorization is not None else {}
    return Client().get("/metrics", headers=headers)


def scrape() -> Samples:
    """What Prometheus makes of it."""
    families = text_string_to_metric_families(ask().content.decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(name: str, samples: Samples | None = None, **labels: str) -> float:
    return (samples or scrape())[f"buttcloud_{name}", frozenset(labels.items())]


@pytest.fixture
def fleet(make: Maker) -> Hub:
    """A little of everything."""
    ends = timezone.now() + timedelta(days=300)
    hub = Hub.objects.create(name="hub-1", state="ready", places=15, node_id="n1", seen_at=timezone.now())
    Enrolment.objects.create(hub=hub, until=timezone.now(), answer={"expires": ends.isoformat()})
    bot = make.bot(name="Harbour Garden", paid=True, rung="paid", status="up")
    Placement.objects.create(bot=bot, hub=hub, port=24000, label="garden", places=2)
    for kind in Sweep.Kind.values:
        Sweep.objects.create(kind=kind, started=timezone.now(), finished=timezone.now())
    for queue in django_settings.QUEUES:
        signs.note_pulse(queue, timezone.now().timestamp() - 30)
    signs.note_pass(0.2, 1, 0)
    return hub


# --- who may read ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer ", "Bearer wrong", TOKEN, f"bearer {TOKEN}", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"],
)
def test_without_the_token_nothing_is_said(authorization: str | None, db: None) -> None:
    answer = ask(authorization)
    assert (answer.status_code, answer.content) == (401, b"")
    assert answer["WWW-Authenticate"] == "Bearer"


def test_whoever_has_the_token_may_read(db: None) -> None:
    answer = ask()
    assert answer.status_code == 200 and answer["Content-Type"].startswith("text/plain; version=")


def test_staff_without_the_token_may_not_read(make: Maker, client: Client) -> None:
    client.force_login(make.user("staff", is_staff=True, is_superuser=True))
    assert client.get("/metrics").status_code == 401


@pytest.mark.parametrize("authorization", [None, "Bearer ", f"Bearer {TOKEN}"])
def test_where_no_token_is_set_there_is_no_such_address(settings: Any, authorization: str | None, db: None) -> None:
    settings.METRICS_TOKEN = ""
    assert ask(authorization).status_code == 404


def test_nothing_is_written_there(db: None) -> None:
    assert Client().post("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 405


def test_production_has_the_address_only_with_a_token_that_nobody_guesses() -> None:
    assert load(COMPLETE).METRICS_TOKEN == ""
    assert load({**COMPLETE, "METRICS_TOKEN": "m" * 20}).METRICS_TOKEN == "m" * 20
    assert "METRICS_TOKEN" in refusal({**COMPLETE, "METRICS_TOKEN": "m" * 19})


def test_embedded_makes_a_token_and_keeps_it(tmp_path: Any) -> None:
    first, second = (load({"BUTTCLOUD_VAR": str(tmp_path)}).METRICS_TOKEN for _ in range(2))
    assert first == second == (tmp_path / "secrets" / "metrics_token").read_text() and len(first) > 40


# --- what it says ----------------------------------------------------------------------------------------------------
def test_figures_are_those_of_the_fleet(fleet: Hub, make: Maker) -> None:
    make.bot(paid=True, rung="grace")
    Message.objects.create(key="old", to="alice@customer.example")
    Message.objects.update(created=timezone.now() - timedelta(minutes=5))
    said = scrape()
    assert value("pubs", said, status="up") == 1 and value("pubs", said, status="starting") == 1
    assert value("pubs_by_payment", said, rung="grace") == 1 and value("pubs_without_place", said) == 1
    assert value("hub_places", said, hub="hub-1") == 15 and value("hub_places_taken", said, hub="hub-1") == 2
    assert value("hub_memory_promised_bytes", said, hub="hub-1") == 2 * 1024**3
    assert value("places_free", said) == 13 and value("hubs", said, state="ready") == 1
    assert value("outbox_age_seconds", said, kind="mail") == pytest.approx(300, abs=60)
    assert value("queue_age_seconds", said, queue="mailer") == pytest.approx(30, abs=20)
    assert value("stripe_sweep_timestamp_seconds", said, kind="events") == pytest.approx(
        timezone.now().timestamp(), abs=60
    )


def test_a_pass_of_a_worker_is_seen_by_the_web(db: None) -> None:
    jobs.reconcile()
    assert value("last_pass_timestamp_seconds") == pytest.approx(timezone.now().timestamp(), abs=60)
    assert value("passes_failing") == 0


def test_what_is_not_known_has_no_sample(db: None) -> None:
    names = {name for name, _ in scrape()}
    assert "buttcloud_pubs" in names
    assert not names & {"buttcloud_queue_age_seconds", "buttcloud_last_pass_timestamp_seconds"}


def test_no_label_says_who_a_customer_is(fleet: Hub) -> None:
    text = ask().content.decode()
    assert "hub-1" in text
    for private in ("Harbour Garden", "garden", "customer.example", "alice", "24000"):
        assert private not in text


def test_names_follow_prometheus_own_rules(fleet: Hub) -> None:
    families = list(text_string_to_metric_families(ask().content.decode()))
    assert len(families) > 30
    for family in families:
        assert family.name.startswith("buttcloud_") and family.documentation.endswith("."), family.name
        assert family.type == "gauge" and not family.name.endswith("_total"), family.name


def test_a_scrape_asks_the_database_as_often_for_many_pubs_as_for_one(
    fleet: Hub, make: Maker, django_assert_num_queries: Any, django_assert_max_num_queries: Any
) -> None:
    with django_assert_max_num_queries(16) as few:
        scrape()
    for number in range(10):
        Placement.objects.create(bot=make.bot(paid=True), hub=fleet, port=25000 + number, label=f"pub-{number}")
    with django_assert_num_queries(len(few)):
        scrape()


# --- alerts and dashboard --------------------------------------------------------------------------------------------
def alerts() -> list[dict[str, Any]]:
    [group] = yaml.safe_load((OPS / "alerts.yml").read_text())["groups"]
    return list(group["rules"])


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads((OPS / "grafana.json").read_text())["panels"] if panel["type"] != "row"]


EXPRESSIONS = {rule["alert"]: rule["expr"] for rule in alerts()} | {
    f"{panel['title']} {target['refId']}": target["expr"] for panel in panels() for target in panel["targets"]
}


def missing(expression: str, samples: Iterable[tuple[str, Labels]]) -> list[str]:
    """What of a PromQL expression is in no sample: names of metrics, and values that their labels must have."""
    wrong = []
    for name, matchers in MATCHERS.findall(expression):
        there = [dict(labels) for each, labels in samples if each == name]
        if not there:
            wrong.append(name)
        for label, _, wanted in MATCHER.findall(matchers):
            wrong += [
                f"{name}{{{label}={word}}}"
                for word in wanted.split("|")
                if all(each.get(label) != word for each in there)
            ]
    return wrong


def test_alerts_and_dashboard_ask_only_for_what_is_there(fleet: Hub) -> None:
    samples = scrape()
    for where, expression in EXPRESSIONS.items():
        assert "buttcloud_" in expression, where
        assert missing(expression, samples) == [], where


def test_a_metric_that_is_not_there_would_be_found(fleet: Hub) -> None:
    samples = scrape()
    assert missing('sum(buttcloud_pubs{status=~"up|gone"}) > buttcloud_nothing', samples) == [
        "buttcloud_pubs{status=gone}",
        "buttcloud_nothing",
    ]


def test_every_metric_is_on_the_dashboard(fleet: Hub) -> None:
    drawn = {name for panel in panels() for target in panel["targets"] for name, _ in MATCHERS.findall(target["expr"])}
    assert {name for name, _ in scrape()} == drawn


def test_labels_that_words_name_are_there(fleet: Hub) -> None:
    samples = scrape()

    def labels_of(expression: str) -> set[str]:
        names = {name for name, _ in MATCHERS.findall(expression)}
        return {label for name, labels in samples if name in names for label, _ in labels}

    for rule in alerts():
        named = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert named <= labels_of(rule["expr"]), rule["alert"]
    for panel in panels():
        for target in panel["targets"]:
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels_of(target["expr"]), panel[
                "title"
            ]


def test_each_alert_has_what_prometheus_needs_and_a_line_in_the_runbook() -> None:
    runbook = (OPS / "README.md").read_text()
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names)) > 15
    for rule in alerts():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        assert rule["labels"]["severity"] in ("page", "ticket") and rule["annotations"]["summary"], rule["alert"]
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s")), rule["alert"]
        assert rule["expr"].count("(") == rule["expr"].count(")"), rule["alert"]
        assert f"| {rule['alert']} | {rule['labels']['severity']} |" in runbook, rule["alert"]
    assert re.findall(r"^\| ([A-Z]\w+[A-Z]\w+) \|", runbook, re.MULTILINE) == names


def test_the_dashboard_can_be_imported() -> None:
    dashboard = json.loads((OPS / "grafana.json").read_text())
    assert dashboard["title"] and dashboard["uid"] and dashboard["schemaVersion"] and "id" not in dashboard
    assert [each["name"] for each in dashboard["templating"]["list"]] == ["datasource"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
    for panel in panels():
        assert panel["datasource"]["uid"] == "${datasource}" and panel["fieldConfig"]["defaults"]["unit"]
