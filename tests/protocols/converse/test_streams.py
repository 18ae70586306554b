"""Answers of Bedrock's Converse in the hub form, plain and streamed, and what becomes of broken ones."""

from __future__ import annotations

import base64
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocols.chat_completions.client_stream import ChatEncoder
from relay.protocols.chat_completions.hub import STOP, THINKING
from relay.protocols.codec import Conversion
from relay.protocols.contract import Dialect
from relay.protocols.converse.turns import thoughts_of
from relay.protocols.converse.upstream import ConverseUpstream
from relay.protocols.framing.event_stream import EventsOfFrames
from tests.protocols.codecs import events
from tests.support.peers.clouds import converse, frames

UPSTREAM, DIALECT = ConverseUpstream(), Dialect(vendor="bedrock_claude")
IMAGE: dict[str, Any] = {"image": {"format": "png", "source": {"bytes": base64.b64encode(b"picture").decode()}}}
CITED: dict[str, Any] = {
    "citationsContent": {
        "content": [{"text": "Oslo is cold."}],
        "citations": [
            {"title": "Weather", "location": {"web": {"url": "https://example.org/w", "domain": "example.org"}}}
        ],
    }
}


def stream_of(whole: dict[str, Any], size: int = 5) -> bytes:
    return b"".join(frames.event(name, event) for name, event in converse.events(whole, size))


def decoded(data: bytes, *cuts: int) -> tuple[Any, list[dict[str, Any]]]:
    """The decoder and the hub chunks of a stream that arrives in pieces."""
    decoder, framing, chunks = UPSTREAM.decoder(DIALECT), EventsOfFrames(), []
    edges = [0, *sorted(cuts), len(data)]
    for start, end in pairwise(edges):
        for event in framing.feed(data[start:end]).split(b"\n\n"):
            if event.strip() and not decoder.done and decoder.error is None:
                chunks += decoder.chunks(event + b"\n\n")
    decoder.finish(not framing.fault)
    return decoder, chunks


def said(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """A message that chunks amount to."""
    found: dict[str, Any] = {"content": "", "reasoning_content": "", "calls": {}, "thoughts": [], "finish": None}
    for chunk in chunks:
        for choice in chunk["choices"]:
            delta = choice["delta"]
            for name in ("content", "reasoning_content"):
                found[name] += delta.get(name) or ""
            for one in delta.get("tool_calls", ()):
                kept = found["calls"].setdefault(one["index"], {"arguments": ""})
                kept |= {"id": one["id"], "name": one["function"]["name"]} if "id" in one else {}
                kept["arguments"] += one["function"]["arguments"]
            found["thoughts"] += delta.get(THINKING, [])
            found["finish"] = choice["finish_reason"] or found["finish"]
    return found


def whole(answer: dict[str, Any]) -> dict[str, Any]:
    found = UPSTREAM.completion(json.dumps(answer).encode(), DIALECT)
    assert found is not None and found.completion is not None
    choice: dict[str, Any] = found.completion["choices"][0]  # type: ignore[index]
    return choice


BLOCKS = (converse.HIDDEN, converse.THOUGHT, converse.TEXT, converse.TOOL)


@given(st.data())
def test_streams_split_at_any_byte_say_what_the_whole_says(data: st.DataObject) -> None:
    answer = converse.answer(*BLOCKS, stop="tool_use")
    stream = stream_of(answer, data.draw(st.integers(1, 9)))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6))
    decoder, chunks = decoded(stream, *cuts)
    assert decoder.error is None and decoder.done
    found, message = said(chunks), whole(answer)["message"]
    assert (found["content"], found["reasoning_content"]) == (message["content"], message["reasoning_content"])
    call = message["tool_calls"][0]
    shown = {"arguments": json.loads(call["function"]["arguments"]), "id": call["id"], "name": call["function"]["name"]}
    assert {**found["calls"][0], "arguments": json.loads(found["calls"][0]["arguments"])} == shown
    assert found["finish"] == "tool_calls" and thoughts_of({THINKING: found["thoughts"]}, "bedrock_claude") == list(
        BLOCKS[:2]
    )
    assert thoughts_of(message, "bedrock_claude") == list(BLOCKS[:2]) and not thoughts_of(message, "another")


def test_a_stream_that_is_cut_anywhere_never_ends_well() -> None:
    stream = stream_of(converse.answer(converse.TEXT))
    last = len(frames.event("metadata", converse.events(converse.answer())[-1][1]))
    for end in range(len(stream) - last):
        decoder, _ = decoded(stream[:end])
        assert decoder.error is not None or not decoder.done, end


def test_a_stream_without_its_usage_is_an_answer_all_the_same() -> None:
    """The connection ended behind the reason why the model stopped: what was said is counted locally."""
    sent = converse.events(converse.answer(converse.TEXT))[:-1]
    decoder, chunks = decoded(b"".join(frames.event(name, event) for name, event in sent))
    assert decoder.done and decoder.usage is None and said(chunks)["content"] == "Hello there."


@pytest.mark.parametrize(
    ("reason", "finish", "told"),
    [
        ("end_turn", "stop", False),
        ("stop_sequence", "stop", True),
        ("max_tokens", "length", False),
        ("tool_use", "tool_calls", False),
        ("guardrail_intervened", "content_filter", True),
        ("content_filtered", "content_filter", True),
        ("model_context_window_exceeded", "length", True),
    ],
)
def test_why_the_model_stopped(reason: str, finish: str, told: bool) -> None:
    answer = converse.answer(converse.TEXT, stop=reason)
    choice = whole(answer)
    assert choice["finish_reason"] == finish and (STOP in choice) is told
    _, chunks = decoded(stream_of(answer))
    assert said(chunks)["finish"] == finish


@pytest.mark.parametrize("reason", ["malformed_model_output", "malformed_tool_use"])
def test_an_answer_that_the_model_spoilt_is_an_error(reason: str) -> None:
    answer = converse.answer(converse.TOOL, stop=reason)
    found = UPSTREAM.completion(json.dumps(answer).encode(), DIALECT)
    assert found is not None and found.error is not None and found.usage is not None
    decoder, _ = decoded(stream_of(answer))
    assert decoder.error is not None and not decoder.done


def test_nothing_at_all_is_an_error() -> None:
    nothing = {**converse.USAGE, "outputTokens": 0}
    answer = {**converse.answer(), "usage": nothing}
    answer["output"] = {"message": {"role": "assistant", "content": []}}
    found = UPSTREAM.completion(json.dumps(answer).encode(), DIALECT)
    assert found is not None and found.error is not None
    decoder, _ = decoded(stream_of(answer))
    assert decoder.error is not None


@pytest.mark.parametrize("name", ["throttlingException", "modelStreamErrorException", "internalServerException"])
def test_an_exception_is_the_streams_error(name: str) -> None:
    start = stream_of(converse.answer(converse.TEXT))[:400]
    begun = frames.event("messageStart", {"role": "assistant"})
    decoder, _ = decoded(begun + frames.exception(name, "Slow down."))
    assert b"Slow down." in decoder.error and not decoder.done and start


def test_pictures_and_sources_reach_the_client() -> None:
    answer = converse.answer(CITED, IMAGE)
    message = whole(answer)["message"]
    assert message["content"] == "Oslo is cold." and message["images"][0]["image_url"]["url"].endswith("cGljdHVyZQ==")
    assert message["annotations"][0]["url_citation"]["url"] == "https://example.org/w"
    _, chunks = decoded(stream_of(answer))
    shown = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert any(delta.get("images") == message["images"] for delta in shown)
    assert any(delta.get("annotations") for delta in shown)


def test_what_the_upstream_calls_itself_is_no_call_of_the_clients() -> None:
    own = {"toolUse": {"toolUseId": "t1", "name": "nova_grounding", "input": {"q": 1}, "type": "server_tool_use"}}
    answer = converse.answer(own, converse.TEXT)
    assert "tool_calls" not in whole(answer)["message"]
    decoder, chunks = decoded(stream_of(answer))
    assert decoder.done and not said(chunks)["calls"] and said(chunks)["content"] == "Hello there."


def test_usage_counts_the_cache_beside_the_input() -> None:
    found = UPSTREAM.completion(json.dumps(converse.answer()).encode(), DIALECT)
    assert found is not None and found.usage is not None and found.completion is not None
    usage = found.usage
    assert (usage.input, usage.cached_input, usage.cache_write, usage.cache_write_1h, usage.output) == (19, 4, 6, 2, 7)
    details: Any = found.completion["usage"]
    assert details["prompt_tokens"] == 19 and details["prompt_tokens_details"]["cached_tokens"] == 4


@pytest.mark.parametrize("body", [b"{}", b"[]", b"<html>", b'{"output":{"message":{"content":[{"text":5}]}}}'])
def test_bodies_of_something_else_are_no_answer(body: bytes) -> None:
    found = UPSTREAM.completion(body, DIALECT)
    assert found is None or found.completion is None


def test_an_error_object_in_place_of_an_answer() -> None:
    found = UPSTREAM.completion(b'{"message":"The model is busy."}', DIALECT)
    assert found is not None and found.error is not None


def test_a_client_of_chat_is_sent_the_usage_that_it_asked_for() -> None:
    codec = Conversion(decoder=UPSTREAM.decoder(DIALECT), encoder=ChatEncoder(True, False, "chatcmpl-1"))
    framing = EventsOfFrames()
    out = codec.feed(framing.feed(stream_of(converse.answer(*BLOCKS, stop="tool_use")))) + codec.terminal
    found = events(out)
    assert codec.done and found[-1]["usage"]["prompt_tokens"] == 19
    assert {event["id"] for event in found} == {"chatcmpl-1"}
