"""Ollama's own API, /api/chat, as upstreams speak it."""

from __future__ import annotations

import json
import re
from typing import Final

from tests.api.compatibility.apis.common import at
from tests.api.compatibility.conversation import TOOLS, Ask, Inexpressible, Json, Part, Reply, Turn, has_member
from tests.support.peers import ollama as peer

NAME: Final = "ollama"
_OPTIONS: Final = {
    "limit": "options.num_predict",
    "temperature": "options.temperature",
    "top_p": "options.top_p",
    "top_k": "options.top_k",
    "penalty": "options.presence_penalty",
    "seed": "options.seed",
    "stop": "options.stop",
}


def fault(body: Json, native: bool) -> str:
    """Why a strict upstream refuses it. The peer looks itself."""
    return ""


def read_ask(body: Json) -> Ask:
    found = Ask()
    for message in body["messages"]:
        role, content = message["role"], message["content"]
        if role == "system" and not found.turns:
            found.system += content
        elif role == "tool":
            found.turns.append(Turn("user", (Part("result", content, message["tool_name"]),)))
        else:
            said = [Part("thought", message["thinking"])] if message.get("thinking") else []
            said += [Part("image", image) for image in message.get("images") or ()]
            said += [Part("text", content)] if content else []
            called = [one["function"] for one in message.get("tool_calls") or ()]
            said += [Part("call", one["arguments"][TOOLS[one["name"]]], one["name"]) for one in called]
            found.turns.append(Turn(role, tuple(said)))
    found.options |= {name: value for name, path in _OPTIONS.items() if (value := at(body, path)) is not None}
    tools = [tool["function"] for tool in body.get("tools") or ()]
    if tools:
        names = (tool["name"] for tool in tools if has_member(tool["parameters"], TOOLS[tool["name"]]))
        found.options |= {"tools": tuple(names), "choice": "auto"}
    shape = body.get("format")
    if shape:
        found.options["schema" if has_member(shape, "city") else "json"] = True
    think = body.get("think")
    if think is not None:
        found.options["effort"] = "none" if think is False else think
    return found


def write_reply(reply: Reply) -> tuple[Json, Reply]:
    """A complete answer, and what it says in this API."""
    used = reply.used
    lacking = reply.signature or reply.redacted or reply.refusal or reply.cited or reply.others or reply.logprobs
    if lacking or used.cached or used.written or used.reasoning or used.audio_in or used.audio_out:
        raise Inexpressible("what Ollama lacks")
    message: Json = {"content": reply.text}
    message |= {"thinking": reply.thought} if reply.thought else {}
    if reply.calls:
        message["tool_calls"] = [
            {"function": {"index": number, "name": part.name, "arguments": {TOOLS[part.name]: part.value}}}
            for number, part in enumerate(reply.calls)
        ]
    counts = {**peer.COUNTS, "prompt_eval_count": used.input, "eval_count": used.output}
    reason = "length" if reply.end == "length" else "stop"
    whole = peer.line("llama", message, **{**counts, "done": True, "done_reason": reason})
    told = used.without("cached", "written", "hour", "reasoning", "audio_in", "audio_out")
    end = "stop" if reply.end == "sequence" else reply.end
    return whole, Reply(**{**vars(reply), "end": end, "used": told})


def events(whole: Json) -> list[bytes]:
    message = whole["message"]
    pieces: list[Json] = [{"thinking": piece} for piece in re.findall(r".{1,5}", message.get("thinking", ""))]
    pieces += [{"content": piece} for piece in re.findall(r".{1,5}", message["content"])]
    pieces += [{"tool_calls": [one]} for one in message.get("tool_calls") or ()]
    lines = [peer.line("llama", piece) for piece in pieces]
    return [json.dumps(line).encode() + b"\n" for line in (*lines, {**whole, "message": peer.line("", {})["message"]})]


def error_of(text: str) -> Json:
    return {"error": text}


def error_event(text: str) -> bytes:
    return json.dumps({"error": text}).encode() + b"\n"
