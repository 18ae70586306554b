"""Converts between a client of /v1/messages and the hub, for upstreams that speak another API. Pure.

`relay.protocols.anthropic_messages.client_stream` converts streams. A feature that no other API supports is refused
with a 422 that names it when the answer depends on it; otherwise it is dropped and reported among the dropped
parameters.

Source: Anthropic's API reference and its SDK 2.14, November 2026.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, int_of, object_of, objects_of, text_of
from relay.protocols.anthropic_messages.client_stream import MessagesEncoder, content_of, stop_of
from relay.protocols.anthropic_messages.conversion.blocks import hub_messages
from relay.protocols.anthropic_messages.conversion.tools import ToolNames, hub_tool_choice, hub_tools, offered_tools
from relay.protocols.anthropic_messages.usage import messages_usage
from relay.protocols.chat_completions.hub import BUDGET, TOP_K
from relay.protocols.contract import ConvertedRequest
from relay.protocols.fields import unsupported

_SAME: Final = ("temperature", "top_p")
# Members that are converted below, or that the portal handles itself.
_HANDLED: Final = frozenset((
    "model", "messages", "system", "max_tokens", "stream", "stop_sequences", "top_k", "tools", "tool_choice",
    "thinking", "output_config", "output_format", "metadata", "service_tier", "cache_control",
))  # fmt: skip
# Members that the answer depends on and no other API has.
_NEEDED: Final = {
    "container": "a container",
    "mcp_servers": "MCP servers",
}
_NOTHING: Final[tuple[object, ...]] = (None, False, "", [], {})
_TIERS: Final = {"auto": "auto", "standard_only": "default"}
# Efforts that others have by these names; what is above them is the highest.
_EFFORTS: Final = frozenset(("low", "medium", "high"))
# The effort that comes nearest to a budget of thinking: below so many tokens.
_LADDER: Final = ((2048, "low"), (8192, "medium"))
_SCHEMA_NAME: Final = "answer"
# What the hub calls otherwise. Blocks are told by their kinds, since messages of the hub are at other places.
MEMBERS: Final[Mapping[str, str]] = {
    "messages[].content[image_url]": "messages[].content[image]",
    "messages[].reasoning_content": "messages[].content[thinking]",
    "max_completion_tokens": "max_tokens",
    "reasoning_effort": "thinking",
    "response_format": "output_config.format",
    "response_format.json_schema.schema": "output_config.format.schema",
    "tools[].function.parameters": "tools[].input_schema",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "stop": "stop_sequences",
    "user": "metadata.user_id",
    "serviceTier": "service_tier",
}


@dataclass(slots=True)
class MessagesClient:
    """One request of a client of the Messages API."""

    request: Json  # decoded
    answer_id: str  # of the message
    names: ToolNames = field(default_factory=ToolNames)
    _hub: ConvertedRequest | None = None

    def hub_request(self) -> ConvertedRequest:
        if self._hub is None:
            self._hub = self._converted()
        return self._hub

    def answer(self, completion: Json) -> Json:
        self.hub_request()
        choices = objects_of(completion, "choices")  # of several, all are one answer: some have text and calls in two
        content = [block for choice in choices for block in content_of(object_of(choice, "message"), self.names)]
        stop = stop_of(choices, any(block["type"] == "tool_use" for block in content))
        return {
            "id": self.answer_id,
            "type": "message",
            "role": "assistant",
            "model": text_of(completion, "model") or text_of(self.request, "model"),
            "content": content,
            **stop,
            "usage": messages_usage(object_of(completion, "usage")),
        }

    def encoder(self) -> MessagesEncoder:
        self.hub_request()
        return MessagesEncoder(self.answer_id, text_of(self.request, "model"), self.names)

    def _converted(self) -> ConvertedRequest:
        request = self.request
        for name, what in _NEEDED.items():
            if request.get(name) not in _NOTHING:
                message = f"The upstream of this model has no {what.removeprefix('a ')}. Leave it out, or use another."
                raise unsupported(message, name)
        tools = offered_tools(request)
        self.names.own_names = frozenset(text_of(tool, "name") for tool in tools)
        messages, dropped = hub_messages(request, self.names)
        body: Json = {"model": request.get("model"), "messages": messages}
        if request.get("max_tokens") is not None:
            body["max_completion_tokens"] = request["max_tokens"]
        body.update({name: request[name] for name in _SAME if request.get(name) is not None})
        if request.get("top_k") is not None:
            body[TOP_K] = request["top_k"]
        stops = request.get("stop_sequences")
        if isinstance(stops, list) and stops:
            body["stop"] = stops
        offered, lost = hub_tools(tools, self.names)
        dropped += lost
        if offered:
            body["tools"] = offered
            choice, single = hub_tool_choice(object_of(request, "tool_choice"), self.names)
            if choice is not None:
                body["tool_choice"] = choice
            if single:
                body["parallel_tool_calls"] = False
        dropped += self._options(body)
        dropped += [name for name, value in request.items() if _is_lost(name, value)]
        return ConvertedRequest(body, list(dict.fromkeys(dropped)))

    def _options(self, body: Json) -> list[str]:
        """Set how it thinks, what form its answer has, and who asks; returns what is dropped."""
        request, dropped = self.request, []
        output = object_of(request, "output_config")
        dropped += [
            f"output_config.{name}"
            for name, value in output.items()
            if name not in {"effort", "format"} and value not in _NOTHING
        ]
        thinking = object_of(request, "thinking")
        kind, effort = text_of(thinking, "type"), text_of(output, "effort")
        if kind == "disabled":
            body[BUDGET] = 0
        elif kind == "enabled" and (budget := int_of(thinking, "budget_tokens")):
            body[BUDGET] = budget
            effort = effort or next((name for most, name in _LADDER if budget < most), "high")
        if effort and kind != "disabled":
            body["reasoning_effort"] = effort if effort in _EFFORTS else "high"
            if effort not in _EFFORTS:
                dropped.append("output_config.effort")
        shape = object_of(output, "format") or object_of(request, "output_format")
        if text_of(shape, "type") == "json_schema":
            schema: Json = {"name": _SCHEMA_NAME, "schema": object_of(shape, "schema"), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        metadata = object_of(request, "metadata")
        if user := text_of(metadata, "user_id"):  # which may name an account and a device
            body["user"] = hashlib.sha256(user.encode()).hexdigest()
        dropped += [f"metadata.{name}" for name in metadata if name != "user_id"]
        if tier := _TIERS.get(text_of(request, "service_tier")):
            body["service_tier"] = tier
        return dropped


def _is_lost(name: str, value: object) -> bool:
    return name not in _HANDLED and name not in _SAME and name not in _NEEDED and value not in _NOTHING
