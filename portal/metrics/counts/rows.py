"""What is counted of a usage record, and in which numbers of the rows of its model and of its channels. Pure.

Amounts are whole numbers: tokens, nano-USD, milliseconds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Final

from portal.metrics.counts.memory import CHANNEL_CELLS, CHANNELS_AT, MODEL_CELLS

# The columns of a usage record that are counted.
COLUMNS: Final = (
    "model", "channel_id", "end_reason", "input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens",
    "reasoning_tokens", "cost", "shortfall", "upstream_cost", "first_token_ms", "latency_ms", "attempt_log",
)  # fmt: skip
# The values of relay.models.usage.EndReason.
OUTCOMES: Final = (
    "completed", "client_error", "no_channel", "upstream_error", "timeout", "truncated", "client_gone", "ended",
    "shutdown", "internal_error",
)  # fmt: skip
# Outcomes of attempts at a channel, and the words of failure classes (relay.providers.failures) that they stand for.
ATTEMPTS: Final = ("ok", "refused", "limited", "key", "failed")
_GROUPS: Final = {
    "ok": 0,
    **dict.fromkeys(("client", "content", "too_large"), 1),
    **dict.fromkeys(("rate", "quota_window", "overload", "full"), 2),
    **dict.fromkeys(("key_dead", "key_forbidden_model", "billing"), 3),
}
_FAILED: Final = 4

# Upper bounds of histograms. Times in milliseconds, of commits in microseconds.
FIRST_TOKEN: Final = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000)
DURATION: Final = (250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000)
BATCH: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500)
COMMIT: Final = (1_000, 2_000, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_000_000)
SUM: Final = 10  # the place of the sum in a histogram, behind its buckets and the one without a bound
HISTOGRAM: Final = SUM + 1  # numbers of one

# A model's numbers.
AMOUNTS: Final = 8  # input, cached input, cache write, output, reasoning; cost, shortfall, upstream cost
OUTCOME_AT: Final = AMOUNTS
MODEL_FIRST_AT: Final = OUTCOME_AT + len(OUTCOMES)
COMPLETED_AT: Final = MODEL_FIRST_AT + HISTOGRAM
FAILED_AT: Final = COMPLETED_AT + HISTOGRAM
# A channel's numbers: completed, failed, then these.
ATTEMPTS_AT: Final = 2
UPSTREAM_COST_AT: Final = ATTEMPTS_AT + len(ATTEMPTS)
CHANNEL_FIRST_AT: Final = UPSTREAM_COST_AT + 1
CHANNEL_DURATION_AT: Final = CHANNEL_FIRST_AT + HISTOGRAM
assert FAILED_AT + HISTOGRAM == MODEL_CELLS and CHANNEL_DURATION_AT + HISTOGRAM == CHANNEL_CELLS  # noqa: S101

_OUTCOMES: Final = {reason: place for place, reason in enumerate(OUTCOMES)}
_OTHER_OUTCOME: Final = _OUTCOMES["internal_error"]


def model_at(row: int) -> int:
    """Where the numbers of a model begin in a bank."""
    return row * MODEL_CELLS


def channel_at(row: int) -> int:
    return CHANNELS_AT + row * CHANNEL_CELLS


def attempt_group(word: str) -> int:
    """The place in ATTEMPTS of an attempt's outcome, as records have it."""
    return _GROUPS.get(word, _FAILED)


def outcome(reason: str) -> int:
    """The place in OUTCOMES of an end reason."""
    return _OUTCOMES.get(reason, _OTHER_OUTCOME)


Spread = tuple[dict[int, int], int]  # of values over a histogram: numbers by bucket, and the sum


def spread(bounds: tuple[int, ...], values: Sequence[int]) -> Spread:
    """Nothing here is done for each value that is not done in C."""
    return Counter(map(partial(bisect_left, bounds), values)), sum(values)


def add(numbers: memoryview[int], at: int, found: Spread) -> None:
    """Add values to the histogram at a place."""
    for place, count in found[0].items():
        numbers[at + place] += count
    numbers[at + SUM] += found[1]


def observe(numbers: memoryview[int], at: int, bounds: tuple[int, ...], values: Sequence[int]) -> None:
    add(numbers, at, spread(bounds, values))
