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

    def cached(self) -> int:
        """The cached tokens, where they stand beside the input and not in its details."""
        if self.cached_tokens is self.prompt_cache_hit_tokens is self.cache_read_input_tokens is None:  # nearly always
            return 0
        return count(self.cached_tokens) or count(self.prompt_cache_hit_tokens) or count(self.cache_read_input_tokens)

    def written(self) -> int:
        """The same of those that were written to the cache."""
        if self.cache_creation_input_tokens is self.cache_creation is None:
            return 0
        return count(self.cache_creation_input_tokens) or sum_of(self.cache_creation)

    def input_details(self) -> InputDetails:
        for found in (self.prompt_tokens_details, self.input_tokens_details, self.input_token_details):
            if type(found) is InputDetails:
                return found
        return NO_INPUT_DETAILS

    def output_details(self) -> OutputDetails:
        for found in (self.completion_tokens_details, self.output_tokens_details, self.output_token_details):
            if type(found) is OutputDetails:
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
    into, out, total = count(found.prompt_tokens), count(found.completion_tokens), count(found.total_tokens)
    if other:
        into, out = count(found.input_tokens) or into, count(found.output_tokens) or out
    else:
        into, out = into or count(found.input_tokens), out or count(found.output_tokens)
    details, details_out = found.input_details(), found.output_details()
    cached, written = count(details.cached_tokens) or found.cached(), details.written() or found.written()
    reasoning = count(details_out.reasoning_tokens) if details_out is not NO_OUTPUT_DETAILS else 0
    anthropic = found.prompt_tokens is None and found.cache_read_input_tokens is not None
    if anthropic and details is NO_INPUT_DETAILS and total in {0, into + out}:
        total, into = 0, into + cached + written  # Anthropic's words, and its way to count
    if not reasoning and found.reasoning_tokens is not None:
        reasoning = count(found.reasoning_tokens)
        if found.num_search_queries is not None:  # Perplexity bills them beside the completion, and in no total
            out += reasoning
    counts = Counts(into, out, total, cached, written, reasoning)
    if details is not NO_INPUT_DETAILS:
        if details.audio_tokens is not None or details.image_tokens is not None:
            counts.audio_input, counts.image_input = count(details.audio_tokens), count(details.image_tokens)
        if details.cached_tokens_details is not None:
            counts.cached_audio = details.cached_of("audio_tokens")
            counts.cached_images = details.cached_of("image_tokens")
        counts.written_1h = details.written_1h()
    if details_out is not NO_OUTPUT_DETAILS:
        counts.rejected = count(details_out.rejected_prediction_tokens)
        counts.audio_output = count(details_out.audio_tokens)
    if found.cache_creation is not None:
        counts.written_1h = counts.written_1h or hour_of(found.cache_creation)
    seconds = found.seconds
    if seconds is not None and isinstance(seconds, (int, float)) and not isinstance(seconds, bool):
        counts.milliseconds = count(seconds * 1000) if 0 < seconds < CEILING else 0
    if found.num_search_queries is not None or found.server_tool_use is not None:
        counts.searches = count(found.num_search_queries) or searches_of(found.server_tool_use)
    return counts.usage(raw)


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
