"""Tools in the forms of chat completions (nested) and of responses (flat), both ways. Pure.

Chat upstreams other than OpenAI know functions only. So what the Responses API has beside them is given to them as functions and taken back
under its own kind: custom tools as a function with one string, functions of a namespace under a joint name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, decode_object, encode, object_of, objects_of, text_of
from relay.protocols.fields import unsupported

_JOINT: Final = "__"
_CUSTOM_PARAMETERS: Final[Json] = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"], "additionalProperties": False}


@dataclass(slots=True)
class ToolNames:
    """What the functions that a chat upstream is offered stand for. `custom`: names of custom tools; `namespaces`: joint name to (namespace, name)."""

    custom: set[str] = field(default_factory=set)
    namespaces: dict[str, tuple[str, str]] = field(default_factory=dict)

    def joint(self, name: str, namespace: str) -> str:
        return f"{namespace}{_JOINT}{name}" if namespace else name

    def item(self, call_id: str, item_id: str, name: str, arguments: str, status: str) -> Json:
        """The output item of a call that the upstream made."""
        if name in self.custom:
            return {"id": item_id, "type": "custom_tool_call", "status": status, "call_id": call_id, "name": name, "input": custom_input(arguments)}
        found: Json = {"id": item_id, "type": "function_call", "status": status, "call_id": call_id, "name": name, "arguments": arguments}
        if name in self.namespaces:
            found["namespace"], found["name"] = self.namespaces[name]
        return found


def custom_input(arguments: str) -> str:
    """What a custom tool was called with: the one string of its function, or, when the model has put it otherwise, all of it."""
    found = decode_object(arguments)
    value = found.get("input") if found is not None else None
    return value if isinstance(value, str) else arguments


def custom_arguments(text: str) -> str:
    return encode({"input": text}).decode()


def chat_tools(tools: Sequence[Json]) -> tuple[list[Json], ToolNames, list[str]]:
    """Tools of a response as a chat upstream takes them, what their names stand for, and the kinds that it cannot be given."""
    found: list[Json] = []
    names = ToolNames()
    dropped: list[str] = []

    def add(tool: Json, namespace: str = "") -> None:
        kind, name = text_of(tool, "type"), text_of(tool, "name")
        if kind == "function":
            joint = names.joint(name, namespace)
            if namespace:
                names.namespaces[joint] = (namespace, name)
            inner: Json = {"name": joint, **{key: tool[key] for key in ("description", "parameters", "strict") if tool.get(key) is not None}}
            found.append({"type": "function", "function": inner})
        elif kind == "custom":
            names.custom.add(name)
            described: Json = {"name": name, "description": _custom_description(tool), "parameters": _CUSTOM_PARAMETERS}
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
    """The choice as a chat upstream takes it, with the tools that it leaves. Raises BadRequest for a tool that cannot be given."""
    if not isinstance(choice, dict):
        return choice, tools
    kind = text_of(choice, "type")
    if kind in {"function", "custom"}:
        return {"type": "function", "function": {"name": names.joint(text_of(choice, "name"), text_of(choice, "namespace"))}}, tools
    if kind == "allowed_tools":
        wanted = {names.joint(text_of(tool, "name"), text_of(tool, "namespace")) for tool in objects_of(choice, "tools")}
        return choice.get("mode") or "auto", [tool for tool in tools if text_of(object_of(tool, "function"), "name") in wanted]
    raise unsupported(f"The upstream of this model has no tool of the kind “{kind}”, which “tool_choice” demands. Use another model, or let the model choose.", "tool_choice")


def response_tools(tools: Sequence[Json]) -> list[Json]:
    """Tools of a chat request as the Responses API takes them. `strict` is said, since its default differs."""
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
            raise unsupported(f"The upstream of this model takes no tool of the kind “{text_of(tool, 'type')[:40]}”. Use functions.", "tools")
    return found


def _flat(function: Json) -> Json:
    return {
        "type": "function", "name": text_of(function, "name"), **({"description": function["description"]} if function.get("description") is not None else {}),
        "parameters": function.get("parameters"), "strict": bool(function.get("strict")),
    }  # fmt: skip


def response_tool_choice(choice: object) -> object:
    """A chat request's choice as the Responses API takes it."""
    if not isinstance(choice, dict):
        return choice
    kind = text_of(choice, "type")
    if kind in {"function", "custom"}:
        return {"type": kind, "name": text_of(object_of(choice, kind), "name")}
    if kind == "allowed_tools":
        allowed = object_of(choice, "allowed_tools")
        tools = [{"type": text_of(tool, "type"), "name": text_of(object_of(tool, text_of(tool, "type")), "name")} for tool in objects_of(allowed, "tools")]
        return {"type": "allowed_tools", "mode": allowed.get("mode") or "auto", "tools": tools}
    return choice
