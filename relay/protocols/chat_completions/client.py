"""Converts between a chat completions client and the hub, for upstreams that speak another API. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from portal.lib.json import Json, object_of, objects_of, text_of
from relay.protocols.chat_completions.client_stream import ChatEncoder
from relay.protocols.chat_completions.dialects import THINKING_PARTS, content_of
from relay.protocols.chat_completions.hub import STOP, THINKING, made_call_id, strip_extensions, strip_foreign
from relay.protocols.chat_completions.signatures.sealed import sealed_thoughts, with_own_thoughts, with_seal
from relay.protocols.contract import ConvertedRequest
from relay.protocols.events import Unreadable

# What upstreams' rules call otherwise; the hub form is the client's.
MEMBERS: Final[Mapping[str, str]] = {"serviceTier": "service_tier"}


@dataclass(slots=True)
class ChatClient:
    """One request of a chat completions client.

    The hub form equals the client's, except that the deprecated `functions` become tools.
    """

    request: Json  # decoded
    include_usage: bool  # whether a stream ends with a usage chunk
    fallback_id: str  # of the completion, when the upstream sends none
    created: int = 0  # seconds since 1970, when the upstream sends none

    def hub_request(self) -> ConvertedRequest:
        request = strip_extensions(self.request)
        if self.legacy:
            request = {
                name: value
                for name, value in request.items()
                if name not in {"functions", "function_call", "tools", "tool_choice"}
            }
            request["tools"] = [
                {"type": "function", "function": function} for function in objects_of(self.request, "functions")
            ]
            request["parallel_tool_calls"] = False  # the deprecated form has one call
            if self.request.get("function_call") is not None:
                request["tool_choice"] = _tool_choice(self.request["function_call"])
        messages = [strip_foreign(message) for message in objects_of(request, "messages")]
        if any(map(_goes_by_names, messages)):
            messages = list(map(_with_call_ids, messages))
        messages = list(map(_message, messages))
        return ConvertedRequest({**request, "messages": messages})

    def answer(self, completion: Json) -> Json:
        for choice in objects_of(completion, "choices"):
            message = object_of(choice, "message")
            sealed = sealed_thoughts(objects_of(message, THINKING))
            message = strip_extensions(message)
            calls = objects_of(message, "tool_calls")
            for position, call in enumerate(calls):
                call["id"] = call.get("id") or made_call_id(self.fallback_id, position)
            if calls and sealed:
                message["tool_calls"] = calls = [with_seal(calls[0], sealed), *calls[1:]]
            if calls and self.legacy:
                message = {name: value for name, value in message.items() if name != "tool_calls"}
                message["function_call"] = object_of(calls[0], "function")
                choice["finish_reason"] = (
                    "function_call" if choice.get("finish_reason") == "tool_calls" else choice.get("finish_reason")
                )
            choice["message"] = message
            choice.pop(STOP, None)
        if not completion.get("created"):
            completion["created"] = self.created
        if not text_of(completion, "id"):
            completion["id"] = self.fallback_id
        return completion

    def encoder(self) -> ChatEncoder:
        return ChatEncoder(self.include_usage, self.legacy, self.fallback_id, self.created)

    @property
    def legacy(self) -> bool:
        """Whether the client uses the deprecated `functions` instead of tools."""
        return bool(objects_of(self.request, "functions"))


def _tool_choice(choice: object) -> object:
    return {"type": "function", "function": {"name": text_of(choice, "name")}} if isinstance(choice, dict) else choice


def _message(message: Json) -> Json:
    """Rewrite a function call or its result as a tool call or its result.

    The deprecated form has no call ids, so the id is derived from the function's name.
    """
    role = text_of(message, "role")
    if role == "function" or _goes_by_names(message):
        call_id = text_of(message, "tool_call_id") or f"call_{text_of(message, 'name')}"
        return {**message, "role": "tool", "tool_call_id": call_id}
    if role == "assistant":
        message = with_own_thoughts(_without_thinking_parts(message))
    called = object_of(message, "function_call")
    if not called:
        return message
    call: Json = {"id": f"call_{text_of(called, 'name')}", "type": "function", "function": called}
    rest = {name: value for name, value in message.items() if name != "function_call"}
    return {**rest, "tool_calls": [*objects_of(message, "tool_calls"), call]}


def _goes_by_names(message: Json) -> bool:
    """Whether a tool's message names the tool in place of the call."""
    return text_of(message, "role") == "tool" and not text_of(message, "tool_call_id") and "name" in message


def _with_call_ids(message: Json) -> Json:
    """An assistant's message whose calls go by the names of their functions where they have no ids."""
    calls = objects_of(message, "tool_calls")
    if all(text_of(call, "id") for call in calls):
        return message
    named = ((call, text_of(object_of(call, "function"), "name")) for call in calls)
    return {**message, "tool_calls": [{**call, "id": text_of(call, "id") or f"call_{name}"} for call, name in named]}


def _without_thinking_parts(message: Json) -> Json:
    """An assistant's message whose thoughts, which some clients send as parts of its content, stand beside it."""
    parts = objects_of(message, "content")
    thoughts = [part for part in parts if text_of(part, "type") in THINKING_PARTS]
    if not thoughts:
        return message
    rest = [part for part in parts if part not in thoughts]
    try:
        shown = text_of(message, "reasoning_content") or content_of(thoughts).thoughts
    except Unreadable:
        shown = ""
    return {**message, "content": rest or None, **({"reasoning_content": shown} if shown else {})}
