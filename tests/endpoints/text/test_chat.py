"""A chat request, from the client's bytes to the upstream's and back."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conftest import Portal, ask
from tests.support.server import Server
from tests.support.upstream import USAGE, Call, chunk, hello


def test_plain_answer_passes_through_unchanged(server: Server, live: Portal) -> None:
    body = (
        b'{"id":"x","object":"chat.completion", "created":1,"choices":[{"index":0,"message":{"content":"h\xc3\xa9","refusal":null},"logprobs":null}],'
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
        await call.reply(200, {"choices": [{"message": {"role": "assistant", "content": "hi", "extra": 1}, "finish_reason": "stop"}], "timings": {"a": 1}, "model": "u"})

    found = server.post(live.token(), ask(live.model(script))).json()
    choice = found["choices"][0]
    assert choice == {"index": 0, "message": {"role": "assistant", "content": "hi", "extra": 1, "refusal": None}, "finish_reason": "stop", "logprobs": None}
    assert found["object"] == "chat.completion" and found["id"] and found["created"] > 1_700_000_000 and found["timings"] == {"a": 1}


def test_upstream_gets_our_key_and_nothing_of_the_client_but_the_body(server: Server, live: Portal) -> None:
    model, token = live.model(), live.token()
    server.post(token, ask(model), headers={"cookie": "a=b", "x-forwarded-for": "1.2.3.4", "openai-organization": "org-x"})
    headers = live.upstream.last(model).headers
    assert headers["authorization"] == "Bearer sk-upstream-secret-0123456789"
    assert not {"cookie", "x-forwarded-for", "openai-organization", "x-api-key"} & set(headers)
    assert token not in str(headers)


def test_request_that_needs_no_change_goes_upstream_byte_for_byte(server: Server, live: Portal) -> None:
    model, token = live.model(), live.token()
    body = ('{ "model":"%s" ,"messages":[{"role":"user","content":"\\u00e9"}],"temperature":1.0,"future_field":{"a":null,"big":12345678901234567890} }' % model).encode()
    assert server.post(token, body).status_code == 200
    assert live.upstream.last(model).body == body


def test_unknown_fields_survive_when_the_model_is_renamed(server: Server, live: Portal) -> None:
    model, token = live.model(upstream_name="vendor/real-name-1"), live.token()
    body = '{"model":"%s","messages":[{"role":"user","content":"x"}],"future":{"z":1.50,"n":null},"seed":12345678901234567890}' % model
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
def test_channel_that_refuses_stream_options_is_not_sent_them(server: Server, live: Portal, options: dict[str, Any]) -> None:
    model, token = live.model(**options), live.token()
    response = server.post(token, ask(model, stream=True))
    assert "stream_options" not in live.upstream.last(model).json
    record = live.record(response)
    assert record.usage_source == "estimated" and record.output_tokens > 0 and record.input_tokens > 0


@pytest.mark.parametrize("stream", [False, True])
def test_record_holds_tokens_by_class_and_where_they_went(server: Server, live: Portal, stream: bool) -> None:
    user = live.user()
    channel = live.channel()
    model, token = live.model(channels=[channel], upstream_name=f"up-{stream}"), live.token(user)
    response = server.post(token, ask(model, stream=stream), headers={"x-client-request-id": "mine-1"})
    record = live.record(response)
    assert (record.input_tokens, record.cached_input_tokens, record.output_tokens, record.reasoning_tokens) == (9, 4, 7, 3)
    assert (record.audio_input_tokens, record.audio_output_tokens) == (1, 2)
    assert (record.usage_source, record.end_reason, record.status, record.streamed) == ("reported", "completed", 200, stream)
    assert (record.model, record.upstream_model, record.endpoint) == (model, f"up-{stream}", "chat.completions")
    assert (record.user_id, record.channel_id, record.client_request_id) == (user.pk, channel.pk, "mine-1")
    assert record.api_key_id == channel.keys.get().pk
    assert record.attempts == 1 and record.attempt_log[0]["outcome"] == "ok"
    assert record.latency_ms >= 0 and record.first_token_ms is not None
    assert record.client_ip == "127.0.0.1"


def test_plain_answer_without_usage_is_estimated_and_marked(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        await call.reply(200, {"choices": [{"index": 0, "message": {"role": "assistant", "content": "twelve words " * 6}}]})

    record = live.record(server.post(live.token(), ask(live.model(script))))
    assert record.usage_source == "estimated"
    assert 10 <= record.output_tokens <= 40


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions/", "//v1//chat/completions", "/v1/v1/chat/completions", "/chat/completions", "/v1/chat/completions/chat/completions",
        "/v1/chat/completions/v1/chat/completions",
    ],
)  # fmt: skip
def test_base_urls_that_people_type_work(server: Server, live: Portal, path: str) -> None:
    response = server.post(live.token(), ask(live.model()), path=path)
    assert response.status_code == 200, response.text


def test_token_may_come_as_x_api_key(server: Server, live: Portal) -> None:
    response = server.post("", ask(live.model()), headers={"authorization": "", "x-api-key": live.token()})
    assert response.status_code == 200


def test_body_of_several_megabytes_passes(server: Server, live: Portal) -> None:
    model = live.model()
    content = [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5_000_000}}]
    response = server.post(live.token(), {"model": model, "messages": [{"role": "user", "content": content}]})
    assert response.status_code == 200
    assert len(live.upstream.last(model).body) > 5_000_000


def test_chunked_request_body_without_length_passes(server: Server, live: Portal) -> None:
    import httpx

    model, token = live.model(), live.token()
    body = json.dumps(ask(model)).encode()
    server.catch_up()
    response = httpx.post(f"{server.v1}/chat/completions", content=iter([body[:10], body[10:]]), headers={"authorization": f"Bearer {token}"}, trust_env=False)
    assert response.status_code == 200


def test_relay_headers_can_be_turned_off_but_staff_get_them(live: Portal, tmp_path: object, server: Server) -> None:
    from pathlib import Path

    from tests.support.server import serving

    assert isinstance(tmp_path, Path)
    model = live.model()
    user_token, staff_token = live.token(), live.token(live.user(is_staff=True))
    with serving(tmp_path / "log", env={"AIRELAYS_RELAY_HEADERS": "false"}) as quiet:
        assert "x-relay-channel" not in quiet.post(user_token, ask(model)).headers
        assert "x-relay-channel" in quiet.post(staff_token, ask(model)).headers


@pytest.mark.parametrize("stream", [False, True])
def test_kept_connection_that_the_upstream_closes_in_that_moment_is_replaced(server: Server, live: Portal, stream: bool) -> None:
    seen: set[object] = set()

    async def script(call: Call) -> None:
        if call.writer in seen:
            call.cut()
            return
        seen.add(call.writer)
        await hello(call)

    channel = live.channel()
    model, token = live.model(script, channels=[channel]), live.token()
    for _ in range(6):
        response = server.post(token, ask(model, stream=stream))
        assert response.status_code == 200 and response.headers["x-relay-attempts"] == "1"


def test_all_kept_connections_that_close_in_that_moment_are_replaced(server: Server, live: Portal) -> None:
    """As when an upstream restarts: none of the others is any better."""
    kept: set[object] = set()
    come: list[asyncio.Event] = []

    async def script(call: Call) -> None:
        if call.writer in kept:
            call.cut()
            return
        kept.add(call.writer)
        come.append(mine := asyncio.Event())
        if len(come) % 8 == 0:  # all of a round are here, each on a connection of its own
            for event in come:
                event.set()
        await mine.wait()
        await hello(call)

    model, token = live.model(script), live.token()
    server.catch_up()
    for _ in range(2):
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: server.post(token, ask(model)), range(8)))
        assert [(response.status_code, response.headers["x-relay-attempts"]) for response in found] == [(200, "1")] * 8


def test_channel_with_a_proxy_goes_through_it(server: Server, live: Portal) -> None:
    """The scripted upstream plays the proxy: it is asked for the whole URL, whose host nobody resolves here."""
    channel = live.channel("http://api.vendor.example.com/v1", proxy_url=f"http://127.0.0.1:{live.upstream.port}")
    model = live.model(channels=[channel])
    assert server.post(live.token(), ask(model)).status_code == 200
    call = live.upstream.last(model)
    assert call.path == "http://api.vendor.example.com/v1/chat/completions" and call.headers["host"] == "api.vendor.example.com"


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
