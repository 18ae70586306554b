"""A piece that cannot be decoded ends a converted stream with an error, wherever it comes, and never silently."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.apis.pairs import DIALECTS, PAIRS, UPSTREAMS, codec_of, event_bytes, fed, spoken

_ANSWER = ("Hm.", "Hello there, how are you?", [("call_0", "run", {"a": 1})])
# How each API's clients are told of an error in a stream.
_TOLD = {
    "chat": b'data: {"error":{',
    "responses": b"event: error\n",
    "messages": b'event: error\ndata: {"type":"error",',
    "gemini": b'data: {"error":{',
}
# Short words are none: servers write such to keep a connection alive.
_GARBAGE = st.sampled_from([b"{", b'[{"x":', b'{"a":NaN}', b"{]", b'"{"', b"nonsense " * 99, b'{"choices":[7'])


@pytest.mark.parametrize(("client", "upstream"), PAIRS)
@settings(derandomize=True, max_examples=15, deadline=None)
@given(st.data())
def test_an_event_that_is_cut_ends_the_stream_with_an_error(client: str, upstream: str, data: st.DataObject) -> None:
    events = event_bytes(upstream, spoken(upstream, *_ANSWER))
    whole = [number for number, event in enumerate(events) if b"[DONE]" not in event]
    number = data.draw(st.sampled_from(whole))
    head, _, text = events[number].partition(b"data: ")
    cut = data.draw(st.integers(1, len(text) - 4))
    events[number] = head + b"data: " + text[:cut] + b"\n\n"
    codec = codec_of(client, upstream)
    out = fed(codec, b"".join(events))
    assert codec.error is not None and not codec.done and codec.terminal == b""
    told = codec.failure("It broke.", "server_error", "upstream_error", None)
    assert told.startswith(_TOLD[client]) and b"It broke." in told and b"It broke." not in out


@pytest.mark.parametrize(("client", "upstream"), PAIRS)
@settings(derandomize=True, max_examples=15, deadline=None)
@given(st.data())
def test_garbage_between_events_ends_the_stream_with_an_error(client: str, upstream: str, data: st.DataObject) -> None:
    events = event_bytes(upstream, spoken(upstream, *_ANSWER))
    number = data.draw(st.integers(0, len(events) - 2))
    events.insert(number, b"data: " + data.draw(_GARBAGE) + b"\n\n")
    codec = codec_of(client, upstream)
    fed(codec, b"".join(events))
    assert codec.error is not None and not codec.done


@pytest.mark.parametrize(("client", "upstream"), PAIRS)
@settings(derandomize=True, max_examples=15, deadline=None)
@given(st.data())
def test_a_stream_that_breaks_off_is_not_complete(client: str, upstream: str, data: st.DataObject) -> None:
    """Before the event that says why it ended."""
    events = event_bytes(upstream, spoken(upstream, *_ANSWER))
    ends = (b'"finish_reason": "', b"response.completed", b"message_delta", b'"finishReason"')
    last = next(number for number, event in enumerate(events) if any(end in event for end in ends))
    kept = b"".join(events[: data.draw(st.integers(0, last))])
    codec = codec_of(client, upstream)
    fed(codec, kept)
    assert not codec.done and codec.terminal == b""


@pytest.mark.parametrize("upstream", UPSTREAMS)
@settings(derandomize=True, max_examples=25, deadline=None)
@given(st.data())
def test_a_whole_answer_that_is_cut_is_none(upstream: str, data: st.DataObject) -> None:
    body = json.dumps(spoken(upstream, *_ANSWER)).encode()
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    assert UPSTREAMS[upstream].completion(cut, DIALECTS[upstream]) is None
