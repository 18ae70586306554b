"""The gateways that the fault tests run against: this portal on SQLite or PostgreSQL, LiteLLM's proxy, or any base URL.

The model of a case is named after it, `fault-<case>`; it is served by the faulty upstream first and, if the case has
one, by the spare second.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.faults.cases import IDLE, Case
from bench.speed.peers import INSTALLED
from tests.support.load.targets import started
from tests.support.server import ROOT, free_port

_COLUMNS = ("end_reason", "status", "attempts", "attempt_log", "billing", "cost", "output_tokens")


def model_of(name: str) -> str:
    return "fault-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@dataclass(frozen=True)
class UpstreamUrls:
    """Base URLs of the upstreams."""

    faulty: str
    spare: str
    refused: str
    tls: str

    def of(self, case: Case) -> str:
        return {"upstream": self.faulty, "refused": self.refused, "tls": self.tls}[case.where]


@dataclass
class FaultTarget:
    """A gateway that is being tested."""

    name: str
    base_url: str
    token: str
    process: subprocess.Popen[bytes] | None = None
    query: Callable[[str], list[tuple[Any, ...]]] | None = None  # runs SQL on its database; None: not accessible
    env: dict[str, str] = field(default_factory=dict)
    port: int = 0

    def record(self, request_id: str, seconds: float = 15.0) -> dict[str, Any] | None:
        """Wait for the usage record of a request; None when there is none, or it cannot be read."""
        until = time.monotonic() + seconds
        while self.query is not None and time.monotonic() < until:
            columns = ", ".join(_COLUMNS)
            sql = f"SELECT {columns} FROM relay_usagerecord WHERE request_id = '{request_id}'"  # noqa: S608  # own ids
            rows = self.query(sql)
            if rows:
                found = dict(zip(_COLUMNS, rows[0], strict=True))
                if isinstance(found["attempt_log"], str):
                    found["attempt_log"] = json.loads(found["attempt_log"])
                return found
            time.sleep(0.05)
        return None


@contextmanager
def portal(
    cases: Sequence[Case], others: Sequence[str], urls: UpstreamUrls, folder: Path, database: str = "", redis: str = ""
) -> Iterator[FaultTarget]:
    """Start this portal. `others`: further scripted models, without a spare."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    env = {
        "AIRELAYS_DATA_DIR": str(folder / "data"),
        "AIRELAYS_UPSTREAM_ALLOW": "127.0.0.1",
        "AIRELAYS_IDLE_TIMEOUT": str(IDLE),
        "AIRELAYS_FIRST_BYTE_TIMEOUT": str(IDLE),
        "AIRELAYS_DISCONNECT_READ_SECONDS": "0",  # the other gateways do not read on either
        "AIRELAYS_JOBS": "false",
        "AIRELAYS_DATABASE_URL": database,
        "AIRELAYS_REDIS_URL": redis,
    }
    wanted = {
        "spare": urls.spare,
        "models": [
            {"name": model_of(case.name), "base": urls.of(case), "spare": case.spare, "retry": case.retry}
            for case in cases
        ]
        + [{"name": name, "base": urls.faulty, "spare": False, "retry": "broken"} for name in others],
    }
    (folder / "wanted.json").write_text(json.dumps(wanted))
    made = subprocess.run(
        [sys.executable, "-m", "bench.faults.setup", str(folder / "wanted.json")],
        cwd=ROOT,
        env={**os.environ, **env},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    with started(
        [sys.executable, "manage.py", "serve", "--port", str(port)], port, folder / "portal.log", env
    ) as process:
        target = FaultTarget(
            "portal",
            f"http://127.0.0.1:{port}/v1",
            made.stdout.split()[-1],
            process,
            _query_function(database, folder / "data" / "state.sqlite3"),
            env,
            port,
        )
        yield target
        if target.process is not process and target.process is not None:  # a case has killed and restarted it
            target.process.terminate()
            target.process.wait(30)


@contextmanager
def own_database(server: str) -> Iterator[str]:
    """Create a database on a PostgreSQL server, and drop it afterwards."""
    import psycopg

    name = f"airelays_faults_{os.getpid()}"

    def run(sql: str) -> None:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(sql.encode())

    run(f"CREATE DATABASE {name}")
    try:
        yield f"{server.rpartition('/')[0]}/{name}"
    finally:
        run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _query_function(database: str, path: Path) -> Callable[[str], list[tuple[Any, ...]]]:
    def ask(sql: str) -> list[tuple[Any, ...]]:
        if database:
            import psycopg

            with psycopg.connect(database) as connection:
                return connection.execute(sql.encode()).fetchall()
        with closing(sqlite3.connect(path, timeout=30)) as connection_:
            return connection_.execute(sql).fetchall()

    return ask


@contextmanager
def litellm(cases: Sequence[Case], others: Sequence[str], urls: UpstreamUrls, folder: Path) -> Iterator[FaultTarget]:
    """Start LiteLLM's proxy with the same timeouts, and the spare as the fallback of the faulty upstream."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    models, fallbacks = [], []

    def entry(name: str, upstream_name: str, base: str) -> dict[str, Any]:
        return {
            "model_name": name,
            "litellm_params": {
                "model": f"openai/{upstream_name}",
                "api_base": base,
                "api_key": "sk-x",
                "timeout": IDLE,
                "stream_timeout": IDLE,
            },
        }

    for case in cases:
        name = model_of(case.name)
        models.append(entry(name, name, urls.of(case)))
        if case.spare:
            models.append(entry(f"{name}-spare", name, urls.spare))
            fallbacks.append({name: [f"{name}-spare"]})
    models += [entry(name, name, urls.faulty) for name in others]
    config = {
        "model_list": models,
        "general_settings": {"master_key": "sk-bench"},
        "litellm_settings": {"telemetry": False, "fallbacks": fallbacks, "num_retries": 0},
    }
    (folder / "litellm.yaml").write_text(json.dumps(config))  # JSON is valid YAML
    env = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "NO_DOCS": "True",
        "LITELLM_MODE": "PRODUCTION",
    }
    command = [
        str(INSTALLED / "litellm" / "bin" / "litellm"),
        "--config",
        str(folder / "litellm.yaml"),
        "--port",
        str(port),
        "--host",
        "127.0.0.1",
        "--num_workers",
        "1",
    ]
    with started(command, port, folder / "litellm.log", env) as process:
        time.sleep(8)
        yield FaultTarget("litellm", f"http://127.0.0.1:{port}/v1", "sk-bench", process)
