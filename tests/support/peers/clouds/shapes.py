"""Checks bodies against the service model of Bedrock's runtime, as boto does before it sends, and AWS when it arrives.

`bedrock_shapes.json` has the shapes of Converse, ConverseStream and CountTokens, without their documentation. Source:
botocore 1.44.8, bedrock-runtime/2023-09-30/service-2.json (Apache License 2.0).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from pathlib import Path
from typing import Any, Final

SHAPES: Final[dict[str, dict[str, Any]]] = json.loads((Path(__file__).parent / "bedrock_shapes.json").read_text())
_KINDS: Final = {"string": str, "boolean": bool, "structure": dict, "list": list, "map": dict, "blob": str}
_NUMBERS: Final = {"integer": (int,), "long": (int,), "float": (int, float), "double": (int, float)}


def fault(name: str, value: Any, place: str = "input") -> str:
    """What is wrong with a value of a shape; empty: nothing."""
    shape = SHAPES[name]
    kind = shape["type"]
    if shape.get("document"):
        return ""
    if kind in _NUMBERS:
        right = isinstance(value, _NUMBERS[kind]) and not isinstance(value, bool)
    else:
        right = isinstance(value, _KINDS[kind])
    if not right:
        return f"{place}: a {type(value).__name__} is no {kind}"
    size = value if kind in _NUMBERS else len(value) if kind != "boolean" and kind != "structure" else None
    if size is not None and not shape.get("min", size) <= size <= shape.get("max", size):
        return f"{place}: {size} is out of range"
    if kind == "string":
        if "enum" in shape and value not in shape["enum"]:
            return f"{place}: {value!r} is none of {shape['enum']}"
        return (
            f"{place}: {value!r} has a wrong form" if not re.fullmatch(shape.get("pattern", r"(?s:.*)"), value) else ""
        )
    if kind == "blob":
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return f"{place}: no base64"
    if kind == "list":
        found = (fault(shape["member"], one, f"{place}[{number}]") for number, one in enumerate(value))
    elif kind == "map":
        found = (fault(shape["value"], one, f"{place}.{key}") for key, one in value.items())
    elif kind == "structure":
        return _structure(shape, value, place)
    else:
        return ""
    return next(filter(None, found), "")


def _structure(shape: dict[str, Any], value: dict[str, Any], place: str) -> str:
    members = shape["members"]
    if unknown := value.keys() - members.keys():
        return f"{place}: unknown members {sorted(unknown)}"
    if missing := set(shape.get("required", ())) - value.keys():
        return f"{place}: {sorted(missing)} are missing"
    if shape.get("union") and len(value) != 1:
        return f"{place}: exactly one of {sorted(members)} is needed, and there are {sorted(value)}"
    return next(filter(None, (fault(members[name], one, f"{place}.{name}") for name, one in value.items())), "")
