"""Chat completions and responses, each over the other: requests, whole answers, streams split anywhere."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.protocols.chat_completions.client import ChatClient
from relay.protocols.chat_completions.client_stream import ChatEncoder
from relay.protocols.chat_completions.upstream import ChatUpstream
from relay.protocols.chat_completions.upstream_stream import ChatDecoder
from relay.protocols.codec import Conversion
from relay.protocols.contract import Dialect
from relay.protocols.fields import BadRequest
from relay.protocols.passthrough.stream import TypedStream
from relay.protocols.responses.answer import completion_of
from relay.protocols.responses.client import hub_request, response_of
from relay.protocols.responses.client_stream import ResponsesEncoder
from relay.protocols.responses.replay import events_of
from relay.protocols.responses.stream import ResponsesStream
from relay.protocols.responses.tools import ToolNames
from relay.protocols.responses.upstream import ResponsesUpstream
from relay.protocols.responses.upstream_stream import ResponsesDecoder
from relay.protocols.usage import Usage

_MEMBERS = (
    "type", "role", "content", "text", "tool_calls", "function", "id", "name", "arguments", "output", "call_id", "image_url", "choices", "delta", "item", "response", "usage",
    "error", "tools",
)  # fmt: skip
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
NAME = st.sampled_from(["get_weather", "search", "run"])


def sse(*events: Any, done: bool = True) -> bytes:
    out = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    return out + (b"data: [DONE]\n\n" if done else b"")


def events(data: bytes) -> list[dict[str, Any]]:
    found = []
    for block in data.decode().split("\n\n"):
        text = "\n".join(line[6:] for line in block.split("\n") if line.startswith("data: "))
        if text and text != "[DONE]":
            found.append(json.loads(text))
    return found


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def codec(request: dict[str, Any] | None = None, names: ToolNames | None = None, watch_finish: bool = False) -> Conversion:
    """A client of responses at an upstream of chat."""
    numbers = itertools.count()
    ids: dict[str, Any] = {"id": "resp_1", "created_at": 5}
    encoder = ResponsesEncoder(request or {"model": "m"}, ids, names or ToolNames(), lambda: f"{next(numbers):04x}", lambda: 9)
    return Conversion(decoder=ChatDecoder(watch_finish), encoder=encoder)


def chat_codec(include_usage: bool = False, legacy: bool = False) -> Conversion:
    """A client of chat at an upstream of responses."""
    return Conversion(decoder=ResponsesDecoder(), encoder=ChatEncoder(include_usage, legacy, "chatcmpl-fallback"))


def chat_form(request: dict[str, Any], items: list[Any]) -> Any:
    """What a chat upstream is sent for a request of responses: its body, what its functions stand for, what is dropped."""
    hub, names = hub_request(request, items)
    return SimpleNamespace(body=ChatUpstream().request(hub.body, Dialect()).body, names=names, dropped=hub.dropped)


def responses_form(request: dict[str, Any], least_output: int = 1) -> Any:
    """What a responses upstream is sent for a chat request."""
    hub = ChatClient(request, False, "").hub_request()
    return ResponsesUpstream().request(hub.body, Dialect(least_output=least_output))


def fresh() -> Any:
    numbers = itertools.count()
    return lambda: str(next(numbers))


def fed(stream: Any, data: bytes, cuts: list[int] | None = None) -> bytes:
    edges = [0, *sorted(cuts or []), len(data)]
    out = b"".join(stream.feed(data[start:end]) for start, end in itertools.pairwise(edges))
    return out + stream.finish() + stream.terminal  # type: ignore[no-any-return]


USAGE = {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16, "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 3}}


# -- requests --------------------------------------------------------------------------------------------------------


def test_a_request_of_responses_becomes_one_of_chat() -> None:
    tool = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}, "strict": True}
    request = {
        "model": "m", "instructions": "Be kind.", "temperature": 0.5, "max_output_tokens": 50, "reasoning": {"effort": "low"}, "tools": [tool, {"type": "web_search"}],
        "tool_choice": {"type": "function", "name": "get_weather"}, "text": {"format": {"type": "json_schema", "name": "a", "schema": {}, "strict": True}, "verbosity": "low"},
        "truncation": "auto", "parallel_tool_calls": False, "include": ["reasoning.encrypted_content"], "store": True,
    }  # fmt: skip
    items: list[Any] = [
        {"role": "user", "content": [{"type": "input_text", "text": "look"}, {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": '{"a":1}'},
        {"type": "function_call", "call_id": "c2", "name": "get_weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": "https://x.example/a.png"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It is sunny."}]},
        {"type": "message", "role": "developer", "content": "Now in French."},
    ]
    form = chat_form(request, items)
    assert form.body["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}}]},
        {
            "role": "assistant", "content": None, "reasoning_content": "hm",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"a":1}'}},
                {"id": "c2", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "c2", "content": "see"},
        {"role": "user", "content": [{"type": "text", "text": "Images of the result of c2:"}, {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}]},
        {"role": "assistant", "content": "It is sunny."},
        {"role": "system", "content": "Now in French."},
    ]  # fmt: skip
    assert form.body["tools"] == [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}, "strict": True}}]
    assert form.body["tool_choice"] == {"type": "function", "function": {"name": "get_weather"}}
    assert form.body["response_format"] == {"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "strict": True}}
    assert (form.body["max_completion_tokens"], form.body["reasoning_effort"], form.body["verbosity"], form.body["temperature"]) == (50, "low", "low", 0.5)
    assert form.body["parallel_tool_calls"] is False
    assert set(form.dropped) == {"tools[web_search]", "truncation"}
    assert "store" not in form.body and "include" not in form.body


def test_custom_tools_and_namespaces_go_as_functions_and_come_back_as_what_they_are() -> None:
    tools = [
        {"type": "custom", "name": "apply_patch", "description": "Edits.", "format": {"type": "grammar", "syntax": "lark", "definition": "start: A"}},
        {"type": "namespace", "name": "fs", "tools": [{"type": "function", "name": "read", "parameters": {}}]},
    ]
    items: list[Any] = [
        {"role": "user", "content": "x"},
        {"type": "custom_tool_call", "call_id": "c1", "name": "apply_patch", "input": "*** Begin"},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "ok"},
        {"type": "function_call", "call_id": "c2", "name": "read", "namespace": "fs", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c2", "output": "ok"},
    ]
    form = chat_form({"model": "m", "tools": tools}, items)
    functions: Any = form.body["tools"]
    assert [tool["function"]["name"] for tool in functions] == ["apply_patch", "fs__read"]
    assert "lark" in functions[0]["function"]["description"]
    messages: Any = form.body["messages"]
    assert messages[1]["tool_calls"][0]["function"] == {"name": "apply_patch", "arguments": '{"input":"*** Begin"}'}
    assert messages[3]["tool_calls"][0]["function"]["name"] == "fs__read"
    calls = [
        {"id": "a", "type": "function", "function": {"name": "apply_patch", "arguments": '{"input":"*** End"}'}},
        {"id": "b", "type": "function", "function": {"name": "fs__read", "arguments": '{"p":1}'}},
    ]
    completion: dict[str, Any] = {"model": "m", "choices": [{"index": 0, "message": {"role": "assistant", "content": None, "tool_calls": calls}, "finish_reason": "tool_calls"}]}
    output: Any = response_of(completion, {"model": "m"}, {"id": "r"}, form.names, fresh())["output"]
    assert [(item["type"], item["name"]) for item in output] == [("custom_tool_call", "apply_patch"), ("function_call", "read")]
    assert output[0]["input"] == "*** End" and output[1]["namespace"] == "fs" and output[1]["arguments"] == '{"p":1}'
    streamed = codec(names=form.names)
    out = events(fed(streamed, sse(chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "apply_patch", "arguments": '{"in'}}]}),
                                   chunk({"tool_calls": [{"index": 0, "function": {"arguments": 'put":"*** End"}'}}]}), chunk({}, "tool_calls"))))  # fmt: skip
    assert [event["input"] for event in out if event["type"] == "response.custom_tool_call_input.done"] == ["*** End"]


@pytest.mark.parametrize(
    ("request_", "items", "param"),
    [
        ({"prompt": {"id": "p"}}, [{"role": "user", "content": "x"}], "prompt"),
        ({"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}}, [{"role": "user", "content": "x"}], "tool_choice"),
        ({}, [{"role": "user", "content": [{"type": "input_file", "file_url": "https://x.example/a.pdf"}]}], "input[0].content[0].file_url"),
        ({}, [{"type": "item_reference", "id": "x"}], "input[0].type"),
        ({}, [{"role": "user", "content": [{"type": "input_video"}]}], "input[0].content[0].type"),
        ({}, [{"role": "boss", "content": "x"}], "input[0].role"),
        ({}, [], "input"),
    ],
)
def test_what_chat_cannot_do_is_refused_by_name(request_: dict[str, Any], items: list[dict[str, Any]], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        chat_form({"model": "m", **request_}, items)
    assert caught.value.param == param


def test_a_chat_request_becomes_one_of_responses() -> None:
    request = {
        "model": "m", "max_tokens": 5, "reasoning_effort": "high", "verbosity": "low", "seed": 1, "logprobs": True, "top_logprobs": 2, "n": 1, "stop": None, "metadata": {"a": "b"},
        "messages": [
            {"role": "system", "content": "One."}, {"role": "developer", "content": [{"type": "text", "text": "Two."}]},
            {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}},
                {"type": "file", "file": {"file_data": "data:x", "filename": "a"}}]},
            {"role": "assistant", "content": "ok", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "42"}]},
            {"role": "system", "content": "Late."},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}, {"type": "custom", "custom": {"name": "g"}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"x": 1}, "strict": True}},
    }  # fmt: skip
    form = responses_form(request, least_output=16)
    body: Any = form.body
    assert body["instructions"] == "One.\n\nTwo." and body["store"] is False and body["max_output_tokens"] == 16
    assert body["input"] == [
        {"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "hi"}, {"type": "input_image", "image_url": "https://x.example/a.png", "detail": "auto"},
            {"type": "input_file", "filename": "a", "file_data": "data:x"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "ok"}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "42"},
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Late."}]},
    ]  # fmt: skip
    assert body["tools"] == [{"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": False}, {"type": "custom", "name": "g"}]
    assert body["tool_choice"] == {"type": "function", "name": "f"}
    assert body["text"] == {"format": {"type": "json_schema", "name": "a", "schema": {"x": 1}, "strict": True}, "verbosity": "low"}
    assert body["reasoning"]["effort"] == "high" and body["include"] == ["message.output_text.logprobs"] and body["top_logprobs"] == 2
    assert form.dropped == ["seed"]


@pytest.mark.parametrize(("field", "value"), [("n", 2), ("stop", ["x"]), ("logit_bias", {"1": 2}), ("audio", {"voice": "a"}), ("prediction", {"type": "content"})])
def test_what_responses_cannot_do_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(BadRequest) as caught:
        responses_form({"model": "m", "messages": [{"role": "user", "content": "x"}], field: value})
    assert (caught.value.param, caught.value.status) == (field, 422)


def test_two_apis_that_share_a_feature_lose_nothing_on_the_way_through_the_hub() -> None:
    items: list[dict[str, Any]] = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}, {"type": "input_file", "file_url": "https://x.example/a.pdf", "filename": "a.pdf"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "in short"}], "content": [{"type": "reasoning_text", "text": "hm"}],
         "encrypted_content": "gAAA"},
        {"type": "message", "role": "assistant", "content": [
            {"type": "output_text", "text": "So.", "annotations": [{"type": "url_citation", "url": "https://x.example", "title": "X", "start_index": 0, "end_index": 2}]},
            {"type": "refusal", "refusal": "Not that."}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "42"},
        {"type": "computer_call_output", "call_id": "c9", "output": {"type": "computer_screenshot", "image_url": "data:x"}},
    ]  # fmt: skip
    hub, _ = hub_request({"model": "m"}, items)
    assert ResponsesUpstream().request(hub.body, Dialect()).body["input"] == items


def test_a_chat_upstream_sees_no_extension_of_the_hub() -> None:
    items: list[Any] = [
        {"role": "user", "content": "x"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "So.", "annotations": [{"type": "url_citation", "url": "https://x.example"}]}]},
    ]
    hub, _ = hub_request({"model": "m", "tools": [{"type": "function", "name": "f"}]}, items)
    for holder in (*hub.body["messages"], *hub.body["tools"]):  # type: ignore[misc]  # lists, in the hub
        holder["hub_cache_control"] = {"type": "ephemeral"}
    assert "hub_" in json.dumps(hub.body) and "hub_" not in json.dumps(ChatUpstream().request(hub.body, Dialect()).body)


def test_signed_thoughts_come_back_to_a_client_that_knows_them_and_to_no_other() -> None:
    item = {"type": "reasoning", "id": "rs_up", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}], "encrypted_content": "gAAA"}
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "So."}]}
    completion = completion_of({"id": "resp_up", "status": "completed", "output": [item, message]})
    back: Any = response_of(json.loads(json.dumps(completion)), {"model": "m"}, {"id": "r"}, ToolNames(), fresh())["output"]
    assert back[0]["encrypted_content"] == "gAAA" and back[0]["content"] == item["content"]
    assert "gAAA" not in json.dumps(ChatClient({"model": "m"}, False, "").answer(completion))
    done = [{"type": "response.output_item.done", "output_index": 0, "item": item}, {"type": "response.completed", "response": {"status": "completed", "output": [item, message]}}]
    numbers = fresh()
    encoder = ResponsesEncoder({"model": "m"}, {"id": "r"}, ToolNames(), numbers, lambda: 9)
    final = events(fed(Conversion(decoder=ResponsesDecoder(), encoder=encoder), sse({"type": "response.reasoning_text.delta", "output_index": 0, "delta": "hm"}, *done)))[-1]
    assert final["response"]["output"][0]["encrypted_content"] == "gAAA"
    assert "gAAA" not in fed(chat_codec(), sse(*done)).decode()


def test_functions_of_old_clients_are_tools_to_upstreams_and_functions_to_the_client() -> None:
    request: dict[str, Any] = {
        "model": "m", "functions": [{"name": "f", "parameters": {"type": "object"}}], "function_call": {"name": "f"},
        "messages": [
            {"role": "user", "content": "x"}, {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "42"},
        ],
    }  # fmt: skip
    body: Any = responses_form(request).body
    assert body["tools"] == [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}]
    assert body["tool_choice"] == {"type": "function", "name": "f"}
    assert body["input"][1:] == [
        {"type": "function_call", "call_id": "call_f", "name": "f", "arguments": "{}"}, {"type": "function_call_output", "call_id": "call_f", "output": "42"},
    ]  # fmt: skip
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'}
    answer: Any = ChatClient(request, False, "").answer(completion_of({"id": "resp_1", "status": "completed", "output": [call]}))["choices"]
    assert answer[0]["message"]["function_call"] == {"name": "f", "arguments": '{"a":1}'} and "tool_calls" not in answer[0]["message"]
    assert answer[0]["finish_reason"] == "function_call"
    found = events(fed(chat_codec(legacy=True), sse({"type": "response.output_item.done", "output_index": 0, "item": call}, {"type": "response.completed", "response": {}})))
    called = [choice["delta"]["function_call"] for event in found for choice in event["choices"] if "function_call" in choice["delta"]]
    assert called == [{"name": "f", "arguments": ""}, {"arguments": '{"a":1}'}] and found[-1]["choices"][0]["finish_reason"] == "function_call"


# -- answers ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(TEXT, st.lists(st.tuples(NAME, TEXT), max_size=3), TEXT | st.none(), st.sampled_from(["stop", "length", "content_filter"]))
def test_a_completion_survives_the_way_there_and_back(text: str, calls: list[tuple[str, str]], thoughts: str | None, finish: str) -> None:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [{"id": f"c{n}", "type": "function", "function": {"name": name, "arguments": json.dumps({"q": q})}} for n, (name, q) in enumerate(calls)]
        finish = "tool_calls"
    if thoughts:
        message["reasoning_content"] = thoughts
    completion: dict[str, Any] = {"id": "chatcmpl-1", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": USAGE}
    response = response_of(completion, {"model": "m"}, {"id": "resp_1", "created_at": 1}, ToolNames(), fresh())
    back: Any = completion_of(response)
    assert back["choices"][0]["message"]["content"] == text
    assert back["choices"][0]["message"].get("tool_calls") == message.get("tool_calls")
    assert back["choices"][0]["message"].get("reasoning_content") == thoughts
    assert back["choices"][0]["finish_reason"] == finish
    assert back["usage"]["total_tokens"] == 16 and back["usage"]["prompt_tokens_details"]["cached_tokens"] == 4
    assert back["usage"]["completion_tokens_details"]["reasoning_tokens"] == 3


# -- streams ---------------------------------------------------------------------------------------------------------


@st.composite
def chat_streams(draw: st.DrawFn) -> tuple[bytes, dict[str, Any]]:
    """A stream of chunks, and the message that it makes up."""
    thoughts, text = draw(st.lists(TEXT, max_size=3)), draw(st.lists(TEXT, max_size=4))
    calls = draw(st.lists(st.tuples(NAME, st.lists(TEXT, min_size=1, max_size=3)), max_size=3))
    parts: list[Any] = [chunk({"role": "assistant", "content": ""})]
    parts += [chunk({"reasoning_content": piece}) for piece in thoughts]
    parts += [chunk({"content": piece}) for piece in text]
    parts += [chunk({"tool_calls": [{"index": n, "id": f"c{n}", "type": "function", "function": {"name": name, "arguments": ""}}]}) for n, (name, _) in enumerate(calls)]
    pieces = [(n, piece) for n, (_, listed) in enumerate(calls) for piece in listed]
    if draw(st.booleans()):  # the calls may come interleaved
        pieces.sort(key=lambda entry: (calls[entry[0]][1].index(entry[1]), entry[0]))
    parts += [chunk({"tool_calls": [{"index": n, "function": {"arguments": piece}}]}) for n, piece in pieces]
    parts.append(chunk({}, "tool_calls" if calls else "stop"))
    parts.append({**chunk({}), "choices": [], "usage": USAGE})
    joined = {n: "".join(piece for number, piece in pieces if number == n) for n in range(len(calls))}
    whole = {"text": "".join(text), "thoughts": "".join(thoughts), "calls": [(name, joined[n]) for n, (name, _) in enumerate(calls)]}
    return sse(*parts), whole


@settings(max_examples=100, deadline=None)
@given(chat_streams(), st.data())
def test_chunks_become_the_events_of_a_response_however_they_are_split(stream: tuple[bytes, dict[str, Any]], data: st.DataObject) -> None:
    raw, whole = stream
    cuts = data.draw(st.lists(st.integers(0, len(raw)), max_size=10))
    plain, split = codec(), codec()
    out = fed(plain, raw)
    assert fed(split, raw, cuts) == out
    found = events(out)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert [event["type"] for event in found[:2]] == ["response.created", "response.in_progress"] and found[-1]["type"] == "response.completed"
    final = found[-1]["response"]
    assert final == plain.encoder.final and final["status"] == "completed" and final["usage"]["total_tokens"] == 16
    assert plain.usage == Usage(9, cached_input=4, output=7, reasoning=3)
    kinds = [item["type"] for item in final["output"]]
    assert kinds == (["reasoning"] if whole["thoughts"] else []) + (["message"] if whole["text"] or kinds == ["message"] else []) + ["function_call"] * len(whole["calls"])
    assert "".join(event["delta"] for event in found if event["type"] == "response.output_text.delta") == whole["text"]
    assert [(item["name"], item["arguments"]) for item in final["output"] if item["type"] == "function_call"] == whole["calls"]
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
    assert [(name, arguments) for name, arguments in calls.values()] == whole["calls"] and sorted(calls) == list(range(len(calls)))
    assert found[-2]["choices"][0]["finish_reason"] == ("tool_calls" if whole["calls"] else "stop")
    assert found[-1]["usage"]["total_tokens"] == 16 and deltas[0]["role"] == "assistant"
    assert back.usage is not None and back.usage.output == 7


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["chat", "responses", "native", "typed"]))
def test_no_codec_raises_whatever_arrives(junk: bytes, kind: str) -> None:
    streams: dict[str, Any] = {"chat": codec(), "responses": chat_codec(), "native": ResponsesStream(lambda response: response), "typed": TypedStream()}
    fed(streams[kind], junk)
    fed(streams[kind], b"data: " + junk.replace(b"\n", b"") + b"\n\n")


@settings(max_examples=80, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | TEXT, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_MEMBERS), inner, max_size=5)))
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
        for kind in ("response.output_item.added", "response.output_item.done", "response.output_text.delta", "response.completed"):
            event = {"type": kind, **value} if isinstance(value, dict) else value
            stream.feed(sse(event, done=False))


def test_an_upstream_error_in_the_stream_stops_it() -> None:
    stream = codec()
    out = stream.feed(sse(chunk({"content": "He"}), {"error": {"message": "boom"}}, done=False))
    assert events(out)[-1]["type"] == "response.output_text.delta" and stream.error is not None and not stream.done
    last = events(stream.failure("It broke.", "server_error", "upstream_error", None))[0]
    assert last["type"] == "error" and last["sequence_number"] == len(events(out)) and last["message"] == "It broke."


# -- native responses ------------------------------------------------------------------------------------------------


def native(*kinds: dict[str, Any]) -> bytes:
    return b"".join(b"event: %s\ndata: %s\n\n" % (kind["type"].encode(), json.dumps(kind).encode()) for kind in kinds)


WHOLE = {"id": "resp_u", "object": "response", "created_at": 1, "status": "completed", "model": "m", "output": [], "tools": [], "metadata": {}, "parallel_tool_calls": True}
ITEM = {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [{"type": "output_text", "text": "Hi", "annotations": []}]}


def test_good_events_pass_byte_for_byte() -> None:
    raw = native(
        {"type": "response.created", "sequence_number": 0, "response": WHOLE}, {"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": ITEM},
        {"type": "response.output_item.done", "sequence_number": 2, "output_index": 0, "item": ITEM},
        {"type": "response.completed", "sequence_number": 3, "response": {**WHOLE, "output": [ITEM], "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}}},
    )  # fmt: skip
    stream = ResponsesStream(lambda response: {**response, "changed": True})
    assert fed(stream, raw, [40, 90, 300]) == raw
    assert stream.usage == Usage(3, output=4)


def test_an_empty_output_at_the_end_is_filled_from_the_items() -> None:
    raw = native(
        {"type": "response.created", "sequence_number": 0, "response": WHOLE}, {"type": "response.output_item.done", "sequence_number": 1, "output_index": 0, "item": ITEM},
        {"type": "response.completed", "sequence_number": 2, "response": WHOLE},
    )  # fmt: skip
    stream = ResponsesStream(lambda response: response)
    last = events(fed(stream, raw))[-1]
    assert last["response"]["output"] == [ITEM] and last["sequence_number"] == 2
    assert stream.final is not None and stream.final["output"] == [ITEM]


def test_bare_events_are_mended() -> None:
    """As llama.cpp's server writes them."""
    raw = native(
        {"type": "response.created", "response": {"id": "resp_l", "object": "response", "status": "in_progress"}},
        {"type": "response.output_item.added", "item": {"id": "msg_l", "type": "message", "role": "assistant", "content": []}},
        {"type": "response.output_text.delta", "item_id": "msg_l", "delta": "Hi"}, {"type": "response.output_item.done", "item": {**ITEM, "id": "msg_l"}},
        {"type": "response.completed", "response": {"id": "resp_l", "object": "response", "status": "completed", "output": [{**ITEM, "id": "msg_l"}]}},
    )  # fmt: skip
    found = events(fed(ResponsesStream(lambda response: {**WHOLE, **response}), raw))
    assert [event["sequence_number"] for event in found] == list(range(5))
    assert [event.get("output_index") for event in found[1:4]] == [0, 0, 0] and found[2]["content_index"] == 0 and found[2]["logprobs"] == []
    assert found[0]["response"]["tools"] == [] and found[4]["response"]["metadata"] == {}


def test_a_failure_before_anything_was_said_can_be_tried_elsewhere() -> None:
    stream = ResponsesStream(lambda response: response)
    failed = {**WHOLE, "status": "failed", "error": {"code": "server_error", "message": "busy"}}
    out = stream.feed(native({"type": "response.created", "sequence_number": 0, "response": WHOLE}, {"type": "response.failed", "sequence_number": 1, "response": failed}))
    assert out == b"" and not stream.started and stream.error is not None and b"busy" in stream.error


def test_a_kept_response_is_told_again_event_by_event() -> None:
    found = events(b"".join(events_of({**WHOLE, "output": [ITEM, {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"}]})))
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert found[-1]["type"] == "response.completed" and found[-1]["response"]["output"][0] == ITEM
    assert [event["delta"] for event in found if event["type"].endswith("delta")] == ["Hi", "{}"]
