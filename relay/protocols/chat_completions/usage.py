"""The `usage` object of OpenAI's APIs, including the deviations of compatible vendors, and what is counted of streams
of chat completions where none is reported. Pure.

One reader knows the words of all APIs, since servers answer one API in the words of another.
"""

from __future__ import annotations

import msgspec

from portal.lib.json import decode_object, encode, objects_of
from relay.protocols.sse import event_data, split_events
from relay.protocols.token_estimate import text_units
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
    hour_of,
    searches_of,
    sum_of,
)


class _Usage(msgspec.Struct):
    """The members of all of OpenAI's APIs, and of vendors that are compatible with one of them."""

    prompt_tokens: object = None
    completion_tokens: object = None
    input_tokens: object = None  # of the Responses API, images and transcriptions; mlx-vlm: of chat, too
    output_tokens: object = None
    total_tokens: object = None
    seconds: object = None  # whisper is billed by time
    cached_tokens: object = None  # Moonshot: at the top
    prompt_cache_hit_tokens: object = None  # DeepSeek
    cache_read_input_tokens: object = None  # relays in front of Anthropic
    cache_creation_input_tokens: object = None
    cache_creation: object = None  # the same, by lifetime
    reasoning_tokens: object = None  # Perplexity: at the top
    num_search_queries: object = None  # Perplexity alone
    server_tool_use: object = None  # relays in front of Anthropic, and OpenRouter
    prompt_tokens_details: SomeInputDetails = None
    input_tokens_details: SomeInputDetails = None
    input_token_details: SomeInputDetails = None  # transcriptions, realtime
    completion_tokens_details: SomeOutputDetails = None
    output_tokens_details: SomeOutputDetails = None
    output_token_details: SomeOutputDetails = None

    def is_empty(self) -> bool:
        text = self.prompt_tokens is self.completion_tokens is self.input_tokens is self.output_tokens is None
        return text and self.total_tokens is self.seconds is None

    def input_details(self) -> InputDetails:
        for found in (self.prompt_tokens_details, self.input_tokens_details, self.input_token_details):
            if isinstance(found, InputDetails):
                return found
        return NO_INPUT_DETAILS

    def output_details(self) -> OutputDetails:
        for found in (self.completion_tokens_details, self.output_tokens_details, self.output_token_details):
            if isinstance(found, OutputDetails):
                return found
        return NO_OUTPUT_DETAILS


_decoder = msgspec.json.Decoder(_Usage)


def parse_chat_usage(raw: bytes | msgspec.Raw, other: bool = False) -> Usage | None:
    """Parse a `usage` object, in the words of whichever API; None when it has no counts.

    `other`: where both have counts, those in the words of the Responses API are meant. A total alone is told as tokens
    beside input and output: which of them it is depends on the endpoint.
    """
    try:
        found = _decoder.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if found.is_empty():
        return None
    prompt, completion = count(found.prompt_tokens), count(found.completion_tokens)
    into, out = count(found.input_tokens), count(found.output_tokens)
    if other:
        into, out = into or prompt, out or completion
    else:
        into, out = prompt or into, completion or out
    details, details_out = found.input_details(), found.output_details()
    cached = count(details.cached_tokens) or count(found.cached_tokens) or count(found.prompt_cache_hit_tokens)
    cached = cached or count(found.cache_read_input_tokens)
    written = details.written() or count(found.cache_creation_input_tokens) or sum_of(found.cache_creation)
    total, reasoning = count(found.total_tokens), count(details_out.reasoning_tokens)
    anthropic = found.prompt_tokens is None and found.cache_read_input_tokens is not None
    if anthropic and details is NO_INPUT_DETAILS and total in {0, into + out}:
        total, into = 0, into + cached + written  # Anthropic's words, and its way to count
    if not reasoning and found.reasoning_tokens is not None:
        reasoning = count(found.reasoning_tokens)
        if found.num_search_queries is not None:  # Perplexity bills them beside the completion, and in no total
            out += reasoning
    seconds: int | float = 0
    if found.seconds is not None and isinstance(found.seconds, (int, float)) and not isinstance(found.seconds, bool):
        seconds = found.seconds
    return Counts(
        input=into,
        output=out,
        total=total,
        cached=cached,
        written=written,
        reasoning=reasoning,
        rejected=count(details_out.rejected_prediction_tokens),
        audio_input=count(details.audio_tokens),
        audio_output=count(details_out.audio_tokens),
        image_input=count(details.image_tokens),
        cached_audio=details.cached_of("audio_tokens"),
        cached_images=details.cached_of("image_tokens"),
        written_1h=details.written_1h() or hour_of(found.cache_creation),
        milliseconds=count(seconds * 1000) if 0 < seconds < CEILING else 0,
        searches=count(found.num_search_queries) or searches_of(found.server_tool_use),
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
