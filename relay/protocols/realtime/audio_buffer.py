"""The audio that a client appends to a realtime session's buffer, and how much of it becomes part of the conversation.

Where the server listens for speech, only what it hears is committed: the silence before and between turns is dropped.
It tells where speech begins and ends as offsets in all audio that was appended; on a call over WebRTC, whose clock
began elsewhere, only their distance counts. Pure. Source: OpenAI's Realtime reference and SDK, November 2026
(`audio_start_ms` and `audio_end_ms` include the padding that the model gets). Servers that tell no offsets, or others
(LocalAI: since the session began), are known as well.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

_SILENCE: Final = 60.0  # seconds that are counted at most while the server, which listens for speech, tells of none
_PREFIX: Final = 0.3  # seconds before somebody is heard to speak that count (OpenAI's default)
_LAG: Final = 2.0  # seconds within which a server hears that somebody speaks, where it does not tell since when
_ROUNDED: Final = 0.1  # seconds by which an offset may be behind what was appended
_STEP: Final = 0.25  # seconds between the notes of how much had been appended


def _to_nobody(_: float) -> None:
    """Nobody asks what is committed."""


def seconds_of(milliseconds: object) -> float | None:
    """An offset of the server in seconds, None: it tells none that can be one."""
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, (int, float)):
        return None
    return milliseconds / 1000 if math.isfinite(milliseconds) and milliseconds >= 0 else None


@dataclass(slots=True)
class AudioBuffer:
    """The buffer of one session. Positions are seconds of all audio that was appended."""

    direct: bool = False  # the client speaks to the server directly: what it says is told by the clock
    listens: bool = True  # the server finds out by itself when somebody speaks
    heard: Callable[[float], None] = _to_nobody  # is told the seconds of what is committed; negative: it was refused
    clock: Callable[[], float] = time.monotonic
    appended: float = 0.0  # seconds of all audio so far
    _from: float = 0.0  # where the buffer begins
    _committed: float = 0.0  # where what was committed ends: not after `_from`
    _start: float | None = None  # where the speech begins that is heard, or was heard last
    _told_start: float | None = None  # the same in the server's words
    _length: float | None = None  # seconds of that speech, once the server has told its end
    # Seconds of the buffer that `heard` was told of although no commit was, and where they end.
    _counted: float = 0.0
    _counted_to: float = 0.0
    tells_commits: bool = False  # the server does
    _notes: deque[tuple[float, float]] = field(default_factory=deque)  # when how much had been appended

    @property
    def pending(self) -> float:
        """Seconds that the server may commit as things are, at most."""
        return self._since(max(self._begin, self._counted_to))

    @property
    def _begin(self) -> float:
        return self._from if self._start is None else self._start

    def _since(self, begin: float) -> float:
        seconds = self.appended - begin
        return seconds if self._start is not None or not self.listens else min(seconds, _SILENCE)

    # -- the client --------------------------------------------------------------------------------------------------

    def append(self, seconds: float) -> None:
        now = self.clock()
        if not self._notes or now - self._notes[-1][0] >= _STEP:
            self._notes.append((now, self.appended))
        while len(self._notes) > 1 and self._notes[1][0] <= now - _LAG:
            self._notes.popleft()
        self.appended += seconds

    def commit(self) -> float:
        """The client commits the buffer; returns its seconds. All of it counts, unless speech was heard in it."""
        return self._take(self.appended - self._begin, self.appended)

    def restore(self, seconds: float) -> None:
        """What the client has committed last stays in the buffer."""
        self._from = self._committed = max(0.0, self._from - seconds)
        self.heard(-seconds)

    def clear(self) -> None:
        """The client empties the buffer."""
        self._from = self.appended
        self._counted = 0.0
        if self._start is not None:  # if the server has committed meanwhile, it tells how much
            self._start = self.appended

    # -- the server --------------------------------------------------------------------------------------------------

    def started(self, start_ms: object) -> None:
        """Somebody is heard to speak."""
        if self._counted:  # what it heard before has been answered
            self._from, self._counted, self._start = self._counted_to, 0.0, None
        self._length = None
        if self._start is not None:  # it goes on
            return
        told = self._told_start = seconds_of(start_ms)
        if self.direct:
            start = self.appended - _PREFIX
        elif told is not None and told <= self.appended + _ROUNDED:
            start = min(told, self.appended)
        else:
            start = max(self._appended_before() - _PREFIX, self.appended - _SILENCE)
        self._start = max(start, self._from)

    def stopped(self, end_ms: object) -> None:
        """They have stopped."""
        told = seconds_of(end_ms)
        if told is not None and self._told_start is not None and told >= self._told_start:
            self._length = told - self._told_start

    def timed_out(self, start_ms: object, end_ms: object) -> None:
        """Nobody was heard for as long as the session allows: the server commits the silence."""
        start, end = seconds_of(start_ms), seconds_of(end_ms)
        if start is not None and end is not None and end >= start:
            self._length, self._start = end - start, max(self._from, self.appended - (end - start))

    def take(self) -> float:
        """The seconds of what was heard, which are taken out of the buffer."""
        seconds = self._since(self._begin) if self._length is None else self._length
        seconds = min(seconds, self.appended - self._committed)
        end = self.appended if self._length is None else min(self.appended, self._begin + seconds)
        return self._take(seconds, max(end, self._from))

    def answers(self) -> None:
        """The server answers by itself. One that tells of no commits has committed what it heard."""
        if not self.listens or self.tells_commits:
            return
        more = self.pending if self._length is None else min(self._length, self.pending)
        self._counted, self._counted_to = self._counted + more, self.appended
        self.heard(more)

    def _take(self, seconds: float, end: float) -> float:
        self.heard(seconds - self._counted)
        self._from = self._committed = end
        self._start = self._told_start = self._length = None
        self._counted = 0.0
        return seconds

    def _appended_before(self) -> float:
        """How much had been appended when a server that hears speech now got its beginning."""
        since = self.clock() - _LAG
        return max((appended for at, appended in self._notes if at <= since), default=0.0)
