"""How programs of a database are called."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from portal.backup import programs
from portal.services.databases import from_url

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


PG_DUMP = """#!/bin/sh
printf '%s\\n' "$@" > "$TOLD/arguments"
[ -z "$PGSERVICEFILE" ] || cat "$PGSERVICEFILE" > "$TOLD/service"
[ -z "$PGSERVICEFILE" ] || stat -c %a "$PGSERVICEFILE" > "$TOLD/mode"
printf '%s' "$PGPASSWORD" > "$TOLD/password"
"""


def dumped(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The arguments of pg_dump for a database URL."""
    program = tmp_path / "pg_dump"
    program.write_text(PG_DUMP)
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("TOLD", str(tmp_path))
    database: Any = SimpleNamespace(settings_dict=from_url(url, 2))
    programs.dump_postgresql(database, "00000003-1", tmp_path / "dump")
    return (tmp_path / "arguments").read_text()


def test_no_secret_of_a_url_is_among_the_arguments_of_pg_dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = "sslpassword=of-a%20key&scram_client_key=c-l-i"
    told = dumped(f"postgresql://me:hidden@db/portal?sslmode=require&{secrets}", tmp_path, monkeypatch)
    assert "dbname=portal" in told and "sslmode=require" in told and "service=airelays" in told
    assert not any(one in told for one in ("hidden", "of-a key", "c-l-i"))
    lines = (tmp_path / "service").read_text().splitlines()
    assert lines == ["[airelays]", "scram_client_key=c-l-i", "sslpassword=of-a key"]
    assert (tmp_path / "mode").read_text().strip() == "600" and (tmp_path / "password").read_text() == "hidden"
    assert "service=" not in dumped("postgresql://me:hidden@db/portal?application_name=a", tmp_path, monkeypatch)
    with pytest.raises(programs.ProgramFailed, match="PGSERVICEFILE") as error:
        dumped("postgresql://me@db/portal?service=mine&sslpassword=hidden", tmp_path, monkeypatch)
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize(
    ("query", "lines"),
    [
        ("", []),
        ("?ssl-mode=REQUIRED", ["loose-ssl-mode", "loose-ssl-verify-server-cert", "loose-ssl"]),
        ("?ssl-ca={ca}", ['ssl-ca="{ca}"', 'loose-ssl-mode="VERIFY_CA"']),
        ("?ssl-mode=VERIFY_IDENTITY&ssl-ca={ca}", ['ssl-ca="{ca}"', 'loose-ssl-verify-server-cert="1"']),
        ("?ssl-mode=DISABLED", ['loose-ssl="0"']),
        ("?unix_socket=/run/mysqld/mysqld.sock", ['socket="/run/mysqld/mysqld.sock"']),
    ],
)
def test_the_client_of_mysql_connects_as_the_portal_does(query: str, lines: list[str], tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("a certificate")
    database: Any = SimpleNamespace(settings_dict=from_url(f"mysql://me:pw@db/portal{query.format(ca=ca)}", 2))
    with programs._mysql(database) as options:
        told = Path(options[0].removeprefix("--defaults-file=")).read_text()
    assert all(line.format(ca=ca) in told for line in lines) and ("ssl" in told) is ("ssl" in query)
    assert ('protocol="tcp"' in told) is ("socket" not in query)  # clients take `localhost` for a socket
    assert 'password="pw"' in told and ('host="db"' in told) is ("socket" not in query)
