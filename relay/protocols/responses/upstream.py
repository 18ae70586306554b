"""A client of chat completions at an upstream that speaks responses only: the request, and the whole answer. Pure.

The stream is in `relay.protocols.responses.upstream_stream`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, encode, object_of, objects_of, text_of
from relay.protocols.fields import BadRequest, unsupported
from relay.protocols.responses.tools import functions_as_tools, response_tool_choice, response_tools
from relay.protocols.responses.usage_forms import chat_usage

_SAME: Final = (
    "temperature", "top_p", "parallel_tool_calls", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "service_tier", "metadata",
)  # fmt: skip
_TAKEN: Final = frozenset(
    (
        "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "response_format", "reasoning_effort", "verbosity", "tools", "tool_choice",
        "functions", "function_call", "logprobs", "top_logprobs", "store",
    )
)  # fmt: skip
# What would change the answer if it were left out, unless it has one of these values.
_NEEDED: Final[dict[str, tuple[object, ...]]] = {
    "n": (1,), "stop": ("", []), "logit_bias": ({},), "audio": (), "modalities": (["text"],), "prediction": (), "web_search_options": (), "moderation": (),
}  # fmt: skip
_EMPTY: Final[tuple[object, ...]] = (None, False, 0, "", [], {})


@dataclass(slots=True)
class ResponsesForm:
    """A chat request as a request of /v1/responses. `legacy`: the client speaks of functions, as before there were tools."""

    body: Json
    legacy: bool
    dropped: list[str] = field(default_factory=list)


def responses_form(request: Json, least_output: int = 1) -> ResponsesForm:
    """`least_output`: the fewest tokens that the upstream takes as a limit. Raises BadRequest."""
    for name, fine in _NEEDED.items():
        if request.get(name) is not None and request[name] not in fine:
            raise unsupported(f"The upstream of this model cannot honour “{name}”, and without it the answer would be another. Leave it out, or use another model.", name)
    instructions, items = items_of(objects_of(request, "messages"))
    body: Json = {"model": request.get("model"), "instructions": instructions, "input": items, "store": False}
    body.update({name: request[name] for name in _SAME if request.get(name) is not None})
    limits = [limit for name in ("max_completion_tokens", "max_tokens") if isinstance(limit := request.get(name), int) and limit > 0]
    if limits:
        body["max_output_tokens"] = max(min(limits), least_output)
    if request.get("reasoning_effort") is not None:
        body["reasoning"] = {"effort": request["reasoning_effort"], "summary": "auto"}
    text = _text(request)
    if text:
        body["text"] = text
    legacy = bool(objects_of(request, "functions"))
    tools = functions_as_tools(objects_of(request, "functions")) if legacy else response_tools(objects_of(request, "tools"))
    choice = response_tool_choice(request.get("function_call") if legacy else request.get("tool_choice"))
    if tools:
        body["tools"] = tools
        if choice is not None:
            body["tool_choice"] = choice
    else:
        body.pop("parallel_tool_calls", None)
    if request.get("logprobs"):
        body["include"] = ["message.output_text.logprobs"]
        if request.get("top_logprobs"):
            body["top_logprobs"] = request["top_logprobs"]
    dropped = [name for name, value in request.items() if name not in _TAKEN and name not in _SAME and name not in _NEEDED and value not in _EMPTY]
    return ResponsesForm(body, legacy, dropped)


def _text(request: Json) -> Json:
    found: Json = {}
    shape = object_of(request, "response_format")
    kind = text_of(shape, "type")
    if kind == "json_schema":
        schema = object_of(shape, "json_schema")
        found["format"] = {"type": "json_schema", **{key: schema[key] for key in ("name", "description", "schema", "strict") if schema.get(key) is not None}}
    elif kind in {"json_object", "text"}:
        found["format"] = {"type": kind}
    if request.get("verbosity") is not None:
        found["verbosity"] = request["verbosity"]
    return found


def items_of(messages: Sequence[Json]) -> tuple[str, list[Json]]:
    """Instructions, and input items. The first messages of the system are instructions; later ones stay in their place. Raises BadRequest."""
    instructions: list[str] = []
    items: list[Json] = []
    for index, message in enumerate(messages):
        role, content = text_of(message, "role"), message.get("content")
        where = f"messages[{index}]"
        if role in {"system", "developer"}:
            text = _plain(content, where)
            if items:
                items.append({"type": "message", "role": "developer", "content": [{"type": "input_text", "text": text}]})
            else:
                instructions.append(text)
        elif role == "user":
            items.append({"type": "message", "role": "user", "content": _user_parts(content, where)})
        elif role == "assistant":
            items += _assistant(message, where)
        elif role in {"tool", "function"}:
            call_id = text_of(message, "tool_call_id") or f"call_{text_of(message, 'name')}"
            items.append({"type": "function_call_output", "call_id": call_id, "output": _plain(content, where)})
        else:
            raise BadRequest(f"The role of {where} must be system, developer, user, assistant or tool.", f"{where}.role")
    return "\n\n".join(part for part in instructions if part), items


def _plain(content: object, where: str) -> str:
    if isinstance(content, str) or content is None:
        return content or ""
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    if any(text_of(part, "type") not in {"text", "refusal", ""} for part in parts) or not isinstance(content, list):
        raise BadRequest(f"The content of {where} must be text.", f"{where}.content")
    return "\n".join(text_of(part, "text") or text_of(part, "refusal") for part in parts)


def _user_parts(content: object, where: str) -> list[Json]:
    if isinstance(content, str):
        return [{"type": "input_text", "text": content}]
    if not isinstance(content, list):
        raise BadRequest(f"The content of {where} must be a text or a list of parts.", f"{where}.content")
    return [_user_part(part, f"{where}.content[{number}]") for number, part in enumerate(content) if isinstance(part, dict)]


def _user_part(part: Json, where: str) -> Json:
    kind = text_of(part, "type")
    if kind in {"text", "input_text"}:
        return {"type": "input_text", "text": text_of(part, "text")}
    if kind == "image_url":
        image = part.get("image_url")
        url, detail = (image, None) if isinstance(image, str) else (object_of(part, "image_url").get("url"), object_of(part, "image_url").get("detail"))
        return {"type": "input_image", "image_url": url, "detail": detail or "auto"}
    if kind == "file":
        file = object_of(part, "file")
        return {"type": "input_file", **{key: file[key] for key in ("filename", "file_data", "file_id") if file.get(key) is not None}}
    raise unsupported(f"The upstream of this model cannot be given a content part of the type “{kind[:60]}”. Leave it out, or use another model.", f"{where}.type")


def _assistant(message: Json, where: str) -> list[Json]:
    items: list[Json] = []
    text, refusal = _plain(message.get("content"), where), text_of(message, "refusal")
    content: list[Json] = [{"type": "output_text", "text": text}] if text else []
    if refusal:
        content.append({"type": "refusal", "refusal": refusal})
    if content:
        items.append({"type": "message", "role": "assistant", "content": content})
    for call in objects_of(message, "tool_calls"):
        custom, function = object_of(call, "custom"), object_of(call, "function")
        if custom:
            items.append({"type": "custom_tool_call", "call_id": text_of(call, "id"), "name": text_of(custom, "name"), "input": text_of(custom, "input")})
        else:
            items.append({"type": "function_call", "call_id": text_of(call, "id"), "name": text_of(function, "name"), "arguments": text_of(function, "arguments")})
    called = object_of(message, "function_call")
    if called:
        name = text_of(called, "name")
        items.append({"type": "function_call", "call_id": f"call_{name}", "name": name, "arguments": text_of(called, "arguments")})
    return items


# -- the answer ------------------------------------------------------------------------------------------------------


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


def thoughts_of(item: Json) -> str:
    """What a reasoning item shows: its summary, or, from models that show it, the reasoning itself."""
    summary = "\n\n".join(text_of(part, "text") for part in objects_of(item, "summary"))
    return summary or "\n".join(text_of(part, "text") for part in objects_of(item, "content"))


def nested_annotations(part: Json) -> list[Json]:
    """Citations as chat completions write them."""
    cited = [entry for entry in objects_of(part, "annotations") if text_of(entry, "type") == "url_citation"]
    return [{"type": "url_citation", "url_citation": {key: entry.get(key) for key in ("start_index", "end_index", "url", "title")}} for entry in cited]


def completion_of(response: Json, legacy: bool = False, completion_id: str = "") -> Json:
    """A response as a chat completion."""
    text, refusal = "", ""
    thoughts: list[str] = []
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
            thoughts.append(thoughts_of(item))
    message: Json = {"role": "assistant", "content": text or (None if calls or refusal else ""), "refusal": refusal or None, "annotations": annotations}
    finish = finish_of(response, bool(calls))
    if any(thoughts):
        message["reasoning_content"] = "\n\n".join(filter(None, thoughts))
    if calls and legacy:
        message["function_call"] = object_of(calls[0], "function")
        finish = "function_call" if finish == "tool_calls" else finish
    elif calls:
        message["tool_calls"] = calls
    choice: Json = {"index": 0, "message": message, "logprobs": {"content": logprobs, "refusal": None} if logprobs else None, "finish_reason": finish}
    created = response.get("created_at")
    found: Json = {
        "id": completion_id or f"chatcmpl-{text_of(response, 'id').removeprefix('resp_')}", "object": "chat.completion",
        "created": int(created) if isinstance(created, (int, float)) else 0,
        "model": text_of(response, "model"), "choices": [choice],
    }  # fmt: skip
    if response.get("service_tier"):
        found["service_tier"] = response["service_tier"]
    if isinstance(response.get("usage"), dict):
        found["usage"] = chat_usage(object_of(response, "usage"))
    return found


def body_of(form: ResponsesForm, stream: bool) -> bytes:
    """The bytes to send."""
    return encode({**form.body, **({"stream": True} if stream else {})})
