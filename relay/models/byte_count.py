"""Columns that the database keeps: the bytes of the texts of a row. Migrations name this file."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.functions import Coalesce
from django.db.models.sql.compiler import SQLCompiler


class ByteLength(models.Func):
    """The bytes of a text, on every database; null for null."""

    function = "OCTET_LENGTH"
    output_field = models.BigIntegerField()
    arity = 1

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **context: Any) -> tuple[str, Any]:
        return self.as_sql(compiler, connection, template="LENGTH(CAST(%(expressions)s AS BLOB))", **context)


def byte_count(*columns: str) -> models.GeneratedField:
    """The bytes of some columns together. No path that writes a row can leave it out."""
    terms = [Coalesce(ByteLength(column), 0, output_field=models.BigIntegerField()) for column in columns]
    total: Any = terms[0]
    for term in terms[1:]:
        total = total + term
    return models.GeneratedField(expression=total, output_field=models.BigIntegerField(), db_persist=True)
