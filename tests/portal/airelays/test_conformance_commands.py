"""What people were seen to get of the commands of AIRelays 0.22 and 0.2.5, and that no secret is written anywhere.

As in `test_conformance.py`: each row is a function by its number, and says why the portal differs where it does.
"""

from __future__ import annotations

import asyncio
import json
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.portal.airelays.personal import InDatabase, Relay, empty_home, turn_on
from tests.support.peers.plans.chatgpt import ChatGPT
from tests.support.portal import Portal, ask
from tests.support.server import Server, free_port
from tests.support.upstream import Call, hello

RELAY = {"AIRELAYS_LOG_LEVEL": "DEBUG", "AIRELAYS_ACCESS_LOG": "true"}
# Off by default, since the portal has limits of tokens and users. The numbers are the defaults of 0.22 and, at once, 1.
LIMITS = {
    "AIRELAYS_RATE_LIMIT_PER_MINUTE": "120",
    "AIRELAYS_RATE_LIMIT_BURST": "40",
    "AIRELAYS_CONCURRENT_REQUESTS_PER_IP": "1",
}
Row = Callable[[Relay, Any], None]
ROWS: dict[int, Row] = {}


def row(*numbers: int) -> Callable[[Row], Row]:
    def note(function: Row) -> Row:
        for number in numbers:
            ROWS[number] = function
        return function

    return note


@pytest.fixture(scope="module")
def limited(started: Relay) -> Iterator[Server]:
    """The relay without tokens, and with the limits of addresses that 0.22 had."""
    with started.home.serving("--no-auth", **LIMITS) as server:
        yield server


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def get(server: Server, token: str = "") -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return httpx.get(f"{server.v1}/models", headers=headers, trust_env=False, timeout=30)


def test_limits_of_addresses_and_no_tokens(limited: Server, own: Portal) -> None:
    """Rows 11, 12 and 14."""
    begun, go = threading.Event(), threading.Event()

    async def slow(call: Call) -> None:
        begun.set()
        await asyncio.to_thread(go.wait, 30)
        await hello(call)

    model = own.model(slow)
    limited.catch_up()
    with ThreadPoolExecutor(1) as client:
        first = client.submit(httpx.post, f"{limited.v1}/chat/completions", json=ask(model), trust_env=False)
        assert begun.wait(30)
        second = get(limited)
        go.set()
        assert first.result().status_code == 200
    assert code_of(second) == (429, "too_many_concurrent_requests"), "while the first was running"
    assert [get(limited, token).status_code for token in ("", "junk")] == [200, 200]
    with httpx.Client(trust_env=False, timeout=30) as fast:
        answers = [fast.get(f"{limited.v1}/models") for _ in range(200)]
    refused = next(answer for answer in answers if answer.status_code != 200)
    assert answers.index(refused) >= 30 and code_of(refused) == (429, "rate_limit_exceeded")
    assert refused.headers["retry-after"] == "1"


@row(15)
def opened_by_a_variable(relay: Relay, _: Any) -> None:
    client = relay.home.json("status", AIRELAYS_REQUIRE_BEARER_AUTH="false")["client"]
    assert client["requires_bearer_auth"] is False and "api_key_note" in client


@row(17, 18)
def init(relay: Relay, _: Any) -> None:
    """A token has 51 characters, begins with `sk-`, and is in the database instead of a file of its own."""
    assert len(relay.token) == 51 and relay.token.startswith("sk-")
    file = relay.home.path / ".config" / "airelays" / "config.toml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = relay.home.json("init")
    assert again["relay_token"] is None and not again["config_created"] and not again["bearer_token_created"]
    assert relay.home.json("init", "--show-token")["relay_token"] == relay.token


@row(20)
def rotate(relay: Relay, _: Any) -> None:
    old, relay.token = relay.token, relay.home.json("token", "rotate")["relay_token"]
    relay.server.catch_up()
    assert get(relay.server, old).status_code == 401 and get(relay.server, relay.token).status_code == 200


@row(21)
def init_without_auth(relay: Relay, folder: Any) -> None:
    home = empty_home(folder)
    home("init", "--no-auth")
    assert "require_bearer_auth = false" in (folder / ".config" / "airelays" / "config.toml").read_text()
    assert not (home.data / "relay-token").exists()


@row(23, 24)
def older_folders(relay: Relay, folder: Any) -> None:
    home = empty_home(folder)
    (folder / ".airelay").mkdir()
    assert f"{folder / '.airelay'} is not set up" in home.run("status").stderr
    home.data.mkdir()
    assert f"{home.data} is not set up" in home.run("status").stderr


@row(59)
def refresh_refused(relay: Relay, inside: Any) -> None:
    relay.chatgpt.reject_access = True
    relay.chatgpt.answers["/oauth/token"] = (401, b'{"error":"invalid_grant","error_description":"secret words"}')
    answer = relay.respond()
    relay.chatgpt.reject_access = False
    relay.chatgpt.answers = {}
    assert code_of(answer) == (503, "upstream_auth_refresh_failed") and "secret words" not in answer.text
    assert answer.headers["x-airelays-upstream-auth"] == "refresh_failed"
    assert answer.headers["x-should-retry"] == "false"
    sign_in(relay)


@row(60)
def another_account(relay: Relay, _: Any) -> None:
    """A sign-in of 0.x that is bound to another account than it has tokens of is not taken over in the first place:
    `tests/channels/chatgpt/test_sign_in.py`. Here the issuer renews one for another account.
    """
    relay.chatgpt.valid.clear()
    relay.chatgpt.claims = {"https://api.openai.com/auth": {"chatgpt_account_id": "another"}}
    answer = relay.respond()
    relay.chatgpt.claims = {}
    assert code_of(answer) == (503, "upstream_auth_account_mismatch")
    assert answer.headers["x-airelays-upstream-auth"] == "account_mismatch"
    assert relay.home.json("status")["auth"]["sign_ins"][0]["ready_for_requests"] is False
    sign_in(relay)


def sign_in(relay: Relay) -> None:
    relay.home("logout")
    relay.home.login(relay.chatgpt)


@row(89)
def doctor(relay: Relay, _: Any) -> None:
    done = relay.home.run("doctor", "--json")
    report = json.loads(done.stdout)
    assert {check["name"]: check["status"] for check in report["checks"]}["response"] == "pass", report
    assert done.returncode == 0 and report["ok"]


@row(90)
def second_relay(relay: Relay, _: Any) -> None:
    """Where the relay is not told that it shares its folder."""
    done = relay.home.run(
        "serve", "--port", str(free_port()), AIRELAYS_SHARED_DATA_DIR="false", AIRELAYS_DATABASE_URL=""
    )
    assert done.returncode == 75, done.stderr


@row(92)
def login(relay: Relay, _: Any) -> None:
    """The callback has a port of its own and, in the form that OpenAI supports, the host 127.0.0.1."""
    asked = relay.chatgpt.asked
    assert asked["code_challenge_method"] == "S256" and asked["redirect_uri"].startswith("http://127.0.0.1:")
    assert relay.chatgpt.valid, "the exchange checks the verifier"


@pytest.mark.parametrize("number", sorted(ROWS))
def test_row(number: int, relay: Relay, tmp_path: Any, servers_database: InDatabase) -> None:
    ROWS[number](relay, tmp_path / "home")
    if number in {59, 60}:
        turn_on(relay.home, servers_database)


# -- what is written -------------------------------------------------------------------------------------------------


def test_commands_and_logs_carry_no_secret(relay: Relay, own: Portal) -> None:
    """Whatever was sent, at the level DEBUG: the relay token, keys of channels, tokens of ChatGPT, the password."""
    from relay.models import ChatGPTAccount

    key = "sk-upstream-secret-of-a-channel-0123456789"
    model = own.model(keys=(key,))
    for body in ({"model": "gpt-5.5"}, {"model": model}):
        messages = [{"role": "user", "content": "Hi"}]
        assert relay.server.post(relay.token, {**body, "messages": messages}).status_code == 200
    address = f"{relay.server.v1}/models?api_key={relay.token}"
    httpx.get(address, headers={"x-api-key": relay.token}, trust_env=False, timeout=30)
    written = [relay.server.log.read_text()]
    for words in ("status", "status --json", "accounts --json", "token list", "token list --json", "doctor --json"):
        done = relay.home.run(*words.split())
        assert done.returncode == 0, done.stderr
        written += [done.stdout, done.stderr]
    (account,) = ChatGPTAccount.objects.exclude(sealed="")
    secrets = {
        "token": relay.token, "password": relay.password, "key": key,
        **account.tokens, **keys_of(relay), **issued(relay.chatgpt),
    }  # fmt: skip
    assert len(secrets) > 8 and all(len(secret) > 8 for secret in secrets.values())
    text = "\n".join(written)
    assert [name for name, secret in secrets.items() if secret in text] == []
    assert [name for name, secret in secrets.items() if len(secret) > 30 and secret[10:26] in text] == []


def keys_of(relay: Relay) -> dict[str, str]:
    return {path.name: path.read_text().strip() for path in (relay.home.data / "keys").iterdir()}


def issued(chatgpt: ChatGPT) -> dict[str, str]:
    """All tokens that the issuer has given."""
    tokens = (*chatgpt.valid, *chatgpt.refreshable, *chatgpt.spent)
    return {f"issued {number}": token for number, token in enumerate(tokens)}
