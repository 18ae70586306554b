"""How programs of a database are called."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from portal.backup import programs

PASSWORD = 'se"cr\\et'
CLIENT = """#!/bin/sh
printf '%s\\n' "$@" > "$TOLD/arguments"
cat "${1#--defaults-file=}" > "$TOLD/options"
cat > "$TOLD/input"
"""


def test_the_client_of_mysql_obeys_nothing_in_a_dump_but_sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `--binary-mode` a dump may have it run programs, and without the other one send files of this machine."""
    client = tmp_path / "mariadb"
    client.write_text(CLIENT)
    client.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("TOLD", str(tmp_path))
    dump = tmp_path / "mysql.sql"
    dump.write_text("\\! touch pwned\n")
    about = {"NAME": "portal", "HOST": "127.0.0.1", "USER": "airelays", "PASSWORD": PASSWORD, "OPTIONS": {}}
    database: Any = SimpleNamespace(settings_dict=about)
    programs.load_mysql(database, dump)
    told = (tmp_path / "arguments").read_text().splitlines()
    assert told[0].startswith("--defaults-file=") and told[-1] == "portal"  # which has to be the first
    assert {"--binary-mode", "--local-infile=0"} <= set(told)
    assert not any("cr" in one for one in told)
    assert 'password="se\\"cr\\\\et"' in (tmp_path / "options").read_text()
    assert (tmp_path / "input").read_bytes() == dump.read_bytes()
