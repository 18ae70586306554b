"""The estimate of a prompt."""

from __future__ import annotations

from relay.billing.estimate import estimate_prompt


def test_prompt_estimate_is_of_the_right_size() -> None:
    english = '[{"role":"user","content":"' + "The quick brown fox jumps over the lazy dog. " * 100 + '"}]'
    assert 700 < estimate_prompt(english.encode()) < 1400  # a tokenizer counts about 1000
    chinese = '[{"role":"user","content":"' + "今天天气很好我们去公园" * 100 + '"}]'
    assert 600 < estimate_prompt(chinese.encode()) < 1400
    image = (
        '[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,'
        + "A" * 3_000_000
        + '"}}]}]'
    )
    assert estimate_prompt(image.encode()) < 2000


def test_images_count_by_number_wherever_they_are() -> None:
    def prompt(*urls: str) -> int:
        parts = ",".join('{"type":"image_url","image_url":{"url":"%s"}}' % url for url in urls)
        return estimate_prompt(('[{"role":"user","content":[%s]}]' % parts).encode())

    stored, inline = "https://x.example/a.png", "data:image/png;base64,AAAA"
    for first, second in ((stored, stored), (inline, inline), (stored, inline)):
        assert 1600 < prompt(first, second) < 1700, (first, second)
