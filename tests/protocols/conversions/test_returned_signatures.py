"""What a vendor wants to have back in the next turn comes back, and goes to no other."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from relay.protocols.chat_completions.upstream import ChatUpstream
from relay.protocols.contract import Dialect
from relay.protocols.responses.client import ResponsesClient
from relay.protocols.responses.upstream import ResponsesUpstream
from tests.protocols.codecs import chunk, codec, events, fed, fresh, sse
from tests.protocols.conversions.tables import function, plain_response, responses_client

SIGNED = {"google": {"thought_signature": "c2ln"}}
OPENROUTER = [
    {"type": "reasoning.text", "text": "hm", "format": "anthropic-claude-v1", "index": 0, "signature": "sig"},
    {"type": "reasoning.encrypted", "data": "ZW5j", "id": "rs_1", "format": "openai-responses-v1", "index": 1},
]


def next_turn(output: Any, vendor: str, *between: Any) -> Any:
    """The messages that a chat upstream is sent when a client without a memory replays an answer, as Codex does."""
    kept = ("type", "role", "content", "summary", "encrypted_content", "call_id", "name", "arguments")
    items = [{name: item[name] for name in kept if name in item} for item in output]
    results = [
        {"type": "function_call_output", "call_id": item["call_id"], "output": "42"}
        for item in items
        if "call_id" in item
    ]
    client = ResponsesClient({"model": "m"}, [*items, *results, *between], {}, fresh(), lambda: 9)
    return ChatUpstream().request(client.hub_request().body, Dialect(vendor=vendor)).body["messages"]


def vendor_codec(vendor: str) -> Any:
    stream = codec()
    stream.decoder = ChatUpstream().decoder(Dialect(vendor=vendor))
    return stream


def streamed_output(vendor: str, *chunks: Any) -> Any:
    return events(fed(vendor_codec(vendor), sse(*chunks)))[-1]["response"]["output"]


@pytest.mark.parametrize("call_id", ["call_a", ""])
@pytest.mark.parametrize("late", [False, True])
def test_the_signature_of_a_call_comes_back_in_the_next_turn(call_id: str, late: bool) -> None:
    call = {"index": 0, "id": call_id, **function("f", '{"n":1}')}
    second = {"index": 1, "id": "call_b", **function("g")}
    parts: list[dict[str, Any]]
    if late:  # in a piece of its own
        parts = [
            {"tool_calls": [call]},
            {"tool_calls": [second]},
            {"tool_calls": [{"index": 0, "extra_content": SIGNED}]},
        ]
    else:
        parts = [{"tool_calls": [{**call, "extra_content": SIGNED}]}, {"tool_calls": [second]}]
    output = streamed_output("gemini", *map(chunk, parts), chunk({}, "tool_calls"))
    body = {"choices": [{"message": {"tool_calls": [{**call, "extra_content": SIGNED}, second]}}]}
    found = ChatUpstream().completion(json.dumps(body).encode(), Dialect(vendor="gemini"))
    assert found is not None and found.completion is not None
    for replayed in (output, responses_client().answer(found.completion)["output"]):
        message = next_turn(replayed, "gemini")[0]
        first, other = message["tool_calls"]
        assert first["extra_content"] == SIGNED and "extra_content" not in other
        assert "extra_content" not in json.dumps(
            next_turn(replayed, "groq")
        )  # it refuses members that it does not know


def test_reasoning_details_come_back_as_they_were() -> None:
    pieces: list[dict[str, Any]] = [
        {"reasoning": "h", "reasoning_details": [{**OPENROUTER[0], "text": "h", "signature": None}]},
        {"reasoning": "m", "reasoning_details": [{"type": "reasoning.text", "text": "m", "index": 0}]},
        {"reasoning_details": [{"type": "reasoning.text", "signature": "sig", "index": 0}]},
        {"reasoning_details": [OPENROUTER[1]]},
        {"tool_calls": [{"index": 0, "id": "a", **function("f")}]},
    ]
    output = streamed_output("openrouter", *map(chunk, pieces), chunk({}, "tool_calls"))
    assert [item["type"] for item in output] == ["reasoning", "function_call"]
    assert output[0]["content"] == [{"type": "reasoning_text", "text": "hm"}]
    assert next_turn(output, "openrouter")[0]["reasoning_details"] == OPENROUTER
    assert "reasoning_details" not in json.dumps(next_turn(output, "mistral"))
    plain = plain_response({"reasoning": "hm", "reasoning_details": OPENROUTER, "tool_calls": [function("f", id="a")]})
    assert next_turn(plain["output"], "openrouter")[0]["reasoning_details"] == OPENROUTER


def test_a_signature_that_comes_last_goes_back_with_the_answer_that_it_ends() -> None:
    output = streamed_output(
        "openrouter",
        chunk({"content": "So."}),
        chunk({"reasoning_details": [OPENROUTER[1]]}),
        chunk({}, "stop"),
    )
    more = [
        {"role": "user", "content": "go on"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "?"},
    ]
    messages = next_turn(output, "openrouter", *more)
    assert [message.get("reasoning_details") for message in messages] == [[OPENROUTER[1]], None, None, None]


def test_thinking_parts_are_parts_again_for_their_vendor() -> None:
    """Mistral refuses `reasoning_content`."""
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    output = streamed_output(
        "mistral",
        chunk({"content": [thinking]}),
        chunk({"content": [{"type": "text", "text": "So."}]}),
        chunk({}, "stop"),
    )
    message = next_turn(output, "mistral", {"role": "user", "content": "?"})[0]
    assert message["content"] == [thinking, {"type": "text", "text": "So."}] and "reasoning_content" not in message
    other = next_turn(output, "deepseek", {"role": "user", "content": "?"})[0]
    assert other["content"] == "So." and other["reasoning_content"] == "hm"


def test_an_upstream_of_responses_is_not_sent_what_another_vendor_wants_to_have_back() -> None:
    output = streamed_output(
        "gemini", chunk({"tool_calls": [{"index": 0, "id": "a", **function("f"), "extra_content": SIGNED}]})
    )
    client = ResponsesClient({"model": "m"}, output, {}, fresh(), lambda: 9)
    body = ResponsesUpstream().request(client.hub_request().body, Dialect()).body
    types = [item["type"] for item in body["input"]]  # type: ignore[attr-defined]
    assert types == ["function_call", "function_call_output"], "no reasoning, and a result that was missing"


def test_a_signature_that_is_none_of_ours_is_left_alone() -> None:
    mark = "airelays-reasoning."
    for junk in (
        mark,
        mark + "%%%",
        mark + base64.b64encode(b"[1]").decode(),
        mark + base64.b64encode(b'{"vendor":1}').decode(),
    ):
        items: list[dict[str, Any]] = [
            {"type": "reasoning", "summary": [], "encrypted_content": junk},
            {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
        ]
        client = ResponsesClient({"model": "m"}, items, {}, fresh(), lambda: 9)
        messages: Any = ChatUpstream().request(client.hub_request().body, Dialect()).body["messages"]
        assert messages[0] == {"role": "assistant", "content": None, "tool_calls": [{"id": "a", **function("f")}]}
