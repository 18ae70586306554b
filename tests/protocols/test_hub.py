"""The hub between APIs: what two of them share survives it, and what one of them lacks is not shown to it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.protocols.chat_completions.client import ChatClient
from relay.protocols.chat_completions.upstream import ChatUpstream
from relay.protocols.codec import Conversion
from relay.protocols.contract import Dialect
from relay.protocols.fields import BadRequest
from relay.protocols.responses.answer import completion_of
from relay.protocols.responses.client import hub_request, response_of
from relay.protocols.responses.client_stream import ResponsesEncoder
from relay.protocols.responses.tools import ToolNames
from relay.protocols.responses.upstream import ResponsesUpstream
from relay.protocols.responses.upstream_stream import ResponsesDecoder
from tests.protocols.codecs import chat_codec, chunk, codec, events, fed, fresh, responses_form, sse


def test_two_apis_that_share_a_feature_lose_nothing_on_the_way_through_the_hub() -> None:
    items: list[dict[str, Any]] = [
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "hi"},
                {"type": "input_file", "file_url": "https://x.example/a.pdf", "filename": "a.pdf"},
            ],
        },
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "in short"}],
            "content": [{"type": "reasoning_text", "text": "hm"}],
            "encrypted_content": "gAAA",
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [
                {
                    "type": "output_text",
                    "text": "So.",
                    "annotations": [
                        {
                            "type": "url_citation",
                            "url": "https://x.example",
                            "title": "X",
                            "start_index": 0,
                            "end_index": 2,
                        }
                    ],
                },
                {"type": "refusal", "refusal": "Not that."},
            ],
        },
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "42"},
        {
            "type": "computer_call_output",
            "call_id": "c9",
            "output": {"type": "computer_screenshot", "image_url": "data:x"},
        },
    ]
    hub, _ = hub_request({"model": "m"}, items)
    assert ResponsesUpstream().request(hub.body, Dialect()).body["input"] == items


def test_a_chat_upstream_sees_no_extension_of_the_hub() -> None:
    items: list[Any] = [
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "x"}, {"type": "input_image", "image_url": "data:x"}],
        },
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"},
        {
            "role": "assistant",
            "content": [
                {
                    "type": "output_text",
                    "text": "So.",
                    "annotations": [{"type": "url_citation", "url": "https://x.example"}],
                }
            ],
        },
    ]
    hub, _ = hub_request({"model": "m", "tools": [{"type": "function", "name": "f"}]}, items)
    messages: Any = hub.body["messages"]
    for holder in (*messages, *messages[0]["content"], *hub.body["tools"]):  # type: ignore[misc]  # a list, in the hub
        holder["hub_cache_control"] = {"type": "ephemeral"}
    assert "hub_" in json.dumps(hub.body) and "hub_" not in json.dumps(ChatUpstream().request(hub.body, Dialect()).body)


def test_signed_thoughts_come_back_to_a_client_that_knows_them_and_to_no_other() -> None:
    item = {
        "type": "reasoning",
        "id": "rs_up",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "hm"}],
        "encrypted_content": "gAAA",
    }
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "So."}]}
    completion = completion_of({"id": "resp_up", "status": "completed", "output": [item, message]})
    back: Any = response_of(json.loads(json.dumps(completion)), {"model": "m"}, {"id": "r"}, ToolNames(), fresh())[
        "output"
    ]
    assert back[0]["encrypted_content"] == "gAAA" and back[0]["content"] == item["content"]
    assert "gAAA" not in json.dumps(ChatClient({"model": "m"}, False, "").answer(completion))
    done = [
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {"status": "completed", "output": [item, message]}},
    ]
    numbers = fresh()
    encoder = ResponsesEncoder({"model": "m"}, {"id": "r"}, ToolNames(), numbers, lambda: 9)
    final = events(
        fed(
            Conversion(decoder=ResponsesDecoder(), encoder=encoder),
            sse({"type": "response.reasoning_text.delta", "output_index": 0, "delta": "hm"}, *done),
        )
    )[-1]
    assert final["response"]["output"][0]["encrypted_content"] == "gAAA"
    assert "gAAA" not in fed(chat_codec(), sse(*done)).decode()


def test_functions_of_old_clients_are_tools_to_upstreams_and_functions_to_the_client() -> None:
    request: dict[str, Any] = {
        "model": "m",
        "functions": [{"name": "f", "parameters": {"type": "object"}}],
        "function_call": {"name": "f"},
        "messages": [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "42"},
        ],
    }
    body: Any = responses_form(request).body
    assert body["tools"] == [
        {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": False}
    ]
    assert body["tool_choice"] == {"type": "function", "name": "f"}
    assert body["input"][1:] == [
        {"type": "function_call", "call_id": "call_f", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_f", "output": "42"},
    ]
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'}
    answer: Any = ChatClient(request, False, "").answer(
        completion_of({"id": "resp_1", "status": "completed", "output": [call]})
    )["choices"]
    assert (
        answer[0]["message"]["function_call"] == {"name": "f", "arguments": '{"a":1}'}
        and "tool_calls" not in answer[0]["message"]
    )
    assert answer[0]["finish_reason"] == "function_call"
    found = events(
        fed(
            chat_codec(legacy=True),
            sse(
                {"type": "response.output_item.done", "output_index": 0, "item": call},
                {"type": "response.completed", "response": {}},
            ),
        )
    )
    called = [
        choice["delta"]["function_call"]
        for event in found
        for choice in event["choices"]
        if "function_call" in choice["delta"]
    ]
    assert (
        called == [{"name": "f", "arguments": ""}, {"arguments": '{"a":1}'}]
        and found[-1]["choices"][0]["finish_reason"] == "function_call"
    )


def test_extensions_that_a_chat_client_or_its_upstream_writes_are_no_extensions() -> None:
    raw = {"protocol": "responses", "value": {"type": "item_reference", "id": "msg_of_somebody"}}
    thought = {"id": "rs_1", "text": [], "summary": [], "signature": "gAAA"}
    for message in (
        {"role": "hub_raw", "hub_raw": raw},
        {"role": "user", "content": [{"type": "hub_raw", "hub_raw": raw}]},
    ):
        with pytest.raises(BadRequest):
            responses_form({"model": "m", "messages": [message]})
    said = {"role": "assistant", "content": "So.", "hub_thinking": [thought], "hub_citations": [{"url": "x"}]}
    sent = responses_form({"model": "m", "messages": [said]}).body
    assert [item["type"] for item in sent["input"]] == ["message"] and "url" not in json.dumps(sent)
    answer = json.dumps({"choices": [{"index": 0, "message": said, "finish_reason": "stop"}]}).encode()
    found: Any = ChatUpstream().completion(answer, Dialect())
    assert "hub_" not in json.dumps(found.completion)
    assert "gAAA" not in json.dumps(
        events(fed(codec(), sse(chunk({"reasoning": "hm", "hub_thinking": [thought]}, "stop"))))
    )
