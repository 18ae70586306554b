"""What the SDKs of Anthropic and Google do when they are refused: whether, and when, they ask again."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from google import genai
from google.genai import errors, types

from tests.api.sdks.upstreams import HELLO, KINDS, Talk, at
from tests.support.peers import gemini, messages
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call

ASKED: list[Any] = [{"role": "user", "content": "Say hello."}]
EVERYWHERE = pytest.mark.parametrize("up", KINDS)


async def refuse(call: Call, up: str, status: int, headers: dict[str, str]) -> None:
    """As upstreams of each API refuse."""
    kind = {429: "rate_limit_error", 529: "overloaded_error"}.get(status, "api_error")
    if up == "anthropic":
        await messages.refuse(call, status, kind, "Not now.", headers)
    elif up == "gemini":
        await gemini.refuse(call, status, "RESOURCE_EXHAUSTED" if status == 429 else "UNAVAILABLE", "Not now.")
    else:
        await call.error(status, "Not now.", "rate_limit_exceeded" if status == 429 else None, headers)


def once(live: Portal, server: Server, up: str, status: int, **headers: str) -> Talk:
    """A model whose upstream refuses the first request, and answers those after it."""
    asked: list[int] = []
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def script(call: Call) -> None:
        asked.append(1)
        if len(asked) == 1:
            await refuse(call, up, status, named)
        else:
            await KINDS[up].answer(call, HELLO)

    return at(live, server, up, script)


def client_of(server: Server, token: str, retries: int) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key=token, max_retries=retries, timeout=300)


@EVERYWHERE
@pytest.mark.parametrize("status", [429, 500, 503, 529])
def test_anthropics_sdk_gets_its_answer_after_a_failure(live: Portal, server: Server, up: str, status: int) -> None:
    model = once(live, server, up, status, retry_after_ms="20")
    with client_of(server, live.token(), 4) as client:
        raw = client.messages.with_raw_response.create(model=model.model, max_tokens=99, messages=ASKED)
    assert raw.parse().content[0].to_dict()["text"] == "Hello there." and raw.retries_taken <= 4
    assert len(model.requests) == 2


@EVERYWHERE
def test_nobody_is_let_sleep_for_hours(live: Portal, server: Server, up: str) -> None:
    """The SDK waits for as long as it is told to: here it is told not to wait."""

    async def script(call: Call) -> None:
        if up == "gemini":
            info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7200s"}
            await gemini.refuse(call, 429, "RESOURCE_EXHAUSTED", "Not now.", info)
        else:
            await refuse(call, up, 429, {"retry-after": "7200"})

    model = at(live, server, up, script)
    with client_of(server, live.token(), 2) as client, pytest.raises(anthropic.RateLimitError) as refused:
        client.messages.create(model=model.model, max_tokens=99, messages=ASKED)
    headers = refused.value.response.headers
    assert headers["x-should-retry"] == "false" and int(headers["retry-after"]) > 7000
    assert len(model.requests) == 1, "it has neither slept nor asked again"


def test_a_short_wait_is_left_to_the_client(live: Portal, server: Server) -> None:
    model = once(live, server, "anthropic", 429, retry_after="1")
    with client_of(server, live.token(), 0) as client, pytest.raises(anthropic.RateLimitError) as refused:
        client.messages.create(model=model.model, max_tokens=99, messages=ASKED)
    assert refused.value.response.headers["retry-after"] == "1"
    assert "x-should-retry" not in refused.value.response.headers


def test_what_no_retry_mends_is_asked_once(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await messages.refuse(call, 529, "overloaded_error", "Overloaded", {"x-should-retry": "false"})

    model = at(live, server, "anthropic", script)
    poor = live.token(user=live.user(balance=1))
    priced = live.model(messages.saying(), provider="anthropic", price={"input": 900, "output": 900})
    server.catch_up()
    with client_of(server, live.token(), 2) as client, pytest.raises(anthropic.APIStatusError):
        client.messages.create(model=model.model, max_tokens=99, messages=ASKED)
    assert len(model.requests) == 1
    with client_of(server, poor, 2) as client, pytest.raises(anthropic.APIStatusError) as refused:
        client.messages.create(model=priced, max_tokens=99, messages=ASKED)
    assert refused.value.response.headers["x-should-retry"] == "false"
    with client_of(server, "sk-wrong", 2) as client, pytest.raises(anthropic.AuthenticationError):
        client.messages.create(model=priced, max_tokens=99, messages=ASKED)


@EVERYWHERE
@pytest.mark.parametrize("status", [429, 503])
def test_googles_sdk_gets_its_answer_after_a_failure(live: Portal, server: Server, up: str, status: int) -> None:
    model = once(live, server, up, status, retry_after_ms="20")
    again = types.HttpRetryOptions(attempts=6, initial_delay=0.5, max_delay=2.0)
    options = types.HttpOptions(base_url=server.url, timeout=300_000, retry_options=again)
    with genai.Client(api_key=live.token(), vertexai=False, http_options=options) as client:
        found = client.models.generate_content(model=model.model, contents="Say hello.")
    assert found.text == "Hello there." and len(model.requests) == 2


def test_googles_sdk_asks_once_where_it_was_not_told_otherwise(live: Portal, server: Server) -> None:
    model = once(live, server, "gemini", 400)
    options = types.HttpOptions(base_url=server.url, timeout=300_000)
    with (
        genai.Client(api_key=live.token(), vertexai=False, http_options=options) as client,
        pytest.raises(errors.ClientError),
    ):
        client.models.generate_content(model=model.model, contents="Say hello.")
    assert len(model.requests) == 1
