"""JSON objects one a line (NDJSON), as Ollama streams them, as server-sent events. Pure, incremental."""

from __future__ import annotations

from typing import Final

CONTENT_TYPE: Final = "application/x-ndjson"
_LARGEST: Final = 64 * 1024 * 1024  # bytes of a line


class EventsOfLines:
    """The lines of an upstream as events without a name."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of a line that has not ended
        self._size = 0
        self.fault = ""  # why the stream cannot be read any further

    def feed(self, data: bytes) -> bytes:
        """The events that end in these bytes."""
        ended, newline, rest = data.rpartition(b"\n")
        whole = b"".join((*self._pieces, ended)) if newline else b""
        if newline:
            self._pieces, self._size = [], 0
        if rest:
            self._pieces.append(rest)
            self._size += len(rest)
            if self._size > _LARGEST:
                self.fault = "a line of the answer is larger than anything sensible"
        return b"".join(map(_event, whole.split(b"\n"))) if whole else b""

    def finish(self) -> bytes:
        """The event of a last line that no newline ends."""
        last, self._pieces, self._size = b"".join(self._pieces), [], 0
        return _event(last)


def _event(line: bytes) -> bytes:
    bare = line.strip()
    return b"data: " + bare.replace(b"\r", b" ") + b"\n\n" if bare else b""
