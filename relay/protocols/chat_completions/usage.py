"""The `usage` object of chat completions, including the deviations of compatible vendors, and what is counted of their
streams where none is reported. Pure.
"""

from __future__ import annotations

import msgspec

from portal.lib.json import decode_object, encode, objects_of
from relay.protocols.sse import event_data, split_events
from relay.protocols.token_estimate import text_units
from relay.protocols.usage import (
    NO_INPUT_DETAILS,
    NO_OUTPUT_DETAILS,
    Counts,
    InputDetails,
    OutputDetails,
    SomeInputDetails,
    SomeOutputDetails,
    Usage,
    count,
    sum_of,
)


class _ChatUsage(msgspec.Struct):
    prompt_tokens: object = None
    completion_tokens: object = None
    total_tokens: object = None
    cached_tokens: object = None  # Moonshot: at the top
    prompt_cache_hit_tokens: object = None  # DeepSeek
    cache_creation_input_tokens: object = None  # relays in front of Anthropic
    cache_creation: object = None  # the same, by lifetime
    reasoning_tokens: object = None  # Perplexity: at the top
    num_search_queries: object = None  # Perplexity alone
    prompt_tokens_details: SomeInputDetails = None
    completion_tokens_details: SomeOutputDetails = None


_decoder = msgspec.json.Decoder(_ChatUsage)


def parse_chat_usage(raw: bytes | msgspec.Raw) -> Usage | None:
    """Parse the `usage` object of a chat completion or chunk; None when it has no counts."""
    try:
        found = _decoder.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if found.prompt_tokens is None and found.completion_tokens is None:
        return None
    into, out = found.prompt_tokens_details, found.completion_tokens_details
    if not isinstance(into, InputDetails):
        into = NO_INPUT_DETAILS
    if not isinstance(out, OutputDetails):
        out = NO_OUTPUT_DETAILS
    completion, reasoning = count(found.completion_tokens), count(out.reasoning_tokens)
    if not reasoning and found.reasoning_tokens is not None:
        reasoning = count(found.reasoning_tokens)
        if found.num_search_queries is not None:  # Perplexity bills them beside the completion, and in no total
            completion += reasoning
    return Counts(
        input=count(found.prompt_tokens),
        output=completion,
        total=count(found.total_tokens),
        cached=count(into.cached_tokens) or count(found.cached_tokens) or count(found.prompt_cache_hit_tokens),
        written=into.written() or count(found.cache_creation_input_tokens) or sum_of(found.cache_creation),
        reasoning=reasoning,
        rejected=count(out.rejected_prediction_tokens),
        audio_input=count(into.audio_tokens),
        audio_output=count(out.audio_tokens),
        image_input=count(into.image_tokens),
    ).usage(raw)


def delta_units(events: bytes, messages: dict[int, float]) -> float:
    """The estimated tokens of the deltas in events that have whole messages, too.

    Perplexity repeats the message so far beside each delta, and other servers the whole one at the end. `messages`: the
    tokens of the longest by the position of its choice, which is brought up to date.
    """
    units = 0.0
    for event in split_events(events):
        chunk = decode_object(event_data(event).strip())
        if chunk is None:
            units += text_units(event)
            continue
        for position, choice in enumerate(objects_of(chunk, "choices")):
            message, index = choice.pop("message", None), choice.get("index")
            units += text_units(encode(choice))
            if isinstance(message, dict):
                index = index if isinstance(index, int) else position
                messages[index] = max(messages.get(index, 0.0), text_units(encode(message)))
    return units


def usage_at(text: bytes, start: int) -> Usage | None:
    """Parse the usage object that begins at `start`; the text after it is ignored."""
    depth = 0
    for position in range(start, len(text)):
        byte = text[position]
        if byte == 0x7B:
            depth += 1
        elif byte == 0x7D:
            depth -= 1
            if depth == 0:
                return parse_chat_usage(text[start : position + 1])
    return None
