"""Converts between JSON Schema and the schemas of Gemini. Pure.

Gemini has two forms: `Schema`, a part of OpenAPI 3.0 with types in capitals, and JSON Schema, of which it takes some
keywords only. Source: google-genai 3.6.1 (`types.Schema`, `response_json_schema`), read in November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from portal.lib.json import Json, encode, object_of, objects_of, text_of

# Keywords that Gemini knows in JSON Schema. It passes over others, and refuses a `Schema` with them (Zed #52670).
_TAKEN: Final = frozenset(
    (
        "type", "format", "title", "description", "enum", "items", "prefixItems", "minItems", "maxItems", "minimum",
        "maximum", "anyOf", "oneOf", "properties", "additionalProperties", "required", "propertyOrdering",
    )
)  # fmt: skip
_SCHEMA_LISTS: Final = ("anyOf", "oneOf", "prefixItems")
# Keywords that say nothing of values: leaving them out loses nothing.
_SILENT: Final = frozenset(
    (
        "$schema", "$id", "id", "$comment", "$anchor", "$defs", "definitions", "$vocabulary", "examples", "example",
        "readOnly", "writeOnly", "deprecated", "default", "strict",
    )
)  # fmt: skip
_DEEPEST: Final = 64
_MOST_NODES: Final = 20_000  # that references may be unfolded to


class _Unfolding:
    """One schema that is being converted."""

    def __init__(self, root: Json) -> None:
        self.root = root
        self.lost: set[str] = set()  # keywords that are told in words
        self.nodes = 0

    def schema(self, node: Json, within: tuple[str, ...] = ()) -> Json:
        self.nodes += 1
        if len(within) > _DEEPEST or self.nodes > _MOST_NODES:
            self.lost.add("$ref")
            return {"type": "object"}
        reference = text_of(node, "$ref") or text_of(node, "$dynamicRef")
        if reference:
            return self._referred(node, reference, within)
        node = self._with_all(node, within)
        found: Json = {}
        told: Json = {}  # what has no keyword there
        for name, value in node.items():
            if name == "const":
                found.setdefault("enum", [value])
            elif name == "enum" and isinstance(value, list):
                found["enum"] = value
            elif name == "properties" and isinstance(value, dict):
                found["properties"] = {
                    key: self._any(inner, (*within, "")) for key, inner in value.items() if inner is not False
                }
            elif name in _SCHEMA_LISTS and isinstance(value, list):
                found[name] = [self._any(inner, (*within, "")) for inner in value]
            elif name == "items" and isinstance(value, list):  # draft 7's tuples
                found["prefixItems"] = [self._any(inner, (*within, "")) for inner in value]
            elif name in {"items", "additionalProperties"}:
                found[name] = value if isinstance(value, bool) else self._any(value, (*within, ""))
            elif name in _TAKEN:
                found[name] = value
            elif name not in _SILENT:
                told[name] = value
        if text_of(node, "type") == "array" and not found.keys() & {"items", "prefixItems"}:
            found["items"] = {}  # without it: "items: missing field"
        if isinstance(found.get("items"), bool):
            found["items"] = {}
        if told:
            self.lost.update(told)
            words = ", ".join(f"{name}: {encode(value).decode()[:200]}" for name, value in told.items())
            about = text_of(found, "description")
            found["description"] = f"{about} ({words})" if about else words
        return found

    def _any(self, value: object, within: tuple[str, ...]) -> Json:
        return self.schema(value, within) if isinstance(value, dict) else {}

    def _referred(self, node: Json, reference: str, within: tuple[str, ...]) -> Json:
        """What a reference stands for, with what stands beside it."""
        beside = {name: value for name, value in node.items() if name not in {"$ref", "$dynamicRef"}}
        target = _at(self.root, reference)
        if target is None or reference in within:
            self.lost.add("$ref")
            return {"type": "object", **self.schema({"description": reference.rpartition("/")[2], **beside}, within)}
        return self.schema({**target, **beside}, (*within, reference))

    def _with_all(self, node: Json, within: tuple[str, ...]) -> Json:
        """A node that says itself what its `allOf` says."""
        parts = objects_of(node, "allOf")
        if not parts or len(within) > _DEEPEST:
            return {name: value for name, value in node.items() if name != "allOf"}
        merged: Json = {}
        for part in (*parts, {name: value for name, value in node.items() if name != "allOf"}):
            reference = text_of(part, "$ref")
            if reference and reference not in within:
                part = {**(_at(self.root, reference) or {}), **{k: v for k, v in part.items() if k != "$ref"}}
            if "allOf" in part:
                part = self._with_all(part, (*within, reference))
            for name, value in part.items():
                old = merged.get(name)
                if name == "properties" and isinstance(old, dict) and isinstance(value, dict):
                    merged[name] = {**old, **value}
                elif name == "required" and isinstance(old, list) and isinstance(value, list):
                    merged[name] = list(dict.fromkeys((*old, *value)))
                else:
                    merged[name] = value
        return merged


def _at(root: Json, reference: str) -> Json | None:
    """What a reference into the same schema names; None: nothing, or it is elsewhere."""
    if not reference.startswith("#"):
        return None
    found: object = root
    for step in reference[1:].split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if name:
            found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def gemini_schema(schema: Json) -> tuple[Json, list[str]]:
    """A JSON Schema in the keywords that Gemini takes, and those that are told in descriptions instead.

    References are unfolded; where one leads back into itself, any object stands for it.
    """
    unfolding = _Unfolding(schema)
    found = unfolding.schema(schema)
    return found, sorted(unfolding.lost)


# -- Gemini's own form -------------------------------------------------------------------------------------------------

_NAMES: Final[Mapping[str, str]] = {
    "any_of": "anyOf", "min_items": "minItems", "max_items": "maxItems", "min_properties": "minProperties",
    "max_properties": "maxProperties", "min_length": "minLength", "max_length": "maxLength",
    "additional_properties": "additionalProperties", "defs": "$defs", "property_ordering": "propertyOrdering",
}  # fmt: skip
_NUMBERS: Final = frozenset(
    ("minItems", "maxItems", "minProperties", "maxProperties", "minLength", "maxLength")
)  # which Google's JSON has as strings
_ORDER: Final = "propertyOrdering"


def json_schema(schema: Json, depth: int = 0) -> Json:
    """A `Schema` of Gemini as JSON Schema, which other APIs take."""
    found: Json = {}
    for given, value in schema.items():
        name = _NAMES.get(given, given)
        if value is None or depth > _DEEPEST:
            continue
        if name == "type" and isinstance(value, str):
            if value.upper() != "TYPE_UNSPECIFIED":
                found["type"] = value.lower()
        elif name in _NUMBERS and isinstance(value, str) and value.isdigit():
            found[name] = int(value)
        elif name in {"items", "additionalProperties"} and isinstance(value, dict):
            found[name] = json_schema(value, depth + 1)
        elif name in {"properties", "$defs"} and isinstance(value, dict):
            found[name] = {
                key: json_schema(inner, depth + 1) for key, inner in value.items() if isinstance(inner, dict)
            }
        elif name == "anyOf":
            found[name] = [json_schema(inner, depth + 1) for inner in objects_of(schema, given)]
        elif name == "ref" and isinstance(value, str):
            found["$ref"] = value.replace("#/defs/", "#/$defs/")
        elif name == "example":
            found["examples"] = [value]
        elif name == "format" and value == "enum":
            continue
        elif name not in {"nullable", _ORDER}:
            found[name] = value
    if schema.get("nullable") is True:
        if isinstance(found.get("type"), str):
            found["type"] = [found["type"], "null"]
            if isinstance(values := found.get("enum"), list) and None not in values:
                found["enum"] = [*values, None]
        elif "anyOf" in found:
            found["anyOf"] = [*objects_of(found, "anyOf"), {"type": "null"}]
    return found


def parameters_of(holder: Json, plain: tuple[str, str], json: tuple[str, str]) -> Json | None:
    """The schema that is under one of these names, as JSON Schema; None: none is.

    `plain`: names of a `Schema`; `json`: names of a JSON Schema.
    """
    for name in json:
        if isinstance(holder.get(name), dict):
            return object_of(holder, name)
    for name in plain:
        if isinstance(holder.get(name), dict):
            return json_schema(object_of(holder, name))
    return None
