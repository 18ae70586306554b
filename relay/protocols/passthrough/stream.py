"""Codecs of pass-through streams: typed events (images, speech, transcriptions) and audio bytes. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from portal.lib.json import decode_object, encode, text_of
from relay.protocols.codec import EventCodec
from relay.protocols.error_objects import (
    event_name,
    is_error_object,
    named_error,
    states,
    told_entry,
    unreadable_error,
)
from relay.protocols.errors import Told, told_plainly
from relay.protocols.events import payload, typed_event
from relay.protocols.passthrough.images.entries import COMPLETED, FAILED, SUCCEEDED, read_entry
from relay.protocols.passthrough.images.tokens import NO_OPTIONS, PARTIAL, ImageOptions
from relay.protocols.passthrough.speech import Speech, decoded
from relay.protocols.passthrough.usage import parse_image_usage, parse_transcript_usage
from relay.protocols.token_estimate import text_units, token_units
from relay.protocols.usage import NO_USAGE, Usage, present

_KIND: Final = re.compile(rb'"type"\s*:\s*"([a-z_.]+)"')
_DELTA: Final = re.compile(rb'"delta"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)"')
_TEXT: Final = re.compile(rb'"text"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)"')
_SOUND: Final = re.compile(rb'"audio"\s*:\s*"([A-Za-z0-9+/=\\]*)"')  # of speech, in Base64
_IN: Final = ("url", "b64_json")  # members with an image
_PICTURES: Final = SUCCEEDED | FAILED | COMPLETED
_STATED: Final = re.compile(rb'"(quality|size)"\s*:\s*"(\w{1,16})"')  # of an image
_PARTIAL: Final = frozenset((b"image_generation.partial_image", b"image_edit.partial_image"))
TERMINAL: Final = frozenset(
    (b"image_generation.completed", b"image_edit.completed", b"transcript.text.done", b"speech.audio.done")
)
_SAYS_FAILED: Final = (b".failed", b".error")  # ends of types
_NO_IMAGE: Final = (
    b'{"error":{"message":"The upstream ended its answer without an image. Try again.","type":"server_error",'
    b'"param":null,"code":"upstream_error"}}'
)
_NO_ANSWER: Final = (
    b'{"error":{"message":"The upstream ended its answer without a sound or a text. Try again.","type":"server_error",'
    b'"param":null,"code":"upstream_error"}}'
)
_TEXT_LIMIT: Final = 64 * 1024  # bytes of an error that are read
_PAGE: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|head|body|\?xml|!--)", re.I)
_JSON: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\{\s*[\"}]|\[\s*\{)[^\x00-\x08\x0e-\x1f]*")


def is_page(head: bytes) -> bool:
    """Whether bytes begin as HTML or XML do."""
    return _PAGE.match(head[:64]) is not None


def _is_text(head: bytes) -> bool:
    """Whether bytes begin as JSON, HTML or XML do. No audio format does; raw samples are not all printable."""
    return is_page(head) or _JSON.fullmatch(head[:64]) is not None


def _ends(data: bytes) -> bytes:
    """An event without the image in its middle."""
    return data if len(data) <= 800 else data[:400] + data[-400:]


class _Event(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw()


_event: Final = msgspec.json.Decoder(_Event)
_NOTHING: Final = _Event()


def _decoded(data: bytes) -> _Event:
    try:
        return _event.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return _NOTHING


def _error_of(data: bytes) -> bytes | None:
    """The error in an event that is no error by its type, or that says so by it alone; None for others."""
    found = decode_object(data)
    if found is None:
        return None
    said = str(found.get("type") or "").encode().endswith(_SAYS_FAILED)
    return data if said or states(found.get("error")) else None


@dataclass(slots=True)
class TypedStream(EventCodec):
    """The codec of a stream whose events have a `type`. `relay.protocols.codec.Codec` describes the attributes."""

    # Terminal events that complete the stream: one for each image, unless each image has another event, and the
    # terminal one sums them up.
    endings: int = 1
    units: Usage = field(default_factory=Usage)  # units that the request implies, where the upstream reports none
    whole: Usage = NO_USAGE  # an estimate of the whole answer
    told: Told = told_plainly  # what a client is told of an error in a part of the answer
    heard: Callable[[float], Usage] | None = None  # the audio behind so many tokens of a transcript; None: measured
    images: ImageOptions = NO_OPTIONS  # of those that it shows
    _ended: int = 0  # terminal events so far; of images, those that were delivered
    _partials: int = 0  # partial images
    _stated: dict[str, str] = field(default_factory=dict)  # what the events say of their images
    _shown: bool = False  # a part of the next image
    _parts: bool = False  # images have events of their own, so that the terminal one is none
    _refused: bytes = b""  # the error in place of the first image that failed
    _sound: Speech = field(default_factory=Speech)

    def is_opaque(self) -> bool:
        return bool(self.units.images or self.units.characters)

    def media(self) -> Usage:
        """An image of which a part was shown counts as one: most of its tokens have been spent by then."""
        if self.units.images:
            begun = self._ended + (self._shown and self._ended < self.endings)
            output = begun * self.images.tokens(**self._stated) + PARTIAL * self._partials
            return Usage(images=begun, output=output)
        if self.heard is not None and self._units:
            return self.heard(self._units)
        return self._sound.usage(self.whole, self.done) if self.units.characters else NO_USAGE

    def finish(self, clean: bool = True) -> bytes:
        if self.done or self.error is not None:
            return b""
        out = self._handle_events(self._last_events())
        if self._ended and not (self.done or self._shown or self._parts):  # fewer images than requested
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
            self.error = named_error(event)
            return event if self.started and self.error is None else b""
        if data == b"[DONE]":
            if self.units.images and not (self._ended or self._shown):
                self.error = self._refused or _NO_IMAGE
                return b""
            self.done, self._terminal = True, self._terminal + event
            return b""
        match = _KIND.search(data, max(0, len(data) - 400)) or _KIND.search(data)
        kinds = {found[1] for found in _KIND.finditer(data[:400])} | ({match[1]} if match else set())
        if not match and (name := event_name(event).encode()) in _PICTURES and (named := decode_object(data)):
            data, kinds = encode({"type": name.decode(), **named}), {name}
            event = typed_event(name.decode(), data)
        if self.units.images and not kinds.isdisjoint(_PICTURES):
            return self._image(event, data, kinds)
        if b"error" in kinds:
            found = decode_object(data) or {}
            if self.units.images and (kind := text_of(found, "type").encode()) in _PICTURES:  # “error” is inside it
                return self._image(event, data, {kind})
            self.error = data if isinstance(found.get("error"), dict) else b'{"error":' + data + b"}"
            if self.units.images and self._ended and present(_decoded(data).usage):
                self._read_usage(data)
            return b""
        if data.startswith(b'{"error"') or not any(b"." in kind for kind in kinds):
            event, kinds = self._named(event, data, kinds)
        elif b'"error"' in data or any(kind.endswith(_SAYS_FAILED) for kind in kinds):
            self.error = _error_of(data)
        if self.error is not None:
            return b""
        self._count(data, kinds)
        if kinds & TERMINAL and self._is_empty(data):
            self.error = _NO_ANSWER
            return b""
        self.started = True
        if not kinds & TERMINAL:
            return event
        self._ended, self._shown = self._ended + 1, False
        self._read_usage(data)
        if self._ended < self.endings:
            return event
        self._terminal, self.done = event, True
        return b""

    def _image(self, event: bytes, data: bytes, kinds: set[bytes]) -> bytes:
        """An event that ends an image, or the answer. What failed in place of an image is none."""
        entry = read_entry(data)
        self._look_at(data)
        refused = entry.error is not None or not kinds.isdisjoint(FAILED)
        is_image = entry.is_image and kinds.isdisjoint(FAILED)
        ends = not kinds.isdisjoint(COMPLETED)
        self._parts = self._parts or not ends
        if refused:
            body = entry.error or data
            self._refused = self._refused or body
            found = decode_object(data) or {}
            kept = {name: found[name] for name in (*(_IN if is_image else ()), "usage") if found.get(name)}
            kind = text_of(found, "type")
            event = typed_event(kind, encode({"type": kind, **kept, **told_entry(found, body, self.told)}))
        if is_image and not (ends and self._parts):
            self._ended, self._shown, self.started = self._ended + 1, False, True
        if not ends:
            return event
        if not self._ended:
            self.error = self._refused or _NO_IMAGE
            return b""
        self._read_usage(data)
        if refused and not is_image:
            self.failed = entry.error
        if is_image and not self._parts and self._ended < self.endings:
            return event
        self._terminal, self.done = event, True
        return b""

    def _look_at(self, data: bytes) -> None:
        """Keep what an event says of its image: the quality and size that it has."""
        self._stated |= {name.decode(): said.decode() for name, said in _STATED.findall(_ends(data))}

    def _count(self, data: bytes, kinds: set[bytes]) -> None:
        """Count what an event delivers."""
        if self.units.images:
            partial = not kinds.isdisjoint(_PARTIAL)
            self._shown, self._partials = self._shown or partial, self._partials + partial
            self._look_at(data)
        elif self.units.characters:
            sound = _SOUND.search(data)
            if sound is not None:
                self._sound.add(decoded(sound[1]))
        elif (delta := _DELTA.search(data)) is not None:
            self._units += token_units(delta[1])
        elif b'"choices"' in data:  # vLLM's transcripts
            self._units += text_units(data)
        elif not self._units and (text := _TEXT.search(data)) is not None:  # a transcript in one piece
            self._units += token_units(text[1])

    def _is_empty(self, data: bytes) -> bool:
        """Whether a terminal event ends speech without a sound, or a transcript that does not even say that nothing
        was heard.
        """
        if self.units.characters:
            return not self._sound.size
        return not (self.units.images or self._units or _TEXT.search(data) is not None)

    def _named(self, event: bytes, data: bytes, kinds: set[bytes]) -> tuple[bytes, set[bytes]]:
        """An event whose data has no known `type`: an error, or one whose name is its type."""
        found, name = decode_object(data), event_name(event)
        if found is None:
            self.error = unreadable_error(event, data)
        else:
            self.error = data if is_error_object(found, False) else named_error(event)
        if self.error is not None or found is None or not name or "type" in found:
            return event, kinds
        return typed_event(name, encode({"type": name, **found})), {name.encode()}

    def _read_usage(self, data: bytes) -> None:
        """Add the usage of a terminal event: each image reports its own, the other kinds end once."""
        found = _decoded(data)
        images = self._ended if self.units.images else 0
        usage = None
        if present(found.usage):
            usage = parse_image_usage(found.usage, self.whole.input) if images else parse_transcript_usage(found.usage)
        before = self.usage or Usage()
        if usage is not None or images:
            now = usage or Usage()
            self.usage = Usage(
                input=before.input + now.input,
                cached_input=before.cached_input + now.cached_input,
                cached_audio_input=before.cached_audio_input + now.cached_audio_input,
                output=before.output + now.output,
                audio_output=before.audio_output + now.audio_output,
                image_input=before.image_input + now.image_input,
                audio_input=before.audio_input + now.audio_input,
                images=images,
                milliseconds=now.milliseconds,
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
    whole: Usage = NO_USAGE  # an estimate of the whole answer
    _head: bytes = b""  # the first bytes, by which it is told whether they are text
    _is_text: bool = False
    _sound: Speech = field(init=False)

    def __post_init__(self) -> None:
        self._sound = Speech(self.content_type)

    def feed(self, data: bytes) -> bytes:
        if self.started:
            self._sound.add(data)
            return data
        self._head += data
        if self._is_text or _is_text(self._head):
            self._is_text = True
            self._head = self._head[:_TEXT_LIMIT]
            return b""
        self.started = True
        self._sound.add(self._head)
        return self._head

    def finish(self, clean: bool = True) -> bytes:
        """An upstream that sends text in place of audio reports an error in it, or answered with a page."""
        if self._is_text and decode_object(self._head) is not None:
            self.error = self._head
        self.done = self.started
        return b""

    @property
    def complete(self) -> bool:
        return self.done

    def delivered_units(self) -> float:
        return 0.0

    def audio_units(self) -> float:
        return 0.0

    def is_opaque(self) -> bool:
        return True

    def media(self) -> Usage:
        if not self.started:
            return NO_USAGE
        return self._sound.usage(self.whole, self.done)

    def failure(self, message: str, kind: str, code: str | None, param: str | None) -> bytes:
        """Empty: audio has no error events, so the connection is cut instead."""
        return b""
