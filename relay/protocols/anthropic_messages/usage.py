"""The `usage` object of Anthropic's Messages API. Pure."""

from __future__ import annotations

import msgspec

from relay.protocols.usage import Counts, Usage, count, sum_of


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
        reasoning=count(details.get("thinking_tokens")) if isinstance(details, dict) else 0,
    ).usage(raw)
