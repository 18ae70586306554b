"""The length of audio, whatever its header states."""

from __future__ import annotations

import struct

import pytest

from relay.protocols.passthrough.audio import audio_length
from tests.support.peers.sounds import aac_block

SECOND = 32_000  # bytes of 16-bit samples at 16 kHz


def wav(
    seconds: int, stated: int | None = None, align: int = 2, tag: int = 1, bits: int = 16, rate: int = 16_000
) -> bytes:
    size = seconds * rate * bits // 8
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, tag, 1, rate, rate * align, align, bits)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", size if stated is None else stated) + bytes(size)
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def aiff(seconds: int, frames: int | None = None) -> bytes:
    frames = seconds * 16_000 if frames is None else frames
    common = struct.pack(">4sIhIhHQ", b"COMM", 18, 1, frames, 16, 16383 + 13, 16_000 << 50)
    body = b"AIFF" + common + struct.pack(">4sI", b"SSND", seconds * SECOND) + bytes(seconds * SECOND)
    return struct.pack(">4sI", b"FORM", len(body)) + body


def flac(seconds: int, samples: int) -> bytes:
    """As large as such a file is usually: 0.5 of its samples."""
    info = bytes(10) + (16_000 << 44 | 0 << 41 | 15 << 36 | samples).to_bytes(8, "big") + bytes(16)
    return b"fLaC" + struct.pack(">I", 1 << 31 | 34) + info + bytes(seconds * SECOND // 2)


AAC = aac_block(256)


def crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x107) if crc & 128 else crc << 1
    return crc


def flac_frames(frames: int, samples: int, rate: int = 16_000) -> bytes:
    """Frames of 4,096 samples at 16 kHz in 1,000 bytes. `samples` and `rate`: of STREAMINFO."""
    info = bytes(10) + (rate << 44 | 0 << 41 | 15 << 36 | samples).to_bytes(8, "big") + bytes(16)
    head = b"fLaC" + struct.pack(">I", 1 << 31 | 34) + info
    made = []
    for number in range(frames):
        start = b"\xff\xf8\xc5\x08" + (bytes([number]) if number < 128 else chr(number).encode())
        made.append((start + bytes([crc8(start)])).ljust(1000, b"\x55"))
    return head + b"".join(made)


def mp3(frames: int, before: bytes = b"") -> bytes:
    """MPEG-2 layer 3, 32 kbit/s at 16 kHz: 36 ms in 144 bytes."""
    return before + (b"\xff\xf3\x48\xc0" + bytes(140)) * frames


def adts(frames: int) -> bytes:
    """128 bytes with 1,024 samples at 16 kHz."""
    return (b"\xff\xf1\x60\x40\x10\x1f\xfc" + aac_block(121)) * frames


def page(serial: int, flags: int, granule: int, packets: list[bytes]) -> bytes:
    table = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
    head = struct.pack("<4sBBqIIIB", b"OggS", 0, flags, granule, serial, 0, 0, len(table))
    return head + table + b"".join(packets)


def opus(seconds: int, granule: int) -> bytes:
    """Packets of 20 ms and 60 bytes, 50 in a page."""
    head = page(7, 2, 0, [b"OpusHead" + bytes(11)]) + page(7, 0, 0, [b"OpusTags" + bytes(8)])
    return head + page(7, 0, granule, [b"\x48" + bytes(59)] * 50) * seconds


def vorbis(seconds: int, granule: int) -> bytes:
    """Long blocks of 2,048 samples: 1,024 new ones in each packet, at 16 kHz."""
    first = page(7, 2, 0, [b"\x01vorbis" + struct.pack("<IBIIIIBB", 0, 1, 16_000, 0, 0, 0, 0xB8, 1)])
    head = first + page(7, 0, 0, [b"\x03vorbis", b"\x05vorbis"])
    return head + page(7, 0, granule, [bytes(100)] * 125) * (seconds // 8)


def box(name: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", len(body) + 8, name) + body


def m4a(frames: int, stated: int, scale: int = 1000, said: int = 16_000, told: bool = False) -> bytes:
    """AAC at 16 kHz: 1,024 samples in 256 bytes. `stated`: of `mvhd`. `said`: the rate of its entry.

    `told`: with what its decoder is told.
    """
    config = b"\x05\x02\x14\x08"  # AAC-LC, 16 kHz, one channel
    decoder = b"\x04\x80\x80\x80" + bytes([13 + len(config)]) + b"\x40\x15" + bytes(11) + config
    esds = box(b"esds", bytes(4), b"\x03", bytes([3 + len(decoder)]), bytes(3), decoder) if told else b""
    entry = box(b"mp4a", bytes(24), struct.pack(">I", said << 16), esds)
    table = box(
        b"stbl",
        box(b"stsd", struct.pack(">II", 0, 1), entry),
        box(b"stsz", struct.pack(">III", 0, 0, frames), struct.pack(">I", 256) * frames),
    )
    sound = box(b"trak", box(b"mdia", box(b"hdlr", bytes(8), b"soun", bytes(12)), box(b"minf", table)))
    picture = box(b"trak", box(b"mdia", box(b"hdlr", bytes(8), b"vide", bytes(12)), box(b"minf", table)))
    clock = box(b"mvhd", bytes(12), struct.pack(">II", scale, stated), bytes(80))
    return box(b"ftyp", b"M4A ") + box(b"moov", clock, picture, sound) + box(b"mdat", AAC * frames)


def fragments(number: int, frames: int) -> bytes:
    """Fragments of the first track, with AAC of 256 bytes a frame."""
    head = box(b"tfhd", b"\0\0\0\x10", struct.pack(">II", 0, 256))
    run = box(b"traf", head, box(b"trun", b"\0\0\0\1", struct.pack(">II", frames, 68)))
    return (box(b"moof", run) + box(b"mdat", AAC * frames)) * number


def asf(size: int, milliseconds: int) -> bytes:
    properties = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365") + bytes(48)
    return (
        bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
        + bytes(14)
        + properties
        + struct.pack("<QQQ", milliseconds * 10_000, 0, 0)
        + bytes(size)
    )


def element(name: str, *content: bytes, unknown: bool = False) -> bytes:
    body = b"".join(content)
    size = b"\x01\xff\xff\xff\xff\xff\xff\xff" if unknown else (len(body) | 1 << 56).to_bytes(8, "big")
    return bytes.fromhex(name) + size + body


def webm(
    blocks: list[bytes], codec: bytes = b"A_OPUS", each: int = 20, private: bytes = b"", rate: float = 48_000.0
) -> bytes:
    """As browsers record it: in clusters of 50 blocks, of whose sizes nothing is known. `each`: milliseconds of one."""
    described = [element("d7", b"\1"), element("83", b"\2"), element("86", codec), element("63a2", private)]
    described.append(
        element("e1", element("b5", struct.pack(">d", rate)), element("9f", b"\1"), element("6264", b"\x10"))
    )
    picture = element("ae", element("d7", b"\2"), element("83", b"\1"), element("86", b"V_VP8"))
    clusters = []
    for start in range(0, len(blocks), 50):
        made = [
            element("a3", b"\x81", struct.pack(">h", index * each), b"\x80", block)
            + element("a3", b"\x82\0\0\x80", block)
            for index, block in enumerate(blocks[start : start + 50])
        ]
        clusters.append(element("1f43b675", element("e7", (start * each).to_bytes(4, "big")), *made, unknown=True))
    tracks = element("1654ae6b", picture, element("ae", *described))
    head = element("1a45dfa3", element("4282", b"webm"))
    return head + element(
        "18538067", element("1549a966", element("2ad7b1", b"\x0f\x42\x40")), tracks, *clusters, unknown=True
    )


def laced(codec: bytes, flags: bytes, *frames: bytes) -> bytes:
    """A file of 1,000 blocks in groups, each of which has several frames."""
    tracks = element("1654ae6b", element("ae", element("d7", b"\1"), element("83", b"\2"), element("86", codec)))
    group = element("a0", element("a1", b"\x81\0\0", flags, *frames))
    return element("1a45dfa3") + element("18538067", tracks, element("1f43b675", *[group] * 1000))


DTS = b"\x7f\xfe\x80\x01" + (1 << 63 | 15 << 50 | 1999 << 36 | 13 << 26).to_bytes(8, "big") + bytes(1988)  # 512 samples
OPUS = b"\x48" + bytes(59)  # 20 ms
AAC_CONFIG = b"\x14\x08"  # AAC-LC, 16 kHz, one channel
VORBIS = b"\x02\x1e\x00" + b"\x01vorbis" + struct.pack("<IBIIIIBB", 0, 1, 16_000, 0, 0, 0, 0xB8, 1)

HONEST = {
    "wav": (wav(100), 100),
    "wav without a size": (wav(100, 0xFFFFFFFF), 100),
    "wav in A-law": (wav(100, tag=6, bits=8, rate=8000), 100),
    "aiff": (aiff(100), 100),
    "flac by its frames": (flac_frames(300, 300 * 4096), 76.8),
    "mp3": (mp3(1000), 36),
    "mp3 in wav": (wav(0, tag=0x55) + mp3(1000), 36),
    "mp3 with a cover": (mp3(1000, b"ID3\x04\x00\x00\x00\x00\x78\x00" + bytes(0x78 << 7)), 36),
    "aac": (adts(1000), 64),
    "opus": (opus(100, 4_800_000), 100),
    "vorbis": (vorbis(80, 1_250_000), 80),
    "m4a": (m4a(1000, 64_000), 64),
    "m4a with the decoder's rate": (m4a(1000, 64_000, told=True), 64),
    "m4a in fragments": (m4a(0, 0, told=True) + fragments(100, 10), 64),
    "webm": (webm([OPUS] * 5000), 100),
    "webm of longer packets": (webm([b"\x4b\x03" + bytes(170)] * 1000, each=60), 60),
    "webm with vorbis": (webm([bytes(100)] * 1000, b"A_VORBIS", 64, VORBIS), 64),
    "webm with frames of one size": (laced(b"A_OPUS", b"\x04\x02", OPUS, OPUS, OPUS), 60),
    "webm with frames as in ogg": (laced(b"A_OPUS", b"\x02\x02\x3c\x3c", OPUS, OPUS, OPUS), 60),
    "webm with frames by difference": (laced(b"A_OPUS", b"\x06\x02\xbc\xbf", OPUS, OPUS, OPUS), 60),
    "matroska with aac": (webm([AAC] * 1000, b"A_AAC", 64, AAC_CONFIG, 16_000.0), 64),
    "matroska with mp3": (webm([b"\xff\xf3\x48\xc0" + bytes(140)] * 1000, b"A_MPEG/L3", 36, rate=48_000.0), 36),
    "matroska with samples": (webm([bytes(3200)] * 1000, b"A_PCM/INT/LIT", 100, rate=16_000.0), 100),
    "matroska with dts": (webm([DTS] * 1000, b"A_DTS", 11), 10.667),
}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_file_is_as_long_as_it_states(name: str) -> None:
    content, seconds = HONEST[name]
    assert audio_length(content).milliseconds == pytest.approx(seconds * 1000, rel=0.002)


LIES = {
    "wav of 8 bytes": (wav(100, 8), 100),
    "wav with large blocks": (wav(100, align=60_000), 100),
    "wav in two chunks": (wav(1) + wav(99)[36:], 100),
    "wav of many samples": (wav(100)[:24] + b"\xff" * 4 + wav(100)[28:], 800),
    "aiff of one frame": (aiff(100, 1), 100),
    "flac of few samples": (flac_frames(300, 16_000 * 20), 76.8),
    "flac of many samples a second": (flac_frames(300, 384_000 * 4, 384_000), 76.8),
    "mp3 of slower frames": (mp3(1) + (b"\xff\xe3\x18\xc0" + bytes(68)) * 1000, 72.036),
    "mp3 with garbage behind a frame": (mp3(1) + b"\xff" + bytes(400_000), 100),
    "mp3 of another kind": (mp3(1) + b"\xff\xfb\x90\xc0" + bytes(400_000), 100),
    "opus that has not begun": (opus(100, 10), 100),
    "vorbis that has not begun": (vorbis(80, 10), 80),
    "vorbis of many samples": (vorbis(80, 10)[:40] + b"\xff" * 4 + vorbis(80, 10)[44:], 31.64),
    "m4a of one unit": (m4a(1000, 1), 64),
    "m4a of quick units": (m4a(1000, 64_000, 2**32 - 1), 64),
    "m4a at a higher rate": (m4a(1000, 22_000, said=48_000, told=True), 64),
    "m4a with a second table": (m4a(1000, 64_000, told=True) + m4a(1, 64, told=True), 64),
    "m4a with fragments": (m4a(10, 640, told=True) + fragments(99, 10), 64),
    "matroska": (b"\x1aE\xdf\xa3" + bytes(400_000), 100),
    "webm without times": (webm([OPUS] * 5000, each=0), 100),
    "webm with a second description": (
        webm([OPUS] * 5000).replace(b"\x16\x54\xae\x6b", element("ec", bytes(9)) + b"\x16\x54\xae\x6b")
        + element("1654ae6b", element("ae", element("d7", b"\1"), element("83", b"\1"))),
        100,
    ),
    "webm with a hole": (webm([OPUS] * 2500) + bytes(64) + webm([OPUS] * 2500), 100),
    "matroska with aac at a higher rate": (webm([AAC] * 1000, b"A_AAC", 64, AAC_CONFIG, 96_000.0), 64),
    "matroska with samples of no size": (webm([bytes(4000)] * 100, b"A_PCM/INT/LIT", 0, rate=-1.0), 100),
    "nothing": (bytes(400_000), 100),
}


@pytest.mark.parametrize("name", LIES)
def test_a_header_is_believed_only_as_far_as_the_bytes_allow(name: str) -> None:
    content, seconds = LIES[name]
    assert audio_length(content).milliseconds == pytest.approx(seconds * 1000, rel=0.02)


UNCOUNTED = {
    "flac without frames": flac(100, 1),
    "flac without frames that says how long it is": flac(100, 1_600_000),
    "wma without payloads": asf(1_600_000, 1),
    "matroska with another codec": webm([bytes(2000)] * 801, b"A_TRUEHD", 100),
    "matroska with another codec that takes no time": webm([bytes(2000)] * 800, b"A_TRUEHD", 0),
    "aac of several frames in each packet": webm([bytes(16_000)] * 100, b"A_AAC", 64, AAC_CONFIG, 16_000.0),
    "m4a of another codec": m4a(6250, 1).replace(b"mp4a", b"xyza"),
}


@pytest.mark.parametrize("name", UNCOUNTED)
def test_what_cannot_be_counted_is_estimated_by_its_size_whatever_its_header_states(name: str) -> None:
    """100 seconds at 128 kbit/s. It is held as for 32 kbit/s, until it is known what was said."""
    found = audio_length(UNCOUNTED[name])
    assert found.usual == pytest.approx(100_000, rel=0.05) and found.milliseconds == pytest.approx(400_000, rel=0.05)
    assert found.least < 2_000 and found.most > 10_000_000


def test_a_header_makes_what_cannot_be_counted_longer() -> None:
    """1,000 blocks of 200 bytes, one each 100 ms."""
    assert audio_length(webm([bytes(200)] * 1000, b"A_TRUEHD", 100)).usual == pytest.approx(100_000, rel=0.01)


@pytest.mark.parametrize("name", HONEST)
def test_a_file_that_is_cut_off_has_a_length(name: str) -> None:
    content, _ = HONEST[name]
    for size in (*range(200), 1000, len(content) // 2):
        assert audio_length(content[:size]).milliseconds >= 1


def test_a_file_is_at_least_as_long_as_its_frames_and_a_tag_behind_them_is_none() -> None:
    found = audio_length(mp3(1000) + b"APETAGEX" + bytes(400_000))
    assert found.least == pytest.approx(0.9 * 36_000, rel=0.01) and found.milliseconds > 100_000


def test_what_is_built_to_take_long_is_not_read_to_its_end_and_counts_by_its_size() -> None:
    """Empty segments, syncs without frames, boxes and chunks of no size."""
    size = 4_000_000
    pages = opus(1, 0) + page(7, 0, 0, [b""] * 255) * (size // 282)
    boxes = box(b"ftyp", b"M4A ") + box(b"moov", box(b"free") * (size // 8))
    for content in (
        pages,
        mp3(1) + b"\xff" * size,
        boxes,
        wav(0) + struct.pack("<4sI", b"junk", 0) * (size // 8),
    ):
        assert audio_length(content).milliseconds >= size // SECOND * 1000
