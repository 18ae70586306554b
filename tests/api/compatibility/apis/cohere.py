"""Cohere's own API, /v2/chat, as upstreams speak it."""

from __future__ import annotations

import json
from typing import Final

from tests.api.compatibility.apis import chat
from tests.api.compatibility.apis.common import at
from tests.api.compatibility.conversation import TOOLS, Ask, Inexpressible, Json, Reply, has_member
from tests.support.peers import cohere as peer

NAME: Final = "cohere"
_OPTIONS: Final = {
    "limit": "max_tokens",
    "temperature": "temperature",
    "top_p": "p",
    "top_k": "k",
    "penalty": "presence_penalty",
    "seed": "seed",
    "stop": "stop_sequences",
    "budget": "thinking.token_budget",
}
_REASONS: Final = {
    "stop": "COMPLETE",
    "calls": "TOOL_CALL",
    "length": "MAX_TOKENS",
    "sequence": "STOP_SEQUENCE",
}


def fault(body: Json, native: bool) -> str:
    """Why a strict upstream refuses it. The peer looks itself."""
    return ""


def read_ask(body: Json) -> Ask:
    plain = [_as_chat(message) for message in body["messages"]]
    found = chat.read_ask({"messages": plain})
    found.options |= {name: value for name, path in _OPTIONS.items() if (value := at(body, path)) is not None}
    tools = [tool["function"] for tool in body.get("tools") or ()]
    if tools:
        names = tuple(tool["name"] for tool in tools if has_member(tool["parameters"], TOOLS[tool["name"]]))
        found.options["tools"] = names
        if body.get("tool_choice") == "REQUIRED":
            found.options["choice"] = "any" if len(names) > 1 else f"tool:{names[0]}"
        elif body.get("tool_choice") == "NONE":
            found.options["choice"] = "none"
        else:
            found.options["choice"] = "auto"
    shape = body.get("response_format") or {}
    if shape.get("type") == "json_object":
        found.options["schema" if has_member(shape.get("json_schema"), "city") else "json"] = True
    thinking = body.get("thinking") or {}
    if thinking.get("type") == "disabled":
        found.options["effort"] = "none"
    elif thinking.get("type") == "enabled" and "token_budget" not in thinking:
        found.options["effort"] = "high"  # as long as it likes
    return found


def _as_chat(message: Json) -> Json:
    """A message in the form of chat completions, which Cohere's is but for thoughts."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    thoughts = "".join(part["thinking"] for part in content if part["type"] == "thinking")
    rest = [part for part in content if part["type"] != "thinking"]
    return {**message, "content": rest, **({"reasoning_content": thoughts} if thoughts else {})}


def write_reply(reply: Reply) -> tuple[Json, Reply]:
    """A complete answer, and what it says in this API."""
    used = reply.used
    lacking = reply.signature or reply.redacted or reply.refusal or reply.cited or reply.others or reply.logprobs
    if lacking or used.written or used.reasoning or used.audio_in or used.audio_out:
        raise Inexpressible("what Cohere lacks")
    content: list[Json] = [{"type": "thinking", "thinking": reply.thought}] if reply.thought else []
    content += [{"type": "text", "text": reply.text}] if reply.text else []
    message: Json = {"role": "assistant", "content": content}
    if reply.calls:
        message["tool_calls"] = [
            {
                **peer.CALL,
                "id": f"up_{number}",
                "function": {"name": part.name, "arguments": _arguments(part.name, part.value)},
            }
            for number, part in enumerate(reply.calls)
        ]
    usage = {"billed_units": {"input_tokens": used.input, "output_tokens": used.output}, "cached_tokens": used.cached}
    whole = {"id": "c14c80c3", "finish_reason": _REASONS[reply.end], "message": message, "usage": usage}
    told = used.without("written", "hour", "reasoning", "audio_in", "audio_out")
    end = "stop" if reply.end == "sequence" else reply.end
    return whole, Reply(**{**vars(reply), "end": end, "used": told})


def _arguments(tool: str, value: str) -> str:
    return json.dumps({TOOLS[tool]: value})


def events(whole: Json) -> list[bytes]:
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in peer.events(whole)]


def error_of(text: str) -> Json:
    return {"id": "e1", "message": text}


def error_event(text: str) -> bytes:
    ending = {"finish_reason": "ERROR", "error": text, "usage": {}}
    return f"event: message-end\ndata: {json.dumps({'type': 'message-end', 'id': 'e1', 'delta': ending})}\n\n".encode()
