"""The `usageMetadata` object of Gemini's generateContent. Pure."""

from __future__ import annotations

import msgspec

from relay.protocols.usage import Counts, Usage, count


class _GeminiUsage(msgspec.Struct):
    promptTokenCount: object = None
    candidatesTokenCount: object = None
    thoughtsTokenCount: object = None
    cachedContentTokenCount: object = None
    toolUsePromptTokenCount: object = None
    totalTokenCount: object = None
    promptTokensDetails: object = None
    candidatesTokensDetails: object = None
    cacheTokensDetails: object = None


_gemini_decoder = msgspec.json.Decoder(_GeminiUsage)


def parse_gemini_usage(raw: bytes | msgspec.Raw) -> Usage | None:
    """Parse Gemini's `usageMetadata`; None when it has no counts.

    Thinking tokens are counted separately from the candidates there, and are part of the output here.
    """
    try:
        found = _gemini_decoder.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if found.promptTokenCount is None and found.candidatesTokenCount is None and found.totalTokenCount is None:
        return None
    total, thoughts = count(found.totalTokenCount), count(found.thoughtsTokenCount)
    total_in = count(found.promptTokenCount) + count(found.toolUsePromptTokenCount)
    answer = count(found.candidatesTokenCount)
    if found.promptTokenCount is None:  # an answer that was thought about and then blocked has only these two
        total_in = max(total_in, total - thoughts - answer)
    return Counts(
        input=total_in,
        output=answer + thoughts,
        total=0,
        cached=count(found.cachedContentTokenCount),
        written=0,
        reasoning=thoughts,
        audio_input=_of_modality(found.promptTokensDetails, "AUDIO"),
        audio_output=min(_of_modality(found.candidatesTokensDetails, "AUDIO"), answer),
        image_input=_of_modality(found.promptTokensDetails, "IMAGE"),
        cached_audio=_of_modality(found.cacheTokensDetails, "AUDIO"),
        cached_images=_of_modality(found.cacheTokensDetails, "IMAGE"),
    ).usage(raw)


def _of_modality(details: object, wanted: str) -> int:
    """The tokens of one modality; 0 where the list is none."""
    if not isinstance(details, list):
        return 0
    return sum(
        count(entry.get("tokenCount"))
        for entry in details
        if isinstance(entry, dict) and entry.get("modality") == wanted
    )
