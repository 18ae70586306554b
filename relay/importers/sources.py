"""The programs from which can be imported, and how their databases are opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
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
# Programs that encrypt upstream keys, and the variables in which they have the key of that: the first that is set.
KEY_VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "litellm": ("LITELLM_SALT_KEY", "LITELLM_MASTER_KEY"),
    "gpt-load": ("ENCRYPTION_KEY",),
}


def open_source(program: str, address: str, logs: str = "", key: str = "") -> Source:
    """Open a database of a program of PROGRAMS. Raises SourceUnreadable.

    `key`: what it encrypts upstream keys with; empty: that is in the environment, if anywhere.
    """
    opener: Callable[..., Source] = import_module(_PROGRAMS[program]).open_source
    if program not in KEY_VARIABLES:
        return opener(program, address, logs)
    found = key or next((os.environ[name] for name in KEY_VARIABLES[program] if os.environ.get(name)), "")
    return opener(program, address, logs, found)
