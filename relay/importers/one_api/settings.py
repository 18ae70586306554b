"""The options of the program: a table of names and values, most of them JSON. What is missing is what was compiled in.

Source: one-api 0.6.11-preview.7 (MIT) and new-api 1.0.0-rc.24, read in November 2026. The tables in `defaults/` are the
figures that the programs ship.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any, Final

from portal.lib.json import decode_object
from relay.importers.reading.database import Database
from relay.importers.reading.row import json_of, mapping_of, number_of, text_of

_QUOTA_PER_USD: Final = Decimal(500_000)


class ProgramOptions:
    """The options of one installation."""

    def __init__(self, program: str, database: Database) -> None:
        self._program = program
        self._values = {
            row.text("key"): text_of(row.get("value")) for row in database.rows("options", ("key", "value"), key="key")
        }

    def text(self, name: str) -> str:
        return self._values.get(name, "")

    def flag(self, name: str) -> bool:
        return self.text(name).lower() == "true"

    def json(self, name: str) -> Any:
        """What an option has as JSON; None: it is missing, or no JSON."""
        return json_of(self.text(name))

    def has(self, name: str) -> bool:
        return isinstance(self.json(name), dict)

    def table(self, name: str) -> Mapping[str, Decimal]:
        """Numbers by name; those that are compiled in where the option is missing."""
        return mapping_of(self.text(name)) if self.has(name) else compiled(self._program, name)

    @property
    def quota_per_usd(self) -> Decimal:
        """How many units of quota are one USD."""
        found = number_of(self.text("QuotaPerUnit"))
        return found if found is not None and found > 0 else _QUOTA_PER_USD


@cache
def compiled(program: str, name: str) -> Mapping[str, Decimal]:
    """A table of numbers that the program has without the option."""
    found = decode_object(files(__package__).joinpath("defaults", f"{program}.json").read_bytes()) or {}
    return mapping_of(found.get(name))
