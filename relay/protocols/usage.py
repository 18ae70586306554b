"""The usage of a request, counted as OpenAI does, and what was delivered of its answer. Pure.

Cached and cache-write tokens are part of the input, reasoning tokens part of the output. Vendors count differently, and
`Usage` is the one form that is priced: OpenAI's prompt includes cached tokens, Anthropic's excludes them, and Gemini's
output excludes thinking tokens. A count that is not a plausible number is 0, so that bad upstream data credits nobody.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from relay.protocols.token_estimate import answer_units, audio_units, is_opaque_answer

CEILING = 2**53  # a larger count is an upstream's mistake
MOST_SEARCHES: Final = 1000  # on the web, for one answer. Agents that research for an hour make some hundreds.
RAW_LIMIT: Final = 2048  # bytes of a usage object that are kept

# How an upstream counts reasoning tokens: as part of the completion; listed, but not part of it (xAI); or not listed,
# so that only the total includes them (Gemini's API in OpenAI's form).
ReasoningCount = Literal["inside", "beside", "unlisted"]
# Where vendors say what a request costs: OpenRouter, Perplexity, xAI. `relay.billing.stated_cost` reads it.
CostMember = Literal["cost", "cost.total_cost", "cost_in_usd_ticks"]


class Report(msgspec.Struct, frozen=True):
    """What an upstream reported, beyond the counts that it was read as."""

    raw: bytes = b""  # the usage object, at most RAW_LIMIT bytes
    beside: int = 0  # tokens that only its total includes, and nothing in it explains
    contradictory: bool = False  # a part exceeds its whole, a count is no number, or one of a stream went back
    rejected: int = 0  # tokens of the output that are no part of the answer, and no reasoning: predictions that failed


NO_REPORT: Final = Report()


class Usage(msgspec.Struct, frozen=True, eq=False):
    """Tokens by class, and the units that are not tokens. All are at least 0.

    No token is of two classes that have prices of their own: audio and images of the input are those that were not read
    from the cache, as far as the upstream tells.

    A struct is made three times as fast as a frozen dataclass.
    """

    input: int = 0
    cached_input: int = 0
    cached_audio_input: int = 0  # of the cached input
    cache_write: int = 0
    cache_write_1h: int = 0  # of these, what is kept for an hour
    output: int = 0
    reasoning: int = 0
    audio_input: int = 0
    audio_output: int = 0
    image_input: int = 0
    images: int = 0
    milliseconds: int = 0
    characters: int = 0
    searches: int = 0  # on the web, by the upstream
    report: Report = NO_REPORT

    def __eq__(self, other: object) -> bool:
        """Whether the counts are the same, however they were reported."""
        return isinstance(other, Usage) and all(getattr(self, name) == getattr(other, name) for name in COUNTERS)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in COUNTERS))


COUNTERS: Final = tuple(name for name in Usage.__struct_fields__ if name != "report")
NO_USAGE: Final = Usage()

# -- reading -----------------------------------------------------------------------------------------------------------


class InputDetails(msgspec.Struct):
    """The parts of the input, in the words of all vendors."""

    cached_tokens: object = None
    cache_write_tokens: object = None
    cache_creation_input_tokens: object = None  # DashScope, as Anthropic
    cached_creation_tokens: object = None  # new-api
    cache_creation: object = None  # DashScope: an object with a member for each lifetime
    cache_write_tokens_details: object = None  # OpenAI: the same
    audio_tokens: object = None
    image_tokens: object = None
    cached_tokens_details: object = None  # OpenAI's realtime: the cached tokens by what they are of

    def cached_of(self, name: str) -> int:
        """The cached tokens of a kind, such as `audio_tokens`; 0 where the upstream does not tell."""
        found = self.cached_tokens_details
        return count(found.get(name)) if isinstance(found, dict) else 0

    def written(self) -> int:
        """The tokens that were written to the cache. Vendors that say it twice say the same twice."""
        if self.cache_write_tokens is self.cache_creation_input_tokens is self.cached_creation_tokens is None and (
            self.cache_creation is self.cache_write_tokens_details is None
        ):
            return 0
        return max(
            count(self.cache_write_tokens),
            count(self.cache_creation_input_tokens),
            count(self.cached_creation_tokens),
            sum_of(self.cache_creation),
            sum_of(self.cache_write_tokens_details),
        )

    def written_1h(self) -> int:
        """Those of them that are kept for an hour."""
        return hour_of(self.cache_creation) if self.cache_creation is not None else 0


class OutputDetails(msgspec.Struct):
    reasoning_tokens: object = None
    audio_tokens: object = None
    rejected_prediction_tokens: object = None


# What vendors send in place of an object of details: an empty list, null, a text.
SomeInputDetails = InputDetails | list[object] | str | float | bool | None
SomeOutputDetails = OutputDetails | list[object] | str | float | bool | None
NO_INPUT_DETAILS: Final = InputDetails()
NO_OUTPUT_DETAILS: Final = OutputDetails()


class Counts(msgspec.Struct):
    """The counts of a usage object, as the upstream wrote them."""

    input: int
    output: int
    total: int
    cached: int
    written: int
    reasoning: int
    audio_input: int = 0
    audio_output: int = 0
    image_input: int = 0
    milliseconds: int = 0
    rejected: int = 0
    cached_audio: int = 0
    cached_images: int = 0
    written_1h: int = 0
    searches: int = 0

    def usage(self, raw: bytes | msgspec.Raw) -> Usage:
        """The usage that these counts mean, with no part larger than its whole.

        Tokens that only the total includes are told apart where the counts prove what they are. A part that is larger
        than its whole can only be beside it, as Anthropic counts cached tokens, also where no total says so.
        """
        beside = max(0, self.total - self.input - self.output)
        nonsense = _NONSENSE.search(raw) is not None
        cached = self.cached + self.written
        if not (cached or self.reasoning or self.rejected or self.audio_input or self.audio_output or self.image_input):
            report = Report(bytes(memoryview(raw)[:RAW_LIMIT]), beside, nonsense)
            return Usage(
                self.input,
                output=self.output,
                milliseconds=self.milliseconds,
                searches=self.searches,
                report=report,
            )
        contradictory = False
        if beside and beside == self.reasoning:
            if self.reasoning > self.output:  # they cannot be inside
                self.output, beside = self.output + beside, 0
        elif beside and cached and beside in {cached, self.cached, self.written}:
            self.input, beside = self.input + beside, 0  # as Bedrock counts: the input excludes the cache
        elif beside and beside == self.audio_input and beside > self.input:
            self.input, beside = self.input + beside, 0  # Mistral's prompt is the text alone
        if cached > self.input or max(self.audio_input, self.image_input) > self.input:
            self.input += cached if cached > self.input else max(self.audio_input, self.image_input)
            contradictory = True
        if max(self.reasoning, self.audio_output) > self.output:
            self.output += max(self.reasoning, self.audio_output)
            contradictory = True
        return Usage(
            input=self.input,
            cached_input=min(self.cached, self.input),
            cached_audio_input=min(self.cached_audio, self.cached, self.input),
            cache_write=(written := min(self.written, self.input - min(self.cached, self.input))),
            cache_write_1h=min(self.written_1h, written),
            output=self.output,
            reasoning=min(self.reasoning, self.output),
            audio_input=max(0, min(self.audio_input, self.input) - min(self.cached_audio, self.cached)),
            audio_output=min(self.audio_output, self.output),
            image_input=max(0, min(self.image_input, self.input) - min(self.cached_images, self.cached)),
            milliseconds=self.milliseconds,
            searches=self.searches,
            report=Report(
                bytes(memoryview(raw)[:RAW_LIMIT]),
                beside,
                contradictory or self.reasoning + self.rejected > max(self.output, self.reasoning) or nonsense,
                min(self.rejected, self.output - min(self.reasoning, self.output)),
            ),
        )


# A count of tokens that is no plausible number: an estimate counts then, and the record is marked.
# It begins with letters that are searched for as such: with “[Tt]” it takes three times as long.
_NONSENSE: Final = re.compile(rb'oken(?:s|Count)"\s*:\s*(?:["\[{tf-]|\d{16}|\d+(?:\.\d+)?[eE])')


def count(value: object) -> int:
    """A count from an upstream's answer; 0 for anything but a plausible non-negative number."""
    if type(value) is int:  # nearly always; no bool
        return value if 0 <= value < CEILING else 0
    return int(value) if type(value) is float and 0 <= value < CEILING else 0


def sum_of(value: object) -> int:
    """The sum of the counts in an object; 0 for anything else."""
    return sum(map(count, value.values())) if isinstance(value, dict) else 0


def hour_of(value: object) -> int:
    """The tokens that were written to the cache for an hour, in an object with a member for each lifetime."""
    return count(value.get("ephemeral_1h_input_tokens")) if isinstance(value, dict) else 0


def searches_of(value: object) -> int:
    """The searches in an object that says how often tools ran which the upstream runs itself, as Anthropic does."""
    return count(value.get("web_search_requests")) if isinstance(value, dict) else 0


def is_told(searches: object) -> bool:
    """Whether an upstream's number of searches is one."""
    if isinstance(searches, bool) or not isinstance(searches, (int, float)):
        return False
    return 0 <= searches <= MOST_SEARCHES


def present(raw: msgspec.Raw) -> bool:
    """Whether an optional member is present and not null."""
    size = len(raw)
    return size > 4 or (size > 0 and bytes(raw) != b"null")


def newer(before: Usage | None, now: Usage | None) -> Usage | None:
    """The usage of a stream that reported `before`, and now `now`.

    Its counters only grow: of each the largest counts. 0 means that this event does not say it.
    """
    if before is None or now is None:
        return now or before
    shrunk = False
    largest = {}
    for name in COUNTERS:
        old, new = getattr(before, name), getattr(now, name)
        largest[name] = max(old, new)
        shrunk = shrunk or (name in {"input", "output"} and 0 < new < old)
    if not shrunk and all(value == getattr(now, name) for name, value in largest.items()):
        return now
    contradictory = shrunk or before.report.contradictory or now.report.contradictory
    found = Usage(**largest, report=replace(now.report, contradictory=contradictory))
    written = min(found.cache_write, found.input - found.cached_input)
    return replace(found, cache_write=written, cache_write_1h=min(found.cache_write_1h, written))


# Tokens of input that an upstream may add to any request; and to a chat, with its template and a system prompt of its
# own (that of Claude Code, which relays add, has about 20,000 with its tools).
LEAST_ADDED: Final = 1024
ADDED_TO_CHAT: Final = 32_768


class Delivered(msgspec.Struct, frozen=True):
    """What an upstream delivered of an answer. The counts are functions, since counting is rarely necessary."""

    size: int  # bytes
    units: Callable[[], float]  # estimated tokens, of text and audio
    audio: Callable[[], float] = float  # of them, of audio
    finished: bool = True
    opaque: Callable[[], bool] = bool  # whether it has content whose tokens cannot be estimated, such as images
    # Images and speech, whose tokens are no text, and searches; of audio that could not be measured before, its length
    # and input.
    media: Callable[[], Usage] = Usage

    @classmethod
    def by(cls, answer: bytes, received: bytes = b"") -> Delivered:
        """What a complete answer in JSON delivers. `received`: what the upstream sent, if that is another text."""
        return cls(
            len(answer),
            lambda: answer_units(answer) + audio_units(answer),
            partial(audio_units, answer),
            opaque=lambda: is_opaque_answer(received or answer),
        )
