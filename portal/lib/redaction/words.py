"""Tells what was made at random, such as a key or the id of an account, from names that people write."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

_NAME: Final = re.compile(r"([A-Za-z]+)\d{0,4}")  # `profile`, `lineItems`, `report2025`
_SEPARATORS: Final = re.compile(r"[-_./]")
_LONGEST_WORD: Final = 20
_CHANGES: Final = 0.42  # of letter case, for each letter: half of them in random text, a fifth in `camelCase`


def is_random(text: str) -> bool:
    """Whether letters and digits are mixed in some part of a text as in no name."""
    return any(map(_is_random_part, filter(None, _SEPARATORS.split(text))))


def _is_random_part(part: str) -> bool:
    name = _NAME.fullmatch(part)
    if name is None:
        return not part.isdigit() or len(part) > 4
    letters = name[1]
    if len(letters) > _LONGEST_WORD:
        return True
    changes = sum(one.isupper() != other.isupper() for one, other in pairwise(letters))
    return len(letters) >= 6 and changes > _CHANGES * len(letters)
