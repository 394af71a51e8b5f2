"""Our migrations: each can be undone, and each says by its name what it is for."""

from pathlib import Path

import pytest
from django.apps import apps
from django.conf import settings
from django.db import connection
from django.db.migrations.loader import MigrationLoader

OURS = [config.label for config in apps.get_app_configs() if Path(config.path).parent == settings.BASE_DIR]
MIGRATIONS = [
    (label, name, migration)
    for (label, name), migration in sorted(MigrationLoader(None).disk_migrations.items())
    if label in OURS
]


def test_there_are_some() -> None:
    assert {"accounts", "mailer", "orchestrator", "pubs"} <= {label for label, _, _ in MIGRATIONS}


@pytest.mark.parametrize(("label", "name", "migration"), MIGRATIONS)
def test_it_can_be_undone_and_has_a_name(label: str, name: str, migration: object) -> None:
    assert all(operation.reversible for operation in migration.operations)  # type: ignore[attr-defined]
    assert "auto" not in name


@pytest.mark.django_db
def test_the_tables_of_dj_stripe_come_from_our_one_migration() -> None:
    assert settings.MIGRATION_MODULES["djstripe"] == "billing.djstripe_migrations"
    ran = [name for label, name in MigrationLoader(connection).applied_migrations if label == "djstripe"]
    assert ran == ["0001_initial"]
