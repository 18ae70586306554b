"""Calculates what a request costs. Pure: prices and usage in, nano-USD out.

Prices are whole numbers: nano-USD per 1M tokens for token classes, nano-USD per unit for the others. A class without a
price of its own is charged at the price of the class that it is a part of. Only `cost` rounds: up, once per request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from relay.protocols.usage import NO_USAGE, Usage

_MILLION: Final = 1_000_000  # a token price is for this many tokens
ONE: Final = 1_000_000  # the multiplier 1: multipliers are parts per million
_SECOND: Final = 1000  # usage counts milliseconds
_SCALE: Final = _MILLION * ONE
# Nano-USD: a million USD, which no request costs. Whatever is reported, and at whatever price: the record is written.
LARGEST_COST: Final = 10**15


@dataclass(frozen=True, slots=True)
class Price:
    """One tier of one version of a model's price."""

    id: int = 0  # of the row, 0: the fallback price of the settings
    since: float = 0.0  # seconds since 1970 from which it applies
    above_tokens: int = 0  # applies to prompts of more tokens than this
    # Nano-USD per 1M tokens. None: the price of the class that this one is a part of, input or output.
    input: int = 0
    output: int = 0
    cached_input: int | None = None
    cached_audio_input: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    reasoning: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None
    image_input: int | None = None
    # Nano-USD per unit.
    call: int = 0
    image: int = 0
    second: int = 0
    character: int = 0
    search: int = 0  # on the web, by the upstream
    # Derived from the above, since they are needed for every request.
    cached_audio: int = field(init=False, default=0)  # the price of cached audio, of whatever class it is
    written: int = field(init=False, default=0)  # the highest price of what is written to the cache
    dearest_input: int = field(init=False, default=0)  # the highest price of any class of input but cached
    dearest_output: int = field(init=False, default=0)  # the highest price of any class of output
    has_units: bool = field(init=False, default=False)  # something is charged per unit
    prices_parts: bool = field(init=False, default=False)  # audio or images have another price than text
    # The same for a request that cannot have anything kept for an hour.
    short: Price = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        written = (self.input if self.cache_write is None else self.cache_write, self.cache_write_1h)
        object.__setattr__(self, "written", max(amount for amount in written if amount is not None))
        object.__setattr__(
            self, "dearest_input", max(self.input, self.written, self.audio_input or 0, self.image_input or 0)
        )
        audio = self.input if self.audio_input is None else self.audio_input
        cached = (self.cached_audio_input, self.cached_input, audio)
        object.__setattr__(self, "cached_audio", next(amount for amount in cached if amount is not None))
        object.__setattr__(self, "dearest_output", max(self.output, self.reasoning or 0, self.audio_output or 0))
        units = self.call or self.image or self.second or self.character or self.search
        object.__setattr__(self, "has_units", bool(units))
        parts = (self.audio_input, self.image_input, self.audio_output)
        object.__setattr__(self, "prices_parts", any(part is not None for part in parts))
        short = self if self.cache_write_1h is None else replace(self, cache_write_1h=None)
        object.__setattr__(self, "short", short)

    @property
    def is_by_units(self) -> bool:
        """Whether nothing but images, seconds and characters has a price: not tokens, calls and searches."""
        return self.has_units and not (self.call or self.search or self.dearest_input or self.dearest_output)


@dataclass(frozen=True, slots=True)
class PriceList:
    """All versions of the price of one model."""

    versions: tuple[Price, ...]  # newest first; the tiers of one version by `above_tokens`, largest first

    @classmethod
    def of(cls, prices: Sequence[Price]) -> PriceList:
        return cls(tuple(sorted(prices, key=lambda price: (-price.since, -price.above_tokens))))

    def at(self, now: float, prompt_tokens: int) -> Price | None:
        """Return the price in force at `now` (Unix seconds) for a prompt of this length, None if there is none.

        The tier is chosen by the whole prompt, cached tokens included, and applies to the whole request.
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

    def tiers(self, now: float) -> tuple[Price, ...]:
        """Return the tiers of the price in force at `now` (Unix seconds), those of the longest prompts first."""
        since = next((price.since for price in self.versions if price.since <= now), None)
        return tuple(price for price in self.versions if price.since == since)


def cost(price: Price, usage: Usage, multiplier: int = ONE) -> int:
    """Return the nano-USD that one request costs, rounded up. From 0 to LARGEST_COST, whatever the usage says.

    `multiplier` is in parts per million.
    """
    text_in, text_out, per_million = usage.input, usage.output, 0
    if usage.cached_input:
        cached = min(usage.cached_input, text_in)
        text_in -= cached
        heard = min(usage.cached_audio_input, cached)
        per_million += (cached - heard) * (price.input if price.cached_input is None else price.cached_input)
        per_million += heard * price.cached_audio if heard else 0
    if usage.cache_write:
        written = min(usage.cache_write, text_in)
        text_in -= written
        short = price.input if price.cache_write is None else price.cache_write
        per_million += written * short
        if usage.cache_write_1h and price.cache_write_1h is not None:
            per_million += min(usage.cache_write_1h, written) * (price.cache_write_1h - short)
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
        units += usage.searches * price.search
        per_million += units * _MILLION + -(-usage.milliseconds * price.second * _MILLION // _SECOND)
    return min(-(-per_million * multiplier // _SCALE), LARGEST_COST) if per_million > 0 else 0


def ceiling(
    price: Price,
    prompt_tokens: int,
    output_tokens: int,
    multiplier: int,
    units: Usage = NO_USAGE,
    parts: Usage | None = None,
) -> int:
    """Return the most nano-USD that a request can cost: no token cached, all at the highest price of their direction.

    `units` holds what is not counted in tokens: images, characters, milliseconds, searches. `parts`: tokens of the
    prompt that are audio and images at most, while others are text; None: all may be either. `multiplier` is in parts
    per million.
    """
    per_million = output_tokens * price.dearest_output
    per_million += prompt_tokens * price.dearest_input if parts is None else _most_input(price, prompt_tokens, parts)
    if price.has_units:
        each = price.call + units.images * price.image + units.characters * price.character
        each += units.searches * price.search
        per_million += each * _MILLION + -(-units.milliseconds * price.second * _MILLION // _SECOND)
    return min(-(-per_million * multiplier // _SCALE), LARGEST_COST)


def _most_input(price: Price, tokens: int, parts: Usage) -> int:
    """The most that a prompt costs, in nano-USD per 1M, of which these parts are no text."""
    audio = min(tokens, parts.audio_input)
    images = min(tokens - audio, parts.image_input)
    text, written = price.input, price.written
    return (
        (tokens - audio - images) * max(text, written)
        + audio * max(text if price.audio_input is None else price.audio_input, written)
        + images * max(text if price.image_input is None else price.image_input, written)
    )


def affordable_output(price: Price, money: int, multiplier: int, choices: int = 1) -> int:
    """Return how many output tokens of each choice `money` nano-USD pay for, at the highest price of any class.

    2^31 when output costs nothing.
    """
    dearest = price.dearest_output
    if dearest <= 0 or multiplier <= 0:
        return 2**31
    return max(0, money) * _SCALE // (dearest * multiplier * choices)
