"""Codecs of pass-through streams: typed events (images, speech, transcriptions) and audio bytes. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

import msgspec

from portal.lib.json import encode
from relay.protocols.codec import EventCodec
from relay.protocols.events import payload
from relay.protocols.responses.usage import parse_responses_usage
from relay.protocols.token_estimate import token_units
from relay.protocols.usage import Usage, present

_KIND: Final = re.compile(rb'"type"\s*:\s*"([a-z_.]+)"')
_DELTA: Final = re.compile(rb'"delta"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)"')
TERMINAL: Final = frozenset(
    (b"image_generation.completed", b"image_edit.completed", b"transcript.text.done", b"speech.audio.done")
)


class _Event(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


_event: Final = msgspec.json.Decoder(_Event)


@dataclass(slots=True)
class TypedStream(EventCodec):
    """The codec of a stream whose events have a `type`. `relay.protocols.codec.Codec` describes the attributes."""

    endings: int = 1  # terminal events that complete the stream: one for each image
    units: Usage = field(default_factory=Usage)  # units that the request implies, where the upstream reports none
    _ended: int = 0  # terminal events so far

    def finish(self) -> bytes:
        if self.done or self.error is not None:
            return b""
        out = self._handle_events(self._reader.finish())
        if self._ended and not self.done:  # fewer images than requested
            self.done = True
        return out

    def failure(self, message: str, kind: str, code: str | None, param: str | None) -> bytes:
        return (
            b"event: error\ndata: "
            + encode({"error": {"message": message, "type": kind, "param": param, "code": code}})
            + b"\n\n"
        )

    def handle_event(self, event: bytes) -> bytes:
        data = payload(event)
        if not data:
            return event if self.started else b""
        if data == b"[DONE]":
            self.done, self._terminal = True, self._terminal + event
            return b""
        match = _KIND.search(data, max(0, len(data) - 400)) or _KIND.search(data)
        kinds = {found[1] for found in _KIND.finditer(data[:400])} | ({match[1]} if match else set())
        if b"error" in kinds or data.startswith(b'{"error"'):
            self.error = data if b'"error"' in data[:10] else b'{"error":' + data + b"}"
            return b""
        self.started = True
        delta = _DELTA.search(data)
        if delta is not None:
            self._units += token_units(delta[1])
        if not kinds & TERMINAL:
            return event
        self._ended += 1
        self._read_usage(data)
        if self._ended < self.endings:
            return event
        self._terminal, self.done = event, True
        return b""

    def _read_usage(self, data: bytes) -> None:
        """Add the usage of a terminal event: each image reports its own, the other kinds end once."""
        try:
            found = _event.decode(data)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return
        usage = parse_responses_usage(found.usage) if present(found.usage) else None
        before = self.usage or Usage()
        images = self._ended if self.units.images else 0
        if usage is not None or images:
            now = usage or Usage()
            self.usage = Usage(
                input=before.input + now.input,
                cached_input=before.cached_input + now.cached_input,
                output=before.output + now.output,
                image_input=before.image_input + now.image_input,
                audio_input=before.audio_input + now.audio_input,
                images=images,
                milliseconds=now.milliseconds or self.units.milliseconds,
                characters=self.units.characters,
                report=now.report,
            )


@dataclass(slots=True)
class ByteStream:
    """The codec of audio bytes, complete when the upstream closes the body. An empty body is a failure."""

    usage: Usage | None = None
    error: bytes | None = None
    failed: bytes | None = None
    done: bool = False
    started: bool = False
    terminal: bytes = b""
    mid_event: bool = True
    ending: bytes = b""
    content_type: str = "audio/mpeg"
    _size: int = 0

    def feed(self, data: bytes) -> bytes:
        self.started = True
        self._size += len(data)
        return data

    def finish(self) -> bytes:
        self.done = self.started
        return b""

    @property
    def complete(self) -> bool:
        return self.done

    def delivered_units(self) -> float:
        return 0.0

    def audio_units(self) -> float:
        return 0.0

    def failure(self, message: str, kind: str, code: str | None, param: str | None) -> bytes:
        """Empty: audio has no error events, so the connection is cut instead."""
        return b""
