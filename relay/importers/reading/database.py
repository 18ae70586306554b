"""The database of another program, opened for reading only: an SQLite file, PostgreSQL, MySQL or MariaDB.

Rows are read in pages by their key, so that no read lock is held while they are worked on: the other program may be
running. Tables and columns that are missing are no error; those that are not asked for are not read.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from relay.importers.description import SourceUnreadable
from relay.importers.reading.row import Row

_PAGE: Final = 5000  # rows of one query
_SECONDS: Final = 10  # that a server is waited for
_BUSY: Final = 30.0  # seconds that a lock of the other program's is waited for
# How programs in Go write the address of a MySQL server: user:password@tcp(host:3306)/name?charset=utf8mb4
_GO: Final = re.compile(
    r"(?P<user>[^:@/]*)(?::(?P<password>.*))?@tcp\((?P<host>[^)]*)\)/(?P<name>[^?]*)(?:\?(?P<options>.*))?", re.DOTALL
)
# Their words for encryption, as modes of MySQL's own programs.
_GO_TLS: Final = {"true": "VERIFY_IDENTITY", "skip-verify": "REQUIRED", "preferred": "PREFERRED", "false": "DISABLED"}
# An address with a mark of its own meaning before the last @ of its first part.
_TORN: Final = re.compile(r"[a-z]+://[^@/?#]*(@[^?]*|[/#][^@?]*|(?<!//):(?!\d+\?)[^@/?#]*\?[^@]*)@", re.IGNORECASE)
_BAD_PORT: Final = "The address of the server cannot be read: check its port."
_SCHEMES: Final = {
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
    "sqlite": "sqlite",
}


class _Connection(Protocol):
    """The part of a DB-API connection that is used."""

    def cursor(self) -> Any: ...
    def close(self) -> None: ...


class Database:
    """One database. `columns` by table; names as the program wrote them."""

    def __init__(self, vendor: str, connection: _Connection, shown: str) -> None:
        self.vendor = vendor
        self.shown = shown  # without a password
        self._connection = connection
        self._mark = "?" if vendor == "sqlite" else "%s"
        self.columns: dict[str, tuple[str, ...]] = self._columns()

    def has(self, table: str, *columns: str) -> bool:
        """Whether there is a table, with these columns."""
        return table in self.columns and set(columns) <= set(self.columns[table])

    def missing(self, table: str, wanted: Sequence[str]) -> list[str]:
        """Which of some columns a table lacks."""
        return [name for name in wanted if name not in self.columns.get(table, ())]

    def rows(
        self, table: str, wanted: Sequence[str], *, key: str = "id", after: Any = None, page: int = _PAGE
    ) -> Iterator[Row]:
        """Yield the rows of a table in the order of a unique column, from behind a value of it.

        Columns that the table lacks are left out of the rows; a table that is missing has none.
        """
        for found in self.pages(table, wanted, key=key, after=after, page=page):
            yield from found

    def pages(
        self, table: str, wanted: Sequence[str], *, key: str = "id", after: Any = None, page: int = _PAGE
    ) -> Iterator[list[Row]]:
        """The same, as lists of rows."""
        if not self.has(table, key):
            return
        there = [name for name in dict.fromkeys([key, *wanted]) if self.has(table, name)]
        listed = ", ".join(self._quoted(name) for name in there)
        begin = f"SELECT {listed} FROM {self._quoted(table)}"  # noqa: S608  # names from the database itself
        order = f"ORDER BY {self._quoted(key)} LIMIT {page}"
        while True:
            if after is None:
                rows = self._all(f"{begin} {order}")
            else:
                rows = self._all(f"{begin} WHERE {self._quoted(key)} > {self._mark} {order}", (after,))
            if rows:
                yield [Row(zip(there, row, strict=True)) for row in rows]
                after = rows[-1][0]
            if len(rows) < page:
                return

    def count(self, table: str) -> int:
        """How many rows a table has; 0 without it."""
        if table not in self.columns:
            return 0
        return int(self._all(f"SELECT COUNT(*) FROM {self._quoted(table)}")[0][0])  # noqa: S608

    def close(self) -> None:
        self._connection.close()

    def _quoted(self, name: str) -> str:
        mark = "`" if self.vendor == "mysql" else '"'
        return mark + name.replace(mark, mark * 2) + mark

    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        try:
            cursor = self._connection.cursor()
            try:
                cursor.execute(sql, tuple(values)) if values else cursor.execute(sql)
                return list(cursor.fetchall())
            finally:
                cursor.close()
        except Exception as error:
            raise SourceUnreadable(f"The database could not be read: {_said(error)}.") from None

    def _columns(self) -> dict[str, tuple[str, ...]]:
        if self.vendor == "sqlite":
            tables = [
                str(row[0]) for row in self._all("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
            ]
            return {
                name: tuple(str(row[1]) for row in self._all(f"PRAGMA table_info({self._quoted(name)})"))
                for name in tables
            }
        schema = "DATABASE()" if self.vendor == "mysql" else "ANY (current_schemas(false))"
        rows = self._all(
            "SELECT table_name, column_name FROM information_schema.columns "  # noqa: S608
            f"WHERE table_schema = {schema} ORDER BY table_name, ordinal_position"
        )
        found: dict[str, list[str]] = {}
        for table, column in rows:
            found.setdefault(str(table), []).append(str(column))
        return {table: tuple(names) for table, names in found.items()}


def open_database(source: str) -> Database:
    """Open what a path or an address names. Raises SourceUnreadable."""
    text = source.strip()
    if go := _GO.fullmatch(text):
        try:
            parts = urlsplit(f"//{go['host']}")
            port = parts.port or 3306
        except ValueError:
            raise SourceUnreadable(_BAD_PORT) from None
        tls = dict(parse_qsl(go["options"] or "")).get("tls", "")
        options = {"ssl_mode": _GO_TLS.get(tls, "VERIFY_IDENTITY")} if tls else {}
        return _mysql(parts.hostname or "", port, go["user"], go["password"] or "", go["name"], options)
    scheme = text.partition("://")[0].lower() if "://" in text else ""
    if not scheme:
        return _sqlite(Path(text))
    vendor = _SCHEMES.get(scheme)
    if vendor is None:
        raise SourceUnreadable("A source is a path of an SQLite file, or begins with mysql:// or postgres://.")
    if vendor == "sqlite":
        return _sqlite(Path(unquote(text.partition("://")[2].partition("?")[0])))
    if _TORN.match(text):  # what is behind the mark would be taken for the server, and named in an error
        raise SourceUnreadable("Write @, #, / and ? in a user's name or password as %40, %23, %2F and %3F.")
    if vendor == "postgresql":
        return _postgresql("postgresql" + text[len(scheme) :])
    try:
        parts = urlsplit(text)
        port = parts.port or 3306
    except ValueError:
        raise SourceUnreadable(_BAD_PORT) from None
    name = unquote(parts.path.strip("/"))
    return _mysql(
        parts.hostname or "", port, unquote(parts.username or ""), unquote(parts.password or ""), name,
        dict(parse_qsl(parts.query)),
    )  # fmt: skip


def _sqlite(path: Path) -> Database:
    if not path.is_file():
        if "@" in str(path) or "=" in str(path):  # an address that is not well-formed may have a password
            raise SourceUnreadable(
                "There is no such file. The address of a server begins with mysql:// or postgres://."
            )
        if path.is_dir():
            raise SourceUnreadable(f"{path} is a folder: name the file of the database in it.")
        raise SourceUnreadable(f"There is no file {path}.")
    if not os.access(path, os.R_OK):
        raise SourceUnreadable(f"The file {path} may not be read by this user.")
    with path.open("rb") as file:
        if file.read(16) != b"SQLite format 3\0":
            raise SourceUnreadable(f"{path} is not an SQLite database.")
    address = f"file:{quote(str(path.resolve()))}?mode=ro"
    wal = path.with_name(path.name + "-wal")
    if not wal.exists() and not os.access(path.parent, os.W_OK):
        address += "&immutable=1"  # a database in WAL mode needs files beside it, which cannot be made here
    try:
        connection = sqlite3.connect(address, uri=True, timeout=_BUSY, check_same_thread=False)
        connection.text_factory = lambda found: found.decode("utf-8", "replace")
        connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        raise SourceUnreadable(f"{path} cannot be opened: {_said(error)}.") from None
    return Database("sqlite", connection, str(path))


def _postgresql(url: str) -> Database:
    import psycopg

    try:
        connection = psycopg.connect(
            url, autocommit=True, connect_timeout=_SECONDS, options="-c default_transaction_read_only=on"
        )
        info = connection.info
        shown = f"postgresql://{info.host}:{info.port}/{info.dbname}"
    except (psycopg.Error, ValueError) as error:
        raise SourceUnreadable(f"The PostgreSQL server cannot be reached: {_said(error)}.") from None
    return Database("postgresql", connection, shown)


def _mysql(host: str, port: int, user: str, password: str, name: str, options: dict[str, str]) -> Database:
    import pymysql  # imported only where it is used

    from portal.services.mysql import driver
    from portal.services.mysql.options import checked

    try:
        known = checked({name: value for name, value in options.items() if name.startswith(("ssl", "unix"))})
    except ValueError as error:
        raise SourceUnreadable(f"The options of the address cannot be used: {error}.") from None
    more: dict[str, Any] = {"unix_socket": known["unix_socket"]} if "unix_socket" in known else {}
    try:
        if (mode := known["ssl_mode"]) == "DISABLED":
            more["ssl_disabled"] = True
        elif mode != "PREFERRED":
            more["ssl"] = driver.tls_context(mode, *(str(known.get(f"ssl_{one}", "")) for one in ("ca", "cert", "key")))
        connection = pymysql.connect(
            host=host or "localhost", port=port, user=user, password=password, database=name, charset="utf8mb4",
            connect_timeout=_SECONDS, autocommit=True, **more,
        )  # fmt: skip
        cursor = connection.cursor()
        cursor.execute("SET SESSION TRANSACTION READ ONLY")
        cursor.close()
    except Exception as error:
        raise SourceUnreadable(f"The MySQL server cannot be reached: {_said(error)}.") from None
    return Database("mysql", connection, f"mysql://{host}:{port}/{name}")


def _said(error: Exception) -> str:
    """What a driver says, on one line. Drivers do not repeat passwords; addresses are cut out all the same."""
    text = " ".join(str(error.args[-1] if error.args else error).split())
    return re.sub(r"\S*://\S*", "…", text)[:200].rstrip(".") or type(error).__name__
