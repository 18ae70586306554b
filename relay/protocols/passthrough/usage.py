"""The `usage` object of pass-through endpoints, whose servers use the members of either API. Pure."""

from __future__ import annotations

import re
from typing import Final

import msgspec
from msgspec.structs import replace

from relay.protocols.chat_completions.usage import parse_chat_usage
from relay.protocols.usage import Usage

_SPLIT: Final = re.compile(rb'"(?:input|output|prompt|completion)_tokens"\s*:\s*[1-9]')


def parse_usage(raw: bytes | msgspec.Raw) -> Usage | None:
    """Parse the `usage` of embeddings, verdicts, images or transcripts; None when it has no counts.

    A total alone is the input: Voyage reports nothing else of embeddings, and Jina nothing else of a ranking (their
    API references, November 2026).
    """
    usage = parse_chat_usage(raw)
    if usage is not None and usage.report.beside and not (usage.input or usage.output):
        return replace(usage, input=usage.report.beside, report=replace(usage.report, beside=0))
    return usage


def parse_image_usage(raw: bytes | msgspec.Raw, prompt_tokens: int) -> Usage | None:
    """The same of images, of which a total alone is mostly output. `prompt_tokens`: an estimate of the prompt."""
    usage = parse_usage(raw)
    if usage is None or usage.output or usage.input <= prompt_tokens or _SPLIT.search(raw) is not None:
        return usage
    return replace(usage, input=prompt_tokens, output=usage.input - prompt_tokens)


def parse_transcript_usage(raw: bytes | msgspec.Raw) -> Usage | None:
    """The same of transcripts, of which Mistral's total alone includes the audio (its documentation, November 2026)."""
    usage = parse_usage(raw)
    if usage is None or not usage.report.beside:
        return usage
    audio = usage.report.beside
    return replace(usage, input=usage.input + audio, audio_input=audio, report=replace(usage.report, beside=0))
