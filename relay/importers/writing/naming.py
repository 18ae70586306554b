"""Names that must be unique here, rate limits, and the ids of rows that were made at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from django.db import connection, models

from accounts.models import LIMIT_FIELDS
from relay.importers.description import Rates, SourceToken, SourceUser
from relay.importers.mapping import digest

_MOST: Final = 2**31 - 1  # of a column of a rate limit


class Names:
    """Names that are taken. Letter cases do not tell them apart: MySQL does not, and people neither."""

    def __init__(self, taken: Iterable[str], longest: int) -> None:
        self._taken = {name.casefold() for name in taken}
        self._given: set[str] = set()
        self._longest = longest

    def __contains__(self, name: str) -> bool:
        return name.casefold() in self._taken

    def take(self, name: str, installation: str) -> str:
        """The name, or where it is taken one that says where it is from, cut to what a column holds."""
        wanted = " ".join(name.split())[: self._longest]
        number = 1
        while wanted in self:
            number += 1
            end = f"-{installation}" if number == 2 else f"-{installation}-{number - 1}"
            if name.casefold() in self._given:  # by this import itself
                end = f" ({number})"
            wanted = f"{name[: self._longest - len(end)]}{end}"
        self._taken.add(wanted.casefold())
        self._given.add(wanted.casefold())
        return wanted


def rates(found: Rates) -> dict[str, int | None]:
    """Rate limits as columns of `accounts.models.Limited`; more than they hold is as good as the most that they do."""
    values = (found.rpm, found.tpm, found.rpd, found.concurrency)
    return {name: min(value, _MOST) if value else None for name, value in zip(LIMIT_FIELDS, values, strict=True)}


def limits_of(item: SourceUser | SourceToken) -> str:
    """A digest of the rate limits and budgets, which are carried over once. A change there is told."""
    return digest(repr((item.rates, sorted((one.period, one.limit) for one in item.budgets))))


def numbered(rows: Sequence[models.Model], column: str) -> None:
    """Set the ids of rows that were just made at once, found by a unique column, where the database returned none."""
    if connection.features.can_return_rows_from_bulk_insert or not rows:
        return
    table: Any = type(rows[0])
    ids = dict(
        table._base_manager.filter(**{f"{column}__in": [getattr(row, column) for row in rows]}).values_list(
            column, "pk"
        )
    )
    for row in rows:
        row.pk = ids[getattr(row, column)]
        row._state.adding = False
