"""The API describes itself, so that a program can be written against it."""

from io import StringIO

import yaml
from django.core.management import call_command
from rest_framework.test import APIClient


def test_the_schema_is_valid_and_each_address_is_described() -> None:
    out = StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=out)
    paths = yaml.safe_load(out.getvalue())["paths"]
    assert {
        "/api/v1/pubs/",
        "/api/v1/pubs/{id}/stats/",
        "/api/v1/pubs/{pub}/commands/",
        "/api/v1/pubs/{pub}/changes/",
        "/api/v1/prices/",
    } <= set(paths)
    assert "publishes it when it first starts" in paths["/api/v1/pubs/"]["post"]["description"]
    undescribed = [
        f"{verb} {path}"
        for path, verbs in paths.items()
        for verb, operation in verbs.items()
        if not operation.get("description") and not operation.get("summary")
    ]
    assert undescribed == []


def test_everybody_may_read_the_schema(db: None) -> None:
    assert APIClient().get("/api/v1/schema/").status_code == 200
