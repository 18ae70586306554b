"""Who may read the metrics, and where."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from portal.asgi import metrics_application
from portal.config import load
from portal.installation.sources import ConfigError
from portal.metrics import endpoint
from portal.metrics.counts.memory import Memory, new_file
from portal.metrics.installed import Labels, installed, on_the_portals_port, turned_on, why_not_open
from relay.gateway.snapshot.cache import snapshot_cache
from tests.support.server import ROOT
from tests.support.sessions import with_config

TOKEN = "3c1f2b9f7d5e4a6b8c0d1e2f3a4b5c6d"


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(installed, "memory", Memory(new_file(1)))
    monkeypatch.setattr(snapshot_cache, "in_thread", _nothing)
    return  # type: ignore[return-value]


async def _nothing(*_: object) -> Any:
    from portal.metrics.samples import Upstreams

    return Upstreams({1: "One"})


async def ask(path: str = "/metrics", method: str = "GET", **headers: str) -> tuple[int, dict[bytes, bytes], bytes]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "path": path, "method": method, "headers": named}
    await endpoint.answer(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


async def test_only_who_has_the_token_reads_them(settings: Any, counting: None) -> None:
    with_config(settings, metrics_token=TOKEN)
    status, headers, body = await ask()
    assert status == 401 and headers[b"www-authenticate"].startswith(b"Bearer") and b"METRICS_TOKEN" in body
    for wrong in (f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", "Bearer ", f"Basic {TOKEN}", TOKEN, "Bearer é"):
        status, headers, body = await ask(authorization=wrong)
        assert status == 401 and TOKEN.encode() not in body and b"airelays_" not in body
    status, headers, body = await ask(authorization=f"bearer {TOKEN}")
    assert status == 200 and b"airelays_build_info{" in body and headers[b"content-type"].startswith(b"text/plain")
    assert headers[b"cache-control"] == b"no-store" and int(headers[b"content-length"]) == len(body)


async def test_what_else_may_be_asked(settings: Any, counting: None) -> None:
    """Without a token, as on a port that only this machine reaches."""
    with_config(settings, metrics_token="")
    status, headers, body = await ask(accept="application/openmetrics-text; version=1.0.0,text/plain;q=0.5")
    assert status == 200 and body.endswith(b"# EOF\n") and b"openmetrics" in headers[b"content-type"]
    status, headers, body = await ask(method="HEAD")
    assert status == 200 and not body and int(headers[b"content-length"]) > 100
    assert (await ask(method="POST"))[0] == 405
    for path in ("/", "/v1/models", "/metrics/", "/admin/"):
        assert (await ask(path))[0] == 404


async def test_before_a_worker_has_begun(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_config(settings, metrics_token="")
    monkeypatch.setattr(installed, "memory", None)
    assert (await ask())[0] == 503
    assert metrics_application is not None


def test_they_are_off_and_never_open_by_themselves() -> None:
    def config(**values: str) -> Any:
        return load(environ={f"AIRELAYS_{name.upper()}": value for name, value in values.items()})

    assert not turned_on(config()) and not on_the_portals_port(config())
    assert on_the_portals_port(config(metrics_token=TOKEN))
    own = config(metrics_port="9464")
    assert turned_on(own) and not on_the_portals_port(own) and not why_not_open(own, 8080)
    assert not on_the_portals_port(config(metrics_port="9464", metrics_token=TOKEN))
    assert "METRICS_TOKEN" in why_not_open(config(metrics_port="9464", metrics_host="0.0.0.0"), 8080)
    assert not why_not_open(config(metrics_port="9464", metrics_host="0.0.0.0", metrics_token=TOKEN), 8080)
    assert "own port" in why_not_open(own, 9464)
    with pytest.raises(ConfigError):
        config(metrics_token="short")


def test_models_count_under_names_that_clients_cannot_invent(monkeypatch: pytest.MonkeyPatch) -> None:
    class Snapshot:
        models = {"gpt": 1, "gpt-4-gizmo-*": 2, "gpt-*": 3, "other": 4}

    monkeypatch.setattr(snapshot_cache, "_snapshot", Snapshot())
    label_of = Labels()
    assert [label_of(name) for name in ("gpt", "gpt-4-gizmo-abc", "gpt-5", "of-a-plan", "other")] == [
        "gpt", "gpt-4-gizmo-*", "gpt-*", "", "",
    ]  # fmt: skip


_ASK = """
import asyncio, sys
from importlib import import_module

import django

django.setup()

sent = []
async def send(message): sent.append(message)
async def receive(): return {"type": "http.request", "body": b""}
scope = {"type": "http", "path": "/metrics", "method": "GET", "headers": [], "query_string": b"", "raw_path": b"",
         "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "scheme": "http", "http_version": "1.1", "state": {}}
asyncio.run(import_module(sys.argv[1]).http(scope, receive, send))
print(sent[0]["status"])
"""


@pytest.mark.parametrize("module", ["portal.asgi", "portal.relay_only.asgi"])
def test_they_are_beside_the_pages_although_apps_probe_the_same_path(module: str) -> None:
    """Apps ask `/metrics` of what they take for a server of vLLM's: the relay answers them where metrics are off."""
    of = "portal.relay_only.settings" if "relay_only" in module else "portal.settings"
    env = {**os.environ, "AIRELAYS_METRICS_TOKEN": TOKEN, "DJANGO_SETTINGS_MODULE": of}
    done = subprocess.run(
        [sys.executable, "-c", _ASK, module], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "401", done.stdout
