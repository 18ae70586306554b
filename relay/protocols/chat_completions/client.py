"""A client of chat completions at an upstream of another API: its request as a hub request, and the answer. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from portal.lib.json import Json, object_of, objects_of, text_of
from relay.protocols.chat_completions.client_stream import ChatEncoder
from relay.protocols.chat_completions.hub import bare_message
from relay.protocols.contract import Form


@dataclass(slots=True)
class ChatClient:
    """One request. The hub's form is the client's own, but for the functions of old clients, which become tools."""

    request: Json  # decoded
    include_usage: bool  # of a stream
    fallback_id: str  # of the completion, where the upstream gives none

    def hub_request(self) -> Form:
        request = self.request
        if self.legacy:
            request = {name: value for name, value in request.items() if name not in {"functions", "function_call", "tools", "tool_choice"}}
            request["tools"] = [{"type": "function", "function": function} for function in objects_of(self.request, "functions")]
            if self.request.get("function_call") is not None:
                request["tool_choice"] = _tool_choice(self.request["function_call"])
        messages = objects_of(request, "messages")
        if any(text_of(message, "role") == "function" or "function_call" in message for message in messages):
            request = {**request, "messages": [_message(message) for message in messages]}
        return Form(request)

    def answer(self, completion: Json) -> Json:
        for choice in objects_of(completion, "choices"):
            message = bare_message(object_of(choice, "message"))
            calls = objects_of(message, "tool_calls")
            if calls and self.legacy:
                message = {name: value for name, value in message.items() if name != "tool_calls"}
                message["function_call"] = object_of(calls[0], "function")
                choice["finish_reason"] = "function_call" if choice.get("finish_reason") == "tool_calls" else choice.get("finish_reason")
            choice["message"] = message
        if not text_of(completion, "id"):
            completion["id"] = self.fallback_id
        return completion

    def encoder(self) -> ChatEncoder:
        return ChatEncoder(self.include_usage, self.legacy, self.fallback_id)

    @property
    def legacy(self) -> bool:
        """Whether the client speaks of functions, as before there were tools."""
        return bool(objects_of(self.request, "functions"))


def _tool_choice(choice: object) -> object:
    return {"type": "function", "function": {"name": text_of(choice, "name")}} if isinstance(choice, dict) else choice


def _message(message: Json) -> Json:
    """A call, or a result, as it is with tools. Old clients name neither, so that the function's name stands for the call's id."""
    if text_of(message, "role") == "function":
        call_id = text_of(message, "tool_call_id") or f"call_{text_of(message, 'name')}"
        return {**message, "role": "tool", "tool_call_id": call_id}
    called = object_of(message, "function_call")
    if not called:
        return message
    call: Json = {"id": f"call_{text_of(called, 'name')}", "type": "function", "function": called}
    rest = {name: value for name, value in message.items() if name != "function_call"}
    return {**rest, "tool_calls": [*objects_of(message, "tool_calls"), call]}
