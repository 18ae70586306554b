"""Django's settings for AIRELAYS_DATABASE_URL, with a limit to every wait."""

from __future__ import annotations

import importlib
from typing import Any, Final

import dj_database_url

from portal import limits

HOUR: Final = 3600
MYSQL_WAITS: Final = ("read_timeout", "write_timeout")  # options of its driver
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
            "default-libmysqlclient-dev, then .venv/bin/pip install mysqlclient"
        ) from None


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
        options.setdefault("isolation_level", "read committed")
        options.setdefault("charset", "utf8mb4")
        for wait in MYSQL_WAITS:
            options.setdefault(wait, limits.QUERY_SECONDS)
        # MySQL's own default is 50 seconds.
        options.setdefault("init_command", f"SET SESSION innodb_lock_wait_timeout = {limits.DATABASE_SECONDS}")
    found["TEST"] = {"NAME": found["NAME"]}
    return found
