"""Prices of LiteLLM, of one token or unit, as our prices of a million tokens or a unit. Pure.

A price that is missing is that of the class which the tokens are a part of, there and here.

Source: LiteLLM 1.108's llm_cost_calc and the keys of its list of prices, read in November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from relay.importers.description import Level, Remark
from relay.importers.reading.row import number_of

Tiers = tuple[tuple[int, Mapping[str, Decimal]], ...]
_MILLION: Final = Decimal(1_000_000)
_TOKENS: Final[Mapping[str, str]] = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cached_input",
    "cache_read_input_audio_token_cost": "cached_audio_input",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "output_cost_per_reasoning_token": "reasoning",
    "input_cost_per_audio_token": "audio_input",
    "output_cost_per_audio_token": "audio_output",
    "input_cost_per_image_token": "image_input",
}
# The first that is there counts.
_UNITS: Final[Mapping[str, tuple[str, ...]]] = {
    "per_call": ("input_cost_per_request", "input_cost_per_query"),
    "per_image": ("output_cost_per_image", "input_cost_per_image"),
    "per_second": ("output_cost_per_second", "input_cost_per_second"),
    "per_character": ("input_cost_per_character",),
}
_TIER: Final = re.compile(r"(?P<name>.+)_above_(?P<size>\d+)(?P<thousands>k?)_tokens")
_TIERED: Final = frozenset(("input", "output", "cached_input", "cache_write"))


def tiers_of(values: Mapping[str, Any]) -> tuple[Tiers, tuple[Remark, ...]]:
    """The tiers of a deployment's own prices; none: it has no price of its own."""
    base: dict[str, Decimal] = {}
    above: dict[int, dict[str, Decimal]] = {}
    unknown = []
    for name, value in values.items():
        usd = number_of(value)
        if usd is None or usd < 0 or "cost" not in name:
            continue
        if name in _TOKENS:
            base[_TOKENS[name]] = usd * _MILLION
        elif (tier := _TIER.fullmatch(name)) is not None and _TOKENS.get(tier["name"]) in _TIERED:
            tokens = int(tier["size"]) * (1000 if tier["thousands"] else 1)
            above.setdefault(tokens, {})[_TOKENS[tier["name"]]] = usd * _MILLION
        elif usd and not any(name in names for names in _UNITS.values()):
            unknown.append(name)
    for unit, names in _UNITS.items():
        found = next((usd for name in names if (usd := number_of(values.get(name))) is not None and usd >= 0), None)
        if found:
            base[unit] = found
    remarks = []
    if unknown:
        text = f"It has prices that have no counterpart: {', '.join(sorted(unknown)[:6])}."
        remarks.append(Remark(text, Level.LEFT_OUT))
    if not base and not above:
        return (), tuple(remarks)
    tiers = [(0, base)]
    for tokens in sorted(above):  # a tier has what the one before it had, where it says nothing else
        tiers.append((tokens, {**tiers[-1][1], **above[tokens]}))
    return tuple(tiers), tuple(remarks)
