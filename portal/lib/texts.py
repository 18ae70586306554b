"""Translatable English texts in code that does not import Django, and numbers in texts that people typed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

LARGEST_ID: Final = 2**63 - 1  # what the columns of ids hold


def gettext_noop(text: str) -> str:
    """Mark a text for `make messages`, like Django's function of the same name."""
    return text


def reason(error: BaseException) -> str:
    """What an error says, without the number that the system has for it: “Connection refused”."""
    said = str(error).strip() or type(error).__name__
    return re.sub(r"\[Errno -?\d+\] ", "", said).rstrip(".")


def whole_number(value: object, low: int = 0, high: int = LARGEST_ID) -> int | None:
    """The whole number that a text of ASCII digits means, or an int is; None if it is none, or not from low to high.

    For everything that strangers write. `str.isdigit` takes “²” and “٣” for digits, and `int` raises ValueError for
    texts of more than 4,300 digits.
    """
    if isinstance(value, str):
        digits = value.strip()
        unsigned = digits[1:] if digits.startswith("-") else digits
        if not (unsigned.isascii() and unsigned.isdigit() and len(unsigned) <= 19):
            return None
        value = int(digits)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if low <= value <= high else None


class Message:
    """A message for people: an English text with placeholders for `values`, such as `%(host)s`."""

    def __init__(self, text: str, /, **values: str) -> None:
        self.text, self.values = text, values

    def __str__(self) -> str:
        return self.translated(gettext_noop)

    def translated(self, gettext: Callable[[str], str]) -> str:
        """The message, translated by a function such as Django's `gettext`."""
        return gettext(self.text) % self.values if self.values else gettext(self.text)


class TranslatableError(Exception):
    """An error with a message for people: an English text with placeholders for `values`, such as `%(host)s`."""

    def __init__(self, text: str, /, **values: str) -> None:
        super().__init__(text % values if values else text)
        self.text, self.values = text, values

    def translated(self, gettext: Callable[[str], str]) -> str:
        """The message, translated by a function such as Django's `gettext`."""
        return gettext(self.text) % self.values if self.values else gettext(self.text)


def plain(text: str) -> str:
    """A text in which nothing moves the cursor, colours, or sets what a terminal types: names are other people's."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
