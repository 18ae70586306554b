"""Seconds of recordings and of speech are charged as they are measured, whatever a header states."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from tests.support.portal import Portal
from tests.support.server import ROOT, Server
from tests.support.upstream import Call

pytestmark = pytest.mark.shared

RECORDINGS = ROOT / "tests" / "protocols" / "passthrough" / "recordings"  # two seconds each
BY_SECOND = {"input": 0, "output": 0, "per_second": "0.01"}


def joined(name: str, times: int) -> bytes:
    return (RECORDINGS / name).read_bytes() * times


def transcribed(live: Portal, server: Server, name: str, content: bytes, answer: dict[str, Any]) -> Any:
    async def script(call: Call) -> None:
        await call.reply(200, {"text": "hello there", **answer})

    data, files = {"model": live.model(script, price=BY_SECOND)}, {"file": (name, content)}
    response = server.request("POST", live.token(), "/v1/audio/transcriptions", data=data, files=files)
    assert response.status_code == 200, response.text
    return live.record(response)


@pytest.mark.parametrize("name", ["opus.ogg", "vorbis.ogg", "mp3.mp3", "flac.flac", "aac.aac", "opus.webm"])
@pytest.mark.parametrize("share", [1, 0.9])
def test_joined_recordings_cost_all_of_their_seconds_as_reported_or_counted(
    live: Portal, server: Server, name: str, share: float
) -> None:
    content, seconds = joined(name, 20), 40 * share
    for answer in ({}, {"duration": seconds}, {"usage": {"type": "duration", "seconds": seconds}}):
        record = transcribed(live, server, name, content, answer)
        expected = seconds * 1000 if answer else 40_000
        assert record.milliseconds == pytest.approx(expected, rel=0 if answer else 0.08), answer
        assert record.usage_source == ("reported" if answer else "estimated")
        assert record.cost == record.milliseconds * 10_000


@pytest.mark.parametrize("name", ["opus.ogg", "vorbis.ogg", "mp3.mp3", "flac.flac", "opus.webm", "g726.wav"])
@pytest.mark.parametrize("share", [0.5, 0.01, 3])
def test_a_report_far_from_what_was_counted_is_not_believed(
    live: Portal, server: Server, name: str, share: float
) -> None:
    record = transcribed(live, server, name, joined(name, 20), {"duration": 40 * share})
    assert record.usage_source == "estimated" and record.milliseconds == pytest.approx(40_000, rel=0.08)


@pytest.mark.parametrize("name", ["opus.mp4", "flac.mp4", "ac3.mp4", "wma2.wma"])
def test_a_header_that_states_a_moment_is_not_believed(live: Portal, server: Server, name: str) -> None:
    content = bytearray((RECORDINGS / name).read_bytes())
    if name.endswith("mp4"):
        at = content.index(b"mvhd") + 20
        content[at : at + 4] = struct.pack(">I", 1)
    else:
        at = content.index(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")) + 64
        content[at : at + 16] = struct.pack("<QQ", 1, 1)
    record = transcribed(live, server, name, bytes(content), {})
    assert record.milliseconds == pytest.approx(2000, rel=0.05)


# -- speech ------------------------------------------------------------------------------------------------------------


def samples(rate: int, width: int = 2, channels: int = 1) -> bytes:
    """Ten seconds."""
    return b"\1\2\3\4" * (rate * width * channels * 10 // 4)


def wave(rate: int) -> bytes:
    junk = b"JUNK" + struct.pack("<I", 28) + bytes(28)
    form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, rate, rate * 2, 2, 16)
    return b"RIFF\xff\xff\xff\xffWAVE" + junk + form + b"data\xff\xff\xff\xff" + samples(rate)


SPEECH = {
    "a WAV with a chunk before its format": ("audio/wav", wave(48_000)),
    "a rate": ("audio/pcm;rate=16000", samples(16_000)),
    "a rate in quotation marks": ('audio/PCM; Rate="8000"', samples(8_000)),
    "a rate and channels": ("audio/L16; rate=44100; channels=2", samples(44_100, 2, 2)),
    "G.711": ("audio/basic", samples(8_000, 1)),
    "nothing": ("audio/pcm", samples(24_000)),
    "a rate that makes no sense": ("audio/pcm;rate=1", samples(24_000)),
}


@pytest.mark.parametrize("name", SPEECH)
def test_speech_without_a_report(live: Portal, server: Server, name: str) -> None:
    content_type, sound = SPEECH[name]

    async def script(call: Call) -> None:
        await call.reply(200, sound, {"content-type": content_type})

    body = {"model": live.model(script, price=BY_SECOND), "input": "x" * 200, "voice": "a"}
    response = server.post(live.token(), body, path="/v1/audio/speech")
    record = live.record(response)
    assert response.content == sound and record.milliseconds == pytest.approx(10_000, rel=0.001)
