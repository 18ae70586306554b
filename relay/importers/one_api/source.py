"""one-api and new-api: two programs of one family, whose databases have the same tables with other columns.

Source: one-api 0.6.11-preview.7 (MIT) and new-api 1.0.0-rc.24, read in November 2026.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Final

from relay.importers.description import (
    Level,
    Remark,
    SourceChannel,
    SourceCode,
    SourceGroup,
    SourceModel,
    SourcePrice,
    SourceToken,
    SourceUnreadable,
    SourceUser,
)
from relay.importers.one_api import people
from relay.importers.one_api.channels import ChannelReader, ReadChannel
from relay.importers.one_api.logs import LogReader
from relay.importers.one_api.people import PeopleReader, TokenGroups
from relay.importers.one_api.prices import Prices, id_of_model
from relay.importers.one_api.settings import ProgramOptions
from relay.importers.reading.database import Database, open_database
from relay.importers.usage_sums import UsageChunk

_TITLES: Final = {"one-api": "One API", "new-api": "New API"}
_TABLES: Final = ("users", "tokens", "channels", "options", "redemptions", "logs")
_NEEDED: Final = ("users", "tokens", "channels")
# Columns that one program alone has, by table.
_NEW: Final = (("tokens", "model_limits"), ("channels", "auto_ban"), ("channels", "tag"), ("users", "aff_quota"))
_OTHERS: Final = (("channels", "only_chat", "one-hub"),)


class OneApiSource:
    """A database of one of the two programs."""

    def __init__(self, program: str, database: Database, logs: Database | None = None) -> None:
        self.program, self.title = program, _TITLES[program]
        self._database, self._logs = database, logs
        self.shown = database.shown
        self._options = ProgramOptions(program, database)
        self._people = PeopleReader(program, database, self._options)

    @cached_property
    def _channels(self) -> list[ReadChannel]:
        return list(ChannelReader(self.program, self._database).read())

    @cached_property
    def _groups(self) -> TokenGroups:
        models: dict[str, set[str]] = {}
        for read in self._channels:
            if not read.channel.left_out and read.channel.enabled:
                for group in read.channel.groups or ():
                    models.setdefault(group, set()).update(route.model for route in read.channel.routes)
        auto = self._options.json("AutoGroups")
        return TokenGroups(
            {group: frozenset(names) for group, names in models.items()},
            self._options.table("GroupRatio"),
            tuple(str(one) for one in auto) if isinstance(auto, list) else ("default",),
        )

    @cached_property
    def _owners(self) -> dict[str, str]:
        return self._people.group_of_users()

    def about(self) -> Sequence[Remark]:
        found = list(people.about(self._database, self._options))
        for table in _TABLES:
            if table not in self._database.columns and not (table == "logs" and self._logs is not None):
                found.append(Remark(f"The table “{table}” is missing: nothing of it is carried over.", Level.LEFT_OUT))
        return found

    def groups(self) -> Iterator[SourceGroup]:
        used = [*self._owners.values(), *(group for read in self._channels for group in read.channel.groups or ())]
        return self._people.groups(iter(used))

    def users(self) -> Iterator[SourceUser]:
        return self._people.users(self._people.groups_by_user(self._groups, self._owners))

    def models(self) -> Iterator[SourceModel]:
        """Every model of a channel that is carried over, permitted to the groups of its channels."""
        groups: dict[str, set[str]] = {}
        for read in self._channels:
            if not read.channel.left_out:
                for route in read.channel.routes:
                    groups.setdefault(route.model, set()).update(read.channel.groups or ())
        for name, permitted in groups.items():
            yield SourceModel(id=id_of_model(name), name=name, groups=tuple(sorted(permitted)))

    def channels(self) -> Iterator[SourceChannel]:
        return (read.channel for read in self._channels)

    def prices(self) -> Iterator[SourcePrice]:
        usable = ((read.channel, read.type, read.mapping) for read in self._channels if not read.channel.left_out)
        return Prices(self.program, self._options).of_channels(usable)

    def tokens(self) -> Iterator[SourceToken]:
        return self._people.tokens(self._groups, self._owners)

    def codes(self) -> Iterator[SourceCode]:
        return self._people.codes()

    def usage(self, after: int) -> Iterator[UsageChunk]:
        names: dict[tuple[str, str], str] = {}
        if self.program == "one-api":  # whose log has no ids of tokens
            for token in self._people.tokens(self._groups, self._owners):
                place = (token.user, token.name)
                names[place] = "" if place in names else token.id
        return LogReader(self.program, self._logs or self._database, self._options.quota_per_usd).chunks(after, names)

    def close(self) -> None:
        self._database.close()
        if self._logs is not None:
            self._logs.close()


def open_source(program: str, address: str, logs: str = "") -> OneApiSource:
    """Open a database of `one-api` or `new-api`. Raises SourceUnreadable."""
    database = open_database(address)
    missing = [table for table in _NEEDED if table not in database.columns]
    if missing:
        database.close()
        raise SourceUnreadable(f"This is no database of {program}: the table “{missing[0]}” is missing.")
    found = _program_of(database)
    if found != program:
        database.close()
        raise SourceUnreadable(f"This is a database of {found}, not of {program}.")
    try:
        return OneApiSource(program, database, open_database(logs) if logs else None)
    except SourceUnreadable:
        database.close()
        raise


def _program_of(database: Database) -> str:
    for table, column, program in _OTHERS:
        if database.has(table, column):
            return program
    return "new-api" if any(database.has(table, column) for table, column in _NEW) else "one-api"
