"""Tools of the Messages API as functions of the hub, and back. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, object_of, objects_of, text_of
from relay.protocols.anthropic_messages.conversion.schemas import structured_schema, tool_schema
from relay.protocols.chat_completions.hub import CACHE_CONTROL
from relay.protocols.fields import lost_members, unsupported
from relay.protocols.naming.tool_names import short_name

_MOST: Final = 64  # characters of a function's name at others; here it is twice as many
# Members of a tool that others have, or that only say when it is loaded: all are offered from the beginning.
_KNOWN: Final = (
    "type", "name", "description", "input_schema", "strict", "cache_control", "defer_loading", "eager_input_streaming",
)  # fmt: skip
_NO_PARAMETERS: Final[Json] = {"type": "object", "properties": {}}
_FUNCTION: Final = ("name", "description", "parameters", "strict")


@dataclass(slots=True)
class ToolNames:
    """Names that others allow for the client's tools, and those behind them."""

    own_names: frozenset[str] = frozenset()  # of the tools of the request, which are offered as they are if they can
    given: dict[str, str] = field(default_factory=dict)  # the client's, by the name that is offered

    def offered(self, name: str) -> str:
        if len(name) <= _MOST:
            return name
        short = short_name(name, name, self.own_names)
        self.given[short] = name
        return short

    def own(self, name: str) -> str:
        """The client's name of a tool that was called."""
        return self.given.get(name, name)


def offered_tools(request: Json) -> list[Json]:
    """The tools of a request that can be called at the end of its conversation.

    Blocks of its messages may define more of them, take some away (`tool_removal`), and give them back
    (`tool_addition`). Source: anthropic 2.14, `types/beta/beta_system_message_param.py`, read in November 2026.
    """
    found = list(objects_of(request, "tools"))
    removed: set[str] = set()
    for message in objects_of(request, "messages"):
        for block in objects_of(message, "content"):
            if text_of(block, "type") == "tool_addition":
                definition = object_of(object_of(block, "tool"), "definition")
                if name := text_of(definition, "name"):
                    found = [*(one for one in found if text_of(one, "name") != name), definition]
                removed.discard(changed_tool(block))
            elif text_of(block, "type") == "tool_removal":
                removed.add(changed_tool(block))
    return [tool for tool in found if text_of(tool, "name") not in removed - {""}]


def changed_tool(block: Json) -> str:
    """The name of the tool that a `tool_addition` or `tool_removal` is about; empty: it is a server's of MCP."""
    tool = object_of(block, "tool")
    kind = text_of(tool, "type")
    if kind == "tool_definition":
        return text_of(object_of(tool, "definition"), "name")
    return text_of(tool, "name") if kind == "tool_reference" else ""


def hub_tools(tools: Sequence[Json], names: ToolNames) -> tuple[list[Json], list[str]]:
    """The tools of a request as functions, and what is dropped: tools that Anthropic runs or defines, and members."""
    found: list[Json] = []
    dropped: list[str] = []
    for tool in tools:
        kind = text_of(tool, "type") or "custom"
        if kind != "custom" or not text_of(tool, "name"):
            dropped.append(f"tools[{kind[:60]}]")
            continue
        dropped += lost_members([tool], _KNOWN, "tools[].")
        function: Json = {"name": names.offered(text_of(tool, "name"))}
        if text_of(tool, "description"):
            function["description"] = tool["description"]
        function["parameters"] = object_of(tool, "input_schema") or _NO_PARAMETERS
        if isinstance(tool.get("strict"), bool):
            function["strict"] = tool["strict"]
        marked: Json = {CACHE_CONTROL: tool["cache_control"]} if tool.get("cache_control") else {}
        found.append({"type": "function", "function": function, **marked})
    return found, dropped


def hub_tool_choice(choice: Json, names: ToolNames) -> tuple[object, bool]:
    """The tool choice of the hub, None where the request has none, and whether only one tool may be called at once."""
    kind = text_of(choice, "type")
    single = choice.get("disable_parallel_tool_use") is True
    if kind == "tool":
        return {"type": "function", "function": {"name": names.offered(text_of(choice, "name"))}}, single
    return {"auto": "auto", "any": "required", "none": "none"}.get(kind), single


# -- for upstreams of this API -----------------------------------------------------------------------------------------


def messages_tools(tools: Sequence[Json]) -> tuple[list[Json], list[str]]:
    """The functions of a hub request as tools, and the members that are dropped. Raises BadRequest for other tools."""
    found: list[Json] = []
    dropped: list[str] = []
    for number, tool in enumerate(tools):
        kind, function = text_of(tool, "type") or "function", object_of(tool, "function")
        if kind != "function" or not function:
            message = (
                f"The upstream of this model cannot be given a tool of the type “{kind[:60]}”. Leave it out, or use "
                "another model."
            )
            raise unsupported(message, f"tools[{number}].type")
        dropped += lost_members([function], _FUNCTION, "tools[].function.")
        schema = object_of(function, "parameters")
        entry: Json = {"name": function.get("name")}
        parameters, words = tool_schema(schema) if schema else (_NO_PARAMETERS, "")
        if told := "\n\n".join(filter(None, (text_of(function, "description"), words))):
            entry["description"] = told
        entry["input_schema"] = parameters
        if function.get("strict") is True:
            entry.update(strict=True, input_schema=structured_schema(parameters))
        if mark := tool.get(CACHE_CONTROL) or tool.get("cache_control"):
            entry["cache_control"] = mark
        found.append(entry)
    return found, dropped


def messages_tool_choice(choice: object, parallel: object, tools: list[Json]) -> tuple[Json | None, list[Json]]:
    """The tool choice of a hub request, and the tools that may be called."""
    found: Json | None = None
    if isinstance(choice, str):
        kind = {"auto": "auto", "required": "any", "none": "none"}.get(choice)
        found = {"type": kind} if kind is not None else None
    elif isinstance(choice, dict):
        kind = text_of(choice, "type")
        allowed = object_of(choice, "allowed_tools")
        if kind == "allowed_tools":
            names = {text_of(object_of(tool, "function"), "name") for tool in objects_of(allowed, "tools")}
            tools = [tool for tool in tools if tool["name"] in names]
            found = {"type": "any" if text_of(allowed, "mode") == "required" else "auto"}
        elif name := text_of(object_of(choice, "function"), "name"):
            found = {"type": "tool", "name": name}
    if parallel is False:
        found = found or {"type": "auto"}
        if found["type"] != "none":
            found["disable_parallel_tool_use"] = True
    return found, tools
