"""Streams of frames without a container, by their frames: MP3, AAC, AC-3 and DTS. Pure.

What a Xing, Info or VBRI header states is not read. Files that follow each other are one to decoders, and here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from relay.protocols.passthrough.codecs.aac import BlockCheck
from relay.protocols.passthrough.codecs.loas import LoasFrames
from relay.protocols.passthrough.codecs.mpeg import mpeg_frame
from relay.protocols.passthrough.codecs.surround import dolby_frame, dts_frame
from relay.protocols.passthrough.containers.sound import BYTES_PER_SECOND, STEPS, UNKNOWN, Seconds, counted, with_rest

Frame = Callable[[bytes, int], tuple[int, float]]  # the size and the seconds of the frame at a place; 0: there is none

_HEAD: Final = 16  # bytes, at least those of the head of every frame
_IN_A_ROW: Final = 4  # frames, by which a stream is told
SEARCHED: Final = 65_536  # bytes in which it begins
_NOT_FRAMES: Final = 0.1  # share of a stream that may be something else than frames and tags
_TAG, _TAG_AT_END, _COMMENT = b"APETAGEX", b"TAG", 128


class _Kind(NamedTuple):
    """A kind of streams."""

    marks: re.Pattern[bytes]  # with which frames begin
    frames: Callable[[], Frame]


_MPEG: Final = _Kind(re.compile(rb"\xff[\xe0-\xff]"), lambda: mpeg_frame)
_LOAS: Final = _Kind(re.compile(rb"\x56[\xe0-\xff]"), LoasFrames)
_DOLBY: Final = _Kind(re.compile(rb"\x0b\x77"), lambda: dolby_frame)
_DTS: Final = _Kind(re.compile(rb"\x7f\xfe\x80\x01"), lambda: dts_frame)
_KINDS: Final = (_MPEG, _LOAS, _DOLBY, _DTS)
# DTS in another order of bytes, or in words of 14 bits; bursts of frames as they go over wires.
_UNCOUNTED: Final = re.compile(rb"\xfe\x7f\x01\x80|\x1f\xff\xe8\x00|\xff\x1f\x00\xe8|\x72\xf8\x1f\x4e|\xf8\x72\x4e\x1f")


def hidden_frames(content: bytes, begin: int, end: int) -> Seconds:
    """Of samples, the frames that decoders find where samples are said to be; unknown where there are none."""
    found = frames_in(content, begin, end, 2 * _IN_A_ROW)
    if found.length or _UNCOUNTED.search(content, begin, min(end, begin + SEARCHED)) is None:
        return found
    size = end - begin
    return Seconds(size / BYTES_PER_SECOND, 0.0, size / BYTES_PER_SECOND, size / BYTES_PER_SECOND)


def frames_in(content: bytes, begin: int, end: int, in_a_row: int = _IN_A_ROW) -> Seconds:
    """The frames of whatever kind begins between two places; unknown where none does."""
    places = [(at, kind) for kind in _KINDS if (at := _beginning(content, begin, end, kind, in_a_row)) >= 0]
    if not places:
        return UNKNOWN
    at, kind = min(places, key=lambda place: place[0])
    return count_frames(content[:end] if end < len(content) else content, at, kind)


def _beginning(content: bytes, begin: int, end: int, kind: _Kind, in_a_row: int) -> int:
    """Where several frames follow each other for the first time, or one goes on to the end; -1: nowhere."""
    for found in kind.marks.finditer(content, begin, min(end, begin + SEARCHED)):
        at, frame, number = found.start(), kind.frames(), 0
        while number < in_a_row:
            size, _ = frame(content, at)
            if not size:
                break
            number, at = number + 1, at + size
            if at + _HEAD > end:
                if at >= end - _COMMENT and (number > 1 or found.start() == begin):
                    return found.start()
                break
        if number >= in_a_row:
            return found.start()
    return -1


def mpeg(content: bytes, start: int) -> Seconds:
    """MP3 with its older layers, and AAC in ADTS."""
    return count_frames(content, start, _MPEG)


def count_frames(content: bytes, start: int, kind: _Kind = _MPEG) -> Seconds:
    """The frames, and what is between them by its size.

    Of another kind than those before, two frames in a row are frames. Where there is much beside them, it is not told
    how long all is.
    """
    at, frame, check = start, kind.frames(), None
    seconds, between, last = 0.0, 0, -1
    for _ in range(STEPS):
        if at + 7 > len(content):
            break
        size, length = frame(content, at)
        if size and (last in (-1, content[at + 1] & 0xFE) or kind is not _MPEG or _is_followed(content, at, size)):
            last, seconds = content[at + 1] & 0xFE, seconds + length
            if kind is _MPEG and last & 0xF6 == 0xF0 and not content[at + 6] & 3:
                check = check or BlockCheck((content[at + 2] >> 6) + 1, content[at + 2] >> 2 & 15)
                head = 7 if content[at + 1] & 1 else 9
                check.look(content, at + head, min(size, len(content) - at) - head)
            at += size
            continue
        if tag := _tag(content, at):
            at += tag
            continue
        found = kind.marks.search(content, at + 1)
        following = found.start() if found is not None else len(content)
        between, at = between + following - at, following
    frames, seconds = seconds, seconds + (between / BYTES_PER_SECOND if seconds else 0.0)
    result = counted(with_rest(seconds, start, at, len(content)))
    result = result._replace(least=min(result.least, counted(frames).least))  # what is between may be a tag
    packed = (check is not None and check.failed) or (isinstance(frame, LoasFrames) and frame.failed)
    if packed or between > max(SEARCHED, _NOT_FRAMES * (at - start)):
        return result._replace(usual=result.length)
    return result


def _is_followed(content: bytes, at: int, size: int) -> bool:
    """Whether another frame of its kind follows the one at this place."""
    following = at + size
    same = content[following : following + 1] == b"\xff" and content[following + 1] & 0xFE == content[at + 1] & 0xFE
    return same and mpeg_frame(content, following)[0] > 0


def _tag(content: bytes, at: int) -> int:
    """The bytes of the tag at this place, 0 where there is none."""
    if content.startswith(b"ID3", at):
        return after_id3(content[at : at + _HEAD], len(content) - at)
    if content.startswith(_TAG, at):
        size = int.from_bytes(content[at + 12 : at + 16], "little")
        flags = int.from_bytes(content[at + 20 : at + 24], "little")
        return min(len(content) - at, 32 + (size if flags >> 29 & 1 else 0))  # its head, or its foot
    return _COMMENT if content.startswith(_TAG_AT_END, at) and at + _COMMENT == len(content) else 0


def after_id3(content: bytes, size: int | None = None) -> int:
    """Where an ID3 tag at the beginning ends, 0 without one. `size`: of the file, unless `content` is all of it."""
    if content[:3] != b"ID3" or len(content) < 10:
        return 0
    length = 0
    for byte in content[6:10]:
        length = length << 7 | byte & 127
    return min(len(content) if size is None else size, length + 10 + (10 if content[5] & 16 else 0))
