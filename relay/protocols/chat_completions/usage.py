"""The `usage` object of chat completions, including the deviations of compatible vendors. Pure."""

from __future__ import annotations

import msgspec

from relay.protocols.usage import InputDetails, OutputDetails, Usage, count


class _ChatUsage(msgspec.Struct):
    prompt_tokens: object = None
    completion_tokens: object = None
    total_tokens: object = None
    cached_tokens: object = None  # Moonshot: at the top
    prompt_cache_hit_tokens: object = None  # DeepSeek
    prompt_tokens_details: InputDetails | None = None
    completion_tokens_details: OutputDetails | None = None


_decoder = msgspec.json.Decoder(_ChatUsage)


def parse_chat_usage(raw: bytes | msgspec.Raw) -> Usage | None:
    """Parse the `usage` object of a chat completion or chunk; None when it has no counts."""
    try:
        found = _decoder.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if found.prompt_tokens is None and found.completion_tokens is None:
        return None
    into, out = found.prompt_tokens_details or InputDetails(), found.completion_tokens_details or OutputDetails()
    total_in, total_out = count(found.prompt_tokens), count(found.completion_tokens)
    reasoning = count(out.reasoning_tokens)
    beside = count(found.total_tokens) - total_in - total_out
    if beside > 0 and reasoning in (0, beside):
        # Only the total includes them: xAI counts reasoning tokens outside the completion, and Gemini's
        # OpenAI-compatible
        # API does not list its thinking tokens at all.
        total_out, reasoning = total_out + beside, beside
    cached = count(into.cached_tokens) or count(found.cached_tokens) or count(found.prompt_cache_hit_tokens)
    return Usage(
        input=total_in,
        cached_input=min(cached, total_in),
        cache_write=min(count(into.cache_write_tokens), total_in - min(cached, total_in)),
        output=total_out,
        reasoning=min(reasoning, total_out),
        audio_input=min(count(into.audio_tokens), total_in),
        audio_output=min(count(out.audio_tokens), total_out),
        image_input=min(count(into.image_tokens), total_in),
    )
