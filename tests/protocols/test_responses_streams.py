"""Chat completions and responses, each over the other: streams split anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.protocols.fields import BadRequest
from relay.protocols.passthrough.stream import TypedStream
from relay.protocols.responses.answer import completion_of, parse_responses_answer
from relay.protocols.responses.client import response_of
from relay.protocols.responses.objects import with_ids
from relay.protocols.responses.replay import events_of
from relay.protocols.responses.stream import ResponsesStream
from relay.protocols.responses.tools import ToolNames
from relay.protocols.usage import Usage
from tests.protocols.codecs import (
    NAME,
    TEXT,
    USAGE,
    chat_codec,
    chat_form,
    chunk,
    codec,
    events,
    fed,
    fresh,
    responses_form,
    sse,
)

_MEMBERS = (
    "type",
    "role",
    "content",
    "text",
    "tool_calls",
    "function",
    "id",
    "name",
    "arguments",
    "output",
    "call_id",
    "image_url",
    "choices",
    "delta",
    "item",
    "response",
    "usage",
    "error",
    "tools",
)


@st.composite
def chat_streams(draw: st.DrawFn) -> tuple[bytes, dict[str, Any]]:
    """A stream of chunks, and the message that it makes up."""
    thoughts, text = draw(st.lists(TEXT, max_size=3)), draw(st.lists(TEXT, max_size=4))
    calls = draw(st.lists(st.tuples(NAME, st.lists(TEXT, min_size=1, max_size=3)), max_size=3))
    parts: list[Any] = [chunk({"role": "assistant", "content": ""})]
    parts += [chunk({"reasoning_content": piece}) for piece in thoughts]
    parts += [chunk({"content": piece}) for piece in text]
    parts += [
        chunk(
            {
                "tool_calls": [
                    {"index": n, "id": f"c{n}", "type": "function", "function": {"name": name, "arguments": ""}}
                ]
            }
        )
        for n, (name, _) in enumerate(calls)
    ]
    pieces = [(n, piece) for n, (_, listed) in enumerate(calls) for piece in listed]
    if draw(st.booleans()):  # the calls may come interleaved
        pieces.sort(key=lambda entry: (calls[entry[0]][1].index(entry[1]), entry[0]))
    parts += [chunk({"tool_calls": [{"index": n, "function": {"arguments": piece}}]}) for n, piece in pieces]
    parts.append(chunk({}, "tool_calls" if calls else "stop"))
    parts.append({**chunk({}), "choices": [], "usage": USAGE})
    joined = {n: "".join(piece for number, piece in pieces if number == n) for n in range(len(calls))}
    joined = {n: text if text.strip(" \t\r\n") else text + "{}" for n, text in joined.items()}
    whole = {
        "text": "".join(text),
        "thoughts": "".join(thoughts),
        "calls": [(name, joined[n]) for n, (name, _) in enumerate(calls)],
    }
    return sse(*parts), whole


@settings(max_examples=100, deadline=None)
@given(chat_streams(), st.data())
def test_chunks_become_the_events_of_a_response_however_they_are_split(
    stream: tuple[bytes, dict[str, Any]], data: st.DataObject
) -> None:
    raw, whole = stream
    cuts = data.draw(st.lists(st.integers(0, len(raw)), max_size=10))
    plain, split = codec(), codec()
    out = fed(plain, raw)
    assert fed(split, raw, cuts) == out
    found = events(out)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert [event["type"] for event in found[:2]] == ["response.created", "response.in_progress"] and found[-1][
        "type"
    ] == "response.completed"
    final = found[-1]["response"]
    assert final == plain.encoder.final and final["status"] == "completed" and final["usage"]["total_tokens"] == 16
    assert plain.usage == Usage(9, cached_input=4, output=7, reasoning=3)
    kinds = [item["type"] for item in final["output"]]
    assert kinds == (["reasoning"] if whole["thoughts"] else []) + (
        ["message"] if whole["text"] or kinds == ["message"] else []
    ) + ["function_call"] * len(whole["calls"])
    assert "".join(event["delta"] for event in found if event["type"] == "response.output_text.delta") == whole["text"]
    assert [(item["name"], item["arguments"]) for item in final["output"] if item["type"] == "function_call"] == whole[
        "calls"
    ]
    done = {event["output_index"]: event["item"] for event in found if event["type"] == "response.output_item.done"}
    assert [done[index] for index in sorted(done)] == final["output"]
    added = {event["output_index"] for event in found if event["type"] == "response.output_item.added"}
    assert added == set(done)


@settings(max_examples=60, deadline=None)
@given(chat_streams(), st.data())
def test_the_events_become_chunks_again(stream: tuple[bytes, dict[str, Any]], data: st.DataObject) -> None:
    raw, whole = stream
    there = fed(codec(), raw)
    cuts = data.draw(st.lists(st.integers(0, len(there)), max_size=10))
    back = chat_codec(include_usage=True)
    found = events(fed(back, there, cuts))
    deltas = [choice["delta"] for event in found for choice in event["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == whole["text"]
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == whole["thoughts"]
    calls: dict[int, list[str]] = {}
    for delta in deltas:
        for call in delta.get("tool_calls", ()):
            entry = calls.setdefault(call["index"], ["", ""])
            entry[0] += call["function"].get("name", "")
            entry[1] += call["function"]["arguments"]
    assert [(name, arguments) for name, arguments in calls.values()] == whole["calls"] and sorted(calls) == list(
        range(len(calls))
    )
    assert found[-2]["choices"][0]["finish_reason"] == ("tool_calls" if whole["calls"] else "stop")
    assert found[-1]["usage"]["total_tokens"] == 16 and deltas[0]["role"] == "assistant"
    assert back.usage is not None and back.usage.output == 7


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["chat", "responses", "native", "typed"]))
def test_no_codec_raises_whatever_arrives(junk: bytes, kind: str) -> None:
    streams: dict[str, Any] = {
        "chat": codec(),
        "responses": chat_codec(),
        "native": ResponsesStream(lambda response: response),
        "typed": TypedStream(),
    }
    fed(streams[kind], junk)
    fed(streams[kind], b"data: " + junk.replace(b"\n", b"") + b"\n\n")


@settings(max_examples=80, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_MEMBERS), inner, max_size=5),
    )
)
def test_no_shape_of_json_breaks_a_codec(value: Any) -> None:
    makers: list[Callable[[], Any]] = [
        lambda: chat_form(value, value if isinstance(value, list) and all(isinstance(v, dict) for v in value) else []),
        lambda: responses_form(value),
    ]
    for make in makers:
        if isinstance(value, dict):
            try:
                make()
            except BadRequest:
                pass
    if isinstance(value, dict):
        response_of(value, {"model": "m"}, {}, ToolNames(), fresh())
        completion_of(value)
    for stream in (codec(), chat_codec(), ResponsesStream(lambda response: response), TypedStream()):
        for kind in (
            "response.output_item.added",
            "response.output_item.done",
            "response.output_text.delta",
            "response.completed",
        ):
            event = {"type": kind, **value} if isinstance(value, dict) else value
            stream.feed(sse(event, done=False))


def test_an_upstream_error_in_the_stream_stops_it() -> None:
    stream = codec()
    out = stream.feed(sse(chunk({"content": "He"}), {"error": {"message": "boom"}}, done=False))
    assert events(out)[-1]["type"] == "response.output_text.delta" and stream.error is not None and not stream.done
    last = events(stream.failure("It broke.", "server_error", "upstream_error", None))[0]
    assert last["type"] == "error" and last["sequence_number"] == len(events(out)) and last["message"] == "It broke."


def native(*kinds: dict[str, Any]) -> bytes:
    return b"".join(b"event: %s\ndata: %s\n\n" % (kind["type"].encode(), json.dumps(kind).encode()) for kind in kinds)


WHOLE = {
    "id": "resp_u",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "model": "m",
    "output": [],
    "tools": [],
    "metadata": {},
    "parallel_tool_calls": True,
}


ITEM = {
    "id": "msg_1",
    "type": "message",
    "status": "completed",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "Hi", "annotations": []}],
}


def test_good_events_pass_byte_for_byte() -> None:
    raw = native(
        {"type": "response.created", "sequence_number": 0, "response": WHOLE},
        {"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": ITEM},
        {"type": "response.output_item.done", "sequence_number": 2, "output_index": 0, "item": ITEM},
        {
            "type": "response.completed",
            "sequence_number": 3,
            "response": {
                **WHOLE,
                "output": [ITEM],
                "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
            },
        },
    )
    stream = ResponsesStream(lambda response: {**response, "changed": True})
    assert fed(stream, raw, [40, 90, 300]) == raw
    assert stream.usage == Usage(3, output=4)


def test_an_empty_output_at_the_end_is_filled_from_the_items() -> None:
    raw = native(
        {"type": "response.created", "sequence_number": 0, "response": WHOLE},
        {"type": "response.output_item.done", "sequence_number": 1, "output_index": 0, "item": ITEM},
        {"type": "response.completed", "sequence_number": 2, "response": WHOLE},
    )
    stream = ResponsesStream(lambda response: response)
    last = events(fed(stream, raw))[-1]
    assert last["response"]["output"] == [ITEM] and last["sequence_number"] == 2
    assert stream.final is not None and stream.final["output"] == [ITEM]


@pytest.mark.parametrize("used", [None, {"input_tokens": 9, "output_tokens": 0, "total_tokens": 9}])
def test_an_end_without_anything_is_no_answer(used: dict[str, int] | None) -> None:
    def raw(whole: dict[str, Any]) -> bytes:
        begun = {"type": "response.created", "sequence_number": 0, "response": {**whole, "status": "in_progress"}}
        return sse(begun, {"type": "response.completed", "sequence_number": 1, "response": whole}, done=False)

    whole = {**WHOLE, "usage": used}
    for stream in (ResponsesStream(lambda response: response), chat_codec()):
        assert not fed(stream, raw(whole)) and stream.error is not None and not (stream.done or stream.started)
    assert parse_responses_answer(json.dumps(whole).encode()) is None
    whole["usage"] = {"input_tokens": 9, "output_tokens": 7, "total_tokens": 16}  # for what is not shown
    for stream in (ResponsesStream(lambda response: response), chat_codec()):
        assert fed(stream, raw(whole)) and stream.error is None and stream.done
    assert parse_responses_answer(json.dumps(whole).encode()) is not None


def test_bare_events_are_mended() -> None:
    """As llama.cpp's server writes them."""
    raw = native(
        {"type": "response.created", "response": {"id": "resp_l", "object": "response", "status": "in_progress"}},
        {
            "type": "response.output_item.added",
            "item": {"id": "msg_l", "type": "message", "role": "assistant", "content": []},
        },
        {"type": "response.output_text.delta", "item_id": "msg_l", "delta": "Hi"},
        {"type": "response.output_item.done", "item": {**ITEM, "id": "msg_l"}},
        {
            "type": "response.completed",
            "response": {
                "id": "resp_l",
                "object": "response",
                "status": "completed",
                "output": [{**ITEM, "id": "msg_l"}],
            },
        },
    )
    found = events(fed(ResponsesStream(lambda response: {**WHOLE, **response}), raw))
    assert [event["sequence_number"] for event in found] == list(range(5))
    assert (
        [event.get("output_index") for event in found[1:4]] == [0, 0, 0]
        and found[2]["content_index"] == 0
        and found[2]["logprobs"] == []
    )
    assert found[0]["response"]["tools"] == [] and found[4]["response"]["metadata"] == {}


def test_a_failure_before_anything_was_said_can_be_tried_elsewhere() -> None:
    stream = ResponsesStream(lambda response: response)
    failed = {**WHOLE, "status": "failed", "error": {"code": "server_error", "message": "busy"}}
    out = stream.feed(
        native(
            {"type": "response.created", "sequence_number": 0, "response": WHOLE},
            {"type": "response.failed", "sequence_number": 1, "response": failed},
        )
    )
    assert out == b"" and not stream.started and stream.error is not None and b"busy" in stream.error


def test_a_failure_after_something_was_said_passes_on_and_is_known_as_one() -> None:
    used = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    failed = {**WHOLE, "status": "failed", "error": {"code": "server_error", "message": "busy"}, "usage": used}
    raw = native(
        {"type": "response.created", "sequence_number": 0, "response": WHOLE},
        {
            "type": "response.output_text.delta",
            "sequence_number": 1,
            "output_index": 0,
            "content_index": 0,
            "delta": "Hi",
        },
        {"type": "response.failed", "sequence_number": 2, "response": failed},
    )
    stream = ResponsesStream(lambda response: response)
    assert fed(stream, raw) == raw and stream.done and stream.error is None
    assert stream.failed is not None and json.loads(stream.failed)["error"]["message"] == "busy"
    assert stream.usage == Usage(3, output=4)


def test_a_kept_response_is_told_again_event_by_event() -> None:
    found = events(
        b"".join(
            events_of(
                {
                    **WHOLE,
                    "output": [
                        ITEM,
                        {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"},
                    ],
                }
            )
        )
    )
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert found[-1]["type"] == "response.completed" and found[-1]["response"]["output"][0] == ITEM
    assert [event["delta"] for event in found if event["type"].endswith("delta")] == ["Hi", "{}"]


@pytest.mark.parametrize(
    "response",
    [
        b'{"id": "resp_0",  "output":[],"previous_response_id" : null, "n": 1.50}',
        b'{"output":[{"id":"resp_0"}],"id":"resp_0","previous_response_id":"resp_0"}',
        b'{"output":[],"text":"\\"id\\":\\"resp_0\\"","id":"resp_0"}',
        b'{"output":[],"id":null}',
        b'{"output":[]}',
        b'{"output":[],"id":""}',
        b'{"output":[],"metadata":{"previous_response_id":null},"id":"resp_0","previous_response_id":null}',
    ],
)
def test_ids_are_replaced_where_they_are_and_nowhere_else(response: bytes) -> None:
    ids: dict[str, object] = {"id": "resp_own", "previous_response_id": "resp_before"}
    assert json.loads(with_ids(response, ids)) == {**json.loads(response), **ids}
    event = b'{"type":"response.created","response":%s}' % response
    stream = ResponsesStream(lambda found: {**found, **ids}, own_ids=ids)
    ended = b'{"type":"response.completed","response":%s}' % response
    shown = events(fed(stream, b"data: " + event + b"\n\ndata: " + ended + b"\n\n"))
    assert [one["response"]["id"] for one in shown] == ["resp_own"] * 2
    assert stream.upstream_id == (json.loads(response).get("id") or "")


def test_ids_are_replaced_in_the_bytes() -> None:
    assert with_ids(b'{"n": 1.50,  "id" : "resp_0"}', {"id": "resp_own"}) == b'{"n": 1.50,  "id" : "resp_own"}'
    assert (
        with_ids(b'{"id":"resp_0","text":"\xe9\\ud83d"', {"id": "resp_own"}) == b'{"id":"resp_0","text":"\xe9\\ud83d"'
    )
