"""The `usage` object of Anthropic's Messages API. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from portal.lib.json import Json, encode, object_of, objects_of, text_of
from relay.protocols.chat_completions.usage import parse_chat_usage
from relay.protocols.usage import Counts, Usage, count, hour_of, searches_of, sum_of


class _MessagesUsage(msgspec.Struct):
    input_tokens: object = None
    output_tokens: object = None
    cache_read_input_tokens: object = None
    cache_creation_input_tokens: object = None
    cache_creation: object = None  # the same by lifetime: ephemeral_5m_input_tokens, ephemeral_1h_input_tokens
    output_tokens_details: object = None
    server_tool_use: object = None  # how often tools ran that the upstream runs itself
    iterations: object = None  # beta: the same of each time that the model was asked


_messages_decoder = msgspec.json.Decoder(_MessagesUsage)
# The type of an iteration whose counts are not among those of the whole: a summary of the conversation that the
# upstream makes when it is told to, or when the context is about to be full (SDK 2.14, `BetaIterationsUsage`).
_COMPACTION = "compaction"
# What `message_start` says of the output in place of it: nothing has been made yet, whatever count is there.
NO_OUTPUT: Final[Json] = {"output_tokens": 0, "output_tokens_details": None}


def parse_messages_usage(raw: bytes | msgspec.Raw) -> Usage | None:
    """Parse the `usage` object of Anthropic's messages; None when it has no counts.

    Its `input_tokens` exclude the tokens that were read from or written to the cache. What compactions took is part of
    the usage here; what they wrote is no part of the answer, and under no limit of it.
    """
    try:
        found = _messages_decoder.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if found.input_tokens is None and found.output_tokens is None:
        return None
    details = found.output_tokens_details
    compacted = [_read(entry) for entry in _compactions(found.iterations)]
    each = [found, *compacted]
    cached = sum(count(one.cache_read_input_tokens) for one in each)
    written = sum(map(_written, each))
    summaries = sum(count(one.output_tokens) for one in compacted)
    return Counts(
        input=sum(count(one.input_tokens) for one in each) + cached + written,
        output=count(found.output_tokens) + summaries,
        total=0,
        cached=cached,
        written=written,
        written_1h=sum(hour_of(one.cache_creation) for one in each),
        reasoning=count(details.get("thinking_tokens")) if isinstance(details, dict) else 0,
        rejected=summaries,
        searches=searches_of(found.server_tool_use),
    ).usage(raw)


def _compactions(iterations: object) -> list[Json]:
    return [entry for entry in objects_of({"": iterations}, "") if text_of(entry, "type") == _COMPACTION]


def _read(entry: Json) -> _MessagesUsage:
    return _MessagesUsage(**{name: entry.get(name) for name in _MessagesUsage.__struct_fields__})


def _written(found: _MessagesUsage) -> int:
    return count(found.cache_creation_input_tokens) or sum_of(found.cache_creation)


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
