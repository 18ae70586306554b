"""Converts tools between chat completions (nested) and the Responses API (flat). Pure.

Chat completions upstreams other than OpenAI support functions only. Custom tools are therefore sent as a function with
one string parameter, and functions of a namespace under a joint name; calls are converted back to their own type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, decode_object, encode, object_of, objects_of, text_of
from relay.protocols.fields import unsupported

_JOINT: Final = "__"
_CUSTOM_PARAMETERS: Final[Json] = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}


@dataclass(slots=True)
class ToolNames:
    """Maps the functions that a chat completions upstream is offered to the client's tools."""

    custom: set[str] = field(default_factory=set)  # names of custom tools
    namespaces: dict[str, tuple[str, str]] = field(default_factory=dict)  # joint name to (namespace, name)

    def joint(self, name: str, namespace: str) -> str:
        """The name of a function for the upstream."""
        return f"{namespace}{_JOINT}{name}" if namespace else name

    def item(self, call_id: str, item_id: str, name: str, arguments: str, status: str) -> Json:
        """The output item of a call that the upstream made."""
        if name in self.custom:
            kind, content = "custom_tool_call", {"input": custom_input(arguments)}
        else:
            kind, content = "function_call", {"arguments": arguments}
        found: Json = {"id": item_id, "type": kind, "status": status, "call_id": call_id, "name": name, **content}
        if name in self.custom:
            return found
        if name in self.namespaces:
            found["namespace"], found["name"] = self.namespaces[name]
        return found


def custom_input(arguments: str) -> str:
    """The input of a custom tool call: the function's one string, or all arguments when it has none."""
    found = decode_object(arguments)
    value = found.get("input") if found is not None else None
    return value if isinstance(value, str) else arguments


def custom_arguments(text: str) -> str:
    return encode({"input": text}).decode()


def chat_tools(tools: Sequence[Json]) -> tuple[list[Json], ToolNames, list[str]]:
    """Convert the tools of a response to chat completions; returns them, their names, and the unsupported types."""
    found: list[Json] = []
    names = ToolNames()
    dropped: list[str] = []

    def add(tool: Json, namespace: str = "") -> None:
        kind, name = text_of(tool, "type"), text_of(tool, "name")
        if kind == "function":
            joint = names.joint(name, namespace)
            if namespace:
                names.namespaces[joint] = (namespace, name)
            keys = ("description", "parameters", "strict")
            inner: Json = {"name": joint, **{key: tool[key] for key in keys if tool.get(key) is not None}}
            found.append({"type": "function", "function": inner})
        elif kind == "custom":
            names.custom.add(name)
            description = _custom_description(tool)
            described: Json = {"name": name, "description": description, "parameters": _CUSTOM_PARAMETERS}
            found.append({"type": "function", "function": described})
        elif kind == "namespace" and not namespace:
            for inner_tool in objects_of(tool, "tools"):
                add(inner_tool, name)
        else:
            dropped.append(f"tools[{kind or '?'}]")

    for tool in tools:
        add(tool)
    return found, names, list(dict.fromkeys(dropped))


def _custom_description(tool: Json) -> str:
    parts = [text_of(tool, "description")]
    grammar = object_of(tool, "format")
    if text_of(grammar, "type") == "grammar":
        parts.append(f"The input follows this {text_of(grammar, 'syntax')} grammar:\n{text_of(grammar, 'definition')}")
    return "\n\n".join(part for part in parts if part)


def chat_tool_choice(choice: object, tools: list[Json], names: ToolNames) -> tuple[object, list[Json]]:
    """Convert a tool choice to chat completions; returns it with the tools that it allows.

    Raises BadRequest for a tool that the upstream does not support.
    """
    if not isinstance(choice, dict):
        return choice, tools
    kind = text_of(choice, "type")
    if kind in {"function", "custom"}:
        joint = names.joint(text_of(choice, "name"), text_of(choice, "namespace"))
        return {"type": "function", "function": {"name": joint}}, tools
    if kind == "allowed_tools":
        allowed = objects_of(choice, "tools")
        wanted = {names.joint(text_of(tool, "name"), text_of(tool, "namespace")) for tool in allowed}
        left = [tool for tool in tools if text_of(object_of(tool, "function"), "name") in wanted]
        return choice.get("mode") or "auto", left
    message = (
        f"The upstream of this model has no tool of the kind “{kind}”, which “tool_choice” demands. Use another "
        "model, or let the model choose."
    )
    raise unsupported(message, "tool_choice")


def response_tools(tools: Sequence[Json]) -> list[Json]:
    """Convert the tools of a chat completions request to the Responses API.

    `strict` is explicit: its default differs.
    """
    found: list[Json] = []
    for tool in tools:
        if text_of(tool, "type") == "custom":
            custom = dict(object_of(tool, "custom"))
            shape = object_of(custom, "format")
            if text_of(shape, "type") == "grammar" and isinstance(shape.get("grammar"), dict):
                custom["format"] = {"type": "grammar", **object_of(shape, "grammar")}
            found.append({"type": "custom", **custom})
        elif text_of(tool, "type") in {"function", ""} and isinstance(tool.get("function"), dict):
            found.append(_flat(object_of(tool, "function")))
        else:
            kind = text_of(tool, "type")[:40]
            raise unsupported(f"The upstream of this model takes no tool of the kind “{kind}”. Use functions.", "tools")
    return found


def _flat(function: Json) -> Json:
    description = function.get("description")
    return {
        "type": "function",
        "name": text_of(function, "name"),
        **({"description": description} if description is not None else {}),
        "parameters": function.get("parameters"),
        "strict": bool(function.get("strict")),
    }


def response_tool_choice(choice: object) -> object:
    """Convert the tool choice of a chat completions request to the Responses API."""
    if not isinstance(choice, dict):
        return choice
    kind = text_of(choice, "type")
    if kind in {"function", "custom"}:
        return {"type": kind, "name": text_of(object_of(choice, kind), "name")}
    if kind == "allowed_tools":
        allowed = object_of(choice, "allowed_tools")
        tools = [_named(tool) for tool in objects_of(allowed, "tools")]
        return {"type": "allowed_tools", "mode": allowed.get("mode") or "auto", "tools": tools}
    if "name" in choice:  # as the deprecated `function_call` has it
        return {"type": "function", "name": text_of(choice, "name")}
    return choice


def _named(tool: Json) -> Json:
    """A reference to an allowed tool, by its type and name."""
    kind = text_of(tool, "type")
    return {"type": kind, "name": text_of(object_of(tool, kind), "name")}
