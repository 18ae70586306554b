"""The `usage` object of the Converse API. Pure.

Its `inputTokens` exclude the tokens that were read from the cache or written to it.

Source: botocore 1.44's model of bedrock-runtime, November 2026.
"""

from __future__ import annotations

from portal.lib.json import Json, encode, objects_of, text_of
from relay.protocols.usage import Counts, Usage, count


def usage_of(found: Json) -> Usage | None:
    """What is reported; None where nothing is."""
    if "inputTokens" not in found and "outputTokens" not in found:
        return None
    cached, written = count(found.get("cacheReadInputTokens")), count(found.get("cacheWriteInputTokens"))
    hour = sum(
        count(one.get("inputTokens")) for one in objects_of(found, "cacheDetails") if text_of(one, "ttl") == "1h"
    )
    return Counts(
        input=count(found.get("inputTokens")) + cached + written,
        output=count(found.get("outputTokens")),
        total=0,
        cached=cached,
        written=written,
        written_1h=min(hour, written),
        reasoning=0,
    ).usage(encode(found))


def hub_usage(usage: Usage) -> Json:
    """A usage in the hub form."""
    details: Json = {"cached_tokens": usage.cached_input}
    if usage.cache_write:
        details["cache_write_tokens"] = usage.cache_write
        short = usage.cache_write - usage.cache_write_1h
        details["cache_creation"] = {
            "ephemeral_5m_input_tokens": short,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        }
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": details,
    }
