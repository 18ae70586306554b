"""Token counts, in OpenAI's way of counting: cached and cache-write tokens are part of the input, reasoning tokens part of the output."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

_CEILING = 2**53  # a count above this is nonsense from the upstream, not usage


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens by class. All are at least 0."""

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    audio_input: int = 0
    audio_output: int = 0


class _InputDetails(msgspec.Struct):
    cached_tokens: object = None
    cache_write_tokens: object = None
    audio_tokens: object = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: object = None
    audio_tokens: object = None


class _ChatUsage(msgspec.Struct):
    prompt_tokens: object = None
    completion_tokens: object = None
    cached_tokens: object = None  # Moonshot: at the top
    prompt_cache_hit_tokens: object = None  # DeepSeek
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


_decoder = msgspec.json.Decoder(_ChatUsage)


def _count(value: object) -> int:
    """A token count that somebody else's program wrote: anything but a sane non-negative number is 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0
    return int(value) if 0 <= value < _CEILING else 0


def parse_chat_usage(raw: bytes | msgspec.Raw) -> Usage | None:
    """The `usage` object of a chat completion or chunk, or None when it is no object with counts."""
    try:
        found = _decoder.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if found.prompt_tokens is None and found.completion_tokens is None:
        return None
    into, out = found.prompt_tokens_details or _InputDetails(), found.completion_tokens_details or _OutputDetails()
    total_in, total_out = _count(found.prompt_tokens), _count(found.completion_tokens)
    cached = _count(into.cached_tokens) or _count(found.cached_tokens) or _count(found.prompt_cache_hit_tokens)
    return Usage(
        input=total_in,
        cached_input=min(cached, total_in),
        cache_write=min(_count(into.cache_write_tokens), total_in),
        output=total_out,
        reasoning=min(_count(out.reasoning_tokens), total_out),
        audio_input=min(_count(into.audio_tokens), total_in),
        audio_output=min(_count(out.audio_tokens), total_out),
    )


def present(raw: msgspec.Raw) -> bool:
    """Whether an optional member is there and not null."""
    return bytes(raw) not in (b"", b"null")
