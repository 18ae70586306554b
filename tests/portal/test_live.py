"""Live pages over websockets: what each actor is told."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from asgiref.sync import async_to_sync
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import Group
from django.db import OperationalError, connection

from accounts.models import User
from portal.lib import clock
from relay.models import UsageRecord
from tests.support.portal import People, Portal, ask
from tests.support.server import ROOT, Server
from tests.support.sessions import sign_in, signed_in, with_config

pytestmark = pytest.mark.shared


async def test_the_live_page_tells_staff_and_nobody_else(
    live_sessions: dict[str, str], server: Server, live: Portal
) -> None:
    url = f"ws://127.0.0.1:{server.port}/live/running"

    async def listen(cookie: str) -> Any:
        async with websockets.connect(url, additional_headers={"cookie": cookie, "origin": server.url}) as socket:
            return json.loads(await asyncio.wait_for(socket.recv(), 10))

    found = await listen(live_sessions["staff"])
    assert found["workers"] and {"workers", "rows"} == set(found)
    for who in ("owner", "clerk", "nobody"):
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await listen(live_sessions[who])
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 4403


@pytest.fixture
def live_sessions(live: Portal) -> dict[str, str]:
    found = {"nobody": ""}
    for who, options in (
        ("owner", {}),
        ("clerk", {"is_staff": True}),
        ("staff", {"is_staff": True, "is_superuser": True}),
    ):
        found[who] = f"sessionid={signed_in(live.user(**options)).cookies['sessionid'].value}"
    return found


def test_websockets_tell_only_what_their_user_may_see(live: Portal) -> None:
    """Owner, another user, staff with and without the right."""
    from portal.live import live_router

    people = {name: live.user(is_staff=name != "owner") for name in ("owner", "stranger", "operator")}
    people["operator"].groups.add(Group.objects.get(name="Operator"))
    sessions = {user.pk: signed_in(user).session for user in people.values()}

    async def first_close(path: str, user: Any) -> int:
        socket = WebsocketCommunicator(live_router, path)
        socket.scope["user"], socket.scope["session"] = user, sessions[user.pk]
        connected, code = await socket.connect()
        if not connected:
            return int(code)
        message = await socket.receive_output(5)
        await socket.disconnect()
        return int(message.get("code", 0)) if message["type"] == "websocket.close" else 0

    for path in ("/live/channels", "/live/running"):
        assert async_to_sync(first_close)(path, people["owner"]) == 4403
        assert async_to_sync(first_close)(path, people["stranger"]) == 4403
        assert async_to_sync(first_close)(path, people["operator"]) == 0


def _next_message(path: str, user: Any, change: Any, seconds: float) -> dict[str, Any] | None:
    """What a socket that is open says after a change: a message, the code of its end, or None for nothing."""
    from portal.live import live_router

    browser = signed_in(user)

    async def listen() -> dict[str, Any] | None:
        socket = WebsocketCommunicator(live_router, path)
        socket.scope["user"], socket.scope["session"] = user, await asyncio.to_thread(lambda: browser.session)
        connected, _ = await socket.connect()
        assert connected
        if path != "/live/usage/all":
            assert "text" in await socket.receive_output(5)
        await asyncio.to_thread(change, browser)
        for _round in range(1000):
            if await socket.receive_nothing(seconds):
                await socket.disconnect()
                return None
            message = await socket.receive_output(5)
            if message["type"] == "websocket.close" or path == "/live/usage/all":
                return dict(message)
        raise AssertionError("it goes on")

    return async_to_sync(listen)()


@pytest.mark.parametrize("path", ["/live/usage/all", "/live/running", "/live/channels"])
def test_a_socket_ends_with_the_session_that_opened_it(
    live: Portal, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portal.live.LiveConsumer.seconds", 0.05)
    monkeypatch.setattr("portal.live.ChannelsConsumer.seconds", 0.05)

    def sign_out(browser: Any) -> None:
        assert browser.post("/accounts/logout/").status_code == 302
        connection.close()

    def change_password(browser: Any) -> None:
        person.set_password("another long password")
        person.save()
        connection.close()

    for change in (sign_out, change_password):
        person = live.user(is_staff=True, is_superuser=True)
        found = _next_message(path, person, change, 5)
        assert found is not None and found["code"] in {4401, 4403}


@pytest.mark.parametrize("path", ["/live/usage/all", "/live/running", "/live/channels"])
def test_a_socket_tells_nothing_more_when_the_right_is_gone(
    live: Portal, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portal.live.LiveConsumer.seconds", 0.05)
    monkeypatch.setattr("portal.live.ChannelsConsumer.seconds", 0.05)
    person, other = live.user(is_staff=True), live.user()
    person.groups.add(Group.objects.get(name="Operator"))

    def demote(browser: Any) -> None:
        person.groups.clear()
        UsageRecord.objects.create(
            request_id=f"req_{uuid.uuid4().hex}",
            started_at=clock.now(),
            user=other,
            model="m",
            endpoint="chat.completions",
            streamed=False,
            status=200,
            end_reason="completed",
            usage_source="reported",
            latency_ms=5,
        )
        connection.close()

    found = _next_message(path, person, demote, 0.5 if path == "/live/usage/all" else 5)
    if path == "/live/usage/all":
        assert found is None, "one's own only"
    else:
        assert found is not None and found["code"] == 4403


def test_websockets_of_staff_ask_for_the_second_factor(live: Portal, settings: Any) -> None:
    from portal.live import UsageConsumer

    person = live.user(is_staff=True, is_superuser=True)
    consumer = UsageConsumer()  # type: ignore[no-untyped-call]
    consumer.scope = {"url_route": {"kwargs": {"whose": "all"}}}
    seen: list[bool] = []

    def rows_after(last: int, user_id: int, everyone: bool) -> list[dict[str, Any]]:
        seen.append(everyone)
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("portal.live.rows_after", rows_after)
        consumer.read(User.objects.get(pk=person.pk))
        with_config(settings, staff_mfa=True)
        consumer.read(User.objects.get(pk=person.pk))
    assert seen == [True, False]


def test_websockets_speak_as_the_page_that_opened_them(people: People) -> None:
    from zoneinfo import ZoneInfo

    from django.utils.translation import get_language

    from accounts.preferences import reader_of

    scope = {
        "user": people.owner,
        "cookies": {"airelays_zone": "Asia%2FShanghai"},
        "headers": [(b"accept-language", b"zh-CN,zh;q=0.9,en;q=0.5")],
    }
    reader = reader_of(scope)
    assert reader.zone == ZoneInfo("Asia/Shanghai") and reader.render(get_language) == "zh-hans"
    people.owner.language, people.owner.time_zone = "en", "Europe/Berlin"
    reader = reader_of(scope)
    assert reader.zone == ZoneInfo("Europe/Berlin") and reader.render(get_language) == "en"
    assert reader_of({"user": people.other, "headers": []}).render(get_language) == "en"


async def live_rows(
    server: Server, cookies: str, whose: str, wanted: int, opened: asyncio.Event
) -> list[dict[str, object]]:
    import websockets

    rows: list[dict[str, object]] = []
    headers = {"cookie": cookies, "origin": server.url}
    async with websockets.connect(
        f"ws://127.0.0.1:{server.port}/live/usage/{whose}", additional_headers=headers, proxy=None
    ) as socket:
        opened.set()
        while len(rows) < wanted:
            rows.extend(json.loads(await asyncio.wait_for(socket.recv(), 10))["rows"])
    return rows


@pytest.mark.parametrize(
    ("actor", "whose", "sees"),
    [
        ("owner", "mine", {"owner"}),
        ("owner", "all", {"owner"}),
        ("staff", "all", {"owner", "other"}),
        ("other", "mine", {"other"}),
    ],
)
async def test_live_usage_shows_ones_own_and_staff_everything(
    server: Server, live: Portal, actor: str, whose: str, sees: set[str]
) -> None:
    def prepare() -> tuple[dict[str, str], dict[str, str], str]:
        users = {"owner": live.user(), "other": live.user(), "staff": live.user(is_staff=True, is_superuser=True)}
        models = {name: live.model() for name in ("owner", "other")}
        tokens = {name: live.token(users[name]) for name in ("owner", "other")}
        with httpx.Client(trust_env=False, timeout=60) as client:
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
            async with websockets.connect(
                f"ws://127.0.0.1:{server.port}/live/usage/mine", additional_headers=headers, proxy=None
            ) as socket:
                await socket.recv()


def test_layers() -> None:
    """Dependencies point one way; the contracts are in pyproject.toml."""
    import subprocess

    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", ["/live/usage/mine", "/live/running"])
def test_a_live_page_ends_when_the_database_does_not_answer(
    path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The page connects again then; it would be told nothing more otherwise."""
    from portal import live as module

    def away(scope: Any) -> None:
        raise OperationalError("the server did not answer within 30 seconds")

    monkeypatch.setattr(module, "listener", away)
    monkeypatch.setattr(module.LiveConsumer, "begin", lambda _: None)

    async def closed() -> Any:
        socket = WebsocketCommunicator(module.live_router, path)
        socket.scope["session"] = None
        accepted, code = await socket.connect()
        return (await socket.receive_output(5))["code"] if accepted else code

    assert async_to_sync(closed)() == 1013
    assert "the database does not answer" in caplog.text
