"""The length of the sound in MP4, by its tables of samples. Pure. Source: ISO/IEC 14496-12 and 14496-3."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from relay.protocols.passthrough.sound import (
    AAC_FRAME,
    AAC_RATES,
    BYTES_PER_SECOND,
    LEAST_RATE,
    LOSSY_RATE,
    PARTS,
    STEPS,
    STEREO_RATE,
    UNKNOWN,
    Seconds,
    believed,
    counted,
    guessed,
)


def _boxes(content: bytes, start: int, end: int, most: int = PARTS) -> Iterator[tuple[bytes, int, int]]:
    """The names of boxes, and where their contents begin and end."""
    for _ in range(most):
        if start + 8 > end:
            return
        size, name = struct.unpack_from(">I4s", content, start)
        body = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", content, body)
            body += 8
        last = min(end, start + size) if size else end
        if last < body:
            return
        yield name, body, last
        start = last


def mp4(content: bytes, start: int) -> Seconds:
    """The longest sound of the first `moov`, with what fragments add to it. Unknown where samples cannot be counted."""
    stated, found, fragments = 0.0, UNKNOWN, _fragments(content, start)
    moov = next((box for box in _boxes(content, start, len(content), STEPS) if box[0] == b"moov"), None)
    for inner, begin, last in _boxes(content, moov[1], moov[2]) if moov is not None else ():
        if inner == b"mvhd":
            stated = max(stated, _clock(content, begin))
        elif inner == b"trak":
            found = max(found, _track(content, begin, last, stated, fragments))
    return found


def _fragments(content: bytes, start: int) -> dict[int, int]:
    """How many samples fragments have, by their track."""
    found: dict[int, int] = {}
    for name, begin, end in _boxes(content, start, len(content), STEPS):
        if name != b"moof":
            continue
        for inner, first, last in _boxes(content, begin, end):
            if inner != b"traf":
                continue
            track = 0
            for leaf, at, _ in _boxes(content, first, last):
                if leaf == b"tfhd":
                    (track,) = struct.unpack_from(">I", content, at + 4)
                elif leaf == b"trun":
                    found[track] = found.get(track, 0) + struct.unpack_from(">I", content, at + 4)[0]
    return found


def _clock(content: bytes, at: int) -> float:
    """The seconds of an `mvhd`."""
    scale, length = (
        struct.unpack_from(">IQ", content, at + 20) if content[at] else struct.unpack_from(">II", content, at + 12)
    )
    return length / scale if scale else 0.0


def _track(content: bytes, start: int, end: int, stated: float, fragments: dict[int, int]) -> Seconds:
    """The seconds of a track of sound; unknown for others."""
    parts: dict[bytes, int] = {}
    spans = [(start, end)]
    while spans:
        for name, begin, last in _boxes(content, *spans.pop()):
            if name in (b"mdia", b"minf", b"stbl") and name not in parts:
                spans.append((begin, last))
            parts.setdefault(name, begin)
            if name == b"stsd":
                parts.setdefault(b"", last)
    if b"stsz" not in parts or b"hdlr" not in parts or content[parts[b"hdlr"] + 8 : parts[b"hdlr"] + 12] != b"soun":
        return UNKNOWN
    each, count = struct.unpack_from(">II", content, parts[b"stsz"] + 4)
    count = min(count, len(content))
    size = each * count if each else sum(struct.unpack_from(f">{count}I", content, parts[b"stsz"] + 12))
    entry = parts.get(b"stsd", end)
    added = fragments.get(_track_id(content, parts.get(b"tkhd")), 0)
    rate = _aac_rate(content[entry : parts.get(b"", end)])
    if rate:
        return counted(min(count + added, len(content)) * AAC_FRAME / rate)
    if added or (fragments and not count):
        return UNKNOWN
    if content[entry + 12 :][:4] != b"mp4a":
        length = believed(stated, size / STEREO_RATE, size / LEAST_RATE, size / BYTES_PER_SECOND)
        return guessed(length, size, STEREO_RATE)
    (rate,) = struct.unpack_from(">H", content, entry + 40)
    least = max(size / LOSSY_RATE, count * AAC_FRAME / 48_000)  # HE-AAC has twice as many samples in each
    otherwise = max(least, count * AAC_FRAME / min(max(rate, 8000), 48_000))
    return guessed(believed(stated, least, size / LEAST_RATE, otherwise), size, LOSSY_RATE)


def _track_id(content: bytes, at: int | None) -> int:
    if at is None:
        return 0
    return int.from_bytes(content[at + 20 : at + 24] if content[at] else content[at + 12 : at + 16], "big")


def _aac_rate(entry: bytes) -> int:
    """The samples per second of AAC as its decoder is told them; 0 where that is not there.

    Of HE-AAC, it is the rate of its core, whose frames are as long.
    """
    at = entry.find(b"esds")
    if at < 0:
        return 0
    at += 8
    for tag, skipped in ((3, 3), (4, 13), (5, 0)):
        if at >= len(entry) or entry[at] != tag:
            return 0
        at += 1
        while at < len(entry) and entry[at] & 128:
            at += 1
        at += 1
        if tag == 3 and at + 2 < len(entry):
            flags = entry[at + 2]
            at += (2 if flags & 128 else 0) + (1 + entry[at + 3] if flags & 64 else 0) + (2 if flags & 32 else 0)
        at += skipped
    bits = int.from_bytes(entry[at : at + 8].ljust(8, b"\0"), "big")
    left = 64 - 5
    if bits >> left == 31:
        left -= 6
    index = bits >> left - 4 & 15
    if index < len(AAC_RATES):
        return AAC_RATES[index]
    return min(96_000, bits >> left - 28 & 0xFFFFFF) if index == 15 else 0
