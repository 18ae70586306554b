"""OpenAI's chat completions, as clients and upstreams speak them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from tests.api.compatibility.apis.common import at, data_url, from_data_url, merged, put
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
from tests.protocols.chat_rules import refusal
from tests.support.apis.answers import Answer
from tests.support.apis.turns import message_of_chat
from tests.support.apis.upstreams import framed, stream_of, whole_answer

NAME: Final = "chat"
ENDS: Final = frozenset(("stop", "calls", "length", "refusal"))
_OPTIONS: Final = {
    "limit": "max_completion_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "penalty": "presence_penalty",
    "seed": "seed",
    "count": "n",
    "tier": "service_tier",
    "user": "user",
    "cache_key": "prompt_cache_key",
    "effort": "reasoning_effort",
    "verbosity": "verbosity",
    "stop": "stop",
    "logprobs": "top_logprobs",
}
_SHAPE: Final[Json] = {"name": "answer", "schema": SCHEMA, "strict": True}
_FINISHES: Final = {"stop": "stop", "calls": "tool_calls", "length": "length", "sequence": "stop", "refusal": "stop"}
_MARK: Final = {"cache_control": {"type": "ephemeral"}}


# -- requests ----------------------------------------------------------------------------------------------------------


def write_ask(ask: Ask) -> Json:
    messages: list[Json] = []
    if ask.system:
        role = "developer" if ask.options.get("developer") else "system"
        marked = [{"type": "text", "text": ask.system, **_MARK}] if ask.options.get("cache_mark") else ask.system
        messages.append({"role": role, "content": marked})
    for turn in ask.turns:
        messages += _messages(turn)
    body: Json = {"messages": messages}
    for name, value in ask.options.items():
        if name in _OPTIONS:
            put(body, _OPTIONS[name], value)
        elif name == "tools":
            body["tools"] = [
                {"type": "function", "function": {"name": one, "parameters": parameters_of(one)}} for one in value
            ]
        elif name == "choice":
            tool = value.removeprefix("tool:")
            named = {"type": "function", "function": {"name": tool}}
            body["tool_choice"] = named if tool != value else {"any": "required"}.get(value, value)
        elif name == "single":
            body["parallel_tool_calls"] = False
        elif name == "schema":
            body["response_format"] = {"type": "json_schema", "json_schema": _SHAPE}
        elif name == "json":
            body["response_format"] = {"type": "json_object"}
        elif name == "search":
            body["web_search_options"] = {"search_context_size": "low"}
        elif name not in {"developer", "cache_mark"}:
            raise Inexpressible(name)
    if "logprobs" in ask.options:
        body["logprobs"] = True
    return body


def _messages(turn: Turn) -> Iterator[Json]:
    results = [part for part in turn.parts if part.kind == "result"]
    for part in results:
        if part.inner or part.failed:
            raise Inexpressible("pictures and errors in results")
        yield {"role": "tool", "tool_call_id": f"call_{part.name}", "content": part.value}
    rest = [part for part in turn.parts if part.kind != "result"]
    calls = [part for part in rest if part.kind == "call"]
    said = [_part(part) for part in rest if part.kind != "call"]
    if not rest:
        return
    only_text = len(said) == 1 and said[0]["type"] == "text"
    message: Json = {"role": turn.role, "content": said[0]["text"] if only_text else said or None}
    if calls:
        message["tool_calls"] = [_call(part, f"call_{part.name}") for part in calls]
    yield message


def _part(part: Part) -> Json:
    match part.kind:
        case "text":
            return {"type": "text", "text": part.value}
        case "image":
            return {"type": "image_url", "image_url": {"url": data_url("image/png", part.value)}}
        case "image_url":
            return {"type": "image_url", "image_url": {"url": part.value}}
        case "pdf":
            file = {"filename": "one.pdf", "file_data": data_url("application/pdf", part.value)}
            return {"type": "file", "file": file}
        case "audio":
            return {"type": "input_audio", "input_audio": {"data": part.value, "format": "wav"}}
    raise Inexpressible(part.kind)


def _call(part: Part, ident: str) -> Json:
    arguments = json.dumps({TOOLS[part.name]: part.value})
    return {"id": ident, "type": "function", "function": {"name": part.name, "arguments": arguments}}


def fault(body: Json, native: bool) -> str:
    """Why a strict upstream refuses it; what a client writes itself is passed on as it is."""
    return "" if native else refusal(body)


def read_ask(body: Json) -> Ask:
    found, names = Ask(), dict[str, str]()
    for message in body["messages"]:
        role, content = message["role"], message.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
        if role in {"system", "developer"} and not found.turns:
            found.system += joined(part["text"] for part in parts)
            if any("cache_control" in part for part in parts):
                found.options["cache_mark"] = True
            continue
        if role == "tool":
            text = joined(part["text"] for part in parts if part["type"] == "text")
            said = [Part("result", text, names.get(message["tool_call_id"], ""))]
            said += [_read_part(part) for part in parts if part["type"] != "text"]
            found.turns.append(Turn("user", tuple(said)))
            continue
        said = [_read_part(part) for part in parts]
        if thought := message.get("reasoning_content"):
            said.insert(0, Part("thought", thought))
        for call in message.get("tool_calls") or ():
            names[call["id"]] = call["function"]["name"]
            said.append(_read_call(call))
        found.turns.append(Turn("system" if role == "developer" else role, tuple(said)))
    found.options |= {name: value for name, path in _OPTIONS.items() if (value := at(body, path)) is not None}
    tools = [tool["function"] for tool in body.get("tools", ()) if tool["type"] == "function"]
    if tools:
        found.options["tools"] = tuple(
            tool["name"] for tool in tools if has_member(tool["parameters"], TOOLS[tool["name"]])
        )
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        found.options["choice"] = f"tool:{choice['function']['name']}"
    elif choice:
        found.options["choice"] = {"required": "any"}.get(choice, choice)
    if body.get("parallel_tool_calls") is False:
        found.options["single"] = True
    shape = body.get("response_format") or {}
    if shape.get("type") == "json_schema" and has_member(shape["json_schema"]["schema"], "city"):
        found.options["schema"] = True
    if shape.get("type") == "json_object":
        found.options["json"] = True
    if body.get("web_search_options"):
        found.options["search"] = True
    if not body.get("logprobs"):
        found.options.pop("logprobs", None)
    if isinstance(found.options.get("stop"), str):
        found.options["stop"] = [found.options["stop"]]
    return found


def _read_part(part: Json) -> Part:
    match part["type"]:
        case "text":
            return Part("text", part["text"])
        case "image_url":
            url = part["image_url"]["url"]
            return Part("image", from_data_url(url)[1]) if url.startswith("data:image/png") else Part("image_url", url)
        case "file":
            kind, data = from_data_url(part["file"]["file_data"])
            return Part("pdf" if kind == "application/pdf" else kind, data)
        case "input_audio" if part["input_audio"]["format"] == "wav":
            return Part("audio", part["input_audio"]["data"])
    return Part(part["type"], "")


def _read_call(call: Json) -> Part:
    name = call["function"]["name"]
    return Part("call", json.loads(call["function"]["arguments"])[TOOLS[name]], name)


# -- answers -----------------------------------------------------------------------------------------------------------


def write_reply(reply: Reply) -> tuple[Json, Reply]:
    """A complete answer, and what it says in this API."""
    if reply.signature or reply.redacted or reply.used.hour:
        raise Inexpressible("signatures")
    message: Json = {"role": "assistant", "content": reply.text or None}
    if reply.refusal:
        message |= {"content": None, "refusal": reply.refusal}
    if reply.thought:
        message["reasoning_content"] = reply.thought
    if reply.cited:
        cited = {"url": reply.cited[0], "title": reply.cited[1], "start_index": 0, "end_index": len(reply.text)}
        message["annotations"] = [{"type": "url_citation", "url_citation": cited}]
    if reply.calls:
        message["tool_calls"] = [_call(part, f"call_{number}") for number, part in enumerate(reply.calls)]
    whole = whole_answer(NAME, {"message": message, "finish_reason": _FINISHES[reply.end]})
    first = whole["choices"][0]
    if reply.logprobs:
        other = {"token": "Hi", "logprob": -2.0, "bytes": None}
        one = {"token": "Hello", "logprob": -0.5, "bytes": None, "top_logprobs": [other]}
        first["logprobs"] = {"content": [one], "refusal": None}
    for index, text in enumerate(reply.others, 1):
        other = {**first, "index": index, "message": {"role": "assistant", "content": text}}
        whole["choices"].append(other)
    whole["usage"] = _usage(reply.used)
    end = "stop" if reply.end == "sequence" else reply.end
    return whole, Reply(**{**vars(reply), "end": end, "used": reply.used.without("hour")})


def _usage(used: Used) -> Json:
    assert used.input is not None and used.output is not None
    into: Json = {"cached_tokens": used.cached, "audio_tokens": used.audio_in}
    into |= {"cache_write_tokens": used.written} if used.written else {}
    return {
        "prompt_tokens": used.input,
        "completion_tokens": used.output,
        "total_tokens": used.input + used.output,
        "prompt_tokens_details": into,
        "completion_tokens_details": {"reasoning_tokens": used.reasoning, "audio_tokens": used.audio_out},
    }


def events(whole: Json) -> list[bytes]:
    return [framed(NAME, event) for event in stream_of(NAME, whole)]


def error_of(text: str) -> Json:
    return {"error": {"message": text, "type": "invalid_request_error", "param": None, "code": "invalid_value"}}


def error_event(text: str) -> bytes:
    failed = {"message": text, "type": "server_error", "param": None, "code": "server_error"}
    return f"data: {json.dumps({'error': failed})}\n\n".encode()


def read_reply(answer: Answer) -> Reply:
    """What a client of this API is told."""
    failed = next((event["error"] for event in answer.events if "error" in event), None)
    if failed:
        assert {"message", "type", "param", "code"} <= failed.keys(), failed
        return Reply(text=answer.said, error=failed["message"], begins=bool(answer.said))
    message = message_of_chat(answer.events)
    choices = [choice for event in answer.events for choice in event.get("choices") or ()]
    texts: dict[int, str] = {}
    for choice in choices:
        told = choice.get("delta") or choice.get("message") or {}
        texts[choice["index"]] = texts.get(choice["index"], "") + (told.get("content") or "")
    finish = answer.finish
    refused = message.get("refusal") or ""
    end = "refusal" if refused or finish == "content_filter" else {"tool_calls": "calls"}.get(finish, finish)
    cited = [one["url_citation"] for one in message.get("annotations") or ()]
    probabilities = merged(choice.get("logprobs") for choice in choices)
    return Reply(
        text=texts.get(0, ""),
        thought=answer.thought,
        calls=tuple(Part("call", json.loads(given)[TOOLS[name]], name) for _, name, given in answer.calls),
        refusal=refused,
        cited=(cited[0]["url"], cited[0]["title"]) if cited else None,
        end=end,
        others=tuple(text for index, text in sorted(texts.items()) if index),
        logprobs=any(one["token"] == "Hello" and one["top_logprobs"] for one in probabilities.get("content") or ()),
        used=_used(next((event["usage"] for event in answer.events if event.get("usage")), None)),
    )


def _used(usage: Any) -> Used:
    if usage is None:
        return Used(None, output=None)
    into, out = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    return Used(
        input=usage["prompt_tokens"],
        cached=into.get("cached_tokens", 0),
        written=into.get("cache_write_tokens", 0),
        hour=None,
        output=usage["completion_tokens"],
        reasoning=out.get("reasoning_tokens", 0),
        audio_in=into.get("audio_tokens", 0),
        audio_out=out.get("audio_tokens", 0),
    )
