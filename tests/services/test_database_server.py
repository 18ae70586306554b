"""A server of databases that stops in the middle, whichever it is: requests and pages say so, and go on afterwards."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.services.stalled import Stalled, stalled
from tests.support.asserts import check, until
from tests.support.environment import DATABASE_URL
from tests.support.portal import Portal, ask
from tests.support.server import Server, serving

pytestmark = [pytest.mark.shared, pytest.mark.skipif(not DATABASE_URL, reason="asks a server")]


def test_a_portal_whose_database_stops_in_the_middle(live: Portal, tmp_path: Path) -> None:
    """Readiness and requests say so in time, what needs no database goes on, and a stop ends all the same."""
    parts = urlsplit(os.environ["AIRELAYS_DATABASE_URL"])
    model, token = live.model(), live.token()
    env = {"AIRELAYS_SHUTDOWN_SECONDS": "1"}
    with stalled((parts.hostname or "", parts.port or 0)) as way:
        env["AIRELAYS_DATABASE_URL"] = parts._replace(netloc=f"{parts.username}@127.0.0.1:{way.port}").geturl()
        with serving(tmp_path / "log", env=env) as server:
            _stops_and_goes_on(server, way, token, model)


def _stops_and_goes_on(server: Server, way: Stalled, token: str, model: str) -> None:
    def request(method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"}
        return httpx.request(method, server.url + path, headers=headers, timeout=60, trust_env=False, **more)

    def chat() -> httpx.Response:
        return request("POST", "/v1/chat/completions", json=ask(model))

    until(lambda: chat().status_code == 200)
    way.freeze()
    ready = request("GET", "/readyz")
    assert ready.status_code == 503 and "the database does not answer" in ready.json()["problems"][0]
    for _ in range(2):
        check(chat(), 503, "server_error", "relay_unavailable")
        assert request("GET", "/v1/models").status_code == 200, "a list of models from memory"
    file = {"file": ("a.txt", b"one line")}
    upload = request("POST", "/v1/files", files=file, data={"purpose": "user_data"})
    check(upload, 503, "server_error", "relay_unavailable")
    assert request("GET", "/healthz").status_code == 200
    page = request("GET", "/accounts/signup/", cookies={"sessionid": "x" * 32})
    assert page.status_code == 503 and "database does not answer" in page.text
    way.thaw()
    until(lambda: chat().status_code == 200)
    way.freeze()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    way.thaw()
