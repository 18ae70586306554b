"""Estimates the tokens of text, for answers whose upstream reports no usage. Pure."""

from __future__ import annotations

import re
from typing import Final

_TEXT: Final = re.compile(
    rb'"(?:content|reasoning_content|reasoning|refusal|arguments|text)"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)"'
)


def text_units(answer: bytes) -> float:
    """The estimated tokens of the text members of chunks or answers."""
    return sum(map(token_units, _TEXT.findall(answer)))


def token_units(text: bytes) -> float:
    """The estimated tokens of JSON-escaped text: one for four ASCII characters or for one of another script."""
    if text.isascii():
        escapes = text.count(b"\\u")
        return (len(text) - 6 * escapes) / 4 + escapes if escapes else len(text) / 4
    wide = len(text) - len(text.translate(None, _NOT_ASCII))
    return (len(text) - wide) / 4 + wide / 3


_NOT_ASCII: Final = bytes(range(128, 256))
