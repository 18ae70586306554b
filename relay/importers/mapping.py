"""Which row here came from which row of the source, so that an import can be run again, go on, and be undone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from django.db import connection

from relay.models import ImportedRow, Installation

AT_ONCE: Final = 500  # rows of one transaction, and of one statement
_LONGEST_ID: Final = 190
_COLUMNS: Final = ("pk", "object_id", "made", "seen", "amount", "undone")  # in the order of `Known`


@dataclass(slots=True)
class Known:
    """A row of the source that was carried over before."""

    pk: int
    object_id: int  # of the row here
    made: bool
    seen: dict[str, Any]  # by field: what the source had then
    amount: int  # nano-USD that were carried over
    undone: bool = False  # taken back; the next import brings it back


@dataclass(slots=True)
class Rows:
    """The rows of an installation by kind and id. Kinds are read when they are first asked for."""

    installation: Installation | None  # None: nothing was imported from it yet, and this is a dry run
    _kinds: dict[str, dict[str, Known]] = field(default_factory=dict)
    _planned: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def written(self) -> Installation:
        """The installation, of an import that writes."""
        if self.installation is None:
            raise LookupError("a dry run writes nothing")
        return self.installation

    def of(self, kind: str) -> dict[str, Known]:
        found = self._kinds.get(kind)
        if found is None:
            found = self._kinds[kind] = {}
            if self.installation is not None:
                rows = ImportedRow.objects.filter(installation=self.installation, kind=kind)
                for source_id, *values in rows.values_list("source_id", *_COLUMNS):
                    found[source_id] = Known(*values)
        return found

    def find(self, kind: str, source_id: str) -> Known | None:
        return self.of(kind).get(_stored_id(source_id))

    def here(self, kind: str, source_id: str) -> int | None:
        """The id of the row here; 0: it would be made by a dry run; None: it is not carried over."""
        known = self.find(kind, source_id)
        if known is not None:
            return known.object_id
        return self._planned.get(kind, {}).get(_stored_id(source_id))

    def plan(self, kind: str, source_id: str, object_id: int = 0) -> None:
        """Remember in a dry run that a row would be made, or which one that is here it would belong to."""
        self._planned.setdefault(kind, {})[_stored_id(source_id)] = object_id

    def leave(self, kind: str, source_id: str) -> None:
        """Take a row that was carried over before for one that is not, as long as this import runs."""
        self.of(kind).pop(_stored_id(source_id), None)

    def add(self, kind: str, entries: Iterable[NewRow]) -> None:
        """Write rows. Inside the caller's transaction."""
        rows = [
            ImportedRow(
                installation=self.written,
                kind=kind,
                source_id=_stored_id(entry.source_id),
                object_id=entry.object_id,
                made=entry.made,
                seen=dict(entry.seen),
                amount=entry.amount,
            )
            for entry in entries
        ]
        found = self.of(kind)
        ImportedRow.objects.bulk_create(rows, batch_size=AT_ONCE)
        if not connection.features.can_return_rows_from_bulk_insert:  # MySQL
            ids = [row.source_id for row in rows]
            mine = ImportedRow.objects.filter(installation=self.installation, kind=kind, source_id__in=ids)
            numbers = dict(mine.values_list("source_id", "pk"))
            for row in rows:
                row.pk = numbers[row.source_id]
        for row in rows:
            found[row.source_id] = Known(row.pk, row.object_id, row.made, row.seen, row.amount)

    def update(self, known: Known, seen: Mapping[str, Any], amount: int | None = None) -> None:
        """Note what the source has now. Inside the caller's transaction.

        Raises ImportRefused when another import has carried the row over since it was read: nothing is moved twice.
        """
        same = ImportedRow.objects.filter(pk=known.pk, amount=known.amount, undone=known.undone)
        known.seen, known.undone = dict(seen), False
        if amount is not None:
            known.amount = amount
        if not same.update(seen=known.seen, amount=known.amount, undone=False):
            raise ImportRefused("Another import has gone on meanwhile. Run this one again.")


@dataclass(frozen=True, slots=True)
class NewRow:
    """A row that was carried over."""

    source_id: str
    object_id: int
    made: bool = True
    seen: Mapping[str, Any] = field(default_factory=dict)
    amount: int = 0


class ImportRefused(Exception):
    """The import cannot be made. The message is one sentence."""


def _stored_id(source_id: str) -> str:
    """An id as the column holds it: some programs let them be of any length."""
    if len(source_id) <= _LONGEST_ID:
        return source_id
    return f"{source_id[:100]}#{hashlib.sha256(source_id.encode('utf-8', 'surrogateescape')).hexdigest()}"


def digest(value: str) -> str:
    """What is kept of a secret, to see whether it has changed: a part of its SHA-256."""
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()[:32] if value else ""


def changed(known: Known, now: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that the source has changed since the last import, with what it has now."""
    return {name: value for name, value in now.items() if known.seen.get(name) != value}
