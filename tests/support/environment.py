"""A pytest plugin that is loaded before Django's settings: the whole suite runs in one temporary data folder."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

DATA_DIR = tempfile.mkdtemp(prefix="airelays-tests-")
atexit.register(shutil.rmtree, DATA_DIR, ignore_errors=True)

DATABASE_URL = os.environ.get("TEST_DATABASE_URL", "")  # of a server on which the suite may make a database of its own
REDIS_URL = os.environ.get("TEST_REDIS_URL", "")  # of a Redis that the suite may empty


def own_database(server: str) -> str:
    """A new database on a PostgreSQL server, dropped when the suite ends."""
    import psycopg

    name = f"airelays_{os.getpid()}_{os.urandom(3).hex()}"

    def run(sql: str) -> None:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(sql.encode())

    run(f"CREATE DATABASE {name}")
    atexit.register(run, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    return server.rpartition("/")[0] + "/" + name


for name in list(os.environ):
    if name.startswith(("AIRELAYS_", "AIRELAY_", "OPENAI_ENDPOINT_")):
        del os.environ[name]
os.environ.update(
    AIRELAYS_DATA_DIR=DATA_DIR,
    AIRELAYS_CONFIG="",
    AIRELAYS_UPSTREAM_ALLOW="127.0.0.1",
    AIRELAYS_FIRST_BYTE_TIMEOUT="20",
    AIRELAYS_JOBS="false",  # tests do the scheduled work when they mean to
    HOME=DATA_DIR,  # nobody's real configuration is read
    NO_PROXY="127.0.0.1,localhost",
)
if DATABASE_URL:
    os.environ["AIRELAYS_DATABASE_URL"] = own_database(DATABASE_URL)
if REDIS_URL:
    import redis

    redis.Redis.from_url(REDIS_URL).flushdb()
    os.environ["AIRELAYS_REDIS_URL"] = REDIS_URL
for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
    os.environ.pop(name, None)
