"""Counts what a realtime session has said: the input that its next response may read, and running responses. Pure.

Input is counted twice: high, since money is held for what a response may cost at most, and as it probably is, which
is charged where the upstream reports nothing. Audio is input once it has been committed; what is in the buffer only
may be. Output is counted as estimates of text and audio are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

import msgspec

from portal.lib.json import Json, decode_object, encode, object_of, text_of
from relay.protocols.realtime.audio_buffer import AudioBuffer
from relay.protocols.realtime.events import SESSION_UPDATES
from relay.protocols.realtime.formats import Formats
from relay.protocols.realtime.speech import is_streamed
from relay.protocols.token_estimate import token_units
from relay.protocols.usage import Usage

LEAST_INPUT: Final = 2000  # tokens that are assumed at least: instructions and tools of the upstream's own
LEAST_OUTPUT: Final = 200  # tokens of a response that is worth beginning: ten seconds of speech
_BYTES_PER_TOKEN: Final = 2  # of text, at least in all but strange texts
_USUAL_BYTES: Final = 4  # of a token of text with its JSON
_PER_IMAGE: Final = 2000
_HEARD_PER_SECOND: Final = 10  # tokens of audio that a model hears (OpenAI: one for 100 ms)
_SPOKEN_PER_SECOND: Final = 20  # and of audio that it speaks (one for 50 ms)
_ELSEWHERE: Final = re.compile(
    rb'"(?:prompt|type)"\s*:\s*(?:\{|"mcp")'
)  # stored prompts, tools that the upstream calls
_DELTA: Final = '.delta"'


class Delta(msgspec.Struct):
    """An event with a part of a response."""

    type: str = ""
    response_id: str | None = None
    delta: str | None = None


class _Id(msgspec.Struct):
    id: str | None = None


class _Created(msgspec.Struct):
    type: str = ""
    response: _Id | None = None


_delta: Final = msgspec.json.Decoder(Delta)
_created: Final = msgspec.json.Decoder(_Created)


def read_delta(text: str) -> Delta | None:
    """A part of a response's text, audio or arguments; None for other events."""
    if _DELTA not in text:
        return None
    try:
        found = _delta.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return found if found.type.startswith("response.") and found.delta else None


def read_created(text: str) -> str | None:
    """The id of a response that begins (may be empty); None for other events."""
    if '"response.created"' not in text:
        return None
    try:
        found = _created.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return (found.response.id or "" if found.response is not None else "") if found.type == "response.created" else None


@dataclass(slots=True)
class Conversation:
    """The conversation of one session."""

    _heard: float = 0.0  # tokens of input since the last report, counted high
    _probable: float = 0.0  # the same, as they probably are
    _reported: int = 0  # input and output of the last response
    # Of both, tokens of audio, and of what has been heard, those of images.
    _heard_audio: float = 0.0
    _reported_audio: int = 0
    _images: float = 0.0
    formats: Formats = field(default_factory=Formats)  # of its audio
    unbounded: bool = False  # the upstream may add input that did not come from here
    buffer: AudioBuffer = field(default_factory=AudioBuffer)

    def listen(self, buffer: AudioBuffer) -> None:
        """Count what is committed of a buffer as input."""
        self.buffer, buffer.heard = buffer, self._hear_audio

    @property
    def input_tokens(self) -> int:
        """What the next response reads, at most as far as that is known."""
        return max(LEAST_INPUT, self._reported + round(self._heard + self._buffered))

    @property
    def most_input(self) -> int:
        """What it can have read at all: all that was appended, whatever the upstream has told of it."""
        return max(LEAST_INPUT, self._reported + round(self._heard + self.buffer.appended * _HEARD_PER_SECOND))

    @property
    def _buffered(self) -> float:
        return self.buffer.pending * _HEARD_PER_SECOND

    @property
    def probable_input(self) -> int:
        """What the next response probably reads."""
        return self._reported + round(self._probable)

    @property
    def input_parts(self) -> Usage:
        """The tokens of audio and images in `input_tokens`."""
        audio = self._reported_audio + round(self._heard_audio + self._buffered)
        return Usage(audio_input=audio, image_input=round(self._images))

    def sent(self, event: Json) -> float:
        """Count an event of the client; returns the seconds of audio that it appends."""
        if text_of(event, "type") == "input_audio_buffer.append":
            audio = text_of(event, "audio")
            return self.sent_audio(len(audio) * 3 // 4 - audio[-2:].count("="))
        if text_of(event, "type") in SESSION_UPDATES:
            self.formats.ask(object_of(event, "session"))
        self._hear(event)
        self.unbounded = self.unbounded or _ELSEWHERE.search(encode(event)) is not None
        return 0.0

    def sent_audio(self, size: int) -> float:
        """The seconds of as many bytes of audio, such as came in a binary frame."""
        return size / self.formats.input

    def added(self, event: Json) -> None:
        """Count what an event of the upstream says has been added by a client: an item, or the session's settings."""
        item = event.get("item")
        if isinstance(item, dict) and item.get("role") == "assistant":
            return  # it is in the usage of its response
        self.sent(event)

    def configured(self, text: str) -> None:
        """Read the formats of audio in an event of the upstream about the session."""
        event = decode_object(text) or {}
        if is_streamed(event):
            self.formats.stream()
        else:
            self.formats.tell(object_of(event, "session"))

    def begun(self, response_id: str, text: str) -> None:
        """Read the format of audio in an event of the upstream that begins a response."""
        self.formats.begin(response_id, object_of(decode_object(text) or {}, "response"))

    @property
    def unreported(self) -> tuple[float, float]:
        """What is counted here and in no report yet: high, and as it probably is."""
        return self._heard, self._probable

    def answered(self, tokens: int, before: tuple[float, float], audio: int = 0) -> None:
        """Take the input and output of a response, of which the next one reads all.

        `before`: `unreported` when it began. `audio`: tokens of it that are of audio.
        """
        self._reported, self._reported_audio = max(self._reported, tokens), max(self._reported_audio, audio)
        self._heard, self._probable = max(0.0, self._heard - before[0]), max(0.0, self._probable - before[1])
        self._heard_audio, self._images = min(self._heard_audio, self._heard), min(self._images, self._heard)

    def delta_units(self, delta: Delta) -> tuple[float, float]:
        """The estimated tokens of a part of a response, and of them those of audio."""
        text = delta.delta or ""
        if delta.type.endswith("audio.delta"):
            units = len(text) * 3 / 4 / self.formats.output(delta.response_id or "") * _SPOKEN_PER_SECOND
            return units, units
        return token_units(text.encode("utf-8", "replace")), 0.0

    def _hear_audio(self, seconds: float) -> None:
        tokens = seconds * _HEARD_PER_SECOND
        self._heard, self._probable = max(0.0, self._heard + tokens), max(0.0, self._probable + tokens)
        self._heard_audio = max(0.0, self._heard_audio + tokens)

    def _hear(self, value: object) -> None:
        size, others, left = 0, 0, [value]  # bytes of text; values that are a token each
        while left:
            value = left.pop()
            if isinstance(value, dict):
                for name, member in value.items():
                    if name == "audio" and isinstance(member, str):
                        self._hear_audio(len(member) * 3 / 4 / self.formats.input)
                    elif name in {"image_url", "url"} and isinstance(member, str):
                        self._images, others = self._images + _PER_IMAGE, others + _PER_IMAGE
                    else:
                        size += len(name)
                        left.append(member)
            elif isinstance(value, list):
                left += value
            elif isinstance(value, str):
                size += len(value.encode("utf-8", "replace"))
            else:
                others += 1
        self._heard += size / _BYTES_PER_TOKEN + others
        self._probable += size / _USUAL_BYTES + others


def is_request(event: Json) -> bool:
    """Whether a client's event asks for a response."""
    return text_of(event, "type") == "response.create"


def cancel_event(response_id: str) -> str:
    """An event that ends a response, whose usage is then reported."""
    event: Json = {"type": "response.cancel"}
    return encode({**event, "response_id": response_id} if response_id else event).decode()
