"""Opens a database of GPT-Load, of version 1 or 2."""

from __future__ import annotations

from pathlib import Path

from relay.importers.description import Source, SourceUnreadable
from relay.importers.gpt_load.sealed import KEY_FILE
from relay.importers.gpt_load.v1 import Version1
from relay.importers.gpt_load.v2 import Version2
from relay.importers.reading.database import open_database


def open_source(program: str, address: str, logs: str = "", key: str = "") -> Source:
    """Open a database. `key`: its ENCRYPTION_KEY; empty: it is in the file that version 2 makes beside its database, or
    there is none. Raises SourceUnreadable.
    """
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
