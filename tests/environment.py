"""A pytest plugin that is loaded before Django's settings: the whole suite runs in one temporary data folder."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

DATA_DIR = tempfile.mkdtemp(prefix="airelays-tests-")
atexit.register(shutil.rmtree, DATA_DIR, ignore_errors=True)

for name in list(os.environ):
    if name.startswith(("AIRELAYS_", "AIRELAY_", "OPENAI_ENDPOINT_")):
        del os.environ[name]
os.environ.update(
    AIRELAYS_DATA_DIR=DATA_DIR,
    AIRELAYS_CONFIG="",
    AIRELAYS_UPSTREAM_ALLOW="127.0.0.1",
    AIRELAYS_FIRST_BYTE_TIMEOUT="20",
    HOME=DATA_DIR,  # nobody's real configuration is read
    NO_PROXY="127.0.0.1,localhost",
)
for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
    os.environ.pop(name, None)
