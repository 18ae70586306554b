"""The `usage` object of the Responses API, which images, transcriptions and realtime share. Pure."""

from __future__ import annotations

import msgspec

from portal.lib.json import Json, int_of, object_of
from relay.protocols.usage import (
    CEILING,
    NO_INPUT_DETAILS,
    NO_OUTPUT_DETAILS,
    Counts,
    InputDetails,
    OutputDetails,
    SomeInputDetails,
    SomeOutputDetails,
    Usage,
    count,
)


class _ResponsesUsage(msgspec.Struct):
    """The members of all variants; images and transcriptions spell the details differently."""

    input_tokens: object = None
    output_tokens: object = None
    total_tokens: object = None
    seconds: object = None  # whisper is billed by time
    input_tokens_details: SomeInputDetails = None
    input_token_details: SomeInputDetails = None
    output_tokens_details: SomeOutputDetails = None
    output_token_details: SomeOutputDetails = None


_responses_decoder = msgspec.json.Decoder(_ResponsesUsage)


def parse_responses_usage(raw: bytes | msgspec.Raw) -> Usage | None:
    """Parse the `usage` of a response, an image, a transcription or a realtime response; None when it has no counts."""
    try:
        found = _responses_decoder.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if (
        found.input_tokens is None
        and found.output_tokens is None
        and found.seconds is None
        and found.total_tokens is None
    ):
        return None
    into, out = found.input_tokens_details, found.output_tokens_details
    if not isinstance(into, InputDetails):
        into = found.input_token_details if isinstance(found.input_token_details, InputDetails) else NO_INPUT_DETAILS
    if not isinstance(out, OutputDetails):
        out = found.output_token_details if isinstance(found.output_token_details, OutputDetails) else NO_OUTPUT_DETAILS
    total_in, total_out, total = count(found.input_tokens), count(found.output_tokens), count(found.total_tokens)
    if found.input_tokens is None and found.output_tokens is None:
        total_in = total
    seconds = found.seconds if isinstance(found.seconds, (int, float)) and not isinstance(found.seconds, bool) else 0
    return Counts(
        input=total_in,
        output=total_out,
        total=total,
        cached=count(into.cached_tokens),
        written=into.written(),
        reasoning=count(out.reasoning_tokens),
        audio_input=count(into.audio_tokens),
        audio_output=count(out.audio_tokens),
        image_input=count(into.image_tokens),
        milliseconds=count(seconds * 1000) if 0 <= seconds < CEILING else 0,
    ).usage(raw)


def responses_usage(chat: Json) -> Json:
    """Convert the `usage` of a chat completion to that of a response."""
    into, out = object_of(chat, "prompt_tokens_details"), object_of(chat, "completion_tokens_details")
    cached = int_of(into, "cached_tokens") or int_of(chat, "cached_tokens") or int_of(chat, "prompt_cache_hit_tokens")
    total_in, total_out = int_of(chat, "prompt_tokens"), int_of(chat, "completion_tokens")
    return {
        "input_tokens": total_in,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": int_of(into, "cache_write_tokens")},
        "output_tokens": total_out,
        "output_tokens_details": {"reasoning_tokens": int_of(out, "reasoning_tokens")},
        "total_tokens": int_of(chat, "total_tokens") or total_in + total_out,
    }


def chat_usage(response: Json) -> Json:
    """Convert the `usage` of a response to that of a chat completion."""
    into, out = object_of(response, "input_tokens_details"), object_of(response, "output_tokens_details")
    total_in, total_out = int_of(response, "input_tokens"), int_of(response, "output_tokens")
    found_in: Json = {"cached_tokens": int_of(into, "cached_tokens"), "audio_tokens": int_of(into, "audio_tokens")}
    if "cache_write_tokens" in into:
        found_in["cache_write_tokens"] = int_of(into, "cache_write_tokens")
    return {
        "prompt_tokens": total_in,
        "completion_tokens": total_out,
        "total_tokens": int_of(response, "total_tokens") or total_in + total_out,
        "prompt_tokens_details": found_in,
        "completion_tokens_details": {
            "reasoning_tokens": int_of(out, "reasoning_tokens"),
            "audio_tokens": int_of(out, "audio_tokens"),
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def whole_usage(usage: Json) -> Json:
    """The `usage` of a response with every member that OpenAI's has."""
    into, out = object_of(usage, "input_tokens_details"), object_of(usage, "output_tokens_details")
    total_in, total_out = int_of(usage, "input_tokens"), int_of(usage, "output_tokens")
    return {
        "input_tokens": total_in,
        "output_tokens": total_out,
        "total_tokens": total_in + total_out,
        **usage,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, **into},
        "output_tokens_details": {"reasoning_tokens": 0, **out},
    }
