"""Compares databases: `python -m bench.speed.databases [--postgresql URL] [--mariadb URL] [--repeats 5]`.

A portal for each database is started, and each measurement is taken of all of them in turn, several times, so that what
else this machine does touches them alike. CPU is that of the gateway's processes per request, the least of the repeats;
the server of the database is not counted. Statements are counted by the servers: PostgreSQL needs the extension
pg_stat_statements for it, and both must be used by nobody else meanwhile. The databases are emptied first.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pymysql

from tests.support.load.targets import BenchTarget, load, portal, started
from tests.support.server import free_port

# (case, connections, requests of one repeat)
_CASES = (("plain", 1, 1000), ("plain", 20, 4000), ("plain", 200, 4000), ("burst", 20, 2000), ("burst", 200, 2000))
_STREAMS = ("paced", 200, 1000)  # of which the p99 is compared
_LIMITS = {1: 1.4, 20: 1.15, 200: 1.15}  # of CPU, times SQLite's, by connections
_MOST_STATEMENTS = 120  # per 1,000 requests at 200 connections
_MOST_P99 = 1.3  # of streams, times SQLite's


class _Server:
    """A database that the portal is pointed to, and the number of statements that it has executed."""

    env: dict[str, str]

    def __init__(self, name: str, url: str = "") -> None:
        self.name, self.url = name, url
        self.env = {"AIRELAYS_DATABASE_URL": url} if url else {}

    def empty(self) -> None:
        """Delete everything in the database."""

    def statements(self) -> dict[str, int] | None:
        """How often each statement has been executed; None where that is not counted."""
        return None


class _PostgreSql(_Server):
    def empty(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
            try:
                connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            except psycopg.Error as error:
                print(f"statements of PostgreSQL are not counted: {error}", file=sys.stderr)

    def statements(self) -> dict[str, int] | None:
        sql = (
            "SELECT s.query, SUM(s.calls)::bigint FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid "
            "WHERE d.datname = current_database() AND s.query NOT LIKE '%%pg_stat_statements%%' "
            "AND s.query NOT LIKE '%% FROM ONLY %%' GROUP BY s.query"
        )
        try:
            with psycopg.connect(self.url, autocommit=True) as connection:
                return dict(connection.execute(sql).fetchall())
        except psycopg.Error:
            return None


class _MariaDb(_Server):
    def empty(self) -> None:
        name = urlsplit(self.url).path.strip("/")
        self._ask(f"DROP DATABASE IF EXISTS `{name}`", database=False)
        self._ask(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4", database=False)

    def statements(self) -> dict[str, int] | None:
        return {name: int(count) for name, count in self._ask("SHOW GLOBAL STATUS LIKE 'Com\\_%'")} | {
            "all": int(self._ask("SHOW GLOBAL STATUS LIKE 'Questions'")[0][1])
        }

    def _ask(self, sql: str, database: bool = True) -> list[Any]:
        parts = urlsplit(self.url)
        options = {"database": parts.path.strip("/")} if database else {}
        connection = pymysql.connect(
            host=parts.hostname, port=parts.port or 3306, user=parts.username, password=parts.password or "", **options
        )
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return list(cursor.fetchall())
        finally:
            connection.close()


@dataclass
class _Figures:
    """What was measured of one database in one case."""

    cpu: list[float] = field(default_factory=list)  # ms per request, one for each repeat
    p99: list[float] = field(default_factory=list)  # ms
    statements: list[float] = field(default_factory=list)  # per 1,000 requests
    kinds: dict[str, float] = field(default_factory=dict)  # the same of each statement, of the last repeat


def _measure(server: _Server, target: BenchTarget, case: tuple[str, int, int], found: _Figures) -> None:
    before = server.statements()
    row = load(target, *case)
    after = server.statements()
    if row["errors"]:
        sys.exit(f"{server.name}: {row['errors']} errors: {row['first_errors']}")
    found.cpu.append(row["cpu_ms"])
    found.p99.append(row["p99_ms"])
    if before is not None and after is not None:
        per_thousand = 1000 / row["requests"]
        kinds = {sql: (count - before.get(sql, 0)) * per_thousand for sql, count in after.items()}
        found.kinds = {sql: count for sql, count in kinds.items() if count > 0}
        found.statements.append(found.kinds.pop("all", sum(found.kinds.values())))


@contextmanager
def _portals(servers: list[_Server], folder: Path) -> Iterator[list[BenchTarget]]:
    upstream = free_port()
    command = [sys.executable, "-m", "tests.support.load.upstream", str(upstream)]
    with started(command, upstream, folder / "upstream.log"), ExitStack() as stack:
        targets = []
        for server in servers:
            server.empty()
            (folder / server.name).mkdir()
            targets.append(stack.enter_context(portal(upstream, folder / server.name, server.env)))
            load(targets[-1], "plain", 20, 2000)  # warm
        yield targets


def _report(case: tuple[str, int, int], figures: list[_Figures], servers: list[_Server]) -> list[str]:
    """Print a case as rows of a table. Returns what exceeds its limit."""
    name, connections, _ = case
    faults: list[str] = []
    for server, found in zip(servers, figures, strict=True):
        cpu, p99 = min(found.cpu) / min(figures[0].cpu), min(found.p99) / min(figures[0].p99)
        statements = min(found.statements, default=None)
        said = "" if statements is None else f"{statements:.0f}"
        print(
            f"| {name} | {connections} | {server.name} | {min(found.cpu):.3f} | {cpu:.2f} | {min(found.p99):.1f} | "
            f"{p99:.2f} | {said} |",
            flush=True,
        )
        where = f"{server.name}, {name} at {connections}"
        if case == _STREAMS:
            faults += [f"{where}: p99 is {p99:.2f} times SQLite's"] if p99 > _MOST_P99 else []
            continue
        faults += [f"{where}: CPU is {cpu:.2f} times SQLite's"] if cpu > _LIMITS[connections] else []
        if statements is not None and connections == 200 and statements > _MOST_STATEMENTS:
            faults.append(f"{where}: {statements:.0f} statements per 1,000 requests")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgresql", default="", help="URL of a database that is emptied")
    parser.add_argument("--mariadb", default="", help="URL of a database that is emptied")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cases", default="", help="such as plain:20,paced:200; default: all")
    parser.add_argument("--kinds", action="store_true", help="print which statements they were, per 1,000 requests")
    options = parser.parse_args()
    servers: list[_Server] = [_Server("SQLite")]
    servers += [_PostgreSql("PostgreSQL", options.postgresql)] if options.postgresql else []
    servers += [_MariaDb("MariaDB", options.mariadb)] if options.mariadb else []
    wanted = options.cases.split(",") if options.cases else []
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="airelays-bench-") as name, _portals(servers, Path(name)) as targets:
        print("| case | connections | database | CPU ms/request | times SQLite | p99 ms | times | statements/1,000 |")
        print("|---|--:|---|--:|--:|--:|--:|--:|")
        for case in (*_CASES, _STREAMS):
            if wanted and f"{case[0]}:{case[1]}" not in wanted:
                continue
            figures = [_Figures() for _ in servers]
            for _ in range(options.repeats):
                for server, target, found in zip(servers, targets, figures, strict=True):
                    _measure(server, target, case, found)
            faults += _report(case, figures, servers)
            for server, found in zip(servers, figures, strict=True):
                for sql, count in sorted(found.kinds.items(), key=lambda kind: -kind[1])[: 30 if options.kinds else 0]:
                    print(f"    {server.name} {count:8.1f}  {' '.join(sql.split())[:150]}")
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
