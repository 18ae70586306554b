"""What converters were seen to get wrong at upstreams of the Messages API.

Source: trackers of LiteLLM, new-api, CLIProxyAPI, Bifrost and others, December 2025 to September 2026.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.protocols.anthropic_messages.request import parse_messages_request
from relay.protocols.anthropic_messages.stream import MessagesStream
from tests.protocols.anthropic_messages.conversions import (
    ANTHROPIC,
    MESSAGES,
    NEW,
    OLD,
    USER,
    answered,
    as_call,
    chat_client,
    converted,
    events,
    messages_client,
    of_claude,
    responses_client,
    sent,
    stream,
    streamed,
)
from tests.support.peers import messages as mock
from tests.support.peers.messages import TEXT, THINKING, TOOL, fault, message

TOOL_TURN: list[Any] = [
    USER,
    {"role": "assistant", "content": [THINKING, {**TOOL, "id": "toolu_1"}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny"}]},
]
WEATHER: dict[str, Any] = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}
FUNCTION: dict[str, Any] = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALLED: list[Any] = [
    USER,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
]


def test_results_are_the_users_first_words_in_one_turn() -> None:
    calls = [{"id": f"c{n}", "type": "function", "function": {"name": "w", "arguments": "{}"}} for n in (1, 2)]
    results = [{"role": "tool", "tool_call_id": f"c{n}", "content": str(n)} for n in (2, 1)]
    turns = [USER, {"role": "assistant", "tool_calls": calls}, *results, {"role": "user", "content": "And?"}]
    body = sent(chat_client(turns, tools=[FUNCTION]), MESSAGES)
    assert [one["role"] for one in body["messages"]] == ["user", "assistant", "user"]
    assert [block["type"] for block in body["messages"][2]["content"]] == ["tool_result", "tool_result", "text"]
    assert fault(as_call(body)) == ""


def test_calls_of_the_upstream_are_calls_with_their_reason() -> None:
    plain, data = of_claude(whole := message(TEXT, TOOL, stop="tool_use"), mock.events(whole))
    assert answered(chat_client(), plain, MESSAGES)["choices"][0]["finish_reason"] == "tool_calls"
    out, _ = stream(chat_client(), data, MESSAGES)
    found = [json.loads(line[6:]) for line in out.decode().split("\n\n") if line.startswith("data: {")]
    deltas = [one["choices"][0] for one in found if one["choices"]]
    arguments = [
        delta["delta"]["tool_calls"][0]["function"]["arguments"] for delta in deltas if "tool_calls" in delta["delta"]
    ]
    assert json.loads("".join(arguments)) == {"city": "Paris"} and deltas[-1]["finish_reason"] == "tool_calls"


def test_a_result_without_output_says_so() -> None:
    body = sent(chat_client([*CALLED[:2], {**CALLED[2], "content": ""}], tools=[FUNCTION]), MESSAGES)
    assert body["messages"][2]["content"][0]["content"] == "(no output)" and fault(as_call(body)) == ""


def test_blank_texts_and_messages_without_content_are_left_out() -> None:
    turns = [{**CALLED[1], "content": " \n"}, CALLED[2], {"role": "assistant", "content": " "}, USER]
    body = sent(chat_client([USER, *turns], tools=[FUNCTION]), MESSAGES)
    assert fault(as_call(body)) == "" and [block["type"] for block in body["messages"][1]["content"]] == ["tool_use"]


@pytest.mark.parametrize(
    "model", [NEW, "anthropic/claude-sonnet-5-20270101", "claude-haiku-4.7", "claude-mythos-preview"]
)
def test_newer_models_are_sent_no_sampling_and_think_as_they_like(model: str) -> None:
    found = converted(chat_client(model=model, temperature=0.5, top_p=0.9, reasoning_effort="high"), MESSAGES)
    assert found.body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert found.body["output_config"] == {"effort": "high"}
    assert not {"temperature", "top_p"}.intersection(found.body) and {"temperature", "top_p"} <= set(found.dropped)


def test_older_models_are_given_a_budget_that_fits() -> None:
    assert "thinking" not in sent(chat_client(temperature=0.5), MESSAGES)
    body = sent(chat_client(reasoning_effort="high", max_tokens=2000, temperature=0.5), MESSAGES)
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 1999} and "temperature" not in body
    found = converted(chat_client(reasoning_effort="high", max_tokens=1000), MESSAGES)
    assert found.body["thinking"] == {"type": "disabled"} and "reasoning_effort" in found.dropped
    MESSAGES.limit(body, 1500, ANTHROPIC)
    assert body["max_tokens"] == 1500 and body["thinking"]["budget_tokens"] == 1499


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
@pytest.mark.parametrize("model", [OLD, NEW])
def test_who_must_call_a_tool_does_not_think(choice: Any, model: str) -> None:
    client = chat_client(model=model, tools=[FUNCTION], tool_choice=choice, reasoning_effort="low", max_tokens=3000)
    found = converted(client, MESSAGES)
    assert "thinking" not in found.body and "output_config" not in found.body
    assert "reasoning_effort" in found.dropped and fault(as_call(found.body)) == ""


def test_who_goes_on_from_calls_without_thoughts_does_not_think() -> None:
    found = converted(chat_client(CALLED, tools=[FUNCTION], reasoning_effort="low"), MESSAGES)
    assert "thinking" not in found.body and "reasoning_effort" in found.dropped
    turns = [*CALLED, {"role": "assistant", "content": "It is sunny."}, USER]
    later = converted(chat_client(turns, tools=[FUNCTION], reasoning_effort="low"), MESSAGES)
    assert later.body["thinking"]["type"] == "enabled" and later.dropped == []


def test_schemas_say_in_words_what_the_api_does_not_take() -> None:
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 1, "description": "A number."},
            "s": {"type": "string", "pattern": "^a", "maxLength": 3, "format": "email"},
            "l": {"type": "array", "items": {"oneOf": [{"type": "null"}, {"$ref": "#/$defs/d"}]}, "maxItems": 3},
        },
        "$defs": {"d": {"type": "object", "properties": {}}},
        "$schema": "x",
    }
    shape = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}}
    found = sent(chat_client(response_format=shape), MESSAGES)["output_config"]["format"]
    assert found["type"] == "json_schema"
    told = found["schema"]
    assert told["properties"]["n"] == {"type": "integer", "description": 'A number.\n\n{"minimum":1}'}
    assert told["properties"]["s"]["format"] == "email" and "pattern" in told["properties"]["s"]["description"]
    assert told["properties"]["l"]["items"] == {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/d"}]}
    assert told["additionalProperties"] is False and told["$defs"]["d"]["additionalProperties"] is False
    assert "$schema" not in told


def test_unsigned_thoughts_are_not_sent_but_signed_ones_come_back() -> None:
    turns = [USER, {"role": "assistant", "content": "x", "reasoning_content": "Hm."}, USER]
    found = converted(chat_client(turns), MESSAGES)
    assert [block["type"] for block in found.body["messages"][1]["content"]] == ["text"]
    assert "messages[].reasoning_content" in found.dropped
    plain, _ = of_claude(whole := message(THINKING, TEXT), mock.events(whole))
    output = answered(responses_client([USER]), plain, MESSAGES)["output"]
    items = [{"type": "message", "role": "user", "content": "Hi."}, *output]
    body = sent(responses_client([*items, items[0]]), MESSAGES)
    assert body["messages"][1]["content"] == [THINKING, TEXT]


def test_thoughts_that_another_api_wrote_do_not_reach_the_vendor() -> None:
    found = streamed(messages_client(), {"reasoning_content": "Hm."}, {"content": "Yes."}, {"finish_reason": "stop"})
    turns = [USER, {"role": "assistant", "content": found["content"]}, USER]
    body = json.dumps({"model": "m", "max_tokens": 9, "messages": turns}, separators=(",", ":")).encode()
    parsed = parse_messages_request(body)
    assert parsed.upstream_body("m") == body, "vendors of other models take it"
    kept = json.loads(parsed.upstream_body("m", strict=True))["messages"][1]["content"]
    assert kept == [{"type": "text", "text": "Yes."}]


def test_leading_developer_messages_are_the_system_prompt() -> None:
    items = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi."}]
    body = sent(responses_client(items), MESSAGES)
    assert body["system"] == [{"type": "text", "text": "Be brief."}] and body["messages"][0]["role"] == "user"


def test_tags_in_a_text_stay_a_text() -> None:
    turns = [USER, {"role": "assistant", "content": "<think>I am a robot.</think>"}, USER]
    block = sent(chat_client(turns), MESSAGES)["messages"][1]["content"][0]
    assert block == {"type": "text", "text": "<think>I am a robot.</think>"}


def test_tools_that_only_responses_have() -> None:
    tools = [
        {"type": "web_search"},
        {"type": "namespace", "name": "ns", "tools": [{"type": "function", "name": "a", "parameters": {}}]},
        {"type": "custom", "name": "apply_patch", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}},
    ]
    client = responses_client([{"role": "user", "content": "Hi."}], tools=tools)
    found = converted(client, MESSAGES)
    assert [tool["name"] for tool in found.body["tools"]] == ["ns__a", "apply_patch"]
    assert "tools[web_search]" in found.dropped and all(
        tool["input_schema"]["type"] == "object" for tool in found.body["tools"]
    )
    patch = {"type": "tool_use", "id": "t1", "name": "apply_patch", "input": {"input": "*** Begin"}}
    spaced = {"type": "tool_use", "id": "t2", "name": "ns__a", "input": {}}
    output = answered(client, json.dumps(message(patch, spaced, stop="tool_use")).encode(), MESSAGES)["output"]
    assert output[0]["type"] == "custom_tool_call" and output[0]["input"] == "*** Begin"
    assert output[1]["name"] == "a" and output[1]["namespace"] == "ns"


def test_results_in_parts_are_converted_too() -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,iVBO"}
    items = [
        {"role": "user", "content": "Hi."},
        {"type": "function_call", "call_id": "c.1", "name": "w", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c.1", "output": [{"type": "input_text", "text": "ok"}, image]},
    ]
    body = sent(responses_client(items, tools=[{"type": "function", "name": "w", "parameters": {}}]), MESSAGES)
    assert fault(as_call(body)) == ""
    result, *rest = body["messages"][2]["content"]
    assert result["content"] == "ok" and result["tool_use_id"] == "c_1" and rest[-1]["type"] == "image"


def test_thinking_before_a_call_is_a_whole_item_of_a_response() -> None:
    _, data = of_claude(whole := message(THINKING, TOOL, stop="tool_use"), mock.events(whole))
    out, _ = stream(responses_client([USER]), data, MESSAGES)
    found = events(out)
    kinds = [event["type"] for event in found]
    assert kinds.index("response.output_item.added") < kinds.index("response.reasoning_text.delta")
    done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    assert [item["type"] for item in done] == ["reasoning", "function_call"] and done[0]["encrypted_content"]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
    ],
)
def test_reasons_of_the_upstream_for_clients_of_others(reason: str, finish: str) -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": "No."} if reason == "refusal" else None
    whole = message(TEXT, stop=reason, stop_details=details)
    plain, data = of_claude(whole, mock.events(whole))
    choice = answered(chat_client(), plain, MESSAGES)["choices"][0]
    assert choice["finish_reason"] == finish and "hub_stop" not in choice
    assert choice["message"]["refusal"] == ("No." if reason == "refusal" else None)
    assert f'"finish_reason":"{finish}"'.encode() in stream(chat_client(), data, MESSAGES)[0]
    back = answered(messages_client(), plain, MESSAGES)
    assert back["stop_reason"] == reason and back.get("stop_details") == details


def test_counts_of_the_end_replace_those_of_the_beginning() -> None:
    _, data = of_claude(whole := message(), mock.events(whole))
    codec = stream(chat_client(), data, MESSAGES)[1]
    assert codec.usage is not None and (codec.usage.input, codec.usage.cached_input, codec.usage.output) == (19, 4, 7)
    native = MessagesStream()
    native.feed(data)
    assert native.usage == codec.usage
    late = data.replace(b'"cache_read_input_tokens": 4', b'"cache_read_input_tokens": 0', 1)
    native = MessagesStream()
    native.feed(late)
    assert native.usage is not None and native.usage.cached_input == 4, "which came at the end only"


def test_an_error_at_the_end_of_a_stream_ends_it() -> None:
    _, data = of_claude(whole := message(), mock.events(whole))
    head = data.partition(b"event: message_delta")[0]
    error = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
    codec = stream(chat_client(), head + error, MESSAGES)[1]
    assert codec.error is not None and not codec.done
    native = MessagesStream()
    assert error not in native.feed(head + error) and native.error is not None
    assert native.failure("m", "overloaded_error", "upstream_error", None) == error
