"""The official SDK of Anthropic against the portal: at upstreams of the same API, and at those of others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from portal.lib.redaction.sent import sent
from tests.support.peers import messages
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call, Script, Upstream, chunk, completion

HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]
WEATHER: Any = {
    "name": "weather",
    "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture
def token(live: Portal) -> str:
    return live.token()


@pytest.fixture
def client(server: Server, token: str) -> Iterator[anthropic.Anthropic]:
    server.catch_up()
    with anthropic.Anthropic(base_url=server.url, api_key=token, max_retries=0, timeout=20) as made:
        yield made


def claude(live: Portal, server: Server, script: Script, **options: Any) -> str:
    """A model at an upstream of the same API."""
    model = live.model(script, provider="anthropic", **options)
    server.catch_up()
    return model


@pytest.fixture
def direct(live: Portal) -> Iterator[tuple[anthropic.Anthropic, Upstream]]:
    """The SDK at the mock itself: whether that is faithful."""
    url = live.upstream.base_url.removesuffix("/v1")
    with anthropic.Anthropic(base_url=url, api_key="sk-x", max_retries=0, timeout=20) as made:
        yield made, live.upstream


def test_the_mock_is_read_by_the_sdk_as_the_real_api_is(direct: tuple[anthropic.Anthropic, Upstream]) -> None:
    sdk, upstream = direct
    upstream.script("mock-direct", messages.saying(messages.THINKING, messages.TEXT, messages.TOOL, stop="tool_use"))
    plain = sdk.messages.create(model="mock-direct", max_tokens=99, messages=HELLO)
    with sdk.messages.stream(model="mock-direct", max_tokens=99, messages=HELLO) as stream:
        streamed = stream.get_final_message()
    assert [block.type for block in plain.content] == ["thinking", "text", "tool_use"]
    assert streamed.to_dict()["content"] == plain.to_dict()["content"]
    assert streamed.stop_reason == plain.stop_reason == "tool_use"
    assert sdk.messages.count_tokens(model="mock-direct", messages=HELLO).input_tokens == 77
    with pytest.raises(anthropic.BadRequestError, match="non-whitespace"):
        sdk.messages.create(model="mock-direct", max_tokens=9, messages=[{"role": "user", "content": " "}])


def test_a_message_at_an_upstream_of_the_same_api(client: anthropic.Anthropic, live: Portal, server: Server) -> None:
    model = claude(live, server, messages.saying(messages.THINKING, messages.TEXT), upstream_name="claude-up")
    answer = client.messages.with_raw_response.create(
        model=model,
        max_tokens=99,
        messages=HELLO,
        extra_headers={"anthropic-beta": "a-2026-01-01"},
        extra_body={"top_k": 3},
    )
    found = answer.parse()
    assert found.to_dict() == messages.message(messages.THINKING, messages.TEXT)
    assert found._request_id == answer.headers["x-request-id"]
    assert answer.headers["anthropic-ratelimit-requests-remaining"] == "49"
    sent = live.upstream.last("claude-up")
    assert sent.path == "/v1/messages" and sent.headers["anthropic-beta"] == "a-2026-01-01"
    assert sent.headers["x-api-key"].startswith("sk-upstream") and "authorization" not in sent.headers
    assert sent.json["top_k"] == 3 and sent.json["model"] == "claude-up"
    record = live.record(found._request_id)
    assert (record.input_tokens, record.cached_input_tokens, record.cache_write_tokens) == (19, 4, 6)
    assert (record.output_tokens, record.reasoning_tokens, record.usage_source) == (7, 3, "reported")


def test_headers_of_a_channel_that_failed_are_not_on_the_answer_of_the_next(
    client: anthropic.Anthropic, live: Portal, server: Server
) -> None:
    async def script(call: Call) -> None:
        if call.path.partition("?")[0].endswith("/messages"):
            error = {"type": "overloaded_error", "message": "Overloaded"}
            await call.reply(200, {"type": "error", "error": error}, {"anthropic-ratelimit-requests-remaining": "1"})
        else:
            await call.reply(200, completion("hello"))

    model = live.model(script, channels=[live.channel(provider="anthropic", priority=1), live.channel()])
    server.catch_up()
    answer = client.messages.with_raw_response.create(model=model, max_tokens=9, messages=HELLO)
    found = answer.parse()
    assert found.content[0].type == "text" and found.content[0].text == "hello"
    assert live.record(found._request_id).attempts == 2
    assert "anthropic-ratelimit-requests-remaining" not in answer.headers


def test_a_stream_at_an_upstream_of_the_same_api(client: anthropic.Anthropic, live: Portal, server: Server) -> None:
    model = claude(live, server, messages.saying(messages.THINKING, messages.TEXT, messages.TOOL, stop="tool_use"))
    with client.messages.stream(model=model, max_tokens=99, messages=HELLO) as stream:
        found = stream.get_final_message()
        request_id, headers = stream.request_id, stream.response.headers
    assert found.content[1].to_dict() == messages.TEXT and found.content[2].to_dict()["input"] == {"city": "Paris"}
    assert "anthropic-organization-id" not in headers and request_id is not None
    record = live.record(request_id)
    assert (record.input_tokens, record.output_tokens, record.reasoning_tokens) == (19, 7, 3)


async def chat(call: Call) -> None:
    """An upstream of chat completions that calls a tool, and says what it got."""
    asked = call.json["messages"]
    if asked[-1]["role"] == "tool":
        await call.reply(200, completion(f"It is {asked[-1]['content']}."))
        return
    calls = [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}]
    await call.open_stream()
    await call.event(chunk(None, None, choices=[{"index": 0, "delta": {"reasoning_content": "Hm."}}]))
    await call.event(chunk("Let me see."))
    await call.event(chunk(None, None, choices=[{"index": 0, "delta": {"tool_calls": calls}}]))
    for piece in ('{"city"', ':"Paris"}'):
        delta = {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
        await call.event(chunk(None, None, choices=[{"index": 0, "delta": delta}]))
    await call.event(chunk(None, "tool_calls", usage={"prompt_tokens": 30, "completion_tokens": 9, "total_tokens": 39}))
    await call.event("[DONE]")
    await call.end()


def test_a_loop_of_tools_at_an_upstream_of_chat_completions(
    client: anthropic.Anthropic, live: Portal, server: Server
) -> None:
    model = live.model(chat)
    server.catch_up()
    asked: list[Any] = [{"role": "user", "content": "The weather in Paris?"}]
    with client.messages.stream(model=model, max_tokens=500, messages=asked, tools=[WEATHER]) as stream:
        first = stream.get_final_message()
    assert [block.type for block in first.content] == ["thinking", "text", "tool_use"]
    assert first.stop_reason == "tool_use" and first.usage.input_tokens == 30 and first.usage.output_tokens == 9
    tool = first.content[2].to_dict()
    assert tool["input"] == {"city": "Paris"} and tool["id"] == "call_1"
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "sunny"}]}
    asked += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    last = client.messages.create(model=model, max_tokens=500, messages=asked, tools=[WEATHER])
    assert last.content[0].to_dict() == {"type": "text", "text": "It is sunny."} and last.stop_reason == "end_turn"
    sent = live.upstream.last(model).json["messages"]
    assert sent[1]["reasoning_content"] == "Hm." and sent[1]["tool_calls"][0]["id"] == "call_1"


@pytest.mark.parametrize(
    ("status", "kind", "text", "expected"),
    [
        (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum", anthropic.BadRequestError),
        (413, "request_too_large", "Request exceeds the maximum size", anthropic.RequestTooLargeError),
        (529, "overloaded_error", "Overloaded", anthropic.OverloadedError),
        (500, "api_error", "Internal server error", anthropic.InternalServerError),
        (429, "rate_limit_error", "This request would exceed your rate limit", anthropic.RateLimitError),
    ],
)
def test_errors_of_the_same_api_keep_their_words(
    client: anthropic.Anthropic, live: Portal, server: Server, status: int, kind: str, text: str, expected: Any
) -> None:
    async def script(call: Call) -> None:
        await messages.refuse(call, status, kind, text)

    model = claude(live, server, script)
    with pytest.raises(expected) as caught:
        client.messages.create(model=model, max_tokens=9, messages=HELLO)
    assert caught.value.status_code == status
    assert caught.value.body == {
        "type": "error",
        "error": {"type": kind, "message": text},
        "request_id": "req_up",
    }
    assert caught.value.request_id is not None and caught.value.request_id.startswith("req_")


def test_errors_of_the_account_at_the_upstream_are_told_in_the_portals_words(
    client: anthropic.Anthropic, live: Portal, server: Server
) -> None:
    async def script(call: Call) -> None:
        await messages.refuse(call, 401, "authentication_error", f"invalid x-api-key {call.headers['x-api-key']}")

    model = claude(live, server, script)
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(model=model, max_tokens=9, messages=HELLO)
    assert caught.value.status_code == 502 and "sk-upstream" not in str(caught.value.body)
    assert caught.value.body["error"]["details"]["error_code"] == "upstream_credentials_exhausted"  # type: ignore[index]


def test_errors_of_the_portal_have_the_shape_of_the_api(
    client: anthropic.Anthropic, live: Portal, server: Server
) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.create(model="no-such-model", max_tokens=9, messages=HELLO)
    assert missing.value.type == "not_found_error"
    with pytest.raises(anthropic.AuthenticationError) as unknown:
        client.with_options(api_key="sk-wrong").messages.create(model="x", max_tokens=9, messages=HELLO)
    assert unknown.value.type == "authentication_error"
    with pytest.raises(anthropic.BadRequestError) as wrong:
        client.messages.create(model=live.model(), messages=[], max_tokens=9)
    assert wrong.value.type == "invalid_request_error"
    with pytest.raises(anthropic.NotFoundError) as nowhere:
        client.get("/v1/nothing", cast_to=object)
    assert nowhere.value.type == "not_found_error" and nowhere.value.request_id


def test_an_error_in_the_middle_of_a_stream(client: anthropic.Anthropic, live: Portal, server: Server) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}

    async def script(call: Call) -> None:
        await call.open_stream()
        await call.send(messages.wire(messages.events(messages.message())[:4]))
        await call.send(messages.wire([error]))
        await call.end()

    model = claude(live, server, script)
    manager = client.messages.stream(model=model, max_tokens=9, messages=HELLO)
    with pytest.raises(anthropic.APIStatusError) as caught, manager as stream:
        stream.get_final_message()
    assert caught.value.body == error


def test_an_error_in_the_middle_keeps_the_links_of_a_vendor_and_no_host_of_ours(
    client: anthropic.Anthropic, live: Portal, server: Server
) -> None:
    """The upstream is asked by a name that is ours alone; that of the vendor is no secret, whoever has asked it."""
    sent.remember_address("api.anthropic.com")  # as any channel at the vendor's own address does
    said = (
        '{"type": "error","error":{"type":"invalid_request_error","message":"See https://docs.anthropic.com/en/api'
        '/errors and api.anthropic.com, not http://10.1.2.3:8000/x.","retry":1.50}, "request_id":"req_011"}'
    )

    async def script(call: Call) -> None:
        await call.open_stream()
        await call.send(messages.wire(messages.events(messages.message())[:4]))
        await call.send(b"event: error\ndata: " + said.encode() + b"\n\n")
        await call.end()

    model = claude(live, server, script)
    with client.messages.with_streaming_response.create(
        model=model, max_tokens=9, messages=HELLO, stream=True
    ) as answer:
        last = answer.read().decode().split("event: error\ndata: ")[-1]
    assert "https://docs.anthropic.com/en/api/errors and api.anthropic.com" in last
    assert "10.1.2.3" not in last and '"req_011"' in last
    known = said.replace("http://10.1.2.3:8000/x", "the page above")

    async def unmasked(call: Call) -> None:
        await call.open_stream()
        await call.send(messages.wire(messages.events(messages.message())[:4]))
        await call.send(b"event: error\ndata: " + known.encode() + b"\n\n")
        await call.end()

    model = claude(live, server, unmasked)
    with client.messages.with_streaming_response.create(
        model=model, max_tokens=9, messages=HELLO, stream=True
    ) as answer:
        assert answer.read().decode().endswith(f"data: {known}\n\n"), "its very bytes"


def test_tokens_are_counted_by_the_upstream_or_estimated(
    client: anthropic.Anthropic, live: Portal, server: Server
) -> None:
    native = claude(live, server, messages.saying())
    assert client.messages.count_tokens(model=native, messages=HELLO).input_tokens == 77
    other = live.model()
    server.catch_up()
    answer = client.messages.with_raw_response.count_tokens(model=other, messages=HELLO, system="s" * 400)
    assert answer.parse().input_tokens > 100 and answer.headers["x-airelays-estimated"] == "input_tokens"


def test_models_are_listed_in_the_form_of_the_api_page_by_page(
    client: anthropic.Anthropic, live: Portal, server: Server
) -> None:
    names = {live.model(max_output_tokens=777) for _ in range(3)}
    server.catch_up()
    first = client.models.list(limit=2)
    assert len(first.data) == 2 and first.has_more and first.last_id == first.data[-1].id
    assert names <= {model.id for model in first}, "the SDK turns the pages"
    found = client.models.retrieve(sorted(names)[0])
    assert (found.type, found.max_tokens, found.lifecycle) == ("model", 777, "active")
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("no-such-model")


def test_a_client_that_has_only_a_bearer_token_is_let_in(server: Server, live: Portal, token: str) -> None:
    model = claude(live, server, messages.saying())
    with anthropic.Anthropic(base_url=server.url, auth_token=token, api_key=None, max_retries=0) as sdk:
        assert sdk.messages.create(model=model, max_tokens=9, messages=HELLO).stop_reason == "end_turn"


def test_betas_reach_the_upstream_by_header_body_and_address(
    client: anthropic.Anthropic, live: Portal, server: Server
) -> None:
    model = claude(live, server, messages.saying())
    edits: Any = {"edits": [{"type": "clear_tool_uses_20250919"}]}
    client.beta.messages.create(
        model=model,
        max_tokens=9,
        messages=HELLO,
        betas=["x-2026-01-01"],
        extra_body={"context_management": edits},
        extra_query={"beta": "true"},  # as Claude Code asks
    )
    sent = live.upstream.last(model)
    assert sent.path == "/v1/messages?beta=true" and sent.headers["anthropic-beta"] == "x-2026-01-01"
    assert sent.json["context_management"] == edits


def test_what_would_be_dearer_than_the_price_is_refused(
    client: anthropic.Anthropic, live: Portal, server: Server
) -> None:
    model = claude(live, server, messages.saying())
    with pytest.raises(anthropic.UnprocessableEntityError, match="speed"):
        client.messages.create(model=model, max_tokens=9, messages=HELLO, extra_body={"speed": "fast"})


def test_an_answer_is_asked_for_that_the_model_can_give(
    client: anthropic.Anthropic, live: Portal, server: Server
) -> None:
    """Claude Code asks every model for answers as long as Claude's."""
    model = live.model(max_output_tokens=777)
    server.catch_up()
    client.messages.create(model=model, max_tokens=32000, messages=HELLO)
    assert live.upstream.last(model).json["max_completion_tokens"] == 777


def test_an_openai_client_at_an_upstream_of_anthropics(live: Portal, server: Server) -> None:
    openai = pytest.importorskip("openai")
    model = claude(live, server, messages.saying(messages.THINKING, messages.TEXT, messages.TOOL, stop="tool_use"))
    token = live.token()
    server.catch_up()
    tool = {"type": "function", "function": {"name": "weather", "parameters": WEATHER["input_schema"]}}
    asked: list[Any] = [{"role": "system", "content": "Be brief."}, *HELLO]
    with openai.OpenAI(base_url=server.v1, api_key=token, max_retries=0, timeout=20) as sdk:
        plain = sdk.chat.completions.create(model=model, messages=asked, tools=[tool], reasoning_effort="low")
        stream = sdk.chat.completions.create(
            model=model, messages=asked, tools=[tool], stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        response = sdk.responses.create(model=model, input="Hi.", reasoning={"effort": "low"})
    choice = plain.choices[0]
    assert choice.message.content == "Hello there." and choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls[0].function.arguments == '{"city":"Paris"}'
    assert (plain.usage.prompt_tokens, plain.usage.prompt_tokens_details.cached_tokens) == (19, 4)
    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == "Hello there."
    assert chunks[-1].usage.prompt_tokens == 19 and chunks[0].created
    assert response.output_text == "Hello there." and response.output[0].type == "reasoning"
    sent = live.upstream.last(model).json
    assert sent["thinking"] == {"type": "enabled", "budget_tokens": 1024} and sent["max_tokens"] == 4096
