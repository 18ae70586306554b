"""The seconds of speech, counted as it arrives: in pieces of any size, and where it breaks off."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from relay.protocols.passthrough.audio import audio_length
from relay.protocols.passthrough.speech import Speech

FOLDER = Path(__file__).parent / "recordings"  # two seconds each
MEASURED = ("mp3.mp3", "aac.aac", "opus.ogg", "vorbis.ogg", "flac.ogg", "flac.flac", "opus.webm", "aac-fragments.mp4",
            "aac.m4a", "opus.caf", "alac.mkv")  # fmt: skip
STREAMED = ("mp3.mp3", "aac.aac", "opus.ogg", "vorbis.ogg", "flac.flac")


def content(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def heard(sound: bytes, each: int, content_type: str = "") -> float:
    found = Speech(content_type)
    for at in range(0, len(sound), each):
        found.add(sound[at : at + each])
    assert found.size == len(sound)
    return found.seconds


@pytest.mark.parametrize("each", [1, 7, 1000, 10**6])
@pytest.mark.parametrize("name", MEASURED)
def test_a_recording_is_counted_in_pieces_of_any_size(name: str, each: int) -> None:
    assert heard(content(name), each) == pytest.approx(audio_length(content(name)).milliseconds / 1000, rel=0.02)


@pytest.mark.parametrize("each", [100, 5000])
@pytest.mark.parametrize("name", STREAMED)
def test_a_long_answer_is_as_long_as_its_parts(name: str, each: int) -> None:
    """Also where most of it is silence, or much louder than its beginning."""
    assert heard(content(name) * 30, each) == pytest.approx(60.8, rel=0.06)


@pytest.mark.parametrize("name", STREAMED)
def test_of_one_that_breaks_off_what_arrived_is_counted(name: str) -> None:
    whole = content(name) * 10
    half = heard(whole[: len(whole) // 2], 777)
    assert half == pytest.approx(audio_length(whole).milliseconds / 2000, rel=0.06)
    assert heard(whole[:3], 3) >= 0


def wave(rate: int, seconds: int) -> bytes:
    form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, rate, rate * 2, 2, 16)
    return b"RIFF\xff\xff\xff\xffWAVE" + form + b"data\xff\xff\xff\xff" + bytes(seconds * rate * 2)


SAMPLES = {
    "wav": (wave(24_000, 10), "audio/wav"),
    "wav of another type": (wave(48_000, 10), "audio/pcm"),
    "pcm": (bytes(480_000), "audio/pcm"),
    "pcm at its rate": (bytes(320_000), "audio/L16; rate=16000"),
    "g.711": (bytes(80_000), "audio/basic"),
    "nothing": (bytes(480_000), ""),
}


@pytest.mark.parametrize("each", [13, 10_000])
@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_counted_by_their_size(name: str, each: int) -> None:
    sound, content_type = SAMPLES[name]
    assert heard(sound, each, content_type) == pytest.approx(10, rel=0.001)


@pytest.mark.parametrize("size", [0, 1, 5, 43, 4095, 4096, 4097])
@pytest.mark.parametrize(
    "mark", [b"OggS", b"fLaC", b"ID3\4\0\0\0\0\1\0", b"\xff\xfb\x90\xc4", b"RIFF\0\0\0\0WAVE", b""]
)
def test_what_is_cut_in_the_middle_of_a_head_has_a_length(mark: bytes, size: int) -> None:
    sound = (mark + bytes(5000))[:size]
    assert heard(sound, 3) >= 0 if sound else heard(sound, 3) == 0
