"""Whether what an upstream reports of usage can be true, and what is charged where it cannot. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec.structs import replace

from relay.protocols.usage import LEAST_ADDED, MOST_SEARCHES, Delivered, ReasoningCount, Usage

# Tokens of one answer that no model exceeds, where the model's own limit is not known. The longest known is 384k.
LONGEST_ANSWER: Final = 524_288
# Tokens of input. The largest context window is 10M; hosted tools read it again and again.
LARGEST_INPUT: Final = 2**25
LONGEST_AUDIO: Final = 7 * 24 * 3_600_000  # milliseconds
_AUDIO_ERROR: Final = 1.1  # by which the length of audio may differ
_AUDIO_SLACK: Final = 1000  # milliseconds by which it may be shorter
_MOST_ROUNDED: Final = 15_000  # milliseconds to which upstreams round it up
_WINDOWS: Final = 16  # times that one request may read the model's context window
_SLACK: Final = 64  # tokens; small counts prove nothing
_OVER_LIMIT: Final = 1.1  # a limit is exceeded by as much in good faith
_DENSEST: Final = 16  # estimated tokens of text (64 characters) in one real token, on average over a whole text
_SHORTEST_WINDOW: Final = 512  # tokens; servers such as Ollama cut prompts to their window, none to less than this
_DENSEST_SO_FAR: Final = 2  # the same of an answer that broke off, whose last report may be older than its text
_THINNEST: Final = 4  # real tokens in one estimated: every character its own
# Bytes of an answer for one reported token, from which it is worth counting its text. A chunk has about 300.
_BYTES_PER_TOKEN: Final = 512
_NO_PARTS: Final = dict.fromkeys(
    ("cached_input", "cached_audio_input", "cache_write", "cache_write_1h", "audio_input", "image_input"), 0
)


class Expected(msgspec.Struct, frozen=True):
    """What is known of a request's usage without the upstream, in tokens."""

    prompt: int = 0  # estimate of the input; 0: unknown
    output_limit: int | None = None  # of all answers together, which the upstream was told; None: none
    longest: int | None = None  # of all answers together, which the model cannot exceed; None: unknown
    window: int | None = None  # the model's context window; None: unknown
    reasoning: ReasoningCount = "inside"
    # Input that the request cannot exceed; None: something may add to it, such as a file or a search. Rarely called.
    most_input: Callable[[], int | None] | None = None
    # Estimated tokens of what the request tells the model for certain, counted until there are as many as it is given.
    least_input: Callable[[float], float] | None = None
    output: int | None = None  # estimate of an output that no limit can be named for, such as images; None: unknown
    milliseconds: int = 0  # of audio in the request
    audio_between: tuple[int, int] | None = None  # milliseconds that it can have, by its bytes; None: unknown
    # Whether tokens have a price, and whether something else has: images, seconds, characters. An answer that is sold
    # by these alone need not report tokens.
    input_priced: bool = True
    output_priced: bool = True
    by_units: bool = True


def believed(usage: Usage, delivered: Delivered | None, expected: Expected) -> tuple[Usage, bool]:
    """The usage to charge, and whether the upstream's report can be true.

    A direction (input, output) that cannot be true is replaced by what is possible. Where the report only contradicts
    itself, its wholes are kept. `delivered`: None where the answer is neither text nor audio.
    """
    report = usage.report
    usage = _with_reasoning(usage, expected.reasoning)
    if usage.milliseconds and _length_is_false(usage.milliseconds, expected.audio_between):
        usage = replace(usage, milliseconds=expected.milliseconds)
        report = replace(report, contradictory=True)
    if usage.searches > MOST_SEARCHES:
        usage = replace(usage, searches=0)
        report = replace(report, contradictory=True)
    if delivered is not None and (not delivered.finished or report.contradictory):
        usage = replace(usage, searches=max(usage.searches, delivered.media().searches))
    true = not (report.contradictory or (usage.report.beside and usage.report.beside != usage.reasoning))
    # Such an answer may have no tokens.
    by_units = expected.by_units and bool(usage.images or usage.milliseconds or usage.characters)
    needs_input = expected.input_priced or not by_units
    if (not usage.input and expected.prompt and needs_input) or _input_is_false(usage.input, delivered, expected):
        usage = replace(usage, input=expected.prompt, **_NO_PARTS)
        true = False
    needs_output = expected.output_priced or not by_units
    if (usage.output or needs_output) and _output_is_false(usage, delivered, expected):
        output = _possible_output(usage, delivered, expected)
        if output != usage.output:
            audio = min(math.ceil(delivered.audio()), output) if delivered is not None else 0
            usage = replace(usage, output=output, reasoning=0, audio_output=audio)
        true = False
    return usage, true


def _length_is_false(milliseconds: int, between: tuple[int, int] | None) -> bool:
    """Whether audio cannot be as long as reported. Upstreams round up, or bill ten seconds at least (Groq)."""
    if milliseconds > LONGEST_AUDIO:
        return True
    if between is None:
        return False
    least, most = between
    return _AUDIO_ERROR * milliseconds < least - _AUDIO_SLACK or milliseconds > _AUDIO_ERROR * most + _MOST_ROUNDED


def _input_is_false(tokens: int, delivered: Delivered | None, expected: Expected) -> bool:
    most = max(expected.window * _WINDOWS if expected.window else LARGEST_INPUT, _THINNEST * expected.prompt)
    if tokens > most:
        return True
    enough = _DENSEST * tokens + _SLACK
    if expected.least_input is not None and 0 < tokens < _SHORTEST_WINDOW and expected.prompt > enough:
        return expected.least_input(enough) >= enough
    if expected.most_input is None or tokens <= _THINNEST * expected.prompt + LEAST_ADDED:
        return False
    bound = expected.most_input()
    return bound is not None and tokens > bound and not (delivered is not None and delivered.opaque())


def _possible_output(usage: Usage, delivered: Delivered | None, expected: Expected) -> int:
    """The output to charge where the report of it is false: what was counted at least.

    A report above the limit proves no less than one that names the limit, since tokens may have been spent on what is
    not shown. Of content that is no text, such as images, it stands as long as the model can have made as much.
    """
    limit = expected.output_limit
    units = math.ceil(delivered.units()) if delivered is not None else 0
    if usage.output <= units:
        return units
    if expected.output is not None or delivered is None:
        made = delivered.media().output if delivered is not None else 0
        return max(units, made or min(usage.output, limit or expected.output or 0))
    if not delivered.opaque():
        return max(units, limit or 0)
    if usage.output <= max(expected.longest or LONGEST_ANSWER, limit or 0):
        return usage.output
    return max(units, (expected.longest or 0) if limit is None else limit)


def _with_reasoning(usage: Usage, counted: ReasoningCount) -> Usage:
    """The usage with reasoning tokens as part of the output, whatever the upstream does."""
    report, beside = usage.report, usage.report.beside
    if not beside or counted == "inside":
        return usage
    if beside != usage.reasoning and (usage.reasoning or counted == "beside"):
        return usage
    return replace(usage, output=usage.output + beside, reasoning=beside, report=replace(report, beside=0))


def _output_is_false(usage: Usage, delivered: Delivered | None, expected: Expected) -> bool:
    output, limit, known = usage.output, expected.output_limit, expected.output
    longest = expected.longest or LONGEST_ANSWER
    if delivered is None:
        return output > longest or (known is not None and output > _THINNEST * known + _SLACK)
    most: float = longest
    if limit is not None:
        most = limit * _OVER_LIMIT + _SLACK
    elif known is not None:
        most = _THINNEST * known + _SLACK
    said = output - usage.reasoning - usage.report.rejected
    if said > most or output > max(longest, most):
        possible = _THINNEST * delivered.units() + _SLACK
        return said > possible or (output > possible and output > max(longest, most))
    if not output:
        return delivered.units() > 0
    densest = _DENSEST if delivered.finished else _DENSEST_SO_FAR
    if delivered.finished and delivered.size <= _BYTES_PER_TOKEN * output:
        return False
    return delivered.units() > densest * output + _SLACK
