"""The `usage` object of Anthropic's Messages API. Pure."""

from __future__ import annotations

import msgspec

from portal.lib.json import Json, encode, object_of
from relay.protocols.chat_completions.usage import parse_chat_usage
from relay.protocols.usage import Counts, Usage, count, hour_of, sum_of


class _MessagesUsage(msgspec.Struct):
    input_tokens: object = None
    output_tokens: object = None
    cache_read_input_tokens: object = None
    cache_creation_input_tokens: object = None
    cache_creation: object = None  # the same by lifetime: ephemeral_5m_input_tokens, ephemeral_1h_input_tokens
    output_tokens_details: object = None


_messages_decoder = msgspec.json.Decoder(_MessagesUsage)


def parse_messages_usage(raw: bytes | msgspec.Raw) -> Usage | None:
    """Parse the `usage` object of Anthropic's messages; None when it has no counts.

    Its `input_tokens` exclude the tokens that were read from or written to the cache.
    """
    try:
        found = _messages_decoder.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if found.input_tokens is None and found.output_tokens is None:
        return None
    cached = count(found.cache_read_input_tokens)
    written = count(found.cache_creation_input_tokens) or sum_of(found.cache_creation)
    details = found.output_tokens_details
    return Counts(
        input=count(found.input_tokens) + cached + written,
        output=count(found.output_tokens),
        total=0,
        cached=cached,
        written=written,
        written_1h=hour_of(found.cache_creation),
        reasoning=count(details.get("thinking_tokens")) if isinstance(details, dict) else 0,
    ).usage(raw)


def hub_usage(found: Json) -> Json:
    """A `usage` object of this API in the hub form, where the prompt includes what was read from the cache or written
    to it."""
    cached = count(found.get("cache_read_input_tokens"))
    lifetimes = object_of(found, "cache_creation")
    written = count(found.get("cache_creation_input_tokens")) or sum_of(lifetimes)
    prompt, output = count(found.get("input_tokens")) + cached + written, count(found.get("output_tokens"))
    details: Json = {"cached_tokens": cached}
    if written:
        details["cache_write_tokens"] = written
    if lifetimes:
        details["cache_creation"] = lifetimes
    usage: Json = {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": details,
    }
    thought = object_of(found, "output_tokens_details").get("thinking_tokens")
    if thought is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": count(thought)}
    return usage


def messages_usage(usage: Json) -> Json:
    """A usage of the hub form in this API. What the upstream does not tell is left out."""
    details, details_out = object_of(usage, "prompt_tokens_details"), object_of(usage, "completion_tokens_details")
    read = parse_chat_usage(encode(usage))
    if read is None:
        return {"input_tokens": 0, "output_tokens": 0}
    found: Json = {"input_tokens": max(0, read.input - read.cached_input - read.cache_write)}
    if read.cache_write or "cache_write_tokens" in details:
        found["cache_creation_input_tokens"] = read.cache_write
    if read.cached_input or "cached_tokens" in details:
        found["cache_read_input_tokens"] = read.cached_input
    lifetimes = object_of(details, "cache_creation")
    if lifetimes and sum_of(lifetimes) == read.cache_write:
        found["cache_creation"] = lifetimes
    found["output_tokens"] = read.output
    if read.reasoning or "reasoning_tokens" in details_out:
        found["output_tokens_details"] = {"thinking_tokens": read.reasoning}
    return found
