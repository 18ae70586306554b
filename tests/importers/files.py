"""Databases of other programs, written for a test."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

DATA: Final = Path(__file__).parent / "databases"


def read_json(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / name).read_text(encoding="utf-8"))
    return found


def write_tables(path: Path, tables: Mapping[str, Mapping[str, Any]]) -> Path:
    """An SQLite file with these tables, each with its `columns` and `rows`. Lists and objects become JSON."""
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as connection:
        for table, found in tables.items():
            columns = ", ".join(f'"{name}"' for name in found["columns"])
            connection.execute(f'CREATE TABLE "{table}" ({columns})')
            for row in found["rows"]:
                names: Sequence[str] = list(row)
                values = [json.dumps(row[name]) if isinstance(row[name], (dict, list)) else row[name] for name in names]
                listed, marks = ", ".join(f'"{name}"' for name in names), ", ".join("?" * len(names))
                connection.execute(f'INSERT INTO "{table}" ({listed}) VALUES ({marks})', values)
    connection.close()
    return path


def run_script(path: Path, name: str, values: Sequence[tuple[str, Sequence[Any]]] = ()) -> Path:
    """An SQLite file made by a script of SQL, and by statements with values."""
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as connection:
        connection.executescript((DATA / name).read_text(encoding="utf-8"))
        for statement, given in values:
            connection.execute(statement, given)
    connection.close()
    return path
