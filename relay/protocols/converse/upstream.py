"""Converts between the hub and upstreams that speak Amazon Bedrock's Converse API, for clients of other APIs. Pure.

The model is in the address, and a stream has one of its own.

Source: botocore 1.44's model of bedrock-runtime and Bedrock's user guide, November 2026.
"""

from __future__ import annotations

from typing import Final

from portal.lib.json import Json, encode, object_of, objects_of, text_of
from relay.protocols.characters import clean, read_object
from relay.protocols.chat_completions.hub import CACHE_CONTROL, EXTENSIONS
from relay.protocols.contract import Completion, ConvertedRequest, Dialect
from relay.protocols.converse import models
from relay.protocols.converse.turns import Turns, cache_point
from relay.protocols.converse.upstream_stream import ConverseDecoder, completion_of
from relay.protocols.error_objects import is_error_object
from relay.protocols.events import Unreadable
from relay.protocols.fields import lost_members, lower_limit, unsupported
from relay.protocols.naming.tool_names import accepted_names

_API: Final = "converse"
_CONFIG: Final = "inferenceConfig"
_LIMIT: Final = "maxTokens"
_LIMITS: Final = ("max_completion_tokens", "max_tokens")
_HANDLED: Final = frozenset((
    "model", "messages", "stream", "stream_options", "stop", "temperature", "top_p", "top_k", "tools", "tool_choice",
    "parallel_tool_calls", "functions", "function_call", "response_format", "reasoning_effort", "service_tier",
    "store", *_LIMITS,
))  # fmt: skip
# Members that the answer depends on and the API lacks, with the values for which that makes no difference.
_NEEDED: Final[dict[str, tuple[object, ...]]] = {
    "n": (1,),
    "audio": (),
    "modalities": (["text"],),
    "web_search_options": (),
    "logprobs": (False,),
    "prediction": (),
}
_EMPTY: Final[tuple[object, ...]] = (None, False, 0, "", [], {})
_STANDARD: Final = frozenset(("", "auto", "default"))  # tiers that cost what the model costs
_FUNCTION: Final = ("name", "description", "parameters", "strict")
_NO_PARAMETERS: Final[Json] = {"type": "object", "properties": {}}
_ONLY_JSON: Final = "Answer with a JSON object and nothing else."
_BY_SCHEMA: Final = "Answer with a JSON object and nothing else. It must fit this JSON schema:"
# What is said of a function that was called before, and is not offered: the API demands its definition.
_EARLIER: Final = "Was called earlier in this conversation, and cannot be called any more."


class ConverseUpstream:
    """Upstreams that speak the Converse API."""

    api = _API
    answer_name = "an answer of Converse"
    refuses_longer = True

    def address(self, stream: bool) -> tuple[str, str]:
        return (f"{_API}.stream", "") if stream else (_API, "")

    def request(self, hub: Json, dialect: Dialect) -> ConvertedRequest:
        for name, harmless in _NEEDED.items():
            if hub.get(name) is not None and hub[name] not in harmless:
                raise unsupported(
                    f"The upstream of this model cannot honour “{name}”, and without it the answer would be another. "
                    "Leave it out, or use another model.",
                    name,
                )
        model, messages = text_of(hub, "model"), objects_of(hub, "messages")
        names = accepted_names(_names(objects_of(hub, "tools"), messages))
        turns = Turns(model, dialect.vendor, names)
        turns.add(messages)
        body: Json = {"model": hub.get("model"), "messages": turns.turns}
        dropped = [*turns.dropped, *_set_config(hub, body)]
        dropped += _set_format(hub, model, body, turns.system)
        if turns.system:
            body["system"] = turns.system
        dropped += _set_tools(hub, model, body, names, turns.calls)
        dropped += models.set_own(hub, model, body)
        if text_of(hub, "service_tier") not in _STANDARD:
            dropped.append("service_tier")
        known = _HANDLED.union(_NEEDED, EXTENSIONS)
        dropped += [name for name, value in hub.items() if name not in known and value not in _EMPTY]
        changed = {told: name for name, told in names.items() if told != name}
        return ConvertedRequest(body, list(dict.fromkeys(dropped)), changed)

    def limit(self, body: Json, tokens: int, dialect: Dialect) -> None:
        config = object_of(body, _CONFIG)
        body[_CONFIG] = {**config, _LIMIT: lower_limit(config.get(_LIMIT), max(tokens, 1))}
        models.fit_effort(body)

    def encode(self, body: Json, stream: bool, dialect: Dialect) -> bytes:
        """The body, without the model and the stream, which are in the path."""
        return encode({name: value for name, value in body.items() if name not in {"model", "stream"}})

    def completion(self, body: bytes, dialect: Dialect) -> Completion | None:
        found, broken = read_object(body)
        if found is None:
            return None
        answered = "output" in found
        if is_error_object(found, answered) or (not answered and isinstance(found.get("message"), str)):
            return Completion(None, None, encode(clean(found)) if broken else body)
        if not answered:
            return None
        if broken:
            whole = clean(found)
            found = whole if isinstance(whole, dict) else {}
        try:
            return completion_of(found, dialect.vendor)
        except Unreadable:
            return None

    def decoder(self, dialect: Dialect) -> ConverseDecoder:
        return ConverseDecoder(dialect.vendor)


def _names(tools: list[Json], messages: list[Json]) -> list[str]:
    """The names of the functions that can be called, and of those that were."""
    calls = [call for message in messages for call in objects_of(message, "tool_calls")]
    return [name for holder in (*tools, *calls) if (name := text_of(object_of(holder, "function"), "name"))]


def _set_config(hub: Json, body: Json) -> list[str]:
    dropped: list[str] = []
    config: Json = {}
    limits = [limit for name in _LIMITS if isinstance(limit := hub.get(name), int) and limit > 0]
    if limits:
        config[_LIMIT] = min(limits)
    for name, told in (("temperature", "temperature"), ("top_p", "topP")):
        value = hub.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            config[told] = min(value, 1)
            dropped += [name] if value > 1 else []
    stops = hub.get("stop")
    stops = [stops] if isinstance(stops, str) else stops
    if isinstance(stops, list) and (told_stops := [stop for stop in stops if isinstance(stop, str) and stop]):
        config["stopSequences"] = told_stops
    if config:
        body[_CONFIG] = config
    return dropped


def _set_format(hub: Json, model: str, body: Json, system: list[Json]) -> list[str]:
    """Hold the answer to a schema. What a model has no format for is said in words, and told to the client."""
    shape = object_of(hub, "response_format")
    kind = text_of(shape, "type")
    if kind == "json_schema" and (schema := object_of(object_of(shape, "json_schema"), "schema")):
        if not models.has_formats(model):
            system.append({"text": f"{_BY_SCHEMA}\n{encode(schema).decode()}"})
            return ["response_format.json_schema.schema"]
        described: Json = {"schema": encode(_closed(schema)).decode()}
        if name := text_of(object_of(shape, "json_schema"), "name"):
            described["name"] = name
        body["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": described}}}
    elif kind in {"json_object", "json_schema"}:
        system.append({"text": _ONLY_JSON})
        return ["response_format"]
    return []


def _closed(schema: Json, depth: int = 0) -> Json:
    """A schema whose objects say that they have no further properties, which the API demands."""
    found: Json = {}
    for name, value in schema.items() if depth < 100 else ():
        if name in {"properties", "$defs", "definitions"} and isinstance(value, dict):
            found[name] = {key: _closed(one, depth + 1) if isinstance(one, dict) else one for key, one in value.items()}
        elif isinstance(value, dict) and name == "items":
            found[name] = _closed(value, depth + 1)
        elif isinstance(value, list) and name in {"anyOf", "allOf", "oneOf"}:
            found[name] = [_closed(one, depth + 1) if isinstance(one, dict) else one for one in value]
        else:
            found[name] = value
    if found.get("type") == "object" or "properties" in found:
        found.setdefault("additionalProperties", False)
    return found


def _set_tools(hub: Json, model: str, body: Json, names: dict[str, str], called: bool) -> list[str]:
    """`called`: tools were called earlier, so that the API demands definitions of some."""
    tools, dropped = _specs(objects_of(hub, "tools"), model, names)
    choice = hub.get("tool_choice")
    found: Json = {}
    if choice == "none":
        tools, dropped = ([] if not called else tools), [*dropped, *(["tool_choice"] if called and tools else [])]
    elif choice == "required":
        found = {"any": {}}
    elif isinstance(choice, dict):
        allowed = object_of(choice, "allowed_tools")
        if text_of(choice, "type") == "allowed_tools":
            wanted = {names.get(text_of(object_of(tool, "function"), "name")) for tool in objects_of(allowed, "tools")}
            tools = [
                tool for tool in tools if object_of(tool, "toolSpec").get("name") in wanted or "cachePoint" in tool
            ]
            found = {"any": {}} if text_of(allowed, "mode") == "required" else {}
        elif name := text_of(object_of(choice, "function"), "name"):
            found = {"tool": {"name": names.get(name, name)}}
    if tools and hub.get("parallel_tool_calls") is False:
        dropped.append("parallel_tool_calls")
    if not tools and called:
        earlier = dict.fromkeys(
            names[name]
            for message in objects_of(hub, "messages")
            for call in objects_of(message, "tool_calls")
            if (name := text_of(object_of(call, "function"), "name")) in names
        )
        schema: Json = {"json": _NO_PARAMETERS}
        tools = [{"toolSpec": {"name": name, "description": _EARLIER, "inputSchema": schema}} for name in earlier]
        found = {}
    if tools:
        body["toolConfig"] = {"tools": tools, **({"toolChoice": found} if found else {})}
    return dropped


def _specs(tools: list[Json], model: str, names: dict[str, str]) -> tuple[list[Json], list[str]]:
    found: list[Json] = []
    dropped: list[str] = []
    for number, tool in enumerate(tools):
        kind, function = text_of(tool, "type") or "function", object_of(tool, "function")
        if kind != "function" or not text_of(function, "name"):
            raise unsupported(
                f"The upstream of this model cannot be given a tool of the type “{kind[:60]}”. Leave it out, or use "
                "another model.",
                f"tools[{number}].type",
            )
        dropped += lost_members([function], _FUNCTION, "tools[].function.")
        schema = object_of(function, "parameters")
        spec: Json = {"name": names[text_of(function, "name")]}
        if text_of(function, "description").strip():
            spec["description"] = function["description"]
        parameters = models.strict_schema(model, {**schema, "type": "object"} if schema else _NO_PARAMETERS)
        spec["inputSchema"] = {"json": parameters}
        if function.get("strict") is True:
            if models.has_formats(model):
                spec.update(strict=True, inputSchema={"json": _closed(parameters)})
            else:
                dropped.append("tools[].function.strict")
        found.append({"toolSpec": spec})
        mark = tool.get(CACHE_CONTROL) or tool.get("cache_control")
        if mark and models.caches_tools(model):
            found.append(cache_point(mark, model))
    return found, dropped
