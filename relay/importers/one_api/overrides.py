"""What new-api changes in requests of a channel, as rules that are understood here. Pure.

Source: new-api 1.0.0-rc.24, read in November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from relay.importers.description import Remark
from relay.importers.reading.row import json_of, object_of

_PLACEHOLDER: Final = "{"
_SHOWN: Final = 60
_HEADERS: Final = {"set_header": "set_header", "delete_header": "remove_header"}


def rules_of(params: object, headers: object) -> tuple[tuple[Mapping[str, Any], ...], tuple[Remark, ...]]:
    """The rules of `param_override` and `header_override`, and what cannot be carried over."""
    rules: list[Mapping[str, Any]] = []
    remarks: list[Remark] = []
    found = object_of(params)
    operations = found.get("operations")
    if isinstance(operations, list):
        for operation in operations:
            _operation(operation, rules, remarks)
    else:
        rules += [{"do": "set", "path": _pointer(name), "value": value} for name, value in found.items()]
    if params and json_of(params) is None:
        remarks.append(Remark("Its override of parameters is no JSON, and is left out."))
    for name, value in object_of(headers).items():
        if not isinstance(value, str) or _PLACEHOLDER in value or name.startswith(("*", "re:", "regex:")):
            text = f"Its override of the header “{name[:_SHOWN]}” takes its value from elsewhere, and is left out."
            remarks.append(Remark(text))
        else:
            rules.append({"do": "set_header", "header": name, "value": value})
    return tuple(rules), tuple(remarks)


def _operation(operation: object, rules: list[Mapping[str, Any]], remarks: list[Remark]) -> None:
    """One entry of the list of operations: those that hold for every request, and have a counterpart."""
    if not isinstance(operation, dict):
        return
    mode, path = str(operation.get("mode", "")), str(operation.get("path", ""))
    if operation.get("conditions"):
        remarks.append(Remark(f"Its override “{mode}” of “{path[:_SHOWN]}” has conditions, and is left out."))
    elif mode == "set" and "value" in operation:
        kept = "default" if operation.get("keep_origin") else "set"
        rules.append({"do": kept, "path": _pointer(path), "value": operation["value"]})
    elif mode == "delete":
        rules.append({"do": "remove", "path": _pointer(path)})
    elif mode == "move":
        rules.append(
            {
                "do": "rename",
                "path": _pointer(str(operation.get("from", ""))),
                "to": _pointer(str(operation.get("to", ""))),
            }
        )
    elif mode in _HEADERS and _PLACEHOLDER not in str(operation.get("value", "")):
        rule: dict[str, Any] = {"do": _HEADERS[mode], "header": path}
        if mode == "set_header":
            rule["value"] = str(operation.get("value", ""))
        rules.append(rule)
    else:
        remarks.append(
            Remark(f"Its override “{mode[:_SHOWN]}” of “{path[:_SHOWN]}” has no counterpart, and is left out.")
        )


def _pointer(path: str) -> str:
    """A path of names with dots between them, as here; a name that has dots itself is escaped with a backslash."""
    if "\\." not in path:
        return path
    steps = path.replace("\\.", "\0").split(".")
    return "/" + "/".join(step.replace("\0", ".").replace("~", "~0").replace("/", "~1") for step in steps)
