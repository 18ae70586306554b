"""Home folders as AIRelays 0.2.5 and 0.22.0 left them; `make.py` has made them with the real programs."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

VERSIONS = ("0.2.5", "0.22.0")
FILES = Path(__file__).parent


def home_of(version: str, folder: Path, name: str = "airelays", **changes: str) -> Path:
    """A home folder as a version left it, with other values for some keys of its file. `name`: of its folders."""
    source, data = FILES / version, folder / f".{name}"
    shutil.copytree(source / "data", data)
    config = folder / ".config" / name
    config.mkdir(parents=True)
    text = (source / "config.toml").read_text(encoding="utf-8").replace("{home}/.airelays", str(data))
    for key, value in changes.items():
        lines = [f"{key} = {value}" if line.startswith(f"{key} =") else line for line in text.splitlines()]
        text = "\n".join(lines)
    (config / "config.toml").write_text(text, encoding="utf-8")
    with closing(sqlite3.connect(data / "state.sqlite3")) as database:
        database.executescript((source / "state.sql").read_text(encoding="utf-8").replace("{home}", str(folder)))
    for path in (data, *data.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return folder


def token_of(version: str) -> str:
    return (FILES / version / "data" / "relay-token").read_text(encoding="utf-8").strip()
