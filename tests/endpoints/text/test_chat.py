"""A chat request, from the client's bytes to the upstream's and back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import USAGE, Call, chunk

pytestmark = pytest.mark.shared


def test_plain_answer_passes_through_unchanged(server: Server, live: Portal) -> None:
    body = (
        b'{"id":"x","object":"chat.completion", "created":1,"choices":[{"index":0,"message":{"content":"h\xc3\xa9",'
        b'"refusal":null},"logprobs":null}],'
        b'  "extra": [1,2.50],"usage":{"prompt_tokens":3,"completion_tokens":2}}'
    )

    async def script(call: Call) -> None:
        await call.reply(200, body)

    model, token = live.model(script), live.token()
    response = server.post(token, ask(model))
    assert response.status_code == 200
    assert response.content == body
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"].startswith("req_") and len(response.headers["x-request-id"]) == 36
    assert response.headers["openai-processing-ms"].isdigit()
    assert response.headers["x-relay-attempts"] == "1"
    assert "set-cookie" not in response.headers and "vary" not in response.headers


def test_members_that_an_upstream_leaves_out_are_put_in(server: Server, live: Portal) -> None:
    """As llama.cpp's server does; OpenAI's document demands them, and some clients check."""

    async def script(call: Call) -> None:
        await call.reply(
            200,
            {
                "choices": [{"message": {"role": "assistant", "content": "hi", "extra": 1}, "finish_reason": "stop"}],
                "timings": {"a": 1},
                "model": "u",
            },
        )

    found = server.post(live.token(), ask(live.model(script))).json()
    choice = found["choices"][0]
    assert choice == {
        "index": 0,
        "message": {"role": "assistant", "content": "hi", "extra": 1, "refusal": None},
        "finish_reason": "stop",
        "logprobs": None,
    }
    assert (
        found["object"] == "chat.completion"
        and found["id"]
        and found["created"] > 1_700_000_000
        and found["timings"] == {"a": 1}
    )


def test_upstream_gets_our_key_and_nothing_of_the_client_but_the_body(server: Server, live: Portal) -> None:
    model, token = live.model(), live.token()
    server.post(
        token, ask(model), headers={"cookie": "a=b", "x-forwarded-for": "1.2.3.4", "openai-organization": "org-x"}
    )
    headers = live.upstream.last(model).headers
    assert headers["authorization"] == "Bearer sk-upstream-secret-0123456789"
    assert not {"cookie", "x-forwarded-for", "openai-organization", "x-api-key"} & set(headers)
    assert token not in str(headers)


def test_request_that_needs_no_change_goes_upstream_byte_for_byte(server: Server, live: Portal) -> None:
    model, token = live.model(), live.token()
    body = (
        (
            '{ "model":"%s" ,"messages":[{"role":"user","content":"\\u00e9"}],"temperature":1.0,'
            '"future_field":{"a":null,"big":12345678901234567890} }'
        )
        % model
    ).encode()
    assert server.post(token, body).status_code == 200
    assert live.upstream.last(model).body == body


def test_unknown_fields_survive_when_the_model_is_renamed(server: Server, live: Portal) -> None:
    model, token = live.model(upstream_name="vendor/real-name-1"), live.token()
    body = (
        '{"model":"%s","messages":[{"role":"user","content":"x"}],"future":{"z":1.50,"n":null},'
        '"seed":12345678901234567890}'
    ) % model
    assert server.post(token, body.encode()).status_code == 200
    sent = live.upstream.last("vendor/real-name-1").body
    assert sent == body.replace(model, "vendor/real-name-1").encode()


@pytest.mark.parametrize("asked", [True, False, None])
def test_usage_chunk_reaches_only_clients_that_asked_for_it(server: Server, live: Portal, asked: bool | None) -> None:
    model, token = live.model(), live.token()
    options = {} if asked is None else {"stream_options": {"include_usage": asked}}
    response = server.post(token, ask(model, stream=True, **options))
    assert live.upstream.last(model).wants_usage, "usage is always asked of the upstream"
    events = [event for event in response.text.split("\n\n") if event]
    assert events[-1] == "data: [DONE]"
    usages = [json.loads(event[6:]).get("usage") for event in events[:-1]]
    assert (usages[-1] == USAGE) is bool(asked)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache" and response.headers["x-accel-buffering"] == "no"


def test_other_stream_options_are_kept(server: Server, live: Portal) -> None:
    model, token = live.model(), live.token()
    server.post(token, ask(model, stream=True, stream_options={"include_obfuscation": False}))
    assert live.upstream.last(model).json["stream_options"] == {"include_obfuscation": False, "include_usage": True}


@pytest.mark.parametrize("options", [{"stream_usage": False}, {"provider": "mistral"}])
def test_channel_that_refuses_stream_options_is_not_sent_them(
    server: Server, live: Portal, options: dict[str, Any]
) -> None:
    model, token = live.model(**options), live.token()
    response = server.post(token, ask(model, stream=True))
    assert "stream_options" not in live.upstream.last(model).json
    record = live.record(response)
    assert record.usage_source == "estimated" and record.output_tokens > 0 and record.input_tokens > 0


def test_relay_headers_can_be_turned_off_but_staff_get_them(live: Portal, tmp_path: object, server: Server) -> None:
    from pathlib import Path

    from tests.support.server import serving

    assert isinstance(tmp_path, Path)
    model = live.model()
    user_token, staff_token = live.token(), live.token(live.user(is_staff=True, is_superuser=True))
    with serving(tmp_path / "log", env={"AIRELAYS_RELAY_HEADERS": "false"}) as quiet:
        assert "x-relay-channel" not in quiet.post(user_token, ask(model)).headers
        assert "x-relay-channel" in quiet.post(staff_token, ask(model)).headers


def test_multi_choice_stream(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        for index in (0, 1):
            event = chunk("x")
            event["choices"][0]["index"] = index
            await call.event(event)
        await call.event("[DONE]")
        await call.end()

    response = server.post(live.token(), ask(live.model(script), stream=True, n=2))
    assert response.text.endswith("data: [DONE]\n\n") and response.text.count("data:") == 3


def test_the_vendors_prefix_of_a_name_may_be_there(live: Portal, server: Server) -> None:
    model = live.model()
    response = server.post(live.token(), ask(f"openai/{model}"))
    assert response.status_code == 200 and live.record(response).model == model
    assert live.upstream.last(model).json["model"] == model
