"""/v1/responses over channels of either kind."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.endpoints.text.responses_upstream import USED, Upstream, response
from tests.support import upstream as support
from tests.support.asserts import until
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call, chunk, completion, hello

pytestmark = pytest.mark.shared


def test_a_native_answer_passes_and_is_billed(sdk: OpenAI, live: Portal, native: tuple[str, Upstream]) -> None:
    model, upstream = native
    answer = sdk.responses.with_raw_response.create(model=model, input="hi", metadata={"a": "b"}, extra_body={"foo": 1})
    found = answer.parse()
    assert (
        found.output_text == "answer 1"
        and found.metadata == {"a": "b"}
        and upstream.asked[0] == {"model": model, "input": "hi", "metadata": {"a": "b"}, "foo": 1}
    )
    record = live.record(answer.headers["x-request-id"])
    assert (
        record.endpoint,
        record.input_tokens,
        record.cached_input_tokens,
        record.output_tokens,
        record.reasoning_tokens,
    ) == ("responses", 9, 4, 7, 3)


def test_good_answers_pass_byte_for_byte(live: Portal, server: Server) -> None:
    answer = json.dumps({**response(3, "Grüße", store=True), "usage": USED}, indent=1, ensure_ascii=False).encode()
    begun = (
        b'event: response.created\ndata: {"type":"response.created",  "sequence_number":0,"response":%s}\n\n'
        % answer.replace(b"\n", b"")
    )
    ended = (
        b'event: response.completed\ndata: {"type":"response.completed","sequence_number":1,"response":%s}\n\n'
        % answer.replace(b"\n", b"")
    )

    async def script(call: Call) -> None:
        if not call.json.get("stream"):
            await call.reply(200, answer)
            return
        await call.open_stream()
        await call.send(begun + ended)
        await call.end()

    model, token = live.model(script), live.token()
    body = b'{"input": "x",  "model": "%s", "odd": [1,2.50]}' % model.encode()

    def as_sent(got: bytes) -> bytes:
        """With the upstream's id again: the portal gives what it keeps an id of its own."""
        ids = set(re.findall(rb"resp_[0-9a-f]{32}", got))
        assert len(ids) == 1
        return got.replace(ids.pop(), b"resp_%032x" % 3)

    assert as_sent(server.post(token, body, path="/v1/responses").content) == answer
    assert live.upstream.last(model).body == body
    streamed = body.replace(b'"odd"', b'"stream":true,"odd"')
    assert as_sent(server.post(token, streamed, path="/v1/responses").content) == begun + ended
    unkept = body.replace(b'"odd"', b'"store":false,"odd"')
    assert server.post(token, unkept, path="/v1/responses").content == answer


def test_the_stream_ends_with_the_whole_response_although_the_upstreams_is_empty(
    sdk: OpenAI, native: tuple[str, Upstream]
) -> None:
    with sdk.responses.stream(model=native[0], input="hi") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert (
        final.output_text == "answer 1"
        and kinds[-1] == "response.completed"
        and final.usage is not None
        and final.usage.total_tokens == 16
    )
    assert sdk.responses.retrieve(final.id).output_text == "answer 1"


def test_a_client_of_responses_at_an_upstream_of_chat(sdk: OpenAI, live: Portal, chat_only: str) -> None:
    answer = sdk.responses.with_raw_response.create(
        model=chat_only, input="hi", instructions="Be kind.", truncation="auto"
    )
    found = answer.parse()
    assert (
        found.output_text == "Hello there."
        and found.status == "completed"
        and found.usage is not None
        and found.usage.input_tokens == 9
    )
    assert found.instructions == "Be kind." and answer.headers["x-airelays-ignored-parameters"] == "truncation"
    sent = live.upstream.last(chat_only).json
    assert sent["messages"] == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}]
    with sdk.responses.stream(model=chat_only, input="hi") as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_text == "Hello there."
    assert (
        kinds[0] == "response.created" and kinds[-1] == "response.completed" and "response.output_text.delta" in kinds
    )
    assert live.upstream.last(chat_only).json["stream_options"] == {"include_usage": True}


def test_tools_over_an_upstream_of_chat(sdk: OpenAI, live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        if call.json["messages"][-1]["role"] == "tool":
            assert (
                call.json["messages"][-2]["tool_calls"][0]["id"] == "call_9"
                and call.json["messages"][-1]["content"] == "sunny"
            )
            await call.reply(200, completion("It is sunny."))
            return
        await call.open_stream()
        await call.event(
            chunk("")
            | {
                "choices": [
                    {
                        "index": 0,
                        "delta": {
                            "tool_calls": [
                                {
                                    "index": 0,
                                    "id": "call_9",
                                    "type": "function",
                                    "function": {"name": "get_weather", "arguments": ""},
                                }
                            ]
                        },
                    }
                ]
            }
        )
        for piece in ('{"city"', ':"Paris"}'):
            await call.event(
                chunk("")
                | {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}}]}
            )
        await call.event(chunk(None, "tool_calls"))
        await call.event("[DONE]")
        await call.end()

    model = live.model(script, text_api="chat")
    server.catch_up()
    tool: Any = {
        "type": "function",
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        "strict": False,
    }
    with sdk.responses.stream(model=model, input="weather?", tools=[tool]) as stream:
        for _ in stream:
            continue
        first = stream.get_final_response()
    call: Any = first.output[0]
    assert (call.type, call.name, call.arguments, call.call_id) == (
        "function_call",
        "get_weather",
        '{"city":"Paris"}',
        "call_9",
    )
    second = sdk.responses.create(
        model=model,
        input=[{"type": "function_call_output", "call_id": "call_9", "output": "sunny"}],
        previous_response_id=first.id,
    )
    assert second.output_text == "It is sunny." and second.previous_response_id == first.id


def test_structured_output_over_chat(sdk: OpenAI, live: Portal, server: Server) -> None:
    class Answer(BaseModel):
        n: int

    async def script(call: Call) -> None:
        assert call.json["response_format"]["json_schema"]["strict"] is True
        await call.reply(200, completion('{"n": 7}'))

    model = live.model(script, text_api="chat")
    server.catch_up()
    found = sdk.responses.parse(model=model, input="x", text_format=Answer).output_parsed
    assert found is not None and found.n == 7


def test_a_client_of_chat_at_an_upstream_of_responses(sdk: OpenAI, live: Portal, server: Server) -> None:
    upstream = Upstream()
    model = live.model(upstream, text_api="responses")
    server.catch_up()
    answer = sdk.chat.completions.create(
        model=model,
        messages=[{"role": "system", "content": "S"}, {"role": "user", "content": "hi"}],
        max_tokens=50,
        seed=3,
    )
    assert (
        answer.choices[0].message.content == "answer 1"
        and answer.choices[0].finish_reason == "stop"
        and answer.usage is not None
        and answer.usage.prompt_tokens == 9
    )
    sent = upstream.asked[0]
    assert (
        sent["instructions"] == "S"
        and sent["store"] is False
        and sent["max_output_tokens"] == 50
        and "seed" not in sent
    )
    chunks = list(
        sdk.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert (
        "".join(piece.choices[0].delta.content or "" for piece in chunks if piece.choices) == "answer 2"
        and chunks[-1].usage is not None
    )
    refusal = server.post(sdk.api_key, ask(model, n=2))
    assert refusal.status_code == 422 and refusal.json()["error"]["param"] == "n" and len(upstream.asked) == 2


def test_an_upstream_that_turns_out_to_lack_responses_is_asked_by_chat(
    sdk: OpenAI, live: Portal, server: Server, second: support.Upstream
) -> None:
    from relay.models import Cooldown

    async def script(call: Call) -> None:
        if call.path == "/v1/responses":
            await call.reply(404, {"detail": "Not Found"})
        else:
            await hello(call)

    channel = live.channel(second.base_url, text_api="both")
    model = live.model(channels=[channel])
    second.scripts.update({model: script, "": script})  # the portal asks with an empty object
    server.catch_up()
    before = len(second.calls)
    try:
        assert sdk.responses.create(model=model, input="hi").output_text == "Hello there."
        row = until(lambda: Cooldown.objects.filter(channel=channel).first())
        assert row.kind == "no_api" and "/v1/responses: HTTP 404: Not Found" in row.detail
        assert sdk.responses.create(model=model, input="hi").output_text == "Hello there."
    finally:
        del second.scripts[""]
    assert [call.path for call in second.calls[before:]] == [
        "/v1/responses",
        "/v1/chat/completions",
        "/v1/responses",  # the portal itself
        "/v1/chat/completions",
    ]


def test_a_stream_that_was_not_asked_for_is_put_together(sdk: OpenAI, live: Portal, server: Server) -> None:
    upstream = Upstream()

    async def script(call: Call) -> None:
        call.json["stream"] = True
        await upstream(call)

    model = live.model(script)
    server.catch_up()
    assert sdk.responses.create(model=model, input="hi").output_text == "answer 1"


def test_a_stream_that_fails_before_it_says_anything_is_tried_elsewhere(
    sdk: OpenAI, live: Portal, server: Server
) -> None:
    good = Upstream()

    async def script(call: Call) -> None:
        if "first" not in call.headers["authorization"]:
            await good(call)
            return
        await call.open_stream()
        begun = response(1, "x", status="in_progress", output=[])
        await call.event({"type": "response.created", "sequence_number": 0, "response": begun})
        failed = {**begun, "status": "failed", "error": {"code": "server_error", "message": "overloaded"}}
        await call.event({"type": "response.failed", "sequence_number": 1, "response": failed})
        await call.end()

    channels = [
        live.channel(keys=("sk-first-0123456789abcdef",), priority=1),
        live.channel(keys=("sk-second-0123456789abcdef",)),
    ]
    model = live.model(script, channels=channels)
    server.catch_up()
    with sdk.responses.stream(model=model, input="hi") as stream:
        assert stream.until_done().get_final_response().output_text == "answer 1"


def test_a_stream_that_breaks_off_ends_with_an_error_event(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        await call.event(
            {
                "type": "response.created",
                "sequence_number": 0,
                "response": response(1, "", status="in_progress", output=[]),
            }
        )
        await call.event(
            {
                "type": "response.output_text.delta",
                "sequence_number": 1,
                "output_index": 0,
                "content_index": 0,
                "item_id": "m",
                "delta": "Hel",
                "logprobs": [],
            }
        )
        call.cut()

    answer = server.post(
        live.token(), {"model": live.model(script), "input": "hi", "stream": True}, path="/v1/responses"
    )
    assert (
        "event: error\n" in answer.text
        and '"sequence_number":2' in answer.text
        and "[DONE]" not in answer.text
        and "response.completed" not in answer.text
    )
    assert live.record(answer).end_reason == "truncated"


def test_what_cannot_be_decoded_is_passed_on_all_the_same(live: Portal, server: Server) -> None:
    broken = json.dumps(response(9, "a stray BYTE of Latin-1")).encode().replace(b"BYTE", b"\xe9")

    async def script(call: Call) -> None:
        if not call.json.get("stream"):
            await call.reply(200, broken)
            return
        await call.open_stream()
        await call.event(
            {
                "type": "response.created",
                "sequence_number": 0,
                "response": response(9, "", status="in_progress", output=[]),
            }
        )
        await call.send(b'data: {"type":"response.completed","sequence_number":1,"response":' + broken + b"}\n\n")
        await call.end()

    model, token = live.model(script), live.token()
    unkept = server.post(token, {"model": model, "input": "x", "store": False}, path="/v1/responses")
    assert unkept.content == broken and live.record(unkept).output_tokens == 7
    plain = server.post(token, {"model": model, "input": "x"}, path="/v1/responses")
    assert b"a stray \xe9 of" in plain.content
    kept = server.get(token, f"/v1/responses/{json.loads(plain.content.decode('latin-1'))['id']}").json()
    assert kept["output"][0]["content"][0]["text"] == "a stray \ufffd of Latin-1"
    streamed = server.post(token, {"model": model, "input": "x", "stream": True}, path="/v1/responses")
    assert b"a stray \xe9 of" in streamed.content and live.record(streamed).end_reason == "completed"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "m"}, "input"),
        ({"input": "x"}, "model"),
        ({"model": "m", "input": 5}, "input"),
        ({"model": "m", "input": ["x"]}, "input"),
        ({"model": "m", "input": "x", "previous_response_id": "a", "conversation": "b"}, "previous_response_id"),
        ({"model": "m", "input": "x", "conversation": 5}, "conversation"),
        ({"model": "m", "input": "x", "background": True, "store": False}, "background"),
    ],
)
def test_requests_that_make_no_sense(live: Portal, server: Server, body: dict[str, Any], param: str) -> None:
    answer = server.post(live.token(), body, path="/v1/responses")
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param


def test_explicit_nulls_are_legal(live: Portal, server: Server, chat_only: str) -> None:
    body = {
        name: None
        for name in (
            "include",
            "instructions",
            "metadata",
            "previous_response_id",
            "conversation",
            "tools",
            "tool_choice",
            "text",
            "reasoning",
            "background",
            "stream",
            "user",
        )
    }
    assert (
        server.post(live.token(), {"model": chat_only, "input": "x", **body}, path="/v1/responses").status_code == 200
    )
