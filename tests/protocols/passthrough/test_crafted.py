"""Recordings that are built to look shorter than decoders make of them.

Each is as long as FFmpeg 5.1 decodes it, or it is told that it cannot be measured.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from relay.protocols.passthrough.audio import audio_length
from relay.protocols.passthrough.codecs.aac_blocks import block_end
from relay.protocols.passthrough.codecs.mpeg import mpeg_frame
from tests.support.peers.sounds import aac_block, adts_frame, box, esds, loas_frame, m4a

FOLDER = Path(__file__).parent / "recordings"  # two seconds each
RATE = 8  # the index of 16 kHz


def content(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def blocks() -> list[bytes]:
    """The blocks of two seconds of AAC, as FFmpeg writes them."""
    found, at, whole = list[bytes](), 0, content("aac.aac")
    while (size := mpeg_frame(whole, at)[0]) > 0:
        found.append(whole[at + 7 : at + size])
        at += size
    return found


def packed(number: int = 4) -> list[bytes]:
    """The same, several in each packet."""
    made = blocks()
    return [b"".join(made[at : at + number]) for at in range(0, len(made), number)]


def wav(data: bytes, channels: int = 2, rate: int = 384_000) -> bytes:
    """16-bit samples, of which a second has more bytes than the file."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, rate * 2 * channels, 2 * channels, 16)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", len(data)) + data
    return struct.pack("<4sI", b"RIFF", len(body)) + body


COUNTED = {
    "aac in mp4": (m4a(blocks(), esds(RATE)), 2.112),
    "aac in mp4, each sample in five chunks": (m4a(blocks(), esds(RATE), places=[*range(33)] * 5), 10.56),
    "aac in mp4 from its second frame on": (m4a(blocks(), esds(RATE), edits=[(2000, 1024)]), 2.112),
    "aac in mp4 after a pause": (m4a(blocks(), esds(RATE), edits=[(500, -1), (2112, 0)]), 2.112),
    "aac in mp4, in two halves": (m4a(blocks(), esds(RATE), edits=[(1000, 0), (1000, 16_000)]), 2.112),
    "aac in loas": (b"".join(loas_frame(block) for block in blocks()), 2.112),
    "aac in loas that is described once": (
        b"".join(loas_frame(block, told=not number) for number, block in enumerate(blocks())),
        2.112,
    ),
    "aac in loas with two blocks a frame": (b"".join(loas_frame(block, blocks=2) for block in blocks()), 4.224),
    "mp3 where samples are said to be": (wav(content("mp3.mp3")), 2.088),
    "aac where samples are said to be": (wav(content("aac.aac")), 2.112),
    "ac-3 where samples are said to be": (wav(b"".join([content("ac3.ac3")] * 3)), 6.0),
    "samples": (wav(bytes(range(256)) * 250, 1, 16_000), 2.0),
    "mp3 with a tag behind it": (
        content("mp3.mp3") + b"APETAGEX" + struct.pack("<IIII8x", 2000, 70_000, 1, 1 << 31 | 1 << 29) + bytes(70_000),
        2.12,
    ),
    "mp3 with a title in its middle": (
        content("mp3.mp3") + b"ID3\4\0\0\0\4\0\0" + bytes(65_536) + content("mp3.mp3"),
        4.2,
    ),
    "mp3 behind other bytes": (bytes(5000) + content("mp3.mp3"), 2.12),
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTED)
def test_it_is_as_long_as_decoders_make_it(name: str) -> None:
    made, seconds = COUNTED[name]
    found = audio_length(made)
    assert found.milliseconds == pytest.approx(1000 * seconds, rel=0.03) and not found.usual


UNMEASURED = {
    "aac of four blocks in each sample": m4a(packed(), esds(RATE)),
    "aac of six small blocks in each sample": m4a([aac_block(100) * 6] * 40, esds(RATE)),
    "aac of four blocks in each frame": b"".join(adts_frame(block) for block in packed()),
    "aac in loas, four blocks in each": b"".join(loas_frame(block) for block in packed()),
    "aac of several blocks in some frames": b"".join(map(adts_frame, [*blocks(), *packed(), *blocks()])),
    "aac that is played five times": m4a(blocks(), esds(RATE), edits=[(2112, 0)] * 5),
    "aac that is cut up": m4a(blocks(), esds(RATE), edits=[(10, 0)] * 100),
    "aac that is described twice": m4a(blocks(), box(b"free", esds(0)) + esds(RATE)),
    "aac of another kind": m4a(blocks(), esds(RATE, 23)),
    "frames before a film": content("mp3.mp3") + bytes(4_000_000),
    "bursts where samples are said to be": wav(b"\x72\xf8\x1f\x4e" + bytes(40_000)),
    "a list of other files": b"#EXTM3U\n#EXTINF:10,\ndata:audio/aac;base64,AAAA\n",
    "an unknown container": b"\x93NEW" + bytes(100_000),
    "nothing but zeros": bytes(100_000),
}


@pytest.mark.parametrize("name", UNMEASURED)
def test_it_is_told_that_it_cannot_be_measured(name: str) -> None:
    assert audio_length(UNMEASURED[name]).usual


def test_each_block_of_a_recording_ends_where_the_next_frame_begins() -> None:
    made = blocks()
    assert len(made) == 33
    for block in made:
        assert block_end(block, 0, len(block), 2, RATE) == len(block)
        twice = block + made[0]
        assert block_end(twice, 0, len(twice), 2, RATE) == len(block)
        assert block_end(twice, len(block), len(twice), 2, RATE) == len(twice)


@pytest.mark.parametrize("size", [*range(6, 40), 128, 249, 270, 300, 700])
def test_a_block_that_is_filled_up_ends_behind_that(size: int) -> None:
    block = aac_block(size)
    assert len(block) == size and not any(block[block_end(block, 0, size, 2, RATE) :])


def test_what_is_no_block_ends_nowhere() -> None:
    made = blocks()[5]
    assert block_end(bytes(300), 0, 300, 2, RATE) == 0
    assert block_end(made, 0, len(made) // 2, 2, RATE) == 0
    assert block_end(b"", 0, 0, 2, RATE) == 0


@pytest.mark.parametrize("name", [*COUNTED, *UNMEASURED])
def test_one_that_breaks_off_has_a_length(name: str) -> None:
    made = COUNTED[name][0] if name in COUNTED else UNMEASURED[name]
    for end in (1, 7, 30, 100, len(made) // 2, len(made) - 1):
        found = audio_length(made[:end])
        assert 1 <= found.least <= max(found.milliseconds, found.least)


def page(packets: list[bytes], begins: bool = False) -> bytes:
    """A page of Ogg."""
    table = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
    head = struct.pack("<4sBBqIIIB", b"OggS", 0, 2 if begins else 0, 0, 7, 0, 0, len(table))
    return head + table + b"".join(packets)


def vorbis(setup: bytes) -> bytes:
    """1,000 packets at 16 kHz, of blocks of 2,048 samples, or of 256 if their modes say so."""
    first = b"\x01vorbis" + struct.pack("<IBIIIIBB", 0, 1, 16_000, 0, 0, 0, 0xB8, 1)
    return page([first], True) + page([b"\x03vorbis", b"\x05vorbis" + setup]) + page([bytes(100)] * 100) * 10


def test_modes_behind_those_of_vorbis_make_it_no_shorter() -> None:
    """They stand at the end, where nothing tells them from what decoders do not read: 64 of short blocks."""
    end = 6 + 64 * 41
    short = (63 | 1 << end).to_bytes(end // 8 + 1, "little")
    assert audio_length(vorbis(b"")).milliseconds == pytest.approx(64_000, rel=0.01)
    assert audio_length(vorbis(short)).usual
