"""Opens a database of GPT-Load, of version 1 or 2."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from relay.importers.description import Source, SourceUnreadable
from relay.importers.gpt_load.sealed import KEY_FILE
from relay.importers.gpt_load.v1 import Version1
from relay.importers.gpt_load.v2 import Version2
from relay.importers.reading.database import open_database

_VARIABLE: Final = "ENCRYPTION_KEY"


def open_source(program: str, address: str, logs: str = "") -> Source:
    """Open a database. The key of what is encrypted is in the environment, under GPT-Load's own name of it, or in the
    file that version 2 makes beside its database. Raises SourceUnreadable.
    """
    key = os.environ.get(_VARIABLE, "")
    database = open_database(address)
    if database.has("access_keys", "key_hash") and database.has("upstream_keys"):
        return Version2(database, key or _key_beside(address))
    if database.has("groups", "channel_type") and database.has("api_keys"):
        return Version1(database, key)
    database.close()
    raise SourceUnreadable("This is no database of GPT-Load: it has none of its tables.")


def _key_beside(address: str) -> str:
    """What the key file beside an SQLite database has; empty: there is none."""
    try:
        return Path(address).with_name(KEY_FILE).read_text(encoding="utf-8").strip() if "://" not in address else ""
    except (OSError, ValueError):
        return ""
