"""Options of a connection to MySQL or MariaDB, from those of AIRELAYS_DATABASE_URL. Loads no driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

HOUR: Final = 3600
IDLE_SECONDS: Final = 60
MODES: Final = ("DISABLED", "PREFERRED", "REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY")
_FILES: Final = ("ssl_ca", "ssl_cert", "ssl_key")
_KNOWN: Final = ("charset", "connect_timeout", "ssl_mode", *_FILES, "unix_socket")


def checked(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a URL under the names that are used here. Raises ValueError with what to write instead.

    `ssl-mode` is that of MySQL's own programs: PREFERRED encrypts where the server can, which is the default, REQUIRED
    always, VERIFY_CA and VERIFY_IDENTITY check the certificate too. A file of authorities alone means VERIFY_CA.
    """
    found = {name.replace("-", "_"): value for name, value in options.items()}
    if isinstance(authority := found.pop("ssl", None), dict):  # what dj-database-url makes of `ssl-ca`
        found["ssl_ca"] = authority.get("ca", "")
    if unknown := sorted(found.keys() - set(_KNOWN)):
        raise ValueError(f"there is no option {unknown[0]} of MySQL and MariaDB; there are {', '.join(_KNOWN)}")
    if str(found.setdefault("charset", "utf8mb4")).lower() != "utf8mb4":
        raise ValueError("write charset=utf8mb4, or leave it out: no other takes all texts")
    timeout = found.get("connect_timeout", 1)
    if not isinstance(timeout, int) or isinstance(timeout, bool) or not 1 <= timeout <= HOUR:
        raise ValueError(f"write connect_timeout in whole seconds, from 1 to {HOUR}")
    mode = str(found.get("ssl_mode", "VERIFY_CA" if found.get("ssl_ca") else "PREFERRED")).upper()
    if mode not in MODES:
        raise ValueError(f"write ssl-mode as one of {', '.join(MODES)}")
    found["ssl_mode"] = mode
    for name in _FILES:
        if name in found and not Path(str(found[name])).is_file():
            raise ValueError(f"{name.replace('_', '-')} names no file: {found[name]}")
    return found


def session(statement: int, lock: int, idle: int) -> str:
    """What the server is told of a connection: how it reads values, and after how many seconds it ends waits itself.

    Values that a column does not take are refused, and 0 is a number, whatever the server's own modes are; times are
    in UTC.

    It ends a statement that nobody waits for any more, waits for locks: of rows (its default is 50 seconds) and of
    tables (a day in MariaDB, a year in MySQL), and in MariaDB a transaction in which nothing happens, which belongs to
    a process that was stopped. MariaDB has other names than MySQL, where the time of a statement is for reading alone:
    each skips the other's comment (https://mariadb.com/docs/server/reference/sql-statements/comment-syntax).

    A command, which may be idle for longer, keeps its connection as long, whatever the server's own limit is.
    """
    kept = f", wait_timeout = {idle}" if idle > IDLE_SECONDS else ""
    return (
        "SET SESSION time_zone = '+00:00', sql_mode = 'STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ZERO_DATE,"
        "NO_ZERO_IN_DATE,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO',"
        f" innodb_lock_wait_timeout = {lock}, lock_wait_timeout = {lock}{kept}"
        f" /*!50708 , max_execution_time = {statement * 1000} */ /*M!100101 , max_statement_time = {statement} */"
        f" /*M!100300 , idle_transaction_timeout = {idle} */"
    )
