"""OpenAI's Responses API, as clients and upstreams speak it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from tests.api.compatibility.apis.common import at, data_url, from_data_url, put
from tests.api.compatibility.apis.messages import STOP
from tests.api.compatibility.conversation import (
    SCHEMA,
    TOOLS,
    Ask,
    Inexpressible,
    Json,
    Part,
    Reply,
    Turn,
    Used,
    has_member,
    joined,
    parameters_of,
)
from tests.support.apis.answers import Answer
from tests.support.apis.upstreams import framed, ordinary, stream_of, wrong_items

NAME: Final = "responses"
ENDS: Final = frozenset(("stop", "calls", "length", "refusal"))
# What the portal does for clients of other APIs, since this one cannot: it ends answers at stop sequences.
DONE_HERE: Final = frozenset(("stop",))
_OPTIONS: Final = {
    "limit": "max_output_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "tier": "service_tier",
    "user": "user",
    "cache_key": "prompt_cache_key",
    "effort": "reasoning.effort",
    "verbosity": "text.verbosity",
    "logprobs": "top_logprobs",
}
_LOGPROBS: Final = "message.output_text.logprobs"


# -- requests ----------------------------------------------------------------------------------------------------------


def write_ask(ask: Ask) -> Json:
    items = [item for turn in ask.turns for item in _items(turn)]
    body: Json = {"input": items}
    if ask.system and ask.options.get("developer"):
        items.insert(0, {"role": "developer", "content": ask.system})
    elif ask.system:
        body["instructions"] = ask.system
    for name, value in ask.options.items():
        if name in _OPTIONS:
            put(body, _OPTIONS[name], value)
        elif name == "tools":
            body["tools"] = [
                {"type": "function", "name": one, "parameters": parameters_of(one), "strict": False} for one in value
            ]
        elif name == "choice":
            tool = value.removeprefix("tool:")
            named = {"type": "function", "name": tool}
            body["tool_choice"] = named if tool != value else {"any": "required"}.get(value, value)
        elif name == "single":
            body["parallel_tool_calls"] = False
        elif name == "schema":
            put(body, "text.format", {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True})
        elif name == "json":
            put(body, "text.format", {"type": "json_object"})
        elif name == "search":
            body["tools"] = [{"type": "web_search"}]
        elif name != "developer":
            raise Inexpressible(name)
    if "logprobs" in ask.options:
        body["include"] = [_LOGPROBS]
    return body


def _items(turn: Turn) -> Iterator[Json]:
    said = [_part(part) for part in turn.parts if part.kind not in {"call", "result"}]
    if said and turn.role == "assistant":
        yield {"role": "assistant", "content": [{"type": "output_text", "text": part["text"]} for part in said]}
    elif said:
        yield {"role": "developer" if turn.role == "system" else turn.role, "content": said}
    for part in turn.parts:
        call_id = f"call_{part.name}"
        if part.kind == "call":
            arguments = json.dumps({TOOLS[part.name]: part.value})
            yield {"type": "function_call", "call_id": call_id, "name": part.name, "arguments": arguments}
        elif part.kind == "result":
            if part.failed:
                raise Inexpressible("errors in results")
            inner = [{"type": "input_text", "text": part.value}, *map(_part, part.inner)]
            output: Any = inner if part.inner else part.value
            yield {"type": "function_call_output", "call_id": call_id, "output": output}


def _part(part: Part) -> Json:
    match part.kind:
        case "text":
            return {"type": "input_text", "text": part.value}
        case "image":
            return {"type": "input_image", "image_url": data_url("image/png", part.value), "detail": "auto"}
        case "image_url":
            return {"type": "input_image", "image_url": part.value, "detail": "auto"}
        case "pdf":
            file = {"filename": "one.pdf", "file_data": data_url("application/pdf", part.value)}
            return {"type": "input_file", **file}
        case "pdf_url":
            return {"type": "input_file", "file_url": part.value}
    raise Inexpressible(part.kind)


def fault(body: Json, native: bool) -> str:
    """Why a strict upstream refuses it; what a client writes itself is passed on as it is."""
    return "" if native else wrong_items(body)


def read_ask(body: Json) -> Ask:
    found, names = Ask(system=body.get("instructions") or ""), dict[str, str]()
    given = body["input"]
    for item in [{"role": "user", "content": given}] if isinstance(given, str) else given:
        match item.get("type", "message"):
            case "function_call":
                names[item["call_id"]] = item["name"]
                value = json.loads(item["arguments"])[TOOLS[item["name"]]]
                found.turns.append(Turn("assistant", (Part("call", value, item["name"]),)))
            case "function_call_output":
                output = item["output"]
                parts = [Part("text", output)] if isinstance(output, str) else [*map(_read_part, output)]
                text = joined(part.value for part in parts if part.kind == "text")
                result = Part("result", text, names.get(item["call_id"], ""))
                found.turns.append(Turn("user", (result, *(part for part in parts if part.kind != "text"))))
            case "reasoning":
                texts = [*(item.get("content") or ()), *(item.get("summary") or ())]
                thought = Part("thought", joined(one["text"] for one in texts), item.get("encrypted_content") or "")
                found.turns.append(Turn("assistant", (thought,)))
            case "message":
                _read_message(item, found)
    found.options |= {name: value for name, path in _OPTIONS.items() if (value := at(body, path)) is not None}
    _read_tools(body, found)
    shape = at(body, "text.format") or {}
    if shape.get("type") == "json_schema" and has_member(shape["schema"], "city"):
        found.options["schema"] = True
    if shape.get("type") == "json_object":
        found.options["json"] = True
    if _LOGPROBS not in (body.get("include") or ()):
        found.options.pop("logprobs", None)
    return found


def _read_message(item: Json, found: Ask) -> None:
    content = item["content"]
    parts = [Part("text", content)] if isinstance(content, str) else [*map(_read_part, content)]
    if item["role"] in {"system", "developer"} and not found.turns:
        found.system += joined(part.value for part in parts)
    else:
        found.turns.append(Turn("system" if item["role"] == "developer" else item["role"], tuple(parts)))


def _read_tools(body: Json, found: Ask) -> None:
    tools = body.get("tools") or []
    if functions := [tool for tool in tools if tool["type"] == "function"]:
        found.options["tools"] = tuple(
            tool["name"] for tool in functions if has_member(tool["parameters"], TOOLS[tool["name"]])
        )
    if any(tool["type"] == "web_search" for tool in tools):
        found.options["search"] = True
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        found.options["choice"] = f"tool:{choice['name']}"
    elif choice:
        found.options["choice"] = {"required": "any"}.get(choice, choice)
    if body.get("parallel_tool_calls") is False:
        found.options["single"] = True


def _read_part(part: Json) -> Part:
    match part["type"]:
        case "input_text" | "output_text" | "text":
            return Part("text", part["text"])
        case "input_image":
            kind, data = from_data_url(part["image_url"])
            return Part("image" if kind == "image/png" else "image_url", data)
        case "input_file" if "file_url" in part:
            return Part("pdf_url", part["file_url"])
        case "input_file":
            kind, data = from_data_url(part["file_data"])
            return Part("pdf" if kind == "application/pdf" else kind, data)
    return Part(part["type"], "")


# -- answers -----------------------------------------------------------------------------------------------------------


def write_reply(reply: Reply) -> tuple[Json, Reply]:
    """A complete answer, and what it says in this API."""
    if reply.redacted or reply.others or reply.used.hour or reply.used.audio_in or reply.used.audio_out:
        raise Inexpressible("what responses lack")
    output: list[Json] = []
    if reply.thought or reply.signature:
        item: Json = {"type": "reasoning", "id": "rs_1", "summary": []}
        if reply.thought:
            item["summary"] = [{"type": "summary_text", "text": reply.thought}]
        output.append({**item, **({"encrypted_content": reply.signature} if reply.signature else {})})
    if reply.text or reply.refusal:
        message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
        said = replace(reply, text=f"{reply.text}{STOP} and more.") if reply.end == "sequence" else reply
        output.append({**message, "content": [_said(said)]})
    for number, part in enumerate(reply.calls):
        call = {"call_id": f"call_{number}", "name": part.name, "status": "completed"}
        arguments = json.dumps({TOOLS[part.name]: part.value})
        output.append({"type": "function_call", "id": f"fc_{number}", **call, "arguments": arguments})
    whole = {**ordinary(NAME), "output": output, "usage": _usage(reply.used)}
    if reply.end == "length":
        whole |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    return whole, replace(reply, used=reply.used.without("hour", "audio_in", "audio_out"))


def _said(reply: Reply) -> Json:
    if reply.refusal:
        return {"type": "refusal", "refusal": reply.refusal}
    part: Json = {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}
    if reply.cited:
        cited = {"url": reply.cited[0], "title": reply.cited[1], "start_index": 0, "end_index": len(reply.text)}
        part["annotations"] = [{"type": "url_citation", **cited}]
    if reply.logprobs:
        other = {"token": "Hi", "logprob": -2.0, "bytes": [72, 105]}
        part["logprobs"] = [
            {"token": "Hello", "logprob": -0.5, "bytes": [72, 101, 108, 108, 111], "top_logprobs": [other]}
        ]
    return part


def _usage(used: Used) -> Json:
    assert used.input is not None and used.output is not None
    return {
        "input_tokens": used.input,
        "input_tokens_details": {"cached_tokens": used.cached, "cache_write_tokens": used.written},
        "output_tokens": used.output,
        "output_tokens_details": {"reasoning_tokens": used.reasoning},
        "total_tokens": used.input + used.output,
    }


def events(whole: Json) -> list[bytes]:
    return [framed(NAME, event) for event in stream_of(NAME, whole)]


def error_of(text: str) -> Json:
    return {"error": {"message": text, "type": "invalid_request_error", "param": None, "code": "invalid_value"}}


def error_event(text: str) -> bytes:
    failed = {"type": "error", "code": "server_error", "message": text, "param": None, "sequence_number": 9}
    return f"event: error\ndata: {json.dumps(failed)}\n\n".encode()


def read_reply(answer: Answer) -> Reply:
    """What a client of this API is told."""
    for event in answer.events:
        failed = event if event.get("type") == "error" else event.get("error") or at(event, "response.error")
        if failed:
            assert {"message", "code"} <= failed.keys(), failed
            begun = any(one.get("type") == "response.output_text.delta" for one in answer.events)
            return Reply(error=failed["message"], begins=begun)
    final = answer.final
    messages = [item for item in final["output"] if item["type"] == "message"]
    parts = [part for item in messages for part in item["content"]]
    refused = joined(part.get("refusal") or "" for part in parts)
    cited = [one for part in parts for one in part.get("annotations") or ()]
    finish = answer.ended
    end = "refusal" if refused or finish == "content_filter" else {"tool_calls": "calls"}.get(finish, finish)
    probabilities = [one for part in parts for one in part.get("logprobs") or ()]
    return Reply(
        text=answer.said,
        thought=answer.thought,
        calls=tuple(Part("call", json.loads(given)[TOOLS[name]], name) for _, name, given in answer.calls),
        refusal=refused,
        cited=(cited[0]["url"], cited[0]["title"]) if cited else None,
        end=end,
        logprobs=any(one["token"] == "Hello" and one["top_logprobs"] for one in probabilities),
        used=_used(final["usage"]),
    )


def _used(usage: Any) -> Used:
    if usage is None:
        return Used(None, output=None)
    into, out = usage["input_tokens_details"], usage["output_tokens_details"]
    return Used(
        input=usage["input_tokens"],
        cached=into["cached_tokens"],
        written=into.get("cache_write_tokens"),
        hour=None,
        output=usage["output_tokens"],
        reasoning=out["reasoning_tokens"],
        audio_in=None,
        audio_out=None,
    )
