"""The estimate of a prompt."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from relay.billing.estimate import estimate_file, estimate_prompt, estimate_request


def test_prompt_estimate_is_of_the_right_size() -> None:
    english = '[{"role":"user","content":"' + "The quick brown fox jumps over the lazy dog. " * 100 + '"}]'
    assert 700 < estimate_prompt(english.encode()).tokens < 1400  # a tokenizer counts about 1000
    chinese = '[{"role":"user","content":"' + "今天天气很好我们去公园" * 100 + '"}]'
    assert 600 < estimate_prompt(chinese.encode()).tokens < 1400
    image = (
        '[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,'
        + "A" * 3_000_000
        + '"}}]}]'
    )
    assert estimate_prompt(image.encode()).tokens < 2000


def test_images_count_by_number_wherever_they_are() -> None:
    def prompt(*urls: str) -> int:
        parts = ",".join('{"type":"image_url","image_url":{"url":"%s"}}' % url for url in urls)
        return estimate_prompt(('[{"role":"user","content":[%s]}]' % parts).encode()).tokens

    stored, inline = "https://x.example/a.png", "data:image/png;base64,AAAA"
    for first, second in ((stored, stored), (inline, inline), (stored, inline)):
        assert 1600 < prompt(first, second) < 1700, (first, second)


@pytest.mark.parametrize(
    ("text", "least"),
    [
        ("data: " + "every word of this counts. " * 400, 2000),  # begins as an inline file does, and is a text
        ("data:text/plain;base64," + "QUJD" * 2000, 1800),
        ('{"url":"data:image/png;base64,' + "A" * 8000 + '"}', 1800),  # quoted
    ],
)
def test_no_text_counts_as_a_file(text: str, least: int) -> None:
    for content in (text, [{"type": "text", "text": text}]):
        found = estimate_prompt(json.dumps([{"role": "user", "content": content}]).encode())
        assert found.tokens > least and found.most >= len(text)


@pytest.mark.parametrize(
    ("part", "tokens", "most"),
    [
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}, 800, 25_600),
        ({"type": "file", "file": {"file_data": "data:application/pdf;base64," + "A" * 400_000}}, 7_500, 300_000),
        ({"type": "input_file", "file_data": "data:text/plain;base64," + "A" * 400_000}, 100_000, 300_000),
        ({"type": "input_file", "file_data": "data:application/json;base64," + "A" * 400_000}, 100_000, 300_000),
        ({"type": "input_audio", "input_audio": {"data": "A" * 400_000, "format": "mp3"}}, 987, 2_300),
        ({"type": "video_url", "video_url": {"url": "data:video/mp4;base64," + "A" * 400_000}}, 987, 2_300),
        ({"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}, 800, 25_600),
    ],
)
def test_files_count_by_kind_and_size(part: dict[str, Any], tokens: int, most: int) -> None:
    found = estimate_prompt(json.dumps([{"role": "user", "content": [part]}]).encode())
    assert tokens <= found.tokens < 1.03 * tokens + 60 and most <= found.most < 1.03 * most + 200


def test_stored_files_count_as_what_they_are() -> None:
    assert estimate_file(3_000_000, "image/png").tokens == 800
    assert estimate_file(3_000_000, "text/plain; charset=utf-8") == (1_000_001, 3_000_001)
    assert estimate_file(3_000_000, "application/pdf").tokens == 75_000
    assert estimate_file(10**9, "").most == 2 * 1024 * 1024, "no model reads more"


def test_every_long_member_of_a_request_counts() -> None:
    long = json.dumps({"description": "words that the model reads " * 100}).encode()
    plain = estimate_request({"messages": Raw(b"[]")}, b"[]").tokens
    for name in ("response_format", "functions", "prediction", "documents", "suffix", "instructions", "tools"):
        found = estimate_request({"messages": Raw(b"[]"), name: Raw(long)}, b"[]")
        assert found.tokens > plain + 600 and found.most >= len(long), name
    assert estimate_request({"messages": Raw(b"[]"), "metadata": Raw(long)}, b"[]").tokens == plain, "no model is told"
