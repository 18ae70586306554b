"""What upstreams of each API say and refuse, for the corpus and for tests of conversions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from tests.support.peers import cohere, gemini, messages, ollama
from tests.support.peers.clouds import converse, frames
from tests.support.upstream import chunk, completion

Json = dict[str, Any]

STREAMS: Final = {  # content types of streams that are no server-sent events
    "converse": "application/vnd.amazon.eventstream",
    "ollama": "application/x-ndjson",
}


def ordinary(api: str) -> Json:
    """A short answer of an API."""
    if api == "messages":
        return messages.message()
    if api == "gemini":
        return gemini.response()
    if api == "chat":
        return completion()
    if api == "converse":
        return converse.answer()
    if api == "ollama":
        return ollama.line("llama", {"content": "Hello there."}, done=True, done_reason="stop", **ollama.COUNTS)
    if api == "cohere":
        message = {"role": "assistant", "content": [{"type": "text", "text": "Hello there."}]}
        return {"id": "c14c80c3", "finish_reason": "COMPLETE", "message": message, "usage": cohere.USAGE}
    part = {"type": "output_text", "text": "Hello there.", "annotations": [], "logprobs": []}
    item = {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    usage = {"input_tokens": 9, "output_tokens": 7, "total_tokens": 16}
    head = {"id": "resp_up", "object": "response", "created_at": 1, "status": "completed", "model": "mock"}
    return {**head, "error": None, "incomplete_details": None, "output": [item], "usage": usage}


def whole_answer(api: str, given: Json) -> Json:
    """A complete answer of which a case gives only what matters.

    Of a chat completion, its `message` and `finish_reason`; of a Gemini response, its `parts` and `finishReason`; of
    Converse, its `content` and `stopReason`; of Cohere and Ollama, what their messages have beside the role.
    """
    whole = ordinary(api)
    if api == "chat" and "message" in given:
        given = dict(given)
        message = {"role": "assistant", "content": None, **given.pop("message")}
        finish = given.pop("finish_reason", "tool_calls" if message.get("tool_calls") else "stop")
        whole["choices"] = [{"index": 0, "message": message, "finish_reason": finish}]
    elif api == "gemini" and "parts" in given:
        given = dict(given)
        whole = gemini.response(*given.pop("parts"), finish=given.pop("finishReason", "STOP"))
    elif api == "converse" and "content" in given:
        given = dict(given)
        whole["output"] = {"message": {"role": "assistant", "content": given.pop("content")}}
        whole.setdefault("stopReason", "end_turn")
    elif api in {"cohere", "ollama"} and "message" in given:
        given = dict(given)
        bare: Json = {"role": "assistant", "content": "" if api == "ollama" else []}
        whole["message"] = {**bare, **given.pop("message")}
    return {**whole, **given}


def framed(api: str, event: Any) -> bytes:
    """An event on the wire. A text that is no JSON is sent as it is; of a chunk, its delta and reason are enough."""
    found = json.loads(event) if isinstance(event, str) and event.startswith("{") else event
    if isinstance(found, bytes):
        return found
    if not isinstance(found, dict):
        return str(found).encode("utf-8", "surrogatepass")
    if api == "converse":
        ((name, payload),) = found.items()
        return frames.event(name, payload)
    if api == "ollama":
        return json.dumps(found).encode() + b"\n"
    if api == "chat" and found.keys() <= {"delta", "finish_reason", "usage"}:
        choice = {"index": 0, "delta": found.get("delta", {}), "finish_reason": found.get("finish_reason")}
        found = {**chunk(), "choices": [choice], **({"usage": found["usage"]} if "usage" in found else {})}
    kind = found.get("type")
    named = f"event: {kind}\n" if isinstance(kind, str) and api in {"messages", "responses", "cohere"} else ""
    return f"{named}data: {json.dumps(found, ensure_ascii=False)}\n\n".encode("utf-8", "surrogatepass")


def stream_of(api: str, whole: Json) -> list[Any]:
    """The events of a stream that says the same as a complete answer."""
    if api == "messages":
        return [*messages.events(whole)]
    if api == "gemini":
        return [*gemini.pieces(whole)]
    if api == "cohere":
        return [*cohere.events(whole)]
    if api == "converse":
        return [{name: event} for name, event in converse.events(whole)]
    if api == "ollama":
        return [*_ollama_lines(whole)]
    return [*_chunks(whole), "data: [DONE]\n\n"] if api == "chat" else _response_events(whole)


def _ollama_lines(whole: Json) -> Iterator[Json]:
    message, model = whole["message"], whole["model"]
    for name in ("thinking", "content"):
        for piece in re.findall(r".{1,5}", message.get(name) or "", re.S):
            yield ollama.line(model, {name: piece})
    for call in message.get("tool_calls") or ():
        yield ollama.line(model, {"tool_calls": [call]})
    yield {**whole, "message": {"role": "assistant", "content": ""}}


def _chunks(whole: Json) -> Iterator[Json]:
    head: Json = {name: whole[name] for name in ("id", "created", "model") if name in whole}
    head["object"] = "chat.completion.chunk"

    def piece(index: int, delta: Json, finish: str | None = None) -> Json:
        return {**head, "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}

    for choice in whole["choices"]:
        index, message = choice["index"], dict(choice["message"])
        first = piece(index, {"role": "assistant", "content": ""})
        if choice.get("logprobs"):
            first["choices"][0]["logprobs"] = choice["logprobs"]
        yield first
        calls = message.pop("tool_calls", None) or ()
        for name, value in sorted(message.items(), key=lambda member: not member[0].startswith("reasoning")):
            if name != "role" and value:
                split = re.findall(r".{1,5}", value, re.S) if isinstance(value, str) else [value]
                yield from (piece(index, {name: one}) for one in split)
        for number, call in enumerate(calls):
            function = call["function"]
            opened = {**call, "index": number, "function": {**function, "arguments": ""}}
            yield piece(index, {"tool_calls": [opened]})
            for one in re.findall(r".{1,5}", function["arguments"], re.S):
                yield piece(index, {"tool_calls": [{"index": number, "function": {"arguments": one}}]})
        yield piece(index, {}, choice["finish_reason"])
    if whole.get("usage"):
        yield {**head, "choices": [], "usage": whole["usage"]}


def _response_events(whole: Json) -> list[Any]:
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    found: list[Json] = [{"type": "response.created", "response": begun}]
    for index, item in enumerate(whole["output"]):
        where = {"item_id": item.get("id"), "output_index": index}
        emptied: Json = {
            name: value for name, value in (("content", []), ("arguments", ""), ("input", "")) if name in item
        }
        found.append({"type": "response.output_item.added", "output_index": index, "item": {**item, **emptied}})
        for number, part in enumerate(item.get("content") or ()):
            kind = {"reasoning_text": "reasoning_text", "refusal": "refusal"}.get(part["type"], "output_text")
            said = part.get("refusal") or part.get("text") or ""
            place = {**where, "content_index": number}
            told: Json = {"logprobs": part.get("logprobs") or []} if kind == "output_text" else {}
            for one in re.findall(r".{1,5}", said, re.S):
                found.append({"type": f"response.{kind}.delta", **place, "delta": one, **told})
                told = {"logprobs": []} if told else {}
            for count, annotation in enumerate(part.get("annotations") or ()):
                cited = {"annotation_index": count, "annotation": annotation}
                found.append({"type": f"response.{kind}.annotation.added", **place, **cited})
        for name, kind in (("arguments", "function_call_arguments"), ("input", "custom_tool_call_input")):
            for one in re.findall(r".{1,5}", item.get(name) or "", re.S):
                found.append({"type": f"response.{kind}.delta", **where, "delta": one})
        found.append({"type": "response.output_item.done", "output_index": index, "item": item})
    found.append({"type": f"response.{whole['status']}", "response": whole})
    return [{**event, "sequence_number": number} for number, event in enumerate(found)]


# -- what upstreams of responses refuse --------------------------------------------------------------------------------

_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_OUTPUTS: Final = {"function_call_output": "function_call", "custom_tool_call_output": "custom_tool_call"}
_TOOL: Final = {"type", "name", "description", "parameters", "strict", "format"}


def wrong_items(body: Json) -> str:
    called: dict[str, str] = {}
    waiting: set[str] = set()
    items = body["input"]
    for number, item in enumerate(items if isinstance(items, list) else ()):
        kind = item.get("type", "message")
        if kind in _OUTPUTS.values():
            if not _ID.fullmatch(item["call_id"]):
                return f"Invalid 'input[{number}].call_id'"
            called[item["call_id"]] = kind
            waiting.add(item["call_id"])
        elif kind in _OUTPUTS:
            if called.get(item["call_id"]) != _OUTPUTS[kind]:
                return f"No tool call found for function call output with call_id {item['call_id']}."
            waiting.discard(item["call_id"])
        elif kind == "reasoning" and None in item.values():
            return "data did not match any variant of untagged enum ModelInput"
        elif kind == "message" and item["role"] == "tool":
            return "Invalid value: 'tool'."
    if waiting:
        return f"No tool output found for function call {waiting.pop()}."
    for tool in body.get("tools", ()):
        if tool["type"] in {"function", "custom"} and (unknown := set(tool) - _TOOL):
            return f"Unknown parameter: 'tools[0].{unknown.pop()}'."
    if "tool_choice" in body and not body.get("tools"):
        return "Tool choice is only allowed when tools are specified."
    return ""
