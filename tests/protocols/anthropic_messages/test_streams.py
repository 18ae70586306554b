"""Streams of the Messages API that pass through, and errors in its shape."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from relay.api.error_shapes import shape_of
from relay.endpoints.error_shapes import ANTHROPIC_ERRORS
from relay.errors import (
    OPENAI_ERRORS,
    InsufficientQuota,
    ModelNotFound,
    NoAvailableChannel,
    RelayError,
    UpstreamTimeout,
)
from relay.gateway.charging.believed import Expected, believed
from relay.protocols.anthropic_messages.answer import parse_messages_answer, whole_message
from relay.protocols.anthropic_messages.errors import is_error_body
from relay.protocols.anthropic_messages.stream import HOLD_LIMIT, MessagesStream
from relay.protocols.anthropic_messages.upstream_stream import MessagesDecoder
from relay.protocols.codec import Conversion
from relay.protocols.sse import split_events
from relay.protocols.usage import Delivered
from tests.protocols.anthropic_messages.conversions import ANTHROPIC, MESSAGES, chat_client, events, messages_client
from tests.support.peers.messages import TEXT, message, wire
from tests.support.peers.messages import events as events_of

WHOLE = wire(events_of(message()))
ERROR = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'


def fed(data: bytes, clean: bool = True, **options: Any) -> tuple[MessagesStream, bytes]:
    codec = MessagesStream(**options)
    return codec, codec.feed(data) + codec.finish(clean) + codec.terminal


def test_what_precedes_the_first_content_does_not_count_as_begun() -> None:
    head, _, rest = WHOLE.partition(b"event: content_block_start")
    codec = MessagesStream()
    held = codec.feed(head), codec.started
    assert held == (head, False), "held, so that another channel can be tried"
    assert codec.feed(b"event: content_block_start" + rest) and codec.started and codec.done


def test_an_error_before_the_content_is_not_sent_on() -> None:
    head = WHOLE.partition(b"event: content_block_start")[0]
    codec, out = fed(head + ERROR)
    assert out == head and codec.error is not None and not codec.started and not codec.complete


@pytest.mark.parametrize("ended", [True, False])
def test_a_stream_without_its_end_marker_is_complete_if_it_ends_where_it_should(ended: bool) -> None:
    codec, _ = fed(WHOLE.partition(b"event: message_stop")[0], clean=ended)
    assert codec.complete is ended and not codec.done and codec.ending.startswith(b"event: message_stop")
    codec, _ = fed(WHOLE.partition(b"event: message_stop")[0], clean=False, watch_finish=True)
    assert codec.complete
    cut, _ = fed(WHOLE.partition(b"event: message_delta")[0])
    assert not cut.complete, "nobody said why it stopped"


def test_each_fragment_of_an_input_is_sent_on_as_it_arrives() -> None:
    whole = message({"type": "tool_use", "id": "t", "name": "n", "input": {"city": "Paris"}}, stop="tool_use")
    codec = MessagesStream()
    pieces = [wire([event]) for event in events_of(whole)]
    assert [codec.feed(piece) for piece in pieces[:-1]] == pieces[:-1]
    converted = Conversion(decoder=MESSAGES.decoder(ANTHROPIC), encoder=chat_client().encoder())
    deltas = [piece for piece in pieces if b"input_json_delta" in piece and b'"partial_json": ""' not in piece]
    sent = [converted.feed(piece) for piece in pieces]
    assert all(sent[pieces.index(piece)].count(b"arguments") == 1 for piece in deltas) and len(deltas) > 1


def test_half_an_event_at_the_end_is_a_cut() -> None:
    codec, out = fed(WHOLE[: WHOLE.index(b"event: message_stop") + 30])
    assert not codec.complete and WHOLE.startswith(out)


def test_a_marker_of_another_api_is_not_sent_on() -> None:
    head = WHOLE.partition(b"event: message_stop")[0]
    codec, out = fed(head + b"data: [DONE]\n\n")
    assert codec.done and out == head + codec.ending


def test_a_large_event_passes_as_it_arrives_and_its_usage_is_found() -> None:
    long = wire(
        [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word " * 40_000}}]
    )
    start, delta = WHOLE.split(b"event: content_block_delta", 1)
    data = start + long + b"event: content_block_delta" + delta
    codec, out = MessagesStream(), b""
    for at in range(0, len(data), 5000):
        out += codec.feed(data[at : at + 5000])
        if codec.mid_event:
            assert len(out) > HOLD_LIMIT
    assert out + codec.terminal == data and codec.done and codec.usage is not None and codec.usage.output == 7
    assert codec.delivered_units() > 40_000


def test_what_is_not_told_by_its_text_is_opaque() -> None:
    assert not fed(WHOLE)[0].is_opaque()
    hidden = wire(events_of(message({"type": "redacted_thinking", "data": "x"}, TEXT)))
    assert fed(hidden)[0].is_opaque()


def test_garbage_ends_the_answer_with_an_error() -> None:
    start = WHOLE.partition(b"event: content_block_delta")[0]
    for piece in (b"data: {broken\n\n", b'event: error\ndata: "no"\n\n'):
        assert fed(start + piece)[0].error is not None
    lost = {"type": "content_block_delta", "index": 9, "delta": {"type": "input_json_delta", "partial_json": "{"}}
    for unknown in (b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n', wire([lost])):
        codec = Conversion(decoder=MESSAGES.decoder(ANTHROPIC), encoder=chat_client().encoder())
        codec.feed(start + unknown)
        assert codec.error is not None


def test_events_that_are_newer_than_this_code_pass_and_say_nothing() -> None:
    new = b'event: something\ndata: {"type":"something","content":"x"}\n\n'
    assert fed(WHOLE.replace(b"event: message_delta", new + b"event: message_delta"))[0].done
    codec = Conversion(decoder=MESSAGES.decoder(ANTHROPIC), encoder=messages_client().encoder())
    codec.feed(new + WHOLE)
    assert codec.done and codec.error is None


def test_an_error_in_the_middle_is_told_in_its_own_words_but_for_secrets() -> None:
    start = WHOLE.partition(b"event: content_block_stop")[0]
    text = "http://10.1.2.3/x failed for org-AbCdEf123456 with sk-upstream-secret-0123456789"
    error = {"type": "error", "error": {"type": "api_error", "message": text, "details": {"error_code": "x"}}}
    codec, _ = fed(start + wire([error]))
    told = codec.failure("Try again.", "server_error", "upstream_error", None)
    found = events(told)[0]["error"]
    assert found["type"] == "api_error" and found["details"] == {"error_code": "x"} and "failed" in found["message"]
    for secret in ("10.1.2.3", "org-Ab", "sk-up"):
        assert secret not in told.decode()
    own = events(codec.failure("Try again.", "server_error", "upstream_credentials_exhausted", None))[0]["error"]
    assert own["message"] == "Try again.", "what is about the portal's account is told in its own words"


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{}", b'{"content":"text"}', b'{"id":"x","choices":[]}', WHOLE[:-40]]
)
def test_what_is_no_message_is_none(body: bytes) -> None:
    assert parse_messages_answer(whole_message(body)[0]) is None
    assert MESSAGES.completion(body, ANTHROPIC) is None


def test_an_error_with_the_status_200_is_one() -> None:
    body = ERROR.partition(b"data: ")[2].strip()
    found = parse_messages_answer(body)
    assert found is not None and found.error == body and is_error_body(body)
    assert whole_message(ERROR) == (b"", body)
    assert not is_error_body(b'{"error":{"message":"x"}}') and not is_error_body(b"[]")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ModelNotFound("x"), "not_found_error"),
        (NoAvailableChannel("x"), "overloaded_error"),
        (UpstreamTimeout("x"), "timeout_error"),
        (InsufficientQuota("x"), "rate_limit_error"),
    ],
)
def test_errors_of_the_portal_have_the_types_of_the_api(error: RelayError, kind: str) -> None:
    body = json.loads(ANTHROPIC_ERRORS.body(error, "req_1"))
    assert body == {
        "type": "error",
        "error": {"type": kind, "message": "x", "details": {"error_code": error.public_code}},
        "request_id": "req_1",
    }
    event = events(MessagesStream().failure("x", error.public_type, error.public_code, None))[0]
    assert event["error"]["type"] == kind


@pytest.mark.parametrize(
    ("path", "headers", "shape"),
    [
        ("/v1/messages", {}, ANTHROPIC_ERRORS),
        ("/v1/messages/count_tokens", {}, ANTHROPIC_ERRORS),
        ("/v1/models", {b"anthropic-version": b"2023-06-01"}, ANTHROPIC_ERRORS),
        ("/v1/models", {}, OPENAI_ERRORS),
        ("/v1/messagesx", {}, OPENAI_ERRORS),
    ],
)
def test_whose_errors_a_path_has(path: str, headers: dict[bytes, bytes], shape: Any) -> None:
    assert shape_of(path, headers) is shape


NOTHING = {"input_tokens": 9, "output_tokens": 0}


@pytest.mark.parametrize(("stop", "usage", "made"), [
    ("end_turn", NOTHING, False),
    ("end_turn", {"input_tokens": 9, "output_tokens": 3}, True),
    ("max_tokens", NOTHING, True),
    ("refusal", NOTHING, True),
])  # fmt: skip
@pytest.mark.parametrize("content", [[], [{"type": "text", "text": ""}]])
def test_a_message_that_says_nothing_is_none(
    content: list[dict[str, Any]], stop: str, usage: dict[str, int], made: bool
) -> None:
    whole = {**message(stop=stop, usage=usage), "content": content}
    assert (parse_messages_answer(json.dumps(whole).encode()) is not None) == made
    data = wire(events_of(whole))
    codec, out = fed(data)
    assert (codec.complete, codec.error is None) == (made, made)
    assert made or (b"message_delta" not in out and not codec.started)
    decoder = MessagesDecoder()
    for event in split_events(data):
        decoder.chunks(event)
    assert (decoder.error is None) == made


def test_an_end_marker_alone_is_no_answer() -> None:
    start = WHOLE.partition(b"event: content_block_start")[0]
    end = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    for data in (end, start + end):
        codec = fed(data)[0]
        assert codec.error is not None and not codec.started and not codec.complete
        for client in (chat_client(), messages_client()):
            converted = Conversion(decoder=MESSAGES.decoder(ANTHROPIC), encoder=client.encoder())
            converted.feed(data)
            assert converted.error is not None or not converted.started


def test_the_beginning_of_an_answer_reports_no_output() -> None:
    """`message_start` says 1 to 8, whatever comes: of an answer that breaks off, what was delivered counts."""
    text = "word " * 30
    begun = wire(events_of(message({"type": "text", "text": text}))).partition(b"event: content_block_stop")[0]
    codec = MessagesStream()
    codec.feed(begun)
    converted = Conversion(decoder=MESSAGES.decoder(ANTHROPIC), encoder=chat_client().encoder())
    converted.feed(begun)
    for found in (codec, converted):
        assert found.usage is not None and found.usage.input and not found.usage.output
        delivered = Delivered(len(begun), found.delivered_units, finished=False)
        used, true = believed(found.usage, delivered, Expected(prompt=found.usage.input))
        assert used.output == math.ceil(found.delivered_units()) >= 30 and used.input == found.usage.input and not true


def test_an_output_that_only_the_beginning_reports_counts_once_the_answer_ends() -> None:
    whole = [{name: value for name, value in event.items() if name != "usage"} for event in events_of(message())]
    whole[0]["message"] = {**whole[0]["message"], "usage": {"input_tokens": 9, "output_tokens": 4}}
    codec, _ = fed(wire(whole))
    converted = Conversion(decoder=MESSAGES.decoder(ANTHROPIC), encoder=chat_client().encoder())
    converted.feed(wire(whole))
    assert codec.done and codec.usage is not None and (codec.usage.input, codec.usage.output) == (9, 4)
    assert converted.done and converted.usage is not None and converted.usage.output == 4
