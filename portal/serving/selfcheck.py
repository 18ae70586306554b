"""Check that no migration is missing and that the deployment checks pass with production settings.

usage: python -m portal.serving.selfcheck
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

PRODUCTION = {
    "AIRELAYS_HOST": "127.0.0.1",
    "AIRELAYS_PUBLIC_URL": "https://ai.example.org",
    "AIRELAYS_TRUSTED_PROXIES": "127.0.0.1",
}


def main() -> int:
    manage = str(Path(__file__).resolve().parents[2] / "manage.py")
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, **PRODUCTION, "AIRELAYS_DATA_DIR": folder}
        for command in (["makemigrations", "--check", "--dry-run"], ["check", "--deploy", "--fail-level", "WARNING"]):
            print("manage.py", *command, flush=True)
            done = subprocess.run([sys.executable, manage, *command], env=env, check=False)  # noqa: S603
            if done.returncode:
                return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
