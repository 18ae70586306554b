from __future__ import annotations

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder

from portal.services.migrations import migrations_missing

pytestmark = pytest.mark.django_db


def test_nothing_is_missing_where_django_has_nothing_to_do() -> None:
    executor = MigrationExecutor(connection)
    assert executor.migration_plan(executor.loader.graph.leaf_nodes()) == []
    assert not migrations_missing()


@pytest.mark.parametrize("app", ["relay", "accounts", "socialaccount"])
def test_the_newest_migration_of_an_application_is_missed(app: str) -> None:
    newest = MigrationRecorder.Migration.objects.filter(app=app).order_by("-name").first()
    assert newest is not None
    newest.delete()
    assert migrations_missing()
