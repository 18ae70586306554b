"""What the codecs of event streams have in common. Pure. `Codec` says what the pump asks of one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from relay.protocols.contract import Decoder, Encoder
from relay.protocols.events import EventReader, TooLarge
from relay.protocols.usage import Usage

EVENT_STREAM: Final = "text/event-stream; charset=utf-8"
DONE: Final = b"data: [DONE]\n\n"  # the end marker of chat completions and legacy completions
OVERSIZED: Final = b'{"error":{"message":"The upstream sent an event that is larger than anything sensible.","type":"server_error","param":null,"code":"upstream_error"}}'


@dataclass(slots=True, kw_only=True)
class EventCodec:
    """Feed it what arrives; send on what it returns. A codec of its own says in `take` what becomes of each whole event.

    `started`: something with data has come out. `error`: the upstream's error object, which does not come out. `done`: the stream is complete; its
    last event is `terminal`, which goes out when the record is on disk. `failed`: that event says itself that the answer failed.
    """

    usage: Usage | None = None
    error: bytes | None = None
    failed: bytes | None = None
    done: bool = False
    started: bool = False
    ending: bytes = b""
    content_type: str = EVENT_STREAM
    _reader: EventReader = field(default_factory=EventReader)
    _units: float = 0.0
    _terminal: bytes = b""

    def take(self, event: bytes) -> bytes:
        """One whole event; what goes out for it."""
        raise NotImplementedError

    def feed(self, data: bytes) -> bytes:
        if self.done or self.error is not None:
            return b""
        try:
            events = self._reader.feed(data)
        except TooLarge:
            self.error = OVERSIZED
            return b""
        return self._taken(events)

    def finish(self) -> bytes:
        """The upstream closed the connection."""
        return b"" if self.done or self.error is not None else self._taken(self._reader.finish())

    def _taken(self, events: list[bytes]) -> bytes:
        out = []
        for event in events:
            if self.done or self.error is not None:
                break
            out.append(self.take(event))
        return b"".join(out)

    @property
    def complete(self) -> bool:
        return self.done

    @property
    def terminal(self) -> bytes:
        return self._terminal

    @property
    def mid_event(self) -> bool:
        """Whole events come out, or nothing."""
        return False

    @property
    def text_units(self) -> float:
        """A rough number of tokens of the text that came out, 0 when the upstream reports usage."""
        return 0.0 if self.usage is not None else self._units

    def delivered_units(self) -> float:
        """A rough number of tokens of the text that has come out so far."""
        return self._units


@dataclass(slots=True)
class Conversion(EventCodec):
    """A stream whose upstream speaks another API than its client: each event becomes hub chunks, and these the client's events."""

    decoder: Decoder
    encoder: Encoder

    def take(self, event: bytes) -> bytes:
        chunks = self.decoder.chunks(event)
        if self.decoder.error is not None:
            self.error = self.decoder.error
            return b""
        out = b"".join(map(self.encoder.chunk, chunks))
        if self.decoder.done:
            out += self._end()
        self.started = self.started or bool(out)
        self.usage = self.decoder.usage
        return out

    def finish(self) -> bytes:
        if self.done or self.error is not None:
            return b""
        out = self._taken(self._reader.finish())
        if not self.done and self.error is None:
            self.decoder.finish()
            if self.decoder.done:
                out += self._end()
        return out

    def _end(self) -> bytes:
        out, self._terminal = self.encoder.end()
        self.done = self.started = True
        return out

    @property
    def text_units(self) -> float:
        return 0.0 if self.usage is not None else self.encoder.units

    def delivered_units(self) -> float:
        return self.encoder.units

    def failure(self, message: str, kind: str, code: str | None, param: str | None) -> bytes:
        return self.encoder.failure(message, kind, code, param)


class Codec(Protocol):
    """What a stream's codec must offer: feed it what arrives, send on what comes out.

    `started`: something with data has come out. `error`: the upstream's error object, which does not come out. `done`: the end marker has
    come; it is `terminal`, and goes out when the record is on disk. `failed`: the end marker itself says that the answer failed.
    `mid_event`: what came out so far ends inside an event. `text_units`: a rough number of tokens, 0 when the upstream reports usage.
    """

    usage: Usage | None
    error: bytes | None
    failed: bytes | None
    done: bool
    started: bool
    ending: bytes  # what goes out at the end of a whole answer whose upstream sent no end marker
    content_type: str  # of the answer to the client

    def feed(self, data: bytes) -> bytes: ...
    def finish(self) -> bytes: ...
    def delivered_units(self) -> float: ...
    def failure(self, message: str, kind: str, code: str | None, param: str | None) -> bytes: ...
    @property
    def complete(self) -> bool: ...
    @property
    def terminal(self) -> bytes: ...
    @property
    def mid_event(self) -> bool: ...
    @property
    def text_units(self) -> float: ...
