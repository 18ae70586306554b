"""Runs Schemathesis on the portal's own OpenAPI document: `python -m bench.api.fuzz --seconds 600`.

Finds 500s, undocumented statuses and answers that do not match their schema.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.faults.uploads import ROOT, free_port, portal, start

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=600)
    seconds: int = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="airelays-fuzz-") as folder:
        env = {
            **os.environ,
            "AIRELAYS_DATA_DIR": folder,
            "AIRELAYS_DATABASE_URL": "",
            "AIRELAYS_JOBS": "false",
            "AIRELAYS_UPSTREAM_ALLOW": "127.0.0.1",
            "NO_PROXY": "127.0.0.1",
        }
        upstream_port, port, log = free_port(), free_port(), Path(folder) / "log"
        upstream = subprocess.Popen(
            [sys.executable, "-m", "bench.api.every_api", str(upstream_port)], cwd=ROOT, env=env
        )
        token = portal(env, f"http://127.0.0.1:{upstream_port}/v1")
        process = start(port, env, log)
        try:
            found = subprocess.run(
                [
                    str(Path(sys.executable).with_name("schemathesis")),
                    "run",
                    f"http://127.0.0.1:{port}/v1/openapi.json",
                    "--header",
                    f"Authorization: Bearer {token}",
                    "--checks",
                    CHECKS,
                    "--max-time",
                    str(seconds),
                    "--max-examples",
                    "100000",
                    "--continue-on-failure",
                    "--workers",
                    "2",
                    "--request-timeout",
                    "20",
                    "--warnings",
                    "off",
                    "--no-color",
                    "--suppress-health-check",
                    "all",
                ],
                cwd=folder,
                env={**env, "SCHEMATHESIS_HOOKS": "bench.api.hooks", "PYTHONPATH": str(ROOT)},
                check=False,
            )
        finally:
            process.terminate()
            upstream.terminate()
            process.wait(30)
        tracebacks = log.read_text().count("Traceback")
    print(f"tracebacks in the portal's log: {tracebacks}")
    return found.returncode or bool(tracebacks)


if __name__ == "__main__":
    sys.exit(main())
