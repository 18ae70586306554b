"""The length of the sound in Flash video, by its tags. Pure. Source: Adobe Flash Video File Format 10.1, annex E."""

from __future__ import annotations

from typing import Final

from relay.protocols.passthrough.codecs.packets import CodecName, packet_seconds
from relay.protocols.passthrough.containers.sound import (
    STEPS,
    UNKNOWN,
    Packets,
    Seconds,
    counted,
    extended,
    longest,
    uncounted,
)

MARK: Final = b"FLV\x01"
_SOUND, _HEAD, _BEHIND = 8, 11, 4  # a kind of tags; bytes of a tag's head, and of the size behind it
_PCM, _G711, _AAC = (0, 3), (7, 8), 10  # formats
_MP3: Final = (2, 14)
_RATES: Final = (5512.5, 11_025, 22_050, 44_100)


class _Stream:
    """What the tags of one format have."""

    def __init__(self, form: int, flags: int) -> None:
        self.form, self.config, self.size = form, b"", 0
        rate = _RATES[flags >> 2 & 3] * (1 + (flags & 1)) * (2 if flags & 2 else 1)
        self.rate = rate if form in _PCM else 8000.0 if form in _G711 else 0.0
        self.packets: Packets | None = None

    def read(self, content: bytes, at: int, size: int) -> None:
        self.size += size
        codec: CodecName | None = "mpeg" if self.form in _MP3 else "aac" if self.form == _AAC else None
        if self.form == _AAC:
            if size > 1 and content[at] == 0:
                self.config, self.packets = self.config or content[at + 1 : at + size], self.packets
                return
            at, size = at + 1, size - 1
        if codec is not None and size > 0:
            if self.packets is None:
                self.packets = Packets(packet_seconds(codec, self.config, 0.0))
            self.packets.add(content, at, size)

    def total(self) -> Seconds:
        if self.packets is not None:
            return self.packets.total()
        return counted(self.size / self.rate) if self.rate else uncounted(self.size)


def flash(content: bytes) -> Seconds:
    """The streams of all formats that its tags have."""
    at, streams = 9 + _BEHIND, dict[int, _Stream]()
    for _ in range(STEPS):
        if at + _HEAD + 1 > len(content):
            break
        kind, size = content[at] & 31, int.from_bytes(content[at + 1 : at + 4], "big")
        body, end = at + _HEAD, min(len(content), at + _HEAD + size)
        if kind == _SOUND and size:
            form = content[body] >> 4
            streams.setdefault(form, _Stream(form, content[body])).read(content, body + 1, end - body - 1)
        at = end + _BEHIND
    found = longest(stream.total() for stream in streams.values())
    return extended(found, 0, at, len(content)) if found.length else UNKNOWN
