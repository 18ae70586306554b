"""The usage of a request, counted as OpenAI does. Pure.

Cached and cache-write tokens are part of the input, reasoning tokens part of the output. Vendors count differently, and
`Usage` is the one form that is priced: OpenAI's prompt includes cached tokens, Anthropic's excludes them, and Gemini's
output excludes thinking tokens. A count that is not a plausible number is 0, so that bad upstream data credits nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

CEILING = 2**53  # a larger count is an upstream's mistake


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens by class, and the units that are not tokens. All are at least 0."""

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    audio_input: int = 0
    audio_output: int = 0
    image_input: int = 0
    images: int = 0
    milliseconds: int = 0
    characters: int = 0


NO_USAGE: Final = Usage()


class InputDetails(msgspec.Struct):
    cached_tokens: object = None
    cache_write_tokens: object = None
    audio_tokens: object = None
    image_tokens: object = None


class OutputDetails(msgspec.Struct):
    reasoning_tokens: object = None
    audio_tokens: object = None


def count(value: object) -> int:
    """A count from an upstream's answer; 0 for anything but a plausible non-negative number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0
    return int(value) if 0 <= value < CEILING else 0


def present(raw: msgspec.Raw) -> bool:
    """Whether an optional member is present and not null."""
    return bytes(raw) not in (b"", b"null")
