"""The form of requests that a plan takes: streamed, not stored, the input a list, system texts apart. Pure."""

from __future__ import annotations

from typing import Final

from portal.lib.json import Json, decode_object, encode, objects_of, text_of
from relay.providers.plans.shapes import Shape

_NO_INSTRUCTIONS: Final = "."  # the shortest that is taken where some are demanded
_CLIENTS_OWN: Final = frozenset(("function", "custom"))  # tools that the client runs
_SEALED: Final = "reasoning.encrypted_content"


def as_taken(body: bytes, shape: Shape) -> bytes:
    """A request of the Responses API in the form that a plan takes."""
    request = decode_object(body)
    if request is None:
        return body  # the upstream says what is wrong with it
    given = request.get("input")
    items: list[object] = list(given) if isinstance(given, list) else []
    if isinstance(given, str):
        items = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}]
    instructions = text_of(request, "instructions")
    while items and not instructions and (text := _system_text(items[0])):
        instructions, items = text, items[1:]
    request["input"] = [*_tools_item(request, shape), *(_no_system(item) for item in items)]
    if instructions or shape.demands_whole:
        request["instructions"] = instructions or _NO_INSTRUCTIONS
    else:
        request.pop("instructions", None)
    request["store"], request["stream"] = False, True
    request.pop("stream_options", None)
    request.pop("previous_response_id", None)
    if shape.demands_whole:
        request.setdefault("tools", [])
        include = request.get("include")
        names = include if isinstance(include, list) else []
        request["include"] = names if _SEALED in names else [*names, _SEALED]
    return encode(request)


def _tools_item(request: Json, shape: Shape) -> list[Json]:
    """The functions and tools of a free form, taken out of a request: an item of the input, which the form demands.

    What the vendor runs itself, and namespaces, are taken where they are. At the begin, so that the cache finds it.
    """
    tools = request.get("tools")
    if not shape.tools_as_item or not isinstance(tools, list):
        return []
    moved: list[object] = []
    left: list[object] = []
    for tool in tools:
        own = isinstance(tool, dict) and text_of(tool, "type") in _CLIENTS_OWN
        (moved if own else left).append(tool)
    if not moved:
        return []
    if left:
        request["tools"] = left
    else:
        request.pop("tools")
    return [{"type": "additional_tools", "role": "developer", "tools": moved}]


def _is_system(item: object) -> bool:
    return isinstance(item, dict) and text_of(item, "role") == "system"


def _system_text(item: object) -> str:
    """The text of a system message that has nothing else, empty for all others."""
    if not isinstance(item, dict) or not _is_system(item):
        return ""
    content = item.get("content")
    if isinstance(content, str):
        return content
    parts = objects_of(item, "content")
    texts = [text_of(part, "text") for part in parts if text_of(part, "type") in {"input_text", "text"}]
    return "\n\n".join(texts) if len(texts) == len(parts) else ""


def _no_system(item: object) -> object:
    """An item without the role of the system, which is refused: the developer's has the same rank."""
    return {**item, "role": "developer"} if isinstance(item, dict) and _is_system(item) else item
