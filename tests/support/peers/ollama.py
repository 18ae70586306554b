"""An upstream that speaks Ollama's own API, for `tests.support.upstream`: as strict as the real one.

Source: Ollama's API reference, its server's types and its SDK 0.6, November 2026.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

from tests.support.upstream import Call, Script

COUNTS: dict[str, Any] = {
    "total_duration": 4883583458,
    "load_duration": 1334875,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 342546000,
    "eval_count": 12,
    "eval_duration": 4535599000,
}
_TOP = {
    "model", "messages", "stream", "format", "keep_alive", "tools", "options", "think", "truncate", "shift",
    "_debug_render_only", "logprobs", "top_logprobs",
}  # fmt: skip
_ROLES = {"system", "user", "assistant", "tool"}


def line(model: str, message: dict[str, Any], **more: Any) -> dict[str, Any]:
    whole = {"role": "assistant", "content": "", **message}
    return {"model": model, "created_at": "2026-11-30T03:00:00.123456789Z", "message": whole, "done": False, **more}


def saying(
    content: str = "Hello there.", thinking: str = "", *calls: tuple[str, dict[str, Any]], **last: Any
) -> Script:
    """Answers every request, which must be right, with this."""
    called = [
        {"function": {"index": number, "name": name, "arguments": given}} for number, (name, given) in enumerate(calls)
    ]
    end = {"done": True, "done_reason": "stop", **COUNTS, **last}

    async def script(call: Call) -> None:
        if wrong := fault(call):
            await call.reply(400, {"error": wrong})
            return
        model = call.json["model"]
        if not call.json.get("stream", True):
            message: dict[str, Any] = {"content": content}
            message |= {"thinking": thinking} if thinking else {}
            message |= {"tool_calls": called} if called else {}
            await call.reply(200, line(model, message, **end), {"content-type": "application/json; charset=utf-8"})
            return
        await call.raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n")
        pieces = [{"thinking": piece} for piece in re.findall(r".{1,5}", thinking)]
        pieces += [{"content": piece} for piece in re.findall(r".{1,5}", content)]
        pieces += [{"tool_calls": [one]} for one in called]
        for piece in pieces:
            await call.send(json.dumps(line(model, piece)).encode() + b"\n")
        await call.send(json.dumps(line(model, {}, **end)).encode() + b"\n")
        await call.end()

    return script


def fault(call: Call) -> str:
    """What the server finds wrong with a request; empty: nothing."""
    body = call.json
    if call.path != "/api/chat":
        return f"unknown path {call.path}"
    if unknown := body.keys() - _TOP:
        return f"unknown member {min(unknown)}"  # the real one ignores it, and so loses what the client meant
    for message in body["messages"]:
        if message["role"] not in _ROLES or not isinstance(message["content"], str):
            return f"json: cannot unmarshal into Go struct field Message.messages of {message}"
        for image in message.get("images", ()):
            try:
                base64.b64decode(image, validate=True)
            except (binascii.Error, ValueError):
                return "illegal base64 data at input byte 4"
        for one in message.get("tool_calls", ()):
            if not isinstance(one["function"]["arguments"], dict):
                return "json: cannot unmarshal string into Go struct field ToolCallFunction.arguments"
        if message["role"] == "tool" and not message.get("tool_name"):
            return "a result of a tool names none"
    if "think" in body and body["think"] not in (True, False, "low", "medium", "high"):
        return 'invalid think value: (must be "high", "medium", "low", true, or false)'
    if not isinstance(body.get("format", ""), dict) and body.get("format", "") not in ("", "json"):
        return "invalid format"
    return ""


def tags(*names: str) -> Script:
    """The list of models."""

    async def script(call: Call) -> None:
        listed = [{"name": name, "model": name, "size": 1, "digest": "0", "details": {"family": "x"}} for name in names]
        await call.reply(200 if call.path == "/api/tags" else 404, {"models": listed})

    return script
