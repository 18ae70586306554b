"""Another database beside the portal's: connections to it, and running what works on the portal's on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import load_backend

from portal.services.databases import from_url
from portal.services.mysql import options as mysql


def connect_sqlite(path: Path) -> BaseDatabaseWrapper:
    """A connection to the file, which is made when it is used, with the settings of a portal on SQLite.

    What a power cut may take is its last transactions: it is synced as a whole when it is closed.
    """
    from django.conf import settings

    options = dict(settings.SQLITE["OPTIONS"])
    options["init_command"] += "PRAGMA synchronous=NORMAL;"
    return _wrapper({**settings.SQLITE, "OPTIONS": options, "NAME": path})


def connect_url(url: str) -> BaseDatabaseWrapper:
    """A connection to a server by its URL, outside any pool; a statement may take an hour there."""
    found = from_url(url, 1)
    options = found["OPTIONS"]
    options.pop("pool", None)
    if "mysql" in found["ENGINE"]:
        options["init_command"] = mysql.session(mysql.HOUR, mysql.HOUR, mysql.HOUR)
    return _wrapper(found)


def _wrapper(found: dict[str, Any]) -> BaseDatabaseWrapper:
    whole = connections.configure_settings({DEFAULT_DB_ALIAS: found})[DEFAULT_DB_ALIAS]
    made: BaseDatabaseWrapper = load_backend(whole["ENGINE"]).DatabaseWrapper(whole, DEFAULT_DB_ALIAS)
    return made


@contextmanager
def as_default(other: BaseDatabaseWrapper) -> Iterator[None]:
    """Inside, in this thread, everything works on another database: models, migrations, proofs."""
    usual = connections[DEFAULT_DB_ALIAS]
    connections[DEFAULT_DB_ALIAS] = other
    ContentType.objects.clear_cache()
    try:
        yield
    finally:
        connections[DEFAULT_DB_ALIAS] = usual
        ContentType.objects.clear_cache()
