"""Other gateways for `bench.speed.run`: each is installed once, below `bench/.peers`, and started on 127.0.0.1.

Sources: the package pages of `ferrogw` and `rolter` at PyPI, of `@portkey-ai/gateway` at npm and of `litellm` at PyPI,
read in November 2026. Settings are those with which each does the least beside relaying, but for `ferrogw-log`, which
checks a token and records every request in SQLite.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from tests.support.load.targets import BenchTarget, started
from tests.support.server import ROOT, free_port

INSTALLED: Final = ROOT / "bench" / ".peers"
LITELLM: Final = "litellm[proxy]==1.106.2"
FERROGW: Final = "ferrogw==1.5.10"
ROLTER: Final = "rolter==0.1.0"
PORTKEY: Final = "@portkey-ai/gateway@1.15.2"
PORTKEY_SERVER: Final = "1.13.8"  # of @hono/node-server: with 1.19 its streams are 500s
SLOW: Final = frozenset({"litellm"})  # gets a tenth of the requests: it would take an hour otherwise
MODELS: Final = ("plain", "burst", "paced")


def installed(name: str, requirement: str) -> Path:
    """The programs of a package of PyPI, which is installed into an environment of its own once."""
    folder = INSTALLED / name
    if not (folder / ".done").exists():
        print(f"installing {requirement} into {folder} (once)…", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "python"), "-m", "pip", "install", "-q", requirement], check=True)
        (folder / ".done").touch()
    return folder / "bin"


@contextmanager
def litellm(upstream: int, folder: Path) -> Iterator[BenchTarget]:
    """LiteLLM's proxy with a master key and no database, so that it records nothing."""
    port = free_port()
    program = installed("litellm", LITELLM) / "litellm"
    config = folder / "litellm.yaml"
    models = "".join(
        f"  - model_name: {name}\n    litellm_params: {{model: openai/{name}, api_base: "
        f"'http://127.0.0.1:{upstream}/v1', api_key: sk-x}}\n"
        for name in MODELS
    )
    config.write_text(
        f"model_list:\n{models}general_settings:\n  master_key: sk-bench\nlitellm_settings:\n  telemetry: false\n"
    )
    env = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "NO_DOCS": "True",
        "LITELLM_MODE": "PRODUCTION",
    }
    options = ["--config", str(config), "--port", str(port), "--host", "127.0.0.1", "--num_workers", "1"]
    with started([str(program), *options], port, folder / "litellm.log", env) as process:
        time.sleep(5)
        yield BenchTarget("litellm", port, process)


@contextmanager
def ferrogw(upstream: int, folder: Path, durable: bool = False) -> Iterator[BenchTarget]:
    """Ferro Labs' gateway, in Go: open and without records, or with tokens and a request log in SQLite (`durable`)."""
    port, name, token = free_port(), "ferrogw-log" if durable else "ferrogw", "fgw_bench_master"
    program = installed("ferrogw", FERROGW) / "ferrogw"
    config, log = folder / f"{name}.yaml", folder / "log.db"
    text = (
        "apiVersion: v1\nstrategy: {mode: single}\ntargets:\n"
        f"  - virtual_key: openai\n    models: [{', '.join(MODELS)}]\n"
    )
    env = {
        "GATEWAY_CONFIG": str(config),
        "PORT": str(port),
        "OPENAI_API_KEY": "sk-x",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream}/v1",
        "MASTER_KEY": token,
        "RATE_LIMIT_RPS": "0",
        "LOG_LEVEL": "error",
    }
    if durable:
        entry = (
            "  - {{name: request-logger, type: logging, stage: {}, enabled: true, config: {{level: error, persist: "
            "true}}}}\n"
        )
        text += "plugins:\n" + entry.format("after_request") + entry.format("on_error")
        env |= {
            "API_KEY_STORE_BACKEND": "sqlite",
            "API_KEY_STORE_DSN": str(folder / "keys.db"),
            "REQUEST_LOG_STORE_BACKEND": "sqlite",
            "REQUEST_LOG_STORE_DSN": str(log),
        }
    else:
        env["ALLOW_UNAUTHENTICATED_PROXY"] = "true"
    config.write_text(text)
    with started([str(program), "serve"], port, folder / f"{name}.log", env) as process:
        time.sleep(1)
        recorded = partial(_rows, log, "SELECT count(*) FROM request_logs") if durable else None
        yield BenchTarget(name, port, process, token=token, recorded=recorded)


def _rows(file: Path, query: str) -> int:
    with closing(sqlite3.connect(file)) as database:
        return int(database.execute(query).fetchone()[0])


@contextmanager
def rolter(upstream: int, folder: Path) -> Iterator[BenchTarget]:
    """A gateway in Rust, open and without records."""
    port = free_port()
    config = folder / "rolter.toml"
    routes = "".join(
        f'[[routes]]\nmodel = "{name}"\nstrategy = "round_robin"\n[[routes.targets]]\nprovider = "up"\n'
        f'model = "{name}"\n'
        for name in MODELS
    )
    config.write_text(
        f'[server]\nhost = "127.0.0.1"\nport = {port}\n[[providers]]\nname = "up"\nkind = "openai_compatible"\n'
        f'api_base = "http://127.0.0.1:{upstream}"\n{routes}'
    )
    command = [str(installed("rolter", ROLTER) / "rolter"), "gateway", "-c", str(config)]
    with started(command, port, folder / "rolter.log") as process:
        yield BenchTarget("rolter", port, process)


@contextmanager
def portkey(upstream: int, folder: Path) -> Iterator[BenchTarget]:
    """Portkey's gateway, in JavaScript on Node, open and without records."""
    port, home = free_port(), INSTALLED / "portkey"
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise SystemExit("Portkey's gateway needs Node.js with npm. Install them, or leave portkey out of --targets.")
    if not (home / ".done").exists():
        print(f"installing {PORTKEY} into {home} (once)…", file=sys.stderr, flush=True)
        home.mkdir(parents=True, exist_ok=True)
        package = {"private": True, "overrides": {"@hono/node-server": PORTKEY_SERVER}}
        (home / "package.json").write_text(json.dumps(package))
        subprocess.run([npm, "install", "--no-audit", "--no-fund", "--loglevel=error", PORTKEY], cwd=home, check=True)
        (home / ".done").touch()
    script = home / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": f"http://127.0.0.1:{upstream}/v1"}
    environ = {"NODE_ENV": "production", "PATH": os.environ["PATH"]}
    command = [node, str(script), f"--port={port}", "--headless"]
    with started(command, port, folder / "portkey.log", environ) as process:
        yield BenchTarget("portkey", port, process, headers=headers)


PEERS: Final[dict[str, Callable[..., AbstractContextManager[BenchTarget]]]] = {
    "ferrogw": ferrogw,
    "ferrogw-log": partial(ferrogw, durable=True),
    "rolter": rolter,
    "portkey": portkey,
    "litellm": litellm,
}
