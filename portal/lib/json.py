"""Reading of untrusted JSON: members of the expected type, or an empty value; documents that mean one thing only."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

Json = dict[str, object]
_decoder: Final = msgspec.json.Decoder()
encode: Final = msgspec.json.Encoder().encode
NOTHING: Final = object()
_LARGE: Final = 256 * 1024  # bytes of a text that is worth looking for long strings in
_SPARSE: Final = 512  # bytes of a string that is long
_SCHEME: Final = 16  # bytes in which that of an address ends
_DENSITY: Final = 512  # bytes for each quote of a text that has long strings
_BETWEEN: Final = b" \t\r\n:,]}[{"
BOM: Final = b"\xef\xbb\xbf"  # the byte order mark that Windows tools put before UTF-8


def decode(text: bytes | str | msgspec.Raw) -> object:
    """The decoded value, or NOTHING if the text is not valid JSON."""
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return NOTHING


def decode_object(text: bytes | str | msgspec.Raw) -> Json | None:
    found = decode(text)
    return found if isinstance(found, dict) else None


def text_of(holder: Mapping[str, object], name: str) -> str:
    """A string member; empty if it is missing or of another type."""
    found = holder.get(name)
    return found if isinstance(found, str) else ""


def object_of(holder: Mapping[str, object], name: str) -> Json:
    """An object member; empty if it is missing or of another type."""
    found = holder.get(name)
    return found if isinstance(found, dict) else {}


def objects_of(holder: Mapping[str, object], name: str) -> list[Json]:
    """The objects in a list member; entries of other types are left out."""
    found = holder.get(name)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def int_of(holder: Mapping[str, object], name: str) -> int:
    """A non-negative integer member; 0 if it is missing or of another type."""
    found = holder.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else 0


def json_text(value: object) -> str:
    """A value as compact JSON. A string is returned unchanged, since it is assumed to be JSON already."""
    return value if isinstance(value, str) else encode(value).decode()


# -- documents that every parser reads alike -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Repeated:
    """A member that its object has more than once. Parsers disagree about which of them counts (RFC 8259, 4)."""

    path: str  # such as messages[0].role


def strict_decode(text: bytes) -> object:
    """The decoded value, or a `Repeated` if any object in it has a member twice.

    Raises ValueError or RecursionError if the text is not valid JSON in UTF-8.

    The decoder keeps the last of repeated members without a word, so the value is encoded again and compared. What is
    dropped takes a colon with it, and the encoder writes colons in strings as they are: as many colons mean that
    nothing was dropped, unless the text has escaped ones. Costs 4 µs for 1 KB and 0.2 ms for 100 KB as SDKs write them;
    the standard library's pairs, which say where the member is, cost twice as much and are asked only then.
    """
    found = _decoder.decode(text)
    again = encode(found)
    if again == text or (again.count(b":") == text.count(b":") and not _has_escaped_colon(text)):
        return found
    try:
        seen = json.loads(text, object_pairs_hook=_seen_members)
    except RecursionError:
        return Repeated("")
    return seen if isinstance(seen, Repeated) else _in_list(seen) or found


def has_more_values(text: bytes, members: int, values: int) -> bool:
    """Whether JSON has more members, or more items, members, objects and lists together, than so many.

    Reads nothing: marks are counted, outside strings if there are many. Costs nothing for texts too short to have as
    many, 10 ms for 10 MB of one text.
    """
    if len(text) < 2 * min(members, values) or _within(text, members, values):
        return False
    # Without what is escaped, a quote begins or ends a string.
    most = 2 * (members + values) + 1
    pieces = text.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"', most)
    return len(pieces) > most or not _within(b"".join(pieces[::2]), members, values)


def _within(text: bytes, members: int, values: int) -> bool:
    return text.count(b":") <= members and sum(map(text.count, (b",", b"[", b"{"))) <= values


def _has_escaped_colon(text: bytes) -> bool:
    return b"\\u003" in text and (b"\\u003a" in text or b"\\u003A" in text)


_ESCAPED_LETTER: Final = re.compile(rb"\\u00(?:4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aA])")


def has_escaped_letters(text: bytes) -> bool:
    """Whether JSON may have a letter or an underscore as an escape, such as \\u0061, which hides a name in its bytes.

    No encoder writes these, unlike control characters and marks of HTML.
    """
    return b"\\u00" in text and _ESCAPED_LETTER.search(text) is not None


def without_long_strings(text: bytes) -> bytes:
    """JSON with its long strings emptied, such as images in Base64, of which `strict_decode` would make copies;
    addresses are left.

    The text must be valid but for the numbers and UTF-8. 10 MB of images cost 13 ms then, not 35.
    """
    if len(text) < _LARGE or text.count(b'"') > len(text) // _DENSITY:
        return text
    pieces = text.split(b'"')
    for index, piece in enumerate(pieces):
        # What stands between strings begins with a blank or a mark, so this stands in one. Without a backslash it has
        # no escapes, and the quote behind it is the string's end.
        if len(piece) <= _SPARSE or piece[0] in _BETWEEN or b"\\" in piece or not piece.isascii():
            continue
        if b":" not in piece[:_SCHEME] or piece.startswith(b"data:"):
            pieces[index] = b""
    return b'"'.join(pieces)


def _seen_members(pairs: list[tuple[str, object]]) -> Repeated | None:
    """The first repeated member in or below an object, None when there is none: its values are not needed."""
    names: set[str] = set()
    for name, value in pairs:
        if name in names:
            return Repeated(name[:64])
        names.add(name)
        inner = value if isinstance(value, Repeated) else _in_list(value)
        if inner is not None:
            return Repeated(f"{name[:64]}{'' if inner.path.startswith('[') else '.'}{inner.path}")
    return None


def _in_list(value: object) -> Repeated | None:
    if isinstance(value, list):
        for index, entry in enumerate(value):
            if isinstance(entry, Repeated):
                return Repeated(f"[{index}].{entry.path}")
            inner = _in_list(entry)
            if inner is not None:
                return Repeated(f"[{index}]{inner.path}")
    return None
