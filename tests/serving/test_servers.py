"""Other ways to run it: Daphne, Django's runserver, several workers; and the live page."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import httpx
import pytest
from django.db import connection

from tests.conftest import Portal, ask
from tests.gateway.snapshot.test_change_feed import sign_in
from tests.support.server import ROOT, Server, free_port, serving


@pytest.mark.parametrize("how", ["daphne", "runserver"])
def test_daphne_serves_the_same(live: Portal, tmp_path: Path, how: str) -> None:
    port = free_port()
    daphne = [sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), "portal.asgi:application"]
    command = daphne if how == "daphne" else [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"]
    model, token = live.model(), live.token()
    with serving(tmp_path / "log", port=port, command=command) as server:
        headers = {"authorization": f"Bearer {token}"}
        with httpx.stream("POST", f"{server.v1}/chat/completions", json=ask(model, stream=True), headers=headers, trust_env=False, timeout=20) as response:
            text = response.read().decode()
        assert response.status_code == 200 and text.endswith("data: [DONE]\n\n")
        assert live.record(response).end_reason == "completed"
        assert httpx.post(f"{server.v1}/chat/completions", json=ask("none"), headers=headers, trust_env=False).status_code == 404
        assert httpx.get(f"{server.url}/accounts/login/", trust_env=False).status_code == 200
    assert "Traceback" not in (tmp_path / "log").read_text()


async def live_rows(server: Server, cookies: str, whose: str, wanted: int, opened: asyncio.Event) -> list[dict[str, object]]:
    import websockets

    rows: list[dict[str, object]] = []
    headers = {"cookie": cookies, "origin": server.url}
    async with websockets.connect(f"ws://127.0.0.1:{server.port}/live/usage/{whose}", additional_headers=headers, proxy=None) as socket:
        opened.set()
        while len(rows) < wanted:
            rows.extend(json.loads(await asyncio.wait_for(socket.recv(), 10))["rows"])
    return rows


@pytest.mark.parametrize(
    ("actor", "whose", "sees"), [("owner", "mine", {"owner"}), ("owner", "all", {"owner"}), ("staff", "all", {"owner", "other"}), ("other", "mine", {"other"})]
)
async def test_live_usage_shows_ones_own_and_staff_everything(server: Server, live: Portal, actor: str, whose: str, sees: set[str]) -> None:
    def prepare() -> tuple[dict[str, str], dict[str, str], str]:
        users = {"owner": live.user(), "other": live.user(), "staff": live.user(is_staff=True, is_superuser=True)}
        models = {name: live.model() for name in ("owner", "other")}
        tokens = {name: live.token(users[name]) for name in ("owner", "other")}
        with httpx.Client(trust_env=False) as client:
            sign_in(client, server, users[actor].username)
            cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in client.cookies.jar)
        server.catch_up()
        connection.close()  # this thread's own
        return models, tokens, cookies

    models, tokens, cookies = await asyncio.to_thread(prepare)
    opened = asyncio.Event()
    task = asyncio.ensure_future(live_rows(server, cookies, whose, len(sees), opened))
    await asyncio.wait_for(opened.wait(), 10)
    for name in ("other", "owner"):
        response = await asyncio.to_thread(server.post, tokens[name], ask(models[name]))
        assert response.status_code == 200
    rows = await task
    assert {row["model"] for row in rows} == {models[name] for name in sees}


async def test_live_usage_needs_a_sign_in_and_the_own_origin(server: Server) -> None:
    import websockets

    for headers in ({"origin": server.url}, {"origin": "https://evil.example.com"}):
        with pytest.raises((websockets.ConnectionClosed, websockets.InvalidStatus)):
            async with websockets.connect(f"ws://127.0.0.1:{server.port}/live/usage/mine", additional_headers=headers, proxy=None) as socket:
                await socket.recv()


def test_layers() -> None:
    """Dependencies point one way; the contracts are in pyproject.toml."""
    import subprocess

    done = subprocess.run([str(Path(sys.executable).parent / "lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
