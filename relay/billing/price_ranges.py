"""What a model costs when several channels serve it at prices of their own: from the lowest to the highest. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

Amounts = Mapping[str, Decimal]  # by price class: USD per 1M tokens, or per unit
Tier = tuple[int, Amounts]  # applies to prompts of more tokens than the number
# Classes of tokens without a price of their own are charged at that of the class that they are a part of: the first of
# these that has one.
_PART_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "cached_input": ("input",),
    "cached_audio_input": ("cached_input", "audio_input", "input"),
    "cache_write": ("input",),
    "cache_write_1h": ("cache_write", "input"),
    "audio_input": ("input",),
    "image_input": ("input",),
    "reasoning": ("output",),
    "audio_output": ("output",),
}
_NOTHING: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class PriceRange:
    """One tier of the prices of a model. Both sides have the same classes."""

    above_tokens: int
    lowest: Amounts
    highest: Amounts

    @property
    def differs(self) -> bool:
        return self.lowest != self.highest


def price_ranges(lists: Iterable[Sequence[Tier]]) -> tuple[PriceRange, ...]:
    """Return the tiers of several price lists together, ascending. A list without a price for short prompts is none."""
    priced = [tiers for found in lists if (tiers := sorted(found, key=lambda tier: tier[0])) and tiers[0][0] == 0]
    ranges: list[PriceRange] = []
    for above in sorted({tier[0] for tiers in priced for tier in tiers}):
        inside = [next(amounts for least, amounts in reversed(tiers) if least <= above) for tiers in priced]
        names = list(dict.fromkeys(name for amounts in inside for name in amounts))
        spans = {name: [amount_of(amounts, name) for amounts in inside] for name in names}
        found = PriceRange(
            above,
            {name: min(values) for name, values in spans.items()},
            {name: max(values) for name, values in spans.items()},
        )
        if not ranges or (ranges[-1].lowest, ranges[-1].highest) != (found.lowest, found.highest):
            ranges.append(found)
    return tuple(ranges)


def with_general(own: Sequence[Tier], general: Sequence[Tier]) -> list[Tier]:
    """Return the tiers of a channel: its own, and for prompts too short for them those of the model."""
    least = min((tier[0] for tier in own), default=None)
    return [*(tier for tier in general if least is None or tier[0] < least), *own]


def amount_of(amounts: Amounts, name: str) -> Decimal:
    """What a list charges for a class."""
    return next((amounts[one] for one in (name, *_PART_OF.get(name, ())) if one in amounts), _NOTHING)
