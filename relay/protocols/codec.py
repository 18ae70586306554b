"""The interface of stream codecs (`Codec`), and the base class of those that decode events. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from portal.lib.json import Json, decode_object, object_of, objects_of, text_of
from relay.protocols.contract import Decoder, Encoder
from relay.protocols.error_objects import states
from relay.protocols.events import EventReader, TooLarge, payload
from relay.protocols.naming.tool_names import restore_names
from relay.protocols.prompts.stops import StopSearch
from relay.protocols.token_estimate import is_opaque
from relay.protocols.usage import NO_USAGE, Usage

EVENT_STREAM: Final = "text/event-stream; charset=utf-8"
JSON_STREAM: Final = "application/json; charset=utf-8"  # a list whose entries arrive one by one (Gemini)
DONE: Final = b"data: [DONE]\n\n"  # the end marker of chat completions and legacy completions
_UNREAD_LIMIT: Final = 32 * 1024  # bytes of events
OVERSIZED: Final = (
    b'{"error":{"message":"The upstream sent an event that is larger than anything sensible.","type":"server_error",'
    b'"param":null,"code":"upstream_error"}}'
)


def says_something(delta: Json) -> bool:
    """Whether a delta or a message has more than its role."""
    return any([value and name != "role" and states(value) for name, value in delta.items()])


def chunk_says_something(chunk: Json) -> bool:
    """Whether a chunk has content or a finish_reason: upstreams send the role before they know whether they can."""
    return any(
        bool(choice.get("finish_reason"))
        or says_something(object_of(choice, "delta"))
        or says_something(object_of(choice, "message"))
        for choice in objects_of(chunk, "choices")
    )


@dataclass(slots=True, kw_only=True)
class EventCodec:
    """A codec that decodes complete events. Subclasses implement `handle_event`; `Codec` describes the attributes."""

    usage: Usage | None = None
    error: bytes | None = None
    failed: bytes | None = None
    done: bool = False
    started: bool = False
    ending: bytes = b""
    content_type: str = EVENT_STREAM
    _reader: EventReader = field(default_factory=EventReader)
    _units: float = 0.0  # estimated tokens returned so far
    _audio: float = 0.0  # of them, of audio
    _opaque: bool = False  # there is content whose tokens cannot be estimated
    _terminal: bytes = b""
    _cut: bool = False  # the body ended inside an event

    def handle_event(self, event: bytes) -> bytes:
        """Process one complete event; returns the bytes to send for it."""
        raise NotImplementedError

    def feed(self, data: bytes) -> bytes:
        if self.done or self.error is not None:
            return b""
        try:
            events = self._reader.feed(data)
        except TooLarge:
            self.error = OVERSIZED
            return b""
        return self._handle_events(events)

    def finish(self, clean: bool = True) -> bytes:
        """The upstream closed the connection. `clean`: the body's framing says that it ends here."""
        return b"" if self.done or self.error is not None else self._handle_events(self._last_events())

    def _last_events(self) -> list[bytes]:
        """What the end of the body leaves: an event without its empty line. Half an event says that it was cut."""
        events = self._reader.finish()
        self._cut = any(data not in (b"", b"[DONE]") and decode_object(data) is None for data in map(payload, events))
        return [] if self._cut else events

    def _handle_events(self, events: list[bytes]) -> bytes:
        out = []
        for event in events:
            if self.done or self.error is not None:
                break
            out.append(self.handle_event(event))
        return b"".join(out)

    @property
    def complete(self) -> bool:
        return self.done

    @property
    def terminal(self) -> bytes:
        return self._terminal

    @property
    def mid_event(self) -> bool:
        """Always False: only complete events are returned."""
        return False

    def delivered_units(self) -> float:
        """The estimated tokens of the text and audio that have been returned so far."""
        return self._units

    def audio_units(self) -> float:
        """Of them, those of audio."""
        return self._audio

    def is_opaque(self) -> bool:
        """Whether there is content whose tokens cannot be estimated."""
        return self._opaque

    def media(self) -> Usage:
        """Images and speech that have been returned so far. Text has none."""
        return NO_USAGE


@dataclass(slots=True)
class Conversion(EventCodec):
    """The codec for an upstream that speaks another API: its events become hub chunks, then client events."""

    decoder: Decoder
    encoder: Encoder
    stops: StopSearch | None = None  # of `decoder`, which ends the answer where this finds something
    _chunked: bool = False  # a chunk with choices has arrived
    _unread: list[bytes] = field(default_factory=list)  # events in which nothing opaque has been looked for
    _unread_size: int = 0

    def handle_event(self, event: bytes) -> bytes:
        self._unread.append(event)
        self._unread_size += len(event)
        if self._unread_size > _UNREAD_LIMIT:
            self.is_opaque()
        chunks = self.decoder.chunks(event)
        self.usage = self.decoder.usage
        if self.decoder.error is not None:
            self.error = self.decoder.error
            return b""
        self.started = self.started or any(map(chunk_says_something, chunks))
        self._chunked = self._chunked or any(chunk.get("choices") for chunk in chunks)
        out = b"".join(map(self.encoder.chunk, chunks))
        if self.decoder.done and not self._chunked:
            self.done = True  # an end marker alone is no answer
        elif self.decoder.done:
            out += self._end()
        return out

    def finish(self, clean: bool = True) -> bytes:
        if self.done or self.error is not None:
            return b""
        out = self._handle_events(self._last_events())
        if not (self.done or self._cut) and self.error is None:
            self.decoder.finish(clean)
            if self.decoder.done:
                out += self._end()
        return out

    def _end(self) -> bytes:
        out, self._terminal = self.encoder.end()
        self.done = self.started = True
        return out

    def end_whole(self) -> bool:
        """End an answer that the upstream broke off behind a stop sequence. Returns False: there was none."""
        if self.done or self.stops is None or not self.stops.found:
            return False
        self._terminal = self._end() + self._terminal
        return True

    def delivered_units(self) -> float:
        return self.encoder.units

    def is_opaque(self) -> bool:
        self._opaque = self._opaque or is_opaque(b"".join(self._unread))
        self._unread, self._unread_size = [], 0
        return self._opaque

    def failure(self, message: str, kind: str, code: str | None, param: str | None) -> bytes:
        return self.encoder.failure(message, kind, code, param)


@dataclass(slots=True)
class NameRestoring:
    """A decoder whose chunks have the client's names of tools."""

    decoder: Decoder
    names: Mapping[str, str]  # the client's, by what the upstream calls them
    usage: Usage | None = None
    error: bytes | None = None
    done: bool = False

    def chunks(self, event: bytes) -> list[Json]:
        found = self.decoder.chunks(event)
        for chunk in found:
            restore_names((object_of(choice, "delta") for choice in objects_of(chunk, "choices")), self.names)
        self._follow()
        return found

    def finish(self, clean: bool) -> None:
        self.decoder.finish(clean)
        self._follow()

    def _follow(self) -> None:
        self.usage, self.error, self.done = self.decoder.usage, self.decoder.error, self.decoder.done


@dataclass(frozen=True, slots=True)
class BrokenOff:
    """How a stream ended that has no end of its own."""

    status: str  # `failed`; `cancelled`: its client left, and the upstream had not ended
    code: str = ""  # of its error, as the client is told it
    message: str = ""


class Codec(Protocol):
    """What `relay.gateway.stream.Pump` needs of a stream's codec: it feeds the upstream's bytes in and sends the
    result.
    """

    usage: Usage | None  # as the upstream reports it
    error: bytes | None  # the upstream's error object, which is not sent on
    failed: bytes | None  # the error object inside an end marker that says the answer failed
    done: bool  # the end marker has arrived
    started: bool  # an event that says something has been returned: from then on, the answer counts as begun
    ending: bytes  # sent at the end of a complete answer whose upstream sent no end marker
    content_type: str  # of the answer to the client

    def feed(self, data: bytes) -> bytes:
        """Process bytes from the upstream; returns the bytes to send to the client."""

    def finish(self, clean: bool = True) -> bytes:
        """The upstream closed the connection: returns the last bytes to send.

        `clean`: the body's framing says that it ends here. A body that ends with the connection gives no such proof.
        """

    def delivered_units(self) -> float:
        """The estimated tokens of the text and audio that have been returned so far."""

    def audio_units(self) -> float:
        """Of them, those of audio."""

    def is_opaque(self) -> bool:
        """Whether there is content whose tokens cannot be estimated, such as images."""

    def media(self) -> Usage:
        """Images and speech that have been returned so far, as `relay.protocols.usage.Delivered` has them."""

    def failure(self, message: str, kind: str, code: str | None, param: str | None) -> bytes:
        """The error event that ends a stream which cannot continue; empty where the format has none."""

    @property
    def complete(self) -> bool:
        """Whether the answer is complete, with or without an end marker."""

    @property
    def terminal(self) -> bytes:
        """The end marker. It is sent once the usage record is on disk."""

    @property
    def mid_event(self) -> bool:
        """Whether the bytes returned so far end inside an event, so that nothing may be inserted."""


@dataclass(slots=True)
class Stopping:
    """A decoder whose answer ends before the first stop sequence in its text.

    For upstreams that cannot stop there: what they write behind it is read for its usage alone. The choice has its
    finish_reason as soon as its text is whole.
    """

    decoder: Decoder
    search: StopSearch
    member: str  # of the hub, for why a choice ended
    usage: Usage | None = None
    error: bytes | None = None
    done: bool = False

    def chunks(self, event: bytes) -> list[Json]:
        found = self.decoder.chunks(event)
        for chunk in found:
            for choice in objects_of(chunk, "choices"):
                self._stop(choice, object_of(choice, "delta"))
        self.usage, self.error, self.done = self.decoder.usage, self.decoder.error, self.decoder.done
        return found

    def finish(self, clean: bool) -> None:
        self.decoder.finish(clean)
        self.usage, self.error, self.done = self.decoder.usage, self.decoder.error, self.decoder.done

    def _stop(self, choice: Json, delta: Json) -> None:
        over = bool(self.search.found)
        if over:
            choice["delta"], choice["finish_reason"], choice["logprobs"] = {}, None, None
            return
        said = self.search.feed(text_of(delta, "content"))
        if said or "content" in delta:
            delta["content"] = said
        if self.search.found:
            delta.pop("tool_calls", None)
            _stopped(choice, self.search, self.member)
        elif choice.get("finish_reason") or delta.get("tool_calls"):
            rest = self.search.rest()
            choice["delta"] = {**delta, "content": text_of(delta, "content") + rest} if rest else delta


def stop_completion(completion: Json, search: StopSearch, member: str) -> None:
    """End a complete answer before the first stop sequence in its text. `member`: as in `Stopping`."""
    for choice in objects_of(completion, "choices"):
        message = object_of(choice, "message")
        text = text_of(message, "content")
        said = search.feed(text)
        if not search.found:
            search.rest()
            continue
        message["content"] = said
        message.pop("tool_calls", None)
        message.pop("annotations", None)  # they name places in the whole text
        _stopped(choice, search, member)


def _stopped(choice: Json, search: StopSearch, member: str) -> None:
    choice["finish_reason"] = "stop"
    choice[member] = {"reason": "stop_sequence", "sequence": search.found}
