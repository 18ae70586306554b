"""The `usage` object of Gemini's Interactions API. Pure. Source: google-genai 3.6.1 (`interactions.Usage`)."""

from __future__ import annotations

from typing import Final

import msgspec

from relay.protocols.usage import Counts, Usage, count


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
    ).usage(raw)


def _of_modality(entries: object, wanted: str) -> int:
    """The tokens of one modality; 0 where the list is none."""
    return sum(
        count(entry.get("tokens"))
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, dict) and str(entry.get("modality")).lower() == wanted
    )
