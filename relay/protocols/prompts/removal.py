"""Takes members, or entries of a type, out of what a request has. Values are copied where they change. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from portal.lib.json import Json

EACH: Final = "[]"  # the step into each entry of a list

# What a model is told in place of entries of a type that it would miss.
_UNSEEN: Final[Json] = {"type": "text", "text": "[An image, which this model cannot see.]"}
_NOTES: Final[Mapping[str, Json]] = {"[image_url]": _UNSEEN, "[image]": _UNSEEN}  # the latter are Anthropic's


def without(value: object, way: Sequence[str]) -> object:
    """A value without a member, or without entries of a type; itself where it has none, or the member is null.

    `way`: members, `[]` for each entry of a list, `[type]` for those of a type. Where an image was, a note stands.
    """
    step, *rest = way
    if step == EACH:
        if not isinstance(value, list):
            return value
        entries = [without(entry, rest) for entry in value]
        return entries if any(entry is not old for entry, old in zip(entries, value, strict=True)) else value
    if step.startswith("["):
        if not isinstance(value, list):
            return value
        kept = [not (isinstance(entry, dict) and entry.get("type") == step[1:-1]) for entry in value]
        if all(kept):
            return value
        note = _NOTES.get(step)
        told = [entry if stays else note for entry, stays in zip(value, kept, strict=True)]
        return [entry for entry, stays in zip(told, kept, strict=True) if stays or note is not None]
    if not isinstance(value, dict) or value.get(step) is None:
        return value
    if not rest:
        return {name: member for name, member in value.items() if name != step}
    member = without(value[step], rest)
    return value if member is value[step] else {**value, step: member}
