"""What upstreams send with the status 200, as it is met: errors, the other form, other statuses, byte order marks."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.endpoints.text.responses_upstream import response
from tests.support.portal import Portal, ask
from tests.support.server import NO_CERTIFICATES, Server
from tests.support.upstream import USAGE, Call, chunk, completion, hello, sound, two_words

pytestmark = pytest.mark.shared

CHAT, RESPONSES, LEGACY = "/v1/chat/completions", "/v1/responses", "/v1/completions"
WAYS = [(CHAT, "chat"), (CHAT, "responses"), (RESPONSES, "chat"), (RESPONSES, "responses"), (LEGACY, "chat")]
PRICE = {"input": 10, "output": 20}
FORMS = [
    {"object": "error", "message": "The cluster is on fire.", "type": "Fire", "code": 500},
    {"detail": "The cluster is on fire."},
    {"code": "InternalError", "message": "The cluster is on fire.", "request_id": "1"},
    {"id": "", "choices": None, "base_resp": {"status_code": 1000, "status_msg": "The cluster is on fire."}},
    {"error": "The cluster is on fire."},
]


def body_of(path: str, model: str, **more: Any) -> dict[str, Any]:
    if path == CHAT:
        return ask(model, **more)
    return {"model": model, ("input" if path == RESPONSES else "prompt"): "Say hello.", **more}


def whole(path: str, **more: Any) -> dict[str, Any]:
    """A plain answer of an upstream."""
    if path == RESPONSES:
        return {**response(1, "Hello there."), **more}
    if path == LEGACY:
        choice = {"index": 0, "text": "Hello there.", "logprobs": None, "finish_reason": "stop"}
        return {"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": [choice], **more}
    return completion(**more)


def pair(live: Portal, text_api: str) -> list[Any]:
    """Two channels: the first is asked first."""
    first = live.channel(keys=("sk-bad-0123456789-bad0",), priority=9, text_api=text_api)
    return [first, live.channel(keys=("sk-sib-0123456789-good",), priority=1, text_api="chat")]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "text_api"), WAYS)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: next(iter(form)))
def test_an_error_with_the_status_200_is_a_failure_that_is_tried_elsewhere_and_not_charged(
    server: Server, live: Portal, path: str, text_api: str, stream: bool, form: dict[str, Any]
) -> None:
    async def script(call: Call) -> None:
        if call.headers["authorization"].endswith("good"):
            await (call.reply(200, whole(LEGACY)) if path == LEGACY else hello(call))
        elif not stream:
            await call.reply(200, form)
        else:
            await call.open_stream()
            await call.event(form)
            await call.event("[DONE]")
            await call.end()

    token = live.token()
    alone = live.model(script, text_api=text_api, price=PRICE)
    answer = server.post(token, body_of(path, alone, stream=stream), path=path)
    assert answer.status_code >= 400 and "error" in answer.json()
    record = live.record(answer)
    assert (record.end_reason, record.cost) == ("upstream_error", 0)
    both = live.model(script, channels=pair(live, text_api), price=PRICE)
    answer = server.post(token, body_of(path, both, stream=stream), path=path)
    assert answer.status_code == 200 and answer.headers["x-relay-attempts"] == "2" and "Hello" in answer.text


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: next(iter(form)))
def test_an_error_in_the_middle_ends_the_stream_and_is_recorded(
    server: Server, live: Portal, path: str, form: dict[str, Any]
) -> None:
    async def script(call: Call) -> None:
        await two_words(call)
        await call.event(form)
        await call.event("[DONE]")
        await call.end()

    model = live.model(script, text_api="chat", price=PRICE)
    answer = server.post(live.token(), body_of(path, model, stream=True), path=path)
    assert answer.status_code == 200 and "Hello" in answer.text and "[DONE]" not in answer.text
    assert "response.completed" not in answer.text
    assert json.loads(answer.text.strip().rsplit("data: ", 1)[1])
    record = live.record(answer)
    assert (record.end_reason, record.usage_source) == ("upstream_error", "estimated") and record.cost > 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("empty", ["", {}, None, False, []])
def test_an_empty_error_is_none(server: Server, live: Portal, stream: bool, empty: object) -> None:
    async def script(call: Call) -> None:
        if not stream:
            await call.reply(200, completion(error=empty))
            return
        await call.open_stream()
        await call.event(chunk("Hello", error=empty))
        await call.event(chunk(None, "stop", error=empty))
        await call.event("[DONE]")
        await call.end()

    answer = server.post(live.token(), ask(live.model(script), stream=stream))
    assert answer.status_code == 200 and "Hello" in answer.text
    assert live.record(answer).end_reason == "completed"


@pytest.mark.parametrize(("path", "text_api"), WAYS)
def test_a_plain_answer_to_a_request_for_a_stream_becomes_one(
    server: Server, live: Portal, path: str, text_api: str
) -> None:
    async def script(call: Call) -> None:
        await call.reply(200, whole(call.path))

    model = live.model(script, text_api=text_api, price=PRICE)
    answer = server.post(live.token(), body_of(path, model, stream=True), path=path)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
    events = [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]
    if path == RESPONSES:
        assert [json.loads(event)["sequence_number"] for event in events] == list(range(len(events)))
        final = json.loads(events[-1])
        assert final["type"] == "response.completed"
        assert final["response"]["output"][0]["content"][0]["text"] == "Hello there."
        assert any(json.loads(event).get("delta") == "Hello there." for event in events)
    else:
        assert events[-1] == "[DONE]"
        choices = [json.loads(event)["choices"][0] for event in events[:-1]]
        assert "Hello there." in {choice.get("text") or choice.get("delta", {}).get("content") for choice in choices}
        assert choices[-1]["finish_reason"] == "stop"
    record = live.record(answer)
    assert (record.end_reason, record.status, record.streamed) == ("completed", 200, True) and record.cost > 0


@pytest.mark.parametrize(("path", "text_api"), WAYS)
@pytest.mark.parametrize("done", [True, False])
def test_a_stream_that_nobody_asked_for_is_put_together(
    server: Server, live: Portal, path: str, text_api: str, done: bool
) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        if call.path == RESPONSES:
            final = {"type": "response.completed", "sequence_number": 0, "response": whole(RESPONSES)}
            await call.event(final)
        elif call.path == LEGACY:
            for text, finish in (("Hello", None), (" there.", "stop")):
                choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
                await call.event({"id": "c", "object": "text_completion", "choices": [choice]})
        else:
            await call.send(b": comment\n\n")
            await call.event({**chunk(), "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
            await call.event(chunk("Hello"))
            await call.event(chunk(" there."))
            await call.event(chunk(None, "stop"))
            await call.event({**chunk(), "choices": [], "usage": USAGE})
        if done:
            await call.event("[DONE]")
        await call.end()

    model = live.model(script, text_api=text_api, price=PRICE)
    answer = server.post(live.token(), body_of(path, model), path=path)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    if path == RESPONSES:
        assert found["output"][0]["content"][0]["text"] == "Hello there." and found["status"] == "completed"
    else:
        choice = found["choices"][0]
        assert "Hello there." in (choice.get("text") or choice["message"]["content"])
        assert choice["finish_reason"] == "stop" and found["object"].endswith("completion")
    assert live.record(answer).end_reason == "completed"


def test_calls_of_a_stream_that_nobody_asked_for_are_told_apart(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        for delta in (
            {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": '{"x":'}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
            {"tool_calls": [{"index": 0, "id": "b", "type": "function", "function": {"name": "f", "arguments": ""}}]},
            {"reasoning_content": "Hm", "content": None},
            {"reasoning_content": "m."},
        ):
            await call.event({**chunk(), "choices": [{"index": 0, "delta": delta}]})
        await call.event(chunk(None, "tool_calls"))
        await call.event("[DONE]")
        await call.end()

    message = server.post(live.token(), ask(live.model(script))).json()["choices"][0]["message"]
    assert [(one["id"], one["function"]["arguments"]) for one in message["tool_calls"]] == [
        ("a", '{"x":1}'),
        ("b", "{}"),
    ]
    assert message["reasoning_content"] == "Hmm." and message["content"] is None


@pytest.mark.parametrize("cut", ["finish", "error"])
def test_an_incomplete_stream_that_nobody_asked_for_is_no_answer(server: Server, live: Portal, cut: str) -> None:
    async def script(call: Call) -> None:
        await two_words(call)
        if cut == "error":
            await call.event(FORMS[0])
        await call.end()

    answer = server.post(live.token(), ask(live.model(script, price=PRICE)))
    assert answer.status_code >= 500 and live.record(answer).cost == 0


@pytest.mark.parametrize("status", [201, 202, 203])
@pytest.mark.parametrize("stream", [False, True])
def test_any_status_of_success_and_a_byte_order_mark_pass(
    server: Server, live: Portal, status: int, stream: bool
) -> None:
    bom = b"\xef\xbb\xbf"

    async def script(call: Call) -> None:
        if not stream:
            await call.reply(status, bom + json.dumps(completion()).encode())
            return
        events = "".join(f"data: {json.dumps(event)}\n\n" for event in (chunk("Hello"), chunk(None, "stop")))
        await call.reply(status, bom + events.encode() + b"data: [DONE]\n\n", {"content-type": "text/event-stream"})

    answer = server.post(live.token(), ask(live.model(script), stream=stream))
    assert answer.status_code == 200 and "Hello" in answer.text and not answer.content.startswith(bom)
    assert live.record(answer).end_reason == "completed"


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
@pytest.mark.parametrize("last", ["response.completed", "response.done"])
def test_events_of_a_response_that_only_their_names_tell_apart(
    server: Server, live: Portal, path: str, last: str
) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        for name, data in (
            ("response.created", {"response": {**whole(RESPONSES), "output": [], "status": "in_progress"}}),
            (
                "response.output_text.delta",
                {"item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": "Hello"},
            ),
            (last, {"response": whole(RESPONSES)}),
        ):
            await call.send(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())
        await call.end()

    model = live.model(script, text_api="responses")
    answer = server.post(live.token(), body_of(path, model, stream=True), path=path)
    assert answer.status_code == 200 and "Hello" in answer.text
    if path == RESPONSES:
        types = [json.loads(line[6:])["type"] for line in answer.text.split("\n") if line.startswith("data: ")]
        assert types == ["response.created", "response.output_text.delta", "response.completed"]
    else:
        assert answer.text.endswith("data: [DONE]\n\n")
    assert live.record(answer).end_reason == "completed"


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("choices", [{"choices": None}, {}])
def test_a_usage_chunk_without_choices_is_taken_out_or_gets_an_empty_list(
    server: Server, live: Portal, asked: bool, choices: dict[str, None]
) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        await call.event(chunk("Hi", "stop"))
        await call.event({"id": "chatcmpl-x", "object": "chat.completion.chunk", **choices, "usage": USAGE})
        await call.event("[DONE]")
        await call.end()

    options = {"stream_options": {"include_usage": True}} if asked else {}
    answer = server.post(live.token(), ask(live.model(script), stream=True, **options))
    events = [json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: {")]
    assert [len(event["choices"]) for event in events] == ([1, 0] if asked else [1])
    assert live.record(answer).output_tokens == 7


PAGE = b"<!DOCTYPE html><html><title>Sign in</title>\xe7\x99\xbb\xe5\xbd\x95</html>"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/html; charset=utf-8", PAGE),
        ("application/octet-stream", PAGE),
        ("audio/mpeg", b'{"error":{"message":"The voice is away."}}'),
        ("text/plain", b"upstream connect error"),
    ],
)
@pytest.mark.parametrize(
    ("path", "body_of_client"),
    [
        ("/v1/audio/speech", {"input": "Hello", "voice": "alloy"}),
        ("/v1/embeddings", {"input": "Hello"}),
        ("/v1/images/generations", {"prompt": "A cat"}),
        ("/v1/moderations", {"input": "Hello"}),
    ],
)
def test_what_cannot_be_the_answer_is_refused_and_not_charged(
    server: Server, live: Portal, path: str, body_of_client: dict[str, str], content_type: str, body: bytes
) -> None:
    async def script(call: Call) -> None:
        await call.reply(200, body, {"content-type": content_type})

    model = live.model(script, price={**PRICE, "per_character": "0.001", "per_image": "0.5"})
    answer = server.post(live.token(), {"model": model, **body_of_client}, path=path)
    assert answer.status_code == 502 and answer.json()["error"]["code"] == "upstream_error"
    assert live.record(answer).cost == 0


def test_a_page_is_no_transcript(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        await call.reply(200, PAGE, {"content-type": "text/html"})

    model = live.model(script, price=PRICE)
    form: dict[str, Any] = {
        "model": (None, model),
        "response_format": (None, "text"),
        "file": ("a.wav", sound(1)),
    }
    server.catch_up()
    answer = httpx.post(
        server.url + "/v1/audio/transcriptions",
        files=form,
        headers={"authorization": f"Bearer {live.token()}"},
        trust_env=False,
        verify=NO_CERTIFICATES,
    )
    assert answer.status_code == 502 and live.record(answer).cost == 0
