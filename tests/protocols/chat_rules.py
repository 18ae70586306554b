"""What strict chat completions upstreams refuse: OpenAI, Moonshot, DeepSeek, templates of Qwen on vLLM."""

from __future__ import annotations

import json
import re
from typing import Any

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def refusal(body: dict[str, Any]) -> str:
    """Why such an upstream answers a request with 400; empty: it does not."""
    names = [tool["function"]["name"] for tool in body.get("tools", [])]
    wrong = [name for name in names if not _NAME.fullmatch(name)]
    if wrong:
        return f"Invalid 'tools[].function.name': {wrong[0]}"
    if len(set(names)) < len(names):
        return "Tool names must be unique."
    waiting: list[str] = []
    for position, message in enumerate(body["messages"]):
        role = message["role"]
        if waiting and (role != "tool" or message["tool_call_id"] != waiting[0]):
            return (
                f"An assistant message with 'tool_calls' must be followed by tool messages: {waiting[0]} at {position}"
            )
        if role == "tool":
            if not waiting:
                return (
                    f"messages with role 'tool' must be a response to a preceding message with 'tool_calls': {position}"
                )
            if not isinstance(message["content"], str):
                return f"Invalid type for 'messages[{position}].content': expected a string."
            waiting = waiting[1:]
        elif role == "system":
            if position:
                return "System message must be at the beginning."
        elif role == "assistant":
            if not message.get("content") and not message.get("refusal") and not message.get("tool_calls"):
                return f"Invalid value for 'content' in messages[{position}]: expected a string, got null."
            waiting = [call["id"] for call in message.get("tool_calls") or []]
            if len(set(waiting)) < len(waiting):
                return f"Duplicate tool call id in messages[{position}]"
            for call in message.get("tool_calls") or []:
                if not _NAME.fullmatch(call["function"]["name"]):
                    return f"Invalid 'messages[{position}].tool_calls[].function.name'"
                if not isinstance(json.loads(call["function"]["arguments"]), dict):
                    return "Can only get item pairs from a mapping."
        elif role != "user":
            return f"Invalid value: '{role}'. Supported values are: 'system', 'assistant', 'user', and 'tool'."
    return f"tool_call_ids did not have response messages: {waiting[0]}" if waiting else ""
