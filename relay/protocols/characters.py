"""Text that an upstream split inside a character: halves are put together, and JSON with halves is read. Pure.

Servers that stream tokens cut characters in two: a pair of surrogates (`"\\ud83d"`, then `"\\ude00"`), or the bytes of
one character in UTF-8. Neither half is valid JSON by itself, and strict decoders refuse the whole event, with the usage
that may be in it. In decoded text, the halves of a pair are surrogates, and bytes that are no UTF-8 are the surrogates
from U+DB80 on, which no assigned character needs.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Hashable
from typing import Final, NoReturn, TypeVar

import msgspec

from portal.lib.json import Json, decode_object, encode

T = TypeVar("T")
REPLACEMENT: Final = "\ufffd"  # stands for a half whose other half never arrives
_BROKEN: Final = re.compile("[\ud800-\udfff]")
_BYTES: Final = re.compile("[\udb80-\udbff]+(?![\udc00-\udfff])")
_OPEN_BYTES: Final = re.compile("[\udb80-\udbff]{1,3}\\Z")
_FIRST_BYTE: Final = 0xDB00  # plus a byte from 0x80 to 0xFF
# Python decodes an invalid byte as U+DC00 plus the byte, which the second half of a pair may be as well.
_ESCAPED: Final = {0xDC00 + byte: _FIRST_BYTE + byte for byte in range(0x80, 0x100)}


def read_object(data: bytes) -> tuple[Json | None, bool]:
    """A JSON object, and whether its text contains halves of characters; None when the data is no JSON object."""
    found = decode_object(data)
    if found is not None:
        return found, False
    loose = _read_loosely(data)
    return (loose, True) if isinstance(loose, dict) else (None, False)


def read_whole_object(data: bytes | msgspec.Raw) -> Json | None:
    """A JSON object, each half of a character replaced; None when the data is no JSON object."""
    found, broken = read_object(bytes(data))
    if found is not None and broken:
        whole = clean(found)
        return whole if isinstance(whole, dict) else None
    return found


def read_for_storage(data: bytes | msgspec.Raw) -> Json | None:
    """The same, also with numbers beyond all that a float can be: they become the largest.

    For answers that pass through, whose clients read such numbers for themselves.
    """
    found = read_whole_object(data)
    if found is None:
        loose = clean(_read_loosely(bytes(data), _largest))
        return loose if isinstance(loose, dict) else None
    return found


def read_typed(decoder: msgspec.json.Decoder[T], data: bytes | msgspec.Raw) -> T:
    """Decode data whose text may contain halves of characters. Raises what the decoder raises."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, ValueError):
        loose = _read_loosely(bytes(data))
        if loose is None:
            raise
        return decoder.decode(encode(clean(loose)))


def whole_text(text: str) -> str:
    """Text without halves: those that belong together are joined, the others replaced."""
    if text.isascii() or _BROKEN.search(text) is None:
        return text
    text = _BYTES.sub(lambda match: _decoded(match[0]), text)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def clean(value: object) -> object:
    """A decoded JSON value whose strings and names contain no halves."""
    if isinstance(value, str):
        return whole_text(value)
    if isinstance(value, list):
        return [clean(entry) for entry in value]
    if isinstance(value, dict):
        return {whole_text(name): clean(entry) for name, entry in value.items()}
    return value


class TextJoiner:
    """Joins the halves of characters at the seams of texts that arrive in pieces, each text under a key of its own."""

    def __init__(self) -> None:
        self._halves: dict[Hashable, str] = {}

    def __bool__(self) -> bool:
        """Whether a text waits for the rest of its last character."""
        return bool(self._halves)

    def join(self, key: Hashable, text: str) -> str:
        """The next piece of a text, as far as its characters are complete."""
        if not text or (not self._halves and text.isascii()):
            return text
        text = self._halves.pop(key, "") + text
        end = _complete_until(text)
        if end < len(text):
            self._halves[key] = text[end:]
        return whole_text(text[:end])

    def rest(self, key: Hashable) -> str:
        """What a text that ends here still lacks: a replacement for its half character, or nothing."""
        return REPLACEMENT if self._halves.pop(key, "") else ""

    def open_texts(self) -> list[Hashable]:
        """The texts that wait for the rest of their last character."""
        return list(self._halves)


def _complete_until(text: str) -> int:
    """Where the half character at the end of a text begins; the text's length when it has none."""
    if not "\ud800" <= text[-1] <= "\udbff":
        return len(text)
    match = _OPEN_BYTES.search(text)
    if match is not None:
        try:
            _as_bytes(match[0]).decode()
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data":
                return match.start() + error.start
    return len(text) - 1


def _as_bytes(escaped: str) -> bytes:
    return bytes(ord(character) - _FIRST_BYTE for character in escaped)


def _decoded(escaped: str) -> str:
    """The characters of escaped bytes, which may be surrogates in UTF-8, as Java's modified UTF-8 has them."""
    data = _as_bytes(escaped)
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace")


def _read_loosely(data: bytes, read_float: Callable[[str], float] | None = None) -> object:
    """Decode JSON whose strings contain halves or control characters; None for anything else that is not JSON."""
    try:
        text = data.decode("utf-8", "surrogateescape")
        if not text.isascii():
            text = text.translate(_ESCAPED)
        return json.loads(text, strict=False, parse_constant=_refuse, parse_float=read_float or _finite)
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> NoReturn:
    """NaN and Infinity are no JSON, and no client could be sent them."""
    raise ValueError(constant)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _largest(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else math.copysign(sys.float_info.max, number)
