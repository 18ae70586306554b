"""Databases that other programs wrote, unpacked so that a test may change them."""

from __future__ import annotations

import json
import lzma
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay.importers.pipeline import carry_over
from relay.importers.report import Report
from relay.importers.run import Options
from relay.importers.sources import open_source
from tests.support.server import ROOT

_DATABASES = ROOT / "tests" / "importers" / "databases"
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


def unpack(program: str, folder: Path) -> Old:
    path = folder / f"{program}.sqlite3"
    path.write_bytes(lzma.decompress((_DATABASES / f"{program}.sqlite3.xz").read_bytes()))
    return Old(program, path, json.loads((_DATABASES / f"{program}.json").read_text(encoding="utf-8")))
