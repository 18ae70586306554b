"""Fixtures: databases that the real programs wrote, unpacked for each test, which may change them."""

from __future__ import annotations

import json
import lzma
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from relay.importers.report import Report
from relay.importers.run import Options, carry_over
from relay.importers.sources import open_source

_DATABASES = Path(__file__).parent / "databases"
# What channels of the databases need beside the public Internet.
PRIVATE = ("192.168.1.50:11434", "llm.acme.internal:443", "10.0.0.0/8")


@dataclass
class Old:
    """An installation of another program."""

    program: str
    path: Path
    facts: dict[str, Any]

    def run(self, sql: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(self.path)) as database:
            found = database.execute(sql, values).fetchall()
            database.commit()
            return found

    def imported(self, **options: Any) -> Report:
        wanted = Options(**{"apply": True, "allow": PRIVATE, **options})
        source = open_source(self.program, str(self.path))
        try:
            return carry_over(source, wanted, source.shown)
        finally:
            source.close()


@pytest.fixture
def unpacked(tmp_path: Path) -> Callable[[str], Old]:
    def unpack(program: str) -> Old:
        path = tmp_path / f"{program}.sqlite3"
        path.write_bytes(lzma.decompress((_DATABASES / f"{program}.sqlite3.xz").read_bytes()))
        return Old(program, path, json.loads((_DATABASES / f"{program}.json").read_text(encoding="utf-8")))

    return unpack


@pytest.fixture(params=["one-api", "new-api"])
def old(request: pytest.FixtureRequest, unpacked: Callable[[str], Old]) -> Old:
    """Of each program."""
    return unpacked(request.param)


@pytest.fixture(autouse=True)
def no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Host names of the databases are looked up nowhere."""

    def unknown(*_: Any, **__: Any) -> Any:
        raise OSError("no name server in tests")

    monkeypatch.setattr("relay.channels.urls.socket.getaddrinfo", unknown)
