"""Django's backend for MySQL and MariaDB, whose migrations can be run again after one that was interrupted.

Neither has transactions around changes of tables, so that a migration that fails half-way leaves what it has made. Nor
has either an index of a part of a table: Django makes a whole one of the same name, which some migrations make
themselves for databases without.
"""

from __future__ import annotations

from typing import Any

from django.db.backends.mysql import base
from django.db.backends.mysql.schema import DatabaseSchemaEditor
from django.db.models import Index, Model


class SchemaEditor(DatabaseSchemaEditor):
    """Leaves an index that is there as it is, and one that is gone."""

    def add_index(self, model: type[Model], index: Index) -> None:
        if not self._has_index(model, index):
            super().add_index(model, index)

    def remove_index(self, model: type[Model], index: Index) -> None:
        known = any(one.name == index.name for one in model._meta.indexes)
        if known and self.connection.in_atomic_block:
            return  # a function of a migration has made it again; the operation that has made it removes it
        if self._has_index(model, index):
            super().remove_index(model, index)

    def _has_index(self, model: type[Model], index: Index) -> bool:
        with self.connection.cursor() as cursor:
            found = self.connection.introspection.get_constraints(cursor, model._meta.db_table)
        return index.name in found


class DatabaseWrapper(base.DatabaseWrapper):
    SchemaEditorClass: Any = SchemaEditor
