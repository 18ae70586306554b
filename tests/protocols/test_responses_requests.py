"""Chat completions and responses, each over the other: requests and whole answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.protocols.fields import BadRequest
from relay.protocols.responses.answer import completion_of
from relay.protocols.responses.client import response_of
from relay.protocols.responses.tools import ToolNames
from relay.protocols.responses.upstream import responses_request
from tests.protocols.codecs import NAME, TEXT, USAGE, chat_form, chunk, codec, events, fed, fresh, responses_form, sse

_NO_PARAMETERS = {"type": "object", "properties": {}}


def test_a_request_of_responses_becomes_one_of_chat() -> None:
    tool = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}, "strict": True}
    request = {
        "model": "m",
        "instructions": "Be kind.",
        "temperature": 0.5,
        "max_output_tokens": 50,
        "reasoning": {"effort": "low"},
        "tools": [tool, {"type": "web_search"}],
        "tool_choice": {"type": "function", "name": "get_weather"},
        "text": {"format": {"type": "json_schema", "name": "a", "schema": {}, "strict": True}, "verbosity": "low"},
        "truncation": "auto",
        "parallel_tool_calls": False,
        "include": ["reasoning.encrypted_content"],
        "store": True,
    }
    items: list[Any] = [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "look"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
            ],
        },
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": '{"a":1}'},
        {"type": "function_call", "call_id": "c2", "name": "get_weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        {
            "type": "function_call_output",
            "call_id": "c2",
            "output": [
                {"type": "input_text", "text": "see"},
                {"type": "input_image", "image_url": "https://x.example/a.png"},
            ],
        },
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It is sunny."}]},
        {"type": "message", "role": "developer", "content": "Now in French."},
    ]
    form = chat_form(request, items)
    assert form.body["messages"] == [
        {"role": "system", "content": "Be kind."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": ("data:image/png;base64,AA=="), "detail": "low"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"a":1}'}},
                {"id": "c2", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "c2", "content": "see"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": ("Images of the result of c2:")},
                {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}},
            ],
        },
        {"role": "assistant", "content": "It is sunny."},
        {"role": "user", "content": "<system_message>\nNow in French.\n</system_message>"},
    ]
    assert form.body["tools"] == [
        {"type": "function", "function": {"name": "get_weather", "parameters": _NO_PARAMETERS, "strict": True}}
    ]
    assert form.body["tool_choice"] == {"type": "function", "function": {"name": "get_weather"}}
    assert form.body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "a", "schema": {}, "strict": True},
    }
    assert (
        form.body["max_completion_tokens"],
        form.body["reasoning_effort"],
        form.body["verbosity"],
        form.body["temperature"],
    ) == (50, "low", "low", 0.5)
    assert form.body["parallel_tool_calls"] is False
    assert set(form.dropped) == {"tools[web_search]", "truncation"}
    assert "store" not in form.body and "include" not in form.body


def test_custom_tools_and_namespaces_go_as_functions_and_come_back_as_what_they_are() -> None:
    tools = [
        {
            "type": "custom",
            "name": "apply_patch",
            "description": "Edits.",
            "format": {"type": "grammar", "syntax": "lark", "definition": "start: A"},
        },
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
    completion: dict[str, Any] = {
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": None, "tool_calls": calls},
                "finish_reason": "tool_calls",
            }
        ],
    }
    output: Any = response_of(completion, {"model": "m"}, {"id": "r"}, form.names, fresh())["output"]
    assert [(item["type"], item["name"]) for item in output] == [
        ("custom_tool_call", "apply_patch"),
        ("function_call", "read"),
    ]
    assert output[0]["input"] == "*** End" and output[1]["namespace"] == "fs" and output[1]["arguments"] == '{"p":1}'
    streamed = codec(names=form.names)
    out = events(
        fed(
            streamed,
            sse(
                chunk(
                    {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "apply_patch", "arguments": '{"in'}}]}
                ),
                chunk({"tool_calls": [{"index": 0, "function": {"arguments": 'put":"*** End"}'}}]}),
                chunk({}, "tool_calls"),
            ),
        )
    )
    assert [event["input"] for event in out if event["type"] == "response.custom_tool_call_input.done"] == ["*** End"]


@pytest.mark.parametrize(
    ("request_", "items", "param"),
    [
        ({"prompt": {"id": "p"}}, [{"role": "user", "content": "x"}], "prompt"),
        (
            {"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}},
            [{"role": "user", "content": "x"}],
            "tool_choice",
        ),
        (
            {},
            [{"role": "user", "content": [{"type": "input_file", "file_url": "https://x.example/a.pdf"}]}],
            "input[0].content[0].file_url",
        ),
        ({}, [{"type": "item_reference", "id": "x"}], "input[0].type"),
        ({}, [{"role": "user", "content": [{"type": "input_video"}]}], "input[0].content[0].type"),
        ({}, [{"role": "boss", "content": "x"}], "input[0].role"),
        ({}, [], "input"),
    ],
)
def test_what_chat_cannot_do_is_refused_by_name(
    request_: dict[str, Any], items: list[dict[str, Any]], param: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        chat_form({"model": "m", **request_}, items)
    assert caught.value.param == param


def test_a_chat_request_becomes_one_of_responses() -> None:
    request = {
        "model": "m",
        "max_tokens": 5,
        "reasoning_effort": "high",
        "verbosity": "low",
        "seed": 1,
        "logprobs": True,
        "top_logprobs": 2,
        "n": 1,
        "stop": None,
        "metadata": {"a": "b"},
        "messages": [
            {"role": "system", "content": "One."},
            {"role": "developer", "content": [{"type": "text", "text": "Two."}]},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "hi"},
                    {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}},
                    {"type": "file", "file": {"file_data": "data:x", "filename": "a"}},
                ],
            },
            {
                "role": "assistant",
                "content": "ok",
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "42"}]},
            {"role": "system", "content": "Late."},
        ],
        "tools": [
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}},
            {"type": "custom", "custom": {"name": "g"}},
        ],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"x": 1}, "strict": True}},
    }
    form = responses_form(request, least_output=16)
    body: Any = form.body
    assert body["instructions"] == "One.\n\nTwo." and body["store"] is False and body["max_output_tokens"] == 16
    assert body["input"] == [
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "hi"},
                {"type": "input_image", "image_url": "https://x.example/a.png", "detail": "auto"},
                {"type": "input_file", "filename": "a", "file_data": "data:x"},
            ],
        },
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "ok"}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "42"},
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Late."}]},
    ]
    assert body["tools"] == [
        {"type": "function", "name": "f", "description": "d", "parameters": _NO_PARAMETERS, "strict": False},
        {"type": "custom", "name": "g"},
    ]
    assert body["tool_choice"] == {"type": "function", "name": "f"}
    assert body["text"] == {
        "format": {"type": "json_schema", "name": "a", "schema": {"x": 1}, "strict": True},
        "verbosity": "low",
    }
    assert (
        body["reasoning"]["effort"] == "high"
        and body["include"] == ["reasoning.encrypted_content", "message.output_text.logprobs"]
        and body["top_logprobs"] == 2
    )
    assert form.dropped == ["seed"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("logit_bias", {"1": 2}),
        ("audio", {"voice": "a"}),
        ("prediction", {"type": "content"}),
    ],
)
def test_what_responses_cannot_do_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(BadRequest) as caught:
        responses_form({"model": "m", "messages": [{"role": "user", "content": "x"}], field: value})
    assert (caught.value.param, caught.value.status) == (field, 422)


@settings(max_examples=60, deadline=None)
@given(
    TEXT,
    st.lists(st.tuples(NAME, TEXT), max_size=3),
    TEXT | st.none(),
    st.sampled_from(["stop", "length", "content_filter"]),
)
def test_a_completion_survives_the_way_there_and_back(
    text: str, calls: list[tuple[str, str]], thoughts: str | None, finish: str
) -> None:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [
            {"id": f"c{n}", "type": "function", "function": {"name": name, "arguments": json.dumps({"q": q})}}
            for n, (name, q) in enumerate(calls)
        ]
        finish = "tool_calls"
    if thoughts:
        message["reasoning_content"] = thoughts
    completion: dict[str, Any] = {
        "id": "chatcmpl-1",
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": USAGE,
    }
    response = response_of(completion, {"model": "m"}, {"id": "resp_1", "created_at": 1}, ToolNames(), fresh())
    back: Any = completion_of(response)
    assert back["choices"][0]["message"]["content"] == text
    assert back["choices"][0]["message"].get("tool_calls") == message.get("tool_calls")
    assert back["choices"][0]["message"].get("reasoning_content") == thoughts
    assert back["choices"][0]["finish_reason"] == finish
    assert back["usage"]["total_tokens"] == 16 and back["usage"]["prompt_tokens_details"]["cached_tokens"] == 4
    assert back["usage"]["completion_tokens_details"]["reasoning_tokens"] == 3


def test_calls_and_choices_of_old_chat_clients_without_id_or_type_go_by_their_name() -> None:
    called = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    messages = [{"role": "user", "content": "x"}, called, {"role": "function", "name": "f", "content": "r"}]
    tools = [{"type": "function", "function": {"name": "f"}}]
    body = responses_form({"model": "m", "messages": messages, "tools": tools, "tool_choice": {"name": "f"}}).body
    assert [item["call_id"] for item in body["input"][1:]] == ["call_f", "call_f"]
    assert body["tool_choice"] == {"type": "function", "name": "f"}


def test_thoughts_that_only_their_vendor_can_read_are_not_told_to_a_chat_upstream() -> None:
    thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "A"}]}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    sealed = {"type": "reasoning", "summary": [], "encrypted_content": "E"}
    assert "reasoning_content" not in chat_form({"model": "m"}, [sealed, call]).body["messages"][0]
    assert chat_form({"model": "m"}, [sealed, thought, sealed, call]).body["messages"][0]["reasoning_content"] == "A"


def test_a_system_message_alone_is_the_input() -> None:
    """Which OpenAI demands: chat completions are answered where a system message is all there is."""
    body, _ = responses_request({"model": "m", "messages": [{"role": "system", "content": "Say hello."}]})
    assert body["instructions"] == ""
    assert body["input"] == [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Say hello."}]}
    ]
