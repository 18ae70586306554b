"""Looks list prices of vendors up in the package genai-prices. Works offline: the prices are data in the package.

The first look-up takes most of a second, since the package builds its tables. No look-up is made inside a write
transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any, Final

from relay.providers.model_facts import abilities_of_name
from relay.providers.vendors import VENDORS

# Price classes of this portal, and the fields of genai-prices for them.
_CLASSES: Final = {
    "input": "input_mtok",
    "cached_input": "cache_read_mtok",
    "cached_audio_input": "cache_audio_read_mtok",
    "cache_write": "cache_write_mtok",
    "output": "output_mtok",
    "audio_input": "input_audio_mtok",
    "audio_output": "output_audio_mtok",
    "image_input": "input_image_mtok",
}
_THOUSANDS: Final = {"per_call": "requests_kcount", "per_search": "web_searches_kcount"}  # the same of what is counted
_NO_OUTPUT: Final = frozenset(("output",))
_ZERO: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class ListedPrice:
    """One tier of a list price."""

    above_tokens: int  # applies to prompts of more tokens than this
    classes: dict[str, Decimal]  # USD per 1M tokens or per unit, by price class
    unlisted: frozenset[str] = field(default=frozenset(), compare=False)  # which of them the list does not name: zero


@dataclass(frozen=True, slots=True)
class Listing:
    """What a vendor lists for a model."""

    vendor: str  # as genai-prices calls it
    name: str  # of the model, as the vendor calls it
    tiers: tuple[ListedPrice, ...]
    context_window: int | None = None  # tokens

    @property
    def complete(self) -> bool:
        """Whether no side is missing. One without a price for input or output would be free there.

        Models of embeddings have no output.
        """
        needless = _NO_OUTPUT if abilities_of_name(self.name) == ("embeddings",) else frozenset()
        return not any(tier.unlisted - needless for tier in self.tiers)


def look_up(preferred: Sequence[str], names: Sequence[str], at: datetime) -> Listing | None:
    """Return the list price of the first of the names that a vendor has, None when no vendor lists any.

    `preferred`: the vendors to search first, as genai-prices calls them.
    """
    vendors = _vendors()
    for vendor in dict.fromkeys((*preferred, *search_order())):
        index = vendors.get(vendor)
        if index is None:
            continue
        for name in dict.fromkeys(names):
            entry = index.find(name)
            if entry is not None:
                tiers = _tiers_of(entry, at, _multiples(vendor))
                return Listing(vendor, entry.id, tiers, entry.context_window) if tiers else None
    return None


@cache
def search_order() -> tuple[str, ...]:
    """Return the vendors to search when those of a model's channels do not list it, in order."""
    places = [(place, name) for vendor in VENDORS.values() for name, place in vendor.price_search.items()]
    return tuple(name for _place, name in sorted(places))


class _Index:
    """The models of a vendor. Finds the first that matches a name, as their order in the package says.

    Most entries match only names that they spell out; those are found at once. 1,000 unknown names take 0.7 s instead
    of 4.4 s.
    """

    def __init__(self, entries: Sequence[Any]) -> None:
        self._entries = entries
        self._ids: dict[str, int] = {}
        self._spelled: dict[str, int] = {}  # in lower case
        self._rules: list[int] = []  # entries that match more than they spell out
        for place, entry in enumerate(entries):
            self._ids.setdefault(entry.id, place)
            names = _names_of(entry.match)
            if names is None:
                self._rules.append(place)
            for name in names or ():
                self._spelled.setdefault(name.lower(), place)

    def find(self, name: str) -> Any:
        last = len(self._entries)
        first = min(self._ids.get(name, last), self._spelled.get(name.lower(), last))
        for place in self._rules:
            if place >= first:
                break
            if self._entries[place].is_match(name):
                return self._entries[place]
        return self._entries[first] if first < last else None


def _names_of(match: Any) -> list[str] | None:
    """The names that a rule of genai-prices spells out, None when it matches others, too."""
    if (equals := getattr(match, "equals", None)) is not None:
        return [equals]
    found: list[str] = []
    for part in getattr(match, "or_", ()) or (None,):
        names = _names_of(part) if part is not None else None
        if names is None:
            return None
        found += names
    return found


@cache
def _vendors() -> Mapping[str, _Index]:
    from genai_prices.data import providers  # takes 0.8 s and is needed only here

    return {provider.id: _Index(provider.models) for provider in providers}


@cache
def _multiples(listed: str) -> Mapping[str, int]:
    """The price classes of a vendor that the package does not list, as multiples of its price of input."""
    return next((vendor.price_multiples for vendor in VENDORS.values() if vendor.price_list == listed), {})


def _tiers_of(entry: Any, now: datetime, multiples: Mapping[str, int]) -> tuple[ListedPrice, ...]:
    prices = entry.get_prices(now)
    base: dict[str, Decimal] = {}
    tiers: dict[int, dict[str, Decimal]] = {}
    for ours, theirs in _CLASSES.items():
        value = getattr(prices, theirs, None)
        if value is None:
            continue
        base[ours] = Decimal(getattr(value, "base", value)).normalize()
        for tier in getattr(value, "tiers", ()):
            tiers.setdefault(tier.start, {})[ours] = Decimal(tier.price).normalize()
    hours = getattr(prices, "input_audio_hours", None) or getattr(prices, "audio_hours", None)
    if hours is not None:
        base["per_second"] = (Decimal(getattr(hours, "base", hours)) / 3600).quantize(Decimal("1e-9")).normalize()
    for ours, theirs in _THOUSANDS.items():
        value = getattr(prices, theirs, None)
        if value is not None:
            base[ours] = (Decimal(getattr(value, "base", value)) / 1000).normalize()
    if not base:
        return ()
    sides = {"input", "output"}
    unlisted = frozenset(sides - base.keys()) if sides & base.keys() else frozenset()  # neither: priced by unit
    for classes in (base, *tiers.values()):
        classes.setdefault("input", base.get("input", _ZERO))
        classes.setdefault("output", base.get("output", _ZERO))
        if "cache_write" in base:
            classes |= {name: (classes["input"] * multiple).normalize() for name, multiple in multiples.items()}
    return (
        ListedPrice(0, base, unlisted),
        *(ListedPrice(start, {**base, **classes}, unlisted) for start, classes in sorted(tiers.items())),
    )
