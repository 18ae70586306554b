"""What converters were seen to get wrong for clients of the Messages API.

Source: trackers of LiteLLM, new-api, CLIProxyAPI, Bifrost and others, December 2025 to September 2026.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.protocols.anthropic_messages.request import parse_messages_request
from relay.protocols.anthropic_messages.stream import MessagesStream
from relay.protocols.fields import BadRequest
from tests.protocols.anthropic_messages.conversions import (
    MESSAGES,
    RESPONSES,
    USER,
    answered,
    call,
    chat_client,
    chunks,
    completion,
    converted,
    events,
    hub,
    message_of,
    messages_client,
    sent,
    stream,
    streamed,
)
from tests.support.peers import messages as mock
from tests.support.peers.messages import TEXT, THINKING, TOOL, message

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


# -- streams of chat completions for clients of messages ---------------------------------------------------------------


def test_every_fragment_of_arguments_arrives() -> None:
    found = streamed(
        messages_client(),
        call(0, name="weather", id="c1"),
        call(0, '{"ci'),
        call(0, 'ty":"Pa'),
        call(0, 'ris"}'),
        {"finish_reason": "tool_calls"},
    )
    assert found["content"] == [{"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Paris"}}]
    data, _ = stream(messages_client(), chunks(call(0, name="now", id="c1"), {"finish_reason": "tool_calls"}))
    deltas = [event["delta"] for event in events(data) if event["type"] == "content_block_delta"]
    assert deltas == [{"type": "input_json_delta", "partial_json": "{}"}]


def test_fragments_are_sent_as_they_arrive() -> None:
    codec = stream(messages_client(), chunks(call(0, name="weather", id="c1"), done=False))[1]
    out = codec.feed(chunks(call(0, '{"city"'), done=False))
    assert b'{\\"city\\"' in out


def test_one_stop_sequence_is_a_list() -> None:
    assert sent(messages_client(stop_sequences=["x"]))["stop"] == ["x"]
    assert sent(chat_client(stop="x"), MESSAGES)["stop_sequences"] == ["x"]


def test_calls_whose_fragments_are_interleaved_do_not_overlap() -> None:
    found = streamed(
        messages_client(),
        call(0, '{"a"', name="first", id="c1"),
        call(1, '{"b"', name="second", id="c2"),
        call(0, ":1}"),
        call(1, ":2}"),
        {"finish_reason": "tool_calls"},
    )
    assert [(block["name"], block["input"]) for block in found["content"]] == [
        ("first", {"a": 1}),
        ("second", {"b": 2}),
    ]


def test_white_space_after_a_call_whose_block_is_closed_is_no_call() -> None:
    found = streamed(
        messages_client(),
        call(0, '{"a":1}', name="first", id="c1"),
        call(1, '{"b"', name="second", id="c2"),
        call(0, "\n"),
        call(1, ":2}"),
        {"finish_reason": "tool_calls"},
    )
    assert [(block["name"], block["input"]) for block in found["content"]] == [
        ("first", {"a": 1}),
        ("second", {"b": 2}),
    ]


def test_text_and_thoughts_change_places_by_what_they_say_and_every_block_is_closed() -> None:
    found = streamed(
        messages_client(),
        {"content": None, "reasoning_content": "Hm"},
        {"content": "", "reasoning_content": "."},
        {"content": "Yes", "reasoning_content": None},
        {"content": "!", "reasoning_content": ""},
        {"finish_reason": "stop"},
    )
    assert found["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": ""},
        {"type": "text", "text": "Yes!"},
    ]


def test_a_stream_of_the_same_api_passes_with_one_beginning() -> None:
    data = mock.wire(mock.events(message(THINKING, TEXT)))
    codec = MessagesStream()
    assert codec.feed(data) + codec.terminal == data and data.count(b"event: message_start") == 1


@pytest.mark.parametrize(
    ("finish", "expected"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("tool_calls", "tool_use"),
        ("content_filter", "refusal"),
        ("eos", "end_turn"),
        ("something_new", "end_turn"),
        ("model_length", "max_tokens"),
    ],
)
def test_no_reason_for_the_end_is_lost(finish: str, expected: str) -> None:
    whole = answered(messages_client(), completion({"content": "x"}, finish))
    assert whole["stop_reason"] == expected
    found = streamed(messages_client(), {"content": "x"}, {"finish_reason": finish})
    assert found["stop_reason"] == expected


def test_a_call_is_the_reason_for_the_end_whatever_the_upstream_says() -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]
    assert answered(messages_client(), completion({"tool_calls": calls}, "stop"))["stop_reason"] == "tool_use"
    assert (
        streamed(messages_client(), call(0, "{}", name="weather", id="c"), {"finish_reason": "stop"})["stop_reason"]
        == "tool_use"
    )


def test_a_stream_that_ends_without_an_empty_line_or_marker_is_complete() -> None:
    data = chunks({"content": "x"}, {"finish_reason": "stop"}, done=False)
    out, codec = stream(messages_client(), data)
    assert codec.done and message_of(out)["content"] == [{"type": "text", "text": "x"}]
    cut, codec = stream(messages_client(), chunks({"content": "x"}, done=False))
    assert not codec.done and b"message_stop" not in cut, "without a reason for the end it is cut off"


def test_counts_of_the_end_are_in_the_last_event_and_exclude_the_cache() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 5,
        "total_tokens": 105,
        "prompt_tokens_details": {"cached_tokens": 60},
    }
    data, _ = stream(messages_client(), chunks({"content": "x"}, {"finish_reason": "stop"}, usage=usage))
    last = next(event for event in events(data) if event["type"] == "message_delta")
    assert last["usage"] == {"input_tokens": 40, "cache_read_input_tokens": 60, "output_tokens": 5}
    plain = answered(
        messages_client(), completion({"content": "x"}, usage={"prompt_tokens": 7, "completion_tokens": 2})
    )
    assert plain["usage"] == {"input_tokens": 7, "output_tokens": 2}, "what is not known is missing, not null"


def test_an_error_in_the_middle_has_the_shape_of_the_api() -> None:
    codec = stream(messages_client(), chunks({"content": "x"}, done=False))[1]
    event = events(codec.failure("Too long.", "invalid_request_error", "context_length_exceeded", None))[0]
    assert event["type"] == "error" and event["error"]["type"] == "invalid_request_error"
    assert events(codec.failure("x", "server_error", "upstream_error", None))[0]["error"]["type"] == "api_error"


# -- requests of clients of messages -----------------------------------------------------------------------------------


def test_thoughts_never_become_text() -> None:
    body = sent(messages_client(TOOL_TURN, tools=[WEATHER]), RESPONSES)
    assert "They greet me." not in json.dumps([item for item in body["input"] if item.get("type") != "reasoning"])


def test_thoughts_of_a_turn_with_calls_go_back_as_reasoning() -> None:
    body = sent(messages_client(TOOL_TURN, tools=[WEATHER]))
    assert body["messages"][1]["reasoning_content"] == "They greet me." and body["messages"][1]["tool_calls"]


def test_a_system_message_among_the_others_stays_in_its_place() -> None:
    turns = [USER, {"role": "assistant", "content": "Yes?"}, {"role": "system", "content": "Be brief."}, USER]
    roles = [one["role"] for one in hub(messages_client(turns)).body["messages"]]
    assert roles == ["user", "assistant", "system", "user"]
    told = sent(messages_client(turns))["messages"]
    assert "Be brief." in told[2]["content"] and [one["role"] for one in told] == ["user", "assistant", "user", "user"]


def test_tools_come_and_go_in_the_middle_of_a_conversation() -> None:
    """As Anthropic's `mid-conversation-tool-changes` and `inline-tools` have it."""
    named = {"type": "tool_reference", "name": "weather"}
    other = {"name": "clock", "description": "Tells the time.", "input_schema": {"type": "object", "properties": {}}}
    added = {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": other}}
    gone = {"role": "system", "content": [{"type": "tool_removal", "tool": named}, added]}
    turns = [USER, {"role": "assistant", "content": "Yes?"}, USER]
    body = hub(messages_client([*turns, gone], tools=[WEATHER])).body
    assert [tool["function"]["name"] for tool in body["tools"]] == ["clock"]
    told = body["messages"][-1]
    assert told["role"] == "system" and told["content"].count("The tool ") == 2
    back = {"role": "system", "content": [{"type": "tool_addition", "tool": named}]}
    body = hub(
        messages_client([*turns, gone, {"role": "assistant", "content": "Hm."}, USER, back], tools=[WEATHER])
    ).body
    assert [tool["function"]["name"] for tool in body["tools"]] == ["weather", "clock"]
    served = {"type": "tool_addition", "tool": {"type": "mcp_toolset_reference", "server_name": "s"}}
    found = converted(messages_client([*turns, {"role": "system", "content": [served]}], tools=[WEATHER]))
    assert "messages[].content[tool_addition]" in found.dropped


def test_a_system_message_for_one_turn_is_gone_with_the_next() -> None:
    passing = {"role": "system", "content": "Be brief.", "clear_at": "next_user_message"}
    assert "Be brief." in str(hub(messages_client([USER, passing])).body["messages"])
    later = hub(messages_client([USER, passing, {"role": "assistant", "content": "Yes?"}, USER])).body
    assert "Be brief." not in str(later["messages"])


def test_tools_that_load_later_are_offered_and_others_disclosed() -> None:
    tools = [{**WEATHER, "defer_loading": True, "input_examples": [{}]}, {"type": "web_search_20250305", "name": "web"}]
    found = converted(messages_client(tools=tools, tool_choice={"type": "any"}))
    assert [tool["function"]["name"] for tool in found.body["tools"]] == ["weather"]
    assert not {"defer_loading", "input_examples"}.intersection(found.body["tools"][0]["function"])
    assert {"tools[].input_examples", "tools[web_search_20250305]"} <= set(found.dropped)


def test_without_tools_there_is_no_choice_of_them() -> None:
    tools = [{"type": "web_search_20250305", "name": "web"}]
    body = sent(messages_client(tools=tools, tool_choice={"type": "any", "disable_parallel_tool_use": True}))
    assert not {"tools", "tool_choice", "parallel_tool_calls"}.intersection(body)


def test_one_call_at_a_time_is_kept_both_ways() -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    assert sent(messages_client(tools=[WEATHER], tool_choice=choice))["parallel_tool_calls"] is False
    assert sent(chat_client(tools=[FUNCTION], parallel_tool_calls=False), MESSAGES)["tool_choice"] == choice


def test_a_choice_among_some_tools_offers_only_these() -> None:
    other = {"type": "function", "function": {"name": "other", "parameters": {}}}
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [FUNCTION]}}
    body = sent(chat_client(tools=[FUNCTION, other], tool_choice=allowed), MESSAGES)
    assert [tool["name"] for tool in body["tools"]] == ["weather"] and body["tool_choice"] == {"type": "any"}


def test_an_input_that_is_no_object_is_sent_as_it_is() -> None:
    turn = {"role": "assistant", "content": [{**TOOL, "input": ["x"]}]}
    calls = hub(messages_client([USER, turn])).body["messages"][1]["tool_calls"]
    assert calls[0]["function"]["arguments"] == '["x"]'


def test_no_message_is_invented_between_results_and_the_user() -> None:
    turns = [*TOOL_TURN[:2], {"role": "user", "content": [*TOOL_TURN[2]["content"], {"type": "text", "text": "And?"}]}]
    told = sent(messages_client(turns, tools=[WEATHER]))["messages"]
    assert [one["role"] for one in told] == ["user", "assistant", "tool", "user"] and told[3]["content"] == "And?"


def test_the_limit_has_the_name_that_the_upstream_knows() -> None:
    assert sent(messages_client(max_tokens=77))["max_tokens"] == 77
    assert sent(chat_client(max_tokens=5, max_completion_tokens=9), MESSAGES)["max_tokens"] == 5
    assert sent(chat_client(), MESSAGES)["max_tokens"] == 4096, "which the API demands"


def test_images_in_results_follow_with_the_user() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "ok"}, image]}
    told = sent(messages_client([*TOOL_TURN[:2], {"role": "user", "content": [result]}], tools=[WEATHER]))["messages"]
    assert told[2] == {"role": "tool", "tool_call_id": "toolu_1", "content": "ok"}
    assert told[3]["content"][1]["image_url"]["url"] == "data:image/png;base64,iVBO"


def test_a_failed_tool_is_said_to_have_failed() -> None:
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "no", "is_error": True}
    turns = [*TOOL_TURN[:2], {"role": "user", "content": [result]}]
    assert sent(messages_client(turns))["messages"][2]["content"] == "[The tool failed.]\nno"
    assert sent(messages_client(turns), RESPONSES)["input"][-1]["output"] == "[The tool failed.]\nno"
    assert sent(messages_client(turns), MESSAGES)["messages"][2]["content"][0]["is_error"] is True


def test_ids_that_are_long_are_short_enough_for_responses_and_both_halves_agree() -> None:
    long = "toolu_" + "x" * 90
    turns = json.loads(json.dumps(TOOL_TURN).replace("toolu_1", long))
    items = sent(messages_client(turns), RESPONSES)["input"]
    ids = {item["call_id"] for item in items if "call_id" in item}
    assert len(ids) == 1 and len(ids.pop()) <= 64


def test_counting_needs_no_limit_and_reads_system_and_tools() -> None:
    body = {"model": "m", "messages": [USER], "system": "s", "tools": [WEATHER]}
    assert parse_messages_request(json.dumps(body).encode(), counting=True).output_limit is None
    with pytest.raises(BadRequest, match="max_tokens"):
        parse_messages_request(json.dumps(body).encode())


@pytest.mark.parametrize("name", ["container", "mcp_servers"])
def test_what_the_answer_depends_on_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(BadRequest) as caught:
        hub(messages_client(**{name: ["x"]}))
    assert caught.value.param == name and caught.value.status == 422


def test_what_is_left_out_is_disclosed() -> None:
    found = converted(messages_client(top_k=4, speed="fast", context_management={"edits": [1]}))
    assert {"top_k", "speed", "context_management"} <= set(found.dropped)
