"""What two APIs can both carry is not lost between them: conversations there and back, and answers of every pair."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.apis.pairs import (
    APIS,
    PAIRS,
    Json,
    answer_of,
    client_of,
    codec_of,
    converted,
    fed,
    request_for,
    spoken,
    wire,
)
from tests.support.apis.upstreams import wrong_items
from tests.support.peers import messages as claude
from tests.support.upstream import Call

WORDS: Final = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(str.strip)
_VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | WORDS, lambda one: st.lists(one, max_size=2), max_leaves=4
)
INPUTS: Final = st.dictionaries(WORDS, _VALUES, max_size=2)

Words = tuple[str, str, list[tuple[str, str, Json]]]  # a thought, a text, and calls: what `spoken` takes
_IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
_PDF = {
    "type": "document",
    "title": "file.pdf",
    "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
}
_SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
_TOOLS = [
    {
        "name": name,
        "description": "A tool.",
        "input_schema": {"type": "object", "properties": {"a": {"type": "string"}}},
    }
    for name in ("run", "get_weather")
]
_CHOICES: list[Json] = [
    {"type": "auto"},
    {"type": "any"},
    {"type": "none"},
    {"type": "tool", "name": "run"},
    {"type": "auto", "disable_parallel_tool_use": True},
]


@st.composite
def requests(draw: st.DrawFn) -> Json:
    """A request of the Messages API with what the Responses API can carry as well."""
    turns: list[Json] = []
    results: list[Json] = []
    number = 0
    for _ in range(draw(st.integers(1, 3))):
        media: list[Json] = draw(st.lists(st.sampled_from([_IMAGE, _PDF]), max_size=1))
        parts: list[Json] = [{"type": "text", "text": draw(WORDS)}, *media]
        turns.append({"role": "user", "content": [*results, *parts]})
        content: list[Json] = [{"type": "text", "text": draw(WORDS)}]
        results = []
        for _ in range(draw(st.integers(0, 2))):
            number += 1
            ident = f"toolu_{number}"
            name = draw(st.sampled_from(["run", "get_weather"]))
            content.append({"type": "tool_use", "id": ident, "name": name, "input": draw(INPUTS)})
            results.append({"type": "tool_result", "tool_use_id": ident, "content": draw(WORDS)})
        turns.append({"role": "assistant", "content": content})
    turns.append({"role": "user", "content": [*results, {"type": "text", "text": draw(WORDS)}]})
    found: Json = {"messages": turns, "max_tokens": draw(st.integers(16, 9000))}
    if draw(st.booleans()):
        found["system"] = [{"type": "text", "text": draw(WORDS)}]
    if draw(st.booleans()):
        found["temperature"] = draw(st.sampled_from([0, 0.5, 1]))
    if draw(st.booleans()):
        found |= {"tools": _TOOLS, "tool_choice": draw(st.sampled_from(_CHOICES))}
    return found


@st.composite
def said(draw: st.DrawFn) -> Words:
    """What `spoken` takes: something at least."""
    thought = draw(st.just("") | WORDS)
    text = draw(st.just("") | WORDS)
    called = draw(st.lists(st.tuples(st.sampled_from(["run", "get_weather"]), INPUTS), max_size=2))
    calls = [(f"call_{number}", name, given) for number, (name, given) in enumerate(called)]
    return thought, text if text or calls else "Yes.", calls


@settings(derandomize=True, max_examples=60, deadline=None)
@given(requests())
def test_messages_become_a_response_and_messages_again(request: Json) -> None:
    there = request_for("responses", client_of("messages", request))
    assert there.dropped == [] and wrong_items(there.body) == ""
    back = request_for("messages", client_of("responses", {**there.body}))
    assert [name for name in back.dropped if name != "store"] == []
    body: Any = back.body
    call = Call("POST", "/v1/messages", {"anthropic-version": "x", "x-api-key": "k"}, json.dumps(body).encode(), None)  # type: ignore[arg-type]
    assert claude.fault(call) == ""
    assert body["messages"] == request["messages"]
    assert {name: body.get(name) for name in ("system", "max_tokens", "temperature", "tool_choice")} == {
        name: request.get(name) for name in ("system", "max_tokens", "temperature", "tool_choice")
    }
    assert body.get("tools") == request.get("tools")


@pytest.mark.parametrize(("other", "own"), PAIRS)
@settings(derandomize=True, max_examples=12, deadline=None)
@given(said())
def test_an_answer_goes_to_another_api_and_back(other: str, own: str, words: Words) -> None:
    """The upstream's answer for a client of another API, which the client serves to clients of the first."""
    answer = spoken(own, *words)
    shown = converted(own, other, converted(other, own, answer))
    for found in (answer_of(shown), answer_of(fed(codec_of(own, other), fed(codec_of(other, own), wire(own, answer))))):
        assert (found.thought, found.said) == words[:2]
        assert found.called == [[name, given] for _, name, given in words[2]]
        assert [call[0] for call in found.calls] == [ident for ident, _, _ in words[2]]
        assert found.ended == ("tool_calls" if words[2] else "stop")


@pytest.mark.parametrize(("client", "upstream"), PAIRS)
@settings(derandomize=True, max_examples=12, deadline=None)
@given(said())
def test_an_answer_is_the_same_whole_and_as_a_stream(client: str, upstream: str, words: Words) -> None:
    answer = spoken(upstream, *words)
    whole = answer_of(converted(client, upstream, answer))
    codec = codec_of(client, upstream)
    streamed = answer_of(fed(codec, wire(upstream, answer)))
    assert codec.done and codec.error is None and streamed.done
    for name in ("said", "thought", "called", "ended"):
        assert getattr(streamed, name) == getattr(whole, name), name
    assert whole.said == words[1] and whole.thought == words[0]


@settings(derandomize=True, max_examples=20, deadline=None)
@given(said())
def test_what_claude_signed_comes_back_through_a_response(words: Words) -> None:
    answer = spoken("messages", *words)
    shown = converted("messages", "responses", converted("responses", "messages", answer))
    assert shown["content"] == answer["content"] and shown["stop_reason"] == answer["stop_reason"]


@pytest.mark.parametrize("api", APIS)
def test_the_answers_that_are_tried_say_what_they_should(api: str) -> None:
    answer = spoken(api, "Hm.", "Yes.", [("call_0", "run", {"a": 1})])
    for found in (answer_of(answer), answer_of(wire(api, answer))):
        assert (found.thought, found.said, found.called) == ("Hm.", "Yes.", [["run", {"a": 1}]])
