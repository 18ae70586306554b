"""The `usageMetadata` object of Gemini's generateContent. Pure."""

from __future__ import annotations

import re
from typing import Final

import msgspec
from msgspec.structs import replace

from portal.lib.json import Json, object_of, objects_of, text_of
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


QUERIES: Final = b'"webSearchQueries"'
_BY_ANSWER: Final = re.compile(r"gemini-[12](?!\d)")  # models whose grounded answers are billed; of later ones, queries


class Searches:
    """The searches on the web that were made for one answer, of which its pieces tell.

    Source: “Grounding with Google Search” of ai.google.dev, November 2026.
    """

    __slots__ = ("_by_answer", "_found")

    def __init__(self) -> None:
        self._found: set[str] = set()
        self._by_answer = False

    def add(self, response: Json) -> None:
        """A response, or a piece of one."""
        self._by_answer = self._by_answer or _BY_ANSWER.search(text_of(response, "modelVersion")) is not None
        for candidate in objects_of(response, "candidates"):
            queries = object_of(candidate, "groundingMetadata").get("webSearchQueries")
            self._found.update(one for one in (queries if isinstance(queries, list) else ()) if isinstance(one, str))

    @property
    def count(self) -> int:
        made = sum(bool(query.strip()) for query in self._found)
        return min(made, 1) if self._by_answer else made

    def beside(self, usage: Usage | None) -> Usage | None:
        """The usage with them."""
        return replace(usage, searches=self.count) if usage is not None and self._found else usage


def _of_modality(details: object, wanted: str) -> int:
    """The tokens of one modality; 0 where the list is none."""
    if not isinstance(details, list):
        return 0
    return sum(
        count(entry.get("tokenCount"))
        for entry in details
        if isinstance(entry, dict) and entry.get("modality") == wanted
    )
