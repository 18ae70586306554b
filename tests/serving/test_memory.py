"""What a worker does not load; it looks for garbage once it has loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import ROOT

_LOAD = """
import gc
import sys
import manage
import django
assert not gc.isenabled()
django.setup()
assert gc.isenabled()
import portal.asgi
assert gc.isenabled()
print(*sorted(sys.modules))
"""


@pytest.mark.parametrize(
    ("database", "absent"),
    [("", {"psycopg", "twisted"}), ("postgresql://u:p@127.0.0.1:1/none", {"twisted"})],
)
def test_worker_loads_no_library_that_it_may_never_need(tmp_path: Path, database: str, absent: set[str]) -> None:
    """Each of them takes from 1 to 25 MB, in every worker."""
    env = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "AIRELAYS_DATA_DIR": str(tmp_path),
        "AIRELAYS_DATABASE_URL": database,
    }
    loaded = subprocess.run(
        [sys.executable, "-c", _LOAD], cwd=ROOT, env=env, check=True, capture_output=True, text=True, timeout=60
    ).stdout.split()
    assert "django" in loaded and not absent & set(loaded)
    assert ("psycopg" in loaded) == bool(database)
