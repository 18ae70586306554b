"""Django's settings for AIRELAYS_DATABASE_URL, with a limit to every wait."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

import dj_database_url
from django.db import DatabaseError

from portal import limits

HOUR: Final = 3600
_NO_WRITES: Final = frozenset(("25006", "53100"))  # read_only_sql_transaction, disk_full
# ER_OPTION_PREVENTS_STATEMENT, ER_READ_ONLY_MODE, ER_DISK_FULL, ER_RECORD_FILE_FULL, as the first of the arguments
_NO_WRITES_MYSQL: Final = frozenset(((1290,), (1836,), (1021,), (1114,)))
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
        raise ValueError("write it as postgresql://user:password@host:5432/name") from error
    if parsed.get("ENGINE") not in _ENGINES:
        raise ValueError("only postgresql:// and mysql:// databases are served; leave it empty for SQLite")
    if "mysql" in str(parsed["ENGINE"]):
        _load_mysql()
    if not parsed.get("NAME"):
        raise ValueError(
            "the name of the database is missing at the end, as in postgresql://user:password@host:5432/airelays"
        )
    return url


def _load_mysql() -> None:
    """Raise ValueError unless MySQL's driver can be loaded: it is no requirement, since it has to be compiled."""
    try:
        importlib.import_module("MySQLdb")
    except ImportError as error:
        raise ValueError(
            f"mysql:// needs the package mysqlclient ({error}): apt install gcc pkg-config python3-dev "
            f"default-libmysqlclient-dev, then {sys.executable} -m pip install mysqlclient"
        ) from None


def mysql_waits(statement: int, lock: int) -> dict[str, Any]:
    """Options of MySQL's driver that end waits for a statement and for a lock after so many seconds.

    The driver gives a server up that does not answer; the server itself ends a statement that nobody waits for any
    more, and waits for locks: of rows (its default is 50 seconds) and of tables (a day in MariaDB, a year in MySQL).
    MariaDB has another name for the time of a statement than MySQL, where it is for reading alone: each skips the
    other's comment (https://mariadb.com/docs/server/reference/sql-statements/comment-syntax).
    """
    return {
        "read_timeout": statement,
        "write_timeout": statement,
        "init_command": (
            f"SET SESSION innodb_lock_wait_timeout = {lock}, lock_wait_timeout = {lock}"
            f" /*!50708 , max_execution_time = {statement * 1000} */ /*M!100101 , max_statement_time = {statement} */"
        ),
    }


def takes_no_writes(error: BaseException) -> bool:
    """Whether an error of Django's says that the database answers and takes no writes: it is read-only, or full."""
    cause = error.__cause__
    if not isinstance(error, DatabaseError) or cause is None:
        return False
    if getattr(cause, "sqlstate", None) in _NO_WRITES:  # PostgreSQL
        return True
    if str(getattr(cause, "sqlite_errorname", "")).startswith(("SQLITE_READONLY", "SQLITE_FULL")):
        return True
    return type(cause).__module__.startswith("MySQLdb") and cause.args[:1] in _NO_WRITES_MYSQL


def from_url(url: str, connections: int) -> dict[str, Any]:
    """Django's settings for a database URL. PostgreSQL has a connection pool; Django has none for MySQL."""
    found: dict[str, Any] = dict(dj_database_url.parse(url, conn_max_age=0))
    options: dict[str, Any] = found.setdefault("OPTIONS", {})
    options.setdefault("connect_timeout", limits.DATABASE_SECONDS)
    if found["ENGINE"].endswith("postgresql"):
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
        options.setdefault("isolation_level", "read committed")
        options.setdefault("charset", "utf8mb4")
        for wait, value in mysql_waits(limits.QUERY_SECONDS, limits.DATABASE_SECONDS).items():
            options.setdefault(wait, value)
    found["TEST"] = {"NAME": found["NAME"]}
    return found
