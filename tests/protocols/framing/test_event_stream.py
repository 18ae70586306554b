"""AWS's event stream encoding: decoded at any split, refused when it was damaged."""

from __future__ import annotations

import base64
import itertools
import json
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocols.framing.event_stream import BadFrame, EventsOfFrames, FrameDecoder, with_error_type
from tests.support.peers import messages
from tests.support.peers.clouds import frames

# Of the test vectors of the specification: no headers and payload; one header; a payload.
EMPTY = base64.b64decode("AAAAEAAAAAAFwkjrfZjI/w==")
HEADER = bytes.fromhex(
    "0000003d00000020 07fd8396 0c 636f6e74656e742d74797065 07 0010 6170706c69636174696f6e2f6a736f6e"
    " 7b27666f6f273a27626172277d 8d9c08b1"
)
STREAM = messages.events(messages.message(messages.THINKING, messages.TEXT, messages.TOOL))
WIRE = b"".join(map(frames.chunk, STREAM))
EVENTS = messages.wire(STREAM)


def test_frames_of_the_specification_are_read() -> None:
    found = list(FrameDecoder().feed(EMPTY + HEADER))
    assert [(one.headers, one.payload) for one in found] == [
        ({}, b""),
        ({"content-type": "application/json"}, b"{'foo':'bar'}"),
    ]


@given(st.lists(st.integers(1, len(WIRE) - 1), max_size=20))
def test_a_stream_reads_the_same_wherever_it_is_split(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(WIRE)]
    decoder = EventsOfFrames()
    parts = [decoder.feed(WIRE[start:end]) for start, end in itertools.pairwise(places)]
    assert b"".join(parts) == EVENTS and not decoder.fault


def test_a_stream_in_single_bytes_is_the_same() -> None:
    decoder = EventsOfFrames()
    assert b"".join(decoder.feed(bytes((byte,))) for byte in WIRE) == EVENTS


@given(st.integers(0, len(WIRE) - 1), st.integers(1, 255))
def test_a_damaged_byte_is_noticed(place: int, change: int) -> None:
    damaged = bytearray(WIRE)
    damaged[place] ^= change
    decoder = EventsOfFrames()
    told = decoder.feed(bytes(damaged))
    assert EVENTS.startswith(told) and told != EVENTS
    assert decoder.fault or len(told) < len(EVENTS)


@pytest.mark.parametrize(
    "bad",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        frames.frame({":message-type": "event", ":event-type": "chunk"}, b'{"bytes":"not base64!"}'),
        frames.frame({":message-type": "event", ":event-type": "chunk"}, b'{"bytes":"bm90IGpzb24="}'),
        frames.frame({":message-type": "surprise"}, b"{}"),
    ],
)
def test_what_is_no_stream_of_events_is_refused_once_all_before_it_is_told(bad: bytes) -> None:
    decoder = EventsOfFrames()
    assert decoder.feed(frames.chunk({"type": "ping"}) + bad) == b'event: ping\ndata: {"type": "ping"}\n\n'
    assert decoder.fault


def test_a_length_that_is_impossible_is_refused_before_memory_is_taken() -> None:
    huge = struct.pack(">II", 0x7FFFFFFF, 0)
    prelude = huge + struct.pack(">I", zlib.crc32(huge))
    with pytest.raises(BadFrame, match="impossible length"):
        list(FrameDecoder().feed(prelude))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("throttlingException", "rate_limit_error"),
        ("serviceUnavailableException", "overloaded_error"),
        ("validationException", "invalid_request_error"),
        ("modelTimeoutException", "timeout_error"),
        ("modelStreamErrorException", "api_error"),
        ("internalServerException", "api_error"),
        ("somethingNewException", "api_error"),
    ],
)
def test_exceptions_inside_a_stream_are_errors_of_its_api(name: str, kind: str) -> None:
    told = EventsOfFrames().feed(frames.exception(name, "It went wrong."))
    assert told.startswith(b"event: error\ndata: ")
    assert json.loads(told[19:]) == {"type": "error", "error": {"type": kind, "message": "It went wrong."}}


def test_an_error_gets_the_name_that_its_header_tells() -> None:
    named = "ThrottlingException:http://internal.amazon.com/coral/com.amazon.bedrock/"
    found = json.loads(with_error_type(b'{"message":"Too many tokens"}', named))["error"]
    assert (found["message"], found["code"]) == ("Too many tokens", "ThrottlingException")
