"""Why a database cannot be used, and what to do about it: a sentence each, for commands and the doctor."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from django.db import NotSupportedError, connection

from portal.lib.texts import gettext_noop, reason


class Fault(NamedTuple):
    """`reason` is what the server or its driver said, without a stop at its end; `remedy` is translated."""

    reason: str
    remedy: str


_CHECK: Final = gettext_noop("Check that it runs, that its disk has room, and AIRELAYS_DATABASE_URL.")
_START: Final = gettext_noop("Start it, or correct host and port in AIRELAYS_DATABASE_URL.")
_SIGN_IN: Final = gettext_noop(
    "Correct user and password in AIRELAYS_DATABASE_URL; characters such as @, # and / in them are written as %40, %23 "
    "and %2F."
)
_CREATE: Final = gettext_noop(
    "Create it with CREATE DATABASE, or correct its name at the end of AIRELAYS_DATABASE_URL."
)
_GRANT: Final = gettext_noop("Let the user of AIRELAYS_DATABASE_URL in with GRANT ALL PRIVILEGES ON this database.")
_CONNECTIONS: Final = gettext_noop(
    "Raise the server's max_connections, or lower AIRELAYS_WORKERS or AIRELAYS_DATABASE_CONNECTIONS."
)
_TLS: Final = gettext_noop(
    "Correct the options for TLS at the end of AIRELAYS_DATABASE_URL, or turn TLS on in the server."
)
_UPGRADE: Final = gettext_noop("Upgrade the server.")
_OPTIONS: Final = gettext_noop("Correct the options at the end of AIRELAYS_DATABASE_URL.")

_OF_MYSQL: Final = {
    2002: _START, 2003: _START, 1045: _SIGN_IN, 1698: _SIGN_IN, 1049: _CREATE, 1044: _GRANT, 1142: _GRANT, 1130: _GRANT,
    1040: _CONNECTIONS, 1203: _CONNECTIONS, 1226: _CONNECTIONS, 2026: _TLS,
}  # fmt: skip
"""Numbers of errors: https://mariadb.com/docs/server/reference/error-codes/mariadb-error-code-reference"""
_OF_POSTGRESQL: Final = {"28P01": _SIGN_IN, "28000": _SIGN_IN, "3D000": _CREATE, "42501": _GRANT, "53300": _CONNECTIONS}
"""SQLSTATEs: https://www.postgresql.org/docs/current/errcodes-appendix.html"""
_IN_WORDS: Final = (  # of libpq, which gives no SQLSTATE for a connection that failed
    (r"password authentication failed|no password supplied|role .* does not exist|no pg_hba\.conf entry", _SIGN_IN),
    (r"database .* does not exist", _CREATE),
    (r"permission denied", _GRANT),
    (r"too many (clients|connections)|remaining connection slots", _CONNECTIONS),
    (r"SSL|certificate", _TLS),
    (r"invalid connection option|invalid .* value", _OPTIONS),
    (r"refused|No such file|Name or service|name resolution|translate host name|resolve host|timeout|No route", _START),
)


def fault_of(error: BaseException, vendor: str = "") -> Fault:
    """What an error of Django's says of the database, and what to do. May connect to PostgreSQL to find out.

    `vendor`: of another database than the portal's, to which the error belongs.
    """
    if isinstance(error, NotSupportedError):  # Django asks for a newer version
        return Fault(_line(reason(error)), _UPGRADE)
    arguments = error.args
    if len(arguments) > 1 and isinstance(arguments[0], int):  # as MySQL's drivers raise them
        return Fault(_line(str(arguments[1])), _OF_MYSQL.get(arguments[0], _CHECK))
    if (vendor or connection.vendor) == "postgresql":
        cause = _behind_the_pool(error.__cause__ or error)
        said = _line(reason(cause))
        state = getattr(cause, "sqlstate", None) or ""
        in_words = next((remedy for words, remedy in _IN_WORDS if re.search(words, said)), _CHECK)
        return Fault(said, _OF_POSTGRESQL.get(state, in_words))
    return Fault(_line(reason(error)), _CHECK)


def one_line_is_enough() -> None:
    """For commands that tell the fault themselves: the pool tells each try to connect."""
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """The same inside, for what serves afterwards."""
    logger = logging.getLogger("psycopg.pool")
    before = logger.level
    one_line_is_enough()
    try:
        yield
    finally:
        logger.setLevel(before)


def waited_for_the_pool(error: BaseException) -> bool:
    """Whether it is known already that there is no connection: another try would take as long."""
    return any(type(one).__name__ == "PoolTimeout" for one in (error, error.__cause__))


def _line(said: str) -> str:
    """The first line, without what every one of libpq's begins with."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or [""]
    return re.sub(r"\[Errno -?\d+\] ", "", lines[0].removeprefix("connection failed: ")).rstrip(".")


def _behind_the_pool(error: BaseException) -> BaseException:
    """Why the pool got no connection, of which it says nothing but that it waited: tried once without it."""
    if not waited_for_the_pool(error):
        return error
    import psycopg  # imported only where it is used

    from portal.services.postgresql import BoundedConnection

    try:
        BoundedConnection.connect(**connection.get_connection_params()).close()
    except psycopg.Error as cause:
        return cause
    return error
