"""Builders of JSON Schemas."""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]


def obj(required: str = "", /, **properties: Schema) -> Schema:
    """The schema of an object. `required`: names, separated by spaces."""
    found: Schema = {"type": "object", "properties": properties}
    if required:
        found["required"] = required.split()
    return found


def string(description: str = "", **more: Any) -> Schema:
    return {"type": "string", **({"description": description} if description else {}), **more}


def integer(description: str = "", **more: Any) -> Schema:
    return {"type": "integer", **({"description": description} if description else {}), **more}


def boolean(description: str = "") -> Schema:
    return {"type": "boolean", **({"description": description} if description else {})}


def array(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def any_of(*options: Schema) -> Schema:
    return {"anyOf": list(options)}


def nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


ANY: Final[Schema] = {"type": "object"}
COUNT: Final[Schema] = integer(minimum=0)
