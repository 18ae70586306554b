"""The length of audio in containers of samples and packets, and what is charged of those that cannot be read."""

from __future__ import annotations

import struct

import pytest

from relay.protocols.passthrough.audio import audio_length
from relay.protocols.passthrough.requests import parse_transcription
from tests.support.peers.sounds import aac_block

SECOND = 32_000  # bytes of 16-bit samples at 16 kHz
FORM = struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16)
WAVE_GUID = bytes.fromhex("f3acd3118cd100c04f8edb8a")


def rf64(seconds: int, mark: bytes = b"RF64", stated: int | None = None, after: int = 0) -> bytes:
    size = seconds * SECOND
    large = struct.pack("<QQQI", size + 80, size if stated is None else stated, seconds * 16_000, 0)
    body = b"WAVE" + struct.pack("<4sI", b"ds64", 28) + large + struct.pack("<4sI", b"fmt ", 16) + FORM
    return mark + b"\xff" * 4 + body + struct.pack("<4sI", b"data", 0xFFFFFFFF) + bytes(size + after)


def wave64(seconds: int, stated: int | None = None) -> bytes:
    size = seconds * SECOND if stated is None else stated
    head = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000") + struct.pack("<Q", size + 104)
    form = b"fmt " + WAVE_GUID + struct.pack("<Q", 40) + FORM
    return (
        head + b"wave" + WAVE_GUID + form + b"data" + WAVE_GUID + struct.pack("<Q", size + 24) + bytes(seconds * SECOND)
    )


def caf(
    seconds: int, size: int | None = None, kind: bytes = b"lpcm", packets: int | None = None, bytes_: int = 0
) -> bytes:
    each = (2, 1, 1, 16) if kind == b"lpcm" else (0, 1024, 1, 0)
    form = struct.pack(">d4sIIIII", 16_000.0, kind, 0, *each)
    sizes = b"" if packets is None else b"\x81\x7a" * (bytes_ // 250)  # as many as there are
    count = packets or 0
    table = b"" if packets is None else struct.pack(">4sqqqii", b"pakt", 24 + len(sizes), count, count, 0, 0) + sizes
    content = bytes(seconds * SECOND) if kind == b"lpcm" else aac_block(250) * (bytes_ // 250)
    stated = 4 + len(content) if size is None else size
    data = struct.pack(">4sqI", b"data", stated, 0)
    return b"caff\0\1\0\0" + struct.pack(">4sq", b"desc", 32) + form + table + data + content


def wav_of(seconds: int, tag: int, bits: int, rate: int, each_second: int, second: bytes = b"") -> bytes:
    """`second`: another description."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, tag, 1, rate, each_second, 1, bits)
    form += struct.pack("<4sI", b"fmt ", 16) + second if second else b""
    size = seconds * each_second
    return b"RIFF" + struct.pack("<I", size + 60) + b"WAVE" + form + struct.pack("<4sI", b"data", size) + bytes(size)


def au(seconds: int, order: str = ">", encoding: int = 3, rate: int = 16_000, size: int = 0xFFFFFFFF) -> bytes:
    mark = b".snd" if order == ">" else b"dns."
    width = 2 if encoding == 3 else 1
    return mark + struct.pack(f"{order}5I", 28, size, encoding, rate, 1) + bytes(4) + bytes(seconds * rate * width)


def amr(seconds: int, mark: bytes = b"#!AMR\n", frame: bytes = b"\x3c" + bytes(31)) -> bytes:
    return mark + frame * (seconds * 50)


HONEST = {
    "rf64": (rf64(60), 60),
    "bw64": (rf64(60, b"BW64"), 60),
    "rf64 without its size": (rf64(60, stated=0), 60),
    "rf64 with a chunk behind the audio": (rf64(60, after=50_000), 60),
    "wave64": (wave64(60), 60),
    "wave64 without its size": (wave64(60, 0), 60),
    "caf": (caf(60), 60),
    "caf to the end of the file": (caf(60, -1), 60),
    "aac in caf": (caf(0, kind=b"aac ", packets=1000, bytes_=250_000), 64),
    "au": (au(60), 60),
    "au in A-law": (au(60, encoding=27, rate=8000), 60),
    "au in the other order": (au(60, "<", size=60 * SECOND), 60),
    "amr": (amr(60), 60),
    "amr at its lowest rate": (amr(60, frame=b"\x04" + bytes(12)), 60),
    "amr with pauses": (b"#!AMR\n" + (b"\x3c" + bytes(31) + b"\x44" + bytes(5) + b"\x7c") * 1000, 60),
    "amr-wb": (amr(60, b"#!AMR-WB\n", b"\x44" + bytes(60)), 60),
    "amr of two channels": (amr(60, b"#!AMR_MC1.0\n\0\0\0\2"), 30),
}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_file_is_measured(name: str) -> None:
    content, seconds = HONEST[name]
    found = audio_length(content)
    assert found.milliseconds == pytest.approx(seconds * 1000, rel=0.01) and not found.usual


LYING = {
    "rf64 that states a second": rf64(60, stated=SECOND),
    "wave64 that states a second": wave64(60, SECOND),
    "caf that states a second": caf(60, 4 + SECOND),
    "au that states a second": au(60, size=SECOND),
}


@pytest.mark.parametrize("name", LYING)
def test_a_size_that_leaves_the_audio_out_is_not_believed(name: str) -> None:
    assert audio_length(LYING[name]).milliseconds == 60_000


@pytest.mark.parametrize("packets", [0, -1, 1, 2**40])
def test_the_number_of_packets_that_is_stated_is_not_believed(packets: int) -> None:
    found = audio_length(caf(0, kind=b"aac ", packets=packets, bytes_=400_000))
    assert found.milliseconds == pytest.approx(102_400, rel=0.01)


FORMS = {
    "g.726 of two bits": (wav_of(60, 0x45, 2, 8000, 2000), 60),
    "g.726 that states five bits": (wav_of(60, 0x45, 5, 8000, 2000), 60),
    "ima of two bits": (wav_of(60, 0x11, 2, 8000, 2000), 60),
    "samples that are described twice": (wav_of(60, 1, 16, 16_000, 32_000, FORM[:4] + b"\0\0\1\0" + FORM[8:]), 60),
}


@pytest.mark.parametrize("name", FORMS)
def test_samples_of_few_bits_and_two_descriptions(name: str) -> None:
    content, seconds = FORMS[name]
    assert audio_length(content).milliseconds == pytest.approx(seconds * 1000, rel=0.02)


def test_a_codec_that_is_described_before_samples_is_not_read_as_samples() -> None:
    content = wav_of(60, 0x704F, 0, 48_000, 4000, struct.pack("<HHIIHH", 1, 32, 384_000, 0, 0, 64))
    assert audio_length(content).usual == pytest.approx(15_000, rel=0.01)


@pytest.mark.parametrize("kind", [b"in24", b"raw ", b"fl32"])
def test_samples_of_aiff_are_as_wide_as_their_kind(kind: bytes) -> None:
    """Whatever width it states."""
    width = {b"in24": 3, b"raw ": 1, b"fl32": 4}[kind]
    common = struct.pack(">4sIhIhHQ", b"COMM", 24, 1, 1, 64, 16383 + 13, 16_000 << 50) + kind + bytes(2)
    body = b"AIFC" + common + struct.pack(">4sI", b"SSND", 960_000 * width) + bytes(960_000 * width)
    found = audio_length(struct.pack(">4sI", b"FORM", len(body)) + body)
    assert found.milliseconds == pytest.approx(60_000, rel=0.01)


@pytest.mark.parametrize("name", [*HONEST, *LYING])
def test_a_file_that_is_cut_off_anywhere_has_a_length(name: str) -> None:
    content = ({key: value for key, (value, _) in HONEST.items()} | LYING)[name]
    for end in (*range(1, 140), len(content) // 2, len(content) - 1):
        found = audio_length(content[:end])
        assert 1 <= found.least <= max(found.milliseconds, found.least) <= max(found.most, found.milliseconds)


# -- what cannot be read -----------------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_held_at_length_and_charged_by_its_size_and_its_words() -> None:
    unknown = b"\x93NEW" + bytes(960_000)  # a minute at 128 kbit/s
    parsed = parse_transcription({}, audio_length(unknown), len(unknown))
    assert parsed.units.milliseconds == pytest.approx(240_000, rel=0.01)
    silent, spoken, read = parsed.heard(0), parsed.heard(700), parsed.heard(10**9)
    assert silent.milliseconds == pytest.approx(60_000, rel=0.01)
    assert spoken.milliseconds == 200_000 and spoken.input == spoken.audio_input == 200 * 17 + 1
    assert read.milliseconds == pytest.approx(9_600_000, rel=0.01)  # no codec needs less


def test_a_codec_of_few_bytes_is_charged_by_what_was_said() -> None:
    """A minute at 8 kbit/s, in which 200 tokens were said."""
    unknown = b"\x93NEW" + bytes(60_000)
    parsed = parse_transcription({}, audio_length(unknown), len(unknown))
    assert 50_000 <= parsed.heard(200).milliseconds <= 70_000
    cues = b"1\n00:00:01,000 --> 00:00:02,500\nHello\n\n2\n00:00:50,000 --> 00:00:58,250\nBye\n"
    assert parsed.heard(2, cues).milliseconds == 58_250
    assert parsed.heard(2, b"WEBVTT\n\n00:50.000 --> 00:58.500\nBye\n").milliseconds == 58_500


def test_a_film_is_no_recording_at_128_kbit() -> None:
    film = b"FLV\x01" + bytes(7_500_000)  # a minute at 1 Mbit/s
    parsed = parse_transcription({}, audio_length(film), len(film))
    assert parsed.heard(200).milliseconds == pytest.approx(60_000, rel=0.01)


def test_what_was_measured_is_not_estimated_again() -> None:
    content = rf64(60)
    parsed = parse_transcription({}, audio_length(content), len(content))
    assert parsed.heard(10_000).milliseconds == 0
