"""Whether the database is that of this version."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from django.apps import apps
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.utils.module_loading import module_has_submodule


def migrations_missing() -> bool:
    """Whether migrations of the installed applications have not been applied yet. Raises DatabaseError.

    Compares names. To load the migrations, as Django does for a plan, would take 2 MiB of each worker that says whether
    it is ready; and where not all applications are installed there is no plan. What a squashed migration replaces is
    recorded as applied with it.
    """
    applied = MigrationRecorder(connection).applied_migrations()
    return any(
        (app.label, found.name) not in applied
        for app in apps.get_app_configs()
        if app.module is not None and module_has_submodule(app.module, "migrations")
        for found in iter_modules(import_module(f"{app.name}.migrations").__path__)
        if found.name[0] not in "_~"
    )
