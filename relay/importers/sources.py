"""The programs from which can be imported, and how their databases are opened."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Final

from relay.importers.description import Source

# The module of each, whose `open_source(address, logs)` gives it. `logs`: where a log is that has a database of its
# own; empty: in the same one. It raises SourceUnreadable.
_PROGRAMS: Final = {
    "one-api": "relay.importers.one_api.source",
    "new-api": "relay.importers.one_api.source",
    "litellm": "relay.importers.litellm.source",
    "gpt-load": "relay.importers.gpt_load.source",
    "octopus": "relay.importers.octopus.source",
}
PROGRAMS: Final = tuple(_PROGRAMS)


def open_source(program: str, address: str, logs: str = "") -> Source:
    """Open a database of a program of PROGRAMS. Raises SourceUnreadable."""
    opener: Callable[[str, str, str], Source] = import_module(_PROGRAMS[program]).open_source
    return opener(program, address, logs)
