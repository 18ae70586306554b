"""Ids of files in requests at places where the portal puts no file in: refused, since upstreams would read them.

An upstream knows the files of the account that the portal uses there, and none of the portal's users.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from portal.lib.json import Json, decode, text_of
from relay.protocols.fields import BadRequest, Fields
from relay.protocols.naming.references import OWN, WRITTEN

_IDS: Final = frozenset(("file_id", "file_ids"))
_MARK: Final = b'"file_id'
_CALL: Final = "_call"  # ends of the types of items that a model made
_BLANK: Final = 64  # bytes in which a text begins
_APART: Final = frozenset(("content", "output"))  # members of items whose parts are looked at one by one


def check_no_ids(value: object, where: str, known: Collection[int] = ()) -> None:
    """Raise BadRequest where a part of a request names a stored file that is not put in.

    `where`: its field; empty: the part is the whole. `known`: the `id` of objects whose file is put in.
    """
    left: list[tuple[object, str]] = [(value, where)]
    while left:
        one, place = left.pop()
        if isinstance(one, dict):
            if text_of(one, "type") in WRITTEN:
                continue
            for name, member in one.items():
                path = f"{place}.{name}" if place else name
                if name in _IDS and isinstance(member, (str, list)) and member and id(one) not in known:
                    raise _refused(path)
                if name == "variables" and isinstance(member, dict):  # of a prompt, with names of the client's own
                    left += [(variable, path) for variable in member.values()]
                elif name not in OWN and isinstance(member, (dict, list)):
                    left.append((member, path))
        elif isinstance(one, list):
            left += [(entry, f"{place}[{index}]") for index, entry in enumerate(one)]


def check_item(item: Json, where: str) -> None:
    """The same of a message or an input item, but for its parts."""
    if not text_of(item, "type").endswith(_CALL):
        check_no_ids({name: value for name, value in item.items() if name not in _APART}, where)


def check_fields(fields: Fields, apart: Collection[str]) -> None:
    """The same of the members of a body. `apart`: those that are looked at elsewhere, or are the client's own."""
    for name, raw in fields.items():
        if name in _IDS and bytes(raw) not in (b"null", b'""', b"[]"):
            raise _refused(name)
        if name not in apart and name not in OWN and _MARK in bytes(raw):
            check_no_ids(decode(raw), name)


def check_form(parts: Iterable[tuple[str, bytes | memoryview]], apart: Collection[str]) -> None:
    """The same of the parts of a form, whose names may be paths, and whose texts may be JSON. Files have no text."""
    for name, content in parts:
        if name in apart:
            continue
        if any(word in name for word in _IDS):
            raise _refused(name)
        text = bytes(content)
        if text[:_BLANK].lstrip()[:1] in (b"{", b"[") and _MARK in text:
            check_no_ids(decode(text), name)


def _refused(where: str) -> BadRequest:
    return BadRequest(
        f"“{where[:120]}” names a stored file where the portal does not put one in. Send the file itself, or its "
        "address.",
        where[:200],
        "unsupported_parameter",
        422,
    )
