"""The tokens of images that a model makes, by quality and size, for answers that do not report them. Pure.

Source: OpenAI's guide to image generation, its table for models before gpt-image-2 and its calculator for that one
(November 2026). Of later models, and of those of others, only what they report is known: they count as the nearest one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from portal.lib.texts import whole_number

PARTIAL: Final = 100  # tokens of each partial image, beside those of the image itself
# Of images of 1024x1024, 1024x1536 and 1536x1024.
_TOKENS: Final = {"low": (272, 408, 400), "medium": (1056, 1584, 1568), "high": (4160, 6240, 6208)}
_AREAS: Final = (1024 * 1024, 1024 * 1536, 1024 * 1536)
# gpt-image-2 divides the longer side into so many parts, and the shorter one in proportion.
_PARTS: Final = {"low": 16, "medium": 48, "high": 96}
_LEAST_AREA: Final = 655_360  # pixels, of its images
_MODEL: Final = re.compile(r"gpt-image-(\d+)")
_SIZE: Final = re.compile(r"(\d{2,5})\s*[xX*]\s*(\d{2,5})")
_USUAL_SIZE: Final = (1024, 1024)
_LONGEST_SIDE: Final = 8192  # pixels
_USUAL: Final = "medium"  # what “auto” and no quality mean depends on the image
_LIKE: Final = {"standard": "medium", "hd": "high", "xhigh": "high", "max": "high"}
# What one image may have: of these qualities, and of any other.
_MOST: Final = {"low": 500, "medium": 2000, "standard": 2000}
_BEST: Final = 8000
_MOST_PARTIALS: Final = 10
_DEARER: Final = 1.2  # by which another model may count more than the ones that are known
_BETTER: Final = 1.5  # by which a quality may that is not known


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """What a request says of the images that it asks for, as the client wrote it."""

    model: str = ""
    quality: str = ""
    size: str = ""
    partials: int = 0  # partial images that it wants of each

    @classmethod
    def of(cls, model: object, quality: object, size: object, partials: object) -> ImageOptions:
        texts = [value if isinstance(value, str) else "" for value in (model, quality, size)]
        return cls(texts[0], texts[1], texts[2], whole_number(partials, 0, _MOST_PARTIALS) or 0)

    def by_model(self, name: str) -> ImageOptions:
        """The same of the model that has this name at an upstream, if that says which one it is."""
        return replace(self, model=name) if _MODEL.search(name) else self

    def tokens(self, quality: object = None, size: object = None) -> int:
        """The tokens of one image, without partial ones. `quality`, `size`: those that the answer says it has."""
        stated = _quality(quality) or _quality(self.quality) or _USUAL
        sides = _sides(size) or _sides(self.size) or _USUAL_SIZE
        found = _MODEL.search(self.model)
        return _by_parts(stated, sides) if found and int(found[1]) >= 2 else _by_table(stated, sides)

    def most(self) -> int:
        """The tokens that one image may have, with its partial ones, for which money is held."""
        quality, sides = _quality(self.quality) or "high", _sides(self.size)
        known = 0
        if sides is not None:  # another name may stand for any model
            named = self.tokens(quality)
            known = named if _MODEL.search(self.model) else max(named, _by_parts(quality, sides))
        counted = int(known * (_DEARER if self.quality in {*_TOKENS, *_MOST} else _BETTER))
        return max(_MOST.get(self.quality, _BEST), counted) + PARTIAL * self.partials


NO_OPTIONS: Final = ImageOptions()


def _quality(said: object) -> str:
    """A quality whose tokens are known; empty for any other."""
    if not isinstance(said, str):
        return ""
    return said if said in _TOKENS else _LIKE.get(said, "")


def _sides(size: object) -> tuple[int, int] | None:
    """The width and height that a size says, in pixels."""
    found = _SIZE.fullmatch(size.strip()) if isinstance(size, str) else None
    return (min(int(found[1]), _LONGEST_SIDE), min(int(found[2]), _LONGEST_SIDE)) if found else None


def _by_table(quality: str, sides: tuple[int, int]) -> int:
    """In proportion to the nearest size of the table, but no fewer than that has: a client may name any size."""
    width, height = sides
    shape = 0 if width == height else 1 if height > width else 2
    return max(_TOKENS[quality][shape], _TOKENS[quality][shape] * width * height // _AREAS[shape])


def _by_parts(quality: str, sides: tuple[int, int]) -> int:
    long, short, parts = max(sides), min(sides), _PARTS[quality]
    across = (2 * parts * short + long) // (2 * long)
    area = max(_LEAST_AREA, long * short)
    return -(-parts * max(1, across) * (2_000_000 + area) // 4_000_000)
