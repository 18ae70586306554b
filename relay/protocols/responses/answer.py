"""A whole response: what must be understood of it, and as a completion in the hub's form. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from portal.lib.json import Json, object_of, objects_of, text_of
from relay.protocols.chat_completions.hub import THINKING, thoughts
from relay.protocols.responses.usage import chat_usage, parse_responses_usage
from relay.protocols.usage import Usage, present


class _Answer(msgspec.Struct):
    id: str = ""
    status: str = ""
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    output: msgspec.Raw = msgspec.Raw()


_answer: Final = msgspec.json.Decoder(_Answer)


@dataclass(frozen=True, slots=True)
class ResponsesAnswer:
    """What the portal needs of a whole response. `failed`: it says itself that it failed. `is_error`: a 200 that is no response but an error object."""

    id: str
    usage: Usage | None
    is_error: bool
    failed: bool


def parse_responses_answer(body: bytes) -> ResponsesAnswer | None:
    """None when the body is no response at all."""
    try:
        answer = _answer.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    failed = answer.status == "failed"
    is_error = present(answer.error) and not answer.id
    if not is_error and not present(answer.output):
        return None
    usage = parse_responses_usage(answer.usage) if present(answer.usage) else None
    return ResponsesAnswer(answer.id, usage, is_error, failed)


# -- for clients of other APIs ---------------------------------------------------------------------------------------


def finish_of(response: Json, called: bool) -> str:
    """finish_reason, from a response that has ended."""
    if text_of(response, "status") == "incomplete":
        return "content_filter" if text_of(object_of(response, "incomplete_details"), "reason") == "content_filter" else "length"
    return "tool_calls" if called else "stop"


def call_of(item: Json) -> Json | None:
    """An output item as a tool call of chat, None when it is none."""
    kind = text_of(item, "type")
    if kind == "function_call":
        return {"id": text_of(item, "call_id"), "type": "function", "function": {"name": text_of(item, "name"), "arguments": text_of(item, "arguments") or "{}"}}
    if kind == "custom_tool_call":
        return {"id": text_of(item, "call_id"), "type": "custom", "custom": {"name": text_of(item, "name"), "input": text_of(item, "input")}}
    return None


def thoughts_of(item: Json) -> Json:
    """A reasoning item as an entry of `hub_thinking`."""
    texts, summary = ([text_of(part, "text") for part in objects_of(item, name)] for name in ("content", "summary"))
    return thoughts(text_of(item, "id"), texts, summary, item.get("encrypted_content"))


def shown_thoughts(item: Json) -> str:
    """What a reasoning item shows: its summary, or, from models that show it, the reasoning itself."""
    summary = "\n\n".join(text_of(part, "text") for part in objects_of(item, "summary"))
    return summary or "\n".join(text_of(part, "text") for part in objects_of(item, "content"))


def nested_annotations(part: Json) -> list[Json]:
    """Citations as chat completions write them."""
    cited = [entry for entry in objects_of(part, "annotations") if text_of(entry, "type") == "url_citation"]
    return [{"type": "url_citation", "url_citation": {key: entry.get(key) for key in ("start_index", "end_index", "url", "title")}} for entry in cited]


def completion_of(response: Json) -> Json:
    """A response as a completion in the hub's form."""
    text, refusal = "", ""
    shown: list[str] = []
    thinking: list[Json] = []
    calls: list[Json] = []
    annotations: list[Json] = []
    logprobs: list[Json] = []
    for item in objects_of(response, "output"):
        kind, call = text_of(item, "type"), call_of(item)
        if call is not None:
            calls.append(call)
        elif kind == "message":
            for part in objects_of(item, "content"):
                text += text_of(part, "text")
                refusal += text_of(part, "refusal")
                annotations += nested_annotations(part)
                logprobs += objects_of(part, "logprobs")
        elif kind == "reasoning":
            shown.append(shown_thoughts(item))
            if item.get("encrypted_content"):
                thinking.append(thoughts_of(item))
    message: Json = {"role": "assistant", "content": text or (None if calls or refusal else ""), "refusal": refusal or None, "annotations": annotations}
    if any(shown):
        message["reasoning_content"] = "\n\n".join(filter(None, shown))
    if thinking:
        message[THINKING] = thinking
    if calls:
        message["tool_calls"] = calls
    finish = finish_of(response, bool(calls))
    choice: Json = {"index": 0, "message": message, "logprobs": {"content": logprobs, "refusal": None} if logprobs else None, "finish_reason": finish}
    created, response_id = response.get("created_at"), text_of(response, "id")
    found: Json = {
        "id": f"chatcmpl-{response_id.removeprefix('resp_')}" if response_id else "", "object": "chat.completion",
        "created": int(created) if isinstance(created, (int, float)) else 0, "model": text_of(response, "model"), "choices": [choice],
    }  # fmt: skip
    if response.get("service_tier"):
        found["service_tier"] = response["service_tier"]
    if isinstance(response.get("usage"), dict):
        found["usage"] = chat_usage(object_of(response, "usage"))
    return found
