"""An upstream that speaks Cohere's own API, for `tests.support.upstream`: as strict as the real one.

Source: Cohere's API reference and its SDK 7.3, November 2026.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tests.support.upstream import Call, Script

USAGE: dict[str, Any] = {
    "billed_units": {"input_tokens": 26, "output_tokens": 12},
    "tokens": {"input_tokens": 520, "output_tokens": 40},
    "cached_tokens": 16,
}
CALL: dict[str, Any] = {
    "id": "weather_1k8z2xh1ghtd",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city":"Paris"}'},
}
_TOP = {
    "model", "messages", "stream", "tools", "strict_tools", "documents", "citation_options", "response_format",
    "safety_mode", "max_tokens", "stop_sequences", "temperature", "seed", "frequency_penalty", "presence_penalty", "k",
    "p", "logprobs", "tool_choice", "thinking", "priority",
}  # fmt: skip
_ROLES = {
    "system": {"role", "content"},
    "user": {"role", "content"},
    "assistant": {"role", "content", "tool_calls", "tool_plan", "citations"},
    "tool": {"role", "content", "tool_call_id"},
}


def saying(
    text: str = "Hello there.",
    thinking: str = "",
    plan: str = "",
    *calls: dict[str, Any],
    reason: str = "COMPLETE",
    citations: tuple[dict[str, Any], ...] = (),
) -> Script:
    """Answers every request, which must be right, with this."""
    content: list[dict[str, Any]] = [{"type": "thinking", "thinking": thinking}] if thinking else []
    content += [{"type": "text", "text": text}] if text else []
    message: dict[str, Any] = {"role": "assistant", "content": content}
    message |= {"tool_plan": plan, "tool_calls": list(calls)} if calls else {}
    message |= {"citations": list(citations)} if citations else {}
    whole = {"id": "c14c80c3", "finish_reason": reason, "message": message, "usage": USAGE}

    async def script(call: Call) -> None:
        if wrong := fault(call):
            await call.reply(400, {"id": "e1", "message": wrong})
        elif not call.json.get("stream"):
            await call.reply(200, whole)
        else:
            await call.open_stream()
            for event in events(whole):
                await call.send(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
            await call.end()

    return script


def events(whole: dict[str, Any]) -> list[dict[str, Any]]:
    opening = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    found: list[dict[str, Any]] = [{"id": whole["id"], "type": "message-start", "delta": {"message": opening}}]
    message = whole["message"]
    for index, part in enumerate(message["content"]):
        kind = part["type"]
        start = {"message": {"content": {"type": kind, kind: ""}}}
        found.append({"type": "content-start", "index": index, "delta": start})
        for piece in re.findall(r".{1,5}", part[kind], re.S):
            found.append({"type": "content-delta", "index": index, "delta": {"message": {"content": {kind: piece}}}})
        found.append({"type": "content-end", "index": index})
    for piece in re.findall(r".{1,5}", message.get("tool_plan", ""), re.S):
        found.append({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": piece}}})
    for index, call in enumerate(message.get("tool_calls", ())):
        opened = {**call, "function": {**call["function"], "arguments": ""}}
        found.append({"type": "tool-call-start", "index": index, "delta": {"message": {"tool_calls": opened}}})
        for piece in re.findall(r".{1,5}", call["function"]["arguments"], re.S):
            delta = {"message": {"tool_calls": {"function": {"arguments": piece}}}}
            found.append({"type": "tool-call-delta", "index": index, "delta": delta})
        found.append({"type": "tool-call-end", "index": index})
    for index, citation in enumerate(message.get("citations", ())):
        found.append({"type": "citation-start", "index": index, "delta": {"message": {"citations": citation}}})
        found.append({"type": "citation-end", "index": index})
    ending = {"finish_reason": whole["finish_reason"], "usage": whole["usage"]}
    return [*found, {"type": "message-end", "id": whole["id"], "delta": ending}]


def fault(call: Call) -> str:
    """What the API finds wrong with a request; empty: nothing."""
    body = call.json
    if call.path != "/v2/chat":
        return f"unknown path {call.path}"
    if unknown := body.keys() - _TOP:
        return f"unknown field: parameter '{min(unknown)}' is not a valid field"
    called: set[str] = set()
    for number, message in enumerate(body["messages"]):
        known = _ROLES.get(message["role"])
        if known is None or message.keys() - known:
            return f"invalid request: message[{number}] has unknown members or role"
        if message["role"] == "tool" and message["tool_call_id"] not in called:
            return f"invalid request: tool call id not found in previous tool calls at message[{number}]"
        if message["role"] != "assistant" and not message.get("content"):
            return f"invalid request: message[{number}] must have content"
        called.update(one["id"] for one in message.get("tool_calls", ()))
    if body.get("tool_choice") not in (None, "REQUIRED", "NONE"):
        return "invalid tool_choice"
    if body.get("tool_choice") and not body.get("tools"):
        return "tool_choice needs tools"
    return ""


_EMBED = {
    "model", "input_type", "texts", "images", "inputs", "max_tokens", "output_dimension", "embedding_types", "truncate",
    "priority",
}  # fmt: skip
_INPUT_TYPES = {"search_document", "search_query", "classification", "clustering", "image"}


def embedding(*found: list[float], tokens: int = 5) -> Script:
    """Makes these vectors for every request of /v2/embed, which must be right."""

    async def script(call: Call) -> None:
        body, wrong = call.json, ""
        if call.path != "/v2/embed":
            wrong = f"unknown path {call.path}"
        elif unknown := body.keys() - _EMBED:
            wrong = f"unknown field: parameter '{min(unknown)}' is not a valid field"
        elif body.get("input_type") not in _INPUT_TYPES:
            wrong = "invalid request: valid input_type must be provided with the provided model"
        elif body.get("embedding_types") != ["float"] or len(body.get("texts", ())) != len(found):
            wrong = "invalid request: texts"
        if wrong:
            await call.reply(400, {"id": "e1", "message": wrong})
            return
        meta = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": tokens}}
        made = {"id": "em1", "embeddings": {"float": list(found)}, "texts": body["texts"], "meta": meta}
        await call.reply(200, {**made, "response_type": "embeddings_by_type"})

    return script


def listing(*names: str) -> Script:
    """The list of models."""

    async def script(call: Call) -> None:
        listed = [{"name": name, "endpoints": ["chat"], "context_length": 256000} for name in names]
        found = call.path == "/v1/models?page_size=1000&endpoint=chat"
        await call.reply(200 if found else 404, {"models": listed} if found else {"message": "not found"})

    return script
