"""An upstream that speaks Anthropic's Messages API, for `tests.support.upstream`: as strict as the real one.

Source: Anthropic's API reference and its SDK 2.14, November 2026.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tests.support.upstream import Call, Script

USAGE: dict[str, Any] = {
    "input_tokens": 9,
    "cache_creation_input_tokens": 6,
    "cache_read_input_tokens": 4,
    "cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 4},
    "output_tokens": 7,
    "output_tokens_details": {"thinking_tokens": 3},
    "service_tier": "standard",
}
TEXT: dict[str, Any] = {"type": "text", "text": "Hello there."}
THINKING: dict[str, Any] = {"type": "thinking", "thinking": "They greet me.", "signature": "EqQBCkYIBxgC"}
TOOL: dict[str, Any] = {"type": "tool_use", "id": "toolu_01A", "name": "weather", "input": {"city": "Paris"}}
_CALL_ID = re.compile(r"[a-zA-Z0-9_-]+")
_ROLES = ("user", "assistant", "system")


def message(*content: dict[str, Any], stop: str = "end_turn", **more: Any) -> dict[str, Any]:
    return {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "model": "claude-mock",
        "content": list(content) or [TEXT],
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": USAGE,
        **more,
    }


def events(whole: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a message, with its texts in several pieces and a ping."""
    early = {**whole["usage"], "output_tokens": 1}
    head = {**whole, "content": [], "stop_reason": None, "stop_sequence": None, "usage": early}
    head.pop("stop_details", None)
    found: list[dict[str, Any]] = [{"type": "message_start", "message": head}, {"type": "ping"}]
    for index, block in enumerate(whole["content"]):
        opening, deltas = _opened(block)
        found.append({"type": "content_block_start", "index": index, "content_block": opening})
        found += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        found.append({"type": "content_block_stop", "index": index})
    ending = {name: whole[name] for name in ("stop_reason", "stop_sequence", "stop_details") if name in whole}
    last = {name: value for name, value in whole["usage"].items() if name not in {"cache_creation", "service_tier"}}
    return [*found, {"type": "message_delta", "delta": ending, "usage": last}, {"type": "message_stop"}]


def _opened(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    kind = block["type"]
    if kind == "text":
        deltas = [{"type": "text_delta", "text": piece} for piece in re.findall(r".{1,5}", block["text"], re.S)]
        deltas += [{"type": "citations_delta", "citation": one} for one in block.get("citations") or ()]
        return {"type": "text", "text": ""}, deltas
    if kind == "thinking":
        pieces = re.findall(r".{1,5}", block["thinking"], re.S)
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
        return {"type": "thinking", "thinking": "", "signature": ""}, deltas
    if kind in {"tool_use", "server_tool_use"}:
        pieces = re.findall(r".{1,5}", json.dumps(block["input"]), re.S) if block["input"] else []
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": one} for one in ("", *pieces)]
    return block, []


def wire(found: list[dict[str, Any]]) -> bytes:
    return b"".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in found)


def saying(*content: dict[str, Any], stop: str = "end_turn", **more: Any) -> Script:
    """An upstream that answers every request, which must be right, with a message."""
    whole = message(*content, stop=stop, **more)

    async def script(call: Call) -> None:
        wrong = fault(call)
        if wrong:
            await refuse(call, 400, "invalid_request_error", wrong)
        elif call.path.partition("?")[0].endswith("/count_tokens"):
            await call.reply(200, {"input_tokens": 77})
        elif call.json.get("stream"):
            await call.open_stream("request-id: req_up\r\nanthropic-organization-id: org-1\r\n")
            for event in events(whole):
                await call.send(wire([event]))
            await call.end()
        else:
            await call.reply(200, whole, {"request-id": "req_up", "anthropic-ratelimit-requests-remaining": "49"})

    return script


async def refuse(call: Call, status: int, kind: str, text: str, headers: dict[str, str] | None = None) -> None:
    body = {"type": "error", "error": {"type": kind, "message": text}, "request_id": "req_up"}
    await call.reply(status, body, {"request-id": "req_up", **(headers or {})})


def fault(call: Call) -> str:
    """What the API finds wrong with a request; empty: nothing."""
    headers, body = call.headers, call.json
    if "anthropic-version" not in headers:
        return "anthropic-version: header is required"
    if "x-api-key" not in headers and "authorization" not in headers:
        return "x-api-key header is required"
    counting = call.path.partition("?")[0].endswith("/count_tokens")
    if not counting and not isinstance(body.get("max_tokens"), int):
        return "max_tokens: Field required"
    found = _wrong_messages(body) or _wrong_thinking(body)
    if body.get("tool_choice") and not body.get("tools"):
        return "tool_choice may only be specified while providing tools"
    system = body.get("system")
    if isinstance(system, list) and any(not block["text"].strip() for block in system):
        return "system: text content blocks must contain non-whitespace text"
    return found


def _wrong_thinking(body: dict[str, Any]) -> str:
    thinking = body.get("thinking") or {}
    if thinking.get("type") == "enabled":
        budget = thinking.get("budget_tokens", 0)
        if budget < 1024:
            return "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"
        if budget >= body["max_tokens"]:
            return "`max_tokens` must be greater than `thinking.budget_tokens`"
        if (body.get("tool_choice") or {}).get("type") in {"any", "tool"}:
            return "Thinking may not be enabled when tool_choice forces tool use."
        if body.get("temperature") not in (None, 1):
            return "`temperature` may only be set to 1 when thinking is enabled"
    return ""


def _wrong_messages(body: dict[str, Any]) -> str:
    messages = body.get("messages")
    if not messages:
        return "messages: at least one message is required"
    waiting: list[str] = []
    known: set[str] = set()
    for number, one in enumerate(messages):
        if one["role"] not in _ROLES:
            return f'messages: Unexpected role "{one["role"]}"'
        if number == 0 and one["role"] != "user":
            return "messages: first message must use the “user” role"
        content = one["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not blocks:
            return f"messages.{number}: all messages must have non-empty content"
        wrong = next((found for block in blocks if (found := _wrong_block(block))), "")
        if wrong:
            return f"messages.{number}.content: {wrong}"
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if waiting and sorted(results) != sorted(waiting):
            return f"messages.{number}: `tool_use` ids were found without `tool_result` blocks immediately after"
        if not waiting and results:
            return f"messages.{number}: unexpected `tool_use_id` found in `tool_result` blocks"
        if results and [block["type"] for block in blocks[: len(results)]] != ["tool_result"] * len(results):
            return f"messages.{number}: `tool_result` blocks must come first"
        waiting = [block["id"] for block in blocks if block["type"] == "tool_use"]
        if len(known | set(waiting)) < len(known) + len(waiting):
            return f"messages.{number}: `tool_use` ids must be unique"
        known |= set(waiting)
    return ""


def _wrong_block(block: dict[str, Any]) -> str:
    kind = block["type"]
    if kind == "text" and not block["text"].strip():
        return "text content blocks must contain non-whitespace text"
    if kind == "thinking" and not block.get("signature"):
        return "Invalid `signature` in `thinking` block"
    if kind == "thinking" and block["signature"].startswith("airelays"):
        return "Invalid `signature` in `thinking` block"
    if kind == "tool_use" and (not _CALL_ID.fullmatch(block["id"]) or not isinstance(block["input"], dict)):
        return "tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
    if kind == "tool_result" and block.get("content") == "":
        return "content field is empty"
    known = {"text", "image", "document", "thinking", "redacted_thinking", "tool_use", "tool_result", "search_result"}
    return "" if kind in known | {"server_tool_use", "web_search_tool_result"} else f"Input tag '{kind}' not found"
