"""The estimate of an answer's tokens from its bytes."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from relay.protocols.chat_completions.client_stream import ChatEncoder
from relay.protocols.chat_completions.stream import HOLD_LIMIT, ChatStream
from relay.protocols.token_estimate import audio_units, least_units, text_units, token_units

TEXT = "forty characters of text, for ten tokens"


def units(delta: object, **more: Any) -> float:
    return text_units(json.dumps({"choices": [{"index": 0, "delta": delta}], **more}).encode())


@pytest.mark.parametrize(
    "delta",
    [
        {"content": TEXT},
        {"content": [{"type": "text", "text": TEXT}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": TEXT}]}]},  # Mistral
        {"refusal": TEXT},
        {"reasoning_content": TEXT, "content": None},
        {"reasoning": TEXT},
        {"thinking": TEXT},
        {"reasoning": TEXT, "reasoning_content": TEXT},  # vLLM
        {"reasoning_details": [{"type": "reasoning.text", "text": TEXT, "format": "x"}]},
        {"reasoning_details": [{"type": "reasoning.summary", "summary": TEXT}]},
        {"reasoning": TEXT, "reasoning_details": [{"type": "reasoning.text", "text": TEXT}]},  # OpenRouter
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": TEXT}}]},
        {"tool_calls": [{"index": 0, "type": "custom", "custom": {"name": "f", "input": TEXT}}]},
        {"function_call": {"arguments": TEXT}},
        {"audio": {"id": "audio_1", "transcript": TEXT}},
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_text_is_counted_once_wherever_it_is(delta: dict[str, Any], indent: int | None) -> None:
    assert text_units(json.dumps({"choices": [{"delta": delta}]}, indent=indent).encode()) == 10
    encoder = ChatEncoder(False, False, "id")
    encoder.chunk({"choices": [{"index": 0, "delta": {"role": "assistant", **delta}}]})
    assert encoder.units == 10, "the same in what is written to a client of chat"


def test_what_is_not_text_is_not_counted() -> None:
    assert units({"role": "assistant", "content": ""}, model="a model", obfuscation="xxxxxxxxxxxx") == 0
    assert units({"images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 999}}]}) == 0
    assert units({"reasoning_details": [{"type": "reasoning.encrypted", "data": "A" * 999}]}) == 0


def test_text_that_breaks_off_counts_as_far_as_it_goes() -> None:
    assert text_units(b'data: {"choices":[{"delta":{"content":"' + TEXT.encode()) == 10


def test_no_byte_is_more_than_a_third_of_a_token() -> None:
    """The meter relies on it."""
    for text in ("plain", "汉字", "é", "😀", '\n\t"', "\x00"):
        for escaped in (json.dumps(text * 50), json.dumps(text * 50, ensure_ascii=False)):
            data = escaped[1:-1].encode()
            assert token_units(data) <= len(data) / 3


@pytest.mark.parametrize(
    ("head", "rate"), [(b"", 48_000), (b"RIFF", 48_000), (b"OggS", 4_000), (b"ID3", 16_000), (b"\xff\xfb", 16_000)]
)
def test_audio_is_counted_by_its_length(head: bytes, rate: int) -> None:
    data = base64.b64encode(head + b"\x01" * (5 * rate)).decode()
    answer = json.dumps({"choices": [{"message": {"audio": {"id": "a", "data": data, "transcript": "Hi"}}}]}).encode()
    assert audio_units(answer) == pytest.approx(100, abs=0.1) and text_units(answer) == 0.5


@pytest.mark.parametrize(
    ("delta", "text", "audio"),
    [
        ({"content": "word " * 40_000}, 50_000, 0),
        ({"audio": {"id": "a", "data": "A" * 640_000}}, 200, 200),
        ({"images": [{"image_url": {"url": "data:image/png;base64," + "A" * 640_000}}]}, 0, 0),
    ],
)
def test_an_event_that_passes_in_pieces_is_counted_piece_by_piece(
    delta: dict[str, Any], text: float, audio: float
) -> None:
    event = (
        b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": "stop"}]}).encode() + b"\n\n"
    )
    assert len(event) > 2 * HOLD_LIMIT
    stream, passed = ChatStream(), b""
    for at in range(0, len(event), 10_000):
        passed += stream.feed(event[at : at + 10_000])
        if at == 2 * HOLD_LIMIT // 10_000 * 10_000:
            assert bool(stream.delivered_units()) is bool(text), "not only at its end"
    assert passed == event
    assert stream.delivered_units() == pytest.approx(text, rel=0.01)
    assert stream.audio_units() == pytest.approx(audio, rel=0.01)


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        (" " * 100_000, 0, 1),
        ("-" * 50_000 + "\n\n" * 50_000 + "=" * 999, 0, 2),
        ("\u3000" * 10_000 + "\u2500" * 10_000, 0, 2),
        ("word " * 4000, 4999, 5001),
        ("a " * 4000, 1999, 2001),
        ("\u4f60\u597d\u5440" * 1000, 2999, 3001),
        ("\ud83d" * 3 + "x", 0, 4),
    ],
)
def test_runs_of_one_character_are_not_counted_as_certain(text: str, least: float, most: float) -> None:
    assert least <= least_units([text, None, 7], 10.0**9) <= most


def test_certain_text_is_counted_until_there_is_enough() -> None:
    def texts() -> Iterator[str]:
        yield "word " * 100_000
        raise AssertionError("counted on")

    assert 1000 <= least_units(texts(), 1000) < 25_000
