"""No client of another server is made without limits to its waits, in settings or in code."""

from __future__ import annotations

import ast
from typing import Any

from django.db import connection

from portal.services import redis
from portal.services.databases import from_url
from portal.services.postgresql import BoundedConnection
from tests.support.server import ROOT

LIMITED = {"sqlite": "timeout", "postgresql": "pool", "mysql": "connect_timeout"}  # an option of each
FILES = sorted(
    path
    for package in ("accounts", "portal", "relay")
    for path in (ROOT / package).rglob("*.py")
    if "migrations" not in path.parts
)


def test_databases(settings: Any) -> None:
    postgresql = from_url("postgresql://airelays@db/airelays", 4)["OPTIONS"]
    assert postgresql["connect_timeout"] > 0 and postgresql["pool"]["timeout"] > 0
    assert postgresql["pool"]["connection_class"] is BoundedConnection
    mysql = from_url("mysql://airelays@db/airelays", 4)["OPTIONS"]
    assert mysql["connect_timeout"] > 0  # what else the driver waits for: `portal.services.mysql.driver`
    for wait in (
        "innodb_lock_wait_timeout",
        "lock_wait_timeout",
        "max_statement_time",
        "max_execution_time",
        "idle_transaction_timeout",
    ):
        assert f" {wait} = " in mysql["init_command"]
    from portal.settings import SQLITE

    assert SQLITE["OPTIONS"]["timeout"] > 0
    assert settings.DATABASES["default"]["OPTIONS"][LIMITED[connection.vendor]]


def test_redis(settings: Any) -> None:
    options = redis.options()
    assert options["socket_timeout"] > 0 and options["socket_connect_timeout"] > 0 and not options["retry"]
    assert not hasattr(settings, "CHANNEL_LAYERS"), "every websocket would wait for Redis"
    for cache in settings.CACHES.values():
        assert "Redis" not in cache["BACKEND"] or cache["OPTIONS"].items() >= options.items()
    assert settings.EMAIL_TIMEOUT > 0


# What connects to another server, and where else than in the room that limits its waits it may be called: nowhere.
CONNECTING = {
    "psycopg.connect", "pymysql.connect", "redis.Redis", "redis.asyncio.Redis", "smtplib.SMTP", "smtplib.SMTP_SSL",
    "urllib.request", "http.client", "requests.get", "requests.post", "requests.request", "requests.Session",
    "httpx.get", "httpx.post", "httpx.request", "httpx.stream", "httpx.Client",
}  # fmt: skip
ALLOWED = {
    "accounts/sign_in/outbound.py": {"requests.Session"},  # is the base of the session with limits
    "portal/doctor/deployment/address.py": {"httpx.Client"},  # a command that somebody waits for; limited there
    "portal/doctor/deployment/machine.py": {"redis.Redis"},  # with the options of `portal.services.redis`
    "portal/doctor/database.py": {"redis.Redis"},  # with the options of `portal.services.redis`
    "portal/doctor/port.py": {"httpx.get"},  # this machine alone; its waits are limited there
    "portal/tracing/exporter.py": {"requests.Session"},  # in a thread that nobody waits for; OTEL_… has its time limit
    # Another program's database, read by a command that somebody waits for; how long it connects is limited there.
    "relay/importers/reading/database.py": {"psycopg.connect", "pymysql.connect"},
    "portal/clients/target.py": {"httpx.get"},  # a command that somebody waits for; its waits are limited there
}


def test_code() -> None:
    wrong = []
    for path in FILES:
        name = str(path.relative_to(ROOT))
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                used |= {f"{node.module}.{alias.name}" for alias in node.names}
        used &= CONNECTING - ALLOWED.get(name, set())
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            function = ast.unparse(node.func)
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if function.endswith("Redis.from_url") and "redis.options()" in keywords.values():
                used.discard("redis.asyncio.Redis")
            if function.endswith("AsyncClient") and "timeout" not in keywords:
                used.add(function)
        wrong += [f"{name}: {one}" for one in sorted(used)]
    assert not wrong, "these connect without the limits of portal.services"
