"""Counts the user's speech of a realtime session that the upstream is to write down. Pure.

Source: OpenAI's Realtime reference, November 2026; the older names of members and events are understood as well. And
vLLM's server (`speech_to_text/realtime/connection.py`), whose protocol is another: its `session.created` has no
session, a commit begins a transcription of all audio that comes until one that is `final`, and `transcription.done`
ends it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import msgspec

from portal.lib.json import Json, decode_object, object_of, text_of
from relay.protocols.realtime.audio_buffer import AudioBuffer
from relay.protocols.realtime.events import SESSION_UPDATES, SESSIONS

_MARKS: Final = (
    '"input_audio_buffer.',
    "input_audio_transcription.failed",
    "session.created",
    "session.updated",
    '"transcription.delta"',
)
_SHORTEST: Final = 0.1  # seconds that an upstream writes down
_MOST: Final = 64  # items that are remembered although nothing is owed of them
_FINAL: Final = '{"type":"input_audio_buffer.commit","final":true}'


class _Event(msgspec.Struct):
    type: str = ""
    item_id: str | None = None
    audio_start_ms: object = None
    audio_end_ms: object = None


_event: Final = msgspec.json.Decoder(_Event)


def is_commit(event: Json) -> bool:
    """Whether a client's event has what is in the buffer of audio written down."""
    return text_of(event, "type") == "input_audio_buffer.commit"


def is_streamed(event: Json) -> bool:
    """Whether the first event of an upstream begins a session of vLLM's protocol."""
    return text_of(event, "type") == "session.created" and "session" not in event


@dataclass(slots=True)
class Spoken:
    """Speech that was committed. The seconds are of audio."""

    seconds: float
    model: str  # that writes it down, by the upstream's name; may be empty although one does
    on: bool  # it is to be written down


@dataclass(slots=True)
class Speech:
    """What has been said in one session, and not been written down yet. Times are seconds."""

    model: str = ""  # that writes it down, as far as the client was heard; may be empty although one does
    on: bool = False  # it is written down
    streams: bool = False  # the session is of vLLM's protocol
    buffer: AudioBuffer = field(default_factory=AudioBuffer)
    _own: str = ""  # the model of the session
    _always: bool = False  # the session does nothing else
    _told: Spoken | None = None  # what is in force, as the upstream says; its seconds mean nothing
    _running: bool = False  # a transcription of a stream
    _written: bool = False  # of which something has arrived
    _asked: deque[Spoken] = field(default_factory=deque)  # committed by the client, and not confirmed
    _items: dict[str, Spoken] = field(default_factory=dict)  # committed, by the id of the item
    _done: deque[str] = field(default_factory=lambda: deque(maxlen=_MOST))  # the newest items that are over

    def begin(self, own: str, transcribes: bool) -> None:
        """`own`: the upstream's name for the session's model. `transcribes`: the session does nothing else."""
        self._own = own
        if transcribes:
            self.model, self.on, self._always = own, True, True

    @property
    def seconds(self) -> float:
        """What is to be written down, or will be when it is committed."""
        return self.buffer.pending * self.on + sum(spoken.seconds for spoken in self._owed())

    @property
    def commits(self) -> int:
        """How many transcriptions the upstream owes."""
        return len(self._owed()) + self._running

    @property
    def models(self) -> set[str]:
        """Those that write down what has been said."""
        return {self.model, *(spoken.model for spoken in self._owed())}

    def unfinished(self, failed: bool = False) -> list[Spoken]:
        """The transcriptions that the upstream owes. `failed`: it will not make them, but a part may have arrived."""
        streams = self._running and (self._written or not failed)
        running = [Spoken(self.buffer.pending, self.model, True)] if streams else []
        return [spoken for spoken in (*running, *([] if failed else self._owed())) if spoken.seconds >= _SHORTEST]

    def _owed(self) -> list[Spoken]:
        return [spoken for spoken in (*self._asked, *self._items.values()) if spoken.on]

    # -- the client --------------------------------------------------------------------------------------------------

    def appended(self, seconds: float) -> None:
        self.buffer.append(seconds)

    def sent(self, event: Json) -> None:
        """Take over an event of the client that is about to be sent."""
        kind = text_of(event, "type")
        if is_commit(event) and self.streams:
            self._running = self._running or event.get("final") is not True
        elif is_commit(event):
            self._asked.append(Spoken(self.buffer.commit(), self.model, self.on))
        elif kind == "input_audio_buffer.clear" and not self.streams:
            self.buffer.clear()
        elif kind in SESSION_UPDATES:
            self.configured(object_of(event, "session"), True)

    def last_events(self) -> list[str]:
        """What ends the transcriptions that only the client ends, so that their usage is reported."""
        return [_FINAL] if self._running else []

    # -- both --------------------------------------------------------------------------------------------------------

    def configured(self, session: Json, asked: bool = False) -> None:
        """Take over the members of a session. `asked`: the upstream has not confirmed them, so nothing ends."""
        audio = object_of(object_of(session, "audio"), "input")
        name = "transcription" if "transcription" in audio else "input_audio_transcription"
        holder = audio if "transcription" in audio else session
        if isinstance(holder.get(name), dict):
            self.on, self.model = True, text_of(object_of(holder, name), "model") or self.model
        elif not asked:
            self.on = self._always
        if not asked:
            self._told = Spoken(0.0, self.model, self.on)
        where = audio if "turn_detection" in audio else session
        if "turn_detection" in where:
            self.buffer.listens = where["turn_detection"] is not None and (self.buffer.listens or not asked)

    # -- the upstream ------------------------------------------------------------------------------------------------

    def heard(self, text: str) -> bool:
        """Take over an event of the upstream; returns whether it is about the session itself."""
        if not any(mark in text for mark in _MARKS):
            return False
        try:
            event = _event.decode(text)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return False
        kind = event.type
        if kind in SESSIONS:
            told = decode_object(text) or {}
            if is_streamed(told):
                self._stream()
                return True
            early = (self.model, self.on, self.buffer.listens)
            self.configured(object_of(told, "session"))
            if early[1] and kind.endswith(".created"):
                # What a session begins with does not end what has been asked for meanwhile.
                self.model, self.on, self.buffer.listens = early[0], True, self.buffer.listens and early[2]
            return True
        elif kind == "input_audio_buffer.committed":
            self._committed(event.item_id or "")
        elif kind == "input_audio_buffer.speech_started":
            self.buffer.started(event.audio_start_ms)
        elif kind == "input_audio_buffer.speech_stopped":
            self.buffer.stopped(event.audio_end_ms)
        elif kind == "input_audio_buffer.timeout_triggered":
            self.buffer.timed_out(event.audio_start_ms, event.audio_end_ms)
        elif kind == "input_audio_buffer.cleared":
            if self.buffer.direct:  # otherwise it was cleared when the client asked for it
                self.buffer.clear()
        elif kind == "transcription.delta":
            self._written = self.streams
        elif kind.endswith("input_audio_transcription.failed"):
            self._find(event.item_id or "")
        return False

    def refused(self) -> None:
        """The upstream refused an event, which was the newest that committed."""
        if self._asked:
            self.buffer.restore(self._asked.pop().seconds)

    def finished(self, item_id: str) -> Spoken | None:
        """An item has been written down. One that was never told of is all that has been said since the last.

        None: its end is told again.
        """
        over = item_id in self._done
        found = self._find(item_id)
        if found is None and not item_id and (not self._running if self.streams else self.buffer.tells_commits):
            return None
        if found is None and not over:
            found = Spoken(self.buffer.take(), self.model, self.on)
        self._running = self._written = False
        return found or Spoken(0.0, self.model, self.on)

    def _find(self, item_id: str) -> Spoken | None:
        """Take an item that is over from what is owed."""
        if item_id in self._done:
            return None
        if item_id:
            self._done.append(item_id)
        for name in (item_id, ""):
            if name in self._items:
                return self._items.pop(name)
        if self._asked:
            return self._asked.popleft()
        return self._items.pop(next(iter(self._items))) if self._items and not item_id else None

    def _committed(self, item_id: str) -> None:
        self.buffer.tells_commits = True
        spoken = self._asked.popleft() if self._asked else Spoken(self.buffer.take(), self.model, self.on)
        if self._told is not None and self._told.on:  # events of the upstream come in the order of what it did
            spoken.model, spoken.on = self._told.model, True
        before = self._items.pop(item_id, None)
        if before is not None:
            spoken.seconds += before.seconds
        self._items[item_id] = spoken
        idle = [name for name, other in self._items.items() if not other.on]
        for name in idle[:-_MOST]:
            del self._items[name]

    def _stream(self) -> None:
        self.streams, self.model, self.on, self._always, self.buffer.listens = True, self._own, True, True, False
        self._running = bool(self._asked)
        self.buffer.restore(sum(spoken.seconds for spoken in self._asked))
        self._asked.clear()
