"""JSON schemas as structured outputs of the Messages API take them. Pure.

They take no bounds of numbers, lengths and lists, and objects of the named properties only. What cannot be sent is said
in the description, as Anthropic's SDKs do.

Source: Anthropic's documentation of structured outputs and its SDK 2.14 (`lib/_parse/_transform.py`), November 2026.
"""

from __future__ import annotations

from typing import Final

from portal.lib.json import Json, encode, object_of, objects_of

_DEEPEST: Final = 100
# Keywords that hold schemas by name, in a list, and one.
_MAPS: Final = frozenset(("properties", "$defs", "definitions"))
_CHOICES: Final = ("anyOf", "allOf", "oneOf")
_LISTS: Final = frozenset(_CHOICES)
# Keywords that are taken as they are.
_KEPT: Final = frozenset(("type", "enum", "const", "required", "title", "description", "$ref"))
_FORMATS: Final = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid")
)
_SILENT: Final = frozenset(("$schema", "$id", "$comment", "examples"))  # say nothing about the answer


def structured_schema(schema: Json, depth: int = 0) -> Json:
    """A schema without keywords that the API refuses."""
    if depth > _DEEPEST:
        return {}
    if "$ref" in schema:  # what stands beside it is not read
        schema = {name: value for name, value in schema.items() if name == "$ref" or name in _MAPS}
    found: Json = {}
    told: Json = {}
    for name, value in schema.items():
        if name in _MAPS and isinstance(value, dict):
            found[name] = {key: _inner(one, depth) for key, one in value.items()}
        elif name in _LISTS and isinstance(value, list):
            found["anyOf" if name == "oneOf" else name] = [_inner(one, depth) for one in value]
        elif name == "items" and isinstance(value, dict):
            found[name] = _inner(value, depth)
        elif name in _KEPT or (name == "format" and value in _FORMATS) or (name == "minItems" and value in (0, 1)):
            found[name] = value
        elif name not in _SILENT and name != "additionalProperties":
            told[name] = value
    if found.get("type") == "object" or "properties" in found:
        found["additionalProperties"] = False
    if told:
        rest = encode(told).decode()
        found["description"] = f"{found['description']}\n\n{rest}" if found.get("description") else rest
    return found


def _inner(value: object, depth: int) -> object:
    return structured_schema(value, depth + 1) if isinstance(value, dict) else value


def tool_schema(schema: Json) -> tuple[Json, str]:
    """The schema of a tool's input as Anthropic takes it, without choices at its top, and these in words.

    The members that the choices have are members of the input.
    """
    choices: Json = {name: schema[name] for name in _CHOICES if name in schema}
    found: Json = {**{name: value for name, value in schema.items() if name not in choices}, "type": "object"}
    if not choices:
        return found, ""
    members: Json = {}
    for name in choices:
        for part in objects_of(choices, name):
            members = {**object_of(part, "properties"), **members}
    found["properties"] = {**members, **object_of(schema, "properties")}
    return found, f"The input must also be valid by this JSON Schema: {encode(choices).decode()}"
