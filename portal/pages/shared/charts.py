"""Geometry of bar charts, which templates draw as SVG. Pure functions.

For accessibility every chart comes with a table of its numbers and does not depend on colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 600, 120
_GAP = 0.25  # share of the width of a bar and its gap


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle in an image of WIDTH by HEIGHT, with a tooltip."""

    x: float
    y: float
    width: float
    height: float
    title: str


def bars(values: Sequence[float], titles: Sequence[str], top: float | None = None, height: int = HEIGHT) -> list[Bar]:
    """One bar for each value, from left to right.

    The largest value, or `top`, has the height of the image. Values above zero are at least 1.5 units high.
    """
    highest = top if top is not None else max(values, default=0)
    place = WIDTH / max(1, len(values))
    found = []
    for index, (value, title) in enumerate(zip(values, titles, strict=True)):
        tall = max(1.5, height * value / highest) if highest and value > 0 else 0.0
        found.append(
            Bar(
                round(index * place + place * _GAP / 2, 2),
                round(height - tall, 2),
                round(place * (1 - _GAP), 2),
                round(tall, 2),
                title,
            )
        )
    return found
