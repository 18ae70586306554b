"""Converts tools between chat completions (nested) and the Responses API (flat). Pure.

Chat completions upstreams other than OpenAI support functions only, under names of at most 64 letters, digits, `_` and
`-`. Custom tools are therefore sent as a function with one string parameter, a tool search that the client executes as
a function, and functions of a namespace under a joint name; calls are converted back to their own type.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from portal.lib.json import Json, decode_object, encode, json_text, object_of, objects_of, text_of
from relay.protocols.characters import read_whole_object
from relay.protocols.chat_completions.hub import EXTENSIONS
from relay.protocols.fields import lost_members, unsupported

FUNCTION: Final = "function"
CUSTOM: Final = "custom"
SEARCH: Final = "tool_search"
# Of a call: what its vendor wants back with it, such as Gemini's `google.thought_signature`.
SIGNED: Final = "extra_content"
_JOINT: Final = "__"
_MOST: Final = 64  # characters of a function's name (OpenAI's reference of chat completions)
_DIGEST: Final = 8  # hexadecimal digits that make a shortened name unique
_FOREIGN: Final = re.compile(r"[^a-zA-Z0-9_-]")
_CUSTOM_PARAMETERS: Final[Json] = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}
# What a tool search without parameters of its own is asked with, as Codex declares it.
_SEARCH_PARAMETERS: Final[Json] = {
    "type": "object",
    "properties": {"query": {"type": "string"}, "limit": {"type": "number"}},
    "required": ["query"],
    "additionalProperties": False,
}


# The types of calls whose results have the same form, and those of the results.
_OUTPUTS: Final = {"function_call": "function_call_output", "custom_tool_call": "custom_tool_call_output"}
# Members of a function that the Responses API has as well.
_FUNCTION_MEMBERS: Final = frozenset(("name", "description", "parameters", "strict"))


class Tool(NamedTuple):
    """A tool of the client that an upstream is offered as a function. No two have the same kind and both names."""

    kind: str  # `function`, `custom` or `tool_search`
    name: str
    namespace: str = ""  # empty: none


@dataclass(slots=True)
class ToolNames:
    """Maps the functions that a chat completions upstream is offered to the client's tools, and back."""

    tools: dict[str, Tool] = field(default_factory=dict)  # by the name of the function
    functions: dict[Tool, str] = field(default_factory=dict)  # the names of the functions

    def offer(self, tool: Tool) -> str:
        """Give a tool the name of its function, which no other tool has."""
        if tool not in self.functions:
            name, salt = _fitting(tool), 0
            while name in self.tools:
                name, salt = _fitting(tool, salt), salt + 1
            self.functions[tool], self.tools[name] = name, tool
        return self.functions[tool]

    def function(self, tool: Tool) -> str:
        """The name of the function for a tool, which earlier calls may name without that it is offered."""
        return self.functions.get(tool) or self.functions.setdefault(tool, _fitting(tool))

    def tool(self, name: str) -> Tool:
        """The client's tool behind a function that the upstream called."""
        return self.tools.get(name) or Tool(FUNCTION, name)

    def call(self, item: Json, kind: str) -> Json:
        """An item that is a call of a tool of this kind, as chat completions have it."""
        function = self.function(Tool(kind, _name(item, kind), text_of(item, "namespace")))
        if kind == CUSTOM:
            arguments = custom_arguments(text_of(item, "input"))
        else:
            arguments = json_text(item["arguments"]) if item.get("arguments") else "{}"
        extra: Json = {SIGNED: item[SIGNED]} if isinstance(item.get(SIGNED), dict) else {}
        called = {"name": function, "arguments": arguments}
        return {"id": text_of(item, "call_id"), "type": "function", "function": called, **extra}

    def is_function(self, name: str) -> bool:
        """Whether calls of a function are function calls to the client, whose arguments it is sent as they arrive."""
        return self.tool(name).kind == FUNCTION

    def item_prefix(self, name: str) -> str:
        """The beginning of the ids of the items that are calls of a function."""
        return {CUSTOM: "ctc", SEARCH: "tsc"}.get(self.tool(name).kind, "fc")

    def item(self, call_id: str, item_id: str, name: str, arguments: str, status: str) -> Json:
        """The output item of a call that the upstream made."""
        tool = self.tool(name)
        found: Json = {"id": item_id, "type": "function_call", "status": status, "call_id": call_id}
        if tool.kind == SEARCH:
            searched = decode_object(arguments) or {}
            return {**found, "type": "tool_search_call", "execution": "client", "arguments": searched}
        found["name"] = tool.name
        if tool.kind == CUSTOM:
            found.update(type="custom_tool_call", input=custom_input(arguments))
        else:
            found["arguments"] = arguments
        if tool.namespace:
            found["namespace"] = tool.namespace
        return found


def _fitting(tool: Tool, salt: int | None = None) -> str:
    """A name for the function of a tool.

    One that is too long or has other characters, and every one with a salt, ends with a digest of the tool, so that it
    does not depend on the other tools.
    """
    name = f"{tool.namespace}{_JOINT}{tool.name}" if tool.namespace else tool.name
    fitting = _FOREIGN.sub("_", name)
    if name == fitting and len(name) <= _MOST and salt is None:
        return name
    digest = hashlib.sha256(encode([*tool, salt or 0])).hexdigest()[:_DIGEST]
    return f"{fitting[: _MOST - _DIGEST - 1]}_{digest}"


def custom_input(arguments: str) -> str:
    """The input of a custom tool call: the function's one string, or all arguments when it has none.

    Empty when it was called with nothing, in any of the forms in which models write that.
    """
    found = read_whole_object(arguments.encode())
    value = found.get("input") if found is not None else None
    if value is None and found is not None and len(found) == 1:
        value = next(iter(found.values()))  # models call the one parameter as the tool's description does
    if value is None and ((found is not None and len(found) < 2) or arguments.strip() in {"", "null"}):
        return ""
    return value if isinstance(value, str) else arguments


def custom_arguments(text: str) -> str:
    return encode({"input": text}).decode()


def tools_of(request: Json, items: Iterable[Json]) -> list[Json]:
    """The tools of a request: its own, and those that its input adds or that a tool search has found."""
    found = objects_of(request, "tools")
    for item in items:
        if text_of(item, "type") in {"additional_tools", "tool_search_output"}:
            found += objects_of(item, "tools")
    return found


def chat_tools(tools: Sequence[Json]) -> tuple[list[Json], ToolNames, list[str]]:
    """Convert the tools of a response to chat completions; returns them, their names, and the unsupported types.

    Tools that are loaded on demand (`defer_loading`) are offered from the beginning. Of a tool that is given more than
    once the last description counts.
    """
    described: dict[Tool, Json] = {}
    dropped: list[str] = []
    for tool, namespace, kind in _with_namespaces(tools):
        if kind is None:
            dropped.append(f"tools[{text_of(tool, 'type') or '?'}]")
        else:
            described[Tool(kind, _name(tool, kind), namespace)] = tool
    names = ToolNames()
    for known in sorted(described, key=lambda tool: bool(tool.namespace)):  # a name of the client's own goes first
        names.offer(known)
    found: list[Json] = [
        {"type": "function", "function": _function(names.functions[known], known.kind, tool)}
        for known, tool in described.items()
    ]
    return found, names, list(dict.fromkeys(dropped))


def with_matching_outputs(items: Sequence[Json]) -> list[Json]:
    """Items in which a tool's result has the type of the call that its id names: OpenAI looks the pair up by both.

    Of several calls with an id, the newest before the result counts.
    """
    calls = {text_of(item, "call_id"): kind for item in reversed(items) if (kind := text_of(item, "type")) in _OUTPUTS}
    found: list[Json] = []
    for item in items:
        kind, call_id = text_of(item, "type"), text_of(item, "call_id")
        if kind in _OUTPUTS:
            calls[call_id] = kind
        elif kind in _OUTPUTS.values() and call_id in calls and kind != _OUTPUTS[calls[call_id]]:
            item = {**item, "type": _OUTPUTS[calls[call_id]]}
        found.append(item)
    return found


def function_names(tools: Sequence[Json], names: ToolNames) -> list[str]:
    """The names of the functions for tools, as the upstream knows them."""
    return [
        names.function(Tool(kind, _name(tool, kind), namespace))
        for tool, namespace, kind in _with_namespaces(tools)
        if kind is not None
    ]


def _with_namespaces(tools: Sequence[Json]) -> Iterable[tuple[Json, str, str | None]]:
    """Each tool with its namespace and its kind; None: no function can stand for it.

    What a namespace says of its tools is told with the first of them.
    """
    for tool in tools:
        if text_of(tool, "type") != "namespace":
            yield tool, "", _kind(tool)
            continue
        about = text_of(tool, "description")
        for inner in objects_of(tool, "tools"):
            described = "\n\n".join(part for part in (about, text_of(inner, "description")) if part)
            about = ""
            yield {**inner, "description": described} if described else inner, text_of(tool, "name"), _kind(inner)


def _kind(tool: Json) -> str | None:
    """The kind of a tool; None: no function can stand for it."""
    kind = text_of(tool, "type")
    if kind == SEARCH:  # without `execution` the upstream searches, which needs no function: all tools are offered
        return SEARCH if text_of(tool, "execution") == "client" or object_of(tool, "parameters") else None
    return kind if kind in {FUNCTION, CUSTOM} else None


def _function(name: str, kind: str, tool: Json) -> Json:
    if kind == CUSTOM:
        return {"name": name, "description": _custom_description(tool), "parameters": _CUSTOM_PARAMETERS}
    keys = ("description", "parameters") if kind == SEARCH else ("description", "parameters", "strict")
    found: Json = {"name": name, **{key: tool[key] for key in keys if tool.get(key) is not None}}
    if kind == SEARCH:
        found.setdefault("parameters", _SEARCH_PARAMETERS)
    return found


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
    if kind in {FUNCTION, CUSTOM} or (kind == SEARCH and Tool(SEARCH, SEARCH) in names.functions):
        return {"type": "function", "function": {"name": names.function(_chosen(choice))}}, tools
    if kind == "allowed_tools":
        allowed = {_chosen(tool) for tool in objects_of(choice, "tools")}
        left = [
            tool
            for tool in tools
            if (known := names.tool(text_of(object_of(tool, "function"), "name"))) in allowed
            or (known.namespace and Tool("namespace", known.namespace) in allowed)
        ]
        return choice.get("mode") or "auto", left
    message = (
        f"The upstream of this model has no tool of the kind “{kind}”, which “tool_choice” demands. Use another "
        "model, or let the model choose."
    )
    raise unsupported(message, "tool_choice")


def _chosen(choice: Json) -> Tool:
    kind = text_of(choice, "type")
    return Tool(kind, _name(choice, kind), text_of(choice, "namespace"))


def _name(tool: Json, kind: str) -> str:
    """A tool's own name. A tool search has none."""
    return text_of(tool, "name") or (SEARCH if kind == SEARCH else "")


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


def lost_of_tools(tools: Sequence[Json]) -> list[str]:
    """The names of members of a chat completions request's tools that the Responses API lacks."""
    functions = [object_of(tool, FUNCTION) for tool in tools]
    return [
        *lost_members(tools, ("type", FUNCTION, CUSTOM, *EXTENSIONS), "tools[]."),
        *lost_members(functions, _FUNCTION_MEMBERS, "tools[].function."),
    ]


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
