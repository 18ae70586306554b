"""Who may come in by address, what one address may send, and what is written of requests: in the log, never secrets."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from portal.lib.redaction.paths import shown_path
from portal.serving.entrance import refused
from portal.serving.logs.access import logged
from relay.errors import RateLimited
from relay.gateway.access.address_limits import AddressLimits
from tests.support.asserts import until
from tests.support.portal import Portal
from tests.support.server import Server, serving
from tests.support.upstream import Call, chunk, completion

# A token of AIRelays 0.x: nothing in its form says that it is one.
FORMER = "qR7-xT2mZ0aLw_93KdPvYb5NcHs8EuJgFi1MoVtXyQk"
SECRETS = {
    "bearer": "sk-wrong0bearer0123456789abcdefghijklmnopqrstuvwxyzAB",
    "x-api-key": "sk-ant-wrong0header0123456789abcdefghijklmnop",
    "api-key": "0123456789abcdef0123456789ABCDEF",
    "x-goog-api-key": "AIzaSyWrong0123456789abcdefghijklmnopq",
    "basic": "dXNlcjpTZWNyZXRQYXNzd29yZDEyMw==",
    "cookie": "sessionid0123456789abcdefghijk",
    "query": "sk-query0123456789abcdefghijklmnopqrstuvwxyz01234567",
    "former": FORMER,
}


def env_of(folder: Path, **more: str) -> dict[str, str]:
    return {
        "AIRELAYS_ACCESS_LOG": "true",
        "AIRELAYS_LOG_FORMAT": "json",
        "AIRELAYS_LOG_LEVEL": "DEBUG",
        "AIRELAYS_LOGS_DIR": str(folder / "logs"),
        "AIRELAYS_NETWORK_SCOPE": "private",
        "AIRELAYS_TRUSTED_PROXIES": "127.0.0.1",
        "AIRELAYS_FEED_POLL_SECONDS": "0.05",
        "AIRELAYS_CONCURRENT_REQUESTS_PER_IP": "2",
        "AIRELAYS_RATE_LIMIT_PER_MINUTE": "60",
        "AIRELAYS_RATE_LIMIT_BURST": "30",
        **more,
    }


@pytest.fixture(scope="module")
def guarded(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("guarded")
    with serving(folder / "log", env=env_of(folder)) as running:
        yield running


def ask(server: Server, path: str, client: str = "10.0.0.1", method: str = "GET", **options: Any) -> httpx.Response:
    headers = {"x-forwarded-for": client, **options.pop("headers", {})}
    return httpx.request(
        method, f"{server.url}{path}", headers=headers, trust_env=False, timeout=30, follow_redirects=False, **options
    )


def written(server: Server) -> str:
    """Everything that a server has written, on its standard output and into files."""
    files = sorted((server.log.parent / "logs").glob("*.log"))
    assert files and all(path.stat().st_mode & 0o777 == 0o600 for path in files)
    return server.log.read_text() + "".join(path.read_text() for path in files)


def line_of(server: Server, path: str, client: str) -> dict[str, Any]:
    """The line of a request in the access log, which is written when the request has ended."""

    def find() -> list[dict[str, Any]]:
        entries = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
        return [
            entry
            for entry in entries
            if entry["logger"] == "airelays.access" and (entry["path"], entry["client"]) == (path, client)
        ]

    found: list[dict[str, Any]] = until(find)
    (entry,) = found
    return entry


# -- from where ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "address", "code"),
    [
        ("any", "203.0.113.9", ""),
        ("any", "", ""),
        ("private", "127.0.0.1", ""),
        ("private", "10.1.2.3", ""),
        ("private", "172.31.0.1", ""),
        ("private", "172.32.0.1", "client_not_on_private_network"),
        ("private", "192.168.1.1", ""),
        ("private", "100.64.0.1", ""),
        ("private", "169.254.1.1", ""),
        ("private", "fd00::1", ""),
        ("private", "fe80::1%eth0", ""),
        ("private", "::ffff:192.168.1.1", ""),
        ("private", "::ffff:203.0.113.9", "client_not_on_private_network"),
        ("private", "2001:db8::1", "client_not_on_private_network"),
        ("private", "", "client_not_on_private_network"),
        ("private", "unknown", "client_not_on_private_network"),
        ("loopback", "127.0.0.9", ""),
        ("loopback", "::1", ""),
        ("loopback", "10.1.2.3", "client_not_on_this_machine"),
    ],
)
def test_who_may_come_in(scope: str, address: str, code: str) -> None:
    found = refused(scope, address)
    assert (found.public_code if found is not None else "") == code


@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/models", "/v1", "/admin/", "/nothing", "/v1beta/models"])
def test_strangers_are_refused_on_every_path(guarded: Server, path: str) -> None:
    answer = ask(guarded, path, "203.0.113.9")
    assert answer.status_code == 403 and answer.headers["x-request-id"].startswith("req_")
    error = answer.json()["error"]
    assert "network_scope=private" in error["message"]
    if "beta" not in path:
        assert (error["type"], error["code"]) == ("permission_error", "client_not_on_private_network")
    assert ask(guarded, path).status_code != 403


@pytest.mark.parametrize("path", ["/v1/realtime", "/ws/now/"])
async def test_strangers_open_no_websocket(guarded: Server, path: str) -> None:
    with pytest.raises(InvalidStatus) as caught:
        await connect(
            f"ws://127.0.0.1:{guarded.port}{path}", additional_headers={"x-forwarded-for": "203.0.113.9"}, proxy=None
        )
    assert caught.value.response.status_code == 403


# -- how much --------------------------------------------------------------------------------------------------------


def test_a_bucket_of_requests_an_address() -> None:
    limits = AddressLimits()
    limits.enter("10.0.0.1", 0)
    assert not limits.limited
    limits.configure(60, 3, 0)
    for _ in range(3):
        limits.enter("10.0.0.1", 100.0)
    with pytest.raises(RateLimited) as caught:
        limits.enter("10.0.0.1", 100.5)
    assert caught.value.retry_after == 1.0 and caught.value.public_code == "rate_limit_exceeded"
    limits.enter("10.0.0.2", 100.5)
    limits.enter("10.0.0.1", 101.0)
    with pytest.raises(RateLimited):
        limits.enter("10.0.0.1", 101.0)
    limits.enter("10.0.0.1", 50.0 + 1000)  # a clock that is far ahead fills no more than the bucket
    for _ in range(2):
        limits.enter("10.0.0.1", 1050.0)
    with pytest.raises(RateLimited):
        limits.enter("10.0.0.1", 0.0)


@pytest.mark.parametrize(("per_minute", "burst", "most"), [(120, 0, 40), (120, 5, 5), (1, 0, 1), (2, 0, 1)])
def test_a_burst_is_a_third_of_a_minute_unless_it_is_set(per_minute: int, burst: int, most: int) -> None:
    limits = AddressLimits()
    limits.configure(per_minute, burst, 0)
    for _ in range(most):
        limits.enter("2001:db8::1", 0)
    with pytest.raises(RateLimited):
        limits.enter("2001:db8::2", 0)  # one subscriber has the whole /64


def test_requests_at_once_are_counted_until_they_end() -> None:
    limits = AddressLimits()
    limits.configure(0, 0, 2)
    for _ in range(2):
        limits.enter("10.0.0.1", 0)
    with pytest.raises(RateLimited) as caught:
        limits.enter("10.0.0.1", 0)
    assert caught.value.public_code == "too_many_concurrent_requests"
    limits.leave("10.0.0.1")
    limits.enter("10.0.0.1", 0)
    for _ in range(3):
        limits.leave("10.0.0.1")
    assert limits._running == {}


def test_one_address_is_limited_whatever_its_token(guarded: Server, live: Portal) -> None:
    token = live.token()
    guarded.catch_up()
    answers = [ask(guarded, "/v1/models", "10.9.0.1", headers={"authorization": f"Bearer {token}"}) for _ in range(40)]
    statuses = [answer.status_code for answer in answers]
    assert statuses[:30] == [200] * 30 and 429 in statuses
    last = next(answer for answer in answers if answer.status_code == 429)
    assert last.headers["retry-after"] == "1" and last.json()["error"]["code"] == "rate_limit_exceeded"
    assert ask(guarded, "/v1/models", "10.9.0.1", "OPTIONS").status_code == 204
    assert ask(guarded, "/healthz", "10.9.0.1").status_code == 200
    assert ask(guarded, "/v1/models", "10.9.0.2", headers={"authorization": f"Bearer {token}"}).status_code == 200


def test_a_stream_has_its_place_until_it_ends(guarded: Server, live: Portal) -> None:
    go, begun = threading.Event(), threading.Semaphore(0)

    async def slow(call: Call) -> None:
        await call.open_stream()
        await call.event(chunk("a"))
        begun.release()
        await asyncio.to_thread(go.wait, 30)
        await call.event(chunk(finish="stop"))
        await call.event("[DONE]")
        await call.end()

    token, model = live.token(), live.model(slow)
    guarded.catch_up()
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    headers = {"authorization": f"Bearer {token}"}
    path, address = "/v1/chat/completions", "10.9.1.1"
    running = [
        threading.Thread(target=ask, args=(guarded, path, address, "POST"), kwargs={"json": body, "headers": headers})
        for _ in range(2)
    ]
    for thread in running:
        thread.start()
    for _ in running:
        assert begun.acquire(timeout=30)
    refusal = ask(guarded, "/v1/models", address, headers=headers)
    go.set()
    for thread in running:
        thread.join(30)
    assert (refusal.status_code, refusal.json()["error"]["code"]) == (429, "too_many_concurrent_requests")
    assert ask(guarded, "/v1/models", address, headers=headers).status_code == 200


# -- what is written -------------------------------------------------------------------------------------------------


def test_each_request_has_a_line(guarded: Server, live: Portal) -> None:
    from relay.models import Token

    token = live.token()
    name = Token.objects.order_by("-pk").values_list("name", flat=True)[0]
    guarded.catch_up()
    answer = ask(guarded, "/v1/models?limit=3&x=hidden", "10.9.2.1", headers={"authorization": f"Bearer {token}"})
    ask(guarded, "/v1/files/nobody", "10.9.2.2", method="DELETE")
    ask(guarded, "/", "10.9.2.3")
    entry = line_of(guarded, "/v1/models", "10.9.2.1")
    assert (entry["token"], entry["method"], entry["status"]) == (name, "GET", 200)
    assert entry["bytes"] == len(answer.content) and 0 <= entry["ms"] < 30_000 and "time" in entry
    assert entry["request_id"] == answer.headers["x-request-id"] and entry["user_id"] and entry["token_id"]
    entry = line_of(guarded, "/v1/files/nobody", "10.9.2.2")
    assert (entry["token"], entry["method"], entry["status"]) == ("", "DELETE", 401)
    assert line_of(guarded, "/", "10.9.2.3")["status"] == 302
    assert "hidden" not in written(guarded)


def test_a_line_says_which_model_and_channel_and_names_the_id_that_the_client_got(
    guarded: Server, live: Portal
) -> None:
    async def script(call: Call) -> None:
        await call.reply(200, completion())

    token, model = live.token(), live.model(script)
    guarded.catch_up()
    headers = {"authorization": f"Bearer {token}"}
    body = {"model": model, "messages": [{"role": "user", "content": "A secret of mine"}]}
    answer = ask(guarded, "/v1/chat/completions", "10.9.2.4", "POST", headers=headers, json=body)
    refused = ask(
        guarded, "/v1/chat/completions", "10.9.2.5", "POST", headers=headers, json={**body, "model": f"x\n{FORMER}"}
    )
    entry = line_of(guarded, "/v1/chat/completions", "10.9.2.4")
    assert (entry["model"], entry["attempts"], entry["request_id"]) == (model, 1, answer.headers["x-request-id"])
    assert entry["channel"].startswith("channel-")
    entry = line_of(guarded, "/v1/chat/completions", "10.9.2.5")
    assert entry["status"] == refused.status_code == 404 and "channel" not in entry
    assert entry["request_id"] == refused.headers["x-request-id"] and "model" not in entry
    assert "A secret of mine" not in written(guarded) and FORMER not in written(guarded)


@pytest.mark.parametrize(("share", "lines"), [(0.0, 1), (1.0, 3)])
async def test_of_requests_that_succeed_a_share_has_a_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, share: float, lines: int
) -> None:
    async def app(scope: Any, receive: Any, send: Any, ip: str) -> None:
        await send({"type": "http.response.start", "status": scope["status"], "headers": []})

    async def send(message: Any) -> None:
        return

    monkeypatch.setattr(logging.getLogger("airelays.access"), "propagate", True)
    with caplog.at_level("INFO", "airelays.access"):
        for status in (200, 302, 500):
            await logged(app, "10.0.0.1", share, {"path": "/", "status": status}, send, send)  # type: ignore[arg-type]
        with pytest.raises(KeyError):
            await logged(app, "10.0.0.1", share, {"path": "/"}, send, send)  # type: ignore[arg-type]
    assert len(found := [one for one in caplog.records if one.name == "airelays.access"]) == lines + 1
    assert vars(found[-1])["access"]["status"] == 500, "as the server answers"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/v1/models", "/v1/models"),
        ("/v1/models/openai/gpt-5.5", "/v1/models/openai/gpt-5.5"),
        ("/v1beta/models/gemini-2.5-flash-preview-09-2025:generateContent",) * 2,
        ("/v1/files/file_7b2e94d1a0c65f38e7b2d94c1a06f583/content",) * 2,
        ("/v1/responses/resp_01a7b2e94d1a0c65f38e7b2d94c1a06f5",) * 2,
        (f"/v1/{FORMER}/models", "/v1/[redacted]/models"),
        ("/v1/" + "0123456789abcdef" * 4, "/v1/[redacted]"),
        ("/accounts/password/reset/link/4-d0x9q8-0123456789abcdef/", "/accounts/password/reset/link/[redacted]/"),
        ("/accounts/confirm-email/", "/accounts/confirm-email/"),
        ("/a\nb\x1b[31m c\u202e", "/a%0Ab%1B[31m%20c%E2%80%AE"),
        ("/" + "a/" * 1000, "/" + "a/" * 149 + "a"),
        ("/" + "a" * 1000, "/[redacted]"),
    ],
)  # fmt: skip
def test_a_path_is_one_line_without_secrets(path: str, shown: str) -> None:
    assert shown_path(path) == shown


def test_no_secret_is_written_however_it_is_sent(guarded: Server, live: Portal) -> None:
    valid = live.token()
    guarded.catch_up()
    headers = {
        "authorization": f"Bearer {SECRETS['bearer']}",
        "x-api-key": SECRETS["x-api-key"],
        "api-key": SECRETS["api-key"],
        "x-goog-api-key": SECRETS["x-goog-api-key"],
        "cookie": f"sessionid={SECRETS['cookie']}",
    }
    client = "10.9.3.1"
    names = ("key", "api_key", "api-key", "access_token", "token")
    query = "&".join(f"{name}={SECRETS['query']}&{name}={FORMER}" for name in names)
    for path in ("/v1/models", "/v1beta/models", "/v1/nothing", "/v1/files/x/content", "/tokens/", "/healthz"):
        ask(guarded, f"{path}?{query}", client, headers=headers)
    for value in (f"Basic {SECRETS['basic']}", FORMER, f"Bearer {FORMER}", f"Token {SECRETS['bearer']}"):
        ask(guarded, f"/v1/models?{query}", client, headers={"authorization": value})
    for name in ("x-api-key", "api-key", "x-goog-api-key"):
        ask(guarded, "/v1/messages", client, "POST", headers={name: FORMER}, content=b"{broken")
        ask(guarded, "/v1/models", client, headers={name: valid})
    for secret in (FORMER, SECRETS["query"], valid):
        ask(guarded, f"/v1/{secret}/models?{query}", client)
        ask(guarded, f"/{secret}", client)
    httpx.get(f"{guarded.url}/v1/models?key={FORMER}", headers={"x-forwarded-for": "203.0.113.7"}, trust_env=False)

    async def socket(address: str, **given: str) -> None:
        with pytest.raises(InvalidStatus):
            await connect(
                f"ws://127.0.0.1:{guarded.port}{address}",
                additional_headers={"x-forwarded-for": client, **given},
                proxy=None,
            )

    asyncio.run(socket(f"/v1/realtime?model=none&{query}", authorization=f"Bearer {FORMER}"))
    asyncio.run(socket(f"/v1/realtime?model=none&api_key={valid}", authorization=f"Bearer {valid}"))
    text = written(guarded)
    assert '"airelays.access"' in text
    leaked = [name for name, secret in {**SECRETS, "valid": valid}.items() if secret in text]
    assert leaked == []
    parts = [name for name, secret in {**SECRETS, "valid": valid}.items() if secret[8:24] in text]
    assert parts == [], "not in part either"


def test_no_secret_is_in_a_traceback(own_database: Any, live: Portal, tmp_path: Path) -> None:
    """A table that is gone is an error that the code does not expect."""
    token = live.token()
    env = {**own_database.env, **env_of(tmp_path, AIRELAYS_LOG_FORMAT="text")}
    with serving(tmp_path / "log", env=env) as broken:
        broken.catch_up()
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE relay_upload RENAME TO relay_upload_gone")
        try:
            for given in ({"authorization": f"Bearer {token}"}, {"x-api-key": token}):
                answer = ask(broken, f"/v1/files?api_key={FORMER}&key={token}", headers=given)
                assert answer.status_code >= 500
        finally:
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE relay_upload_gone RENAME TO relay_upload")
        text = written(broken)
    assert token not in text and FORMER not in text
    assert re.search(r"10\.0\.0\.1 \"token-\d+\" GET /v1/files 50\d \d+ms \d+B", text)
