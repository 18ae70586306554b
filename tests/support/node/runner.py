"""The official SDKs for Node, driven by scripts beside this file: each case prints one line of JSON.

`make node` installs them into `node_modules` here. Tests that need them are skipped where they are not.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parent
NODE = FOLDER / "node_modules" / "node" / "bin" / "node"
needs_node = pytest.mark.skipif(not NODE.exists(), reason="the SDKs for Node are not installed: make node")
_SECONDS = 1500


def run_cases(script: str, **variables: str) -> dict[str, str]:
    """Run a script; returns for each of its cases what went wrong, empty where nothing did."""
    kept = {name: value for name, value in os.environ.items() if name in {"HOME", "PATH", "TMPDIR"}}
    done = subprocess.run(
        [NODE, FOLDER / script],
        env={**kept, **variables},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    lines: list[Any] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines and done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return {line["case"]: line["error"] for line in lines}
