"""Columns that the database keeps: the bytes of the texts of a row; and reading texts by them. Migrations name this."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.functions import Coalesce
from django.db.models.sql.compiler import SQLCompiler

_PAGE_BYTES: Final = 1 << 20  # that are read at once, unless a single text is longer
_PAGE_ROWS: Final = 200


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


def texts_of(rows: models.QuerySet[Any], column: str) -> Iterator[str]:
    """The texts in a column of rows that have a `size`, in their order, about 1 MiB in memory at a time.

    Each page is read whole: whoever is given a text may write to the database. SQLite refuses what is written while a
    query is being read, as soon as anybody else has written since it began.
    """
    for page in _pages(list(rows.values_list("pk", "size"))):
        found = dict(rows.model._base_manager.filter(pk__in=page).values_list("pk", column))
        while page:
            text = found.pop(page.pop(0), None)
            if text is not None:  # not deleted meanwhile
                yield text


def _pages(sizes: list[tuple[Any, int]]) -> Iterator[list[Any]]:
    page: list[Any] = []
    size = 0
    for key, more in sizes:
        if page and (size + more > _PAGE_BYTES or len(page) >= _PAGE_ROWS):
            yield page
            page, size = [], 0
        page.append(key)
        size += more
    if page:
        yield page
