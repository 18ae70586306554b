"""What a request used, in OpenAI's way of counting: cached and cache-write tokens are part of the input, reasoning tokens part of the output.

Vendors count differently (`Usage` is the one form that is priced): OpenAI's prompt includes cached tokens, Anthropic's leaves them out, and
Gemini's thoughts are no part of its output. A count that is no sane number is 0, so that nobody is credited by an upstream's nonsense.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

_CEILING = 2**53  # a count above this is nonsense from the upstream, not usage


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens by class, and what is not counted in tokens. All are at least 0."""

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    audio_input: int = 0
    audio_output: int = 0
    image_input: int = 0
    images: int = 0
    milliseconds: int = 0
    characters: int = 0


class _InputDetails(msgspec.Struct):
    cached_tokens: object = None
    cache_write_tokens: object = None
    audio_tokens: object = None
    image_tokens: object = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: object = None
    audio_tokens: object = None


class _ChatUsage(msgspec.Struct):
    prompt_tokens: object = None
    completion_tokens: object = None
    total_tokens: object = None
    cached_tokens: object = None  # Moonshot: at the top
    prompt_cache_hit_tokens: object = None  # DeepSeek
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


_decoder = msgspec.json.Decoder(_ChatUsage)


def _count(value: object) -> int:
    """A token count that somebody else's program wrote: anything but a sane non-negative number is 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0
    return int(value) if 0 <= value < _CEILING else 0


def parse_chat_usage(raw: bytes | msgspec.Raw) -> Usage | None:
    """The `usage` object of a chat completion or chunk, or None when it is no object with counts."""
    try:
        found = _decoder.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if found.prompt_tokens is None and found.completion_tokens is None:
        return None
    into, out = found.prompt_tokens_details or _InputDetails(), found.completion_tokens_details or _OutputDetails()
    total_in, total_out = _count(found.prompt_tokens), _count(found.completion_tokens)
    reasoning = _count(out.reasoning_tokens)
    beside = _count(found.total_tokens) - total_in - total_out
    if beside > 0 and reasoning in (0, beside):
        # xAI counts reasoning beside the completion, Gemini's OpenAI dialect does not name its thoughts at all; only the total has them.
        total_out, reasoning = total_out + beside, beside
    cached = _count(into.cached_tokens) or _count(found.cached_tokens) or _count(found.prompt_cache_hit_tokens)
    return Usage(
        input=total_in,
        cached_input=min(cached, total_in),
        cache_write=min(_count(into.cache_write_tokens), total_in - min(cached, total_in)),
        output=total_out,
        reasoning=min(reasoning, total_out),
        audio_input=min(_count(into.audio_tokens), total_in),
        audio_output=min(_count(out.audio_tokens), total_out),
        image_input=min(_count(into.image_tokens), total_in),
    )


class _ResponsesUsage(msgspec.Struct):
    """Of responses, images and transcriptions, which differ in what they detail."""

    input_tokens: object = None
    output_tokens: object = None
    total_tokens: object = None
    seconds: object = None  # whisper is billed by time
    input_tokens_details: _InputDetails | None = None
    input_token_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None
    output_token_details: _OutputDetails | None = None


_responses_decoder = msgspec.json.Decoder(_ResponsesUsage)


def parse_responses_usage(raw: bytes | msgspec.Raw) -> Usage | None:
    """The `usage` object of a response, an image, a transcription or a realtime response, or None when it is no object with counts."""
    try:
        found = _responses_decoder.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if found.input_tokens is None and found.output_tokens is None and found.seconds is None and found.total_tokens is None:
        return None
    into = found.input_tokens_details or found.input_token_details or _InputDetails()
    out = found.output_tokens_details or found.output_token_details or _OutputDetails()
    total_in, total_out = _count(found.input_tokens), _count(found.output_tokens)
    if found.input_tokens is None and found.output_tokens is None:
        total_in = _count(found.total_tokens)
    cached = min(_count(into.cached_tokens), total_in)
    seconds = found.seconds if isinstance(found.seconds, (int, float)) and not isinstance(found.seconds, bool) else 0
    return Usage(
        input=total_in,
        cached_input=cached,
        cache_write=min(_count(into.cache_write_tokens), total_in - cached),
        output=total_out,
        reasoning=min(_count(out.reasoning_tokens), total_out),
        audio_input=min(_count(into.audio_tokens), total_in),
        audio_output=min(_count(out.audio_tokens), total_out),
        image_input=min(_count(into.image_tokens), total_in),
        milliseconds=_count(seconds * 1000) if 0 <= seconds < _CEILING else 0,
    )


class _MessagesUsage(msgspec.Struct):
    input_tokens: object = None
    output_tokens: object = None
    cache_read_input_tokens: object = None
    cache_creation_input_tokens: object = None


_messages_decoder = msgspec.json.Decoder(_MessagesUsage)


def parse_messages_usage(raw: bytes | msgspec.Raw) -> Usage | None:
    """The `usage` object of Anthropic's messages, whose `input_tokens` leave out what was read from or written to the cache."""
    try:
        found = _messages_decoder.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if found.input_tokens is None and found.output_tokens is None:
        return None
    cached, written = _count(found.cache_read_input_tokens), _count(found.cache_creation_input_tokens)
    return Usage(input=_count(found.input_tokens) + cached + written, cached_input=cached, cache_write=written, output=_count(found.output_tokens))


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
    """Gemini's `usageMetadata`, whose thoughts are counted beside the candidates and not among them."""
    try:
        found = _gemini_decoder.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if found.promptTokenCount is None and found.candidatesTokenCount is None:
        return None
    total_in = _count(found.promptTokenCount) + _count(found.toolUsePromptTokenCount)
    thoughts = _count(found.thoughtsTokenCount)
    answer = _count(found.candidatesTokenCount)
    return Usage(
        input=total_in,
        cached_input=min(_count(found.cachedContentTokenCount), total_in),
        output=answer + thoughts,
        reasoning=thoughts,
        audio_input=min(_of_modality(found.promptTokensDetails, "AUDIO"), total_in),
        audio_output=min(_of_modality(found.candidatesTokensDetails, "AUDIO"), answer),
        image_input=min(_of_modality(found.promptTokensDetails, "IMAGE"), total_in),
    )


def _of_modality(details: list[_Modality] | None, wanted: str) -> int:
    return sum(_count(entry.tokenCount) for entry in details or () if entry.modality == wanted)


def present(raw: msgspec.Raw) -> bool:
    """Whether an optional member is there and not null."""
    return bytes(raw) not in (b"", b"null")
