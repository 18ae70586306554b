"""The `usage` object of Gemini's Interactions API. Pure. Source: google-genai 3.6.1 (`interactions.Usage`)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from portal.lib.json import Json, object_of, text_of
from relay.protocols.usage import Counts, Usage, count

SEARCH: Final = "google_search"  # the name of the tool
_BY_ANSWER: Final = re.compile(r"gemini-[12](?!\d)")  # models whose grounded answers are billed; of later ones, queries


class _Usage(msgspec.Struct):
    total_input_tokens: object = None
    total_output_tokens: object = None
    total_thought_tokens: object = None
    total_cached_tokens: object = None
    total_tool_use_tokens: object = None
    total_tokens: object = None
    input_tokens_by_modality: object = None
    output_tokens_by_modality: object = None
    cached_tokens_by_modality: object = None
    grounding_tool_count: object = None


_decoder: Final = msgspec.json.Decoder(_Usage)


def parse_interaction_usage(raw: bytes | msgspec.Raw) -> Usage | None:
    """Parse a usage object; None when it has no counts.

    Thoughts stand beside the output there, and what tools put into the prompt beside the input; they are parts of
    these here.
    """
    try:
        found = _decoder.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if found.total_input_tokens is None and found.total_output_tokens is None and found.total_tokens is None:
        return None
    thoughts, answer = count(found.total_thought_tokens), count(found.total_output_tokens)
    total_in = count(found.total_input_tokens) + count(found.total_tool_use_tokens)
    if found.total_input_tokens is None:
        total_in = max(total_in, count(found.total_tokens) - thoughts - answer)
    return Counts(
        input=total_in,
        output=answer + thoughts,
        total=0,
        cached=count(found.total_cached_tokens),
        written=0,
        reasoning=thoughts,
        audio_input=_of_modality(found.input_tokens_by_modality, "audio"),
        audio_output=min(_of_modality(found.output_tokens_by_modality, "audio"), answer),
        image_input=_of_modality(found.input_tokens_by_modality, "image"),
        cached_audio=_of_modality(found.cached_tokens_by_modality, "audio"),
        cached_images=_of_modality(found.cached_tokens_by_modality, "image"),
        searches=_searches(found.grounding_tool_count),
    ).usage(raw)


def _searches(entries: object) -> int:
    """The searches on the web among the tools that ran at the upstream; 0 where the list is none."""
    return sum(
        count(entry.get("count"))
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, dict) and entry.get("type") == SEARCH
    )


def searches_in(steps: Iterable[Json], model: str = "") -> int:
    """The searches that steps of an interaction, or deltas of them, ask for: each query, of earlier models all at once.

    `model`: as the upstream names it.
    """
    asked: set[str] = set()
    for step in steps:
        if text_of(step, "type") == f"{SEARCH}_call":
            queries = object_of(step, "arguments").get("queries")
            asked.update(one for one in (queries if isinstance(queries, list) else ()) if isinstance(one, str))
    return min(len(asked), 1) if _BY_ANSWER.search(model) else len(asked)


def _of_modality(entries: object, wanted: str) -> int:
    """The tokens of one modality; 0 where the list is none."""
    return sum(
        count(entry.get("tokens"))
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, dict) and str(entry.get("modality")).lower() == wanted
    )
