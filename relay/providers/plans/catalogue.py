"""The list of models of a plan. Pure."""

from __future__ import annotations

import re
from typing import Final

from portal.lib.json import Json, decode_object, int_of, objects_of, text_of

_MOST: Final = 200
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,118}")
_VERSION: Final = re.compile(r"\d{1,9}(?:\.\d{1,9}){0,3}")
_MOST_CONTEXT: Final = 1_000_000_000  # tokens; a larger number is none


def read_models(body: bytes, version: str) -> list[Json] | None:
    """The models that may be chosen, each with `name`, `label`, `context` and `efforts`. None: it is no list of models.

    Left out are hidden ones, and those that demand a newer client than `version`; empty: it is not known, so that
    nothing is left out for it.
    """
    found = decode_object(body)
    if found is None or not isinstance(found.get("models"), list):
        return None
    own = _parts(version)
    listed: dict[str, Json] = {}
    for model in objects_of(found, "models"):
        name = text_of(model, "slug")
        if not _NAME.fullmatch(name) or (text_of(model, "visibility") or "list") != "list":
            continue
        least = _parts(_text_of_version(model.get("minimal_client_version")))
        if own and least and own < least:
            continue
        efforts = [text_of(level, "effort") for level in objects_of(model, "supported_reasoning_levels")]
        listed[name] = {
            "name": name,
            "label": text_of(model, "display_name")[:120] or name,
            "context": context if (context := int_of(model, "context_window")) <= _MOST_CONTEXT else 0,
            "efforts": [effort for effort in efforts if effort and len(effort) <= 20][:10],
        }
    return list(listed.values())[:_MOST]


def _text_of_version(value: object) -> str:
    if isinstance(value, list):
        return ".".join(str(part) for part in value)
    return value if isinstance(value, str) else ""


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")) if _VERSION.fullmatch(version) else ()
