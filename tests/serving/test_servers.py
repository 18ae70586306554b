"""Other ways to run it: Daphne, Django's runserver."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx
import pytest

from tests.support.portal import Portal, ask
from tests.support.server import free_port, serving


@pytest.mark.parametrize("how", ["daphne", "runserver"])
def test_daphne_serves_the_same(live: Portal, tmp_path: Path, how: str) -> None:
    port = free_port()
    daphne = [sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), "portal.asgi:application"]
    command = (
        daphne if how == "daphne" else [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"]
    )
    model, token = live.model(), live.token()
    with serving(tmp_path / "log", port=port, command=command) as server:
        headers = {"authorization": f"Bearer {token}"}
        with httpx.stream(
            "POST",
            f"{server.v1}/chat/completions",
            json=ask(model, stream=True),
            headers=headers,
            trust_env=False,
            timeout=20,
        ) as response:
            text = response.read().decode()
        assert response.status_code == 200 and text.endswith("data: [DONE]\n\n")
        assert live.record(response).end_reason == "completed"
        assert (
            httpx.post(
                f"{server.v1}/chat/completions", json=ask("none"), headers=headers, trust_env=False, timeout=60
            ).status_code
            == 404
        )
        assert httpx.get(f"{server.url}/accounts/login/", trust_env=False, timeout=60).status_code == 200
    assert "Traceback" not in (tmp_path / "log").read_text()
