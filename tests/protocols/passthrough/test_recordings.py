"""Files as FFmpeg writes them: their length is what decoders make of them, whatever their headers state.

The expected lengths of joined files are those that FFmpeg decodes, but for WAV, of which it reads the first part alone.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.protocols.passthrough.audio import audio_length

FOLDER = Path(__file__).parent / "recordings"
NAMES = sorted(path.name for path in FOLDER.iterdir() if path.suffix != ".md")
MOMENT = 1  # whatever unit a header has
# Decoders read these through when they are joined; of the others, only what comes first.
JOINED = (
    "aac.aac", "aac.mkv", "ac3.mkv", "alac.mkv", "flac.flac", "flac.mkv", "flac.ogg", "mp3.mkv", "mp3.mp3",
    "opus.ogg", "opus.webm", "speex.ogg", "vorbis.ogg", "vorbis.webm", "aac-fragments.mp4", "opus-fragments.mp4",
    "mp3.wav", "ima.wav", "g726.wav", "ac3.wav", "gsm.wav", "aac.latm", "aac.ts", "latm.ts", "ac3.ac3", "eac3.eac3",
    "ac3.m2ts", "mp2.mpg", "ac3.mpg", "mp3.avi",
)  # fmt: skip


def content(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def patched(found: bytes, mark: bytes, *members: tuple[int, bytes]) -> bytes:
    """The file with other bytes at these places after each occurrence of a mark."""
    out = bytearray(found)
    at = found.find(mark)
    while at >= 0:
        for offset, value in members:
            place = at + len(mark) + offset
            out[place : place + len(value)] = value
        at = found.find(mark, at + 1)
    return bytes(out)


def mp4(found: bytes) -> bytes:
    """Its clocks, the time of each sample, and of those of fragments."""
    moment = struct.pack(">I", MOMENT)
    found = patched(found, b"mvhd", (16, moment))
    found = patched(found, b"mdhd", (16, moment))
    found = patched(found, b"tkhd", (20, moment))
    return patched(found, b"stts", (12, moment))


def asf(found: bytes) -> bytes:
    """When it ends, how long it is to be sent, and the bytes of a second that are stated of MP3."""
    short = struct.pack("<Q", MOMENT)
    mark = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
    return patched(found, mark, (48, short), (56, short), (64, bytes(8)))


def matroska(found: bytes) -> bytes:
    """The length of the segment, and the unit of all times: a nanosecond."""
    return patched(patched(found, b"\x44\x89\x88", (0, bytes(8))), b"\x2a\xd7\xb1\x83", (0, b"\0\0\1"))


def ogg(found: bytes) -> bytes:
    return patched(found, b"OggS", (2, struct.pack("<q", MOMENT)))


def flac(found: bytes) -> bytes:
    """The number of samples in STREAMINFO."""
    return found[:21] + bytes([found[21] & 0xF0]) + bytes(3) + b"\1" + found[26:]


def mp3(found: bytes) -> bytes:
    """The frames and bytes of the header that Xing named."""
    found = patched(found, b"Info", (4, bytes(3) + b"\1"), (8, bytes(3) + b"\1"))
    return patched(found, b"Xing", (4, bytes(3) + b"\1"), (8, bytes(3) + b"\1"))


def caf(found: bytes) -> bytes:
    """The number of packets and of frames in the packet table; or the size of samples."""
    if b"pakt" in found:
        return patched(found, b"pakt", (8, struct.pack(">qq", MOMENT, MOMENT)))
    return patched(found, b"data", (0, struct.pack(">q", 68)))


def wav(found: bytes) -> bytes:
    return patched(patched(found, b"data", (0, struct.pack("<I", 100))), b"fact", (4, b"\1\0\0\0"))


LIES: dict[str, Callable[[bytes], bytes]] = {
    ".mp4": mp4, ".m4a": mp4, ".mov": mp4, ".wma": asf, ".asf": asf, ".mkv": matroska, ".webm": matroska,
    ".ogg": ogg, ".flac": flac, ".mp3": mp3, ".caf": caf, ".wav": wav,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_is_counted(name: str) -> None:
    found = audio_length(content(name))
    assert 1990 <= found.milliseconds <= 2150 and not found.usual
    assert 0.89 * found.milliseconds <= found.least <= found.milliseconds <= found.most <= 1.11 * found.milliseconds


@pytest.mark.parametrize("name", [name for name in NAMES if Path(name).suffix in LIES])
def test_no_header_makes_it_shorter(name: str) -> None:
    told = LIES[Path(name).suffix](content(name))
    assert told != content(name)
    assert audio_length(told).milliseconds == pytest.approx(audio_length(content(name)).milliseconds, rel=0.03)


@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_joined(name: str) -> None:
    one, three = audio_length(content(name)), audio_length(3 * content(name))
    times = 3 if name in JOINED or name == "ulaw.caf" else 1
    assert three.milliseconds == pytest.approx(times * one.milliseconds, rel=0.03)


def test_a_chain_of_ogg_may_have_other_codecs_and_the_same_serial_number_again() -> None:
    chain = b"".join(content(name) for name in ("opus.ogg", "vorbis.ogg", "vorbis.ogg", "speex.ogg", "flac.ogg"))
    assert audio_length(chain).milliseconds == pytest.approx(10_160, rel=0.01)
    renamed = content("opus.ogg").replace(b"\0\0\0\0OggS", b"OggS")
    assert audio_length(renamed * 100).milliseconds == pytest.approx(202_000, rel=0.01)


def test_streams_of_ogg_that_sound_together_are_as_long_as_the_longest() -> None:
    """Their first pages come first."""
    first, second = content("opus.ogg"), patched(content("flac.ogg"), b"OggS", (10, b"\7"))
    one, two = first.find(b"OggS", 1), second.find(b"OggS", 1)
    film = first[:one] + second[:two] + first[one:] + second[two:]
    assert audio_length(film).milliseconds == pytest.approx(2020, rel=0.01)


@pytest.mark.parametrize("name", ["aac.m4a", "opus.mp4", "ac3.mp4"])
def test_a_second_table_of_samples_is_not_believed(name: str) -> None:
    """A decoder takes one of them: which one is not known."""
    found = content(name)
    size = struct.pack(">I4sIII", 24, b"stsz", 0, 100, 1) + struct.pack(">I", 0)
    at = found.index(b"stbl") + 4
    whole = found[:at] + size + found[at:]
    for box in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        place = found.index(box) - 4
        whole = whole[:place] + struct.pack(">I", struct.unpack_from(">I", found, place)[0] + 24) + whole[place + 4 :]
    length = audio_length(whole)
    assert length.usual and length.milliseconds >= 1000


def test_a_recording_beside_one_that_cannot_be_counted_is_no_shorter_than_either() -> None:
    """Two tracks, of which one is in a codec that is not known here."""
    found = content("aac.mkv")
    other = found.replace(b"A_AAC", b"A_XYZ")
    tracks = other.index(b"\x16\x54\xae\x6b")
    assert audio_length(other).usual and audio_length(found + other[:tracks] + found[tracks:]).milliseconds > 4000


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_that_breaks_off_has_a_length(name: str) -> None:
    found = content(name)
    for end in (*range(1, 200, 7), len(found) // 2, len(found) - 1):
        length = audio_length(found[:end])
        assert 1 <= length.least <= max(length.milliseconds, length.least) <= max(length.most, length.milliseconds)
