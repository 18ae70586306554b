"""The next turn of a conversation, as the SDK of each API keeps what was answered."""

from __future__ import annotations

from typing import Any, Final

from tests.support.apis.answers import Answer, Json

_RESULT: Final = "It is sunny."
_MORE: Final = "And tomorrow?"
_OUTPUTS: Final = {"function_call": "function_call_output", "custom_tool_call": "custom_tool_call_output"}


def next_turn(client: str, body: Json, answer: Answer) -> Json:
    """The body of the next request: each call has its result, and without any the user goes on."""
    if client == "chat":
        message = message_of_chat(answer.events)
        results = [
            {"role": "tool", "tool_call_id": call["id"], "content": _RESULT} for call in message.get("tool_calls", ())
        ]
        return {**body, "messages": [*body["messages"], message, *(results or [{"role": "user", "content": _MORE}])]}
    if client == "responses":
        given = body["input"]
        items = [{"role": "user", "content": given}] if isinstance(given, str) else given
        output = answer.final["output"]
        more: list[Json] = [
            {"type": _OUTPUTS[item["type"]], "call_id": item["call_id"], "output": _RESULT}
            for item in output
            if item["type"] in _OUTPUTS
        ]
        return {**body, "input": [*items, *output, *(more or [{"role": "user", "content": _MORE}])]}
    if client == "messages":
        content = answer.final["content"]
        called = [block["id"] for block in content if block["type"] == "tool_use"]
        blocks = [{"type": "tool_result", "tool_use_id": one, "content": _RESULT} for one in called]
        turns = [{"role": "assistant", "content": content}, {"role": "user", "content": blocks or _MORE}]
        return {**body, "messages": [*body["messages"], *turns]}
    said = answer.final["candidates"][0]["content"]
    parts: list[Json] = [
        {"functionResponse": {**_named(part["functionCall"]), "response": {"result": _RESULT}}}
        for part in said["parts"]
        if "functionCall" in part
    ]
    return {**body, "contents": [*body["contents"], said, {"role": "user", "parts": parts or [{"text": _MORE}]}]}


def _named(call: Json) -> Json:
    return {name: call[name] for name in ("id", "name") if name in call}


def message_of_chat(events: list[Json]) -> Json:
    """The assistant's message of a chat completion or of its chunks, with what SDKs keep of unknown members."""
    found: Json = {"role": "assistant", "content": None}
    for event in events:
        for choice in event.get("choices") or ():
            for name, value in (choice.get("delta") or choice.get("message") or {}).items():
                if name == "tool_calls":
                    _add_calls(found.setdefault(name, []), value or ())
                elif isinstance(value, str) and name != "role":
                    found[name] = (found.get(name) or "") + value
                elif value:
                    found[name] = value
    return found


def _add_calls(calls: list[Json], pieces: Any) -> None:
    for number, piece in enumerate(pieces):
        index = piece.get("index", number)
        if index == len(calls):
            calls.append({name: value for name, value in piece.items() if name != "index"})
            continue
        function, more = calls[index]["function"], piece.get("function", {})
        calls[index] = {**calls[index], **{name: piece[name] for name in piece if name not in {"index", "function"}}}
        calls[index]["function"] = {**function, "arguments": function["arguments"] + (more.get("arguments") or "")}
