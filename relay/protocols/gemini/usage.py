"""The `usageMetadata` object of Gemini's generateContent. Pure."""

from __future__ import annotations

import msgspec

from relay.protocols.usage import Usage, count


class _Modality(msgspec.Struct):
    modality: object = None
    tokenCount: object = None


class _GeminiUsage(msgspec.Struct):
    promptTokenCount: object = None
    candidatesTokenCount: object = None
    thoughtsTokenCount: object = None
    cachedContentTokenCount: object = None
    toolUsePromptTokenCount: object = None
    promptTokensDetails: list[_Modality] | None = None
    candidatesTokensDetails: list[_Modality] | None = None


_gemini_decoder = msgspec.json.Decoder(_GeminiUsage)


def parse_gemini_usage(raw: bytes | msgspec.Raw) -> Usage | None:
    """Parse Gemini's `usageMetadata`; None when it has no counts.

    Thinking tokens are counted separately from the candidates there, and are part of the output here.
    """
    try:
        found = _gemini_decoder.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if found.promptTokenCount is None and found.candidatesTokenCount is None:
        return None
    total_in = count(found.promptTokenCount) + count(found.toolUsePromptTokenCount)
    thoughts = count(found.thoughtsTokenCount)
    answer = count(found.candidatesTokenCount)
    return Usage(
        input=total_in,
        cached_input=min(count(found.cachedContentTokenCount), total_in),
        output=answer + thoughts,
        reasoning=thoughts,
        audio_input=min(_of_modality(found.promptTokensDetails, "AUDIO"), total_in),
        audio_output=min(_of_modality(found.candidatesTokensDetails, "AUDIO"), answer),
        image_input=min(_of_modality(found.promptTokensDetails, "IMAGE"), total_in),
    )


def _of_modality(details: list[_Modality] | None, wanted: str) -> int:
    return sum(count(entry.tokenCount) for entry in details or () if entry.modality == wanted)
