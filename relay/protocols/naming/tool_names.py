"""Names of tools that an upstream accepts, and the way back to those of the client. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Iterable, Mapping
from typing import Final

from portal.lib.json import Json, object_of, objects_of, text_of

_LONGEST: Final = 64
_ACCEPTED: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_OTHERS: Final = re.compile(r"[^A-Za-z0-9_-]")
_DIGEST: Final = 8  # hexadecimal digits that tell names apart which would be one
_KINDS: Final = ("function", "custom")  # members of a tool, of a call and of a choice that have its name


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
            plain = short_name(plain, name, taken)
        taken.add(plain)
        found[name] = plain
    return found


def short_name(plain: str, name: str, taken: Container[str], longest: int = _LONGEST) -> str:
    """The beginning of `plain` and a digest of `name`, which is none of `taken`."""
    salt = 0
    while True:
        digest = hashlib.sha256(f"{name}{salt or ''}".encode("utf-8", "replace")).hexdigest()[:_DIGEST]
        if (found := f"{plain[: longest - _DIGEST - 1]}_{digest}") not in taken:
            return found
        salt += 1


def with_accepted_names(hub: Json) -> tuple[Json, Mapping[str, str]]:
    """A hub request whose tools have names that upstreams accept, and the client's names by those that were changed.

    OpenAI, Anthropic and Amazon refuse dots, which names of MCP servers have, and more than 64 characters; servers of
    open models often do. Nothing is copied where nothing changes.
    """
    names = accepted_names(_names(hub))
    if all(map(str.__eq__, names.keys(), names.values())):
        return hub, {}
    found = {**hub, "messages": [_with_calls(message, names) for message in objects_of(hub, "messages")]}
    if isinstance(hub.get("tools"), list):
        found["tools"] = [_told(tool, names) for tool in objects_of(hub, "tools")]
    if isinstance(choice := hub.get("tool_choice"), dict):
        found["tool_choice"] = _told_choice(choice, names)
    return found, {told: name for name, told in names.items() if told != name}


def _names(hub: Json) -> list[str]:
    """The names of the tools that can be called, and of those that were."""
    calls = [call for message in objects_of(hub, "messages") for call in objects_of(message, "tool_calls")]
    holders = (object_of(tool, kind) for tool in (*objects_of(hub, "tools"), *calls) for kind in _KINDS if kind in tool)
    return [name for holder in holders if (name := text_of(holder, "name"))]


def _told(holder: Json, names: Mapping[str, str]) -> Json:
    """A tool, a call or a choice under the name that the upstream is told."""
    found = dict(holder)
    for kind in _KINDS:
        inner = object_of(holder, kind)
        if (told := names.get(text_of(inner, "name"))) is not None:
            found[kind] = {**inner, "name": told}
    return found


def _told_choice(choice: Json, names: Mapping[str, str]) -> Json:
    found = _told(choice, names)
    if allowed := object_of(choice, "allowed_tools"):
        tools = [_told(tool, names) for tool in objects_of(allowed, "tools")]
        found["allowed_tools"] = {**allowed, "tools": tools}
    return found


def _with_calls(message: Json, names: Mapping[str, str]) -> Json:
    if calls := objects_of(message, "tool_calls"):
        return {**message, "tool_calls": [_told(call, names) for call in calls]}
    if text_of(message, "role") == "tool" and (told := names.get(text_of(message, "name"))) is not None:
        return {**message, "name": told}
    return message


def restore_names(holders: Iterable[Json], names: Mapping[str, str]) -> None:
    """Give the tools that messages or deltas call the client's names, in place. `names`: by what the upstream calls
    them.
    """
    for holder in holders:
        for call in objects_of(holder, "tool_calls"):
            for kind in _KINDS:
                called = object_of(call, kind)
                if (name := names.get(text_of(called, "name"))) is not None:
                    called["name"] = name


def restore_in_completion(completion: Json, names: Mapping[str, str]) -> None:
    """The same in a hub completion."""
    restore_names((object_of(choice, "message") for choice in objects_of(completion, "choices")), names)
