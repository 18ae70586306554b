"""Prices that are written as an expression (new-api), as far as they are tiers of prices by class. Pure.

    len <= 200000 ? tier("short", p * 3 + c * 15 + cr * 0.3) : tier("long", p * 6 + c * 22.5 + cr * 0.6)

Source: new-api's description of its expressions, read in November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

Tiers = tuple[tuple[int, Mapping[str, Decimal]], ...]
_CLASSES: Final = {
    "p": "input",
    "c": "output",
    "cr": "cached_input",
    "cc": "cache_write",
    "cc1h": "cache_write_1h",
    "img": "image_input",
    "ai": "audio_input",
    "ao": "audio_output",
}
_TOKEN: Final = re.compile(r'\s*(?:(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|([A-Za-z_]\w*)|("[^"]*")|(<=|>=|[<>?:()*+,]))')
_MOST: Final = 20_000  # characters
_LONGEST: Final = 10**15  # tokens of a prompt


class NoTiers(Exception):
    """The expression says something else than tiers of prices."""


def read_tiers(expression: str) -> Tiers:
    """The tiers of an expression, ascending. Raises NoTiers."""
    text = expression.strip().removeprefix("v1:")
    if len(text) > _MOST or "|||" in text:
        raise NoTiers
    reader = _Reader(_tokens(text))
    tiers = reader.tree()
    if reader.left():
        raise NoTiers
    merged: list[tuple[int, Mapping[str, Decimal]]] = []
    for above, prices in sorted(tiers, key=lambda tier: tier[0]):
        if not merged or dict(merged[-1][1]) != dict(prices):
            merged.append((above, prices))
    return tuple(merged)


def _tokens(text: str) -> list[str]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            if not text[at:].strip():
                break
            raise NoTiers
        found.append(match[0].strip())
        at = match.end()
    return found


class _Reader:
    """Reads tokens from left to right."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens, self._at, self._depth = tokens, 0, 0

    def left(self) -> bool:
        return self._at < len(self._tokens)

    def _peek(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else ""

    def _take(self, *wanted: str) -> str:
        found = self._peek()
        if not found or (wanted and found not in wanted):
            raise NoTiers
        self._at += 1
        return found

    def tree(self) -> list[tuple[int, Mapping[str, Decimal]]]:
        """A choice by length, or one tier: `(applies to more tokens than this, prices)`."""
        self._depth += 1
        if self._depth > 50:
            raise NoTiers
        if self._peek() == "(":
            self._take("(")
            found = self.tree()
            self._take(")")
            return found
        if self._peek() == "len" and self._peek(1) in {"<=", "<", ">", ">="}:
            self._take()
            comparison, bound = self._take(), self._bound()
            self._take("?")
            first = self.tree()
            self._take(":")
            second = self.tree()
            limit = bound if comparison in {"<=", ">"} else bound - 1
            below, above = (first, second) if comparison in {"<=", "<"} else (second, first)
            return _joined(below, above, limit)
        if self._peek() == "tier":
            self._take()
            self._take("(")
            self._take()
            self._take(",")
            prices = self._sum()
            self._take(")")
            return [(0, prices)]
        return [(0, self._sum())]

    def _bound(self) -> int:
        number = Decimal(self._number())
        if not 1 <= number <= _LONGEST or number != int(number):
            raise NoTiers
        return int(number)

    def _number(self) -> str:
        found = self._take()
        if not found[0].isdigit():
            raise NoTiers
        return found

    def _sum(self) -> Mapping[str, Decimal]:
        if self._peek() == "fixed":
            self._take()
            self._take("(")
            price = Decimal(self._number())
            self._take(")")
            return {"per_call": price}
        prices: dict[str, Decimal] = {}
        while True:
            name, price = self._term()
            if name:
                if name in prices:
                    raise NoTiers
                prices[name] = price
            if self._peek() != "+":
                return prices
            self._take("+")

    def _term(self) -> tuple[str, Decimal]:
        first = self._take()
        if self._peek() != "*":
            if first in _CLASSES:
                return _CLASSES[first], Decimal(1)
            if first[0].isdigit() and not Decimal(first):
                return "", Decimal(0)
            raise NoTiers
        self._take("*")
        second = self._take()
        name, number = (first, second) if first in _CLASSES else (second, first)
        if name not in _CLASSES or not number[0].isdigit():
            raise NoTiers
        return _CLASSES[name], Decimal(number)


def _joined(
    below: list[tuple[int, Mapping[str, Decimal]]], above: list[tuple[int, Mapping[str, Decimal]]], limit: int
) -> list[tuple[int, Mapping[str, Decimal]]]:
    """The tiers below and above a limit together; each of the two is cut to its side."""
    cut = [(least, prices) for least, prices in below if least < limit]
    inside = max((tier for tier in above if tier[0] <= limit), key=lambda tier: tier[0], default=None)
    more = [(least, prices) for least, prices in above if least > limit]
    return [*cut, *([(limit, inside[1])] if inside is not None else []), *more]
