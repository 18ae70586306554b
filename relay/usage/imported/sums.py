"""Usage of the time before an import, which is a part of the sums by day and month. There are no records of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from relay.models import ImportedDay, Installation
from relay.usage.sessions.sum_table import SumTable

SUMS: Final = ("requests", "failed", "faults", "input", "cached", "output", "charged", "upstream_cost")
Added = dict[Any, list[int]]  # by the key of a table
_KEY: Final = ("installation_id", "day", "user_id", "token", "channel", "model")


class ImportedSum(NamedTuple):
    """What a sum is of, by ids here. 0: nothing that is here."""

    day: int  # an ordinal
    user: int
    token: int
    channel: int
    model: str


def add_imported(installation: Installation, sums: Mapping[ImportedSum, list[int]]) -> None:
    """Add sums to what was imported from an installation. `relay.usage.rollup` adds them to the sums of all usage."""
    SumTable(ImportedDay, _KEY, SUMS).upsert((installation.pk, *key, *values) for key, values in sorted(sums.items()))


def imported_sums(installation: Installation | None = None, since: int = 0) -> list[tuple[ImportedSum, list[int]]]:
    """What was imported from one installation, or from all. `since`: of this day (an ordinal) and later ones."""
    rows = ImportedDay.objects.filter(day__gte=since)
    if installation is not None:
        rows = rows.filter(installation=installation)
    columns = ("day", "user_id", "token", "channel", "model", *SUMS)
    return [(ImportedSum(*row[:5]), list(row[5:])) for row in rows.values_list(*columns)]


def by_table(sums: Iterable[tuple[ImportedSum, list[int]]]) -> tuple[Added, Added]:
    """The same by the keys of the sums by user and of those by channel, as `relay.usage.rollup` has them."""
    users: Added = defaultdict(lambda: [0] * len(SUMS))
    channels: Added = defaultdict(lambda: [0] * len(SUMS))
    for key, values in sums:
        for found in (users[key.user, key.day, key.token, key.model], channels[key.day, key.channel, key.model]):
            for index, value in enumerate(values):
                found[index] += value
    return users, channels
