"""The attributes of spans, by OpenTelemetry's conventions for generative AI. Pure.

Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/, read in November 2026. Never prompts, answers,
keys or names of people: these stay in the portal.
"""

from __future__ import annotations

from typing import Final

from relay.billing.ledger.pending import COLUMNS, UsageRow

Attributes = dict[str, str | int | float | bool]
# Operations that the conventions name, by the first word of an endpoint's name. Others are called as the endpoint.
_OPERATIONS: Final = {
    **dict.fromkeys(("chat", "responses", "messages", "interactions"), "chat"),
    "generate_content": "generate_content",
    "completions": "text_completion",
    "embeddings": "embeddings",
}
_PLACES: Final = {name: COLUMNS.index(name) for name in COLUMNS}
_NUMBERS: Final = {
    "gen_ai.usage.input_tokens": "input_tokens",
    "gen_ai.usage.cache_read.input_tokens": "cached_input_tokens",
    "gen_ai.usage.cache_creation.input_tokens": "cache_write_tokens",
    "gen_ai.usage.output_tokens": "output_tokens",
    "gen_ai.usage.reasoning.output_tokens": "reasoning_tokens",
    "airelays.attempts": "attempts",
}


def operation(endpoint: str) -> str:
    family, _, kind = endpoint.partition(".")
    if family == "generate_content" and kind.startswith("embed"):
        return "embeddings"
    return _OPERATIONS.get(family, endpoint)


def of_record(row: UsageRow) -> tuple[str, Attributes]:
    """The name of a request's span, and what its usage record says."""
    said = {name: row[place] for name, place in _PLACES.items()}
    what = operation(said["endpoint"])
    found: Attributes = {
        "gen_ai.operation.name": what,
        "gen_ai.request.model": said["model"],
        "gen_ai.request.stream": said["streamed"],
        "airelays.outcome": said["end_reason"],
        "airelays.cost_usd": said["cost"] / 10**9,
    }
    if said["upstream_model"]:
        found["gen_ai.response.model"] = said["upstream_model"]
    if said["first_token_ms"] is not None:
        found["gen_ai.response.time_to_first_chunk"] = said["first_token_ms"] / 1000
    if said["end_reason"] != "completed":
        found["error.type"] = said["error_code"] or said["end_reason"]
    found |= {name: said[column] for name, column in _NUMBERS.items()}
    return f"{what} {said['model']}", found
