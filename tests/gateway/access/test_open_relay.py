"""An open relay answers its own machine without a token, no other machine, and no web page of another site."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets.sync.client
from websockets.exceptions import InvalidStatus

from portal import config
from portal.installation.open_relay import NO_AUTH, why_not_open
from portal.lib import clock
from tests.support.asserts import until
from tests.support.environment import OwnDatabase
from tests.support.portal import Portal, ask
from tests.support.server import ROOT, Server, serving

HELLO = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
JUNK = "sk-" + "x" * 48


@pytest.fixture(scope="module")
def relay(
    own_database: OwnDatabase,
    servers_database: Callable[..., AbstractContextManager[None]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    from accounts.models import User

    with servers_database(own_database.name):
        User.objects.create_superuser("owner")
    own = {"AIRELAYS_CORS_ORIGINS": "http://app.example,*", "AIRELAYS_FEED_POLL_SECONDS": "0.05"}
    own["AIRELAYS_PUBLIC_URL"] = "http://relay.localhost:8080"
    with serving(tmp_path_factory.mktemp("open") / "log", env={**own_database.env, **NO_AUTH, **own}) as running:
        yield running


def call(relay: Server, path: str = "/v1/models", body: object = None, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = json.dumps(body).encode() if body is not None else None
    named = ({"content-type": "application/json"} if content else {}) | named
    method = "POST" if content else "GET"
    relay.catch_up()
    return httpx.request(method, relay.url + path, content=content, headers=named, trust_env=False, timeout=60)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer nothing"},
        {"authorization": f"Bearer {JUNK}"},
        {"authorization": f"Bearer {JUNK}-7"},
        {"x-api-key": "x"},
        {"authorization": "Basic abc"},
        {"host": "localhost"},
        {"host": "relay.localhost:8080"},
        {"host": "[::1]:1"},
        {"origin": "http://app.example", "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "none"},
    ],
    ids=str,
)
def test_a_program_on_this_machine_needs_no_token(
    relay: Server, own_database: OwnDatabase, live: Portal, headers: dict[str, str]
) -> None:
    model = live.model()
    answer = call(relay, "/v1/chat/completions", ask(model), **headers)
    assert answer.status_code == 200, answer.text
    record = live.record(answer)
    assert (record.user.username, record.token.built_in, record.channel_id is not None) == ("owner", "open-relay", True)
    assert model in [one["id"] for one in call(relay, **headers).json()["data"]]


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("/v1/chat/completions", ask("m"), ("error", "code")),
        ("/v1/responses", {"model": "m", "input": "Hello"}, ("error", "code")),
        ("/v1/messages", {**ask("m"), "max_tokens": 9}, ("error", "type")),
        ("/v1beta/models/m:generateContent", HELLO, ("error", "status")),
        ("/v1/embeddings", {"model": "m", "input": "Hello"}, ("error", "code")),
        ("/v1/conversations", {}, ("error", "code")),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "https://evil.example", "content-type": "text/plain"},
        {"origin": "null", "content-type": "application/x-www-form-urlencoded"},
        {"origin": "http://localhost:3000"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "*"},
        {"host": "evil.example"},
        {"host": "127.0.0.1@evil.example"},
        {"host": "127.0.0.1.evil.example"},
    ],
    ids=str,
)
def test_a_page_of_another_site_is_refused_in_each_api(
    relay: Server, path: str, body: object, where: tuple[str, str], headers: dict[str, str]
) -> None:
    answer = call(relay, path, body, **headers)
    said = answer.json()
    assert answer.status_code == 403, answer.text
    assert said[where[0]][where[1]] in {
        "open_relay_origin", "open_relay_host", "permission_error", "PERMISSION_DENIED",
    }  # fmt: skip
    assert "send a token" in said["error"]["message"]


def test_the_pages_own_origin_is_let_in(relay: Server) -> None:
    assert call(relay, origin=relay.url, sec_fetch_site="same-origin").status_code == 200
    assert call(relay, origin="http://relay.localhost:8080").status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "x-forwarded-for", "forwarded", "x-real-ip", "via", "x-forwarded-host", "cf-connecting-ip", "x-forwarded-port",
        "x-original-forwarded-for", "cdn-loop", "fly-client-ip", "tailscale-user-login",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["127.0.0.1", "203.0.113.9"])
def test_what_came_through_a_proxy_needs_a_token(
    relay: Server, own_database: OwnDatabase, live: Portal, header: str, value: str
) -> None:
    answer = call(relay, **{header: value})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    token = f"Bearer {live.token()}"
    assert call(relay, **{header: value, "authorization": token}).status_code == 200


def test_websockets_are_checked_as_well(relay: Server, own_database: OwnDatabase) -> None:
    url = relay.v1.replace("http", "ws") + "/realtime?model=none"

    def refusal(**headers: str) -> str:
        with pytest.raises(InvalidStatus) as refused:
            websockets.sync.client.connect(url, additional_headers=headers, proxy=None)
        body = refused.value.response.body
        assert body is not None
        return str(json.loads(body)["error"]["code"])

    assert refusal(Origin="https://evil.example") == "open_relay_origin"
    assert refusal(Origin="https://evil.example", Authorization=f"Bearer {JUNK}") == "open_relay_origin"
    assert refusal() == "model_not_found"
    assert refusal(**{"X-Forwarded-For": "127.0.0.1"}) == "invalid_api_key"


def test_a_token_counts_as_itself_and_one_that_was_ended_is_refused(
    relay: Server, own_database: OwnDatabase, live: Portal
) -> None:
    from relay.models import Token
    from relay.tokens.lifecycle import revoke_token

    user, model = live.user(), live.model()
    secret = live.token(user)
    headers = {"authorization": f"Bearer {secret}", "origin": "https://evil.example", "host": "evil.example"}
    answer = call(relay, "/v1/chat/completions", ask(model), **headers)
    assert answer.status_code == 200, "who has a token may do as everywhere"
    assert live.record(answer).user == user
    expired = live.token(user, expires_at=clock.now() - timedelta(seconds=1))
    assert call(relay, authorization=f"Bearer {expired}").json()["error"]["code"] == "token_expired"
    revoke_token(Token.objects.get(user=user, expires_at=None), actor=None)
    answer = call(relay, authorization=f"Bearer {secret}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert call(relay, authorization=f"Bearer {secret}-1").status_code == 401
    assert call(relay, authorization=f"Bearer {secret}-0").status_code == 401
    assert call(relay, authorization="Bearer pg_expired").status_code == 401, "it stood for somebody's token"


def test_limits_of_the_open_relay_hold_and_it_can_be_disabled(
    relay: Server, own_database: OwnDatabase, live: Portal
) -> None:
    from relay.models import Token

    token = Token.objects.get(built_in="open-relay")
    assert token.reveal() is None
    before = list(token.models_allowed.all())
    token.models_limited = True
    token.save()
    try:
        assert call(relay).json()["data"] == []
        token.enabled = False
        token.save()
        answer = call(relay)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "token_disabled")
        assert "Open relay" in answer.json()["error"]["message"]
    finally:
        token.enabled, token.models_limited = True, False
        token.save()
    assert before == [] and until(lambda: call(relay).json()["data"])


def test_the_pages_still_ask_for_a_password(relay: Server) -> None:
    for path in ("/admin/", "/tokens/", "/playground/", "/usage/"):
        answer = httpx.get(relay.url + path, trust_env=False, timeout=60)
        assert answer.status_code == 302 and "login" in answer.headers["location"], path


def test_an_open_relay_is_not_taken_for_a_server_of_models(
    relay: Server, own_database: OwnDatabase, live: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    from relay.channels.local import servers

    live.model()
    assert call(relay).json()["data"]
    monkeypatch.setattr(servers, "PORTS", (relay.port,))
    monkeypatch.setattr(servers, "_SECONDS", 30.0)
    assert servers.local_servers((), fresh=True) == ()


def test_the_log_says_that_the_relay_is_open(relay: Server) -> None:
    assert "Open relay" in relay.log.read_text()


# -- where it may listen ---------------------------------------------------------------------------------------------


def settings_of(**env: str) -> config.Config:
    return config.load({}, {"AIRELAYS_CONFIG": "", **{f"AIRELAYS_{name}": value for name, value in env.items()}})


@pytest.mark.parametrize(
    ("env", "host", "reason"),
    [
        ({}, "127.0.0.1", ""),
        ({}, "127.0.0.53", ""),
        ({}, "localhost", ""),
        ({}, "::1", ""),
        ({}, "0.0.0.0", "0.0.0.0"),
        ({}, "::", "::"),
        ({}, "192.168.1.5", "192.168.1.5"),
        ({}, "example.org", "example.org"),
        ({"PUBLIC_URL": "https://ai.example.org"}, "127.0.0.1", "AIRELAYS_PUBLIC_URL"),
        ({"PUBLIC_URL": "http://localhost:8080"}, "127.0.0.1", ""),
        ({"TRUSTED_PROXIES": "127.0.0.1"}, "127.0.0.1", "AIRELAYS_TRUSTED_PROXIES"),
        ({"OPEN_RELAY_ON_NETWORK": "true"}, "0.0.0.0", ""),
        ({"REQUIRE_BEARER_AUTH": "true"}, "0.0.0.0", ""),
    ],
    ids=str,
)
def test_an_open_relay_listens_on_this_machine_only(env: dict[str, str], host: str, reason: str) -> None:
    found = settings_of(**{"REQUIRE_BEARER_AUTH": "false", **env})
    said = why_not_open(found, host, found.public_url, bool(found.trusted_proxies))
    assert bool(said) == bool(reason) and reason in said and "\n" not in said
    assert not said or "AIRELAYS_OPEN_RELAY_ON_NETWORK=true" in said


def test_the_server_does_not_start_open_to_others(tmp_path: Path) -> None:
    env = {**os.environ, **NO_AUTH, "AIRELAYS_CONFIG": "", "AIRELAYS_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "manage.py", "serve", "--host", "0.0.0.0", "--port", "1"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "AIRELAYS_OPEN_RELAY_ON_NETWORK" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.django_db
def test_another_machine_is_answered_only_where_a_setting_says_so(settings: Any) -> None:
    from relay.errors import Forbidden
    from relay.gateway.access.open_relay import check_site, comes_from_here

    assert not comes_from_here("192.168.1.9", {}) and comes_from_here("::ffff:127.0.0.1", {})
    assert not comes_from_here("", {})
    settings.ALLOWED_HOSTS = ["*", ".example.org", "192.168.1.5"]
    with pytest.raises(Forbidden):
        check_site({b"host": b"192.168.1.5:8080"})
    settings.CONFIG = settings_of(REQUIRE_BEARER_AUTH="false", OPEN_RELAY_ON_NETWORK="true", PUBLIC_URL="http://ai.lan")
    assert comes_from_here("192.168.1.9", {b"x-forwarded-for": b"1.2.3.4"})
    check_site({b"host": b"192.168.1.5:8080"})
    check_site({b"host": b"ai.lan", b"origin": b"http://ai.lan"})
    for host in (b"evil.example", b"x.example.org", b""):
        with pytest.raises(Forbidden):
            check_site({b"host": host})


@pytest.mark.django_db
def test_the_token_of_the_open_relay_is_made_once_and_belongs_to_the_first_superuser() -> None:
    from accounts.models import AuditEvent, User
    from relay.models import Token
    from relay.tokens.lifecycle import revoke_token
    from relay.tokens.open_relay import is_closed, open_again, open_relay_digest, open_relay_token

    assert open_relay_token() is None, "there is nobody whose it would be"
    User.objects.create_user("user")
    first, _second = User.objects.create_superuser("first"), User.objects.create_superuser("second")
    token = open_relay_token()
    assert token is not None and token.user == first and open_relay_token() == token
    assert open_relay_digest() == token.digest
    assert AuditEvent.objects.filter(action="token.create", target_id=str(token.pk)).count() == 1
    revoke_token(token, actor=first)
    assert open_relay_digest() == "" and is_closed()
    assert open_relay_token() is None, "what starts anew by itself opens nothing"
    open_again()
    again = open_relay_token()
    assert again is not None and again != token and Token.objects.filter(built_in="open-relay").count() == 1
    open_again()
    assert open_relay_token() == again and not is_closed()


@pytest.mark.django_db
def test_what_ends_the_open_relay_holds_until_a_person_opens_it_again(settings: Any) -> None:
    """A worker that starts anew, or a change that reads the whole configuration again, must not open it."""
    from accounts.models import User
    from relay.gateway.access.open_relay import OpenRelay
    from relay.models import Token
    from relay.tokens.lifecycle import revoke_token
    from relay.tokens.open_relay import open_again, open_relay_digest

    settings.CONFIG = settings.CONFIG.model_copy(update={"require_bearer_auth": False})
    relay = OpenRelay()
    relay.read()
    assert relay.digest == "", "there is nobody whose token it would be"
    first, second = User.objects.create_superuser("first"), User.objects.create_superuser("second")
    relay.read()
    token = Token.objects.get(built_in="open-relay")
    assert relay.digest == token.digest
    revoke_token(token, actor=first)
    for _ in range(2):
        relay.read()
        relay.reread()
        assert relay.digest == ""
    started = OpenRelay()
    started.read()
    assert started.digest == "" and Token.objects.get(built_in="open-relay").revoked_at is not None
    open_again()
    relay.reread()
    assert relay.digest == open_relay_digest() != "", "one that runs notices"
    User.objects.filter(pk=first.pk).update(is_active=False)
    for one in (relay, OpenRelay()):
        one.read()
        assert one.digest == ""
    open_again()
    relay.reread()
    assert Token.objects.get(built_in="open-relay").user == second and relay.digest
