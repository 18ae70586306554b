"""Checks of the database and of Redis: reachable, migrated, taking writes, whole."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from portal.config import Config
from portal.doctor.report import Check, told
from portal.installation.command import here
from portal.lib import clock
from portal.lib.redaction.redact import redact
from portal.services import redis
from portal.services.database_errors import fault_of
from relay.models import Worker

_INTEGRITY_SECONDS: Final = 20.0  # that reading a whole SQLite file may take
_STEPS: Final = 100_000  # of SQLite's machine between looks at the clock
_NAMES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mysql": "MySQL or MariaDB"}


def database(config: Config) -> Iterator[Check]:
    """Ends with a failure where the other checks would find no tables."""
    data: dict[str, Any] = {"vendor": connection.vendor}
    name = _NAMES.get(connection.vendor, connection.vendor)
    began = time.monotonic()
    try:
        connection.ensure_connection()
        data["connect_ms"] = round((time.monotonic() - began) * 1000)
        missing = missing_migrations()
        if missing:
            yield _outdated(config, missing, data)
            return
        with transaction.atomic():  # takes the lock of a writer, and changes no row
            Worker.objects.filter(name="").update(seen_at=clock.now())
    except (DatabaseError, InterfaceError, ImproperlyConfigured) as error:
        why, remedy = fault_of(error)
        text = _("The database cannot be used: %(why)s.") % {"why": redact(why)[:200]}
        yield Check("database", "fail", text, (_(remedy),), data)
        return
    damage = _damage() if connection.vendor == "sqlite" else None
    if damage:
        text = _("The database file is damaged: %(what)s.") % {"what": damage}
        steps = (_("Stop the portal, keep a copy of the data folder, and restore the newest backup."),)
        yield Check("database", "fail", text, steps, data)
        return
    data["integrity"] = "ok" if damage == "" else "not checked"
    text = _("%(name)s answers, has all migrations and takes writes.") % {"name": name}
    if damage == "":
        text += " " + _("Its file is whole.")
    yield Check("database", "pass", text, data=data)


def missing_migrations() -> int:
    """How many migrations have not been applied. Raises DatabaseError."""
    executor = MigrationExecutor(connection)
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def _outdated(config: Config, missing: int, data: dict[str, Any]) -> Check:
    text = ngettext(
        "The database lacks %(n)d migration: the portal does not serve on it.",
        "The database lacks %(n)d migrations: the portal does not serve on it.",
        missing,
    ) % {"n": missing}
    return Check(
        "database",
        "fail",
        text,
        (_("Run: %(command)s") % {"command": here("init", data_dir=config.data_dir)},),
        {**data, "missing_migrations": missing},
    )


def _damage() -> str | None:
    """What is wrong with an SQLite file; empty: nothing; None: it is too large to be read in the time."""
    until = time.monotonic() + _INTEGRITY_SECONDS
    raw = connection.connection
    raw.set_progress_handler(lambda: int(time.monotonic() > until), _STEPS)
    try:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA quick_check(1)")
            found = str(cursor.fetchone()[0])
    except DatabaseError as error:
        return None if "interrupted" in str(error) else told(error)
    finally:
        raw.set_progress_handler(None, 0)
    return "" if found == "ok" else found.splitlines()[0][:200]


def shared_state(config: Config) -> Iterator[Check]:
    """Redis, where it is configured."""
    if not config.redis_url:
        return
    from redis import Redis, RedisError  # imported only where Redis is configured

    try:
        with Redis.from_url(config.redis_url, **redis.options()) as client:
            began = time.monotonic()
            client.set("airelays:doctor", 1, ex=60)
            took = round((time.monotonic() - began) * 1000)
            memory = client.info("memory")
    except (RedisError, OSError) as error:
        text = _("Redis %(fault)s.") % {"fault": redis.fault_of(error)}
        yield Check("redis", "fail", text, (_("Check that it runs, and AIRELAYS_REDIS_URL."),))
        return
    data = {"ms": took, "maxmemory_policy": memory.get("maxmemory_policy", "")}
    if memory.get("maxmemory") and data["maxmemory_policy"] not in {"", "noeviction"}:
        text = _(
            "Redis drops what it holds when its memory is full (%(policy)s): limits would let too many requests in."
        )
        steps = (_("Set maxmemory-policy to noeviction, or use a Redis of its own for the portal."),)
        yield Check("redis", "warn", text % {"policy": data["maxmemory_policy"]}, steps, data)
        return
    yield Check("redis", "pass", _("Redis takes writes (%(ms)d ms).") % {"ms": took}, data=data)
