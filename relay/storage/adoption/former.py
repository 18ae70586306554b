"""Reads the `state.sqlite3` of AIRelays 0.x: its files and conversations. Only reads; no Django.

Both 0.2.5 and 0.22 have the tables `files` and `conversations`; later versions mark deleted files for a day.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

DATABASE: Final = "state.sqlite3"
_SECONDS: Final = 10.0  # that a lock is waited for


@dataclass(frozen=True, slots=True)
class FormerFile:
    id: str
    filename: str
    purpose: str
    content_type: str
    size: int
    sha256: str
    created_at: int  # seconds since 1970
    path: Path | None  # None: it is not in the folder of uploads


@dataclass(frozen=True, slots=True)
class FormerConversation:
    id: str
    metadata: str  # JSON
    items: str  # JSON
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class FormerState:
    """What is to be taken over. Conversations are read one by one: each may be large."""

    files: Sequence[FormerFile]
    conversations: Iterable[FormerConversation]
    size: int  # how many both are


@contextmanager
def read_former(folder: Path, known: Collection[str]) -> Iterator[FormerState]:
    """What AIRelays 0.x has stored in a data folder, oldest first; empty where it never was. Raises sqlite3.Error.

    `known`: what is left out, as `file:` or `conversation:` and an id.
    """
    path = folder / DATABASE
    if not path.is_file():
        yield FormerState((), (), 0)
        return
    address = f"file:{quote(str(path))}?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=_SECONDS)) as database:
        database.row_factory = sqlite3.Row
        database.text_factory = lambda raw: raw.decode("utf-8", "replace")  # one damaged row is not all of them
        files = tuple(_files(database, folder, known))
        rows = _conversation_rows(database, known)
        yield FormerState(files, _conversations(database, rows), len(files) + len(rows))


def _files(database: sqlite3.Connection, folder: Path, known: Collection[str]) -> Iterator[FormerFile]:
    for row in _rows(database, "files", {"id", "filename", "bytes", "storage_path"}):
        if row.get("deleted_at") is not None or f"file:{row['id']}" in known:
            continue
        yield FormerFile(
            str(row["id"]),
            str(row["filename"]),
            str(row.get("purpose") or ""),
            str(row.get("content_type") or ""),
            _number(row["bytes"]),
            str(row.get("sha256") or ""),
            _number(row.get("created_at")),
            _path(str(row["storage_path"]), folder),
        )


def _path(stored: str, folder: Path) -> Path | None:
    """Where a file is: the folder may have been moved, or copied, since its path was stored.

    Only in the folder of uploads, links followed: a row must not make other files of the machine anybody's uploads.
    """
    uploads = folder / "uploads"
    for path in (uploads / Path(stored).name, Path(stored)):
        try:
            real = path.resolve()
            if real.is_file() and real.is_relative_to(uploads.resolve()):
                return real
        except (OSError, RuntimeError, ValueError):  # a loop of links, or no path
            continue
    return None


def _conversation_rows(database: sqlite3.Connection, known: Collection[str]) -> list[int]:
    """The numbers of the rows of conversations."""
    rows = _rows(database, "conversations", {"id", "metadata_json", "seed_items_json"}, "rowid AS number, id")
    return [row["number"] for row in rows if f"conversation:{row['id']}" not in known]


def _conversations(database: sqlite3.Connection, numbers: Sequence[int]) -> Iterator[FormerConversation]:
    for number in numbers:
        found = database.execute("SELECT * FROM conversations WHERE rowid = ?", (number,)).fetchone()
        if found is None:  # AIRelays 0.x, which runs beside, has deleted it
            continue
        row = dict(found)
        yield FormerConversation(
            str(row["id"]),
            str(row["metadata_json"] or "{}"),
            str(row["seed_items_json"] or "[]"),
            _number(row.get("created_at")),
            _number(row.get("updated_at")),
        )


def _rows(database: sqlite3.Connection, table: str, needed: set[str], what: str = "*") -> list[dict[str, Any]]:
    """The rows of a table, none if it is missing or another program's of the same name."""
    columns = {str(row["name"]) for row in database.execute(f"PRAGMA table_info({table})").fetchall()}
    if not needed <= columns:
        return []
    order = "created_at, rowid" if "created_at" in columns else "rowid"
    return [dict(row) for row in database.execute(f"SELECT {what} FROM {table} ORDER BY {order}").fetchall()]  # noqa: S608


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
