"""Counts the user's speech of a realtime session that the upstream is to write down. Pure.

Source: OpenAI's Realtime reference, November 2026; the older names of members and events are understood as well.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import msgspec

from portal.lib.json import Json, decode_object, object_of, text_of

_MARKS: Final = ('"input_audio_buffer.', "input_audio_transcription.failed", "session.created", "session.updated")
_SESSIONS: Final = frozenset(
    ("session.created", "session.updated", "transcription_session.created", "transcription_session.updated")
)
_UPDATES: Final = frozenset(("session.update", "transcription_session.update"))
_SILENCE: Final = 60.0  # seconds that are counted at most while the upstream, which listens for speech, hears none
_SHORTEST: Final = 0.1  # seconds that an upstream writes down


class _Event(msgspec.Struct):
    type: str = ""
    item_id: str | None = None


_event: Final = msgspec.json.Decoder(_Event)


def is_commit(event: Json) -> bool:
    """Whether a client's event has what is in the buffer of audio written down."""
    return text_of(event, "type") == "input_audio_buffer.commit"


@dataclass(slots=True)
class Speech:
    """What has been said in one session, and not been written down yet. Times are seconds."""

    model: str = ""  # that writes it down; may be empty although one does
    on: bool = False  # it is written down
    _listens: bool = True  # the upstream finds out by itself when somebody speaks
    _speaking: bool = False
    _buffered: float = 0.0  # since the last commit
    _asked: deque[float] = field(default_factory=deque)  # committed by the client, and not confirmed
    _items: dict[str, float] = field(default_factory=dict)  # committed, by the id of the item

    @property
    def seconds(self) -> float:
        """What is to be written down, or will be when it is committed."""
        return self._buffered + sum(self._asked) + sum(self._items.values()) if self.on else 0.0

    @property
    def commits(self) -> int:
        """How many transcriptions the upstream owes."""
        return len(self._asked) + len(self._items) if self.on else 0

    def unfinished(self) -> list[float]:
        """The transcriptions that the upstream owes."""
        return [seconds for seconds in (*self._asked, *self._items.values()) if seconds >= _SHORTEST and self.on]

    def appended(self, seconds: float) -> None:
        self._buffered += seconds
        if self._listens and not self._speaking:
            self._buffered = min(self._buffered, _SILENCE)

    def sent(self, event: Json) -> None:
        """Take over an event of the client that is about to be sent."""
        kind = text_of(event, "type")
        if is_commit(event):
            self._asked.append(self._buffered)
            self._buffered = 0.0
        elif kind == "input_audio_buffer.clear":
            self._buffered = 0.0
        elif kind in _UPDATES:
            self.configured(object_of(event, "session"), True)

    def configured(self, session: Json, asked: bool = False) -> None:
        """Take over the members of a session. `asked`: the upstream has not confirmed them, so nothing ends."""
        audio = object_of(object_of(session, "audio"), "input")
        name = "transcription" if "transcription" in audio else "input_audio_transcription"
        holder = audio if "transcription" in audio else session
        if isinstance(holder.get(name), dict):
            self.on, self.model = True, text_of(object_of(holder, name), "model")
        elif not asked:
            self.on = False
            self._items.clear()
            self._asked.clear()
        where = audio if "turn_detection" in audio else session
        if "turn_detection" in where:
            self._listens = where["turn_detection"] is not None and (self._listens or not asked)

    def heard(self, text: str) -> bool:
        """Take over an event of the upstream; returns whether it is about the session itself."""
        if not any(mark in text for mark in _MARKS):
            return False
        try:
            event = _event.decode(text)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return False
        kind = event.type
        if kind in _SESSIONS:
            # What a session begins with does not end what has been asked for meanwhile.
            early = self.on and kind.endswith(".created")
            self.configured(object_of(decode_object(text) or {}, "session"), early)
            return True
        elif kind == "input_audio_buffer.committed":
            if self._asked:
                seconds = self._asked.popleft()
            else:
                seconds, self._buffered = self._buffered, 0.0
            if self.on:
                self._items[event.item_id or ""] = self._items.get(event.item_id or "", 0.0) + seconds
            self._speaking = False
        elif kind == "input_audio_buffer.speech_started":
            self._speaking = True
        elif kind == "input_audio_buffer.speech_stopped":
            self._speaking = False
        elif kind.endswith("input_audio_transcription.failed"):
            self.finished(event.item_id or "")
        return False

    def refused(self) -> None:
        """The upstream refused an event, which was the newest that committed."""
        if self._asked:
            self._asked.pop()

    def finished(self, item_id: str) -> float:
        """An item has been written down, or cannot be; returns its seconds."""
        if item_id in self._items:
            return self._items.pop(item_id)
        if self._asked:
            return self._asked.popleft()
        return self._items.pop(next(iter(self._items))) if self._items and not item_id else 0.0
