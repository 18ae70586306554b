"""Reading of untrusted JSON: members of the expected type, or an empty value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

Json = dict[str, object]
_decoder: Final = msgspec.json.Decoder()
encode: Final = msgspec.json.Encoder().encode
NOTHING: Final = object()


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
