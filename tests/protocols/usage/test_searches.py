"""Searches on the web that upstreams make for answers: how many are counted, held for and charged."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from relay.billing.prices import Price, ceiling, cost
from relay.gateway.charging.believed import Expected, believed
from relay.protocols.anthropic_messages.stream import MessagesStream
from relay.protocols.anthropic_messages.usage import parse_messages_usage
from relay.protocols.chat_completions.usage import parse_chat_usage
from relay.protocols.gemini.answer import Framing, parse_gemini_answer
from relay.protocols.gemini.stream import GeminiStream
from relay.protocols.gemini.upstream_stream import GeminiDecoder
from relay.protocols.interactions.objects import parse_interaction
from relay.protocols.interactions.stream import InteractionStream
from relay.protocols.prompts.searches import USUAL, most_searches
from relay.protocols.responses.answer import parse_responses_answer
from relay.protocols.responses.stream import ResponsesStream
from relay.protocols.responses.upstream_stream import ResponsesDecoder
from relay.protocols.usage import MOST_SEARCHES, Delivered, Usage
from tests.support.peers import interactions as peer

CENT = 10_000_000  # nano-USD
OF_CLAUDE = {"input_tokens": 10, "output_tokens": 5, "server_tool_use": {"web_search_requests": 3}}
SAID = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [
    {"type": "output_text", "text": "hi", "annotations": []},
]}  # fmt: skip


def search(number: int, kind: str = "search") -> dict[str, Any]:
    return {"type": "web_search_call", "id": f"ws_{number}", "status": "completed", "action": {"type": kind}}


SEARCHES = [search(1), search(2, "open_page"), search(3), search(4, "find_in_page")]


def response(**members: Any) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": "m",
        "output": [*SEARCHES, SAID],
        "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15},
        **members,
    }


def event(kind: str, **members: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()


def items() -> bytes:
    return b"".join(
        event("response.output_item.done", sequence_number=number + 1, output_index=number, item=item)
        for number, item in enumerate([*SEARCHES, SAID])
    )


def begun() -> bytes:
    return event("response.created", sequence_number=0, response=response(status="in_progress", output=[]))


def searched(usage: Usage | None) -> int:
    assert usage is not None
    return usage.searches


@pytest.mark.parametrize(
    ("tool_usage", "expected"),
    [(None, 2), ({"web_search": {"num_requests": 4}}, 4), ({"web_search": {"num_requests": 0}}, 0), ({}, 2), (5, 2)],
)
def test_searches_of_a_response_are_those_that_are_told_otherwise_those_among_its_items(
    tool_usage: object, expected: int
) -> None:
    whole = response(tool_usage=tool_usage)
    outputs: list[list[Any]] = [whole["output"], []]
    found = parse_responses_answer(json.dumps(whole).encode())
    assert found is not None and searched(found.usage) == expected
    for output in outputs:  # some upstreams end with an empty one
        stream = ResponsesStream(complete_object=lambda one: one)
        ended = event("response.completed", sequence_number=9, response={**whole, "output": output})
        stream.feed(begun() + items() + ended)
        assert stream.done and searched(stream.usage) == expected
        decoder = ResponsesDecoder()
        for one in (begun(), *(part + b"\n\n" for part in items().split(b"\n\n") if part), ended):
            decoder.chunks(one)
        assert decoder.done and searched(decoder.usage) == expected


def test_searches_of_a_response_that_breaks_off_are_those_that_were_seen() -> None:
    stream = ResponsesStream(complete_object=lambda one: one)
    stream.feed(begun() + items())
    assert stream.media() == Usage(searches=2)


def test_searches_of_messages_are_those_that_are_reported() -> None:
    assert searched(parse_messages_usage(json.dumps(OF_CLAUDE).encode())) == 3
    for odd in (None, 5, {}, {"web_search_requests": -1}, {"web_search_requests": "3"}):
        assert searched(parse_messages_usage(json.dumps({**OF_CLAUDE, "server_tool_use": odd}).encode())) == 0


def test_searches_of_messages_that_break_off_are_those_that_began() -> None:
    stream = MessagesStream()
    call = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    fetch = {**call, "name": "web_fetch"}
    quoted = {"type": "text_delta", "text": json.dumps(call)}
    stream.feed(
        event("message_start", message={"usage": {"input_tokens": 10, "output_tokens": 1, "server_tool_use": None}})
        + b"".join(event("content_block_start", index=0, content_block=block) for block in (call, fetch, call))
        + event("content_block_delta", index=3, delta=quoted)
    )
    assert stream.media() == Usage(searches=2)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"num_search_queries": 21}, 21),  # Perplexity
        ({"server_tool_use": {"web_search_requests": 2}}, 2),  # OpenRouter
        ({}, 0),
    ],
)
def test_searches_of_chat_are_those_that_are_reported(usage: dict[str, Any], expected: int) -> None:
    whole = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, **usage}
    assert searched(parse_chat_usage(json.dumps(whole).encode())) == expected


@pytest.mark.parametrize(
    ("model", "queries", "expected"),
    [
        ("gemini-3-pro", ["a", "b", "a", " "], 2),
        ("gemini-2.5-flash", ["a", "b"], 1),
        ("gemini-2.5-flash", [], 0),
        ("", ["a", "b"], 2),
    ],
)
def test_searches_of_gemini_are_its_queries_or_one_of_an_earlier_generation(
    model: str, queries: list[str], expected: int
) -> None:
    candidate = {"content": {"role": "model", "parts": [{"text": "hi"}]}, "index": 0}
    grounded = {**candidate, "finishReason": "STOP", "groundingMetadata": {"webSearchQueries": queries}}
    whole = {
        "candidates": [grounded],
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15},
        "modelVersion": model,
    }
    answer = parse_gemini_answer(json.dumps(whole).encode())
    assert answer is not None and searched(answer.usage) == expected
    pieces = [{"candidates": [candidate], "modelVersion": model}, whole]
    stream, decoder = GeminiStream(Framing(sse=True)), GeminiDecoder()
    for piece in pieces:
        line = b"data: " + json.dumps(piece).encode() + b"\r\n\r\n"
        stream.feed(line)
        decoder.chunks(line)
    stream.finish()
    decoder.finish(clean=True)
    assert searched(stream.usage) == searched(decoder.usage) == stream.media().searches == expected


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, 0),
        ({"tools": [{"type": "function", "function": {"name": "web_search"}}]}, 0),
        ({"tools": [{"type": "web_search"}]}, USUAL),
        ({"tools": [{"type": "web_search_preview"}], "max_tool_calls": 1}, 1),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}]}, 2),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 50}]}, USUAL),
        ({"tools": [{"googleSearch": {}}, {"function_declarations": []}]}, USUAL),
        ({"tools": [{"google_search": {}}]}, USUAL),
        ({"web_search_options": {}}, 1),
        ({"web_search_options": None, "tools": None}, 0),
        ({"tools": "search"}, 0),
    ],
)
def test_money_is_held_for_the_searches_that_tools_can_make(members: dict[str, Any], expected: int) -> None:
    fields = {name: msgspec.Raw(json.dumps(value).encode()) for name, value in members.items()}
    assert most_searches(fields) == expected


def test_searches_cost_their_price_each_and_are_held_for() -> None:
    price = Price(input=1_000_000, search=CENT)
    assert cost(price, Usage(input=10, searches=3)) == 10 + 3 * CENT
    assert cost(price, Usage(input=10, searches=3), 2_000_000) == 2 * (10 + 3 * CENT)
    assert ceiling(price, 10, 0, 1_000_000, Usage(searches=3)) == 10 + 3 * CENT
    assert cost(Price(input=1_000_000), Usage(input=10, searches=3)) == 10
    assert not Price(search=CENT).is_by_units  # searches are counted wherever text is made


@pytest.mark.parametrize("told", [-3, "4", True, None, MOST_SEARCHES + 1, 10**18])
def test_a_number_of_searches_that_is_none_leaves_those_among_the_items(told: object) -> None:
    whole = response(tool_usage={"web_search": {"num_requests": told}})
    found = parse_responses_answer(json.dumps(whole).encode())
    assert found is not None and searched(found.usage) == 2


def test_more_searches_than_an_answer_can_have_cost_nothing_and_mark_the_record() -> None:
    said = {**OF_CLAUDE, "server_tool_use": {"web_search_requests": 10**9}}
    usage = parse_messages_usage(json.dumps(said).encode())
    assert usage is not None
    found, true = believed(usage, None, Expected(prompt=10))
    assert (found.searches, found.input, found.output, true) == (0, 10, 5, False)
    possible = parse_messages_usage(json.dumps(OF_CLAUDE).encode())
    assert possible is not None and believed(possible, None, Expected(prompt=10)) == (possible, True)


def test_searches_of_a_broken_stream_count_beside_the_usage_that_it_began_with() -> None:
    stream = MessagesStream()
    asked = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    begun_with = {"id": "m", "type": "message", "role": "assistant", "content": [], "usage": {"input_tokens": 10}}
    stream.feed(
        event("message_start", message=begun_with)
        + event("content_block_start", index=0, content_block=asked)
        + event("content_block_stop", index=0)
        + event("content_block_start", index=1, content_block={"type": "text", "text": ""})
        + event("content_block_delta", index=1, delta={"type": "text_delta", "text": "Found"})
    )
    stream.finish(clean=False)
    assert not stream.complete and stream.usage is not None and stream.usage.searches == 0
    broken = Delivered(100, stream.delivered_units, finished=False, media=stream.media)
    assert believed(stream.usage, broken, Expected(prompt=10))[0].searches == 1


GROUNDED: dict[str, Any] = {
    "id": "v1_upstream",
    "object": "interaction",
    "status": "completed",
    "steps": [
        {"type": "google_search_call", "id": "g1", "arguments": {"queries": ["a", "b"]}},
        {"type": "google_search_result", "call_id": "g1", "result": []},
        {"type": "model_output", "content": [{"type": "text", "text": "hi"}]},
    ],
    "usage": {"total_input_tokens": 10, "total_output_tokens": 5, "total_tokens": 15},
}

COUNTED = [{"type": "google_search", "count": 3}, {"type": "google_maps", "count": 9}]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, 2),
        ({"model": "gemini-2.5-flash"}, 1),
        ({"usage": {**GROUNDED["usage"], "grounding_tool_count": COUNTED}}, 3),
    ],
)
def test_searches_of_an_interaction_are_counted_by_its_usage_otherwise_by_its_queries(
    told: dict[str, Any], expected: int
) -> None:
    whole = {**GROUNDED, **told}
    found = parse_interaction(json.dumps(whole).encode())
    assert found is not None and searched(found.usage) == expected
    stream = InteractionStream()
    asked: dict[str, Any] = whole["steps"][0]
    shell = {name: value for name, value in asked.items() if name != "arguments"}
    for one in peer.events_of({**whole, "steps": [shell, *whole["steps"][1:]]}):
        stream.feed(peer.written(one))
        if one["event_type"] == "step.start" and one["index"] == 0:
            delta = {"type": asked["type"], "arguments": asked["arguments"]}
            stream.feed(peer.written({"event_type": "step.delta", "index": 0, "delta": delta}))
    assert stream.done and searched(stream.usage) == expected and stream.media().searches == min(expected, 2)


def test_money_is_held_for_searches_of_interactions() -> None:
    tools = msgspec.Raw(json.dumps([{"type": "google_search"}]).encode())
    assert most_searches({"tools": tools}) == USUAL
