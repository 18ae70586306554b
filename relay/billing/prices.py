"""What a request costs. Pure: prices and usage in, nano-USD out.

Prices are whole numbers: nano-USD per 1M tokens for token classes, nano-USD per unit for the others. A class without a price of its own is
billed as the class that it is a part of. Rounding happens in `cost` alone: up, once per request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from relay.protocols.usage import Usage

PER: Final = 1_000_000  # tokens that a token price is for
ONE: Final = 1_000_000  # multipliers are parts per million
_SECOND: Final = 1000  # usage counts milliseconds
_SCALE: Final = PER * ONE
_NO_UNITS: Final = Usage()


@dataclass(frozen=True, slots=True)
class Price:
    """One version of a price, for prompts of more than `above_tokens` tokens. `id` 0: the fallback price of the settings."""

    id: int = 0
    since: float = 0.0
    above_tokens: int = 0
    input: int = 0
    output: int = 0
    cached_input: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None
    image_input: int | None = None
    call: int = 0
    image: int = 0
    second: int = 0
    character: int = 0
    dearest_input: int = field(init=False, default=0)
    dearest_output: int = field(init=False, default=0)
    has_units: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dearest_input", max(self.input, self.cache_write or 0, self.audio_input or 0, self.image_input or 0))
        object.__setattr__(self, "dearest_output", max(self.output, self.reasoning or 0, self.audio_output or 0))
        object.__setattr__(self, "has_units", bool(self.call or self.image or self.second or self.character))


@dataclass(frozen=True, slots=True)
class PriceList:
    """All versions of one price, newest first; those of one moment by `above_tokens`, largest first."""

    versions: tuple[Price, ...]

    @classmethod
    def of(cls, prices: Sequence[Price]) -> PriceList:
        return cls(tuple(sorted(prices, key=lambda price: (-price.since, -price.above_tokens))))

    def at(self, now: float, prompt_tokens: int) -> Price | None:
        """The price in force at second `now` for a prompt of this length; None before the first version.

        The tier is chosen by the whole prompt, cached tokens included, and then holds for the whole request.
        """
        if len(self.versions) == 1:
            price = self.versions[0]
            return price if price.since <= now else None
        since: float | None = None
        for price in self.versions:
            if since is None:
                if price.since > now:
                    continue
                since = price.since
            elif price.since != since:
                return None
            if prompt_tokens > price.above_tokens or price.above_tokens == 0:
                return price
        return None


def cost(price: Price, usage: Usage, multiplier: int = ONE) -> int:
    """Nano-USD of one request, rounded up; `multiplier` in parts per million. Never negative, whatever the usage says."""
    text_in, text_out, per_million = usage.input, usage.output, 0
    if usage.cached_input:
        cached = min(usage.cached_input, text_in)
        text_in -= cached
        per_million += cached * (price.input if price.cached_input is None else price.cached_input)
    if usage.cache_write:
        written = min(usage.cache_write, text_in)
        text_in -= written
        per_million += written * (price.input if price.cache_write is None else price.cache_write)
    if usage.audio_input:
        audio = min(usage.audio_input, text_in)
        text_in -= audio
        per_million += audio * (price.input if price.audio_input is None else price.audio_input)
    if usage.image_input:
        images = min(usage.image_input, text_in)
        text_in -= images
        per_million += images * (price.input if price.image_input is None else price.image_input)
    if usage.reasoning:
        reasoning = min(usage.reasoning, text_out)
        text_out -= reasoning
        per_million += reasoning * (price.output if price.reasoning is None else price.reasoning)
    if usage.audio_output:
        audio = min(usage.audio_output, text_out)
        text_out -= audio
        per_million += audio * (price.output if price.audio_output is None else price.audio_output)
    per_million += text_in * price.input + text_out * price.output
    if price.has_units:
        units = price.call + usage.images * price.image + usage.characters * price.character
        per_million += units * PER + -(-usage.milliseconds * price.second * PER // _SECOND)
    return -(-per_million * multiplier // _SCALE) if per_million > 0 else 0


def ceiling(price: Price, prompt_tokens: int, output_tokens: int, multiplier: int, units: Usage = _NO_UNITS) -> int:
    """The most that so many tokens can cost: none cached, all written to the cache, all of the answer of the dearest kind. `units`: what is not counted in tokens."""
    per_million = prompt_tokens * price.dearest_input + output_tokens * price.dearest_output
    if price.has_units:
        per_million += (price.call + units.images * price.image + units.characters * price.character) * PER + -(-units.milliseconds * price.second * PER // _SECOND)
    return -(-per_million * multiplier // _SCALE)


def affordable_output(price: Price, money: int, multiplier: int, choices: int = 1) -> int:
    """How many output tokens of each choice `money` nano-USD pay for, at the dearer of text, reasoning and audio. Unbounded prices give 2^31."""
    dearest = price.dearest_output
    if dearest <= 0 or multiplier <= 0:
        return 2**31
    return max(0, money) * _SCALE // (dearest * multiplier * choices)
