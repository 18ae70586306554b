"""The fault test of an unreachable Redis, which needs a separate portal."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench.faults import cases as fault_cases
from bench.faults.events import ask
from bench.faults.targets import FaultTarget, UpstreamUrls, portal
from tests.support.load.targets import started
from tests.support.server import ROOT, free_port
from tests.support.upstream import Upstream

_MODEL = "fault-beside"
_FREE = """
from accounts.models import User
from relay.billing.ledger import movements
from relay.tokens.lifecycle import create_token
user = User.objects.create_user("unlimited")
movements.set_unlimited(user, True)
print(create_token(user, "x", actor=None)[1])
"""


def redis_gone(urls: UpstreamUrls, folder: Path, faulty: Upstream) -> tuple[str, str]:
    """Run the test; returns what is wrong, and why it was not run."""
    command = shutil.which("redis-server")
    if command is None:
        return "", "redis-server is not installed"
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    server = [command, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with (
        started(server, port, folder / "redis.log") as redis,
        portal((), [_MODEL], urls, folder, redis=f"redis://127.0.0.1:{port}/0") as target,
    ):
        made = subprocess.run(
            [sys.executable, "manage.py", "shell", "-v", "0", "-c", _FREE],
            cwd=ROOT,
            env={**os.environ, **target.env},
            capture_output=True,
            text=True,
            check=True,
        )
        free = FaultTarget("portal", target.base_url, made.stdout.split()[-1])
        time.sleep(1)
        for who in (target, free):
            if wrong := fault_cases.complete(ask(who, _MODEL)):
                return f"with Redis: {wrong}", ""
        redis.terminate()
        redis.wait(10)
        if wrong := fault_cases.refused_with(503, code="relay_unavailable", retry_after=True)(ask(target, _MODEL)):
            return f"with a limit: {wrong}", ""
        if wrong := fault_cases.complete(ask(free, _MODEL)):
            return f"without limits: {wrong}", ""
    return "", ""
