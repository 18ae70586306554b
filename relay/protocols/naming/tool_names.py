"""Names of tools that an upstream accepts, and the way back to those of the client. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Final

from portal.lib.json import Json, object_of, objects_of, text_of

_LONGEST: Final = 64
_ACCEPTED: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_OTHERS: Final = re.compile(r"[^A-Za-z0-9_-]")


def accepted_names(names: Iterable[str]) -> dict[str, str]:
    """The name that an upstream is told of each tool: letters, digits, `_` and `-`, at most 64, a letter or `_` first.

    Most are told as they are.
    """
    given = list(dict.fromkeys(names))
    taken = {name for name in given if _ACCEPTED.fullmatch(name)}
    found: dict[str, str] = {}
    for name in given:
        if name in taken:
            found[name] = name
            continue
        plain = _OTHERS.sub("_", name)
        plain = plain if plain[:1].isalpha() or plain.startswith("_") else f"_{plain}"
        if len(plain) > _LONGEST or plain in taken:
            digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:8]
            plain = f"{plain[: _LONGEST - 9]}_{digest}"
        taken.add(plain)
        found[name] = plain
    return found


def restore_names(holders: Iterable[Json], names: Mapping[str, str]) -> None:
    """Give the tools that messages or deltas call the client's names, in place. `names`: by what the upstream calls
    them.
    """
    for holder in holders:
        for call in objects_of(holder, "tool_calls"):
            function = object_of(call, "function")
            if (name := names.get(text_of(function, "name"))) is not None:
                function["name"] = name


def restore_in_completion(completion: Json, names: Mapping[str, str]) -> None:
    """The same in a hub completion."""
    restore_names((object_of(choice, "message") for choice in objects_of(completion, "choices")), names)
