"""What a backup says of itself at its beginning, and whether this program can restore it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any, Final

from portal import __version__
from portal.config import Config
from portal.lib import clock

FORMAT: Final = 1
_APPS: Final = ("accounts", "relay")
_NAMES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mysql": "MySQL or MariaDB"}
DUMPS: Final = {"sqlite": "state.sqlite3", "postgresql": "postgresql.dump", "mysql": "mysql.sql"}


class CannotRestore(Exception):
    """This backup cannot be restored here. The message is one or two sentences."""


def about(vendor: str) -> dict[str, Any]:
    """What a backup that is made now says of itself."""
    return {
        "format": FORMAT,
        "version": __version__,
        "made_at": clock.now().isoformat(timespec="seconds"),
        "database": vendor,
        "migrations": {app: max(_migrations(app)) for app in _APPS},
    }


def check(found: dict[str, Any], config: Config) -> None:
    """Raise CannotRestore unless this program, with its settings, can restore a backup."""
    version = str(found.get("version"))[:20]
    if (
        found.get("format") != FORMAT
        or str(found.get("database")) not in DUMPS
        or not isinstance(migrations := found.get("migrations"), dict)
    ):
        raise CannotRestore(f"The backup is in a form that version {__version__} does not know. Install {version}.")
    for app in _APPS:
        if str(migrations.get(app)) not in _migrations(app):
            raise CannotRestore(
                f"The backup was made by version {version}, which is newer than this one ({__version__}). Install "
                "that version, or a newer one, and restore it there."
            )
    there, here = str(found["database"]), vendor_of(config.database_url)
    if there != here:
        raise CannotRestore(
            f"The backup is of {_NAMES[there]}, and these settings name {_NAMES[here]}. Restore it into {_NAMES[there]}"
            f"{' by taking AIRELAYS_DATABASE_URL out' if there == 'sqlite' else ''}, then use `airelays move`."
        )


def vendor_of(database_url: str) -> str:
    """The kind of database that settings name, as Django calls it."""
    if not database_url:
        return "sqlite"
    return "mysql" if database_url.partition(":")[0].startswith(("mysql", "mariadb")) else "postgresql"


def _migrations(app: str) -> set[str]:
    """The names of an app's migrations, which are numbered: without Django, which needs the keys first."""
    found = importlib.util.find_spec(app)
    folders = found.submodule_search_locations if found is not None else None
    return {
        path.stem
        for folder in folders or ()
        for path in Path(folder, "migrations").glob("*.py")
        if re.match(r"\d{4}_", path.name)
    }
