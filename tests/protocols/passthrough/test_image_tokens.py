"""The tokens of images by quality and size, as OpenAI's guide and its calculator have them."""

from __future__ import annotations

import pytest

from relay.protocols.passthrough.images.tokens import ImageOptions


@pytest.mark.parametrize(
    ("model", "quality", "size", "tokens"),
    [
        ("gpt-image-1", "low", "1024x1024", 272),
        ("gpt-image-1.5", "medium", "1024x1536", 1584),
        ("gpt-image-1-mini", "high", "1536x1024", 6208),
        ("gpt-image-1", "auto", "auto", 1056),
        ("gpt-image-1", "", "", 1056),
        ("dall-e-3", "hd", "1024x1024", 4160),
        ("a vendor's", "high", "2048x2048", 4 * 4160),
        ("a vendor's", "low", "16x16", 272),
        ("gpt-image-2", "low", "1024x1024", 196),
        ("gpt-image-2", "high", "1024x1024", 7024),
        ("gpt-image-2", "high", "1536x1024", 5488),
        ("openai/gpt-image-2-2026-04-21", "high", "1792x1024", 5063),
        ("gpt-image-2.5-flare", "high", "3584x2048", 12_329),
    ],
)
def test_known_numbers(model: str, quality: str, size: str, tokens: int) -> None:
    options = ImageOptions.of(model, quality, size, None)
    assert options.tokens() == tokens
    assert options.most() >= tokens, "as much is held"


def test_what_the_answer_says_stands_before_the_request() -> None:
    options = ImageOptions.of("gpt-image-1", "high", "1536x1024", 3)
    assert options.tokens("low", "1024x1024") == 272
    assert options.tokens("auto", 7) == 6208, "nothing is known by that"
    assert options.most() == 8300, "with three partial images"


@pytest.mark.parametrize("odd", [None, 7, ["low"], {}, "x" * 100, "99999x99999", "-1x5"])
def test_odd_values_are_bounded(odd: object) -> None:
    options = ImageOptions.of(odd, odd, odd, odd)
    assert 0 < options.tokens(odd, odd) <= options.most() <= 10**6
