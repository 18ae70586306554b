"""Measures the cost of failover: `python -m bench.speed.failover [--requests 5000] [--connections 50]`.

One channel is dead (nothing listens), one is flapping (30 % of its answers are a 500), one is healthy; all have the
same priority. The baseline is the same requests over two healthy channels. Every answer is checked completely. Exits
with 1 when a client sees any fault.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.support.load.targets import BenchTarget, started
from tests.support.server import ROOT, free_port

_SETUP = """
import sys
from decimal import Decimal
from django.core.management import call_command
call_command("migrate", interactive=False, verbosity=0)
from accounts.models import User
from relay.billing.ledger import movements
from relay.models import ApiKey, Channel, ChannelModel, Model, ModelPrice
from relay.tokens.lifecycle import create_token
model = Model.objects.create(name="plain", is_open=True)
ModelPrice.objects.create(model=model, input=Decimal("2.5"), output=10)
warm = Model.objects.create(name="warm", is_open=True)
ModelPrice.objects.create(model=warm, input=Decimal("2.5"), output=10)
for name, base in %r:
    channel = Channel.objects.create(name=name, provider="openai", base_url=base)
    key = ApiKey(channel=channel)
    key.set_secret("sk-upstream-0123456789abcdef")
    key.save()
    ChannelModel.objects.create(channel=channel, model=model)
ChannelModel.objects.create(channel=channel, model=warm)
user = User.objects.create_user("bench")
movements.top_up(user, 10**15, actor=None, reason="bench")
print(create_token(user, "bench", actor=None)[1])
"""


@contextmanager
def portal(channels: list[tuple[str, str]], folder: Path) -> Iterator[BenchTarget]:
    port = free_port()
    env = {"AIRELAYS_DATA_DIR": str(folder), "AIRELAYS_UPSTREAM_ALLOW": "127.0.0.1", "AIRELAYS_JOBS": "false"}
    made = subprocess.run(
        [sys.executable, "manage.py", "shell", "-v", "0", "-c", _SETUP % (channels,)],
        cwd=ROOT,
        env={**os.environ, **env},
        check=True,
        capture_output=True,
        text=True,
    )
    with started([sys.executable, "manage.py", "serve", "--port", str(port)], port, folder / "log", env) as process:
        yield BenchTarget("portal", port, process, token=made.stdout.split()[-1])


def run_load(target: BenchTarget, requests: int, connections: int, model: str = "plain") -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "tests.support.load.generator",
        target.url,
        "plain",
        "--connections",
        str(connections),
        "--token",
        target.token,
        "--requests",
        str(requests),
        "--model",
        model,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def attempts(database: Path) -> tuple[Counter[str], Counter[str]]:
    """The number of attempts by channel, and by outcome."""
    asked: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    with closing(sqlite3.connect(database)) as connection:
        names = dict(connection.execute("SELECT id, name FROM relay_channel"))
        for (log,) in connection.execute("SELECT attempt_log FROM relay_usagerecord WHERE model = 'plain'"):
            for entry in json.loads(log):
                asked[names[entry["channel"]]] += 1
                ended[entry["outcome"]] += 1
    return asked, ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--connections", type=int, default=50)
    options = parser.parse_args()
    well, flapping, dead = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="airelays-failover-") as name:
        folder = Path(name)
        upstream = [sys.executable, "-m", "tests.support.load.upstream"]
        with (
            started([*upstream, str(well)], well, folder / "well.log"),
            started([*upstream, str(flapping), "--fail", "0.3"], flapping, folder / "flapping.log"),
        ):
            base = "http://127.0.0.1:{}/v1"
            (folder / "calm").mkdir()
            (folder / "rough").mkdir()
            with portal([("first", base.format(well)), ("second", base.format(well))], folder / "calm") as target:
                run_load(target, 1000, options.connections, "warm")
                calm = run_load(target, options.requests, options.connections)
            with portal(
                [("dead", base.format(dead)), ("flapping", base.format(flapping)), ("well", base.format(well))],
                folder / "rough",
            ) as target:
                # The worker, not its circuits: only the last channel serves it.
                run_load(target, 1000, options.connections, "warm")
                rough = run_load(target, options.requests, options.connections)
            asked, ended = attempts(folder / "rough" / "state.sqlite3")
    for label, found in (("two that are well", calm), ("dead, flapping, well", rough)):
        print(
            f"{label:22} {found['requests']} answers, {found['errors']} errors, p50 {found['p50_ms']:.1f} ms, p99 "
            f"{found['p99_ms']:.1f} ms, {found['rps']:.0f}/s"
        )
    print(f"p99 added by failing over: {rough['p99_ms'] - calm['p99_ms']:.1f} ms")
    print(f"asked: {dict(asked)}; tries: {dict(ended)}")
    if rough["errors"] or rough["requests"] != options.requests:
        sys.exit(1)


if __name__ == "__main__":
    main()
