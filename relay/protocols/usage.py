"""What a request used, in OpenAI's way of counting: cached and cache-write tokens are part of the input, reasoning tokens part of the output.

Vendors count differently (`Usage` is the one form that is priced): OpenAI's prompt includes cached tokens, Anthropic's leaves them out, and
Gemini's thoughts are no part of its output. A count that is no sane number is 0, so that nobody is credited by an upstream's nonsense.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

CEILING = 2**53  # a count above this is nonsense from the upstream, not usage


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens by class, and what is not counted in tokens. All are at least 0."""

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


class InputDetails(msgspec.Struct):
    cached_tokens: object = None
    cache_write_tokens: object = None
    audio_tokens: object = None
    image_tokens: object = None


class OutputDetails(msgspec.Struct):
    reasoning_tokens: object = None
    audio_tokens: object = None


def count(value: object) -> int:
    """A count that somebody else's program wrote: anything but a sane non-negative number is 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0
    return int(value) if 0 <= value < CEILING else 0


def present(raw: msgspec.Raw) -> bool:
    """Whether an optional member is there and not null."""
    return bytes(raw) not in (b"", b"null")
