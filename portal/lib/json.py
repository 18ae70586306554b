"""Reading JSON that somebody else wrote: members of the wanted type, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

Json = dict[str, object]
_decoder: Final = msgspec.json.Decoder()
encode: Final = msgspec.json.Encoder().encode
NOTHING: Final = object()


def decode(text: bytes | str | msgspec.Raw) -> object:
    """The value, or NOTHING when it is no JSON."""
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return NOTHING


def decode_object(text: bytes | str | msgspec.Raw) -> Json | None:
    found = decode(text)
    return found if isinstance(found, dict) else None


def text_of(holder: Mapping[str, object], name: str) -> str:
    """A string member, empty when it is none."""
    found = holder.get(name)
    return found if isinstance(found, str) else ""


def object_of(holder: Mapping[str, object], name: str) -> Json:
    """An object member, empty when it is none."""
    found = holder.get(name)
    return found if isinstance(found, dict) else {}


def objects_of(holder: Mapping[str, object], name: str) -> list[Json]:
    """The objects of a list member."""
    found = holder.get(name)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def int_of(holder: Mapping[str, object], name: str) -> int:
    """A whole number that is not negative, 0 when it is none."""
    found = holder.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else 0


def json_text(value: object) -> str:
    """A value as compact JSON; a string stays what it is, since it is taken to be JSON already."""
    return value if isinstance(value, str) else encode(value).decode()
