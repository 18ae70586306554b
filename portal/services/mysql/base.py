"""Django's backend for MySQL and MariaDB, which compares texts as the other databases do, and whose migrations can be
run again after one that was interrupted.

Neither has transactions around changes of tables, so that a migration that fails half-way leaves what it has made. Nor
has either an index of a part of a table: Django makes a whole one of the same name, which some migrations make
themselves for databases without.

Their usual collations take letter cases, accents and spaces at the end for the same, also in unique columns. Tables are
made with one that compares bytes, whatever the database's own is; lookups that ignore case do so themselves.
"""

from __future__ import annotations

from typing import Any

from django.db.models import Index, Model
from django.db.models.constants import OnConflict

from portal.services.mysql import driver

driver.install()

from django.db.backends.mysql import base, features, operations  # noqa: E402  # finds the driver now
from django.db.backends.mysql.schema import DatabaseSchemaEditor  # noqa: E402

_IGNORING_CASE = frozenset(("iexact", "icontains", "istartswith", "iendswith"))


class SchemaEditor(DatabaseSchemaEditor):
    """Leaves an index that is there as it is, and one that is gone."""

    @property
    def sql_create_table(self) -> str:  # type: ignore[override]
        return f"CREATE TABLE %(table)s (%(definition)s) {table_options(self.connection)}"

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


def collation(connection: Any) -> str:
    """The server's collation that compares bytes, spaces at the end included."""
    return "utf8mb4_nopad_bin" if connection.mysql_is_mariadb else "utf8mb4_0900_bin"


def table_options(connection: Any) -> str:
    return f"ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE {collation(connection)}"


class Features(features.DatabaseFeatures):
    @property
    def minimum_database_version(self) -> tuple[int, ...]:  # type: ignore[override]
        return (10, 6) if self.connection.mysql_is_mariadb else (8, 0, 17)


class Operations(operations.DatabaseOperations):
    def insert_statement(self, on_conflict: OnConflict | None = None) -> str:
        """Without IGNORE, which also takes values that columns do not, and changes them, and drops missing parents."""
        return "INSERT INTO"

    def on_conflict_suffix_sql(self, fields: Any, on_conflict: Any, update_fields: Any, unique_fields: Any) -> str:
        if on_conflict == OnConflict.IGNORE:
            column = self.quote_name(fields[0].column)
            return f"ON DUPLICATE KEY UPDATE {column} = {column}"
        suffix: str = super().on_conflict_suffix_sql(fields, on_conflict, update_fields, unique_fields)
        return suffix

    def lookup_cast(self, lookup_type: str, internal_type: str | None = None) -> str:
        cast = super().lookup_cast(lookup_type, internal_type)
        return f"LOWER({cast})" if lookup_type in _IGNORING_CASE else cast


class DatabaseWrapper(base.DatabaseWrapper):
    SchemaEditorClass: Any = SchemaEditor
    features_class: Any = Features
    ops_class: Any = Operations
    operators: Any = base.DatabaseWrapper.operators | dict.fromkeys(_IGNORING_CASE, "LIKE LOWER(%s)")
    pattern_ops: Any = base.DatabaseWrapper.pattern_ops | {
        "icontains": "LIKE CONCAT('%%', LOWER({}), '%%')",
        "istartswith": "LIKE CONCAT(LOWER({}), '%%')",
        "iendswith": "LIKE CONCAT('%%', LOWER({}))",
    }

    def get_connection_params(self) -> dict[str, Any]:
        params: dict[str, Any] = super().get_connection_params()
        mode = params.pop("ssl_mode", "PREFERRED")
        files = [str(params.pop(name, "")) for name in ("ssl_ca", "ssl_cert", "ssl_key")]
        if mode == "DISABLED":
            params["ssl_disabled"] = True
        elif mode != "PREFERRED":
            params["ssl"] = driver.tls_context(mode, *files)
        if isinstance(password := params.get("password"), str):
            params["password"] = password.encode()  # the driver takes texts for Latin-1
        return params

    def get_new_connection(self, conn_params: dict[str, Any]) -> driver.BoundedConnection:
        return driver.BoundedConnection(**conn_params)
