"""The length of the sound in ASF (WMA), by what its payloads hold. Pure.

Source: Microsoft's Advanced Systems Format Specification 1.20.3, sections 3.2, 3.3 and 5.2; of WMA's packets, FFmpeg's
decoder.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from relay.protocols.passthrough.containers.elementary.frames import frames_in
from relay.protocols.passthrough.containers.samples import wav_rate
from relay.protocols.passthrough.containers.sound import (
    HIGHEST_RATE,
    STEPS,
    UNKNOWN,
    Seconds,
    byte_rate,
    counted,
    longest,
    uncounted,
    with_rest,
)

MARK: Final = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_FILE: Final = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_STREAM: Final = bytes.fromhex("9107dcb7b7a9cf118ee600c00c205365")
_SOUND: Final = bytes.fromhex("409e69f84d5bcf11a8fd00805f5c442b")
_DATA: Final = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_DATA_HEAD: Final = 50  # bytes
_WMA: Final = (0x160, 0x161)  # formats: versions 1 and 2
_LOSSLESS: Final = 0x163
_FRAMES: Final = ((16_000, 512), (22_050, 1024), (48_000, 2048))  # samples of a frame, up to a rate


class _Format(NamedTuple):
    """The description of a stream of sound: what WAV has as `fmt `."""

    tag: int
    channels: int
    samples: int  # per second
    each_second: int  # bytes, as stated
    align: int
    bits: int
    body: bytes


def asf(content: bytes) -> Seconds:
    start = content.find(_DATA, len(MARK))
    if start < 0:
        return UNKNOWN
    head = content[:start]
    at = head.find(_FILE)
    if at < 0 or len(head) < at + 96:
        return UNKNOWN
    length, _, preroll = struct.unpack_from("<QQQ", head, at + 64)
    (packet,) = struct.unpack_from("<I", head, at + 92)
    formats = _formats(head)
    if packet < 16 or not formats:
        return UNKNOWN
    start += _DATA_HEAD
    pieces: dict[int, list[bytes]] = {number: [] for number in formats}
    at, last, left = start, 0, STEPS
    while at < len(content) and left > 0:
        time, steps = _payloads(content[at : at + packet], pieces, left)
        at, last, left = at + packet, max(last, time), left - steps
    stated = max(length / 1e7 - preroll / 1e3, (last - preroll) / 1e3)
    found = longest(_stream(formats[number], b"".join(parts), stated) for number, parts in pieces.items())
    more = with_rest(found.length, start, min(at, len(content)), len(content)) - found.length if found.length else 0.0
    return found._replace(length=found.length + more, most=found.most + more)


def _formats(head: bytes) -> dict[int, _Format]:
    """The streams of sound, by their number."""
    found: dict[int, _Format] = {}
    at = head.find(_STREAM)
    while at >= 0 and at + 96 <= len(head):
        (flags,) = struct.unpack_from("<H", head, at + 72)
        if head[at + 24 : at + 40] == _SOUND:
            body = head[at + 78 : at + 78 + 64]
            tag, channels, samples, each_second, align, bits = struct.unpack_from("<HHIIHH", body)
            found.setdefault(flags & 127, _Format(tag, channels, samples, each_second, align, bits, body))
        at = head.find(_STREAM, at + 1)
    return found


def _payloads(packet: bytes, pieces: dict[int, list[bytes]], most: int) -> tuple[int, int]:
    """Add what a packet has of each stream. Its time in milliseconds, and how many payloads it has."""
    try:
        return _read_payloads(packet, pieces, most)
    except (struct.error, IndexError):  # the last one may be cut
        return 0, 1


def _read_payloads(packet: bytes, pieces: dict[int, list[bytes]], most: int) -> tuple[int, int]:
    at = 1 + (packet[0] & 15) if packet[0] & 128 else 0  # data for correcting errors
    kinds, sizes = packet[at], packet[at + 1]
    at += 2
    _, at = _number(packet, at, kinds >> 5)
    _, at = _number(packet, at, kinds >> 1)
    padding, at = _number(packet, at, kinds >> 3)
    (time,) = struct.unpack_from("<I", packet, at)
    at, end, count, width = at + 6, len(packet) - padding, 1, 0
    if kinds & 1:
        count, width, at = packet[at] & 63, packet[at] >> 6, at + 1
    steps = 1 + count
    for _ in range(count):
        number = packet[at] & 127
        _, at = _number(packet, at + 1, sizes >> 4)
        _, at = _number(packet, at, sizes >> 2)
        extra, at = _number(packet, at, sizes)
        compressed = extra == 1
        at += extra
        length, at = _number(packet, at, width) if kinds & 1 else (end - at, at)
        payload = packet[at : min(end, at + length)]
        at += length
        if number not in pieces:
            continue
        if not compressed:
            pieces[number].append(payload)
            continue
        inner = 0
        while inner < len(payload) and steps < most:
            pieces[number].append(payload[inner + 1 : inner + 1 + payload[inner]])
            inner, steps = inner + 1 + payload[inner], steps + 1
    return time, steps


def _number(packet: bytes, at: int, kind: int) -> tuple[int, int]:
    """A number of 0, 1, 2 or 4 bytes, by the lowest two bits of `kind`; and where it ends."""
    width = (0, 1, 2, 4)[kind & 3]
    return int.from_bytes(packet[at : at + width], "little"), at + width


def _stream(form: _Format, data: bytes, stated: float) -> Seconds:
    """The seconds of a stream with these bytes. `stated`: by the file, which can make it longer."""
    if not data:
        return UNKNOWN
    if form.tag in _WMA and form.align and 0 < form.samples <= HIGHEST_RATE:
        return counted(_superframes(form, data) * _frame(form) / form.samples)
    rate, framed = wav_rate(form.body, 0, len(form.body))
    found = frames_in(data, 0, len(data)) if framed else counted(len(data) / rate) if rate else UNKNOWN
    if found.length:
        return found
    by_rate = len(data) / form.each_second if form.each_second else 0.0
    samples = byte_rate(form.samples, form.channels, form.bits) if form.tag == _LOSSLESS else 0.0
    return uncounted(len(data), max(stated, by_rate), **({"rate": samples} if samples else {}))


def _superframes(form: _Format, data: bytes) -> int:
    """The frames of WMA, whose number stands at the beginning of each block where frames can go over its end."""
    flags = form.body[20:22] if form.tag == _WMA[0] else form.body[22:24]
    if not int.from_bytes(flags, "little") & 2:
        return -(-len(data) // form.align)
    return sum(data[at] & 15 for at in range(0, len(data), form.align))


def _frame(form: _Format) -> int:
    """The samples of a frame."""
    for rate, samples in _FRAMES:
        if form.samples <= rate or (samples == 1024 and form.tag == _WMA[0] and form.samples <= 32_000):
            return samples
    return 2048
