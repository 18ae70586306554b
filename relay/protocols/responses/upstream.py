"""Upstreams that speak the Responses API, for clients of other APIs: a hub request as theirs, and their whole answer as a completion. Pure.

The stream is in `relay.protocols.responses.upstream_stream`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from portal.lib.json import Json, decode_object, encode, object_of, objects_of, text_of
from relay.protocols.chat_completions.hub import CITATIONS, DOCUMENT, RAW, THINKING, refusal_of
from relay.protocols.contract import Completion, Dialect, Form
from relay.protocols.fields import BadRequest, unsupported
from relay.protocols.responses.answer import completion_of, parse_responses_answer
from relay.protocols.responses.request import PROTOCOL
from relay.protocols.responses.stream import joined
from relay.protocols.responses.tools import response_tool_choice, response_tools
from relay.protocols.responses.upstream_stream import ResponsesDecoder

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


class ResponsesUpstream:
    """The Responses API as upstreams speak it."""

    api = "responses"
    answer_name = "a response"

    def request(self, hub: Json, dialect: Dialect) -> Form:
        return Form(*responses_request(hub, dialect.least_output))

    def limit(self, body: Json, tokens: int, dialect: Dialect) -> None:
        body["max_output_tokens"] = max(tokens, dialect.least_output)

    def encode(self, body: Json, stream: bool, dialect: Dialect) -> bytes:
        return encode({**body, "stream": True} if stream else body)

    def completion(self, body: bytes) -> Completion | None:
        text, error = joined(body)
        if error is not None:
            return Completion(None, None, error)
        answer = parse_responses_answer(text)
        if answer is None:
            return None
        if answer.is_error or answer.failed:
            return Completion(None, None, text)
        response = decode_object(text)
        return Completion(completion_of(response), answer.usage) if response is not None else None

    def decoder(self, dialect: Dialect) -> ResponsesDecoder:
        return ResponsesDecoder()


def responses_request(request: Json, least_output: int = 1) -> tuple[Json, list[str]]:
    """A hub request as a request of /v1/responses, and the parameters that are left out.

    `least_output`: the fewest tokens that the upstream takes as a limit. Raises BadRequest.
    """
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
    tools = response_tools(objects_of(request, "tools"))
    choice = response_tool_choice(request.get("tool_choice"))
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
    return body, dropped


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
            items += [_reasoning(thought) for thought in objects_of(message, THINKING)]
            items += _assistant(message, where)
        elif role == "tool":
            items.append({"type": "function_call_output", "call_id": text_of(message, "tool_call_id"), "output": _plain(content, where)})
        elif role == RAW:
            items.append(_raw(message))
        else:
            raise BadRequest(f"The role of {where} must be system, developer, user, assistant or tool.", f"{where}.role")
    return "\n\n".join(part for part in instructions if part), items


def _raw(block: Json) -> Json:
    """What only one API knows: given back to it as it was, refused for any other. Raises BadRequest."""
    raw = object_of(block, RAW)
    if text_of(raw, "protocol") != PROTOCOL:
        raise refusal_of(block)
    return object_of(raw, "value")


def _reasoning(thought: Json) -> Json:
    """Thoughts as the item that they were."""
    item: Json = {"type": "reasoning", "summary": [{"type": "summary_text", "text": text} for text in _strings(thought, "summary")]}
    if text_of(thought, "id"):
        item["id"] = thought["id"]
    if texts := _strings(thought, "text"):
        item["content"] = [{"type": "reasoning_text", "text": text} for text in texts]
    if thought.get("signature"):
        item["encrypted_content"] = thought["signature"]
    return item


def _strings(holder: Json, name: str) -> list[str]:
    found = holder.get(name)
    return [entry for entry in found if isinstance(entry, str)] if isinstance(found, list) else []


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
    if kind == DOCUMENT:
        named = object_of(part, DOCUMENT)
        return {"type": "input_file", "file_url": named.get("url"), **({"filename": named["filename"]} if named.get("filename") is not None else {})}
    if kind == RAW:
        return _raw(part)
    raise unsupported(f"The upstream of this model cannot be given a content part of the type “{kind[:60]}”. Leave it out, or use another model.", f"{where}.type")


def _assistant(message: Json, where: str) -> list[Json]:
    items: list[Json] = []
    text, refusal = _plain(message.get("content"), where), text_of(message, "refusal")
    content: list[Json] = [{"type": "output_text", "text": text}] if text else []
    if content and objects_of(message, CITATIONS):
        content[0]["annotations"] = objects_of(message, CITATIONS)
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
    return items
