"""What clients and usage records get of what an upstream says when it fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call, hello, two_words

pytestmark = pytest.mark.shared

# Keys as they look: Perplexity, NVIDIA, Zhipu, Baidu, Azure, a JWT, a password, and a relay's of no known form.
KEYS = [
    "pplx-0123456789abcdef0123456789abcdef0123456789abcdef",
    "nvapi-AbCdEf0123456789_AbCdEf0123456789-AbCdEf0123456789",
    "0a1b2c3d4e5f60718293a4b5c6d7e8f9.AbCdEfGh12345678",
    "bce-v3/ALTAK-abcdEF12/0123456789abcdef0123456789abcdef01234567",
    "0123456789abcdef0123456789abcdef",
    "eyJhbGciOiJIUzI1NiJ9.eyJhcGlfa2V5IjoiMGExYjJjM2QifQ.TJVA95OrM7E2cBab30RMHrHDcEfxjoYZ",
    "correct-horse-battery-staple",
    "Qm7vXn2kLr9sTb4wYc6dHj5p",
]


def told(live: Portal, response: httpx.Response) -> Iterator[str]:
    """All that is told of a request, to its client, to the user and to staff."""
    record = live.record(response)
    assert record.end_reason != "completed"
    yield from (response.text, str(response.headers), record.error_message, json.dumps(record.attempt_log))


def says(status: int, error: dict[str, Any]) -> Any:
    """A script that answers with an error; with the status 200 inside a stream, after two words of an answer."""

    async def script(call: Call) -> None:
        if status == 200:
            await two_words(call)
            await call.event({"error": error})
            await call.end()
        else:
            await call.reply(status, {"error": error})

    return script


@pytest.mark.parametrize("key", KEYS)
def test_the_channels_key_is_told_to_nobody(server: Server, live: Portal, key: str) -> None:
    """In a stream no status tells what the error is about, and its words need not, either."""
    token = live.token()
    for status in (200, 400, 500):
        for message in (
            f"Incorrect API key provided: {key}.",
            f"No {key} at node 7",
            f'{{"authorization":"Bearer {key}"}}',
        ):
            channel = live.channel(keys=(key,))
            script = says(status, {"message": message, "type": "server_error", "code": "x", "param": key})
            response = server.post(token, ask(live.model(script, channels=[channel]), stream=status == 200))
            assert "error" in response.text and (status != 200 or "Hello" in response.text)
            for text in told(live, response):
                assert not [part for part in key.replace("/", ".").split(".") if len(part) > 8 and part in text], text


@pytest.mark.parametrize("status", [200, 400])
def test_where_a_request_went_is_not_told(server: Server, live: Portal, status: int) -> None:
    """The scripted upstream plays the proxy, so that the host is one of an ending that no list has."""
    account = "5d1f0c2b7a9e4836b0c1d2e3f4a5968b"
    channel = live.channel(
        f"http://llm.relay.example.museum/v1/{account}/mine", proxy_url=f"http://127.0.0.1:{live.upstream.port}"
    )
    message = f"upstream llm.relay.example.museum refused; no gateway {account}/mine at eu.relay.example.museum:8443"
    script = says(status, {"message": message, "type": "server_error", "code": "x"})
    response = server.post(live.token(), ask(live.model(script, channels=[channel]), stream=status == 200))
    record = live.record(response)
    for text in (response.text, record.error_message):
        assert "museum" not in text and account not in text and "127.0.0.1" not in text
    assert "upstream [host] refused; no gateway [account]/mine at [host]" in response.text


def test_a_proxy_that_cannot_be_reached_is_not_told(server: Server, live: Portal) -> None:
    channel = live.channel("http://api.vendor.example.com/v1", proxy_url="http://127.0.0.1:1")
    response = server.post(live.token(), ask(live.model(hello, channels=[channel])))
    record = live.record(response)
    assert response.status_code == 502 and "could not be reached" in response.json()["error"]["message"]
    assert not [one for one in ("127.0.0.1", "vendor.example") if one in response.text + record.error_message]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (
            "Invalid schema for response_format 'profile': In context=('properties', 'user_profile'), "
            "'additionalProperties' is required to be supplied and to be false.",
            "response_format",
        ),
        ("Unknown parameter: 'tools[0].user_location.town'.", "tools[0].user_location.town"),
        (
            "Invalid 'tools[0].function.name': 'org_chart lookup' does not match '^[a-zA-Z0-9_-]+$'.",
            "tools[0].org_chart",
        ),
        ("basic authentication is not supported", "web.app"),
    ],
)
def test_the_clients_own_words_stay(server: Server, live: Portal, message: str, param: str) -> None:
    script = says(400, {"message": message, "type": "invalid_request_error", "code": "invalid_value", "param": param})
    response = server.post(live.token(), ask(live.model(script)))
    error = response.json()["error"]
    assert (response.status_code, error["message"], error["param"]) == (400, message, param)
