"""AWS's event stream encoding, in which Bedrock streams answers, decoded to server-sent events. Pure, incremental.

A frame: its length and that of its headers (4 bytes each), their CRC-32, the headers, a payload, and the CRC-32 of all
before. Source: “Event stream encoding” of the Smithy specification (Amazon), botocore 1.44's model of bedrock-runtime,
and the stream decoder of Anthropic's SDK 2.14; November 2026.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from portal.lib.json import Json, decode_object, encode, text_of

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"
_PRELUDE: Final = struct.Struct(">III")
_CRC: Final = struct.Struct(">I")
_MOST_HEADERS: Final = 128 * 1024  # bytes, as in the specification
_MOST_PAYLOAD: Final = 24 * 1024 * 1024
_FIXED: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}  # bytes of a header's value, by its type
_BYTES: Final = 6
_STRING: Final = 7
# Anthropic's names of what goes wrong in a stream, by AWS's names without “Exception”, in lower case.
_KINDS: Final = {
    "throttling": "rate_limit_error",
    "serviceunavailable": "overloaded_error",
    "modelnotready": "overloaded_error",
    "validation": "invalid_request_error",
    "accessdenied": "permission_error",
    "modeltimeout": "timeout_error",
}


class BadFrame(Exception):
    """The stream is no event stream, or was damaged on its way."""


@dataclass(frozen=True, slots=True)
class Frame:
    headers: Mapping[str, str]  # those that are strings
    payload: bytes


class FrameDecoder:
    """Decodes a stream of frames, in pieces of any size."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def empty(self) -> bool:
        """Whether no part of a frame waits for the rest."""
        return not self._buffer

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that end in these bytes. Raises BadFrame."""
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= _PRELUDE.size:
                length, headers, crc = _PRELUDE.unpack_from(buffer, start)
                if zlib.crc32(buffer[start : start + 8]) != crc:
                    raise BadFrame("the CRC of a frame's beginning is wrong")
                payload = length - headers - _PRELUDE.size - _CRC.size
                if headers > _MOST_HEADERS or not 0 <= payload <= _MOST_PAYLOAD:
                    raise BadFrame("a frame has an impossible length")
                if len(buffer) - start < length:
                    break
                frame = bytes(buffer[start : start + length])
                start += length
                yield _frame(frame, headers)
        finally:
            del buffer[:start]


def _frame(frame: bytes, headers: int) -> Frame:
    """Raises BadFrame."""
    if zlib.crc32(frame[: -_CRC.size]) != _CRC.unpack_from(frame, len(frame) - _CRC.size)[0]:
        raise BadFrame("the CRC of a frame is wrong")
    first = _PRELUDE.size + headers
    return Frame(_headers(frame[_PRELUDE.size : first]), frame[first : -_CRC.size])


def _headers(data: bytes) -> dict[str, str]:
    """Raises BadFrame."""
    found: dict[str, str] = {}
    at = 0
    try:
        while at < len(data):
            name_end = at + 1 + data[at]
            name, kind = data[at + 1 : name_end].decode(), data[name_end]
            at = name_end + 1
            if kind in {_BYTES, _STRING}:
                size = int.from_bytes(data[at : at + 2])
                at += 2
            else:
                size = _FIXED[kind]
            if at + size > len(data):
                raise BadFrame("a header of a frame is cut off")
            if kind == _STRING:
                found[name] = data[at : at + size].decode()
            at += size
    except (IndexError, KeyError, UnicodeDecodeError):
        raise BadFrame("the headers of a frame cannot be read") from None
    return found


class EventsOfFrames:
    """The frames of an upstream as server-sent events."""

    def __init__(self) -> None:
        self._frames = FrameDecoder()
        self.fault = ""  # why the stream cannot be read any further

    def feed(self, data: bytes) -> bytes:
        """The events that end in these bytes; those before a fault are whole."""
        events: list[bytes] = []
        try:
            events.extend(map(event_of_frame, self._frames.feed(data)))
        except BadFrame as bad:
            self.fault = str(bad)
        return b"".join(events)

    def finish(self) -> bytes:
        """Half a frame says nothing: the answer has been cut off."""
        return b""


def event_of_frame(frame: Frame) -> bytes:
    """A frame as a server-sent event. Raises BadFrame.

    The frame “chunk” of InvokeModelWithResponseStream holds an event of the model's own API in base64; an exception
    becomes an error event of that API.
    """
    headers = frame.headers
    kind = headers.get(":message-type", "")
    if kind == "event":
        name = headers.get(":event-type", "")
        if name != "chunk":
            return _event(name, frame.payload)
        wrapped = decode_object(frame.payload)
        try:
            payload = base64.b64decode(text_of(wrapped or {}, "bytes"), validate=True)
        except (binascii.Error, ValueError):
            raise BadFrame("the chunk of a frame is not in base64") from None
        event = decode_object(payload)
        if event is None:
            raise BadFrame("the chunk of a frame is no JSON object")
        return _event(text_of(event, "type") or "completion", payload)
    if kind == "exception":
        said = text_of(decode_object(frame.payload) or {}, "message")
        return error_event(headers.get(":exception-type", ""), said)
    if kind == "error":
        return error_event(headers.get(":error-code", ""), headers.get(":error-message", ""))
    raise BadFrame("a frame is neither an event nor an exception")


def error_event(name: str, said: str) -> bytes:
    """An exception of AWS as an event of Anthropic's API."""
    short = name.rpartition("#")[2].lower().removesuffix("exception")
    error: Json = {"type": _KINDS.get(short, "api_error"), "message": said or name or "The stream ended with an error."}
    return _event("error", encode({"type": "error", "error": error}))


def _event(name: str, payload: bytes) -> bytes:
    line = payload.replace(b"\r", b" ").replace(b"\n", b" ")  # JSON: between members only
    return b"event: " + name.encode() + b"\ndata: " + line + b"\n\n"


def with_error_type(body: bytes, named: str) -> bytes:
    """The body of an error with its name, which AWS tells in the header x-amzn-errortype.

    `named`: the header, such as `ThrottlingException:http://internal.amazon.com/coral/com.amazon.bedrock/`.
    """
    found = decode_object(body) or {}
    said = text_of(found, "message") or text_of(found, "Message")
    code = named.partition(":")[0].strip() or text_of(found, "__type").rpartition("#")[2]
    return encode({"error": {"message": said or code, "type": code, "param": None, "code": code}})
