"""Small things that several APIs need."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from tests.api.compatibility.conversation import Json

_DATA_URL: Final = re.compile(r"data:([^;,]+);base64,(.*)", re.S)


def put(body: Json, path: str, value: Any) -> None:
    """Set a member by its path, `a.b`."""
    *holders, last = path.split(".")
    for name in holders:
        body = body.setdefault(name, {})
    body[last] = value


def at(body: Any, path: str) -> Any:
    """The member at a path; None where there is none."""
    for name in path.split("."):
        body = body.get(name) if isinstance(body, dict) else None
    return body


def data_url(kind: str, data: str) -> str:
    return f"data:{kind};base64,{data}"


def from_data_url(url: str) -> tuple[str, str]:
    """The media type and the Base64 of a data URL; of another address, empty and the address."""
    found = _DATA_URL.fullmatch(url)
    return (found[1], found[2]) if found else ("", url)


def merged(pieces: Iterable[Any]) -> Json:
    """Objects of lists as one; what is no object is left out."""
    found: Json = {}
    for piece in pieces:
        for name, value in (piece or {}).items():
            found[name] = [*(found.get(name) or ()), *(value or ())] if isinstance(value, list | None) else value
    return found
