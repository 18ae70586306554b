"""Django's settings for AIRELAYS_DATABASE_URL, with a limit to every wait."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any, Final

import dj_database_url
from django.db import DatabaseError

from portal import limits
from portal.services.mysql import options as mysql

_NO_WRITES: Final = frozenset(("25006", "53100"))  # read_only_sql_transaction, disk_full
# ER_OPTION_PREVENTS_STATEMENT, ER_READ_ONLY_MODE, ER_DISK_FULL, ER_RECORD_FILE_FULL, as the first of the arguments
_NO_WRITES_MYSQL: Final = frozenset(((1290,), (1836,), (1021,), (1114,)))
_DUPLICATE_MYSQL: Final = ((1062,), (1586,))  # ER_DUP_ENTRY, ER_DUP_ENTRY_WITH_KEY_NAME
# lock_not_available, deadlock_detected; ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK, ER_LOCK_NOWAIT
_LOCKED: Final = frozenset(("55P03", "40P01"))
_LOCKED_MYSQL: Final = frozenset(((1205,), (1213,), (3572,)))
dj_database_url.register("mariadb", "django.db.backends.mysql")
_ENGINES = {
    "django.db.backends.postgresql": "PostgreSQL",
    "django.db.backends.mysql": "MySQL or MariaDB",
}


def check_database_url(url: str) -> str:
    """Return the URL unchanged. Raises ValueError if it names no supported database."""
    if not url:
        return url
    try:
        parsed: dict[str, Any] = dict(dj_database_url.parse(url))
    except (ValueError, KeyError) as error:
        raise ValueError(
            "write it as postgresql://user:password@host:5432/name or mysql://user:password@host:3306/name, with %40, "
            "%23 and %2F for @, # and / in the password"
        ) from error
    if parsed.get("ENGINE") not in _ENGINES:
        raise ValueError("only postgresql://, mysql:// and mariadb:// databases are served; leave it empty for SQLite")
    needed = "pymysql" if str(parsed["ENGINE"]).endswith("mysql") else "psycopg_pool"
    if importlib.util.find_spec(needed) is None:  # of those who install some of requirements.txt
        package = {"pymysql": "PyMySQL", "psycopg_pool": "psycopg[binary,pool]"}[needed]
        raise ValueError(f"its driver is missing: {sys.executable} -m pip install '{package}'")
    if needed == "pymysql":
        mysql.checked(dict(parsed.get("OPTIONS", {})))
    if not parsed.get("NAME"):
        raise ValueError(
            f"the name of the database is missing at the end, as in {url.partition(':')[0]}://user:password@host/name"
        )
    return url


def takes_no_writes(error: BaseException) -> bool:
    """Whether an error of Django's says that the database answers and takes no writes: it is read-only, or full."""
    cause = error.__cause__
    if not isinstance(error, DatabaseError) or cause is None:
        return False
    if getattr(cause, "sqlstate", None) in _NO_WRITES:  # PostgreSQL
        return True
    if str(getattr(cause, "sqlite_errorname", "")).startswith(("SQLITE_READONLY", "SQLITE_FULL")):
        return True
    return type(cause).__module__.startswith("pymysql") and cause.args[:1] in _NO_WRITES_MYSQL


def is_lock_conflict(error: BaseException) -> bool:
    """Whether an error of Django's says that a lock was not given, in time or at all. The transaction wrote nothing."""
    cause = error.__cause__
    if not isinstance(error, DatabaseError) or cause is None:
        return False
    return getattr(cause, "sqlstate", None) in _LOCKED or cause.args[:1] in _LOCKED_MYSQL


def is_duplicate(error: BaseException) -> bool:
    """Whether an error of Django's says that MySQL has a row of the same key."""
    return error.__cause__ is not None and error.__cause__.args[:1] in _DUPLICATE_MYSQL


def from_url(url: str, connections: int) -> dict[str, Any]:
    """Django's settings for a database URL. PostgreSQL has a connection pool; Django has none for MySQL."""
    found: dict[str, Any] = dict(dj_database_url.parse(url, conn_max_age=0))
    options: dict[str, Any] = found.setdefault("OPTIONS", {})
    if found["ENGINE"].endswith("postgresql"):
        options.setdefault("connect_timeout", limits.DATABASE_SECONDS)
        from portal.services.postgresql import BoundedConnection  # the driver is imported only where it is used

        # After `reconnect_timeout` without a connection the pool waits for the next request instead of ever longer
        # (psycopg's default doubles the pauses for five minutes), so that pages are back as soon as the database is.
        options["pool"] = {
            "min_size": 1,
            "max_size": connections,
            "timeout": limits.DATABASE_SECONDS,
            "reconnect_timeout": 5,
            "connection_class": BoundedConnection,
        }
    else:
        found["ENGINE"] = "portal.services.mysql"
        found["OPTIONS"] = {
            "connect_timeout": limits.DATABASE_SECONDS,
            **mysql.checked(options),
            "isolation_level": "read committed",
            "init_command": mysql.session(limits.QUERY_SECONDS, limits.DATABASE_SECONDS, mysql.IDLE_SECONDS),
        }
    found["TEST"] = {"NAME": found["NAME"]}
    return found
